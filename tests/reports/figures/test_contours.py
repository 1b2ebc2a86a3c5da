"""Contours over pairs of settings."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from reports.figures.contours import CELLS, MIN_TRIALS, draw_contours, make_grid, smooth
from reports.format.metrics import make_metric

METRIC = make_metric("val/accuracy")


def make_trials(count: int) -> pd.DataFrame:
    """Return trials whose score falls with the distance of a from 0.5, and does not depend on t."""
    rng = np.random.default_rng(0)
    params = [{"a": float(a), "shape": "step", "t": float(20**t)} for a, t in rng.random((count, 2))]
    scores = [90 - 40 * abs(one["a"] - 0.5) for one in params]
    rows = {"number": range(count), "state": "COMPLETE", "params": map(json.dumps, params), "score": scores}
    return pd.DataFrame(rows)


def draw(trials: pd.DataFrame, lower: bool = False) -> list[object]:
    return draw_contours(trials, ["a", "shape", "t"], {"t"}, METRIC, "cell", lower)


def test_surface_follows_the_setting_that_decides() -> None:
    (one,) = draw_contours(make_trials(200), ["a", "shape", "t"], {"t"}, METRIC, "cell", False)
    surface = np.array(one.figure.data[0].z, dtype=float)
    middle, edge = surface[:, CELLS // 2], surface[:, 0]
    assert surface.shape == (CELLS, CELLS)
    assert np.nanmin(middle) > np.nanmax(edge) + 10
    assert np.nanmax(middle) - np.nanmin(middle) < 2
    assert one.title == "cell: a and t"
    assert one.figure.layout.yaxis.type == "log"


def test_stopped_trials_are_dots_that_do_not_count() -> None:
    trials = make_trials(40)
    trials.loc[trials.index[::2], "state"] = "PRUNED"
    calm = draw_contours(trials, ["a", "t"], {"t"}, METRIC, "cell", False)[0].figure
    trials.loc[trials.index[::2], "score"] = 0.0
    (one,) = draw_contours(trials, ["a", "t"], {"t"}, METRIC, "cell", False)
    assert one.figure.data[0].z == calm.data[0].z
    assert [(trace.name, len(trace.x)) for trace in one.figure.data[1:]] == [
        ("stopped", 20),
        ("complete", 20),
        ("best", 1),
    ]
    assert one.data is not None
    assert list(one.data.columns) == ["number", "state", "a", "t", "score"]
    assert len(one.data) == 40


@pytest.mark.parametrize(("lower", "best"), [(False, "max"), (True, "min")])
def test_star_is_the_best_trial_of_the_direction(lower: bool, best: str) -> None:
    trials = make_trials(30)
    (one,) = draw_contours(trials, ["a", "t"], set(), METRIC, "cell", lower)
    assert one.figure.data[-1].customdata[0][1] == getattr(trials["score"], best)()


def test_few_trials_or_one_number_alone_have_no_contours() -> None:
    assert draw(make_trials(MIN_TRIALS - 1)) == []
    assert draw_contours(make_trials(50), ["a", "shape"], set(), METRIC, "cell", False) == []


def test_surface_is_blank_far_from_all_trials_and_their_score_near_one() -> None:
    surface = smooth(np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([3.0, 5.0]))
    assert surface[0, 0] == pytest.approx(4.0)
    assert np.isnan(surface[-1, -1])
    assert np.isnan(surface[0, -1])


def test_grid_is_even_on_the_settings_scale() -> None:
    values = pd.Series([1.0, 100.0, 10.0])
    assert make_grid(values, False)[[0, -1]].tolist() == [1.0, 100.0]
    ratios = make_grid(values, True)[1:] / make_grid(values, True)[:-1]
    assert ratios == pytest.approx(ratios[0])
