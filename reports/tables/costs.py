"""The tables of nets: parameters, multiply-accumulates (MACs) and latency, and exported graphs in each precision."""

from __future__ import annotations

import json
from collections.abc import Sequence

from reports.analysis.costs import Net, are_measured, list_nets
from reports.format.table import Table
from reports.format.values import format_count, format_milliseconds, format_whole
from reports.load import StudyRecords
from reports.text.model_card import make_graph_table
from study.records.paths import EXPORT_JSON, StudyPaths


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of teacher and students; none where nothing but parameters is recorded."""
    nets = list_nets(records)
    if not are_measured(nets):
        return []
    return [
        Table(
            name="nets",
            caption="Students and teacher: parameters, MACs, latency",
            columns=("net", "parameters", "MACs", "latency, ms", "fastest to slowest, ms"),
            align="lrrrr",
            rows=tuple(_make_row(net) for net in nets),
            kinds=tuple("reference" if net.is_teacher else "" for net in nets),
            notes=(_make_note(nets),),
        )
    ]


def make_export_tables(records: StudyRecords) -> list[Table]:
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


def _make_row(net: Net) -> tuple[str, ...]:
    runs = net.entry.get("latency_runs")
    between = " to ".join(map(format_milliseconds, net.latency_range or ())) or "–"
    return (
        f"teacher: {net.name}" if net.is_teacher else net.label,
        format_whole(net.get_cost("parameters")),
        format_count(net.get_cost("macs")),
        format_milliseconds(net.get_cost("latency_seconds")),
        between + (f" in {runs} pass{'es' * (runs != 1)}" if isinstance(runs, int) else ""),
    )


def _make_note(nets: Sequence[Net]) -> str:
    shapes = dict.fromkeys(" × ".join(map(str, net.entry["input"])) for net in nets if net.entry.get("input"))
    cpus = dict.fromkeys(str(net.entry["latency_cpu"]) for net in nets if net.entry.get("latency_cpu"))
    return (
        "MACs are multiply-accumulates of convolutions and matrix products in one pass of one input, "
        f"{' or '.join(shapes) or 'of a size not on record'} (channels × height × width, a validation image). Latency "
        f"is the median of such passes on one thread of {' or '.join(cpus) or 'a CPU not on record'}."
    )
