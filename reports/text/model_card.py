"""MODEL_CARD.md of an exported student: what it is, how it is fed, what it scores and where it comes from."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.analysis.comparison import compare_arms
from reports.analysis.statistics import compute_mean
from reports.format.settings import describe
from reports.format.table import Table, to_markdown
from reports.format.values import format_value
from reports.load import Cell, StudyRecords, parse_json_object

if TYPE_CHECKING:
    from trainables.export.cost import Latency
    from trainables.export.onnx import ExportedModel


def make_model_card(
    records: StudyRecords, cell: Cell, because: str, run: Any, config: Mapping[str, Any], written: ExportedModel
) -> str:
    """The model card as Markdown."""
    blocks = [
        f"# {_text(cell.student)}, trained under {_text(cell.arm)}",
        _text(str(records.study.get("question") or "")),
        _two("The net", _net(written)),
        _two("What goes in and comes out", _feeding(records, written)),
        to_markdown(_scores(records, cell, run)),
        _against(records, cell),
        _two("Latency of one image, one CPU thread", _latencies(written)),
        _two("Where it comes from", _origin(records, cell, because, run, config)),
        _two("Files", [(name, f"SHA-256 {digest}") for name, digest in written.sha256.items()]),
    ]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def _net(written: ExportedModel) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{written.parameters:,}"),
        ("multiply-accumulates", f"{written.macs:,} for one image (convolutions and matrix products)"),
        ("precision", "float32"),
        ("ONNX against torch", f"differ by at most {written.worst_difference:.2g} on random inputs"),
        ("made with", ", ".join(f"{name} {version}" for name, version in written.versions.items())),
    ]


def _feeding(records: StudyRecords, written: ExportedModel) -> list[tuple[str, str]]:
    _, channels, height, width = written.input_shape
    size = "any size that the task's data has, here" if written.any_size else "of"
    prediction = str(records.study.get("prediction") or "")  # schema 1 has none
    _, *output = written.output_shape
    return [
        ("input", f"`images`: batch × {channels} × {height} × {width}, float32; any batch, images {size} "
                  f"{height} × {width} pixels"),
        ("normalisation", "(pixels / 255 − mean) / std, per channel, pixels from 0 to 255"),
        ("mean", ", ".join(str(value) for value in written.mean)),
        ("std", ", ".join(str(value) for value in written.std)),
        ("output", f"`prediction`: batch × {' × '.join(map(str, output))}, float32"
                   + (f": {prediction}" if prediction else "")),
    ]  # fmt: skip


def _scores(records: StudyRecords, cell: Cell, run: Any) -> Table:
    """Every metric that the cell's confirm runs measured outside of training, test first."""
    runs = records.confirmed[records.confirmed["cell"] == cell.name]
    names = [name for name in records.section("metrics") if "/" in name and not name.startswith("train/")]
    rows = []
    for name in sorted({records.test_metric, *names}, key=lambda name: (name != records.test_metric, name)):
        measured = runs[name].to_numpy(dtype=float) if name in runs else np.array([])
        if len(measured) and np.isfinite(measured).all():
            written, mean = records.get_metric(name), compute_mean(measured.tolist())
            half = f" ± {written.format(mean.interval.high - mean.mean)}" if mean.interval else ""
            rows.append((written.label, f"{written.format(mean.mean)}{half}", str(mean.n), written.format(run[name])))
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


def _against(records: StudyRecords, cell: Cell) -> str:
    """What the study says of this arm against the one it is compared with."""
    row = next(row for c in compare_arms(records) if c.student == cell.student for row in c.rows if row.arm == cell.arm)
    if row.not_judged:
        return f"Against {_text(str(row.versus))}: not judged, {row.not_judged}."
    if not row.paired or row.p is None:
        return ""
    written = records.get_metric(records.test_metric)
    unit = f" {written.difference_unit}" if written.difference_unit else ""
    p = "< 0.001" if row.p < 0.001 else f"= {row.p:.3f}"
    difference = written.format_signed(row.paired.difference)
    return (
        f"Against {_text(str(row.versus))}, over {row.paired.n} shared seeds: "
        f"{difference}{unit} "
        f"{written.noun}, p {p} (Holm-corrected), {row.verdict}."
    )


def _latencies(written: ExportedModel) -> Iterable[tuple[str, str]]:
    shape = " × ".join(map(str, written.input_shape))
    yield "machine", f"{platform.system()} {platform.machine()}, {_cpu()}"
    for runtime, measured in written.latencies.items():
        yield f"{runtime}, input {shape}", _milliseconds(measured)


def _milliseconds(measured: Latency) -> str:
    median, low, high = (
        f"{1000 * seconds:.3g}"
        for seconds in (measured.median_seconds, measured.fastest_seconds, measured.slowest_seconds)
    )
    return f"{median} ms (median; {low} to {high} in {measured.runs} passes)"


def _origin(
    records: StudyRecords, cell: Cell, because: str, run: Any, config: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    data, teacher, provenance = (
        records.section("inputs", "data"),
        records.section("teacher"),
        records.section("provenance"),
    )
    machine = records.section("provenance", "machine")
    params = parse_json_object(run["params"])
    facts: dict[str, Any] = {
        "study": records.name,
        "chosen": because,
        "arm": cell.arm,
        "loss": describe(config.get("loss")),
        "searched values": ", ".join(f"{name} {format_value(value)}" for name, value in params.items()),
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
        "trained with": ", ".join(
            f"{name} {version}" for name, version in records.section("provenance", "versions").items()
        ),
        "doubts": "; ".join(records.warnings),
        "trained by": f"{run['device']}; {machine.get('system')}, {machine.get('cpu')}",
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _two(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    return to_markdown(Table(caption, caption, ("what", "value"), "ll", tuple(rows)))


def _text(value: str) -> str:
    """A user's words in one line, whatever signs they hold."""
    escaped = html.escape(" ".join(value.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]#|" else sign for sign in escaped)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown CPU")
