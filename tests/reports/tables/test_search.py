from __future__ import annotations

from pathlib import Path

from reports.analysis.search import find_best_trial, rank_trials
from reports.load import load_study
from reports.tables import search
from reports.tables.search import make_search_table


def test_search_ranks_completed_trials_before_stopped_and_failed(study: Path) -> None:
    records = load_study(study)
    cell = records.cells[2]
    ranked = rank_trials(records, cell)
    states = list(ranked["state"])
    assert states == sorted(states, key=["COMPLETE", "PRUNED", "FAILED"].index)
    scores = ranked[ranked["state"] == "COMPLETE"]["val/accuracy"]
    assert scores.is_monotonic_decreasing
    best = find_best_trial(records, cell)
    assert best is not None
    assert best["trial_id"] == ranked.iloc[0]["trial_id"]
    table = make_search_table(records, cell)
    assert len(table.rows) == 10
    assert table.kinds[0] == "best"
    assert table.notes == ("6 more in trials/.",)


def test_many_conditional_settings_share_one_column():
    names = tuple(f"KD.setting{n}" for n in range(20))
    assert search._format_settings({"KD.setting3": 0.5, "KD.setting7": "cosine"}, names) == (
        "KD.setting3 0.5, KD.setting7 cosine",
    )
    assert search._format_settings({"a": 1}, ("a", "b")) == ("1", "–")
