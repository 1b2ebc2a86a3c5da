"""What the nets of a study take to run, measured once it is finished: for its study.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.records.study_json import machine
from study.study import Study


def with_costs(study: Study, summary: Mapping[str, Any], storage: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """A task's `summary` with what each net costs beside its parameters, as the task measures it on this machine.

    What cannot be measured is told in a line and left out: a study does not fail by it.
    """
    cpu = machine()["cpu"]

    def measured(entry: Mapping[str, Any], student: Any, name: str) -> dict[str, Any]:
        try:
            cost = study.task.measure_cost(student, storage)
        except Exception as error:  # whatever a net of the user's own may raise
            what = (str(error).splitlines() or [""])[0]
            say(f"MACs and latency of {name} are not measured: {type(error).__name__}: {what}")
            return dict(entry)
        return {**entry, **cost, "latency_cpu": cpu} if cost else dict(entry)

    entries = summary["students"]
    students = {s.name: measured(entries.get(s.name, {}), s, s.name) for s in study.students}
    teacher = summary["teacher"]
    return {
        "teacher": None if teacher is None else measured(teacher, None, "the teacher"),
        "students": {name: entry for name, entry in students.items() if entry},
    }
