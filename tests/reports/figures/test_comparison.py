from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from reports.analysis.comparison import compare_arms
from reports.analysis.search import find_best_trial
from reports.figures import comparison as figures
from reports.figures import search as search_figures
from reports.figures.style import (
    ReportFigure,
    escape_plotly,
    escape_script,
    make_integer_ticks,
    make_setting_axis,
    new_figure,
    round_values,
)
from reports.format.metrics import make_metric
from reports.load import load_study
from tests.reports.fake_study import DKD, EPOCHS, METRICS, NONE, Writer


def test_difference_data_is_in_points(study: Path) -> None:
    (comparison,) = compare_arms(load_study(study))
    first, second = figures.collect_differences(comparison)
    assert first.mean == pytest.approx(100 * (np.mean(DKD) - np.mean(NONE)))
    assert first.seeds == pytest.approx(100 * np.subtract(DKD, NONE))
    assert (second.arm, second.versus, second.verdict, second.position) == ("DKD + LP searched", "DKD", "undecided", 2)


def test_curve_data_is_the_mean_and_range_over_seeds(writer: Writer) -> None:
    data = figures.collect_curves(load_study(writer.fill().write()), "resnet8", "train/accuracy")
    ids = {row["trial_id"] for row in writer.trials if row["phase"] == "confirm" and row["arm"] == "DKD"}
    last = [row["train/accuracy"] for row in writer.epochs if row["trial_id"] in ids and row["epoch"] == EPOCHS]
    (row,) = data[(data["arm"] == "DKD") & (data["epoch"] == EPOCHS)].itertuples()
    assert row.n == 8
    assert (row.mean, row.low, row.high) == pytest.approx((np.mean(last), min(last), max(last)))


def test_curves_take_validation_where_it_stayed_apart(writer: Writer) -> None:
    for row in writer.fill().epochs:
        row["val/accuracy"] = 0.5
    assert figures.choose_curve_metric(load_study(writer.write())) == "val/accuracy"


def test_curves_fall_back_to_train(study: Path) -> None:
    assert figures.choose_curve_metric(load_study(study)) == "train/accuracy"
    drawn = figures.draw_curves(load_study(study), "resnet8")
    assert drawn is not None
    assert "no validation curve" in drawn.caption
    lines = [trace.name for trace in drawn.figure.data if trace.showlegend is not False]
    assert lines == ["none", "DKD", "DKD + LP searched"]


DISTANCE = "train/teacher_distance"


