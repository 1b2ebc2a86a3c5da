"""How much each searched setting decided what was found: data step, then drawing step. The only file with Optuna here.

Importance is Optuna's PED-ANOVA. It asks of each setting how far the values of the best trials lie from those of all,
and of a trial only whether it is among the best. So trials that were stopped count as well, ranked as the table of
trials ranks them; with a rule that stops two of three, the rest alone would be few and alike.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from reports.analysis.search import rank_trials
from reports.figures.style import PALETTE, ReportFigure, escape_plotly, new_figure, round_values
from reports.format.settings import find_domains
from reports.load import Cell, StudyRecords, parse_json_object

MIN_TRIALS = 30
MIN_BEST, BEST_SHARE = 12, 0.2
"""The best trials that are held against all: a fifth, and never fewer than these. By Optuna's own tenth of 60 trials, a
choice of two that alone decides comes first in 6 of 10 simulated searches; by twelve trials, in 9."""
WHOLE_LOSS = "method"
"""As study.space calls a choice that is not a field of anything."""


def draw_importance(records: StudyRecords, cell: Cell) -> ReportFigure | None:
    """The figure; None where less than two settings are searched, or too few trials were run."""
    distributions, trials = get_distributions(records, cell), rank_ended_trials(records, cell)
    if len(distributions) < 2 or len(trials) < MIN_TRIALS:
        return None
    found = compute_importance(trials, distributions)
    return plot_importance(found, cell, len(trials)) if found else None


def explain_missing_importance(records: StudyRecords, cell: Cell) -> str | None:
    """Why there is no such figure, where it is for lack of trials."""
    settings, trials = len(get_distributions(records, cell)), len(rank_ended_trials(records, cell))
    if settings < 2 or trials >= MIN_TRIALS:
        return None
    return (
        f"{trials} trials that completed or were stopped are too few to say which of {settings} settings mattered; "
        f"that takes {MIN_TRIALS}."
    )


def rank_ended_trials(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """A cell's complete and stopped search trials, best first."""
    ranked = rank_trials(records, cell)
    return ranked[ranked["state"].isin(["COMPLETE", "PRUNED"])]


def get_distributions(records: StudyRecords, cell: Cell) -> dict[str, BaseDistribution]:
    """What a cell searches, by the names under which trials record it, as Optuna's distributions."""
    arms = records.section("study").get("arms")
    losses = [arm.get("loss") for arm in arms if arm.get("name") == cell.arm] if isinstance(arms, list) else []
    return {
        name or WHOLE_LOSS: distribution
        for loss in losses
        for name, domain in find_domains(loss)
        if (distribution := _parse_distribution(domain)) is not None
    }


def compute_importance(trials: pd.DataFrame, distributions: dict[str, BaseDistribution]) -> dict[str, float]:
    """Each setting's share of the importance of all, the largest first; `trials` are in the order of their rank."""
    study = _make_silent_study()
    for place, text in enumerate(trials["params"]):
        params = {
            name: value for name, value in parse_json_object(text).items() if _contains(distributions.get(name), value)
        }
        known = {name: distributions[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=float(place)))
    share = max(BEST_SHARE, MIN_BEST / len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of settings that a single trial has
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))) if any(found.values()) else {}


def plot_importance(found: dict[str, float], cell: Cell, trials: int) -> ReportFigure:
    """A bar per setting, its name above it, the largest on top."""
    names = list(found)[::-1]
    figure = new_figure("share of importance, %", "", 80 + 44 * len(names), showlegend=False)
    figure.update_xaxes(showgrid=True, range=[0, max(100 * value for value in found.values()) * 1.05])
    figure.update_yaxes(range=[-0.6, len(names) - 0.2], showgrid=False, showticklabels=False)
    figure.add_bar(
        x=round_values(100 * found[name] for name in names),
        y=list(range(len(names))),
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
        f"How far the values of the best {best} of {trials} trials lie from those of all (PED-ANOVA, Watanabe et al. "
        "2023), as shares of 100 %. Stopped trials count as worse than complete ones. It tells what mattered in this "
        "search, not whether it mattered much.",
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
        return None  # a study.json that another version wrote


def _contains(distribution: BaseDistribution | None, value: Any) -> bool:
    if distribution is None:
        return False
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return isinstance(value, int | float) and distribution.low <= value <= distribution.high


def _make_silent_study() -> optuna.Study:
    """A study in memory, without Optuna's line that one was created."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        return optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(level)
