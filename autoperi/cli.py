"""The command line: arguments in, one call into a room, files and a table out. No logic of its own.

The one file that may import every room; each command imports what it needs when it runs.
"""

import os
import sys

import tyro

from autoperi.commands import console
from autoperi.commands.benchmark import Benchmark
from autoperi.commands.encode import Encode
from autoperi.commands.evaluate import Evaluate
from autoperi.commands.info import Info
from autoperi.commands.predict import Predict
from autoperi.commands.relax import Relax
from autoperi.commands.sample import Sample
from autoperi.commands.train import Train
from autoperi.commands.train_property import TrainProperty

_COMMANDS = {
    "sample": Sample,
    "train": Train,
    "encode": Encode,
    "evaluate": Evaluate,
    "benchmark": Benchmark,
    "predict": Predict,
    "train-property": TrainProperty,
    "relax": Relax,
    "info": Info,
}


def main() -> None:
    """Entry point of ``autoperi``; user errors are one line and exit status 2."""
    command = tyro.extras.subcommand_cli_from_dict(_COMMANDS, prog="autoperi", description=__doc__)
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
