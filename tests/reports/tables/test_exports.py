"""The table of exported graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reports.build import build
from reports.load import load_study
from reports.tables.exports import make_tables
from tests.reports.fake_study import Writer

LATENCY = {"median_seconds": 0.00123, "fastest_seconds": 0.001, "slowest_seconds": 0.002, "runs": 100}


def measure(size: int, accuracy: float) -> dict[str, Any]:
    return {"size": size, "scores": {"test/accuracy": accuracy}, "latency": LATENCY}


def write_export(folder: Path, trial: str, name: str = "resnet8-DKD-seed0") -> None:
    graphs = {"float32": measure(40960, 0.9532), "int8": measure(11264, 0.9411)}
    path = folder / "export" / name / "export.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"trial": trial, "graphs": graphs}), encoding="utf-8")


def test_table_lists_each_precision_of_each_export(study: Path) -> None:
    trial = str(load_study(study).confirmed["trial_id"].iloc[0])
    write_export(study, trial)
    (table,) = make_tables(load_study(study))
    assert table.rows == (
        ("resnet8-DKD-seed0", "float32", "40.0", "95.32", "1.23"),
        ("resnet8-DKD-seed0", "int8", "11.0", "94.11", "1.23"),
    )
    assert table.columns[3] == "test accuracy, %"
    assert "int8" in build(study).read_text(encoding="utf-8").split('<section id="nets">')[1].split("</section>")[0]


def test_exports_of_other_trials_and_unfinished_ones_are_left_out(study: Path) -> None:
    write_export(study, "of another study")
    broken = study / "export" / "broken" / "export.json"
    broken.parent.mkdir()
    broken.write_text("{", encoding="utf-8")
    assert make_tables(load_study(study)) == []


def test_a_study_without_exports_has_no_such_table(writer: Writer) -> None:
    assert make_tables(load_study(writer.fill().write())) == []
