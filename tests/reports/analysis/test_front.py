"""Fronts on test: each point against the same student under the other arm, in one correction with the arms."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from reports.analysis.comparison import Comparison, compare_arms
from reports.analysis.front import list_front_points
from reports.analysis.verdicts import adjust_by_holm
from reports.build import build
from reports.figures.pareto import draw_fronts, draw_tested_fronts
from reports.load import StudyRecords, load_study
from reports.tables.budget import make_tables as make_budget_tables
from reports.tables.front import make_front_table
from reports.text.summary import summarize_points
from study.cli.list_studies import list_studies
from study.cli.status import read_status
from study.engine.coordinator import Coordinator
from study.preflight import check_inputs
from study.records.study_json import build_study_json, write_study
from study.space_file import load_space
from study.ui.reading import read_study
from tests.study.toy import drive, open_coordinator

SPACE = """
from study import Arm, Budget, Never, Study, integer, uniform
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent

study = Study(
    name="fronts",
    question="Does the gain show at every size?",
    task=Simulated(teacher_epochs=0, noise=0.002),
    students=(SimulatedStudent("net", integer(1, 400)),),
    arms=(
        Arm("plain", SimulatedLoss(x=uniform(0.2, 0.4)), baseline=True),
        Arm("better", SimulatedLoss(x=uniform(0.2, 0.4), gain=0.05)),
    ),
    objectives=("student/latency_ms",),
    budget=Budget(trials=6, epochs=4, seeds=8),
    stopping=Never(),
)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRecords, Coordinator]:
    folder = tmp_path_factory.mktemp("fronts")
    (folder / "space.py").write_text(SPACE)
    space = load_space(folder / "space.py", None, None)
    coordinator = open_coordinator(space.study, folder)
    assert drive(coordinator, folder)
    assert coordinator.done, coordinator.problems
    document = build_study_json(space.study, space, check_inputs(space.study, folder), None, "command")
    write_study(folder / "fronts", document | {"finished": True})
    return load_study(folder / "fronts"), coordinator


@pytest.fixture(scope="module")
def records(finished: tuple[StudyRecords, Coordinator]) -> StudyRecords:
    return finished[0]


@pytest.fixture(scope="module")
def comparison(records: StudyRecords) -> Comparison:
    (only,) = compare_arms(records)
    return only


def width_of(params: str) -> int:
    return int(json.loads(params)["student.width"])


def test_points_are_those_that_the_engine_chose(
    finished: tuple[StudyRecords, Coordinator], comparison: Comparison
) -> None:
    for name, cell in finished[1].cells.items():
        points = [point for point in comparison.points if point.cell.name == name]
        assert [dict(point.params) for point in points] == [dict(params) for params in cell.points or []]
        own = [dict(cell.search.params[number]) for number in cell.search.select_numbers()]
        assert [dict(point.params) for point in points if point.is_own] == own


def test_without_a_recorded_objective_a_cell_has_its_best_point_alone(records: StudyRecords) -> None:
    trials = records.trials.drop(columns=["student/latency_ms"])
    points = list_front_points(replace(records, trials=trials), records.students[0])
    assert {point.point for point in points if point.is_own} == {0}


def test_each_point_is_compared_with_its_own_student_by_seed(records: StudyRecords, comparison: Comparison) -> None:
    runs = records.confirmed_points.assign(width=records.confirmed_points["params"].map(width_of))
    compared = [point for point in comparison.points if point.contrasts]
    assert len(compared) == 2, "of a front of two points"
    assert {point.cell.arm for point in compared} == {"better"}
    for point in compared:
        of_width = runs[runs["width"] == point.student["student.width"]]
        by_seed = of_width.pivot(index="seed", columns="arm", values="test/accuracy")
        (contrast,) = point.contrasts
        assert contrast.paired is not None
        assert contrast.paired.n == 8
        assert contrast.paired.difference == pytest.approx((by_seed["better"] - by_seed["plain"]).mean())
        assert contrast.verdict == "better"
        assert dict(point.values) == pytest.approx(by_seed["better"].to_dict())


def test_arms_and_points_share_one_correction(comparison: Comparison) -> None:
    contrasts = [*comparison.contrasts, *comparison.point_contrasts]
    assert comparison.tests == len(contrasts) == 1 + 2
    raw = [contrast.paired.p for contrast in contrasts if contrast.paired]
    assert [contrast.p for contrast in contrasts] == adjust_by_holm(raw)
    assert min(raw) == pytest.approx(2 / 2**8)


