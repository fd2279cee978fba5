"""Who works on the shards: processes of this machine, or a Ray cluster. The crystals are the same."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from autoperi.data.cache import required
from autoperi.data.workers import piped
from autoperi.discovery.campaign.funnel import Funnel
from autoperi.discovery.campaign.shard import Shard, searched

Executor = Callable[[bytes, Sequence[int]], Iterator[Shard]]
"""Shards of a pickled campaign by their numbers, in the order in which they are done; ends when closed."""
_RETRIES = 5
"""Of a shard whose node or process has died."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
"""What gRPC begins with (RFC 9113, 3.4): a preface and SETTINGS, frames of type 4, answered in kind."""


def in_processes(workers: int = 1) -> Executor:
    """Processes of this machine; with 1, this one."""
    return partial(_in_processes, workers)


def _in_processes(workers: int, campaign: bytes, numbers: Sequence[int]) -> Iterator[Shard]:
    work = partial(_each, campaign)
    yield from piped(work, numbers, workers, _lost)


def _each(campaign: bytes, items: Iterator[tuple[int, int]]) -> Iterator[tuple[int, Shard]]:
    for position, number in items:
        yield position, searched(campaign, number)


def _lost(number: int, reason: str) -> Shard:
    return Shard(number, Funnel(), [], reason)


def on_ray(address: str = "") -> Executor:
    """A Ray cluster, or one that is started here; a node that dies costs the shards that it was at.

    Args:
        address: of the cluster, ``auto`` for the one this machine belongs to; nothing starts one here.

    Raises:
        ImportError: without the package ray, which the extra ``ray`` installs.
        ValueError: nothing answers at the address; ray itself would go on asking for minutes.
    """
    required("ray", "ray")
    if address not in ("", "auto"):
        _answers(address)
    return partial(_on_ray, address)


def _answers(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"expected a Ray cluster as HOST:PORT, auto or local: got {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as answering:
            if "RAY_USE_TLS" not in os.environ:
                answering.sendall(_HELLO)
                if answering.recv(4)[3:] != b"\x04":
                    raise OSError("something else listens there")
    except OSError as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}): give the address that `ray start --head` told"
        ) from error


def _on_ray(address: str, campaign: bytes, numbers: Sequence[int]) -> Iterator[Shard]:
    import ray

    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ValueError(
                "no Ray cluster runs on this machine: begin with `ray start --head`, or give another "
                "address, or local"
            ) from error
    try:
        yield from _with_ray(ray, campaign, numbers)
    finally:
        if mine:
            ray.shutdown()


def _with_ray(ray, campaign: bytes, numbers: Sequence[int]) -> Iterator[Shard]:  # noqa: ANN001
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(searched)
    shared, left = ray.put(campaign), iter(numbers)
    running: dict = {}
    try:
        while True:
            cores = int(ray.cluster_resources().get("CPU", 1))
            for number in islice(left, max(0, cores + 1 - len(running))):
                running[task.remote(shared, number)] = number
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            number = running.pop(done[0])
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except ray.exceptions.RayError as error:
                yield _lost(number, f"{type(error).__name__}: {str(error).splitlines()[0]}")
    finally:
        for waiting in running:
            ray.cancel(waiting, force=True)
