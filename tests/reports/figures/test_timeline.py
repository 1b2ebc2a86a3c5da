from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from reports.figures import timeline as timelines
from reports.figures.timeline import (
    TRIAL_KINDS,
    assign_lanes,
    collect_stretches,
    cut_pauses,
    draw_timeline,
    merge_stretches,
)
from reports.load import load_study
from tests.reports.fake_study import EPOCHS, START, Writer


@pytest.fixture
def timed(writer: Writer) -> Writer:
    """Trials one after the other, 6 s each, on two workers in turns."""
    writer.fill()
    for place, row in enumerate(writer.trials):
        row["worker"] = f"node:{place % 2}"
        start = START + timedelta(seconds=6 * place)
        for epoch in writer.epochs:
            if epoch["trial_id"] == row["trial_id"]:
                epoch["recorded"] = start + timedelta(seconds=0.7 * epoch["epoch"])
    return writer


def test_stretches_are_as_long_as_their_epochs(timed: Writer) -> None:
    data = collect_stretches(load_study(timed.write()))
    assert len(data) == len(timed.trials)
    assert list(data["begin"]) == pytest.approx([6.0 * place for place in range(len(data))], abs=1e-3)
    complete = data[data["state"] == "COMPLETE"]
    assert list(complete["end"] - complete["begin"]) == pytest.approx([0.7 * EPOCHS] * len(complete), abs=1e-3)
    assert dict(data["kind"].value_counts()) == {"confirm": 24, "search": 10, "PRUNED": 4, "FAILED": 2, "prepare": 1}


def test_trial_that_was_interrupted_ran_in_two_stretches(timed: Writer) -> None:
    trial = timed.trials[-1]["trial_id"]
    for row in timed.epochs:
        if row["trial_id"] == trial and row["epoch"] > 5:
            row["recorded"] += timedelta(hours=9)
    data = collect_stretches(load_study(timed.write()))
    parts = data[data["trial_id"] == trial]
    assert list(parts["end"] - parts["begin"]) == pytest.approx([0.7 * 5, 0.7 * 3], abs=1e-3)


def test_pause_in_which_nothing_ran_is_cut_out_and_named(timed: Writer) -> None:
    half = {row["trial_id"] for row in timed.trials[20:]}
    for row in timed.epochs:
        row["recorded"] += timedelta(hours=9) if row["trial_id"] in half else timedelta()
    data, breaks = cut_pauses(collect_stretches(load_study(timed.write())))
    ((where, length),) = breaks
    assert length == pytest.approx(9 * 3600, abs=10)
    assert 110 < where < 121
    assert data["end"].max() < 6 * len(timed.trials) + 1
    drawn = draw_timeline(load_study(timed.folder))
    assert drawn is not None
    assert "9 h 00 min" in drawn.caption
    assert len(drawn.figure.layout.shapes) == 1


def test_trial_that_failed_before_its_first_epoch_is_shown(timed: Writer) -> None:
    gone = timed.trials[5]
    gone |= {"state": "FAILED", "epochs_done": 0}
    timed.epochs = [row for row in timed.epochs if row["trial_id"] != gone["trial_id"]]
    data = collect_stretches(load_study(timed.write()))
    assert list(data[data["trial_id"] == gone["trial_id"]]["kind"]) == ["FAILED"]


def test_interrupted_and_superseded_trials_are_of_another_kind(timed: Writer) -> None:
    timed.trials[3]["state"], timed.trials[4]["state"] = "INTERRUPTED", "SUPERSEDED"
    assert (collect_stretches(load_study(timed.write()))["kind"] == "other").sum() == 2


def test_lanes_are_shared_by_workers_that_followed_each_other_on_a_node() -> None:
    rows = [("a:1", 0, 5), ("a:2", 1, 9), ("a:3", 5, 9), ("b:1", 6, 9)]
    data = pd.DataFrame(rows, columns=["worker", "begin", "end"]).astype({"begin": float, "end": float})
    assert assign_lanes(data) == {"a:1": 0, "a:2": 1, "a:3": 0, "b:1": 2}


def test_many_short_stretches_are_merged_without_losing_any(timed: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "BARS_PER_AXIS", 10)
    data = collect_stretches(load_study(timed.write()))
    found = merge_stretches(data)
    assert len(found) < len(data)
    assert found["count"].sum() == len(data)
    assert not (found.groupby("lane")["begin"].shift(-1) < found["end"] - 1e-9).any()
    monkeypatch.setattr(timelines, "MAX_SINGLE_BARS", 10)
    drawn = draw_timeline(load_study(timed.folder))
    assert drawn is not None
    assert "drawn as one bar" in drawn.caption


def test_timeline_has_a_trace_for_each_kind_there_is(timed: Writer) -> None:
    drawn = draw_timeline(load_study(timed.write()))
    assert drawn is not None
    kinds = ("prepare", "search", "confirm", "PRUNED", "FAILED")
    assert [trace.name for trace in drawn.figure.data] == [TRIAL_KINDS[kind][0] for kind in kinds]
    assert "4 stopped, 2 failed" in drawn.caption


def test_timeline_without_rows(writer: Writer) -> None:
    assert draw_timeline(load_study(writer.write())) is None


def test_timeline_of_rows_recorded_at_one_moment(study: Path) -> None:
    assert draw_timeline(load_study(study)) is not None
