"""Figures of test scores against costs."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from reports.analysis.costs import score_nets
from reports.figures.costs import draw_costs
from reports.load import load_study
from tests.reports.fake_study import DKD, NONE, Writer

SMALL = {
    "parameters": 78042,
    "macs": 12_345_678,
    "input": [3, 32, 32],
    "latency_seconds": 0.00123,
    "latency_range_seconds": [0.0012, 0.0121],
    "latency_runs": 100,
    "latency_cpu": "A CPU <1>",
}
LARGE = SMALL | {"parameters": 272474, "macs": 2.5e9, "latency_seconds": 12.0, "latency_runs": 1}


@pytest.fixture
def costed(writer: Writer) -> Path:
    """The fake study with a second student, and with costs."""
    writer.students = ["resnet8", "resnet20"]
    writer.study["students"] = {"resnet8": SMALL, "resnet20": LARGE}
    writer.study["teacher"] = writer.study["teacher"] | LARGE | {"macs": 5e9}
    return writer.fill().write()


def test_cells_stand_at_their_students_cost_with_their_mean_scores(costed: Path) -> None:
    records = load_study(costed)
    found = {(one.net.name, one.arm): one for one in score_nets(records) if not one.net.is_teacher}
    assert len(found) == 2 * 3
    assert found["resnet8", "DKD"].score == pytest.approx(100 * np.mean(DKD))
    assert found["resnet20", "none"].score == pytest.approx(100 * np.mean(NONE))
    by_macs = next(drawn for drawn in draw_costs(records) if drawn.name == "cost-macs").figure
    arm = next(trace for trace in by_macs.data if trace.name == "DKD")
    assert (list(arm.x), by_macs.layout.xaxis.type) == ([12345700.0, 2.5e9], "log")
    teacher = next(trace for trace in by_macs.data if trace.name == "teacher")
    assert (teacher.x[0], teacher.y[0]) == (5e9, pytest.approx(96.99))


def test_one_net_alone_has_no_figure(writer: Writer) -> None:
    writer.study["students"] = {"resnet8": copy.deepcopy(SMALL)}
    writer.study["teacher"] = {"name": "resnet20", "metrics": {}}
    assert draw_costs(load_study(writer.fill().write())) == []
