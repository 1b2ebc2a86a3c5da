"""Space files: profiles, overrides from the command line, and mistakes reported in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cifar_profiles
import pytest

from study import Study
from study.cli.resume import encode_source
from study.errors import InputError
from study.identity import describe, find_differences
from study.preflight import check_inputs
from study.space_file import (
    TEMPLATE,
    load_space,
    resolve_space,
    write_new_space,
)
from trainables.tasks.simulated import Simulated

SPACE = """
from study import Arm, Budget, Study
from trainables import Extra, Simulated, SimulatedLoss, SimulatedStudent

def small(data_dir):
    return Study("s", "?", Simulated(), (SimulatedStudent(),), (Arm("a", SimulatedLoss(), baseline=True),),
                 Budget(1, 2, 3), protocol="P1")

study = {"small": small, "broken": lambda data_dir: 5}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.py"
    path.write_text(SPACE)
    return path


def test_first_profile_is_the_default(space: Path) -> None:
    loaded = load_space(space, None, None)
    assert (loaded.profile, loaded.study.name) == ("small", "s")
    assert loaded.source == SPACE
    space.write_text(SPACE + "study['made'] = study['small'](None)\n")
    assert load_space(space, "made", None).study.name == "s"


def test_edit_of_equal_size_and_time_is_seen(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    read = space.stat()
    assert load_space(space, None, None).study.budget.seeds == 3
    space.write_text(SPACE.replace("Budget(1, 2, 3)", "Budget(1, 2, 4)"))
    os.utime(space, ns=(read.st_atime_ns, read.st_mtime_ns))
    assert load_space(space, None, None).study.budget.seeds == 4


@pytest.mark.parametrize(
    ("content", "profile", "message"),
    [
        (SPACE, "large", "unknown profile 'large'; .* has: small, broken"),
        (SPACE, "broken", "is or returns int; allowed are a Study, and a function that returns one"),
        ("x = 1", None, "defines no `study`"),
        ("study = 5", None, "`study` in .* is int"),
        ("def (", None, "not valid Python: .*, line 1"),
        ("x = 1\0", None, r"space\.py is not valid Python: source code string cannot contain null bytes$"),
        ("import sys; sys.exit()\n" + SPACE, None, "line 1: SystemExit"),
        ("raise ValueError('one\\n\\n  two\\n')", None, "line 1: ValueError: one; two$"),
        (SPACE + "\nstudy = small(None)", "small", "has no profiles"),
    ],
)
def test_bad_space_file_is_refused(space: Path, content: str, profile: str | None, message: str) -> None:
    space.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_space(space, profile, None)
    assert "\n" not in str(error.value)


def test_comment_that_cannot_be_decoded_is_refused(space: Path) -> None:
    space.write_bytes(SPACE.encode() + b"# caf\xe9\n")
    with pytest.raises(InputError, match=r"space\.py is not UTF-8: save it"):
        load_space(space, None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('protocol="P1"', 'readings=("Rounded down.",)', r"line \d+: .*'readings'; it is now called 'assumptions'"),
        ("import Extra", "import Poly, Extra", r"line \d+: .*'Poly'.*; it is now called 'Polynomial'"),
    ],
)
def test_renamed_word_in_a_space_file_is_refused_with_the_new_one(
    space: Path, old: str, new: str, message: str
) -> None:
    space.write_text(SPACE.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_space(space, None, None)


def test_missing_space_file_is_refused_with_its_neighbours(space: Path) -> None:
    with pytest.raises(InputError, match=r"no space file .*missing\.py; there are: .*space\.py"):
        load_space(space.parent / "missing.py", None, None)


OWN_LOSS = """
from dataclasses import dataclass
from trainables import SimulatedLoss

@dataclass(frozen=True)
class Mine(SimulatedLoss):
    def boost(self):
        return BOOST
"""


def test_class_written_in_a_space_file_is_known_by_its_text(space: Path) -> None:
    def loaded(boost: str) -> Any:
        space.write_text(
            OWN_LOSS.replace("BOOST", boost) + SPACE.replace('Arm("a", SimulatedLoss()', 'Arm("a", Mine()')
        )
        return describe(load_space(space, None, None).study)

    assert loaded("1") == loaded("1")
    assert [line.split(":")[0] for line in find_differences(loaded("1"), loaded("5"))] == ["arms[0].loss.source"]


def test_a_task_without_a_teachers_file_refuses_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the teacher of this task is simulated; leave out --teacher"):
        Simulated().with_teacher_file(tmp_path / "teacher.pth")


SPACES = sorted(set((Path(__file__).parents[2] / "spaces").glob("*.py")) - {Path(cifar_profiles.__file__)})


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_file_asks_its_question_first_and_loads_with_every_profile(path: Path) -> None:
    space = load_space(path, None, Path("/nowhere"))
    assert (space.module.__doc__ or "").splitlines()[0] == space.study.question
    for profile in space.module.study if isinstance(space.module.study, dict) else [None]:
        study = load_space(path, profile, Path("/nowhere")).study
        assert isinstance(study, Study)
        assert study.question.endswith("?")


def example_of_a_loss() -> str:
    """Return the space file with a loss of one's own in docs/extending.md, which tests/docs/test_extending.py runs."""
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    return next(block.split("```")[0] for block in text.split("```python\n")[1:] if "class LogitMse" in block)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("KD(temprature=4)", r"mse\.py, line \d+: TypeError: .*'temprature'"),
        ("LogitMse(weight='0.5')", r"LogitMse raises AttributeError on outputs of the student \(2, 10\) and"),
        ("Whole()", r"Whole returns a tensor of shape \(2, 10\); allowed is a scalar"),
        ("Raises()", r"Raises raises ValueError on outputs of the student .* teacher \(2, 10\): shapes differ"),
        ("NoWeight()", "NoWeight has no 'task_weight': see docs/extending.md"),
        ("Unknown()", r"mse\.py, line \d+: NameError"),
    ],
)
def test_mistake_in_an_own_loss_is_one_line(tmp_path: Path, mistake: str, message: str) -> None:
    own = """
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.logits.kd import KD

class Whole(LogitMse):
    def __call__(self, student, teacher, targets, progress):
        return student.prediction

class Raises(LogitMse):
    def __call__(self, student, teacher, targets, progress):
        raise ValueError("shapes differ")

@dataclass(frozen=True)
class NoWeight:
    needs_teacher: ClassVar[bool] = True

study = Study("""
    text = (
        example_of_a_loss().replace("\nstudy = Study(", own).replace("LogitMse(weight=log_uniform(0.01, 1))", mistake)
    )
    (tmp_path / "mse.py").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        check_inputs(load_space(tmp_path / "mse.py", None, None).study, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("", "utf-8"),
        ("# -*- coding: latin-1 -*-\n", "latin-1"),
        ("# vim: set fileencoding=cp1252 :\n", "cp1252"),
        ("#!/usr/bin/python\n# coding: iso-8859-15\n", "iso-8859-15"),
        ("", "utf-8-sig"),
        ("# coding: utf-8\n", "utf-8-sig"),
        ("# coding: utf_8\r\n", "utf-8"),
    ],
)
def test_any_encoding_that_python_reads_is_read_alike_and_written_back(space: Path, head: str, encoding: str) -> None:
    text = head + SPACE.replace('"?"', '"Größer?"')
    space.write_bytes(text.encode(encoding))
    loaded = load_space(space, None, None)
    assert loaded.study.question == "Größer?"
    assert loaded.source == text.replace("\r\n", "\n")
    assert encode_source(loaded.source) == loaded.source.encode(encoding.removesuffix("-sig"))


