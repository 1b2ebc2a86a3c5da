"""Planted failures of simulated trials."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from typing import Literal, get_args

from study.errors import InputError
from study.trial import Trial

FaultKind = Literal["exception", "nan", "hang", "memory", "killed"]


@dataclass(frozen=True)
class Fault:
    """A planted failure from `epoch` on: in all trials, in those of one number, or in a share of them drawn by seed.

    "exception" raises ValueError, "memory" MemoryError, "hang" never ends, and "killed" sends SIGKILL to the process;
    all before the epoch's result. With "nan" the trial continues and its losses and accuracies are NaN.
    Raises InputError for an unknown kind, an epoch below 1 or a share outside [0, 1].
    """

    kind: FaultKind
    epoch: int = 1
    trial: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise InputError(f"fault: kind is {self.kind!r}; allowed are {', '.join(map(repr, get_args(FaultKind)))}")
        if self.epoch < 1 or not 0 <= self.share <= 1:
            raise InputError(f"fault: epoch {self.epoch}, share {self.share}; allowed are from 1, and from 0 to 1")

    def hits(self, trial: Trial) -> bool:
        """Return whether this trial fails."""
        return self.trial in (None, trial.number) and random.Random(f"{trial.seed} fault").random() < self.share

    def trigger(self) -> None:
        """Raise, hang or kill the process; "nan" does nothing here."""
        if self.kind in ("exception", "memory"):
            failure = ValueError if self.kind == "exception" else MemoryError
            raise failure(f"planted failure in epoch {self.epoch}")
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.kind == "hang":
            time.sleep(1)
