"""The tables of single papers: face parsing (P0) and super-resolution (P2), and the marks of all of them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from reports.analysis import published
from reports.format.table import to_markdown
from reports.load import load_study
from reports.papers.p0_face_parsing import P0_TABLE_1, P0_TABLE_2, P0_TABLE_3
from reports.papers.p2_face_sr import P2_TABLE_1
from reports.papers.paper_tables import LAYOUTS, make_paper_table
from reports.papers.schema import Layout, combine, expand_roles, find_figure
from tests.reports.fake_study import Writer
from tests.reports.papers.paper_study import rows_of, written

TEACHER_PARAMETERS, STUDENT_PARAMETERS = 22_904_388, 133_705
"""Of M-SFANet and of MCNN with three input channels."""


def test_every_published_figure_is_in_a_table() -> None:
    shown = set()
    for layout in LAYOUTS:
        columns = tuple(expand_roles(layout.columns, layout.names))
        shown |= {find_figure(layout, combine(r, c)) for r in expand_roles(layout.rows, layout.names) for c in columns}
    assert {row for row in published.load_figures() if row not in shown} == set()


@pytest.mark.parametrize("protocol", [True, False], ids=["beside", "greyed"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.paper}-{layout.number}")
def test_each_footnote_has_one_letter_and_each_letter_one_footnote(
    writer: Writer, layout: Layout, protocol: bool
) -> None:
    writer.study["protocol"] = layout.paper if protocol else ""
    table = make_paper_table(load_study(writer.write()), layout)
    marks = re.findall(r"\[[a-z]\]", " ".join([table.caption, *table.columns, *(c for row in table.rows for c in row)]))
    defined = [note[:3] for note in table.notes if note.startswith("[")]
    assert len(defined) == len(set(defined))
    assert set(marks) == set(defined)
    # "[a]: …" at the start of a line would be a link's definition to Markdown
    assert not re.search(r"(?m)^\[[a-z]\]:", to_markdown(table))


def test_known_errors_are_recomputed_from_the_figures() -> None:
    def value(model: str, method: str, metric: str) -> float:
        (row,) = (row for row in published.find_figures("P0", model, method) if row.metric == metric)
        return row.value

    models = ("deeplabv3_mobilenet_v3_large", "resnet34_fcn", "resnet18_fcn")
    over_kd = [value(m, "ldt", "f1") - value(m, "kd", "f1") for m in models]
    over_none = [value(m, "ldt", "f1") - value(m, "none", "f1") for m in models]
    accuracy = [value(m, "ldt", "accuracy") - value(m, "kd", "accuracy") for m in models]
    notes = " ".join(note for layout in LAYOUTS for line in layout.columns for note in line.notes)
    assert "({:.2f} + {:.2f} + {:.2f})/3 = {:.2f}".format(*over_kd, np.mean(over_kd)) in notes
    assert "{:.2f}, {:.2f} and {:.2f}".format(*over_none) in notes
    assert "{:.2f}, {:.2f} and {:.2f}".format(*accuracy) in notes
    weights = [4e-6 * count for count in (TEACHER_PARAMETERS, STUDENT_PARAMETERS)]
    assert f"{weights[0]:.1f} MB" in notes
    assert f"{100 * (1 - weights[1] / weights[0]):.1f} % smaller, not {100 * (1 - 0.543 / 366.6):.2f} %" in notes


@pytest.fixture
def faces(writer: Writer) -> Writer:
    """A study of P0's known methods on two of its students."""
    writer.students, writer.searched = ["resnet34_fcn", "resnet18_fcn"], set()
    writer.arms = {"no distillation": [0.71, 0.73], "KD": [0.74, 0.75], "KD-STD": [0.69, 0.7]}
    writer.versus = dict.fromkeys(writer.arms, "no distillation") | {"no distillation": None}
    writer.published = {"no distillation": "none", "KD": "kd", "KD-STD": "kd_std"}
    writer.study |= {"metric": "val/f1", "test_metric": "test/f1", "protocol": "P0"}
    percent = {"direction": "max", "unit": "%", "digits": 2, "label": ""}
    writer.study["metrics"] = dict.fromkeys(("val/f1", "test/f1", "test/miou", "test/accuracy"), percent)
    scores = {"test/f1": 0.8712, "test/miou": 0.7801, "test/accuracy": 0.9504}
    writer.study["teacher"] = {"name": "resnet101_fcn", "parameters": 51_948_115, "metrics": scores}
    return writer