@pytest.fixture
def with_distances(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A study in which the two arms with a teacher record their distance to it."""
    monkeypatch.setattr("tests.reports.fake_study.METRICS", {**METRICS, DISTANCE: "min"})
    cells = {"resnet8 / DKD": 1.0, "resnet8 / DKD + LP searched": 2.0}
    for row in writer.fill().epochs:
        if row["cell"] in cells:
            row[DISTANCE] = cells[row["cell"]] / row["epoch"]
    return writer


def test_distances_are_those_of_arms_with_a_teacher(with_distances: Writer) -> None:
    (drawn,) = figures.draw_distances(load_study(with_distances.write()), "resnet8")
    lines = [trace for trace in drawn.figure.data if trace.showlegend is not False]
    assert [line.name for line in lines] == ["DKD", "DKD + LP searched"]
    assert list(drawn.figure.data[-2:]) == lines, "lines lie over all bands"
    assert list(lines[0].y) == pytest.approx([1 / epoch for epoch in range(1, EPOCHS + 1)], rel=1e-5)
    assert "mean over 8 seeds" in drawn.caption
    assert drawn.figure.layout.yaxis.type is None


def test_distances_over_orders_of_magnitude_are_logarithmic(with_distances: Writer) -> None:
    for row in with_distances.epochs:
        if row["epoch"] == EPOCHS and DISTANCE in row:
            row[DISTANCE] = 1e-3
    (drawn,) = figures.draw_distances(load_study(with_distances.write()), "resnet8")
    assert drawn.figure.layout.yaxis.type == "log"


def test_distances_are_absent_where_nobody_told_them(study: Path) -> None:
    assert not list(figures.draw_distances(load_study(study), "resnet8"))


def test_each_recorded_distance_has_a_figure(with_distances: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.reports.fake_study.METRICS", {**METRICS, DISTANCE: "min", "train/teacher_l2": "min"})
    label = {"direction": "min", "unit": "", "digits": 4, "label": "L2 distance to the teacher"}
    with_distances.study["metrics"] = {"train/teacher_l2": label}
    for row in with_distances.epochs:
        if DISTANCE in row:
            row["train/teacher_l2"] = 3 * row[DISTANCE]
    drawn = list(figures.draw_distances(load_study(with_distances.write()), "resnet8"))
    assert {figure.name for figure in drawn} == {"distances", "distances-teacher_l2"}
    l2 = next(figure for figure in drawn if figure.name != "distances")
    assert l2.title == "resnet8: L2 distance to the teacher"
    line = next(trace for trace in l2.figure.data if trace.name == "DKD")
    assert list(line.y) == pytest.approx([3 / epoch for epoch in range(1, EPOCHS + 1)], rel=1e-5)


def test_history_marks_stopped_and_failed_trials(study: Path) -> None:
    records = load_study(study)
    data = search_figures.collect_scores(records, records.cells[2])
    assert data["best"].dropna().is_monotonic_increasing
    assert data["best"].max() == data[data["state"] == "COMPLETE"]["score"].max()
    drawn = search_figures.plot_history(data, make_metric("val/accuracy"), records.cells[2], len(data), False)
    traces = {trace.name: len(trace.x) for trace in drawn.figure.data}
    assert traces == {"complete": 10, "stopped": 4, "failed": 2, "best so far": 16}


def test_best_so_far_falls_where_less_is_better(writer: Writer) -> None:
    writer.study["metrics"] = {**writer.study["metrics"], "val/accuracy": "min"}
    records = load_study(writer.fill().write())
    data = search_figures.collect_scores(records, records.cells[2])
    assert data["best"].dropna().is_monotonic_decreasing
    drawn = search_figures.plot_history(data, make_metric("val/accuracy"), records.cells[2], len(data), True)
    (failed,) = (trace for trace in drawn.figure.data if trace.name == "failed")
    assert max(failed.y) == pytest.approx(data["score"].max(), abs=1e-3), "a failed trial stands at the worst score"


def test_thinned_keeps_every_improvement(study: Path) -> None:
    records = load_study(study)
    data = search_figures.collect_scores(records, records.cells[2])
    thin = search_figures.subsample(data, 2)
    assert 2 <= len(thin) < len(data)
    assert set(data["best"].dropna()) <= set(thin["best"].dropna())
    drawn = search_figures.plot_history(thin, make_metric("val/accuracy"), records.cells[2], len(data), False)
    assert drawn.caption.startswith(f"{len(thin)} of 16 trials are drawn.")


def test_search_curves_of_many_trials_keep_the_winner(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = load_study(study)
    cell = records.cells[2]
    best = find_best_trial(records, cell)
    assert best is not None
    monkeypatch.setattr(search_figures, "MAX_CURVES", 2)
    data = search_figures.collect_curves(records, cell, search_figures.collect_scores(records, cell))
    assert data["number"].nunique() == 3
    assert best["number"] in set(data["number"])


def test_slices_know_each_settings_axis(study: Path) -> None:
    records = load_study(study)
    drawn = search_figures.draw_search(records, records.cells[2])
    axes = {one.title.split(": ")[1]: one.figure.layout.xaxis.type for one in drawn if one.name.startswith("slice")}
    assert axes == {
        "logits.prune.end": "linear",
        "logits.prune.stages": "linear",
        "logits.prune.shape": "category",
        "logits.temperature": "log",
    }


def test_figures_of_a_search_without_any_completed_trial(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["phase"] == "search":
            row["state"], row["val/accuracy"] = "FAILED", float("nan")
    records = load_study(writer.write())
    names = [one.name for one in search_figures.draw_search(records, records.cells[2])]
    assert "history" in names
    assert not [name for name in names if name.startswith("schedule")]


@pytest.mark.parametrize("hostile", ["</script><script>alert(1)</script>", "<!-- x", "a & b", "\u2028"])
def test_figure_json_can_neither_end_nor_open_an_element(hostile: str) -> None:
    drawn = ReportFigure("name", "", "", new_figure(hostile, "y"))
    for text in (drawn.json, escape_script(json.dumps(hostile, ensure_ascii=False))):
        assert not set(text) & set("<>&\u2028")
    assert json.loads(drawn.json)["layout"]["xaxis"]["title"]["text"] == hostile
    assert json.loads(escape_script(json.dumps(hostile))) == hostile


def test_names_in_figures_stay_text() -> None:
    assert escape_plotly('<b>"x"</b> %{y} & co') == "&lt;b&gt;&quot;x&quot;&lt;/b&gt; %&#123;y} &amp; co"
    assert len(escape_plotly("ü" * 300)) == 40


@pytest.mark.parametrize(("last", "step"), [(1, 1), (10, 1), (11, 2), (40, 5), (100, 10), (1000, 100)])
def test_whole_steps_gives_about_ten_ticks(last: int, step: int) -> None:
    assert make_integer_ticks(last)["dtick"] == step


def test_axis_of_mixed_settings_is_by_category() -> None:
    assert make_setting_axis([True, False], False)["type"] == "category"
    assert make_setting_axis([0.0, 1.0], True)["type"] == "linear"
    assert make_setting_axis([1, 10], True) == {"type": "log", "dtick": "D2"}


def test_rounded_makes_gaps_of_what_was_not_measured() -> None:
    assert round_values([1 / 3, math.nan, None, math.inf]) == [0.333333, None, None, None]
