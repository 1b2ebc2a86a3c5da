"""Study and Budget: the contents of a space file, validated before anything starts. arm.py has its arms and cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from study.arm import Arm, Cell, NetComparison
from study.errors import check_positive, check_whole_number
from study.identity import IF_SET, LIMIT, derive_seed, describe
from study.search.halving import Never, SuccessiveHalving
from study.search.samplers import Sampler, Tpe, WarmStart, count_search_trials
from study.space.domains import is_unresolved
from study.task import COSTS, Metric, Plan, Task
from study.trial import Direction, Phase, Split
from study.validation.study import check_study

LARGEST = {"trials": 10_000, "epochs": 100_000, "seeds": 10_000}
"""Largest numbers of a budget: more is a typing error, for which a dry run would take minutes."""


@dataclass(frozen=True)
class Budget:
    """The budget of a study: `trials` per searched cell, `epochs` per trial, confirm `seeds` per cell.

    Raises InputError for numbers below 1 or above LARGEST, and caps and prices that are not above 0.

    Trials and seeds may be raised later, which extends the study. Caps and price may be changed at any time.
    """

    trials: int
    epochs: int
    seeds: int
    wall_hours: float | None = field(default=None, metadata=LIMIT)
    """Maximum duration, summed over all runs of the study; running trials are then interrupted."""
    gpu_hours: float | None = field(default=None, metadata=LIMIT)
    """Maximum GPU time of the trials' epochs, summed over all runs; a trial on a share of a GPU counts that share."""
    usd_per_hour: float | None = field(default=None, metadata=LIMIT)
    """Price of one GPU for an hour, its share of the machine included, to give the cost with GPU hours."""

    def __post_init__(self) -> None:
        hours = "a number of hours above 0, or None for no cap"
        caps = {"wall_hours": hours, "gpu_hours": hours, "usd_per_hour": "a number of US dollars above 0, or None"}
        for name, allowed in caps.items():
            if (value := getattr(self, name)) is not None:
                check_positive(f"budget: {name}", value, allowed)
        for name, largest in LARGEST.items():
            check_whole_number(f"budget: {name}", getattr(self, name), most=largest)


DEFAULT_FRONT = 3
"""Points of a front that are confirmed by default: its two ends and one between. Each costs as many runs as an arm."""


