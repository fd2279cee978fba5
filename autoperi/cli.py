"""The command line. Each command imports what it needs when it runs, so that help is instant."""

import os
import sys

from autoperi.commands import arguments, console
from autoperi.commands.benchmark import Benchmark
from autoperi.commands.encode import Encode
from autoperi.commands.evaluate import Evaluate
from autoperi.commands.info import Info
from autoperi.commands.predict import Predict
from autoperi.commands.relax import Relax
from autoperi.commands.sample import Sample
from autoperi.commands.train import Train
from autoperi.commands.train_property import TrainProperty

_ABOUT = """Generate crystals that keep their space group exactly, judge them, and predict their properties.

Begin with sample, then evaluate what it drew. AUTOPERI_DATA names the folder of the data sets.

The options and examples of a command: autoperi COMMAND --help
"""

_COMMANDS = {
    "sample": Sample,
    "evaluate": Evaluate,
    "benchmark": Benchmark,
    "relax": Relax,
    "predict": Predict,
    "encode": Encode,
    "train": Train,
    "train-property": TrainProperty,
    "info": Info,
}


def main() -> None:
    """Entry point of ``autoperi``; user errors are one line and exit status 2."""
    command = arguments.parse(_COMMANDS, _ABOUT)
    try:
        status = command.run()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        if os.environ.get("AUTOPERI_DEBUG"):
            raise
        console.complain(f"autoperi: {error}")
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