def test_face_parsings_first_table_has_one_line(faces: Writer) -> None:
    faces.students.insert(0, "deeplabv3_mobilenet_v3_large")
    table = make_paper_table(written(faces), P0_TABLE_1)
    assert [title.split(" [")[0] for title in table.columns] == ["net", "no distillation", "KD", "KD-STD"]
    (row,) = table.rows
    assert [cell.rsplit("; published ")[-1] for cell in row[1:]] == [
        f"{figure}, epoch not stated" for figure in ("83.97", "85.37", "83.51")
    ]
    assert row[1].startswith("72.00 ± 12.71 (n = 2)")


def test_a_teacher_has_figures_under_no_distillation_alone(faces: Writer) -> None:
    table = make_paper_table(written(faces, test__miou="-0.1"), P0_TABLE_2)
    rows = rows_of(table)
    f1 = "87.12 (n = 1); published 87.1, epoch not stated"
    assert rows["ResNet-101, FCN (teacher)"] == (f1, "–", "–", "–")
    assert next(iter(rows)) == "ResNet-101, FCN (teacher)"
    assert rows["ResNet-101, FCN (teacher), mIoU"] == ("78.01 (n = 1)", "–", "–", "–")
    assert rows["ResNet-18, FCN, mIoU"][1].startswith("64.50 ± ")
    assert rows["ResNet-18, FCN"][1].endswith("(n = 2); published 74.51, epoch not stated")
    accuracy = rows_of(make_paper_table(written(faces), P0_TABLE_3))
    published = "95.04 (n = 1); published 95.04 [f], epoch not stated"
    assert accuracy["ResNet-101, FCN (teacher)"] == (published, "–", "–", "–")
    assert len(accuracy) == 4


def test_a_teacher_of_another_size_has_a_row_of_its_own_beside_the_greyed_one(faces: Writer) -> None:
    faces.students = ["small_fcn-8"]
    faces.study |= {"protocol": "", "teacher": {"name": "small_fcn-16", "metrics": {"test/f1": 0.7129}}}
    rows = rows_of(make_paper_table(written(faces), P0_TABLE_2))
    assert rows["small_fcn-16 (teacher)"] == ("this study", "71.29 (n = 1)", "–", "–", "–")
    greyed = ("P0's, not comparable", "87.1, epoch not stated", "–", "–", "–")
    assert rows["ResNet-101, FCN (teacher)"] == greyed


