"""Work shared among processes: they end with the one that started them, and a crash costs one item."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

if TYPE_CHECKING:
    from multiprocessing.context import ForkContext, SpawnContext

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Iterator[tuple[int, Any]]], Iterable[tuple[int, Any]]]

_PATIENCE = 0.2
"""Seconds for which a process keeps answers to itself, to send several at once."""
_FALSE_STARTS = 3
"""So many processes that end before they ask for work: there is no use in starting more."""


def mapped(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    lost: Callable[[Item, str], Result],
    together: int = 64,
) -> Iterator[Result]:
    """Yield a function of every item, in their order.

    An item whose process dies (killed for memory, a crash in compiled code) is tried once more by itself;
    dies that process too, the item is answered by `lost`. What the function raises is raised here.

    Args:
        function: picklable where processes cannot be forked.
        items: what to work on.
        workers: processes, with one thread each; with 1, everything happens in this one.
        lost: result for an item that kills its process, given the reason.
        together: most items that travel together.
    """
    items = list(items)
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    together = max(1, min(together, len(items) // (4 * workers)))
    early: dict[int, Result] = {}
    due = 0
    # a forked process needs no main guard in the user's script, and has what is loaded here
    start = "fork" if sys.platform == "linux" else "spawn"
    for number, result in _shared(partial(_one_by_one, function), items, workers, lost, start, together):
        early[number] = result
        while due in early:
            yield early.pop(due)
            due += 1


def piped(
    work: Work,
    items: Sequence[Item],
    workers: int,
    lost: Callable[[Item, str], Result],
) -> Iterator[Result]:
    """Yield the result of every item, in the order they finish, from processes that hold many at a time.

    Each process asks for the next item whenever it has room, so that none runs dry while another is full.
    The items that a process held when it died are each tried once more by themselves, after all others.

    Args:
        work: a picklable function from numbered items to numbered results; takes items lazily and
            yields one result for each. A process may call it again.
        items: what to work on.
        workers: processes, with one thread each; with 1, everything happens in this one.
        lost: result for an item that kills its process, given the reason.
    """
    if workers <= 1 or len(items) <= 1:
        for _, result in work(iter(enumerate(items))):
            yield result
        return
    for _, result in _shared(work, items, workers, lost, "spawn", 1):  # torch's threads do not survive a fork
        yield result


@dataclass
class _Worker:
    """A process and what it has not answered yet."""

    process: BaseProcess
    held: dict[int, Any] = field(default_factory=dict)
    asked: bool = False
    alone: bool = False


def _one_by_one(
    function: Callable[[Any], Any], items: Iterator[tuple[int, Any]]
) -> Iterator[tuple[int, Any]]:
    for number, item in items:
        yield number, function(item)


def _shared(
    work: Work,
    items: Sequence[Any],
    workers: int,
    lost: Callable[[Any, str], Any],
    start: Literal["fork", "spawn"],
    together: int,
) -> Iterator[tuple[int, Any]]:
    """Yield numbered results in the order they finish."""
    todo, suspects = deque(enumerate(items)), deque()
    crew: dict[Connection, _Worker] = {}
    false_starts = 0
    try:
        while todo or suspects or any(worker.held for worker in crew.values()):
            while len(crew) < min(workers, len(todo) + len(suspects)) and false_starts < _FALSE_STARTS:
                pipe, process = _started(work, start, together, list(crew))
                crew[pipe] = _Worker(process)
            if not crew:
                reason = "no process could be started to work on it"
                yield from ((number, lost(item, reason)) for number, item in (*todo, *suspects))
                return
            for pipe in wait(list(crew)):
                assert isinstance(pipe, Connection)
                worker = crew[pipe]
                try:
                    kind, message = pipe.recv()
                except (EOFError, ConnectionResetError):
                    del crew[pipe]
                    pipe.close()
                    worker.process.join()
                    false_starts += not worker.asked
                    if worker.alone:
                        reason = f"the process that worked on it {_ending(worker.process.exitcode)}"
                        yield from ((number, lost(item, reason)) for number, item in worker.held.items())
                    else:
                        suspects.extend(worker.held.items())
                    continue
                if kind == "done":
                    for number, result in message:
                        del worker.held[number]
                        yield number, result
                elif kind == "raised":
                    raise message
                else:
                    worker.asked = True
                    _serve(pipe, worker, todo, suspects, together)
    finally:
        for pipe, worker in crew.items():
            worker.process.kill()
            worker.process.join()
            pipe.close()


def _serve(pipe: Connection, worker: _Worker, todo: deque, suspects: deque, together: int) -> None:
    """Answer a process that asks for items: a suspect goes to one that holds nothing, and by itself."""
    given = []
    if not (worker.alone and worker.held):
        given = [todo.popleft() for _ in range(min(together, len(todo)))]
        worker.alone = not given and not worker.held and bool(suspects)
        if worker.alone:
            given = [suspects.popleft()]
    worker.held |= dict(given)
    try:
        pipe.send(given)
    except (BrokenPipeError, ConnectionResetError):
        return  # it has died; its end of the pipe says so next


def _started(
    work: Work, start: Literal["fork", "spawn"], together: int, others: list[Connection]
) -> tuple[Connection, BaseProcess]:
    context = cast("SpawnContext | ForkContext", multiprocessing.get_context(start))
    here, there = context.Pipe()
    inherited = [*others, here] if start == "fork" else []
    arguments = (work, there, together, os.getpid(), inherited, warnings.filters)
    process = context.Process(target=_worker, args=arguments, daemon=True)
    process.start()
    there.close()
    return here, process


def _worker(
    work: Work,
    pipe: Connection,
    together: int,
    parent: int,
    inherited: list[Connection],
    filters: Sequence[Any],
) -> None:
    """What a process does: ask, work, answer, until nothing is left or nobody listens."""
    end_with(parent)
    warnings.filters = filters  # what the parent does not tell of, nor does this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for end in inherited:  # else this process would keep the pipes of others open
        end.close()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the processes are the parallelism
    if tqdm := sys.modules.get("tqdm"):  # its own lock is one between processes, which a killed one leaves
        tqdm.tqdm.set_lock(threading.RLock())
    answers = []
    told = time.monotonic()

    def ask() -> list[tuple[int, Any]]:
        answer()
        pipe.send(("next", None))
        return pipe.recv()

    def answer() -> None:
        nonlocal told
        told = time.monotonic()
        if answers:
            pipe.send(("done", answers))
            answers.clear()

    def stream(first: list[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        while first:
            yield from first
            first = ask()

    try:
        while first := ask():
            for numbered in work(stream(first)):
                answers.append(numbered)
                if len(answers) >= together or time.monotonic() - told > _PATIENCE:
                    answer()
            answer()
    except (BrokenPipeError, ConnectionResetError, EOFError):
        return
    except Exception as error:
        error.add_note(f"in process {os.getpid()}")
        pipe.send(("raised", error))


def end_with(parent: int) -> None:
    """End this process, whatever it does, as soon as the process that started it is gone.

    Args:
        parent: process id of the one that started this one.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    else:
        threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed ({signal.Signals(-code).name}; out of memory?)"
    return f"ended with exit code {code}"
