from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from reports.analysis import published
from reports.build import build, write_tables
from reports.load import load_study
from reports.papers.p1_cifar import P1_TABLE_1
from reports.papers.p4_crowd_counting import P4_TABLE_1, P4_TABLE_2
from reports.papers.paper_tables import make_paper_table, make_tables
from reports.papers.schema import Layout
from tests.reports.fake_study import DKD, SEARCHED, Writer
from tests.reports.papers.paper_study import rows_of, written

NONE, TENTH, HALF, OWN = [7.1, 7.3, 6.9], [6.8, 7.0, 6.9], [7.6, 7.2, 7.4], [6.7, 6.6, 6.9]
TEACHER_PARAMETERS, STUDENT_PARAMETERS = 22_904_388, 133_705
"""Of M-SFANet and of MCNN with three input channels."""


@pytest.fixture
def crowds(writer: Writer) -> Writer:
    """A study of P4's methods: alpha 0, 0.1, 0.5 and one searched; MAE and RMSE."""
    writer.students = ["mcnn"]
    writer.arms = {"no distillation": NONE, "alpha 0.1": TENTH, "alpha 0.5": HALF, "alpha searched": OWN}
    writer.published = {"no distillation": "none", "alpha 0.1": "kd alpha=0.1", "alpha 0.5": "kd alpha=0.5"}
    writer.versus = dict.fromkeys(writer.arms, "no distillation") | {"no distillation": None}
    writer.searched = set()
    writer.study |= {"metric": "val/mae", "test_metric": "test/mae", "direction": "min"}
    writer.study["metrics"] = dict.fromkeys(("val/mae", "test/mae", "test/rmse"), "min")
    scores = {"test/mae": 4.7, "test/rmse": 6.25}
    writer.study["teacher"] = {"name": "m_sfanet", "parameters": TEACHER_PARAMETERS, "metrics": scores}
    writer.study["students"] = {"mcnn": {"parameters": STUDENT_PARAMETERS}}
    return writer


def mean_of(values: list[float]) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} ± {half:.2f} (n = {len(values)})"


def test_measured_and_published_figures_share_cells_under_the_papers_protocol(crowds: Writer) -> None:
    crowds.study["protocol"] = "P4"
    table = make_paper_table(written(crowds, test__rmse="2"), P4_TABLE_1)
    assert table.columns == ("net", "parameters", "size, MB [a]", "MAE", "RMSE [b]")
    rows = rows_of(table)
    assert rows["M-SFANet (teacher)"] == (
        "22,904,388",
        "91.618; published 366.6 [e], epoch not stated",
        "4.70 (n = 1); published 57.55 [f], epoch not stated",
        "6.25 (n = 1); published 94.48 [f], epoch not stated",
    )
    mae = f"{mean_of(TENTH)}; published 90.86, epoch not stated"
    rmse = f"{mean_of([value + 2 for value in TENTH])}; published 172.99, epoch not stated"
    assert rows["MCNN with KD, alpha 0.1 [c][d]"] == (
        "133,705",
        "0.535; published 0.543 [h], epoch not stated",
        mae,
        rmse,
    )
    assert set(table.kinds) == {""}


@pytest.mark.parametrize("layout", [P4_TABLE_1, P4_TABLE_2], ids=lambda layout: f"table {layout.number}")
def test_without_the_protocol_no_row_holds_both(crowds: Writer, layout: Layout) -> None:
    crowds.students = ["mcnn-0.35"]
    table = make_paper_table(written(crowds), layout)
    values = {row.text for row in published.load_figures() if row.paper == "P4"}
    for row, kind in zip(table.rows, table.kinds, strict=True):
        own = row[1] == "this study"
        assert (kind, row[1]) == (("", "this study") if own else ("greyed", "P4's, not comparable"))
        found = {number for cell in row[2:] for number in re.findall(r"\d+\.\d+", cell)} & values
        assert bool(found) != own
    assert "since this study runs on digits (scikit-learn), 8×8 grey, 10 classes, not under P4's" in table.notes[0]


def test_images_missing_or_added_grey_the_published_figures(crowds: Writer) -> None:
    crowds.study["protocol"] = "P4"
    crowds.study["inputs"] = {"data": {"name": "ShanghaiTech A", "complete": False}}
    table = make_paper_table(written(crowds), P4_TABLE_2)
    assert table.kinds.count("greyed") == 4
    assert "since its data are not P4's: images are missing or added" in table.notes[0]


def test_a_cell_without_an_arm_says_so(crowds: Writer) -> None:
    crowds.study["protocol"] = "P4"
    rows = rows_of(make_paper_table(written(crowds), P4_TABLE_2))
    assert rows["MCNN, alpha 0.3"][0] == "– not in this study; published 95.85, epoch not stated"
    assert rows["MCNN, alpha 0.1"][1] == "– no result; published 172.99, epoch not stated"


def test_the_control_and_own_arms_have_no_published_figure(crowds: Writer) -> None:
    crowds.study["protocol"] = "P4"
    rows = rows_of(make_paper_table(written(crowds), P4_TABLE_2))
    assert rows["MCNN, alpha 0"][0] == mean_of(NONE)
    assert rows["MCNN, alpha searched"][0] == mean_of(OWN)
    assert list(rows) == [f"MCNN, alpha {alpha}" for alpha in (0, 0.1, 0.3, 0.5, 0.7, "searched")]


def test_a_student_that_the_paper_lacks_has_rows_without_published_figures(crowds: Writer) -> None:
    crowds.study["protocol"], crowds.students = "P4", ["mcnn-0.35", "mcnn"]
    rows = rows_of(make_paper_table(written(crowds), P4_TABLE_1))
    assert list(rows)[-1] == "mcnn-0.35 with KD, alpha 0.1"
    assert rows["mcnn-0.35 with KD, alpha 0.1"] == (*2 * ("– not in this study",), mean_of(TENTH), "– no result")


