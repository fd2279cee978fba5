"""The output folder of a run: of one run at a time, of one run's results, written whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from autoperi.data.cache import versions, written_whole
from autoperi.data.reading import whole_file

_PACKAGES = ("autoperi-gnn", "torch", "numpy", "pymatgen", "moyopy", "torchdiffeq", "e3nn", "ase", "chgnet")
_RECORD = "run.json"
_UNFINISHED = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FolderError(ValueError):
    """An output folder that cannot be used: in use, not writable, full, or of another run."""


class RunFolder:
    """An output folder while its run lasts.

    Attributes:
        path: the folder. What must outlive an interruption (journals, resumable checkpoints) is written here.
        new: the results, written here by plain means; `finish` puts them in their places below `path`.
        asked: what the run was asked for, as plain values.
    """

    def __init__(self, path: Path, asked: Any, stale: set[str]) -> None:
        """Use `run_folder`."""
        self.path = path
        self.new = path / _UNFINISHED / "new"
        self.asked = asked
        self._stale = stale

    def finish(self, record: Mapping[str, Any]) -> None:
        """Put the results in their places, ``run.json`` last; files that only an earlier run wrote go.

        Args:
            record: what was found. What was asked, the command, the names of the files, versions, platform
                and time are added.

        Raises:
            ValueError: the record cannot be written as JSON.
        """
        files = {p.relative_to(self.new).as_posix() for p in self.new.rglob("*") if p.is_file()}
        asked = {} if self.asked is None else {"asked": self.asked}
        text = run_record({**record, **asked, "files": sorted(files)})
        _write_whole(self.new.parent / "replaces.json", json.dumps(sorted(self._stale | files)))
        _write_whole(self.new.parent / _RECORD, text)
        (self.path / _RECORD).unlink(missing_ok=True)
        for name in self._stale - files:
            _remove(self.path, name)
        for name in files:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.new / name).replace(self.path / name)
        (self.new.parent / _RECORD).replace(self.path / _RECORD)


@contextmanager
def run_folder(
    out: str | Path, asked: Mapping[str, Any] | None, reads: str | Path | None = None
) -> Iterator[RunFolder]:
    """Open an output folder for a run.

    With ``with run_folder(out, {"command": "sample", "seed": 0}) as folder:`` a run works, writes its files
    into ``folder.new`` and ends with ``folder.finish(record)``. Nothing has its final name before that. The
    same run again replaces its files; a run that was interrupted finds in ``folder.path`` what it had left
    there. A run that fails leaves the folder as it found it, unless it has left something to go on with.

    Args:
        out: the folder, made with its parents where it is missing.
        asked: all that decides the results (command, arguments, seed, hash of the checkpoint), as plain
            values; what changes the speed alone stays out. None replaces the results of any earlier run.
        reads: the input: the hash of its content joins `asked`, and results may not fall into it.

    Raises:
        FolderError: the folder is in use, cannot be written, is full, or holds anything but this run.
        FileNotFoundError: nothing at `reads`.
    """
    out = Path(out).expanduser()
    if reads is not None:
        _keep_apart(out, Path(reads))
        asked = {**(asked or {}), "input": content_hash(reads)}
    asked = json.loads(json.dumps(asked, default=str))
    unfinished, made = out / _UNFINISHED, not out.exists()
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        lock = _locked(unfinished)
    except OSError as error:
        raise FolderError(f"cannot write into {out}: {error.strerror}; give another folder") from error
    with lock:
        before = _entries(out)
        kept = (unfinished / "asked.json").exists()
        over = False
        try:
            stale = _stale(out, asked, before)
            shutil.rmtree(unfinished / "new", ignore_errors=True)
            (unfinished / "new").mkdir()
            _write_whole(unfinished / "asked.json", json.dumps(asked, indent=1))
            yield RunFolder(out, asked, stale)
            over = not (unfinished / _RECORD).exists() and (out / _RECORD).exists()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise FolderError(
                f"no space left to write {error.filename or _newest(unfinished) or out}: make room and run "
                f"the same command again; what {out} held before is still there"
            ) from error
        finally:
            shutil.rmtree(unfinished / "new", ignore_errors=True)
            nothing_left = _entries(out) <= before and not (unfinished / "replaces.json").exists()
            if over or (nothing_left and not kept):
                shutil.rmtree(unfinished, ignore_errors=True)
            if made:
                with suppress(OSError):  # it holds something
                    out.rmdir()


def run_record(run: Mapping[str, Any]) -> str:
    """The text of ``run.json``: what was asked and found, command, versions, platform, time.

    Raises:
        ValueError: ``run`` cannot be written as JSON.
    """
    record = {
        "command": shlex.join(sys.argv),
        **run,
        "versions": versions(*_PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    try:
        return json.dumps(record, indent=2) + "\n"
    except TypeError as error:
        raise ValueError(f"expected a run record of plain numbers and texts: {error}") from error


def write_run(out: Path, run: Mapping[str, Any]) -> None:
    """Write ``run.json`` into a folder, whole or not at all; see ``run_record``."""
    _write_whole(out / _RECORD, run_record(run))


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder.

    Of a folder that ``sample`` or ``relax`` wrote, of the file that holds all its crystals.

    Raises:
        FileNotFoundError: nothing there.
    """
    path = whole_file(Path(path).expanduser())
    if not path.exists():
        raise FileNotFoundError(f"expected a file or folder of crystals: {path} does not exist")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            if path.is_dir():
                digest.update(os.fsencode(file.relative_to(path)) + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _keep_apart(out: Path, reads: Path) -> None:
    source, target = whole_file(reads.expanduser()), out.resolve()
    if reads.expanduser().resolve() == target or (
        source.is_dir() and target.is_relative_to(source.resolve())
    ):
        raise FolderError(
            f"expected an output folder outside of the input: got {out} for {reads}, where results would be "
            "mixed with what they come from"
        )


def _locked(unfinished: Path) -> IO[str]:
    """The lock of a folder; it ends with the process that holds it, however that ends.

    Raises:
        FolderError: another run holds it.
    """
    while True:
        stream = (unfinished / "lock").open("a+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip() or "?"
            stream.close()
            raise FolderError(
                f"another run (process {holder}) is writing into {unfinished.parent}: wait for it, or give "
                "another folder"
            ) from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(stream.fileno()), (unfinished / "lock").stat()):
                stream.truncate(0)
                stream.write(str(os.getpid()))
                stream.flush()
                return stream
        stream.close()  # its run has just ended and taken the lock away
        unfinished.mkdir(parents=True, exist_ok=True)


def _stale(out: Path, asked: Any, before: set[str]) -> set[str]:
    """Files that earlier runs have written; refuses a folder that holds anything but this run."""
    unfinished = out / _UNFINISHED
    record, claim = _read(out / _RECORD), _read(unfinished / "asked.json")
    named = {*(record or {}).get("files", ()), *(_read(unfinished / "replaces.json") or ())}
    if asked is None or not before:
        return named
    if record is None and claim is None:
        some = ", ".join(sorted(before)[:3])
        raise FolderError(
            f"expected an empty output folder, or one of the same run: {out} holds {some}; give another"
        )
    remedy = "give another output folder, or delete this one"
    for other in (record.get("asked", {}) if record else None, claim):
        if other is not None and other != asked:
            raise FolderError(f"{out} holds another run ({_differences(other, asked)}): {remedy}")
    return named


def _differences(other: dict[str, Any], asked: dict[str, Any]) -> str:
    """In words, the first three."""
    if not other:
        return "which does not say what was asked of it"
    other, asked = _flat(other), _flat(asked)
    told = []
    for key in dict.fromkeys([*asked, *other]):
        if other.get(key) != asked.get(key):
            plain = all(len(str(x.get(key))) <= 50 for x in (other, asked))
            told.append(f"{key} {other.get(key)}, now {asked.get(key)}" if plain else f"another {key}")
    return "; ".join(told[:3] + ["…"] * (len(told) > 3))


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Options by the names that a user knows; those that stand in groups too."""
    groups = [_flat(value) if isinstance(value, dict) else {key: value} for key, value in fields.items()]
    return {key: value for group in groups for key, value in group.items()}


def _read(file: Path) -> Any:
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderError(f"{file} is damaged ({error}): give another folder, or delete this one") from error


def _entries(out: Path) -> set[str]:
    return {p.name for p in out.iterdir() if not p.name.startswith(".")}


def _remove(out: Path, name: str) -> None:
    """Remove a file that a record names, if it lies in the folder, and the folder that it leaves empty."""
    file = out / name
    if not file.resolve().is_relative_to(out.resolve()):
        return
    file.unlink(missing_ok=True)
    if file.parent != out:
        with suppress(OSError):  # it holds something else
            file.parent.rmdir()


def _newest(unfinished: Path) -> Path | None:
    """The file that was written last, by its final name."""
    new = unfinished / "new"
    files = sorted((p for p in new.rglob("*") if not p.is_dir()), key=lambda p: p.lstat().st_mtime_ns)
    return unfinished.parent / files[-1].relative_to(new) if files else None


def _write_whole(file: Path, text: str) -> None:
    with written_whole(file) as part:
        part.write_text(text, encoding="utf-8")
