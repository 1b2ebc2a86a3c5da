"""The table of an ablation: the score after each changed setting, on validation."""

from __future__ import annotations

from reports.analysis.ablation import Step, measure_path
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.load import StudyRecords


def make_tables(records: StudyRecords) -> list[Table]:
    """Return one table for each student whose arms form a path."""
    paths = [(student, measure_path(records, student)) for student in records.students]
    return [_make_table(records, student, steps) for student, steps in paths if steps]


def _make_table(records: StudyRecords, student: str, steps: tuple[Step, ...]) -> Table:
    metric = records.get_metric(records.metric)
    change = metric.title_difference("change")
    return Table(
        name=f"ablation-{student}",
        caption=f"{student}: from {steps[0].arm} to searched settings, step by step",
        columns=("setting changed", "seeds", metric.label, change, "95 % interval", "change so far"),
        align="lrrrrr",
        rows=tuple(_make_row(step, steps[0], metric) for step in steps),
        kinds=("reference",) + ("",) * (len(steps) - 1),
        notes=(
            "Means over seeds on validation data, which no arm trained on. Each step keeps the changes before it; in "
            "another order, settings that depend on each other get other shares. Intervals are of the paired "
            "differences to the step before, without correction for the number of steps; verdicts by test scores are "
            "in the table above.",
        ),
    )


def _make_row(step: Step, first: Step, metric: Metric) -> tuple[str, ...]:
    row = (step.arm, str(step.score.n), metric.format(step.score.mean))
    if step.change is None:
        return (*row, "–", "–", "–")
    interval = step.change.interval
    ends = f"{metric.format_signed(interval.low)} to {metric.format_signed(interval.high)}" if interval else "–"
    so_far = metric.format_signed(step.score.mean - first.score.mean)
    return (*row, metric.format_signed(step.change.difference), ends, so_far)
