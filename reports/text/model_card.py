"""MODEL_CARD.md of an exported student: its net, inputs and outputs, scores and origin."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.analysis.comparison import compare_arms
from reports.analysis.statistics import compute_mean
from reports.analysis.verdicts import Contrast, format_verdict
from reports.format.metrics import Metric
from reports.format.settings import describe
from reports.format.table import Table, to_markdown
from reports.format.values import format_milliseconds, format_params
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords
from reports.text.results import format_mean, format_p
from study.records.provenance import read_cpu_name

if TYPE_CHECKING:
    from trainables.export.onnx import ExportedModel


def make_model_card(
    records: StudyRecords, cell: Cell, reason: str, run: Any, config: Mapping[str, Any], exported: ExportedModel
) -> str:
    """Return the model card as Markdown."""
    blocks = [
        f"# {_escape_text(cell.student)}, trained under {_escape_text(cell.arm)}",
        _escape_text(str(records.study.get("question") or "")),
        _make_facts_table("The net", _describe_net(exported)),
        _make_facts_table("Inputs and outputs", _describe_inputs(records, exported)),
        to_markdown(_make_score_table(records, cell, run)),
        _describe_verdicts(records, cell, int(run["point"])),
        _make_facts_table("Latency of one image, one CPU thread", _describe_latencies(exported)),
        to_markdown(make_graph_table(records, _collect_graphs(exported))) if exported.graphs else "",
        _make_facts_table("Origin", _describe_origin(records, cell, reason, run, config)),
        _make_facts_table("Files", [(name, f"SHA-256 {digest}") for name, digest in exported.sha256.items()]),
    ]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def make_graph_table(records: StudyRecords, measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the table of measured graphs, by export and precision: dictionaries of GraphMeasures."""
    metric = records.get_metric(records.test_metric)
    return Table(
        name="graphs",
        caption="Exported graphs in each precision",
        columns=("export", "precision", "size, KiB", metric.label, "latency, ms"),
        align="llrrr",
        rows=tuple(
            (
                export,
                precision,
                f"{graph['size'] / 1024:,.1f}",
                metric.format(graph["scores"].get(records.test_metric)),
                format_milliseconds(graph["latency"]["median_seconds"]),
            )
            for export, graphs in measured.items()
            for precision, graph in graphs.items()
        ),
        notes=(
            "ONNX graphs on one CPU thread of the machine that exported them: the median of passes of one image. The "
            "metric is that of the exported run alone, from all test images. int8 ranges are those of 128 training "
            "images; test images decide nothing.",
        ),
    )


def _collect_graphs(exported: ExportedModel) -> dict[str, Any]:
    """Return the measures of all graphs, by file."""
    names = {precision: "model" + ("" if precision == "float32" else f".{precision}") for precision in exported.graphs}
    return {f"{names[precision]}.onnx": {precision: asdict(graph)} for precision, graph in exported.graphs.items()}


def _describe_net(exported: ExportedModel) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{exported.parameters:,}"),
        ("multiply-accumulates", f"{exported.macs:,} for one image (convolutions and matrix products)"),
        ("precision", "float32"),
        ("ONNX against torch", f"differ by at most {exported.worst_difference:.2g} on random inputs"),
        ("made with", ", ".join(f"{name} {version}" for name, version in exported.versions.items())),
    ]


def _describe_inputs(records: StudyRecords, exported: ExportedModel) -> list[tuple[str, str]]:
    _, channels, height, width = exported.input_shape
    size = "any size that the task's data has, here" if exported.any_size else "of"
    prediction = str(records.study.get("prediction") or "")  # schema 1 has none
    _, *output = exported.output_shape
    return [
        ("input", f"`images`: batch × {channels} × {height} × {width}, float32; any batch, images {size} "
                  f"{height} × {width} pixels"),
        ("normalisation", "(pixels / 255 − mean) / std, per channel, pixels from 0 to 255"),
        ("mean", ", ".join(str(value) for value in exported.mean)),
        ("std", ", ".join(str(value) for value in exported.std)),
        ("output", f"`prediction`: batch × {' × '.join(map(str, output))}, float32"
                   + (f": {prediction}" if prediction else "")),
        *_list_classes(records),
        *_list_outputs(records),
    ]  # fmt: skip


def _list_classes(records: StudyRecords) -> Iterable[tuple[str, str]]:
    names = records.section("inputs", "data").get("class_names")
    if isinstance(names, list):
        yield "classes", ", ".join(f"{number} {_escape_text(str(name))}" for number, name in enumerate(names))


def _list_outputs(records: StudyRecords) -> Iterable[tuple[str, str]]:
    """Yield how each number of the prediction is converted to its own unit."""
    outputs = records.section("inputs", "data").get("outputs")
    for one in outputs if isinstance(outputs, list) else ():
        yield _escape_text(str(one["name"])), f"output × {one['scale']:.6g} + {one['offset']:.6g}"