def test_best_validation_epoch_is_shown_next_to_the_last_one(crowds: Writer) -> None:
    crowds.study["protocol"] = "P4"
    rows = rows_of(make_paper_table(written(crowds, test_at_best_val__mae="-1"), P4_TABLE_2))
    best = mean_of([value - 1 for value in HALF]).removesuffix(" (n = 3)")
    published = "published 105.55, epoch not stated"
    assert rows["MCNN, alpha 0.5"][0] == f"{mean_of(HALF)}; {best} at best val. epoch; {published}"


def test_additions_to_dkd_are_paired_differences_in_points(writer: Writer) -> None:
    writer.study["protocol"] = "P1"
    rows = rows_of(make_paper_table(load_study(writer.fill().write()), P1_TABLE_1))
    gain = 100 * np.subtract(SEARCHED, DKD).mean()
    assert rows["DKD [b]"][0].startswith(f"{100 * np.mean(DKD):.2f} ± ")
    assert re.fullmatch(
        rf"\+{gain:.2f} \[−0\.\d\d, \+0\.\d\d\] \(n = 8\); published \+0\.64, epoch not stated", rows["+ LP [d]"][0]
    )
    assert rows["+ LP [d]"][1] == "– not in this study; published +0.35, epoch not stated"


def test_without_dkd_there_is_no_difference_to_it(writer: Writer) -> None:
    del writer.arms["DKD"], writer.versus["DKD"]
    writer.versus["DKD + LP searched"] = ["none"]
    rows = make_paper_table(load_study(writer.fill().write()), P1_TABLE_1).rows
    assert rows[3][:3] == ("+ LP", "this study", "– not in this study")


@pytest.mark.parametrize(
    ("student", "ratio", "mean"), [("resnet8", 0.4, "+1.00"), ("resnet20", 0.2, "+2.00"), ("resnet8w4", 0.4, "+1.00")]
)
def test_a_net_is_measured_under_the_setting_its_paper_reports(
    writer: Writer, student: str, ratio: float, mean: str
) -> None:
    writer.students = [student]
    for r, gain in ((0.4, 0.01), (0.2, 0.02)):
        writer.arms[f"EAT {r}"] = [score + gain for score in DKD]
        writer.published[f"EAT {r}"] = f"dkd+eat r={r}"
    records = load_study(writer.fill().write())
    assert make_paper_table(records, P1_TABLE_1).rows[1][2].startswith(mean)
    other = replace(
        records, study={**records.study, "cells": [c for c in records.study["cells"] if str(ratio) not in c["arm"]]}
    )
    falls_back = make_paper_table(other, P1_TABLE_1).rows[1][2] != "– not in this study"
    assert falls_back == (student == "resnet8w4")


@pytest.mark.parametrize(
    ("metrics", "methods", "found"),
    [
        (("test/f1", "test/accuracy"), ("none", "kd"), ["P0-table-1", "P0-table-2", "P0-table-3"]),
        (("test/accuracy",), ("none", "kd"), []),
        (("test/accuracy",), ("dkd+lp", None), ["P1-table-1"]),
        (("test/psnr",), ("none", "adversarial_kd"), ["P2-table-1"]),
        (("test/mae",), ("none", "kd alpha=0.3"), ["P4-table-1", "P4-table-2"]),
        (("test/mae",), (None, None), []),
    ],
)
def test_a_study_has_the_tables_of_its_methods_and_metrics(
    writer: Writer, metrics: tuple[str, ...], methods: tuple[str | None, str | None], found: list[str]
) -> None:
    writer.study |= {"metrics": dict.fromkeys(metrics, "max"), "test_metric": metrics[0]}
    writer.published = dict(zip(("none", "DKD"), methods, strict=True))
    assert [table.name for table in make_tables(load_study(writer.write()))] == found


@pytest.mark.parametrize("name", ["{} {0} {x}", "a; b", "kd alpha=0.1 ", "[a]"])
def test_an_arm_of_any_name_has_a_row_of_its_own(crowds: Writer, name: str) -> None:
    crowds.arms[name] = [5.0, 5.0, 5.0]
    crowds.study["protocol"] = "P4"
    rows = rows_of(make_paper_table(written(crowds), P4_TABLE_2))
    assert rows[f"MCNN, {name}"][0] == "5.00 ± 0.00 (n = 3)"


def test_page_shows_the_tables_and_links_to_them(crowds: Writer) -> None:
    crowds.students = ["mcnn-0.35"]
    text = build(written(crowds).folder).read_text(encoding="utf-8")
    assert '<a href="#papers">' in text
    section = text.split('<section id="papers">')[1].split("</section>")[0]
    assert section.count('<tr class="greyed">') == 3 + 4
    assert section.count("<h3>") == 2


def test_page_without_a_papers_methods_has_no_such_section(writer: Writer) -> None:
    writer.published = {}
    assert 'id="papers"' not in build(writer.fill().write()).read_text(encoding="utf-8")


def test_every_table_is_written_as_csv_markdown_and_latex(crowds: Writer) -> None:
    records = written(crowds)
    write_tables(records)
    files = {path.name for path in (records.folder / "tables").iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert {"comparison", "P4-table-1", "P4-table-2", "budget", "failures"} <= stems
    in_three_forms = {f"{stem}.{ending}" for stem in stems - {"metrics"} for ending in ("csv", "md", "tex")}
    assert files == in_three_forms | {"metrics.csv"}
