"""When to stop a search trial early: asynchronous successive halving on epochs, one ladder of rungs per cell.

A rule is a frozen dataclass in the space file; `Rungs` is what one cell has seen. Rungs are rebuilt by feeding
recorded epochs through `Rungs.verdict` in the order they were recorded: the same rows give the same decisions.
Confirm trials are never stopped.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from study.errors import InputError
from study.trial import Direction


@dataclass(frozen=True)
class Never:
    """Every search trial runs to its last epoch."""

    def list_rungs(self, bracket: int, epochs: int) -> list[int]:
        return []

    @property
    def brackets(self) -> int:
        return 1


@dataclass(frozen=True)
class SuccessiveHalving:
    """At epochs min_epochs·reduction^k, go on only among the best 1/reduction of the cell's trials seen there so far.

    With several `brackets`, a trial draws by seed whether its first rung is k = 0, 1, …, which protects slow
    starters. Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", the asynchronous form.
    """

    min_epochs: int = 1
    reduction: int = 3
    brackets: int = 1

    def __post_init__(self) -> None:
        for name, least in (("min_epochs", 1), ("reduction", 2), ("brackets", 1)):
            if getattr(self, name) < least:
                raise InputError(f"stopping: {name} is {getattr(self, name)}; it must be at least {least}")

    def list_rungs(self, bracket: int, epochs: int) -> list[int]:
        """The epochs at which a trial of this bracket is judged: none in its second half, which saves little."""
        ladder, rung = [], self.min_epochs * self.reduction**bracket
        while 2 * rung <= epochs:
            ladder.append(rung)
            rung *= self.reduction
        return ladder


class Rungs:
    """The values one cell's trials had at each rung, and the verdicts that follow from them."""

    def __init__(self, rule: SuccessiveHalving | Never, direction: Direction, epochs: int, seed: int):
        self._rule, self._direction, self._epochs, self._seed = rule, direction, epochs, seed
        self._seen: dict[int, list[float]] = {}

    def report(self, number: int, epoch: int, value: float) -> str | None:
        """Note the trial's value; the reason to stop it if this epoch is a rung and others did better, else None."""
        if epoch not in self._rule.list_rungs(self._bracket(number), self._epochs):
            return None
        seen = self._seen.setdefault(epoch, [])
        seen.append(value)
        best_first = sorted(seen, reverse=self._direction == "max")
        cutoff = best_first[max(1, len(seen) // self._reduction) - 1]
        passed = value >= cutoff if self._direction == "max" else value <= cutoff
        if passed:
            return None
        return f"halving at epoch {epoch}: {value:.6g}, needed {cutoff:.6g} among {len(seen)} trials"

    @property
    def _reduction(self) -> int:
        return self._rule.reduction if isinstance(self._rule, SuccessiveHalving) else 1

    def _bracket(self, number: int) -> int:
        # a generator of its own for each trial: the bracket must not depend on how many were drawn before
        return random.Random(f"{self._seed}/{number}").randrange(self._rule.brackets)
