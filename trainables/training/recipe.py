"""Training recipe: optimizer, batch size, learning rate, precision.

All arms of a study share one recipe unless an arm has its own. Any field may be a domain, which is then searched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from study.errors import InputError
from study.space.domains import Choice, is_unresolved
from trainables.training.schedules import MultiStep
from trainables.training.settings import FloatOrSchedule, check_range

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum; the recipe sets the learning rate."""

    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_range("momentum", self.momentum, low=0.0, below=1.0)
        check_range("weight_decay", self.weight_decay, low=0.0)

    capturable: ClassVar[bool] = True
    """Its step can be captured as a CUDA graph (cuda_graph.py): it keeps no numbers on the host."""

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=0.0,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )


@dataclass(frozen=True)
class Adam:
    """Adam with torch's defaults; the recipe sets the learning rate. Source: Kingma & Ba 2015."""

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_adam(self)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.0, betas=self.betas, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, torch's defaults; the recipe sets the learning rate.

    The usual optimizer of vision transformers. Source: Loshchilov & Hutter 2019.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_adam(self)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.0, betas=self.betas, weight_decay=self.weight_decay, fused=True)


def _check_adam(optimizer: Adam | AdamW) -> None:
    for beta in () if is_unresolved(optimizer.betas) else optimizer.betas:
        check_range("a beta of Adam", beta, low=0.0, below=1.0)
    check_range("weight_decay", optimizer.weight_decay, low=0.0)


@dataclass(frozen=True)
class Recipe:
    """Settings of one training; the defaults are the field's CIFAR-100 recipe.

    Its learning rate drops at epochs 150, 180 and 210 of 240; `MultiStep` keeps these as shares of any run.
    Raises InputError for an unknown precision, a batch size that is not a whole number of at least 1, or a learning
    rate below 0.
    Source: the reference recipe shared by Tian et al. 2020 and Zhao et al. 2022.
    """

    batch_size: int = 64
    learning_rate: FloatOrSchedule = field(default_factory=lambda: MultiStep(0.05))
    optimizer: Sgd | Adam | AdamW = field(default_factory=Sgd)

    precision: str = "float32"
    """Precision of the student's forward and backward pass; weights, losses and evaluation are always float32."""

    def __post_init__(self) -> None:
        if not is_unresolved(self.precision) and self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r}; allowed are {', '.join(PRECISIONS)}")
        if not (is_unresolved(self.batch_size) or isinstance(self.batch_size, int)):
            raise InputError(
                f"batch_size is {self.batch_size!r}; allowed is a whole number, such as integer(16, 128, log=True) or "
                "choice(32, 64)"
            )
        check_range("batch_size", self.batch_size, low=1)
        check_range("learning_rate", self.learning_rate, low=0.0)


def set_precision(recipe: Any, precision: str) -> Any:
    """Return a recipe, or the recipes that a search chooses from, in this precision."""
    if isinstance(recipe, Choice):
        return replace(recipe, options=tuple(set_precision(option, precision) for option in recipe.options))
    return replace(recipe, precision=precision)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate; a tensor, which a captured CUDA graph reads, keeps its memory."""
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value
