"""The configurations that cells confirm: chosen points of a search, and students of points compared with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from study.engine.cell import CellProgress
from study.engine.record_writer import RecordWriter
from study.engine.trials import find_fault
from study.records.rows import RunningTrial
from study.search.front import find_front, measure_distance
from study.space.params import Params
from study.study import Study
from study.trial import TrialState

STUDENT_PREFIX = "student."
"""Start of the names of parameters that decide the student."""

OTHER_CHOSEN = "its cell's search continued and chose another configuration"


def decide_points(study: Study, cells: Collection[CellProgress]) -> None:
    """Decide what cells confirm whose search is done.

    Where points have students of their own, all cells of the student are decided together: a cell also confirms the
    students of points that are compared with it.
    """
    for progress in cells:
        group = [progress]
        if study.compares_equal_students(progress.cell):
            group = [other for other in cells if other.cell.student is progress.cell.student]
        if progress.points is None and all(cell.search.done for cell in group):
            for cell in group:
                cell.points = cell.search.select_points()
                if cell.points and len(group) > 1:
                    cell.points += _list_counterparts(study, cell, group)


def _list_counterparts(study: Study, base: CellProgress, group: Sequence[CellProgress]) -> list[Params]:
    """Return the parameters by which a cell trains those students of points compared with it that it lacks."""
    students, found = [_select_student(params) for params in base.search.select_points()], list[Params]()
    for cell in group:
        if base.cell.arm not in study.find_comparisons(cell.cell.arm):
            continue
        for number in cell.search.select_numbers():
            params = cell.search.params[number]
            if _select_student(params) not in students:
                students.append(_select_student(params))
                found.append(match_student(study, base, params, cell.search.values[number][1]))
    return found


def match_student(study: Study, cell: CellProgress, params: Mapping[str, Any], cost: float) -> Mapping[str, Any]:
    """Return parameters that train the student of another cell's point, of this `cost`, under a cell's arm.

    They are those of the best trial of that student; if none trained it, the other settings are those of the point of
    the cell's front that is nearest in cost.
    """
    student, directions = _select_student(params), [*study.objective_directions.values()]
    trials, search = cell.search.params, cell.search
    same = {number: values for number, values in search.values.items() if _select_student(trials[number]) == student}
    if same:
        return trials[find_front(same, directions)[0]]
    front = find_front(search.values, directions)
    nearest = min(front, key=lambda number: (measure_distance(search.values[number][1], cost), number))
    others = trials[nearest].items()
    return {name: value for name, value in others if not name.startswith(STUDENT_PREFIX)} | student


def _select_student(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that decide the student."""
    return {name: value for name, value in params.items() if name.startswith(STUDENT_PREFIX)}


def reconcile_confirms(study: Study, cell: CellProgress, writer: RecordWriter) -> list[RunningTrial]:
    """Decide which confirm trials of earlier runs count for a cell's points; return those to resume."""
    points, open_runs = [dict(params) for params in cell.points or ()], list[RunningTrial]()
    for earlier in cell.earlier_confirms:
        run, params = earlier.run, dict(earlier.run.trial.params)
        if params not in points:
            if earlier.state is not TrialState.SUPERSEDED:
                writer.add_state(run, TrialState.SUPERSEDED, OTHER_CHOSEN, earlier.at)
            continue
        has_moved = points.index(params) != run.trial.point
        if has_moved:
            run.trial = replace(run.trial, point=points.index(params))
        place = run.trial.number, run.trial.point
        if earlier.state in (TrialState.COMPLETE, TrialState.FAILED):
            cell.confirmed[place] = earlier.state
            cell.note_failure(run, earlier.state, earlier.reason)
            if has_moved:
                writer.add_state(run, earlier.state, earlier.reason, earlier.at)
        elif run.epochs_done == run.trial.epochs:  # superseded once, and chosen again
            fault = find_fault(study, run)
            cell.confirmed[place] = state = TrialState.FAILED if fault else TrialState.COMPLETE
            cell.note_failure(run, state, fault)
            writer.add_state(run, state, fault, earlier.at)
        else:
            cell.confirmed[place] = None
            open_runs.append(run)
    cell.earlier_confirms = []
    return open_runs
