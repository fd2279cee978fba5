"""Finds the crystal files at a path, in a folder or in an archive, and cuts each into items."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from evaluation.reading.formats import SUFFIXES, RawItem, cut, format_of

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def raw_items(path: Path, ignored: list[str]) -> Iterator[RawItem]:
    """Every item at a path; names of files with no known suffix are appended to `ignored`.

    Raises:
        FileNotFoundError: when there is nothing at the path.
        ValueError: when a single file has no known suffix.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    if path.is_dir():
        yield from _folder_items(path, ignored)
    elif path.name.lower().endswith(_ARCHIVES):
        yield from _archive_items(path, ignored)
    elif not format_of(path.name):
        raise ValueError(
            f"cannot tell the format of {path.name}: expected a folder, {', '.join(_ARCHIVES)}, POSCAR*, "
            f"CONTCAR* or one of {', '.join(SUFFIXES)}, optionally with .gz"
        )
    else:
        yield from _guarded(path.name, path.read_bytes(), single=True)


def _folder_items(path: Path, ignored: list[str]) -> Iterator[RawItem]:
    for name in ("crystals.extxyz", "crystals.extxyz.gz", "relaxed.extxyz"):
        if (path / name).is_file():
            yield from _guarded(name, (path / name).read_bytes(), single=True)
            return
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            continue
        if format_of(name):
            yield from _guarded(name, file.read_bytes())
        else:
            ignored.append(name)


def _archive_items(path: Path, ignored: list[str]) -> Iterator[RawItem]:
    members = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
    found = 0
    try:
        for name, read in members:
            found += 1
            base = PurePosixPath(name).name
            if name.startswith("__MACOSX") or base.startswith("."):
                continue
            if not format_of(name):
                ignored.append(name)
                continue
            try:
                data = read()
            except Exception as error:
                yield RawItem(name, "error", f"{type(error).__name__}: {error}")
                continue
            yield from _guarded(name, data)
    except Exception as error:  # a torn archive ends what can be listed
        where = f"{path.name} after file {found}" if found else path.name
        yield RawItem(where, "error", f"damaged archive: {type(error).__name__}: {error}")


def _zip_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith("/"):
                yield name, partial(archive.read, name)


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files of a tar archive in its own order: a compressed one cannot be read twice cheaply."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile():
                yield member.name, partial(_tar_read, archive, member)


def _tar_read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None  # isfile() holds
    return stream.read()


def _guarded(name: str, data: bytes, single: bool = False) -> Iterator[RawItem]:
    """Items of one file; what breaks the file off becomes an item of its own."""
    found = 0
    try:
        for item in cut(name, data):
            found += 1
            if item.id:
                yield item if single else RawItem(f"{name}/{item.id}", item.kind, item.payload)
            else:
                yield RawItem(name, item.kind, item.payload)
    except Exception as error:
        where = f"{name} after item {found}" if found else name
        yield RawItem(where, "error", f"{type(error).__name__}: {error}")
