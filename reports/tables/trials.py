"""The table of failed trials, and that of all search and confirm trials, which the page filters (page/filter.js)."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from reports.format.table import Table
from reports.format.values import format_duration, format_params
from reports.frames import parse_json_object
from reports.load import StudyRecords

STATE_WORDS = {"PRUNED": "stopped"}
"""States renamed for readers, to whom "pruned" would suggest pruned logits."""

MAX_REASON = 160
"""Maximum characters of a reason. Failures of one cause have one long message each; trials/ has all of it."""


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of failed trials, one row per trial with its reason; without rows if none failed."""
    failed = records.trials[records.trials["state"] == "FAILED"]
    rows = [
        (row.trial_id, row.cell, row.phase, row.number, row.seed, row.epochs_done, row.reason or "–")
        for row in failed.itertuples()
    ]
    return [
        Table(
            name="failures",
            caption="Failed trials",
            columns=("id", "cell", "phase", "number", "seed", "epochs done", "reason"),
            align="lllrrrl",
            rows=tuple(tuple(map(str, row)) for row in rows),
        )
    ]


def make_trial_table(records: StudyRecords) -> Table:
    """Return one row per search and confirm trial, in the order of cells, then phases, then numbers."""
    trials = _sort_trials(records)
    metrics = [records.get_metric(name) for name in (records.metric, records.test_metric)]
    scores = [map(metric.format, trials[metric.name].astype(float)) for metric in metrics]
    epochs = (f"{done} of {planned}" for done, planned in zip(trials["epochs_done"], trials["epochs"], strict=True))
    texts: list[Iterable[str]] = [trials[name].astype(str) for name in ("student", "arm", "phase", "number")]
    texts += [map(name_state, trials["state"]), *scores, epochs, map(format_duration, trials["seconds"])]
    texts += [(format_params(parse_json_object(text)) for text in trials["params"])]
    texts += [(text[:MAX_REASON] for text in trials["reason"].fillna(""))]
    return Table(
        name="trials",
        caption=f"{len(trials):,} trials",
        columns=(
            *("student", "arm", "phase", "trial", "state"),
            *(metric.label for metric in metrics),
            *("epochs", "time", "settings", "reason"),
        ),
        align="lllrlrrrrll",
        rows=tuple(zip(*texts, strict=True)),
        kinds=tuple("" if state == "COMPLETE" else "reference" for state in trials["state"]),
    )


def name_state(state: str) -> str:
    """Return a trial's state as a word for readers."""
    return STATE_WORDS.get(state, state.lower())


def _sort_trials(records: StudyRecords) -> pd.DataFrame:
    places = {cell.name: place for place, cell in enumerate(records.cells)}
    trials = records.trials[records.trials["phase"].isin(["search", "confirm"])]
    ordered = trials.assign(place=trials["cell"].map(places), confirms=trials["phase"] == "confirm")
    return ordered.sort_values(["place", "confirms", "number"], kind="stable")
