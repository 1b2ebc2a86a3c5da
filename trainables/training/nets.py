"""Seeded construction of nets, and their placement on a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Built = TypeVar("Built")
Net = TypeVar("Net", bound=nn.Module)


def build_seeded(build: Callable[[], Built], seed: int) -> Built:
    """Return the result of `build`, with initial weights that follow from the seed alone.

    The CPU's generator is restored. Those of GPUs are not, since every epoch seeds all generators again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def to_device(net: Net, device: str, precision: str = "float32") -> Net:
    """Move `net` to the device, its weights in the memory format in which convolutions are fastest there.

    On GPUs, TF32 is off (its error is as large as that of the float16 in which teacher outputs are stored) and cuDNN is
    deterministic. Its deterministic weight gradients in float32 take nearly twice as long in channels_last
    (benchmarks/RESULTS.md), which is the faster format everywhere else.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    if device == "cpu":
        _stride_before_narrow_convs(net)
    float32_on_gpu = device == "cuda" and precision == "float32"
    memory_format = torch.contiguous_format if float32_on_gpu else torch.channels_last
    return net.to(device, memory_format=memory_format)  # type: ignore[no-any-return, call-overload]


def _stride_before_narrow_convs(net: nn.Module) -> None:
    """Let inputs of strided 1×1 convolutions with fewer than 16 channels be strided before the convolution.

    Values and gradients stay equal to rounding. oneDNN's backward pass of such a convolution in channels_last writes
    beyond its scratchpad: silently at 16×16 pixels, with a segmentation fault from 48×48 on (seen with oneDNN 3.7 and
    3.11). From 16 channels on it writes within, and takes up to 40 % less time than the two steps.
    """
    for module in net.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
            continue
        if module.in_channels < 16 and module.groups == 1 and module.padding in ((0, 0), "valid"):
            module.register_forward_pre_hook(partial(_stride_inputs, stride=module.stride))
            module.stride = (1, 1)


def _stride_inputs(module: nn.Module, inputs: tuple[Tensor], stride: tuple[int, ...]) -> tuple[Tensor]:
    return (F.max_pool2d(inputs[0], kernel_size=1, stride=stride),)  # unlike slicing, its gradient is channels_last
