"""The command `reports.compare`, its page and its answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from reports.analysis.cross_study import compare_studies
from reports.compare import main, make_report, render_page
from reports.load import load_study
from reports.tables.cross_study import make_labels
from tests.reports.analysis.test_cross_study import row_of
from tests.reports.fake_study import Writer
from tests.reports.page.test_page import ELEMENTS_THAT_LOAD, HOSTILE, Page

Make = Callable[..., Writer]


def test_studies_without_a_common_cell_have_no_table(make: Make) -> None:
    other = make("b")
    other.students = ["resnet14"]
    studies = [load_study(make("a").write()), load_study(other.write())]
    assert compare_studies(studies) == ()
    assert "No two of these studies have a cell in common." in Page(render_page(make_report(studies))).text


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
    assert (pooled.kind, pooled.difference.n) == ("paired", 16)
    assert pooled.difference.difference == pytest.approx(0.003)
    assert pooled.difference.p == 2 / 2**16
    assert "all students. " in found.answers[-1]


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
