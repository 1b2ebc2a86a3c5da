from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.analysis import statistics
from reports.analysis.cross_study import StudentComparison, compare_studies, explain_incomparable
from reports.analysis.unpaired import compare_unpaired
from reports.compare import main, make_report, render_page
from reports.figures.cross_study import make_dot_plot
from reports.load import load_study
from reports.tables.cross_study import make_cells_table, make_labels, summarize_student
from reports.tables.study_differences import ABSENT, find_differences
from tests.reports.fake_study import DKD, NONE, SEARCHED, Writer
from tests.reports.page.test_page import ELEMENTS_THAT_LOAD, HOSTILE, Page

Make = Callable[..., Writer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A study of this name whose trials are its own, its scores by arm shifted and its seeds renumbered."""

    def made(name: str, shift: float = 0.0, seeds_from: int = 1000) -> Writer:
        writer = Writer(tmp_path / name)
        writer.arms = {arm: [value + shift for value in values] for arm, values in writer.arms.items()}
        for row in writer.fill().trials:
            row["trial_id"] = f"{name}-{row['trial_id']}"
            row["seed"] += seeds_from - 1000
        for row in writer.epochs:
            row["trial_id"] = f"{name}-{row['trial_id']}"
        return writer

    return made


def compared(*writers: Writer) -> StudentComparison:
    (student,) = compare_studies([load_study(writer.write()) for writer in writers])
    return student


def row_of(student: StudentComparison, arm: str, study: int = 1) -> Any:
    return next(row for row in student.rows if (row.arm, row.study) == (arm, study))


# -- what is compared, and how -------------------------------------------------------------------------------------


def test_shared_seeds_are_compared_in_pairs_as_within_a_study(make: Make) -> None:
    other = make("b")
    gains = [0.01, 0.02, 0.012, 0.009, 0.015, 0.011, 0.013, 0.018]
    for row in other.trials:
        if row["phase"] == "confirm" and row["arm"] == "DKD":
            row["test/accuracy"] += gains[row["number"]]
    found = row_of(compared(make("a"), other), "DKD")
    oracle = statistics.compare_paired([a + gain for a, gain in zip(DKD, gains, strict=True)], DKD, "max")
    assert (found.difference.kind, found.difference.n) == ("paired", 8)
    assert found.difference.difference == pytest.approx(np.mean(gains))
    assert found.difference.interval.low == pytest.approx(oracle.interval.low if oracle.interval else math.nan)
    assert found.difference.p == pytest.approx(2 / 2**8)
    assert found.verdict == "better"


def test_arms_are_judged_over_all_students_at_once(make: Make) -> None:
    writers = [make("a"), make("b")]
    for writer in writers:
        writer.students = ["resnet8", "resnet20"]
        writer.trials.clear(), writer.epochs.clear()
        writer.fill()
    for number, row in enumerate(writers[1].trials):
        row["trial_id"] = f"b{number:011d}"
        if row["phase"] == "confirm" and row["arm"] == "DKD":
            row["test/accuracy"] += 0.002 if row["student"] == "resnet8" else 0.004
    writers[1].epochs.clear()
    found = make_report([load_study(writer.write()) for writer in writers])
    assert [student.name for student, _, _ in found.students] == ["resnet8", "resnet20", "all students"]
    pooled = row_of(found.students[-1][0], "DKD")
    assert (pooled.difference.kind, pooled.difference.n) == ("paired", 16)
    assert pooled.difference.difference == pytest.approx(0.003)
    assert pooled.difference.p == 2 / 2**16
    assert "all students. " in found.answers[-1]


def test_pairs_are_matched_by_seed_whatever_the_order_of_rows(make: Make) -> None:
    other = make("b", shift=0.01)
    other.trials.reverse()
    assert row_of(compared(make("a"), other), "DKD").difference.sd == pytest.approx(0, abs=1e-12)


def test_only_seeds_that_both_have_are_paired(make: Make) -> None:
    other = make("b")
    other.trials = [row for row in other.trials if row["phase"] != "confirm" or row["number"] < 5]
    assert row_of(compared(make("a"), other), "DKD").difference.n == 5


def test_holm_counts_every_comparison_of_the_table(make: Make) -> None:
    student = compared(make("a"), make("b", shift=0.01), make("c", shift=0.02))
    assert student.comparisons == 6  # three arms, two studies against the first
    assert row_of(student, "DKD", 2).p == pytest.approx(6 * 2 / 2**8)


def test_a_cell_that_is_not_measured_yet_counts_for_holm(make: Make) -> None:
    other = make("b", shift=0.01)
    other.trials = [row for row in other.trials if row["arm"] != "none" or row["phase"] != "confirm"]
    student = compared(make("a"), other)
    assert row_of(student, "none").verdict is None
    assert row_of(student, "DKD").p == pytest.approx(3 * 2 / 2**8)


def test_without_a_shared_seed_the_comparison_is_unpaired(make: Make) -> None:
    found = row_of(compared(make("a"), make("b", shift=0.02, seeds_from=5000)), "DKD")
    assert (found.difference.kind, found.difference.n) == ("unpaired", 8)
    assert found.difference.p == pytest.approx(2 / math.comb(16, 8))  # the two groups do not overlap
    assert (found.verdict, found.seeds_needed) == ("better", None)


def test_equal_trial_ids_are_told_as_a_repetition_and_not_judged(make: Make) -> None:
    one, other = make("a"), make("b", shift=0.01)
    for row, repeated in zip(one.trials, other.trials, strict=True):
        if row["arm"] == "DKD":
            repeated["trial_id"] = row["trial_id"]
    student = compared(one, other)
    found = row_of(student, "DKD")
    assert (found.difference.kind, found.verdict, found.p) == ("repeated", None, None)
    assert student.comparisons == 2


def test_a_lower_error_is_better_where_less_is_better(make: Make) -> None:
    writers = make("a"), make("b", shift=-0.01)
    for writer in writers:
        writer.study |= {"direction": "min", "metrics": {"test/accuracy": "min"}}
    assert row_of(compared(*writers), "DKD").verdict == "better"


def test_each_arm_is_compared_with_the_first_study_that_has_it(make: Make) -> None:
    first = make("a")
    del first.arms["DKD"]
    first.versus["DKD + LP searched"] = ["none"]
    first.trials = [row for row in first.trials if row["arm"] != "DKD"]
    student = compared(first, make("b"), make("c", shift=0.01))
    assert [(row.study, row.versus) for row in student.rows if row.arm == "DKD"] == [(1, None), (2, 1)]


def test_studies_without_a_common_cell_have_no_table(make: Make) -> None:
    other = make("b")
    other.students = ["resnet14"]
    studies = [load_study(make("a").write()), load_study(other.write())]
    assert compare_studies(studies) == ()
    assert "No two of these studies have a cell in common." in Page(render_page(make_report(studies))).text


# -- what must not be compared -------------------------------------------------------------------------------------


def _other_data(study: dict[str, Any]) -> None:
    study["inputs"]["data"]["fingerprint"] = "0000000000000000"


def _no_data(study: dict[str, Any]) -> None:
    del study["inputs"]["data"]["fingerprint"]


def _other_protocol(study: dict[str, Any]) -> None:
    study["protocol"] = "P1"


def _other_training_part(study: dict[str, Any]) -> None:
    study["confirm_on"] = "train"


def _other_metric(study: dict[str, Any]) -> None:
    study |= {"test_metric": "test/f1", "metrics": study["metrics"] | {"test/f1": "max"}}


def _other_net(study: dict[str, Any]) -> None:
    study["students"] = {"resnet8": {"parameters": 99}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_data, "other data"),
        (_no_data, "other data"),
        (_other_protocol, "another protocol"),
        (_other_training_part, "trained on another part"),
        (_other_metric, "another metric"),
        (_other_net, "another net"),
    ],
)
def test_what_is_not_comparable_gets_no_difference_and_no_verdict(
    make: Make, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    other = make("b", shift=0.02)
    change(other.study)
    student = compared(make("a"), other)
    found = row_of(student, "DKD")
    assert reason in found.incomparable
    assert (found.difference, found.p, found.verdict, student.comparisons) == (None, None, None, 0)
    assert make_dot_plot(student, ("a", "b")) is None
    table = make_cells_table(student, ("a", "b"))
    assert [row[7] for row in table.rows if row[1] == "b"] == ["not comparable"] * 3
    assert any(note.startswith("b is not comparable with a: ") and reason in note for note in table.notes)
    assert summarize_student(student, ("a", "b")) == "resnet8. b against a: not comparable under all 3 arms."


def test_two_studies_that_do_not_say_which_data_they_used_are_not_compared(make: Make) -> None:
    writers = make("a"), make("b")
    for writer in writers:
        _no_data(writer.study)
    assert explain_incomparable(*(load_study(writer.write()) for writer in writers)) == [
        "it is not on record which data they used"
    ]


@pytest.mark.parametrize(("seeds", "first_seed", "said"), [
    (3, 1000, "3 seeds cannot decide: "),
    (3, 5000, "Unpaired, this few runs give no p below 0.1, 0.3 after correction: undecided."),
    (7, 1000, ""),  # 2/2⁷ · 3 < 0.05
    (5, 5000, ""),  # 2/C(10, 5) · 3 < 0.05
])  # fmt: skip
def test_a_note_says_where_runs_are_too_few_to_decide(make: Make, seeds: int, first_seed: int, said: str) -> None:
    writers = make("a"), make("b", shift=0.01, seeds_from=first_seed)
    for writer in writers:
        writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] < seeds]
    student = compared(*writers)
    notes = [
        note for note in make_cells_table(student, ("a", "b")).notes if "cannot decide" in note or "this few" in note
    ]
    assert [note[: len(said)] for note in notes] == [said] * bool(said)
    if said:
        assert {row.verdict for row in student.rows} == {None, "undecided"}


# -- the unpaired test ---------------------------------------------------------------------------------------------


def by_hand(a: list[float], b: list[float]) -> float:
    """The permutation test, counted out."""
    both, seen = np.array([*a, *b]), abs(np.mean(a) - np.mean(b))
    dealt = [list(chosen) for chosen in combinations(range(len(both)), len(a))]
    apart = [abs(both[chosen].mean() - np.delete(both, chosen).mean()) for chosen in dealt]
    return float(np.mean([value >= seen - 1e-12 for value in apart]))


@settings(deadline=None)  # a busy machine is slower than the default deadline
@example([17, 5, 18, 13, 17, 3, 15, 18])  # equal means, which sums in another order tell apart
@given(st.lists(st.integers(0, 20), min_size=8, max_size=8))
def test_unpaired_p_is_the_share_of_deals_at_least_as_far_apart(values: list[int]) -> None:
    a, b = [value / 7 for value in values[:4]], [value / 7 for value in values[4:]]
    assert compare_unpaired(a, b).p == pytest.approx(by_hand(a, b))


def test_unpaired_interval_is_welchs() -> None:
    a, b = SEARCHED, NONE[:5]
    x, y = np.array(a), np.array(b)
    parts = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    found = compare_unpaired(a, b)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (found.difference - half, found.difference + half)
    )


def test_unpaired_of_single_runs_decides_nothing() -> None:
    assert (compare_unpaired([1.0], [2.0, 3.0]).p, compare_unpaired([1.0], [2.0, 3.0]).interval) == (1.0, None)


def test_unpaired_runs_that_float32_rounds_in_different_ways_are_ties() -> None:
    assert compare_unpaired([30.000002] * 6, [30.0] * 6).p == 1.0
    assert compare_unpaired([1e-20] * 6, [0.0] * 6).p == 1.0
    assert compare_unpaired([1e-20] * 6, [0.0] * 6, resolution=0.0).p < 0.01


def test_unpaired_of_equal_values_has_an_interval_without_width() -> None:
    found = compare_unpaired([2.0, 2.0], [1.0, 1.0])
    assert found.interval is not None
    assert found.interval.low == found.interval.high == 1.0


# -- differences of settings ---------------------------------------------------------------------------------------


def test_varying_names_each_differing_leaf_and_matches_arms_by_name() -> None:
    one = {"is": "Study", "arms": [{"name": "KD", "t": 4.0}, {"name": "DKD", "b": 8}], "seed": 0}
    other = {"is": "Study", "arms": [{"name": "DKD", "b": 2}, {"name": "new", "x": 1}], "seed": 0}
    assert dict(find_differences([one, other])) == {
        "arms.KD": [{"t": 4.0}, ABSENT],
        "arms.DKD.b": [8, 2],
        "arms.new": [ABSENT, {"x": 1}],
    }


def test_varying_does_not_look_inside_things_of_different_kinds() -> None:
    one, other = {"loss": {"is": "KD", "t": 4}}, {"loss": {"is": "DKD", "t": 4}}
    assert list(find_differences([one, other])) == [("loss", [one["loss"], other["loss"]])]


def test_varying_of_equal_descriptions_is_empty() -> None:
    assert list(find_differences([{"a": [1, {"b": 2}]}] * 3)) == []


def test_page_shows_what_differs(make: Make) -> None:
    other = make("b", shift=0.01)
    other.study["study"]["arms"][1]["loss"]["temperature"] = 7.5
    other.study["teacher"]["fingerprint"] = "teacher-of-b"
    other.study["provenance"]["versions"]["torch"] = "9.9.9"
    other.study["budget"]["epochs"] = 80
    found = make_report([load_study(make("a").write()), load_study(other.write())])
    text = Page(render_page(found)).text
    for part in ("arms.DKD.loss.temperature", "7.5", "teacher-of-b", "versions.torch", "9.9.9"):
        assert part in text
    assert found.differences == (
        "What differs: epochs 8 and 80; settings (1 entry below); data and teacher (1 entry below); "
        "code, versions and machine (1 entry below)."
    )


def test_page_of_studies_that_differ_in_nothing_says_so(make: Make) -> None:
    found = make_report([load_study(make("a").write()), load_study(make("b").write())])
    assert found.differences == "What differs: nothing that is recorded."
    assert "No setting differs." in Page(render_page(found)).text


def test_page_names_cells_that_only_one_study_has(make: Make) -> None:
    other = make("b")
    other.arms["KD"], other.versus["KD"] = [], []
    found = make_report([load_study(make("a").write()), load_study(other.write())])
    assert found.unshared == ("Only in b: resnet8 / KD.",)


# -- page and command ----------------------------------------------------------------------------------------------


def test_page_loads_nothing_and_runs_nothing(make: Make) -> None:
    parsed = Page(render_page(make_report([load_study(make("a").write()), load_study(make("b", shift=0.01).write())])))
    assert not {tag for tag, _ in parsed.elements} & (ELEMENTS_THAT_LOAD | {"script"})
    assert not [attributes for _, attributes in parsed.elements if "src" in attributes]
    (policy,) = (a["content"] or "" for tag, a in parsed.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src")
    assert "script-src" not in policy
    ids = {attributes.get("id") for _, attributes in parsed.elements}
    links = [str(attributes["href"]) for tag, attributes in parsed.elements if tag == "a"]
    assert all(link.removeprefix("#") in ids for link in links)


def test_strip_puts_every_run_on_the_axis_in_order(make: Make) -> None:
    drawn = make_dot_plot(compared(make("a"), make("b", shift=0.01)), ("a", "b"))
    assert drawn is not None
    places = [place for line in drawn.lines for place in line.dots]
    values = [value for arm in (NONE, DKD, SEARCHED) for shift in (0, 0.01) for value in (x + shift for x in arm)]
    assert min(places) >= 0
    assert max(places) <= 100
    assert np.argsort(places, kind="stable").tolist() == np.argsort(np.round(values, 9), kind="stable").tolist()
    (low, text), *_, (high, last) = drawn.ticks
    slope = (high - low) / (float(last) - float(text))  # a tick of 94 % lies where a run of 0.94 would
    assert low + slope * (100 * NONE[0] - float(text)) == pytest.approx(drawn.lines[0].dots[0])


def test_page_keeps_hostile_text_as_text(make: Make) -> None:
    def written(text: str) -> Page:
        writers = make("a"), make("b", shift=0.01)
        for number, writer in enumerate(writers):
            writer.arms = {text if arm == "DKD" else arm: values for arm, values in writer.arms.items()}
            writer.versus = {text: "none"}
            writer.study |= {"name": f"{text}{number}", "question": text}
            writer.study["study"]["arms"][1] |= {"name": text, "loss": f"{text}{number}"}
            writer.study["provenance"]["command"] = text
            for row in writer.trials:
                row["arm"] = text if row["arm"] == "DKD" else row["arm"]
                row["cell"] = f"{row['student']} / {row['arm']}"
        return Page(render_page(make_report([load_study(writer.write()) for writer in writers])))

    calm, hostile = written("calm"), written(HOSTILE)
    tags = [
        [tag for tag, _ in page.elements if tag != "wbr"] for page in (hostile, calm)
    ]  # names of settings may break
    assert tags[0] == tags[1]
    assert hostile.text.count(HOSTILE) > 8


def test_labels_tell_equal_names_apart() -> None:
    assert make_labels(["x", "y"]) == ("x", "y")
    assert make_labels(["x", "x"]) == ("1: x", "2: x")
    assert len(set(make_labels(["x" * 300 + end + "x" * 300 for end in "ab"]))) == 2


def test_command_writes_the_page_and_prints_the_tables(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a").write()
    make("b", shift=0.01).write()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["a", str(tmp_path / "b"), "--storage-path", "."])
    assert result.exit_code == 0, result.output
    assert "8 shared seeds" in result.output
    assert "better" in result.output
    assert max(map(len, result.output.splitlines())) <= 110
    assert Page((tmp_path / "compare.html").read_text(encoding="utf-8")).text.count("better") >= 3
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("given_names", [["a"], ["a", "nowhere"], ["a", "a"], ["a", "empty"], ["a", "broken"]])
def test_command_ends_with_one_line_on_bad_input(make: Make, tmp_path: Path, given_names: list[str]) -> None:
    make("a").write()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    out = tmp_path / "page.html"
    result = CliRunner().invoke(main, [*given_names, "--storage-path", str(tmp_path), "--out", str(out)])
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert result.output.startswith("error: ")
    assert not out.exists()


def test_barest_studies_are_shown_and_not_compared(make: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (make(name).write() / "study.json").write_text("{}")
    result = CliRunner().invoke(main, ["a", "b", "--storage-path", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert "it is not on record which data they used" in " ".join(result.output.split())


def test_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reports.compare", "--help"], capture_output=True, text=True, check=True
    )
    assert "Compare two or more studies" in done.stdout
