from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.analysis import published
from reports.build import build, write_tables
from reports.format.table import Table, to_markdown
from reports.load import StudyRecords, load_study
from reports.papers.layouts import (
    LAYOUTS,
    P0_TABLE_1,
    P0_TABLE_2,
    P0_TABLE_3,
    P1_TABLE_1,
    P2_TABLE_1,
    P4_TABLE_1,
    P4_TABLE_2,
)
from reports.papers.paper_tables import make_paper_table, make_tables
from reports.papers.schema import Layout, combine, expand_roles, find_figure
from tests.reports.fake_study import DKD, SEARCHED, Writer

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


def written(writer: Writer, **further: str) -> StudyRecords:
    """The study as it is read, with its test metric also under other names."""
    folder = writer.fill().write()
    rows = pd.read_parquet(folder / "trials").rename(columns={"test/accuracy": writer.study["test_metric"]})
    for column, shift in further.items():
        rows[column.replace("__", "/")] = rows[writer.study["test_metric"]] + float(shift)
    rows.to_parquet(folder / "trials" / "part-00001.parquet")
    return load_study(folder)


def rows_of(table: Table) -> dict[str, tuple[str, ...]]:
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == len(table.rows)
    return rows


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


def test_super_resolution_has_the_papers_digits(writer: Writer) -> None:
    writer.students, writer.arms = ["vgg_sr"], {"none": [25.8371, 25.9], "KD": [26.6, 26.7]}
    writer.published, writer.versus, writer.searched = {"none": "none", "KD": "adversarial_kd"}, {}, set()
    writer.study |= {"protocol": "P2", "test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    writer.study["teacher"] = {"name": "vgg_sr-32atoms", "metrics": {"test/ssim": 0.7714, "test/lpips": 0.24131}}
    rows = rows_of(make_paper_table(written(writer), P2_TABLE_1))
    assert rows["Student, no distillation"][0].startswith("25.869 ± 0.400 (n = 2); published 25.837, ")
    assert rows["Dictionary net (teacher)"][1:3] == (
        "0.771 (n = 1); published 0.771, epoch not stated",
        "0.2413 (n = 1); published 0.2413, epoch not stated",
    )
    assert rows["RCAN"][0] == "– not in this study; published 26.59, epoch not stated"


def test_super_resolution_shows_recorded_costs_of_each_net(writer: Writer) -> None:
    writer.students, writer.arms = ["vgg_sr", "rcan"], {"none": [26.1, 26.3]}
    writer.published, writer.versus, writer.searched = {"none": "none"}, {}, set()
    writer.study |= {"protocol": "P2", "test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    cost = {"parameters": 69_700_000, "macs": 81_250_000_000, "latency_seconds": 1.2345}
    writer.study["students"] = {"vgg_sr": cost, "rcan": {"parameters": 15_740_067}}
    writer.study["teacher"] = {"name": "vgg_sr-32atoms", "metrics": {}} | cost | {"parameters": 113_300_000}
    table = make_paper_table(written(writer), P2_TABLE_1)
    assert [title.split(" [")[0] for title in table.columns[-3:]] == ["parameters", "MACs", "latency, ms"]
    rows = rows_of(table)
    assert rows["Student, no distillation"][3:] == ("69,700,000", "81.2 G", "1234")
    assert rows["Dictionary net (teacher)"][3:] == ("113,300,000", "81.2 G", "1234")
    assert rows["RCAN"][3:] == ("15,740,067", "–", "–")
    assert set(next(row for title, row in rows.items() if title.startswith("SRFBN"))[3:]) == {"– not in this study"}


def test_another_net_of_the_table_is_measured_in_its_own_row_alone(writer: Writer) -> None:
    writer.students, writer.arms = ["vgg_sr", "rcan"], {"none": [26.1, 26.3], "KD": [26.6, 26.7]}
    writer.published, writer.versus, writer.searched = {"none": "none", "KD": "adversarial_kd"}, {}, set()
    writer.study |= {"protocol": "P2", "test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    rows = rows_of(make_paper_table(written(writer), P2_TABLE_1))
    assert rows["RCAN"][0].startswith("26.200 ± 1.271 (n = 2); published 26.59, ")
    assert not [title for title in rows if title.startswith("rcan")]


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


def test_a_rival_is_shown_as_its_authors_train_it_and_the_control_where_there_is_one(writer: Writer) -> None:
    writer.students = ["vgg_sr", "rcan", "vgg_sr-control"]
    writer.arms = {"none": [26.1, 26.3], "authors' loss": [27.1, 27.3]}
    writer.published, writer.versus, writer.searched = {"none": "none", "authors' loss": "baseline"}, {}, set()
    writer.study |= {"protocol": "P2", "test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    rows = rows_of(make_paper_table(written(writer), P2_TABLE_1))
    assert rows["RCAN"][0].startswith("27.200 ± 1.271 (n = 2); published 26.59, ")
    assert rows["Dictionary net's control, without atoms"][0] == "26.200 ± 1.271 (n = 2)"
    records = written(writer)
    without = replace(
        records,
        study=records.study | {"cells": [c for c in records.study["cells"] if c["student"] != "vgg_sr-control"]},
    )
    assert not [title for title in rows_of(make_paper_table(without, P2_TABLE_1)) if "control" in title]


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


def test_super_resolution_names_the_options_of_its_scores_in_the_head(writer: Writer) -> None:
    writer.study |= {"test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    writer.study["inputs"]["data"]["measured_as"] = {"psnr": "luma, rounded to 8 bits, 8 pixels cut off"}
    table = make_paper_table(written(writer), P2_TABLE_1)
    titles = [title.split(" [")[0] for title in table.columns[2:4]]
    assert titles == ["PSNR, dB (luma, rounded to 8 bits, 8 pixels cut off)", "SSIM"]


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


def test_greyed_text_keeps_its_contrast() -> None:
    # WCAG 2.2, success criterion 1.4.3: at least 4.5 : 1
    css = (Path(published.__file__).parents[1] / "page" / "page.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", css, flags=re.S)
    assert len(themes) == 3
    assert re.search(r"tr\.greyed td \{ color: var\(--soft\); background: var\(--panel\)", css)
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #(\w+)", theme))
        light, dark = sorted((luminance(colours[name]) for name in ("soft", "panel")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour in hexadecimal, as WCAG 2.2 defines it."""
    full = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_table_is_written_as_csv_markdown_and_latex(crowds: Writer) -> None:
    records = written(crowds)
    write_tables(records)
    files = {path.name for path in (records.folder / "tables").iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert {"comparison", "P4-table-1", "P4-table-2", "budget", "failures"} <= stems
    in_three_forms = {f"{stem}.{ending}" for stem in stems - {"metrics"} for ending in ("csv", "md", "tex")}
    assert files == in_three_forms | {"metrics.csv"}


def test_narrow_version_of_another_net_takes_its_row_and_missing_weights_are_named(writer: Writer) -> None:
    writer.students, writer.arms = ["small_sr-16", "rcan-g2"], {"none": [26.1, 26.3]}
    writer.published, writer.versus, writer.searched = {"none": "none"}, {}, set()
    writer.study |= {"test_metric": "test/psnr", "metrics": {"test/psnr": "max"}}
    writer.study["inputs"]["data"]["absent"] = {"lpips": "weights absent"}
    rows = rows_of(make_paper_table(written(writer), P2_TABLE_1))
    assert rows["rcan-g2"][1].startswith("26.200 ± 1.271 (n = 2)")
    assert rows["rcan-g2"][3] == "– weights absent"
    assert rows["small_sr-16, no distillation"][1].startswith("26.200 ± 1.271 (n = 2)")
    assert not [title for title in rows if title.startswith("rcan-g2,")]
