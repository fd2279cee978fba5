"""The command line. Each command imports what it needs when it runs, so that help is instant."""

import dis
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from tomllib import TOMLDecodeError
from types import FrameType, TracebackType
from typing import Any

from autoperi.commands import arguments, console
from autoperi.commands.benchmark import Benchmark
from autoperi.commands.csp import Csp
from autoperi.commands.discover import Discover
from autoperi.commands.edit import Edit
from autoperi.commands.encode import Encode
from autoperi.commands.evaluate import Evaluate
from autoperi.commands.info import Info
from autoperi.commands.interpolate import Interpolate
from autoperi.commands.optimise import Optimise
from autoperi.commands.predict import Predict
from autoperi.commands.relax import Relax
from autoperi.commands.sample import Sample
from autoperi.commands.train import Train
from autoperi.commands.train_property import TrainProperty

_ABOUT = """Generate crystals that keep their space group exactly, judge them, and predict their properties.

Begin with sample, then evaluate what it drew. AUTOPERI_DATA names the folder of the data sets.

The options and examples of a command: autoperi COMMAND --help
"""

_ROOMS = ("autoperi", "evaluation", "property_models")
_SITE = Path(__file__).parents[1]
"""Where they lie."""
_CARRIER = "autoperi.data.workers"
"""Raises what other processes have raised, which may be anything."""
_REMEDIES = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EROFS: "give a place that can be written",
    errno.EACCES: "give a place that is permitted",
    errno.EPERM: "give a place that is permitted",
}
_COMMANDS = {
    "sample": Sample,
    "csp": Csp,
    "discover": Discover,
    "edit": Edit,
    "interpolate": Interpolate,
    "optimise": Optimise,
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
    """Entry point of ``autoperi``."""
    sys.exit(status_of(arguments.parse(_COMMANDS, _ABOUT).run))


def status_of(work: Callable[[], int]) -> int:
    """Exit status of a command's work; user errors are one line and 2, an interruption 130."""
    try:
        with _interruptions(), _warnings_in_words():
            return work()
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        console.complain("autoperi: interrupted; the same command goes on with what it has left behind")
        return 128 + number
    except Exception as error:
        told = _in_words(error)
        if told is None or os.environ.get("AUTOPERI_DEBUG"):
            raise
        console.complain(f"autoperi: {told}")
        return 2


@contextmanager
def _interruptions() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does, so that folders and processes are left in order."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    heeded = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """What the rooms warn of is one line, as an error is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # pymatgen, of argon
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *place: Any) -> None:
            here = any(Path(filename).is_relative_to(_SITE / room) for room in _ROOMS)
            if here or category.__module__.split(".")[0] in _ROOMS:
                console.complain(f"autoperi: {message}", "yellow")
            else:
                shown(message, category, filename, *place)

        warnings.showwarning = show
        yield


def _in_words(error: Exception) -> str | None:
    """What the user can do something about; None for a fault of the program.

    That is what the rooms raise on purpose, what the operating system refuses, and what is missing on this
    machine: memory, a graphics card, a home.
    """
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0)
        return f"{place}{error.strerror}" + (f"; {remedy}" if remedy else "")
    if isinstance(error, OSError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: ask for less at once ({_first_line(error)})"
    if isinstance(error, AssertionError | RuntimeError) and _lacks_cuda(error):
        return f"no CUDA device here: leave --device out, or use cpu ({_first_line(error)})"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return f"no home folder ({_first_line(error)}): set HOME, or AUTOPERI_CACHE and full paths"
    not_as_it_should_be = isinstance(error, JSONDecodeError | TOMLDecodeError | UnicodeDecodeError)
    if not_as_it_should_be or type(error).__module__ == "pandas.errors":
        return f"a file is not what it should be: {error}"
    if not isinstance(error, AssertionError) and _on_purpose(error.__traceback__):
        return str(error)
    return None


def _lacks_cuda(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    said = str(error)
    return ("CUDA" in said or "NVIDIA" in said) and torch is not None and not torch.cuda.is_available()


def _on_purpose(trace: TracebackType | None) -> bool:
    """Whether the error comes from a ``raise`` in one of the rooms."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "")
    if module.split(".")[0] not in _ROOMS or module == _CARRIER:
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


if __name__ == "__main__":
    main()
