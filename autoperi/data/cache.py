"""The cache on disk: its folder, files that are whole or not there, entries that heal, versions for keys."""

import glob
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import pooch
from safetensors import SafetensorError

T = TypeVar("T")

DAMAGED = (
    *(OSError, ValueError, TypeError, KeyError, EOFError),
    *(zipfile.BadZipFile, zlib.error, SafetensorError),
)
"""What numpy, pandas, json and safetensors raise on a file that is empty, cut, incomplete or another's."""


def cache_folder() -> Path:
    """Where downloads and all that is computed once are kept: ``AUTOPERI_CACHE``, or the user's cache."""
    return Path(os.environ.get("AUTOPERI_CACHE") or pooch.os_cache("autoperi")).expanduser()


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A path beside a file, to write to; it becomes the file at the end, or leaves nothing on an error.

    What killed writers of the same file left behind is removed. A writer that is overtaken by another finds
    the file finished.

    Raises:
        OSError: the folder cannot be made or written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        yield part
        try:
            part.replace(file)
        except FileNotFoundError:  # the writer that was first has taken this for left behind
            if not file.exists():
                raise
        for other in file.parent.glob(f"{glob.escape(file.name)}.*.part"):
            other.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)


def cached(
    file: Path, read: Callable[[Path], T], make: Callable[[], T], write: Callable[[Path, T], object]
) -> T:
    """What a file of the cache holds; made and kept where it is missing or damaged.

    Args:
        file: the entry; its name holds a hash of all that the value depends on.
        read: gives the value, and raises ValueError or KeyError where parts are missing or disagree.
        make: computes the value.
        write: writes the value to a path.

    A cache that cannot be written costs a warning: the value is computed and not kept.
    """
    if file.exists():
        try:
            return read(file)
        except DAMAGED as error:
            warnings.warn(f"{file} is damaged ({_first_line(error)}): it is made again", stacklevel=3)
    value = make()
    keep(file, lambda part: write(part, value))
    return value


def keep(file: Path, write: Callable[[Path], object]) -> bool:
    """Write an entry of the cache whole; False, with a warning, where the cache cannot be written."""
    try:
        with written_whole(file) as part:
            write(part)
    except OSError as error:
        warn_not_kept(file, error)
        return False
    return True


def warn_not_kept(file: Path, error: Exception) -> None:
    """Say that the cache cannot be written, and what to do."""
    reason = error.strerror if isinstance(error, OSError) else error
    warnings.warn(
        f"the cache {file.parent} cannot be written ({reason}): what was computed is not kept; set "
        "AUTOPERI_CACHE to a folder that can be",
        stacklevel=1,  # one place, so that it is said once
    )


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each package, or ``not installed``."""
    return {name: _version(name) for name in packages}


def required(package: str, extra: str) -> None:
    """Raise ImportError, with what to install, unless a package of an extra is there; it is not imported."""
    if find_spec(package) is None:
        raise ImportError(f"expected the package {package}: pip install 'autoperi-gnn[{extra}]'")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
