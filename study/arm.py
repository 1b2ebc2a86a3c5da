"""Arm and Cell: a method, with or without a search space, and a student under it; comparisons of nets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from study.identity import IF_SET
from study.search.population_based import PopulationBased
from study.space.configuration import Configuration
from study.space.domains import Value, resolve_corners, resolve_params
from study.task import DistillationMethod, reads_features
from study.trial import format_cell_name


@dataclass(frozen=True)
class Arm:
    """One row of a comparison table: a method, with or without a search space.

    A cell whose loss, recipe or student contains domains is searched before it is confirmed; any other cell is only
    confirmed. A baseline is an arm like any other, trained in the same study with the same seeds.
    """

    name: str
    loss: DistillationMethod
    baseline: bool = False
    versus: str | tuple[str, ...] | None = None
    """The arm, or the arms, this one is compared with; by default the study's first baseline."""
    margin: float | None = None
    """How much worse on test still counts as not worse, in the unit in which reports write the metric: 0.5 is half a
    percentage point of accuracy. Each comparison of the arm then also tests whether it is worse by less than that."""
    published: str | None = None
    """The name of this method in reports/analysis/published.csv, if a paper reports it."""
    students: tuple[str, ...] | None = None
    """The names of the students to train under this arm; by default all. A reference network may need one arm only."""
    first: tuple[DistillationMethod | Configuration, ...] = ()
    """Points to try before the search proposes its own, such as the published settings: losses without domains that
    lie in this arm's search space, or Configuration(loss, recipe=…, student=…). They count among its trials. What the
    recipe or the student searches and a point leaves out is proposed by the sampler."""
    recipe: Any = None
    """The recipe of this arm's students, which may contain domains; by default the task's, the same for all arms."""
    search: PopulationBased | None = field(default=None, metadata=IF_SET)
    """How to search this arm's domains during training, for a schedule of each; by default the study's `sampler`
    searches values that a trial keeps."""

    @property
    def versus_names(self) -> tuple[str, ...]:
        return (self.versus,) if isinstance(self.versus, str) else self.versus or ()

    @property
    def needs_teacher(self) -> bool:
        """True if any loss in this arm's search space reads the teacher's outputs."""
        return any(loss.needs_teacher for loss in resolve_corners(self.loss))

    @property
    def uses_store(self) -> bool:
        """True if any loss in this arm's search space reads the teacher's predictions and no features."""
        return any(loss.needs_teacher and not reads_features(loss) for loss in resolve_corners(self.loss))


@dataclass(frozen=True)
class Cell:
    """A student under an arm: the unit that is searched and confirmed."""

    student: Any
    arm: Arm
    recipe: Any = None
    """The arm's own recipe, or else the task's."""
    make_schedule: Callable[[Sequence[float]], Any] | None = None
    """The task's function from values, each for an equal share of a run, to a schedule."""

    @property
    def name(self) -> str:
        return format_cell_name(self.student.name, self.arm.name)

    @property
    def space(self) -> Configuration:
        """The search space: loss, recipe and student with their domains."""
        return Configuration(self.arm.loss, self.recipe, self.student)

    @property
    def is_searched(self) -> bool:
        return self.space.is_searched

    @property
    def first_points(self) -> list[dict[str, Value]]:
        """The parameters of the points in the arm's `first`.

        Raises InputError naming the value that lies outside the search space.
        """
        return [self.space.read_first_point(first) for first in self.arm.first]

    def configure(self, params: Mapping[str, Any]) -> Configuration:
        """Return what a trial with these parameters trains: the only place where domains are replaced.

        A list of values becomes a schedule.
        Raises InputError if loss, recipe or student refuse this combination of values.
        """
        resolved = {
            name: self.make_schedule(value) if self.make_schedule and isinstance(value, list) else value
            for name, value in params.items()
        }
        configuration: Configuration = resolve_params(self.space, resolved)
        return configuration


@dataclass(frozen=True)
class NetComparison:
    """A planned comparison of one cell with cells of other students: it compares nets, not methods.

    Cells are named "student / arm". Runs are paired by seed, and all net comparisons of a study share one correction.
    """

    cell: str
    versus: tuple[str, ...]
    metrics: tuple[str, ...]
    """Test metrics, such as "test/psnr"."""