def test_unfinished_front_is_corrected_for_the_points_to_come(records: StudyRecords) -> None:
    trials = records.trials[~((records.trials["point"] > 0) & (records.trials["arm"] == "better"))]
    half = replace(records, study={**records.study, "finished": False}, trials=trials)
    (comparison,) = compare_arms(half)
    assert len(comparison.point_contrasts) < 2
    assert comparison.tests == 4
    known = [one for one in (*comparison.contrasts, *comparison.point_contrasts) if one.paired]
    assert max(one.p for one in known if one.p is not None) >= 4 / 2**8


def test_best_point_alone_counts_for_the_arms(records: StudyRecords, comparison: Comparison) -> None:
    assert set(records.confirmed["point"]) == {0}
    assert records.confirmed.groupby("cell").size().tolist() == [8, 8]
    for row in comparison.rows:
        (best,) = [point for point in comparison.points if point.cell.arm == row.arm and point.point == 0]
        assert row.values == best.values


def test_table_lists_every_point_with_cost_mean_and_std(records: StudyRecords, comparison: Comparison) -> None:
    table = make_front_table(records, comparison)
    assert table.columns[:6] == (
        "arm",
        "point",
        "student latency, ms",
        "n",
        "test accuracy, %",
        "std, points",
    )
    assert len(table.rows) == len(comparison.points) == len(table.kinds)
    latencies = [float(row[2]) for row in table.rows if row[0] == "better"]
    assert latencies == sorted(latencies)
    assert table.kinds.count("reference") == sum(not point.is_own for point in comparison.points)
    runs = records.confirmed_points
    best = runs[(runs["arm"] == "better") & (runs["point"] == 0)]["test/accuracy"]
    assert f"{100 * best.std():.2f}" in {row[5] for row in table.rows}
    assert "over the 3 comparisons of both tables" in table.notes[0]


def test_figure_has_the_points_on_test_next_to_the_front_of_each_search(
    records: StudyRecords, comparison: Comparison
) -> None:
    (drawn,) = draw_tested_fronts(records, comparison)
    traces = {trace.name: trace for trace in drawn.figure.data}
    assert {"plain, search", "plain", "better, search", "better"} <= traces.keys()
    own = sorted(point.costs["student/latency_ms"] for point in comparison.points if point.is_own and point.position)
    assert list(traces["better"].x) == pytest.approx(own, rel=1e-5)
    assert len(traces["better, search"].x) >= len(own)
    assert all(half > 0 for half in traces["better"].error_y.array)


def test_search_figure_marks_all_confirmed_points(records: StudyRecords, comparison: Comparison) -> None:
    (drawn,) = draw_fronts(records, records.cells[1])
    (marked,) = [trace for trace in drawn.figure.data if trace.name == "confirmed"]
    assert len(marked.x) == sum(point.is_own for point in comparison.points if point.cell.arm == "better")


def test_answers_name_the_points(comparison: Comparison) -> None:
    (line,) = summarize_points((comparison,))
    assert line.startswith("net, points of fronts at equal student: better (student.width ")
    assert line.count(" is better than plain (") == 2


def test_page_and_files_have_the_fronts(records: StudyRecords, tmp_path: Path) -> None:
    shutil.copytree(records.folder, tmp_path / "fronts")
    page = build(tmp_path / "fronts")
    assert "net: the fronts on test" in page.read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "fronts" / "tables" / "front-net.csv")
    assert set(table["arm"].dropna()) == {"plain", "better"}
    assert table.columns[-2:].to_list() == ["seeds needed", "settings"]
    assert table["settings"].dropna().str.contains("width").all()


def test_progress_counts_the_runs_of_all_points(records: StudyRecords) -> None:
    confirmed, searched = len(records.confirmed_points), 2 * 6
    status = read_status(records.folder)
    assert sum(cell.confirmed for cell in status.cells) == sum(cell.to_confirm for cell in status.cells) == confirmed
    for cell in status.cells:
        best = records.confirmed[records.confirmed["cell"] == cell.cell]["test/accuracy"]
        assert (cell.phase, cell.test_mean) == ("confirmed", pytest.approx(best.mean()))
    (listed,) = list_studies(records.folder.parent)
    page = read_study(records.folder)
    assert (listed.done, listed.planned) == (page.ended, page.planned) == (searched + confirmed,) * 2


def test_budget_counts_the_runs_of_all_points(records: StudyRecords) -> None:
    (table,) = make_budget_tables(records)
    counted = {row[0]: row[table.columns.index("confirm runs")] for row in table.rows}
    assert int(counted["all"]) == len(records.confirmed_points) > 16
