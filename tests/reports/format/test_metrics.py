"""The written form of metrics: as a study declares it, and by name for studies of schema 1."""

from __future__ import annotations

import pytest

from reports.format.metrics import make_metric
from study.records.study_json import describe_metric
from trainables import Classification, CrowdCounting, FaceParsing, FaceSR


def test_declared_unit_digits_and_label_are_how_a_metric_is_written() -> None:
    written = make_metric("test/wer", {"direction": "min", "unit": "%", "digits": 1, "label": "word errors"})
    assert (written.label, written.format(0.1234), written.difference_unit) == ("test word errors, %", "12.3", "points")
    assert make_metric("test/psnr", {"direction": "max", "unit": "", "digits": 0, "label": ""}).label == "test psnr"


@pytest.mark.parametrize("task", [Classification, CrowdCounting, FaceParsing, FaceSR])
def test_metrics_of_tasks_are_written_as_they_were_in_schema_1(task: type) -> None:
    for metric in task.scores:  # type: ignore[attr-defined]
        name = f"test/{metric.name}"
        assert make_metric(name, describe_metric(metric)) == make_metric(name, "max")
