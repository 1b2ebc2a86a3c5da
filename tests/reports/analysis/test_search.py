from __future__ import annotations

from reports.analysis.search import find_best_trial, rank_trials
from reports.load import load_study
from tests.reports.fake_study import Writer


def test_of_equal_scores_the_earlier_trial_wins_as_in_the_engine(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["phase"] == "search" and row["state"] == "COMPLETE":
            row["val/accuracy"] = 0.5
    records = load_study(writer.write())
    best = find_best_trial(records, records.cells[2])
    assert best is not None
    assert best["number"] == 0


def test_a_search_that_minimises_ranks_the_smallest_first(writer: Writer) -> None:
    writer.study["metrics"] = {**writer.study["metrics"], "val/accuracy": "min"}
    records = load_study(writer.fill().write())
    ranked = rank_trials(records, records.cells[2])
    assert ranked[ranked["state"] == "COMPLETE"]["val/accuracy"].is_monotonic_increasing
