"""The table of exported graphs: size, score and latency in each precision."""

from __future__ import annotations

import json

from reports.format.table import Table
from reports.load import StudyRecords
from reports.text.model_card import make_graph_table
from study.records.paths import EXPORT_JSON, StudyPaths


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of the graphs in the study's export/ that were measured in several precisions; none if none."""
    trials, measured = set(records.confirmed_points["trial_id"]), {}
    for path in sorted(StudyPaths(records.folder).export.glob(f"*/{EXPORT_JSON}")):
        try:
            export = json.loads(path.read_text(encoding="utf-8"))
            if export["trial"] in trials and export["graphs"]:
                measured[path.parent.name] = export["graphs"]
        except (ValueError, KeyError, TypeError, OSError):
            continue  # an export that was not completed
    return [make_graph_table(records, measured)] if measured else []