@pytest.fixture
def enlarged(writer: Writer) -> Writer:
    """A study of two of P2's nets without and with distillation."""
    writer.students, writer.arms = ["vgg_sr", "rcan"], {"none": [26.1, 26.3], "KD": [26.6, 26.7]}
    writer.published, writer.versus, writer.searched = {"none": "none", "KD": "adversarial_kd"}, {}, set()
    writer.study |= {"protocol": "P2", "test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    return writer


def test_super_resolution_has_the_papers_digits(enlarged: Writer) -> None:
    enlarged.students, enlarged.arms = ["vgg_sr"], {"none": [25.8371, 25.9], "KD": [26.6, 26.7]}
    enlarged.study["teacher"] = {"name": "vgg_sr-32atoms", "metrics": {"test/ssim": 0.7714, "test/lpips": 0.24131}}
    rows = rows_of(make_paper_table(written(enlarged), P2_TABLE_1))
    assert rows["Student, no distillation"][0].startswith("25.869 ± 0.400 (n = 2); published 25.837, ")
    assert rows["Dictionary net (teacher)"][1:3] == (
        "0.771 (n = 1); published 0.771, epoch not stated",
        "0.2413 (n = 1); published 0.2413, epoch not stated",
    )
    assert rows["RCAN"][0] == "– not in this study; published 26.59, epoch not stated"


def test_super_resolution_shows_recorded_costs_of_each_net(enlarged: Writer) -> None:
    enlarged.students, enlarged.arms = ["vgg_sr", "rcan"], {"none": [26.1, 26.3]}
    cost = {"parameters": 69_700_000, "macs": 81_250_000_000, "latency_seconds": 1.2345}
    enlarged.study["students"] = {"vgg_sr": cost, "rcan": {"parameters": 15_740_067}}
    enlarged.study["teacher"] = {"name": "vgg_sr-32atoms", "metrics": {}} | cost | {"parameters": 113_300_000}
    table = make_paper_table(written(enlarged), P2_TABLE_1)
    assert [title.split(" [")[0] for title in table.columns[-3:]] == ["parameters", "MACs", "latency, ms"]
    rows = rows_of(table)
    assert rows["Student, no distillation"][3:] == ("69,700,000", "81.2 G", "1234")
    assert rows["Dictionary net (teacher)"][3:] == ("113,300,000", "81.2 G", "1234")
    assert rows["RCAN"][3:] == ("15,740,067", "–", "–")
    assert set(next(row for title, row in rows.items() if title.startswith("SRFBN"))[3:]) == {"– not in this study"}


def test_another_net_of_the_table_is_measured_in_its_own_row_alone(enlarged: Writer) -> None:
    rows = rows_of(make_paper_table(written(enlarged), P2_TABLE_1))
    assert rows["RCAN"][0].startswith("26.200 ± 1.271 (n = 2); published 26.59, ")
    assert not [title for title in rows if title.startswith("rcan")]


def test_a_rival_is_shown_as_its_authors_train_it_and_the_control_where_there_is_one(enlarged: Writer) -> None:
    enlarged.students = ["vgg_sr", "rcan", "vgg_sr-control"]
    enlarged.arms = {"none": [26.1, 26.3], "authors' loss": [27.1, 27.3]}
    enlarged.published = {"none": "none", "authors' loss": "baseline"}
    rows = rows_of(make_paper_table(written(enlarged), P2_TABLE_1))
    assert rows["RCAN"][0].startswith("27.200 ± 1.271 (n = 2); published 26.59, ")
    assert rows["Dictionary net's control, without atoms"][0] == "26.200 ± 1.271 (n = 2)"
    records = written(enlarged)
    without = replace(
        records,
        study=records.study | {"cells": [c for c in records.study["cells"] if c["student"] != "vgg_sr-control"]},
    )
    assert not [title for title in rows_of(make_paper_table(without, P2_TABLE_1)) if "control" in title]


def test_super_resolution_names_the_options_of_its_scores_in_the_head(enlarged: Writer) -> None:
    enlarged.study["protocol"] = ""
    enlarged.study["inputs"]["data"]["measured_as"] = {"psnr": "luma, rounded to 8 bits, 8 pixels cut off"}
    table = make_paper_table(written(enlarged), P2_TABLE_1)
    titles = [title.split(" [")[0] for title in table.columns[2:4]]
    assert titles == ["PSNR, dB (luma, rounded to 8 bits, 8 pixels cut off)", "SSIM"]


def test_narrow_version_of_another_net_takes_its_row_and_missing_weights_are_named(enlarged: Writer) -> None:
    enlarged.students, enlarged.arms = ["small_sr-16", "rcan-g2"], {"none": [26.1, 26.3]}
    enlarged.study["protocol"] = ""
    enlarged.study["inputs"]["data"]["absent"] = {"lpips": "weights absent"}
    rows = rows_of(make_paper_table(written(enlarged), P2_TABLE_1))
    assert rows["rcan-g2"][1].startswith("26.200 ± 1.271 (n = 2)")
    assert rows["rcan-g2"][3] == "– weights absent"
    assert rows["small_sr-16, no distillation"][1].startswith("26.200 ± 1.271 (n = 2)")
    assert not [title for title in rows if title.startswith("rcan-g2,")]
