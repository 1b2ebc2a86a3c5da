"""KD, cross-entropy and std over the classes of each pixel, with gradients in closed form.

Fewer passes over memory than autograd takes; up to rounding equal to `kd` (losses/logits/kd.py) and to torch's
`cross_entropy` and `std`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


def fused_kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)) of each pixel: logits (N, K, …) → (N, 1, …).

    Only the student's logits receive a gradient: T·(softmax(z_s/T) − softmax(z_t/T)).
    """
    return cast(Tensor, _TemperedKL.apply(student, teacher, temperature))


class _TemperedKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        log_s, log_t = (F.log_softmax(z / temperature if temperature != 1 else z, dim=1) for z in (student, teacher))
        p_t = log_t.exp()
        kl = log_t.sub_(log_s).mul_(p_t).sum(dim=1, keepdim=True)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(log_s.exp_().sub_(p_t))
        ctx.temperature = temperature
        return temperature**2 * kl

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        return difference * (ctx.temperature * gradient), None, None


def fused_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy −log softmax(z)[label] of each pixel: (N, K, …), (N, 1, …) int64 → (N, 1, …).

    The gradient is softmax(z) − 1 at the label, softmax(z) at the other classes.
    """
    return cast(Tensor, _CrossEntropy.apply(logits, labels))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        entropy = -log_p.gather(1, labels)
        if ctx.needs_input_grad[0]:
            minus_one = log_p.new_full((), -1).expand_as(labels)
            ctx.save_for_backward(log_p.exp_().scatter_add_(1, labels, minus_one))
        return entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * gradient, None


def std_of_centred(centred: Tensor, unbiased: bool = True) -> Tensor:
    """Return the std over the classes of each pixel of logits whose mean over the classes is 0: (N, K, …) → (N, 1, …).

    An unbiased std divides by K − 1. The gradient is 0 where the std is 0.
    """
    return cast(Tensor, _NormOverClasses.apply(centred)) / math.sqrt(centred.shape[1] - int(unbiased))


class _NormOverClasses(torch.autograd.Function):
    """torch.linalg.vector_norm over dim 1, which takes ten times as long if that dimension is not the last one."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        norm = z.square().sum(dim=1, keepdim=True).sqrt_()
        ctx.save_for_backward(z, norm)
        return norm

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        z, norm = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        return z * (gradient / norm).masked_fill_(norm == 0, 0)
