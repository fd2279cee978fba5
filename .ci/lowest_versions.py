"""Print the lowest version that pyproject.toml allows of each direct dependency, as constraints for pip.

    python .ci/lowest_versions.py > lowest.txt && pip install -c lowest.txt ".[dev]"

Left out are torch, whose old wheels of the public index need CUDA, and the tools of development.
"""

import re
import tomllib
from pathlib import Path

LEFT_OUT = {"torch"}

if __name__ == "__main__":
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        found = re.fullmatch(r"([\w.-]+)>=([\w.]+)(,.*)?", requirement)
        if found is None:
            raise ValueError(
                f"expected NAME>=VERSION in the dependencies of pyproject.toml: got {requirement!r}"
            )
        if found[1] not in LEFT_OUT:
            print(f"{found[1]}=={found[2]}")
