"""The crystal files of a path: one file, a folder, a zip or tar archive; what they unpack to is bounded."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autoperi.data.reading.rows import ReadError, one_line

SUFFIXES = (
    *(".csv", ".cif", ".mcif", ".extxyz", ".xyz", ".json", ".jsonl"),
    *(".vasp", ".poscar", ".npz", ".pt", ".db"),
)
MAX_UNPACKED = 512 * 2**20
"""Bytes that the compressed files of one path may unpack to, all together."""
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
"""What the decompressors raise for a file that is cut or altered."""
_WHOLE = ("crystals.extxyz", "crystals.extxyz.gz", "relaxed.extxyz")
"""Files of ours that hold all that is in their folder: the CIFs beside them are the same crystals."""
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


@dataclass(frozen=True)
class CrystalFile:
    """One file that may hold crystals.

    Attributes:
        name: path within the folder or archive, for messages.
        kind: one of ``SUFFIXES``, ``.poscar`` for POSCAR and CONTCAR; empty: not a crystal file.
        open: gives its content, unpacked.
        why_not: why it cannot or should not be read, if that is known before.
    """

    name: str
    kind: str
    open: Callable[[], io.BufferedIOBase]
    why_not: str = ""

    @property
    def stem(self) -> str:
        """Name without folder and suffix."""
        name = PurePosixPath(self.name).name.removesuffix(".gz")
        return name[: -len(self.kind)] if self.kind and name.lower().endswith(self.kind) else name


def whole_file(path: Path) -> Path:
    """The file that holds all crystals of a folder that ``sample`` or ``relax`` wrote; else the path."""
    return next((path / name for name in _WHOLE if (path / name).is_file()), path)


def crystal_files(path: Path) -> Iterator[CrystalFile]:
    """Every file at a path, also those without crystals: their ``kind`` is empty.

    Hidden files are left out. Links that lead out of a folder, and links and devices of an archive, have a
    ``why_not``.

    Raises:
        ReadError: a single file of a kind that is not known.
    """
    budget = _Budget(MAX_UNPACKED)
    kind = kind_of(path.name)
    if path.is_dir():
        yield from _folder(path, budget)
    elif kind:
        yield CrystalFile(one_line(path.name), kind, lambda: _unpacked(path.open("rb"), budget))
    elif path.name.lower().endswith(".zip") or zipfile.is_zipfile(path):
        yield from _zip(path, budget)
    elif _is_tar(path, _Budget(MAX_UNPACKED)):
        yield from _tar(path, budget)
    else:
        raise ReadError(
            f"cannot tell the format of {one_line(path.name)}: expected a folder, a zip or tar archive, "
            f"POSCAR*, CONTCAR* or a file ending in {', '.join(SUFFIXES)} (or .gz); "
            "rename it to say what it holds"
        )


def kind_of(name: str) -> str:
    """Suffix that says what a file holds; empty for files that hold no crystals."""
    stem = PurePosixPath(name).name.lower().removesuffix(".gz")
    if stem.startswith(("poscar", "contcar")):
        return ".poscar"
    suffix = PurePosixPath(stem).suffix
    return suffix if suffix in SUFFIXES else ""


def as_text(stream: io.BufferedIOBase, newline: str | None = None) -> io.TextIOWrapper:
    """The text of a file: UTF-8 with or without mark, bytes that are none as Latin-1."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="autoperi-latin-1", newline=newline)  # pyright: ignore[reportArgumentType]


def _latin_1(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8 as Latin-1."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("autoperi-latin-1", _latin_1)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in PurePosixPath(name).parts) or (
        "__MACOSX" in PurePosixPath(name).parts
    )


def _folder(path: Path, budget: "_Budget") -> Iterator[CrystalFile]:
    root = path.resolve()
    found = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    for file in sorted(found):
        relative = file.relative_to(path).as_posix()
        if _hidden(relative):
            continue
        why_not = ""
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            why_not = "a link that leads out of the folder"
        elif not file.is_file():
            why_not = "not a regular file"
        name = one_line(relative)
        yield CrystalFile(
            name, kind_of(name), lambda file=file: _unpacked(file.open("rb"), budget), why_not=why_not
        )


def _zip(path: Path, budget: "_Budget") -> Iterator[CrystalFile]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda m: m.filename):
            name = one_line(member.filename)
            if member.is_dir() or _hidden(name):
                continue
            linked = (member.external_attr >> 16) & 0o170000 == 0o120000
            yield CrystalFile(
                name,
                kind_of(name),
                lambda member=member: _unpacked(budget.metered(archive.open(member)), budget),
                why_not="a link" if linked else "",
            )


def _tar(path: Path, budget: "_Budget") -> Iterator[CrystalFile]:
    """Members in the archive's own order: a compressed one cannot be read twice cheaply."""
    with _tar_stream(path, budget) as archive:
        for member in archive:
            name = one_line(member.name)
            if member.isdir() or _hidden(name):
                continue

            def content(member: tarfile.TarInfo = member) -> io.BufferedIOBase:
                stream = archive.extractfile(member)
                assert stream is not None  # only regular members are opened
                return _unpacked(budget.metered(stream), budget)

            why_not = "" if member.isreg() else "a link" if member.islnk() or member.issym() else "a device"
            yield CrystalFile(name, kind_of(name), content, why_not)


@contextmanager
def _tar_stream(path: Path, budget: "_Budget") -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        stream = stack.enter_context(_unpacked(path.open("rb"), budget))
        yield stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))


def _is_tar(path: Path, budget: "_Budget") -> bool:
    try:
        with _tar_stream(path, budget):
            return True
    except (*DAMAGED, ReadError):
        return path.name.lower().endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"))


class _Budget:
    """How many bytes may still be unpacked."""

    def __init__(self, left: int) -> None:
        self.left = left

    def metered(self, stream: Any) -> io.BufferedIOBase:
        return io.BufferedReader(_Metered(stream, self), 2**17)


class _Metered(io.RawIOBase):
    """A stream whose bytes are taken from a budget."""

    def __init__(self, stream: Any, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read1(len(buffer))  # what can be had, before a cut end is found
        self._budget.left -= len(data)
        if self._budget.left < 0:
            raise ReadError(
                f"unpacks to more than {MAX_UNPACKED >> 20} MiB, the most of what is compressed: "
                "unpack it and read the folder"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _unpacked(stream: io.BufferedIOBase, budget: _Budget) -> io.BufferedIOBase:
    """The content of a file, decompressed if its first bytes say that it is compressed."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[arg-type]
    first = buffered.peek(6)[:6]
    for magic, unpack in _PACKED.items():
        if first.startswith(magic):
            return budget.metered(unpack(buffered))
    return buffered
