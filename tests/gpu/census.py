"""What a computation asks of a device that is not there: kernels, bytes, copies, and where it waits.

Runs in a child process under `hooks.so`; see test_fake_cuda.py. Counts that depend on data are upper bounds.
"""

from __future__ import annotations

import collections
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import acdis

PACKAGE = Path(acdis.__path__[0])
#: What makes a tensor without a kernel, or only asks about one.
_FREE = ("aten.empty", "aten.new_empty", "aten.detach", "prim.", "aten.sym_")


def place() -> str:
    """The innermost line of the package that is at work."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE)}:{frame.name}"
    return "elsewhere"


class Census(TorchDispatchMode):
    """Counts operations on the device, by kind and by the place that asks for them.

    Attributes:
        waits: by (kind, place): the host waits for the device (a value read, a shape that depends on values).
        copies: bytes between host and device, by (direction, place).
        kernels, moved: operations on the device and the bytes of what they read and write.
        clones: copies of a map to another layout or type, by place, with the largest side of the map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()
        self.copies: collections.Counter[tuple[str, str]] = collections.Counter()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.moved = 0
        self.clones: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func)
        read = self._read(name, args)
        if read is not None:
            return read
        result = func(*args, **kwargs)
        before = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        after = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        devices = {each.device.type for each in (*before, *after)}
        if name.startswith(("aten._to_copy", "aten.copy_")) and len(devices) > 1:
            source = before[1] if name.startswith("aten.copy_") else before[0]
            direction = f"{source.device.type} to {after[0].device.type}"
            self.copies[direction, place()] += after[0].numel() * after[0].element_size()
        elif "cuda" in devices and not self._is_view(func, name):
            self.kernels[name] += 1
            whole = {id(each): each for each in (*before, *after) if each.device.type == "cuda"}
            self.moved += sum(each.numel() * each.element_size() for each in whole.values())
            if name.startswith("aten.clone") and after[0].ndim == 5:
                self.clones[f"{place()} {max(after[0].shape[2:])}"] += 1
        return result

    def _read(self, name: str, args: Any) -> Any:
        """What asks for values that are not there is answered with something, and noted."""
        first = args[0] if args else None
        on_device = isinstance(first, torch.Tensor) and first.device.type == "cuda"
        if name == "aten._local_scalar_dense.default":
            if on_device:
                self.waits["value", place()] += 1
            return True if first.dtype == torch.bool else 1.0 if first.is_floating_point() else 1
        if name == "aten.nonzero.default":
            if on_device:
                self.waits["nonzero", place()] += 1
            return torch.empty(1, first.ndim, dtype=torch.long, device=first.device)
        if name == "aten.index.Tensor" and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        ):
            if on_device:
                self.waits["boolean index", place()] += 1
            mask = next(each for each in args[1] if each is not None)
            return torch.empty(1, *first.shape[mask.ndim :], dtype=first.dtype, device=first.device)
        return None

    @staticmethod
    def _is_view(func: Any, name: str) -> bool:
        aliases = (each.alias_info for each in func._schema.arguments)
        return name.startswith(_FREE) or any(each is not None and not each.is_write for each in aliases)


class _Indexing(TorchFunctionMode):
    """Python's brackets ask for a device guard that a build without CUDA lacks: the same by operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__ and args[0].device.type == "cuda":
            return _taken(*args)
        if func is torch.Tensor.__setitem__ and args[0].device.type == "cuda":
            target, value = _taken(args[0], args[1]), args[2]
            target.copy_(value) if isinstance(value, torch.Tensor) else target.fill_(value)
            return None
        return func(*args, **(kwargs or {}))


def _taken(x: torch.Tensor, index: Any) -> torch.Tensor:
    index = tuple(
        torch.tensor(each, device=x.device) if isinstance(each, list) else each
        for each in (index if isinstance(index, tuple) else (index,))
    )
    masks = [each for each in index if isinstance(each, torch.Tensor)]
    named = sum(each is not None and each is not Ellipsis for each in index)
    named += sum(mask.ndim - 1 for mask in masks if mask.dtype == torch.bool)
    parts: list[Any] = []
    for each in index:
        parts += [slice(None)] * (x.ndim - named) if each is Ellipsis else [each]
    dim, tensors = 0, []
    for each in parts:
        if isinstance(each, int):
            x = x.select(dim, each)
            continue
        if isinstance(each, torch.Tensor):
            tensors.append(each)
            dim += each.ndim if each.dtype == torch.bool else 1
            continue
        if each is None:
            x = x.unsqueeze(dim)
        elif each != slice(None):
            stop = 2**62 if each.stop is None else each.stop
            x = torch.ops.aten.slice(x, dim, each.start or 0, stop, each.step or 1)
        tensors.append(None)
        dim += 1
    return torch.ops.aten.index(x, tensors) if masks else x


@contextmanager
def device() -> Iterator[Census]:
    """Everything inside may use "cuda:0"; what it does there is counted."""
    import torch.cuda.amp.common

    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.mem_get_info = lambda *_: (140 << 30, 141 << 30)
    torch.cuda.max_memory_allocated = lambda *_: 0
    torch.cuda.reset_peak_memory_stats = lambda *_: None
    census = Census()

    def listed(self: torch.Tensor) -> Any:
        if self.device.type == "cuda":
            census.waits["list", place()] += 1
        flat = [True if self.dtype == torch.bool else 1.0] * self.numel()
        return _shaped(flat, self.shape)

    kept, FakeTensor.tolist = FakeTensor.tolist, listed
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Indexing(), census:
            yield census
    finally:
        FakeTensor.tolist = kept


def _shaped(flat: list[Any], shape: Any) -> Any:
    if not len(shape):
        return flat[0]
    step = len(flat) // shape[0] if shape[0] else 0
    return [_shaped(flat[place * step : (place + 1) * step], shape[1:]) for place in range(shape[0])]


def moved_there(module: torch.nn.Module) -> None:
    """The module's parameters and buffers on the device: `.to` would need real memory."""
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda:0")
                part._parameters[name] = torch.nn.Parameter(fake, requires_grad=value.requires_grad)
        for name, value in list(part._buffers.items()):
            if value is not None:
                part._buffers[name] = torch.empty_strided(
                    value.shape, value.stride(), dtype=value.dtype, device="cuda:0"
                )