@pytest.mark.parametrize("content", [b"x = '\xe9'", b"# coding: nonsense\nx = 1", b"x = 1\0"])
def test_file_that_python_cannot_decode_is_refused_in_one_line(space: Path, content: bytes) -> None:
    space.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_space(space, None, None)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name", ["café.py", "a [1] (copy).py", "-dash.py", "x" * 200 + ".py", "two\nlines.py", "%s {}.py", "数.py"]
)
def test_any_file_name_is_a_space_file(space: Path, name: str) -> None:
    other = space.with_name(name)
    other.write_text(SPACE)
    assert load_space(other, None, None).study.name == "s"


def test_studies_that_come_with_it_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_space(Path("lp_cifar")) == SPACES[0].parent / "lp_cifar.py"
    assert load_space(Path("lp_cifar"), None, None).study.name == "lp_cifar"
    (tmp_path / "lp_cifar").write_text("")  # a file of one's own has precedence
    assert resolve_space(Path("lp_cifar")) == Path("lp_cifar")
    with pytest.raises(InputError, match=r"^no space file lp_cifr; its folder has none; and by name: .*lp_cifar"):
        resolve_space(Path("lp_cifr"))


def test_new_space_is_the_commented_study_under_its_own_name(tmp_path: Path) -> None:
    path = write_new_space(tmp_path / "spaces" / "mine")
    assert path == tmp_path / "spaces" / "mine.py"
    study = load_space(path, None, None).study
    assert study.name == "mine"
    assert study.arms == load_space(Path(TEMPLATE), None, None).study.arms
    assert TEMPLATE not in path.read_text()
    path.write_text("mine")
    with pytest.raises(InputError, match=r"mine\.py exists and is not overwritten: give another name$"):
        write_new_space(path)
    assert path.read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(File exists\): give another place$"):
        write_new_space(tmp_path / "file" / "mine")
