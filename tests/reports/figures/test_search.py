"""Importance, parallel coordinates, Pareto front and schedules of a search."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.analysis.search import find_best_trial, find_published_trial, rank_trials
from reports.figures import importance as importances
from reports.figures import parallel_coordinates as parallels
from reports.figures import schedules as schedule_figures
from reports.figures import search as search_figures
from reports.figures.importance import (
    compute_importance,
    draw_importance,
    explain_missing_importance,
    get_distributions,
    rank_ended_trials,
)
from reports.figures.parallel_coordinates import draw_parallel_coordinates, make_setting_scale, sample_trials
from reports.figures.pareto import collect_front, draw_fronts
from reports.format.metrics import make_metric
from reports.load import StudyRecords, load_study
from tests.reports.fake_study import EPOCHS, Writer

NAMES = ("logits.prune.end", "logits.prune.stages", "logits.prune.shape", "logits.temperature")


@pytest.fixture
def records(study: Path) -> StudyRecords:
    return load_study(study)


def proposals(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "logits.prune.end": float(rng.uniform(0.05, 0.6)),
            "logits.prune.stages": int(rng.integers(2, 7)),
            "logits.prune.shape": str(rng.choice(["linear", "cosine"])),
            "logits.temperature": float(20 ** rng.random()),
        }
        for _ in range(count)
    ]


# -- importance --------------------------------------------------------------------------------------------------------


def test_distributions_are_those_of_the_space_file(records: StudyRecords) -> None:
    found = get_distributions(records, records.cells[2])
    assert set(found) == set(NAMES)
    assert found["logits.temperature"].to_internal_repr(4.0) == 4.0
    assert (found["logits.prune.stages"].low, found["logits.prune.stages"].high) == (2, 6)  # type: ignore[attr-defined]
    assert found["logits.prune.shape"].choices == ("linear", "cosine")  # type: ignore[attr-defined]
    assert get_distributions(records, records.cells[0]) == {}


@pytest.mark.parametrize("decisive", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_importance_finds_the_setting_that_decides(records: StudyRecords, decisive: str, seed: int) -> None:
    distributions = get_distributions(records, records.cells[2])
    rows = proposals(120, seed)
    rows.sort(key=lambda row: abs(row[decisive] - 0.3) if not isinstance(row[decisive], str) else row[decisive])
    found = compute_importance(pd.DataFrame({"params": [json.dumps(row) for row in rows]}), distributions)
    assert next(iter(found)) == decisive
    assert sum(found.values()) == pytest.approx(1.0)


def test_importance_is_of_the_best_trials_not_of_the_worst(records: StudyRecords) -> None:
    rows = proposals(120, 0)
    for best, worst in zip(rows[:24], rows[-24:], strict=True):
        best["logits.prune.end"], worst["logits.temperature"] = 0.3, 4.0
    distributions = get_distributions(records, records.cells[2])
    found = compute_importance(pd.DataFrame({"params": [json.dumps(row) for row in rows]}), distributions)
    assert found["logits.prune.end"] > 3 * found["logits.temperature"]


def test_importance_counts_stopped_trials_behind_complete_ones(records: StudyRecords) -> None:
    data = rank_ended_trials(records, records.cells[2])
    assert list(data["state"]) == ["COMPLETE"] * 10 + ["PRUNED"] * 4


def test_importance_of_few_trials_is_a_sentence_and_no_figure(records: StudyRecords) -> None:
    assert draw_importance(records, records.cells[2]) is None
    assert explain_missing_importance(records, records.cells[2]) == (
        "14 complete or stopped trials are too few to rank the importance of 4 settings; at least 30 are needed."
    )


def test_importance_of_enough_trials_is_a_figure(records: StudyRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importances, "MIN_TRIALS", 14)
    drawn = draw_importance(records, records.cells[2])
    assert drawn is not None
    assert explain_missing_importance(records, records.cells[2]) is None
    assert "the best 12 of 14 trials" in drawn.caption
    (bars,) = drawn.figure.data
    assert set(bars.customdata) == set(NAMES)
    assert sum(bars.x) == pytest.approx(100, abs=0.01)
    assert list(bars.x) == sorted(bars.x)


def test_importance_knows_conditional_settings_and_ignores_unknown_ones(records: StudyRecords) -> None:
    distributions = get_distributions(records, records.cells[2])
    rows = proposals(60, 0)
    for place, row in enumerate(rows):
        row["unknown"] = 1.0
        if place % 2:
            del row["logits.temperature"]
    found = compute_importance(pd.DataFrame({"params": [json.dumps(row) for row in rows]}), distributions)
    assert set(found) == set(NAMES)


# -- parallel coordinates ----------------------------------------------------------------------------------------------


def trials_of(records: StudyRecords) -> pd.DataFrame:
    return search_figures.collect_scores(records, records.cells[2])


def test_parallel_paths_cross_every_scale_and_stopped_ones_no_score(records: StudyRecords) -> None:
    drawn = draw_parallel_coordinates(
        trials_of(records), NAMES, {"logits.temperature"}, make_metric("val/accuracy"), "title", False
    )
    assert drawn is not None
    paths = {trace.name: trace for trace in drawn.figure.data if trace.name}
    assert set(paths) == {"stopped", "worst third", "middle third", "best third", "best"}
    assert list(paths["best"].y) == [0, 1, 2, 3, 4, None]
    assert paths["best"].x[4] == 1  # the best score is the highest
    assert set(paths["stopped"].y) == {0, 1, 2, 3, None}
    numbers = [trial for trace in paths.values() for trial in set(trace.customdata)]
    assert len(numbers) == len(set(numbers)) == 14


@pytest.mark.parametrize(("lower", "best"), [(False, "max"), (True, "min")])
def test_parallel_best_trial_follows_the_direction(records: StudyRecords, lower: bool, best: str) -> None:
    trials = trials_of(records)
    complete = trials[trials["state"] == "COMPLETE"]["score"]
    assert sample_trials(trials, lower)["score"].iloc[-1] == getattr(complete, best)()


def test_parallel_places_values_on_their_scale() -> None:
    texts = [json.dumps({"t": 1.0, "s": "b"}), json.dumps({"t": 10.0, "s": "a"}), json.dumps({"t": 100.0}), "{}"]
    trials = pd.DataFrame({"params": texts})
    line = make_setting_scale(trials, "t", True)
    assert line is not None
    assert line.places == (0.0, pytest.approx(0.5), 1.0, None)
    assert [text for _, text in line.marks] == ["1", "100"]
    words = make_setting_scale(trials, "s", False)
    assert words is not None
    assert words.places == (0.75, 0.25, None, None)
    assert make_setting_scale(trials, "absent", False) is None


def test_parallel_of_many_trials_keeps_the_best_ones(records: StudyRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallels, "MAX_PATHS", 6)
    trials = trials_of(records)
    shown = sample_trials(trials, False)
    assert len(shown) == 6
    best = trials[trials["state"] == "COMPLETE"].sort_values("score")["number"].tail(2)
    assert list(shown["number"].tail(2)) == list(best)
    drawn = draw_parallel_coordinates(trials, NAMES, set(), make_metric("val/accuracy"), "title", False)
    assert drawn is not None
    assert drawn.caption.startswith("6 of 16 trials are drawn.")


def test_parallel_of_one_setting_or_too_few_scores_is_none(records: StudyRecords) -> None:
    trials = trials_of(records)
    assert draw_parallel_coordinates(trials, NAMES[:1], set(), make_metric("val/accuracy"), "", False) is None
    assert (
        draw_parallel_coordinates(
            trials[trials["state"] != "COMPLETE"], NAMES, set(), make_metric("val/accuracy"), "", False
        )
        is None
    )


# -- Pareto front ------------------------------------------------------------------------------------------------------


@pytest.fixture
def traded(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> StudyRecords:
    """A second objective that rises with the first, so that every trial but equal ones trades off."""
    metrics = {**writer.study["metrics"], "val/loss": "min"}
    monkeypatch.setattr("tests.reports.fake_study.METRICS", metrics)
    writer.study |= {"metrics": metrics, "objectives": ["val/loss"]}
    for row in writer.fill().trials:
        if row["phase"] == "search" and row["state"] == "COMPLETE":
            row["val/loss"] = row["val/accuracy"] + (0.5 if row["number"] % 2 else 0.0)
    return load_study(writer.write())


def test_front_data_marks_what_no_other_trial_beats(traded: StudyRecords) -> None:
    data, objectives = collect_front(traded, traded.cells[2])
    assert objectives == ["val/accuracy", "val/loss"]
    assert len(data) == 10
    for row in data.itertuples():
        others = data[data["number"] != row.number]
        at_least = (others["val/accuracy"] >= row[3]) & (others["val/loss"] <= row[4])
        better = (others["val/accuracy"] > row[3]) | (others["val/loss"] < row[4])
        assert row.front == (not (at_least & better).any())
    assert 0 < data["front"].sum() < 10


def test_front_figure_marks_the_chosen_trial(traded: StudyRecords) -> None:
    (drawn,) = draw_fronts(traded, traded.cells[2])
    others, front, chosen = drawn.figure.data
    best = find_best_trial(traded, traded.cells[2])
    assert best is not None
    assert list(chosen.y) == pytest.approx([100 * best["val/accuracy"]])
    assert len(others.x) + len(front.x) == 10
    assert list(front.x) == sorted(front.x)
    assert front.line.shape == "hv"
    assert drawn.title.endswith("validation accuracy against validation loss")


def test_front_figures_of_one_objective_are_none(records: StudyRecords) -> None:
    assert draw_fronts(records, records.cells[2]) == []


# -- schedules ---------------------------------------------------------------------------------------------------------


def test_schedules_show_what_was_tried_and_the_winner(records: StudyRecords) -> None:
    best = find_best_trial(records, records.cells[2])
    assert best is not None
    data = schedule_figures.collect_schedules(records, records.cells[2], best["trial_id"])
    recorded = [
        json.loads(text) for text in records.epochs[records.epochs["trial_id"] == best["trial_id"]]["schedules"]
    ]
    assert len(recorded) == EPOCHS
    winners = data[data["best"] & (data["schedule"] == "logits.prune")]
    assert list(winners["value"]) == [row["logits.prune"] for row in recorded]
    assert len(data[data["best"]]) == 2 * EPOCHS
    assert data["number"].nunique() == len(rank_trials(records, records.cells[2]))


def test_schedules_that_stood_at_the_same_values_are_one_line(records: StudyRecords) -> None:
    best = find_best_trial(records, records.cells[2])
    assert best is not None
    for drawn in schedule_figures.draw_schedules(records, best, records.cells[2]):
        tried, of_best = drawn.figure.data
        assert sum(value is None for value in tried.x) == 3  # trials of 3, 4 and 8 epochs, otherwise alike
        assert len(of_best.x) == EPOCHS


FIRST = {"is": "DKD", "temperature": 4.0}


@pytest.mark.parametrize("first", [FIRST, {"is": "Configuration", "loss": FIRST, "recipe": None}])
def test_schedules_show_the_published_settings_by_their_longest_trial(writer: Writer, first: dict[str, Any]) -> None:
    writer.fill().study["study"]["arms"][2]["first"] = [first]
    for row in writer.trials:
        is_first = row["arm"] == "DKD" or (row["phase"], row["number"]) == ("search", 0)
        row["config"] = json.dumps({"loss": FIRST if is_first else {"is": "DKD"}})
    for row in writer.trials:  # the search stopped its own
        if (row["phase"], row["number"]) == ("search", 0):
            row["epochs_done"] = 2
    records = load_study(writer.write())
    cell, best = records.cells[2], find_best_trial(records, records.cells[2])
    published, confirmed = find_published_trial(records, cell), records.cells[1].name
    assert published is not None
    assert (published["cell"], published["phase"], published["number"]) == (confirmed, "confirm", 0)
    assert best is not None
    for drawn in schedule_figures.draw_schedules(records, best, cell):
        assert [trace.name for trace in drawn.figure.data] == ["other trials", "best trial", "published"]
        assert len(drawn.figure.data[-1].x) == EPOCHS


def test_schedules_without_a_first_point_show_no_published_settings(records: StudyRecords) -> None:
    assert find_published_trial(records, records.cells[2]) is None
    assert schedule_figures.collect_published(records, records.cells[2]).empty


def test_published_schedule_of_a_searched_recipe_is_left_out(writer: Writer) -> None:
    writer.fill().study["study"]["arms"][2]["first"] = [FIRST]
    for row in writer.trials:
        row["config"] = json.dumps({"loss": FIRST})
    records = load_study(writer.write())
    cell = replace(records.cells[2], parameters=("recipe.learning_rate",))
    assert set(schedule_figures.collect_published(records, cell)["schedule"]) == {"logits.prune"}


def test_schedules_of_many_trials_are_a_sample(records: StudyRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_figures, "MAX_OTHERS", 2)
    best = find_best_trial(records, records.cells[2])
    assert best is not None
    data = schedule_figures.collect_schedules(records, records.cells[2], best["trial_id"])
    assert data["number"].nunique() == 3
    assert math.isfinite(data["value"].sum())
