"""MACs and latency of a study's networks, measured once it is finished, for study.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.records.provenance import describe_machine
from study.study import Study


def add_model_costs(
    study: Study, summary: Mapping[str, Any], storage: Path, print_line: Callable[[str], None]
) -> dict[str, Any]:
    """Return a task's `summary` of its networks with the cost of each, measured by the task on this machine.

    A cost that cannot be measured is left out, and a line says so: the study does not fail.
    """
    cpu = describe_machine()["cpu"]

    def add_cost(entry: Mapping[str, Any], student: Any, name: str) -> dict[str, Any]:
        try:
            cost = study.task.measure_cost(student, storage)
        except Exception as error:  # of any kind: a space file may define the network
            problem = (str(error).splitlines() or [""])[0]
            print_line(f"MACs and latency of {name} are not measured: {type(error).__name__}: {problem}")
            return dict(entry)
        return {**entry, **cost, "latency_cpu": cpu} if cost else dict(entry)

    entries, teacher = summary["students"], summary["teacher"]
    students = {s.name: add_cost(entries.get(s.name, {}), s, s.name) for s in study.students}
    return {
        "teacher": None if teacher is None else add_cost(teacher, None, "the teacher"),
        "students": {name: entry for name, entry in students.items() if entry},
    }
