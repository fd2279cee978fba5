"""The folder of a training: what is trained in it, by one process and those that it starts."""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from autoperi.data.cache import written_whole
from autoperi.data.run_folder import FolderError
from autoperi.data.workers import end_with

CLAIM = "training.json"
"""File that says what is trained in a folder."""
_HOLDER = "AUTOPERI_TRAINING"
"""Environment variable of the processes of a training: who started them, and the folder it holds."""
_PATIENCE = 5.0
"""Seconds in which the processes of a killed training are gone."""


def claim(folder: Path, training: Mapping[str, Any], grows: Sequence[str] = ()) -> None:
    """Write into the folder what is trained there; resuming something else would mix two trainings.

    Args:
        folder: of one training.
        training: plain (nested) values that decide what is learned.
        grows: names of numbers, dotted, that may be larger than they were.

    Raises:
        FolderError: another training was begun there; what differs is named.
    """
    file = folder / CLAIM
    if file.exists():
        _refuse_another(folder, _flat(_read(file)), _flat(json.loads(json.dumps(training))), grows)
    elif (folder / "last.ckpt").exists():
        raise FolderError(f"expected {file}, which says what is trained there: use an empty folder")
    with written_whole(file) as part:
        part.write_text(json.dumps(training, indent=1) + "\n")


def refuse_changes(folder: Path, training: Mapping[str, Any], grows: Sequence[str] = ()) -> None:
    """Raise FolderError as ``claim`` would, for a part of what decides what is learned; writes nothing."""
    file = folder / CLAIM
    if file.exists():
        begun = {name: value for name, value in _read(file).items() if name in training}
        _refuse_another(folder, _flat(begun), _flat(json.loads(json.dumps(training))), grows)


def _refuse_another(
    folder: Path, begun: dict[str, Any], wanted: dict[str, Any], grows: Sequence[str]
) -> None:
    grown = {name for name in grows if name in begun and begun[name] <= wanted[name]}
    other = [n for n in sorted(begun.keys() | wanted.keys()) if begun.get(n) != wanted.get(n)]
    other = [name for name in other if name not in grown]
    if other:
        found = ", ".join(f"{n} = {_short(wanted.get(n))} for {_short(begun.get(n))}" for n in other[:4])
        more = f" and {len(other) - 4} more" if other[4:] else ""
        raise FolderError(
            f"expected the training that {folder} was begun with: got {found}{more}; use an empty folder, or "
            "delete this one"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise FolderError(f"{file}, which says what is trained there, is damaged: use an empty folder")
    return content


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Hold the folder for one training; the processes that it starts join in, and end with it.

    SIGTERM is as Ctrl-C meanwhile. A process that has joined leaves it to the first to say so.

    Raises:
        FolderError: another training runs there.
    """
    if os.environ.get("RANK", "0") != "0":  # torchrun's first process holds it for all
        yield
        return
    outer = os.environ.get(_HOLDER, "")
    parent, _, held = outer.partition(":")
    joined = held == str(folder.resolve()) and int(parent) != os.getpid()
    if joined:
        end_with(int(parent))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as stream:
        if held != str(folder.resolve()):
            _lock(stream, folder)
        os.environ[_HOLDER] = f"{os.getpid()}:{folder.resolve()}"
        try:
            with _terminated_as_interrupted():
                yield
        except KeyboardInterrupt:
            if joined:
                sys.exit(130)
            raise
        finally:
            os.environ[_HOLDER] = outer


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    alone = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not alone or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _lock(stream: TextIO, folder: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise FolderError(
                    f"expected no other training in {folder}: one is running; wait for it, or use another "
                    "folder"
                ) from error
        time.sleep(0.1)


def _flat(values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        own = f"{section}{name}"
        found |= _flat(value, f"{own}.") if isinstance(value, dict) else {own: value}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:37]}..."
