"""Stopping rules for search trials: asynchronous successive halving on epochs, one set of rungs per cell.

A rule is a frozen dataclass in the space file; `Rungs` holds the values that one cell reported. A resumed study
rebuilds them by reporting its recorded epochs to `Rungs.report` in the order of recording: the same rows give the same
decisions. Confirm trials are never stopped.

A trial is judged only once the schedules that are searched have changed: until then trials differ in their first values
alone, and a rule that stopped some of them would choose the later values blind.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from study.errors import check_whole_number
from study.space.domains import ROOT_CHOICE, Choice, is_unresolved, join_path, list_children, resolve_params
from study.space.params import Params
from study.trial import Direction, Progress


@dataclass(frozen=True)
class Never:
    """No early stopping: every search trial runs to its last epoch."""


@dataclass(frozen=True)
class SuccessiveHalving:
    """At epochs min_epochs·reduction^k, continue only the best 1/reduction of the cell's trials that got there so far.

    With several `brackets`, the trial's seed decides whether its first rung is k = 0, 1, …, which protects slow
    starters. Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", the asynchronous form.
    """

    min_epochs: int = 2
    reduction: int = 3
    brackets: int = 1

    def __post_init__(self) -> None:
        for name, least in (("min_epochs", 1), ("reduction", 2), ("brackets", 1)):
            check_whole_number(f"stopping: {name}", getattr(self, name), least)

    def list_rungs(self, bracket: int, epochs: int) -> list[int]:
        """Return the rungs of a bracket, as epochs; none in a trial's second half, where stopping saves little."""
        rungs, rung = [], self.min_epochs * self.reduction**bracket
        while 2 * rung <= epochs:
            rungs.append(rung)
            rung *= self.reduction
        return rungs


class Rungs:
    """The values that one cell's trials reported at each rung.

    Trial n is compared with all that reported before it; with a `lag`, with those of the trials 0 … n − lag.
    """

    def __init__(
        self, rule: SuccessiveHalving | Never, direction: Direction, epochs: int, seed: int, lag: int | None = None
    ):
        self._rule, self._direction, self._epochs, self._seed, self._lag = rule, direction, epochs, seed, lag
        self._values: dict[int, list[tuple[float, int]]] = {}
        """Reported values by rung, in ascending order, each with its trial's number."""

    def report(self, number: int, epoch: int, value: float) -> str | None:
        """Record a trial's value; return the reason to stop the trial if the epoch is a rung it fails, else None."""
        if isinstance(self._rule, Never):
            return None
        # a generator for each trial, so that its bracket does not depend on the order in which trials report
        bracket = random.Random(f"{self._seed}/{number}").randrange(self._rule.brackets)
        if epoch not in self._rule.list_rungs(bracket, self._epochs):
            return None
        reported = self._values.setdefault(epoch, [])
        bisect.insort(reported, (value, number))
        if self._lag is not None:
            last = number - self._lag
            reported = [(value, other) for value, other in reported if other <= last or other == number]
        place = max(1, len(reported) // self._rule.reduction)
        cutoff, _ = reported[-place] if self._direction == "max" else reported[place - 1]
        passed = value >= cutoff if self._direction == "max" else value <= cutoff
        if passed:
            return None
        return f"halving at epoch {epoch}: {value:.6g}, needed {cutoff:.6g} among {len(reported)} trials"


def find_first_judged_epoch(space: Any, params: Params, epochs: int) -> int:
    """Return the first epoch, from 1, by which every searched schedule of a trial has left its first value.

    A schedule is any object with `value_at(progress)`. One that never changes does not count.
    """
    return max(
        (_find_first_change(schedule, epochs) for schedule in _list_searched_schedules(space, params)), default=1
    )


def searches_schedules(space: Any) -> bool:
    """Return whether a search space contains a schedule with a domain, or one among the options of a choice."""
    if isinstance(space, Choice):
        return any(map(searches_schedules, space.options))
    if hasattr(space, "value_at"):
        return True
    return any(searches_schedules(item) for _, item in list_children(space) if is_unresolved(item))


def _list_searched_schedules(space: Any, params: Params, path: str = "") -> Iterator[Any]:
    """Yield the schedules of a trial that contain a domain or belong to the option of a choice, resolved."""
    if isinstance(space, Choice):
        label = params[path or ROOT_CHOICE]
        yield from _list_searched_schedules(space.find_option(label), params, join_path(path, label))
    elif hasattr(space, "value_at"):
        yield resolve_params(space, params, path)
    else:
        for key, item in list_children(space):
            if is_unresolved(item):
                yield from _list_searched_schedules(item, params, join_path(path, key))


def _find_first_change(schedule: Any, epochs: int) -> int:
    first = schedule.value_at(Progress(0, epochs))
    # in the middle of an epoch too: some schedules change at every step
    moved = (
        any(schedule.value_at(Progress(epoch, epochs, at)) != first for at in (0.0, 0.5)) for epoch in range(epochs)
    )
    return next((epoch + 1 for epoch, has_moved in enumerate(moved) if has_moved), 1)
