import subprocess
from pathlib import Path

import pytest

from autoperi.generator import load
from autoperi.training.assemble import commit, refuse_other_scales

ROOT = Path(__file__).parents[3]


def test_one_scale_of_lattice_coordinates():
    """The shipped parts agree; a tenth of a spread apart they mean different cells, and are refused."""
    generator = load("mp_20")
    refuse_other_scales(generator)
    generator.flow.velocity.scale.mean[3, 5] += 0.1 * generator.flow.velocity.scale.spread[3, 5]
    with pytest.raises(ValueError, match=r"they are 0\.1 spreads apart"):
        refuse_other_scales(generator)


def test_the_commit_is_that_of_the_checkout():
    asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("the tests do not lie in a git checkout")
    assert commit().startswith(asked.stdout.strip())