@dataclass(frozen=True)
class Study:
    """A question, and everything needed to answer it.

    Raises InputError for a study that would be unfair or could not run: no baseline, two arms with one name, an arm
    compared with an unknown arm, a selection metric that is not a validation metric, a domain whose ends the loss
    refuses.
    """

    name: str
    question: str
    task: Task
    students: tuple[Any, ...]
    """Frozen dataclasses with a `name`; the task builds the networks from them. Their fields may be domains."""
    arms: tuple[Arm, ...]
    budget: Budget
    metric: str = "val/accuracy"
    """The validation metric that the search optimises; its value at the last epoch alone selects the configuration to
    confirm."""
    objectives: tuple[str, ...] = ()
    """What the search trades off against `metric`: further validation metrics, and costs of a searched student, such as
    "student/latency_ms" (study.task.COSTS). They require stopping=Never()."""
    confirm_front: int | None = field(default=None, metadata=IF_SET)
    """With `objectives`, how many points of a cell's Pareto front are confirmed at most, by default DEFAULT_FRONT: the
    best one by `metric`, then in turn the one farthest from these in the first of `objectives`."""
    constraints: Mapping[str, float] | None = field(default=None, metadata=IF_SET)
    """The highest allowed costs of a student, by name: {"student/macs": 5e6}. A search trial above one of them is not
    trained, or ends after its first epoch if that has measured the cost; it counts among the trials."""
    seed: int = 0
    sampler: Sampler = field(default_factory=Tpe)
    stopping: SuccessiveHalving | Never = field(default_factory=SuccessiveHalving)
    warm_start: WarmStart | None = None
    reproducible_search: int | None = field(default=None, metadata=IF_SET)
    """k: trial n of a cell's search waits for the end of the trials 0 … n − k, is proposed from them alone, and is
    compared with them alone by the stopping rule. No choice then depends on which trial reports first, and at most k
    trials of a cell are searched at once. By default a trial is proposed from whatever has ended."""
    workers_per_trial: int = 1
    """Number of processes that train a trial together; each has its shard of every batch, one CPU and one GPU."""
    confirm_on: Literal["train+val", "train"] = "train+val"
    """The split for confirm trials. With "train", validation stays held out and the best validation epoch is recorded
    in addition to the last one."""
    assumptions: tuple[str, ...] = ()
    """How this study resolves what its papers leave open, one sentence each; the report prints them."""
    net_comparisons: tuple[NetComparison, ...] = ()
    test: Literal["sign-flip", "sign"] = "sign-flip"
    """The test of paired differences. "sign-flip" asks which arm is better on average, and assumes that differences are
    symmetric about their mean. "sign" asks which arm is better on most seeds, and assumes nothing."""
    hang_seconds: float = field(default=3600.0, metadata=LIMIT)
    """A trial that reports no epoch for this long counts as hung, and fails."""
    protocol: str = ""
    """The paper whose data and protocol this study follows exactly, such as "P1"; empty if it follows none."""

    def __post_init__(self) -> None:
        check_study(self)
        describe(self)  # raises InputError for values that have no description to identify them by

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(
            Cell(student, arm, self._find_recipe(arm), None if arm.search is None else self.task.make_schedule)
            for student in self.students
            for arm in self.arms
            if arm.students is None or student.name in arm.students
        )

    @property
    def direction(self) -> Direction:
        return self.task.metrics[self.metric].direction

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs of students that the search minimises or keeps below a limit."""
        return tuple(name for name in COSTS if name in self.objectives or name in (self.constraints or {}))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric that a row may contain: the task's, and the costs that this study asks for."""
        return {**self.task.metrics, **{name: COSTS[name] for name in self.costs}}

    @property
    def objective_directions(self) -> dict[str, Direction]:
        """The direction of each metric that the search optimises: `metric` first, then `objectives`."""
        return {name: self.metrics[name].direction for name in (self.metric, *self.objectives)}

    @property
    def test_metric(self) -> str:
        """The selection metric's name on the test split, which confirm trials report."""
        return "test/" + self.metric.split("/", 1)[1]

    @property
    def plan(self) -> Plan:
        """The trainings of arms that need the teacher."""
        cells = [cell for cell in self.cells if cell.arm.needs_teacher]
        runs, stored = self._list_runs(cells), self._list_runs([cell for cell in cells if cell.arm.uses_store])
        return Plan(runs, self.budget.epochs, None if stored == runs else stored)

    def _list_runs(self, cells: Sequence[Cell]) -> tuple[tuple[int, Split], ...]:
        """Return seed and training split of each run of these cells; runs of equal number share both."""
        searches = max(map(self.count_search_runs, cells), default=0)
        confirms = self.budget.seeds if cells else 0
        return (
            *((self.derive_trial_seed("search", number), "train") for number in range(searches)),
            *((self.derive_trial_seed("confirm", number), self.confirm_on) for number in range(confirms)),
        )

    def count_trials(self, cell: Cell) -> int:
        """Return the number of search trials of a cell; of a population, all links of its members' chains."""
        if cell.arm.search is not None:
            return self.count_search_runs(cell) * cell.arm.search.count_intervals(self.budget.epochs)
        return self.count_search_runs(cell)

    def count_search_runs(self, cell: Cell) -> int:
        """Return the number of runs of `budget.epochs` that a cell's search trains at most."""
        if not cell.is_searched:
            return 0
        if cell.arm.search is not None:
            return cell.arm.search.count_members(self.budget.trials)
        return count_search_trials(self.sampler, cell.space, cell.first_points, self.budget.trials)

    @property
    def front_size(self) -> int:
        """The largest number of points that a searched cell confirms of its own search: 1 without objectives."""
        if not self.objectives:
            return 1
        return DEFAULT_FRONT if self.confirm_front is None else self.confirm_front

    def compares_equal_students(self, cell: Cell) -> bool:
        """Return whether a cell's points have students of their own, which comparison arms are trained with too."""
        return self.front_size > 1 and is_unresolved(cell.student)

    def count_confirm_points(self, cell: Cell) -> int:
        """Return the largest number of configurations that a cell confirms, each with all seeds."""
        if not cell.is_searched:
            return 1
        if not self.compares_equal_students(cell):
            return self.front_size
        compared = [
            other
            for other in self.cells
            if other.student is cell.student and cell.arm in self.find_comparisons(other.arm)
        ]
        return self.front_size * (1 + len(compared))

    def derive_trial_seed(self, phase: Phase, number: int) -> int:
        """Return a trial's seed; trials of equal number share it in all cells, which pairs them across arms."""
        return derive_seed(self.seed, phase, number)

    def find_comparisons(self, arm: Arm) -> tuple[Arm, ...]:
        """Return the arms that `arm` is compared with: by default the first baseline, for which there are none."""
        first = next(other for other in self.arms if other.baseline)
        if arm.versus is None:
            return () if arm is first else (first,)
        return tuple(self.find_arm(name) for name in arm.versus_names)

    @property
    def max_tests(self) -> int:
        """The largest number of tests that share a correction: a student's comparisons, with the margin and the points
        of the front of each."""
        tests = Counter[str]()
        for cell in self.cells:
            further = self.front_size if cell.is_searched and self.front_size > 1 else 0
            each = (1 if cell.arm.margin is None else 2) + further
            tests[cell.student.name] += len(self.find_comparisons(cell.arm)) * each
        return max(tests.values())

    def is_searched(self, arm: Arm) -> bool:
        """Return whether an arm is searched for any of its students."""
        return any(cell.is_searched for cell in self.cells if cell.arm == arm)

    def is_tuned_alone(self, arm: Arm) -> bool:
        """Return whether an arm is searched while none of the arms it is compared with is, or its recipe is."""
        others = self.find_comparisons(arm)
        return bool(others) and any(
            is_searched(arm) and not any(map(is_searched, others))
            for is_searched in (self.is_searched, lambda arm: is_unresolved(self._find_recipe(arm)))
        )

    def differs_in_recipe(self, arm: Arm, other: Arm) -> bool:
        """Return whether two arms train by different recipes, so that their methods are not all that differs."""
        return bool(self._find_recipe(arm) != self._find_recipe(other))

    def _find_recipe(self, arm: Arm) -> Any:
        return self.task.recipe if arm.recipe is None else arm.recipe

    def find_arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def find_cell(self, name: str) -> Cell:
        return next(cell for cell in self.cells if cell.name == name)
