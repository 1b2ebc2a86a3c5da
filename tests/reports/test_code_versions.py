"""Runs of different code are not averaged into a verdict, and studies of schema 1 are shown as ever."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reports.analysis.comparison import compare_arms, to_dataframe
from reports.build import build
from reports.compare import make_report, render_text
from reports.load import StudyRecords, load_study
from reports.tables.comparison import make_comparison_table
from reports.tables.terminal import format_comparisons
from reports.text.summary import describe_code_versions, list_problems, summarize_comparison
from tests.reports.fake_study import CODE, Writer
from tests.study.schema_1 import downgrade

OTHER = "beef" * 4
NOT_JUDGED = "not judged: trials of two code versions"


def mixed_arm(student: str, arm: str, phase: str, number: int) -> str:
    """Half of the DKD runs are of other code."""
    return OTHER if (arm, phase) == ("DKD", "confirm") and number >= 4 else CODE


def other_arm(student: str, arm: str, phase: str, number: int) -> str:
    """Each arm is of one version, DKD of another one."""
    return OTHER if (arm, phase) == ("DKD", "confirm") else CODE


def written(writer: Writer) -> Path:
    writer.study["code"] = {
        CODE: {"space file": "ab" * 8, "helper.py": "01" * 8, "trainables/distill.py": "cd" * 8},
        OTHER: {"space file": "ef" * 8, "helper.py": "02" * 8, "trainables/distill.py": "cd" * 8},
    }
    return writer.fill().write()


@pytest.fixture(params=[mixed_arm, other_arm])
def records(writer: Writer, request: pytest.FixtureRequest) -> StudyRecords:
    """Three arms, of which DKD is compared with one and another is compared with DKD."""
    writer.code = request.param
    return load_study(written(writer))


def test_no_comparison_of_different_code_has_a_difference_p_or_verdict(records: StudyRecords) -> None:
    (comparison,) = compare_arms(records)
    assert [contrast.arm for contrast in comparison.contrasts] == ["DKD", "DKD + LP searched"]
    for found in comparison.contrasts:
        judged = (found.paired, found.p, found.verdict, found.differences, found.seeds_needed)
        assert judged == (None, None, None, (), None)
        assert found.not_judged == "trials of two code versions"
    written = to_dataframe((comparison,)).set_index("arm")
    assert list(written["verdict"].loc[["DKD", "DKD + LP searched"]]) == [NOT_JUDGED] * 2
    assert written[["difference", "difference_low", "difference_high", "p", "p_holm"]].isna().all(axis=None)


def test_terminal_page_and_files_explain_it_in_a_footnote(records: StudyRecords) -> None:
    page = build(records.folder).read_text()
    tables = records.folder / "tables"
    shown = format_comparisons(records.folder, 200)
    for text in (shown, page, *((tables / f"comparison.{ending}").read_text() for ending in ("csv", "tex", "md"))):
        assert NOT_JUDGED in text
        assert "worse than" not in text
        assert "better than" not in text
    for text in (shown, page, (tables / "comparison.tex").read_text()):
        assert "a difference may come from the code instead of the arm" in " ".join(text.split())
    assert f"is {NOT_JUDGED}." in summarize_comparison(compare_arms(records)[0])


def test_mean_over_different_code_is_named_and_only_that(writer: Writer) -> None:
    writer.code = mixed_arm
    (comparison,) = compare_arms(load_study(written(writer)))
    notes = " ".join(make_comparison_table(comparison).notes)
    assert "The mean of DKD is over runs of different code and belongs to no version." in notes


def test_one_line_says_which_rows_are_of_which_code_and_what_changed(records: StudyRecords) -> None:
    (line,) = (line for line in list_problems(records) if "Code changed" in line)
    counts = records.trials[records.trials["code"] == OTHER]["phase"].value_counts()
    assert f"{CODE} (16 search and {24 - counts['confirm']} confirm)" in line.replace(
        f"{24 - counts['confirm']} confirm and 16 search", f"16 search and {24 - counts['confirm']} confirm"
    )
    assert f"{OTHER} ({counts['confirm']} confirm)" in line
    assert "(lp_cifar.py and helper.py)" in line
    assert "\n" not in line


def test_superseded_runs_of_other_code_mix_nothing(writer: Writer) -> None:
    writer.code = mixed_arm
    folder = written(writer)
    for row in writer.trials:
        if row["code"] == OTHER:
            row["state"] = "SUPERSEDED"
    records = load_study(Writer.write(writer) if folder else folder)
    (comparison,) = compare_arms(records)
    assert not any(contrast.not_judged for contrast in comparison.contrasts)
    assert describe_code_versions(records) is None


def test_run_that_was_trained_by_two_versions_is_not_judged(writer: Writer) -> None:
    writer.code = lambda student, arm, phase, number: f"{CODE}+{OTHER}" if arm == "DKD" and number == 0 else CODE
    (comparison,) = compare_arms(load_study(written(writer)))
    assert [contrast.arm for contrast in comparison.contrasts if contrast.not_judged] == ["DKD", "DKD + LP searched"]


def test_studies_side_by_side_judge_no_arm_that_is_mixed_within_one(tmp_path: Path) -> None:
    one, other = Writer(tmp_path / "a"), Writer(tmp_path / "b")
    other.code = mixed_arm
    found = make_report([load_study(written(one)), load_study(written(other))])
    ((student, table, _),) = found.students
    verdicts = {(row.arm, row.study): row.not_judged for row in student.rows}
    assert [key for key, why in verdicts.items() if why] == [("DKD", 1)]
    assert "not judged (trials of two code versions) under “DKD”" in found.answers[0]
    assert NOT_JUDGED in render_text(found, 250)
    assert any("their mean belongs to no version" in note for note in table.notes)


def test_studies_of_two_versions_each_are_judged_and_the_version_is_listed(tmp_path: Path) -> None:
    one, other = Writer(tmp_path / "a"), Writer(tmp_path / "b")
    other.code = lambda *_: OTHER
    for writer, code in ((one, CODE), (other, OTHER)):
        writer.study["code"] = {code: {"space file": code, "trainables/distill.py": code}}
        for row in writer.fill().trials:
            row["trial_id"] = f"{writer.folder.name}-{row['trial_id']}"
        writer.epochs = []
    found = make_report([load_study(writer.write()) for writer in (one, other)])
    ((student, _, _),) = found.students
    assert all(row.verdict for row in student.rows if row.versus is not None)
    versions = next(section.table for section in found.sections if section.id == "versions")
    assert any(row[0] == "code of kdstudy" for row in versions.rows)


def test_study_of_schema_1_is_reported_and_compared_as_before(tmp_path: Path) -> None:
    now, old = (Writer(tmp_path / name).fill().write() for name in ("now", "old"))
    expected = to_dataframe(compare_arms(load_study(old)))
    downgrade(old)
    records = load_study(old)
    assert records.warnings == ()
    pd.testing.assert_frame_equal(to_dataframe(compare_arms(records)), expected)
    assert describe_code_versions(records) is None
    assert build(old).is_file()
    assert make_report([load_study(now), records]).students
