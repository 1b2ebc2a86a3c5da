"""The students of a study, with MACs and latency measured once it is finished, for study.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.engine.coordinator import Coordinator
from study.errors import format_first_line
from study.records.provenance import describe_machine
from study.space.domains import is_unresolved
from study.study import Study


def list_students(coordinator: Coordinator) -> dict[str, Any]:
    """Return the students by name; one that is searched once per cell that has chosen, by the cell's name."""
    students: dict[str, Any] = {}
    for name, progress in coordinator.cells.items():
        cell, params = progress.cell, progress.search.chosen_params
        if not is_unresolved(cell.student):
            students[cell.student.name] = cell.student
        elif params is not None:
            students[name] = cell.configure(params).student
    return students


def add_model_costs(
    study: Study,
    students: Mapping[str, Any],
    summary: Mapping[str, Any],
    storage: Path,
    print_line: Callable[[str], None],
) -> dict[str, Any]:
    """Return a task's `summary` of its networks with the cost of each, measured by the task on this machine.

    `students` are those that the summary describes, by the same keys.

    A cost that cannot be measured is left out, and a line says so: the study does not fail.
    """
    cpu = describe_machine()["cpu"]

    def add_cost(entry: Mapping[str, Any], student: Any, name: str) -> dict[str, Any]:
        try:
            cost = study.task.measure_cost(student, storage)
        except Exception as error:  # of any kind: a space file may define the network
            print_line(f"MACs and latency of {name} are not measured: {format_first_line(error)}")
            return dict(entry)
        return {**entry, **cost, "latency_cpu": cpu} if cost else dict(entry)

    entries, teacher = summary["students"], summary["teacher"]
    measured = {key: add_cost(entries.get(key, {}), student, key) for key, student in students.items()}
    return {
        "teacher": None if teacher is None else add_cost(teacher, None, "the teacher"),
        "students": {name: entry for name, entry in measured.items() if entry},
    }
