"""Importance of each searched setting. The only module of reports/ that uses Optuna.

Importance is Optuna's PED-ANOVA (Watanabe et al. 2023): for each setting, how far the distribution of its values in the
best trials is from that in all trials. It only needs the trials' ranks, so stopped trials count too, ranked as in the
table of trials. With a rule that stops two of three trials, the complete ones alone would be few and similar.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import lru_cache
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from reports.analysis.search import find_search_domains, rank_trials
from reports.figures.style import PALETTE, ReportFigure, escape_plotly, new_figure, round_values
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords

MIN_TRIALS = 30
"""Minimum complete or stopped trials; fewer are too few to rank settings."""
MIN_BEST, BEST_SHARE = 12, 0.2
"""Size of the group of best trials: a fifth of all, and at least MIN_BEST. In simulated searches of 60 trials where one
binary choice alone decides the score, it is ranked first in 9 of 10 searches with a group of 12, but in 6 of 10 with
Optuna's default of a tenth."""


def draw_importance(records: StudyRecords, cell: Cell) -> ReportFigure | None:
    """Draw the importance of a cell's settings; None for fewer than two settings or fewer than MIN_TRIALS trials."""
    found, trials = find_importance(records, cell), rank_ended_trials(records, cell)
    return plot_importance(found, cell, len(trials)) if found else None


@lru_cache(maxsize=64)
def find_importance(records: StudyRecords, cell: Cell) -> dict[str, float]:
    """Return the importance of a cell's settings, largest first; empty for too few of them or too few trials.

    Cached, since it takes a second of thousands of trials, and the contours take their settings by it.
    """
    distributions, trials = get_distributions(records, cell), rank_ended_trials(records, cell)
    if len(distributions) < 2 or len(trials) < MIN_TRIALS:
        return {}
    return compute_importance(trials, distributions)


def explain_missing_importance(records: StudyRecords, cell: Cell) -> str | None:
    """Return why the figure is missing if the reason is too few trials, else None."""
    settings, trials = len(get_distributions(records, cell)), len(rank_ended_trials(records, cell))
    if settings < 2 or trials >= MIN_TRIALS:
        return None
    return (
        f"{trials} complete or stopped trials are too few to rank the importance of {settings} settings; "
        f"at least {MIN_TRIALS} are needed."
    )


def rank_ended_trials(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return a cell's complete and stopped search trials, best first."""
    ranked = rank_trials(records, cell)
    return ranked[ranked["state"].isin(["COMPLETE", "PRUNED"])]


def get_distributions(records: StudyRecords, cell: Cell) -> dict[str, BaseDistribution]:
    """Return the domains a cell searches as Optuna's distributions, by the parameter names that trials record."""
    return {
        name: distribution
        for name, domain in find_search_domains(records, cell).items()
        if (distribution := _parse_distribution(domain)) is not None
    }


def compute_importance(trials: pd.DataFrame, distributions: dict[str, BaseDistribution]) -> dict[str, float]:
    """Return each setting's share of the total importance, largest first. `trials` are ordered by rank, best first."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    study = _make_silent_study()
    for rank, text in enumerate(trials["params"]):
        params = {
            name: value for name, value in parse_json_object(text).items() if _contains(distributions.get(name), value)
        }
        known = {name: distributions[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=float(rank)))
    share = max(BEST_SHARE, MIN_BEST / len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns about settings that only one trial has
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))) if any(found.values()) else {}


def plot_importance(found: dict[str, float], cell: Cell, trials: int) -> ReportFigure:
    """Draw one bar per setting with its name above it, the largest on top."""
    names = list(found)[::-1]
    figure = new_figure("share of importance, %", "", 80 + 44 * len(names), showlegend=False)
    figure.update_xaxes(showgrid=True, range=[0, max(100 * value for value in found.values()) * 1.05])
    figure.update_yaxes(range=[-0.6, len(names) - 0.2], showgrid=False, showticklabels=False)
    figure.add_bar(
        x=round_values(100 * found[name] for name in names),
        y=list(range(len(names))),
        name="share of importance",
        orientation="h",
        width=0.36,
        marker={"color": PALETTE[0]},
        customdata=[escape_plotly(name) for name in names],
        hovertemplate="%{customdata}: %{x:.0f} %<extra></extra>",
    )
    label: dict[str, Any] = {"x": 0, "xref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    for line, name in enumerate(names):
        text = f"{escape_plotly(name, 36)}: {100 * found[name]:.0f} %"
        figure.add_annotation(text=text, y=line + 0.18, **label)
    best = max(MIN_BEST, math.ceil(BEST_SHARE * trials))
    return ReportFigure(
        "importance",
        f"{cell.name}: importance of settings",
        f"Distance of the values in the best {best} of {trials} trials from those in all trials (PED-ANOVA, Watanabe "
        "et al. 2023), as shares of 100 %. Stopped trials rank below complete ones. Shares compare the settings with "
        "each other; they do not show how large an effect is.",
        figure,
    )


def _parse_distribution(domain: dict[str, Any]) -> BaseDistribution | None:
    try:
        if domain["is"] == "Choice":
            return CategoricalDistribution(tuple(domain["labels"]))
        if domain["is"] == "Integer":
            return IntDistribution(int(domain["low"]), int(domain["high"]), log=bool(domain.get("log")))
        return FloatDistribution(float(domain["low"]), float(domain["high"]), log=bool(domain.get("log")))
    except (KeyError, TypeError, ValueError):
        return None  # an entry of study.json from another version


def _contains(distribution: BaseDistribution | None, value: Any) -> bool:
    if distribution is None:
        return False
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return isinstance(value, int | float) and distribution.low <= value <= distribution.high


def _make_silent_study() -> optuna.Study:
    """Return an in-memory study without Optuna's log line."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        return optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(level)
