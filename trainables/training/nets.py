"""Seeded construction of nets, and their placement on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Built = TypeVar("Built")


def build_seeded(build: Callable[[], Built], seed: int) -> Built:
    """Return the result of `build`, with initial weights that follow from the seed alone.

    The CPU's generator is restored. Those of GPUs are not, since every epoch seeds all generators again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def to_device(net: nn.Module, device: str, precision: str = "float32") -> nn.Module:
    """Move `net` to the device, its weights in the memory format in which convolutions are fastest there.

    On GPUs, TF32 is off (its error is as large as that of the float16 in which teacher outputs are stored) and cuDNN is
    deterministic. Its deterministic weight gradients in float32 take nearly twice as long in channels_last
    (benchmarks/RESULTS.md), which is the faster format everywhere else.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    float32_on_gpu = device == "cuda" and precision == "float32"
    memory_format = torch.contiguous_format if float32_on_gpu else torch.channels_last
    return net.to(device, memory_format=memory_format)  # type: ignore[no-any-return, call-overload]
