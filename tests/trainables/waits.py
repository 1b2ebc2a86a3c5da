"""A count of the waits for the device in code that runs on a CPU.

There the device and the host are the same, so `WaitCounter` follows which tensors would be on the device: those made on
or moved to `DEVICE` or the device of another tensor, the weights, and everything computed from them. It sees calls from
Python, of torch and of other libraries alike, but not what an operator does inside: those that wait are in `WAITING`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves


class Device(str):
    """The name of a device, which "cpu", the host, is not."""


DEVICE = Device("cpu")
READS = {
    *(getattr(Tensor, name) for name in ("item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__float__")),
    *(getattr(Tensor, name) for name in ("__int__", "__index__", "__contains__")),
}
"""Calls that bring values to the host."""
WAITING = {
    *(torch.bincount, torch.nonzero, torch.masked_select, torch.unique, torch.unique_consecutive),
    *(torch.argwhere, torch.repeat_interleave, torch.equal, torch.allclose),
    *(Tensor.bincount, Tensor.nonzero, Tensor.masked_select, Tensor.unique, Tensor.repeat_interleave, Tensor.equal),
}
"""Operators that wait because the size of their result, or the result, is needed on the host."""
MAKES_FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray}


class WaitCounter(TorchFunctionMode):
    """Counts by name the calls that would wait for the device while the mode is active, in `waits`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [_is_on_device(tensor) for tensor in inputs]
        moves = _moves_to_device(func, args, kwargs)
        blocks = moves and not all(on_device) and not kwargs.get("non_blocking", False)
        if blocks or (any(on_device) and _reads(func, args, on_device)):
            self.waits[resolve_name(func) or getattr(func, "__name__", str(func))] += 1
        elif func in MAKES_FROM_NUMBERS and moves and not inputs:
            self.waits[f"{func.__name__} of numbers"] += 1
        results = func(*args, **kwargs)
        if moves and any(results is tensor for tensor in inputs):  # a copy on a GPU: the original stays on the host
            results = results.view(results.shape)
        if func is not Tensor.cpu and (any(on_device) or moves or _is_device(kwargs.get("device"))):
            for tensor in _tensors(results):
                tensor._on_device = True  # type: ignore[attr-defined]
        return results


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _is_on_device(tensor: Tensor) -> bool:
    """Weights, and what has a gradient, are on the device without a mark: nets are moved before counting begins."""
    return getattr(tensor, "_on_device", False) or isinstance(tensor, nn.Parameter) or tensor.requires_grad


def _is_device(value: Any) -> bool:
    return isinstance(value, Device | torch.device)


def _moves_to_device(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is `tensor.to(device)`, or makes a tensor of numbers on a device."""
    if func is Tensor.to:
        return _is_device(kwargs.get("device", args[1] if len(args) > 1 else None))
    return func in MAKES_FROM_NUMBERS and _is_device(kwargs.get("device"))


def _reads(func: Any, args: tuple[Any, ...], on_device: list[bool]) -> bool:
    """Whether a call reads values of its tensors, of which some are on the device."""
    if func in (Tensor.__getitem__, Tensor.__setitem__):
        return any(_index_waits(index) for index in (args[1] if isinstance(args[1], tuple) else (args[1],)))
    return func in WAITING or (func in READS and on_device[0])


def _index_waits(index: Any) -> bool:
    """Whether an index of a tensor on the device is a mask, or must be sent there: a list, a tensor on the host."""
    if isinstance(index, Tensor):
        return index.dtype in (torch.bool, torch.uint8) or not _is_on_device(index)
    return isinstance(index, list | range)
