"""A device that computes on the CPU and refuses what a GPU refuses, so that every device's way is tested.

Tensors claim to lie on ``meta`` and carry their numbers inside. As with CUDA, no operation takes tensors of
two devices, but for numbers (0-dimensional tensors of the CPU) and indices; ``numpy`` needs ``cpu`` before
it, and a generator of the CPU draws for the CPU only.
"""

import contextlib
import threading
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_CROSSING = ("aten::_to_copy", "aten::copy_")


class _Pretended(Tensor):
    """A tensor that says it lies on the pretended device."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Pretended":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def tolist(self) -> list:
        return self.inner.tolist()

    def __getitem__(self, index: object) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(i) if isinstance(i, list) else i for i in parts))

    @classmethod
    def __torch_dispatch__(cls, func, _types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Pretence(TorchDispatchMode):
    """Puts on the pretended device what is made there or sent there."""

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers of Python become tensors beneath the dispatcher: they are made here and sent there."""

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and (device := kwargs.pop("device", None)) is not None:
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def _run(func, args: tuple, kwargs: dict) -> object:
    name, given = func._schema.name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, _Pretended) for x in given)
    assert not any(x.device == DEVICE and not isinstance(x, _Pretended) for x in given), (
        f"empty input of {name}"
    )
    asked = kwargs.get("device")
    target = there if asked is None else torch.device(asked) == DEVICE
    if name == "aten::copy_":
        target = isinstance(args[0], _Pretended)
    elif name == "aten::_local_scalar_dense":
        target = False
    elif there and name not in _CROSSING:
        checked = [args[0], *args[2:]] if name in _INDEXING else given
        strays = [x for x in checked if isinstance(x, Tensor) and not isinstance(x, _Pretended) and x.dim()]
        if strays or not isinstance(given[0], _Pretended):
            raise RuntimeError(f"expected all tensors on one device: {name} got {DEVICE} and cpu")
    if target and kwargs.get("generator") is not None:
        raise RuntimeError(f"expected a generator of {DEVICE}: {name} got one of the cpu")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map_only(_Pretended, lambda x: x.inner, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    changed = {id(x.inner): x for x in given if isinstance(x, _Pretended)}

    def placed(x: Tensor) -> Tensor:
        if id(x) in changed:  # what was changed in place is the tensor that was given
            return changed[id(x)]
        return _Pretended(x) if target else x

    return tree_map_only(Tensor, placed, result)


@contextlib.contextmanager
def pretended_device() -> Iterator[torch.device]:
    """The device, as long as the context lasts."""
    autocast = torch.autocast

    def quiet(device: str, *args, **kwargs):
        return contextlib.nullcontext() if device == DEVICE.type else autocast(device, *args, **kwargs)

    run = threading.Thread.run

    def run_there(thread: threading.Thread) -> None:  # a mode is of one thread
        with _Pretence(), _Literals():
            run(thread)

    with (
        mock.patch("torch.autocast", quiet),
        mock.patch.object(threading.Thread, "run", run_there),
        _Pretence(),
        _Literals(),
    ):
        yield DEVICE
