from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.figures.sweep import collect_points, draw_sweep, find_sweep, plot_sweep
from reports.load import load_study
from tests.reports.fake_study import Writer

ALPHAS = (0.1, 0.3, 0.5)
METRICS = {
    "train/loss": "min",
    "train/accuracy": "max",
    "val/accuracy": "max",
    "test/accuracy": "max",
    "test/mae": "min",
}


def loss(alpha: Any, **more: Any) -> dict[str, Any]:
    return {
        "is": "Density",
        "from": "somewhere",
        "alpha": alpha,
        "weight": 1.0,
        "nested": {"is": "Part", "depth": 2},
    } | more


@pytest.fixture
def swept(writer: Writer) -> Writer:
    """A control, three fixed alphas, a searched one that chose 0.42, and one that moves."""
    moving = {"is": "Stages", "start": 0.7, "end": 0.0}
    domain = {"is": "Uniform", "low": 0.0, "high": 1.0, "log": False}
    losses = {"none": {"is": "NoDistillation"}} | {f"alpha {a}": loss(a) for a in ALPHAS}
    losses |= {"searched": loss(domain), "moving": loss(moving)}
    resolved = losses | {"searched": loss(0.42)}
    writer.arms = {arm: [0.9 + 0.01 * i + 0.001 * seed for seed in range(4)] for i, arm in enumerate(losses)}
    writer.versus = {arm: None if arm == "none" else "none" for arm in losses}
    writer.searched = {"searched"}
    writer.study["study"]["arms"] = [{"is": "Arm", "name": arm, "loss": made} for arm, made in losses.items()]
    for row in writer.fill().trials:
        if row["phase"] == "confirm":
            row["config"] = json.dumps({"loss": resolved[row["arm"]]})
    return writer


def test_sweep_finds_the_number_by_which_arms_differ_alone(swept: Writer) -> None:
    found = find_sweep(load_study(swept.write()))
    assert found is not None
    assert found.name == "alpha"
    assert found.fixed == {f"alpha {a}": a for a in ALPHAS}
    assert found.others == ("searched", "moving")


def test_sweep_leaves_out_an_arm_that_differs_in_more(swept: Writer) -> None:
    swept.study["study"]["arms"][1]["loss"]["nested"]["depth"] = 3
    assert find_sweep(load_study(swept.write())) is None


def test_sweep_of_a_study_without_descriptions(writer: Writer) -> None:
    assert find_sweep(load_study(writer.fill().write())) is None
    writer.study["study"] = None
    assert find_sweep(load_study(writer.write())) is None


def test_setting_data_places_the_searched_arm_where_its_search_chose(swept: Writer) -> None:
    records = load_study(swept.write())
    found = find_sweep(records)
    assert found is not None
    points = {point.arm: point for point in collect_points(records, "resnet8", found, "test/accuracy")}
    assert {arm: point.x for arm, point in points.items()} == {
        **{f"alpha {a}": a for a in ALPHAS},
        "none": None,
        "searched": 0.42,
        "moving": None,
    }
    assert points["alpha 0.3"].seeds == pytest.approx([100 * value for value in swept.arms["alpha 0.3"]])
    assert points["alpha 0.3"].mean.mean == pytest.approx(100 * np.mean(swept.arms["alpha 0.3"]))


def test_setting_figures_show_each_test_metric_the_deciding_one_first(swept: Writer, monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.reports.fake_study.METRICS", METRICS)
    swept.study["metrics"] = METRICS
    for row in swept.trials:
        if row["phase"] == "confirm":
            row["test/mae"] = 10 * (1 - row["test/accuracy"])
    drawn = draw_sweep(load_study(swept.write()), "resnet8")
    assert [one.title for one in drawn] == ["resnet8: alpha against test accuracy", "resnet8: alpha against test MAE"]
    assert "Higher is better" in drawn[0].caption
    assert "Lower is better" in drawn[1].caption
    traces = {trace.name: trace for trace in drawn[0].figure.data if trace.showlegend is not False}
    assert set(traces) == {"none (control)", "moving (scheduled)", "fixed alpha", "searched, chosen 0.42"}
    assert list(traces["fixed alpha"].x) == list(ALPHAS)
    assert list(traces["searched, chosen 0.42"].x) == [0.42]


def test_levels_of_several_schedules_look_different(swept: Writer) -> None:
    records = load_study(swept.write())
    found = find_sweep(records)
    assert found is not None
    found = replace(found, others=("searched", "moving", "falling"))
    points = collect_points(records, "resnet8", found, "test/accuracy")
    points.append(replace(next(point for point in points if point.arm == "moving"), arm="falling"))
    figure = plot_sweep(points, found, records.get_metric("test/accuracy"), "resnet8", "max").figure
    lines = {trace.name: trace.line for trace in figure.data if "(scheduled)" in trace.name}
    assert lines["moving (scheduled)"].color != lines["falling (scheduled)"].color
    assert lines["moving (scheduled)"].dash != lines["falling (scheduled)"].dash


def test_setting_figures_of_an_unfinished_study_wait_for_three_points(swept: Writer) -> None:
    swept.trials = [row for row in swept.trials if row["arm"] not in ("alpha 0.3", "searched")]
    assert draw_sweep(load_study(swept.write()), "resnet8") == []


def test_setting_figures_of_values_over_magnitudes_are_logarithmic(swept: Writer) -> None:
    for alpha, place in zip((0.01, 0.3, 10.0), (1, 2, 3), strict=True):
        swept.study["study"]["arms"][place]["loss"]["alpha"] = alpha
    (drawn,) = draw_sweep(load_study(swept.write()), "resnet8")
    assert drawn.figure.layout.xaxis.type == "log"
    assert all(x > 0 for trace in drawn.figure.data for x in trace.x)


def test_setting_figures_of_other_studies_are_none(study: Path) -> None:
    assert draw_sweep(load_study(study), "resnet8") == []
