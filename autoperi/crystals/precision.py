"""Numbers as the networks were made for, whatever the program around them has set."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside = 0
_outer = torch.float32


@contextmanager
def single_precision() -> Iterator[None]:
    """float32 where no type is named, as libraries and layers expect, and no autocast; also a decorator.

    Other programs set float64 as the default or run under autocast, and crystals would depend on it. The
    default is one for all threads: it comes back when the last of them leaves.
    """
    global _inside, _outer
    with _lock:
        if not _inside:
            _outer = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _inside += 1
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                torch.set_default_dtype(_outer)
