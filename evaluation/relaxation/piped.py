"""Share a stream of items among processes that each work on many at a time."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Iterator[tuple[int, Any]]], Iterable[tuple[int, Any]]]


def piped(
    work: Work,
    items: Sequence[Item],
    workers: int,
    lost: Callable[[Item, str], Result],
) -> Iterator[Result]:
    """Yield the result of every item, in the order they finish.

    Each process asks for the next item whenever it has room, so that none runs dry while another is
    full. When a process dies (killed for memory, a crash in compiled code), the items it held are
    answered by `lost`, and the others go on without it.

    Args:
        work: a picklable function from numbered items to numbered results; takes items lazily and
            yields one result for each.
        items: what to work on.
        workers: processes; with 1, everything happens in this one.
        lost: result for an item whose process died, given the reason.
    """
    if workers <= 1 or len(items) <= 1:
        for _, result in work(iter(enumerate(items))):
            yield result
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    processes, held = {}, {}
    for _ in range(min(workers, len(items))):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(work, there), daemon=True)
        process.start()
        there.close()
        processes[here], held[here] = process, set()
    todo = iter(enumerate(items))
    try:
        while processes:
            for pipe in wait(list(processes)):
                assert isinstance(pipe, Connection)
                try:
                    kind, message = pipe.recv()
                except (EOFError, ConnectionResetError):
                    process = processes.pop(pipe)
                    process.join()
                    reason = f"the process that relaxed it ended with exit code {process.exitcode}"
                    for number in sorted(held.pop(pipe)):
                        yield lost(items[number], reason)
                    continue
                if kind == "next":
                    number, item = next(todo, (None, None))
                    if number is not None:
                        held[pipe].add(number)
                    pipe.send((number, item))
                else:
                    number, result = message
                    held[pipe].discard(number)
                    yield result
        for _, item in todo:  # every process died
            yield lost(item, "no process was left to relax it")
    finally:
        for process in processes.values():
            process.terminate()


def _serve(work: Work, pipe: Connection) -> None:
    def incoming() -> Iterator[tuple[int, Any]]:
        while True:
            pipe.send(("next", None))
            number, item = pipe.recv()
            if number is None:
                return
            yield number, item

    for answer in work(incoming()):
        pipe.send(("done", answer))
    pipe.close()
