"""The order in which a study's trials start: resumed ones, preparations, search trials, confirm trials.

Cells are independent: the confirm trials of a cell start as soon as its own search is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from study.engine.cell import CellProgress
from study.engine.confirm_points import decide_points
from study.engine.student_costs import StudentCosts, explain_violation
from study.engine.trials import make_confirm_trial, make_preparation_trial, make_refused_trial, make_search_trial
from study.errors import InputError
from study.records.rows import RunningTrial
from study.study import Study
from study.task import Preparation
from study.trial import Trial, TrialState


@dataclass(frozen=True)
class NextTrial:
    """A new trial to start; with a `state`, one that ends in it before its first epoch, by this reason."""

    trial: Trial
    state: TrialState | None = None
    reason: str = ""


class TrialQueue:
    """Trials that are left to start.

    `preparations` are the steps still to be done before trials that need the teacher can start; `fingerprints` identify
    the inputs and enter every trial's configuration.
    """

    def __init__(
        self,
        study: Study,
        cells: Mapping[str, CellProgress],
        costs: StudentCosts,
        preparations: Iterable[Preparation],
        fingerprints: Mapping[str, str],
    ):
        self._study, self._cells, self._costs, self._fingerprints = study, cells, costs, fingerprints
        self.preparations = list(preparations)
        self.resumable: list[RunningTrial] = []
        """Trials that have started, and lost their worker or the run that trained them."""

    @property
    def is_empty(self) -> bool:
        """Nothing is left to start, if nothing runs."""
        decide_points(self._study, self._cells.values())
        is_open = any(cell.search.can_propose or cell.confirms_left for cell in self._cells.values())
        return not (self.resumable or self.preparations or is_open)

    def pop_resumable(self) -> RunningTrial | None:
        for index, run in enumerate(self.resumable):
            if run.trial.phase == "prepare" or self._is_ready(self._cells[run.trial.cell]):
                return self.resumable.pop(index)
        return None

    def find_next(self, running: Iterable[RunningTrial]) -> NextTrial | None:
        """Return the most urgent new trial; None if there is none until one of the `running` ends, or at all."""
        trial = self._next_preparation(running)
        return NextTrial(trial) if trial else self._next_search() or self._next_confirm()

    def complete_preparation(self, trial: Trial) -> None:
        self.preparations = [step for step in self.preparations if make_preparation_trial(step).id != trial.id]

    def _is_ready(self, cell: CellProgress) -> bool:
        return not (cell.needs_teacher and self.preparations)

    def _next_preparation(self, running: Iterable[RunningTrial]) -> Trial | None:
        """Return the next step of the earliest stage that is not done; the steps of a stage run in parallel."""
        if not self.preparations:
            return None
        stage = min(step.stage for step in self.preparations)
        started = {run.trial.id for run in (*running, *self.resumable)}
        trials = (make_preparation_trial(step) for step in self.preparations if step.stage == stage)
        return next((trial for trial in trials if trial.id not in started), None)

    def _next_search(self) -> NextTrial | None:
        """Return the next search trial, of the cell with most of them left: its confirm trials wait for its search."""
        open_cells = [cell for cell in self._cells.values() if cell.search.can_propose and self._is_ready(cell)]
        if not open_cells:
            return None
        progress = max(open_cells, key=lambda cell: cell.search.proposals_left)
        cell, proposal = progress.cell, progress.search.propose()
        try:
            trial = make_search_trial(self._study, cell, proposal, self._fingerprints)
        except InputError as error:  # values that the loss accepts one by one but not together
            refused = make_refused_trial(self._study, cell, proposal, str(error))
            return NextTrial(refused, TrialState.FAILED, str(error))
        try:
            violation = self._find_violation(progress, trial)
        except Exception as error:  # of the net's own code: a combination that it cannot be built with
            return NextTrial(trial, TrialState.FAILED, f"{type(error).__name__}: {error}")
        # known before any epoch: training it would only measure a student that may not be chosen
        return NextTrial(trial, TrialState.PRUNED, violation) if violation else NextTrial(trial)

    def _find_violation(self, progress: CellProgress, trial: Trial) -> str:
        """Return which limits the student of a new search trial exceeds, as far as that is known without training."""
        if not self._study.constraints:
            return ""
        student = progress.cell.configure(trial.params).student
        return explain_violation(self._study, self._costs.count_exact(trial, student))

    def _next_confirm(self) -> NextTrial | None:
        """Return the next confirm trial: low seed numbers of all cells first, so that an unfinished study has pairs."""
        decide_points(self._study, self._cells.values())
        ready = [cell for cell in self._cells.values() if self._is_ready(cell)]
        left = [(pairs[0], cell) for cell in ready if (pairs := cell.confirms_left)]
        if not left:
            return None
        (number, point), progress = min(left, key=lambda pair: pair[0])
        progress.confirmed[number, point] = None
        assert progress.points is not None
        params = progress.points[point]
        return NextTrial(make_confirm_trial(self._study, progress.cell, number, params, self._fingerprints, point))
