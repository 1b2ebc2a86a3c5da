"""The written form of metrics: as a study declares it, and by name for studies of schema 1."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reports.format.metrics import make_metric
from study.records.study_json import describe_metric
from study.task import Metric
from trainables import CrowdCounting, FaceSR
from trainables.tasks.classification.metrics import ACCURACY
from trainables.tasks.segmentation.face_parsing import PARTS
from trainables.tasks.segmentation.metrics import define_class_scores, define_means

FACE_SCORES = (*define_means(PARTS), *define_class_scores(PARTS))


def test_declared_unit_digits_and_label_are_how_a_metric_is_written() -> None:
    written = make_metric("test/wer", {"direction": "min", "unit": "%", "digits": 1, "label": "word errors"})
    assert (written.label, written.format(0.1234), written.difference_unit) == ("test word errors, %", "12.3", "points")
    assert make_metric("test/psnr", {"direction": "max", "unit": "", "digits": 0, "label": ""}).label == "test psnr"


ADDED_SINCE = {"miou"}
"""Metrics that no study of schema 1 has."""


@pytest.mark.parametrize("scores", [[ACCURACY], CrowdCounting.scores, FACE_SCORES, FaceSR.scores])
def test_metrics_of_tasks_are_written_as_they_were_in_schema_1(scores: Sequence[Metric]) -> None:
    for metric in [metric for metric in scores if metric.name not in ADDED_SINCE]:
        name = f"test/{metric.name}"
        assert make_metric(name, describe_metric(metric)) == make_metric(name, "max")


@pytest.mark.parametrize(
    ("name", "value", "text", "signed"),
    [
        ("test/accuracy", 0.95321, "95.32", "+95.32"),
        ("test/accuracy", -0.00001, "0.00", "+0.00"),
        ("test/psnr", -26.5904, "−26.590", "−26.590"),
        ("test/mae", float("nan"), "–", "–"),
        ("odd", 0.5, "0.5000", "+0.5000"),
    ],
)
def test_metric_writes_its_values(name: str, value: float, text: str, signed: str) -> None:
    assert (make_metric(name).format(value), make_metric(name).format_signed(value)) == (text, signed)
