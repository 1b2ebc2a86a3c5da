"""What nets take: the table, and test scores against it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.analysis.costs import Net, ScoredNet, find_cost_front, score_nets
from reports.build import build
from reports.figures.costs import draw_costs
from reports.format.values import format_count, format_milliseconds
from reports.load import load_study
from reports.tables.costs import make_tables
from tests.reports.fake_study import DKD, NONE, Writer

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


def test_table_lists_teacher_and_students_with_sizes_as_people_read_them(costed: Path) -> None:
    (table,) = make_tables(load_study(costed))
    assert table.rows == (
        ("teacher: resnet20", "272,474", "5.00 G", "12000", "1.20 to 12.1 in 1 pass"),
        ("resnet8", "78,042", "12.3 M", "1.23", "1.20 to 12.1 in 100 passes"),
        ("resnet20", "272,474", "2.50 G", "12000", "1.20 to 12.1 in 1 pass"),
    )
    assert "one input, 3 × 32 × 32 (channels" in table.notes[0]
    assert "one thread of A CPU <1>." in table.notes[0]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (999.0, "999"), (1000, "1.00 k"), (99_960, "100 k"), (999_999, "1.00 M"), (253_170_000, "253 M")],
)
def test_counts_have_three_digits_and_a_prefix(value: float | None, said: str) -> None:
    assert format_count(value) == said


def test_times_below_a_millisecond_keep_their_digits() -> None:
    assert [format_milliseconds(value) for value in (0.0000123, 0.00123, 1.5, None)] == ["0.0123", "1.23", "1500", "–"]


def test_page_shows_nets_and_a_figure_for_each_cost(costed: Path) -> None:
    page = build(costed).read_text(encoding="utf-8")
    section = page.split('<section id="nets">')[1].split("</section>")[0]
    assert "A CPU &lt;1&gt;" in section
    assert section.count('class="data"') == 3
    assert (costed / "tables" / "nets.csv").is_file()


def test_study_recorded_without_costs_has_no_such_section(study: Path) -> None:
    assert make_tables(load_study(study)) == []
    assert draw_costs(load_study(study)) == []
    assert 'id="nets"' not in build(study).read_text(encoding="utf-8")
    assert not (study / "tables" / "nets.csv").exists()


def test_damaged_costs_are_left_out_and_the_rest_is_shown(writer: Writer) -> None:
    broken = {"parameters": "many", "macs": None, "latency_seconds": float("nan"), "latency_range_seconds": 3}
    writer.students = ["resnet8", "resnet20"]
    writer.study["students"] = {"resnet8": SMALL, "resnet20": broken}
    records = load_study(writer.fill().write())
    (table,) = make_tables(records)
    assert table.rows[-1] == ("resnet20", "–", "–", "–", "–")
    assert {len(drawn.figure.data[1].x) for drawn in draw_costs(records)} <= {1}


def test_cells_stand_at_their_students_cost_with_their_mean_scores(costed: Path) -> None:
    records = load_study(costed)
    found = {(one.net.name, one.arm): one for one in score_nets(records) if not one.net.is_teacher}
    assert len(found) == 2 * 3
    assert found["resnet8", "DKD"].score == pytest.approx(100 * np.mean(DKD))
    assert found["resnet20", "none"].score == pytest.approx(100 * np.mean(NONE))
    by_macs = next(drawn for drawn in draw_costs(records) if drawn.name == "cost-macs").figure
    arm = next(trace for trace in by_macs.data if trace.name == "DKD")
    assert (list(arm.x), by_macs.layout.xaxis.type) == ([12345700.0, 2.5e9], "log")
    teacher = next(trace for trace in by_macs.data if trace.name == "teacher")
    assert (teacher.x[0], teacher.y[0]) == (5e9, pytest.approx(96.99))


def test_one_net_alone_has_no_figure(writer: Writer) -> None:
    writer.study["students"] = {"resnet8": copy.deepcopy(SMALL)}
    writer.study["teacher"] = {"name": "resnet20", "metrics": {}}
    assert draw_costs(load_study(writer.fill().write())) == []


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=10), st.sampled_from(["max", "min"])
)
def test_front_is_what_nothing_surpasses_at_no_higher_cost(points: list[tuple[int, int]], direction: str) -> None:
    data = [ScoredNet(Net("x", False, {"macs": cost}), "a", 0, float(score), 0.0) for cost, score in points]
    sign = 1 if direction == "max" else -1
    expected = sorted(
        (cost, score)
        for cost, score in points
        if not any(c <= cost and sign * s >= sign * score and (c, s) != (cost, score) for c, s in points)
    )
    found = [(one.net.get_cost("macs"), one.score) for one in find_cost_front(data, "macs", direction)]
    assert found == expected
