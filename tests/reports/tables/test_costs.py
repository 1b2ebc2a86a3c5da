"""The tables of nets and their costs, and of exported graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.build import build
from reports.figures.costs import draw_costs
from reports.load import load_study
from reports.tables.costs import make_export_tables, make_tables
from tests.reports.fake_study import Writer

SMALL = {
    "parameters": 78042,
    "macs": 12_345_678,
    "input": [3, 32, 32],
    "latency_seconds": 0.00123,
    "latency_range_seconds": [0.0012, 0.0121],
    "latency_runs": 100,
    "latency_cpu": "A CPU <1>",
}
LARGE = SMALL | {"parameters": 272474, "macs": 2.5e9, "latency_seconds": 12.0, "latency_runs": 1}


@pytest.fixture
def costed(writer: Writer) -> Path:
    """The fake study with a second student, and with costs."""
    writer.students = ["resnet8", "resnet20"]
    writer.study["students"] = {"resnet8": SMALL, "resnet20": LARGE}
    writer.study["teacher"] = writer.study["teacher"] | LARGE | {"macs": 5e9}
    return writer.fill().write()


def test_table_lists_the_costs_of_teacher_and_students(costed: Path) -> None:
    (table,) = make_tables(load_study(costed))
    assert table.rows == (
        ("teacher: resnet20", "272,474", "5.00 G", "12000", "1.20 to 12.1 in 1 pass"),
        ("resnet8", "78,042", "12.3 M", "1.23", "1.20 to 12.1 in 100 passes"),
        ("resnet20", "272,474", "2.50 G", "12000", "1.20 to 12.1 in 1 pass"),
    )
    assert "one input, 3 × 32 × 32 (channels" in table.notes[0]
    assert "one thread of A CPU <1>." in table.notes[0]


def test_page_shows_nets_and_a_figure_for_each_cost(costed: Path) -> None:
    page = build(costed).read_text(encoding="utf-8")
    section = page.split('<section id="nets">')[1].split("</section>")[0]
    assert "A CPU &lt;1&gt;" in section
    assert section.count('class="data"') == 3
    assert (costed / "tables" / "nets.csv").is_file()


def test_csv_of_nets_has_costs_as_they_were_measured(costed: Path) -> None:
    build(costed)
    nets = pd.read_csv(costed / "tables" / "nets.csv").set_index(["net", "teacher"])
    assert nets.macs.dtype == "int64"
    assert nets.loc["resnet20"].macs.to_list() == [5_000_000_000, LARGE["macs"]]
    assert nets.loc[("resnet8", False)].to_dict() == {
        "parameters": SMALL["parameters"],
        "macs": SMALL["macs"],
        "latency_seconds": SMALL["latency_seconds"],
        "fastest_seconds": SMALL["latency_range_seconds"][0],
        "slowest_seconds": SMALL["latency_range_seconds"][1],
        "latency_runs": SMALL["latency_runs"],
    }


def test_study_recorded_without_costs_has_no_such_section(reported: Path) -> None:
    assert make_tables(load_study(reported)) == []
    assert draw_costs(load_study(reported)) == []
    assert 'id="nets"' not in (reported / "report.html").read_text(encoding="utf-8")
    assert not (reported / "tables" / "nets.csv").exists()


def test_damaged_costs_are_left_out_and_the_rest_is_shown(writer: Writer) -> None:
    broken = {"parameters": "many", "macs": None, "latency_seconds": float("nan"), "latency_range_seconds": 3}
    writer.students = ["resnet8", "resnet20"]
    writer.study["students"] = {"resnet8": SMALL, "resnet20": broken}
    records = load_study(writer.fill().write())
    (table,) = make_tables(records)
    assert table.rows[-1] == ("resnet20", "–", "–", "–", "–")
    assert {len(drawn.figure.data[1].x) for drawn in draw_costs(records)} <= {1}


# -- exported graphs

LATENCY = {"median_seconds": 0.00123, "fastest_seconds": 0.001, "slowest_seconds": 0.002, "runs": 100}


def measure(size: int, accuracy: float) -> dict[str, Any]:
    return {"size": size, "scores": {"test/accuracy": accuracy}, "latency": LATENCY}


def write_export(folder: Path, trial: str, name: str = "resnet8-DKD-seed0") -> None:
    graphs = {"float32": measure(40960, 0.9532), "int8": measure(11264, 0.9411)}
    path = folder / "export" / name / "export.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"trial": trial, "graphs": graphs}), encoding="utf-8")


def test_export_table_lists_each_precision_of_each_export(study: Path) -> None:
    trial = str(load_study(study).confirmed["trial_id"].iloc[0])
    write_export(study, trial)
    (table,) = make_export_tables(load_study(study))
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
    assert make_export_tables(load_study(study)) == []


def test_a_study_without_exports_has_no_such_table(writer: Writer) -> None:
    assert make_export_tables(load_study(writer.fill().write())) == []