def _make_score_table(records: StudyRecords, cell: Cell, run: Any) -> Table:
    """Return the table of all metrics of the cell's confirm runs except those of training, test metrics first."""
    runs = records.get_confirm_runs(cell, run["point"])
    names = [name for name in records.section("metrics") if "/" in name and not name.startswith(("train/", "student/"))]
    rows = []
    for name in sorted({records.test_metric, *names}, key=lambda name: (name != records.test_metric, name)):
        measured = runs[name].to_numpy(dtype=float) if name in runs else np.array([])
        if len(measured) and np.isfinite(measured).all():
            metric, mean = records.get_metric(name), compute_mean(measured.tolist())
            rows.append((metric.label, format_mean(metric, mean), str(mean.n), metric.format(run[name])))
    return Table(
        name="scores",
        caption="Scores",
        columns=("metric", "mean of the cell's runs", "runs", "this run"),
        align="lrrr",
        rows=tuple(rows),
        notes=(
            "± is a 95 % t interval over seeds. The mean is what this training is expected to give; this run is one "
            "of them, taken by the number of its seed and not by its score.",
        ),
    )


def _describe_verdicts(records: StudyRecords, cell: Cell, point: int) -> str:
    """Return the differences and verdicts of a point against the arms it is compared with; "" if there are none."""
    comparison = next(one for one in compare_arms(records) if one.student == cell.student)
    contrasts = [contrast for row in comparison.rows if row.arm == cell.arm and not point for contrast in row.contrasts]
    for one in comparison.points:
        contrasts += one.contrasts if (one.cell.arm, one.point) == (cell.arm, point) else ()
    metric = records.get_metric(records.test_metric)
    return " ".join(filter(None, (_describe_verdict(contrast, metric) for contrast in contrasts)))


def _describe_verdict(contrast: Contrast, metric: Metric) -> str:
    against = f"Against {_escape_text(contrast.versus)}"
    if contrast.not_judged:
        return f"{against}: not judged, {contrast.not_judged}."
    p = contrast.margin_p if contrast.verdict == "not worse" else contrast.p
    if not contrast.paired or p is None:
        return ""
    difference = metric.format_signed(contrast.paired.difference)
    return (
        f"{against}, over {contrast.paired.n} shared seeds: {difference}{metric.after_difference} {metric.noun}, "
        f"p {format_p(p) if p < 0.001 else f'= {format_p(p)}'} (Holm-corrected), {format_verdict(contrast)}."
    )


def _describe_latencies(exported: ExportedModel) -> Iterable[tuple[str, str]]:
    shape = " × ".join(map(str, exported.input_shape))
    yield "machine", f"{platform.system()} {platform.machine()}, {read_cpu_name() or 'unknown CPU'}"
    for runtime, found in exported.latencies.items():
        times = (found.median_seconds, found.fastest_seconds, found.slowest_seconds)
        median, low, high = (f"{1000 * seconds:.3g}" for seconds in times)
        yield f"{runtime}, input {shape}", f"{median} ms (median; {low} to {high} in {found.runs} passes)"


def _describe_origin(
    records: StudyRecords, cell: Cell, reason: str, run: Any, config: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    data, teacher = records.section("inputs", "data"), records.section("teacher")
    provenance, machine = records.section("provenance"), records.section("provenance", "machine")
    versions = records.section("provenance", "versions")
    facts: dict[str, Any] = {
        "study": records.name,
        "chosen": reason,
        "arm": cell.arm,
        "student": describe(config.get("student")),
        "loss": describe(config.get("loss")),
        "searched values": format_params(parse_json_object(run["params"])),
        "point of the front": run["point"] or None,
        "trial": f"{run['trial_id']}, seed number {run['number']} ({run['seed']}), {run['epochs_done']} epochs",
        "trained on": f"{config.get('train_on')} of {records.data_name}",
        "note on the data": data.get("note"),
        "fingerprint of the data": data.get("fingerprint"),
        "protocol": f"{records.followed_protocol}'s" if records.followed_protocol else "not that of any paper",
        "teacher": teacher.get("name"),
        "fingerprint of the teacher": teacher.get("fingerprint")
        or records.section("inputs", "teacher").get("fingerprint"),
        "task": describe(config.get("task")),
        "commit": f"{provenance.get('commit')}{', with uncommitted changes' if provenance.get('dirty') else ''}",
        "command": provenance.get("command"),
        "trained with": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "doubts": "; ".join(records.warnings),
        "trained by": f"{run['device']}; {machine.get('system')}, {machine.get('cpu')}",
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _make_facts_table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    return to_markdown(Table(caption, caption, ("what", "value"), "ll", tuple(rows)))


def _escape_text(value: str) -> str:
    """Return a user's text as one line of Markdown, with HTML and Markdown characters escaped."""
    escaped = html.escape(" ".join(value.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]#|" else sign for sign in escaped)
