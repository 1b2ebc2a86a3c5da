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


def to_device(net: nn.Module, device: str) -> nn.Module:
    """Move `net` to the device, in the memory layout of the fastest convolutions, channels last.

    On GPUs TF32 is switched off, since its errors are as large as those of the float16 in which teacher outputs are
    stored, and convolutions are made deterministic.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]
