"""That a study continues with other code only if that is allowed, and which edits are none."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study import code_version, driver
from study.code_version import (
    read_package,
)
from study.engine.coordinator import Coordinator
from study.errors import InputError
from study.preflight import DriverOptions
from study.records.parquet_table import RecordsError
from study.records.study_json import read_study, write_study
from study.space_file import load_space
from tests.study import toy
from tests.study.schema_1 import downgrade

pytestmark = pytest.mark.usefixtures("own_path")


SPACE = '''
from dataclasses import dataclass
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent
from helper import bonus

def factor(): return 1.0

@dataclass(frozen=True)
class Mine(SimulatedLoss):
    """A loss of my own."""
    @property
    def score(self): return super().score + bonus() * factor()

study = Study(name="hf", question="q?", task=Simulated(teacher_epochs=0), students=(SimulatedStudent(),),
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True), Arm("mine", Mine())),
    budget=Budget(trials=1, epochs=2, seeds=SEEDS))
'''


class Runs:
    """A space file with a helper beside it, run in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.space, self.helper = folder, folder / "hf.py", folder / "helper.py"
        self.study = folder / "runs" / "hf"
        self.space.write_text(SPACE.replace("SEEDS", "3"))
        self.helper.write_text("def bonus(): return 0.05  # as found by hand\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(driver, "_train", self._train)
        self.rows: int | None = None
        """Epochs after which a run is cut off."""

    def edit(self, path: Path, old: str, new: str) -> None:
        assert old in path.read_text()
        changed = path.stat().st_mtime + 2  # as by hand: compiled helpers are known by size and whole seconds
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, (changed, changed))

    def run(self, allowed: bool = False) -> str:
        """What the run prints."""
        sys.modules.pop("helper", None)
        space = load_space(self.space, None, None)
        lines = Console(record=True, width=1000, file=io.StringIO())
        place = DriverOptions(self.folder / "runs", allow_code_change=allowed)
        driver.drive(space.study, space, {"data": {"fingerprint": "x"}}, place, "python -m study.run hf.py", lines)
        return lines.export_text()

    def codes(self) -> dict[str, list[str]]:
        """By arm, the version of the code of each confirm row, by number."""
        trials = toy.Records(self.study, {"test/accuracy"}).trials.read_rows()
        rows = sorted((row for row in trials if row["phase"] == "confirm"), key=lambda row: int(row["number"]))
        return {arm: [row["code"] for row in rows if row["arm"] == arm] for arm in ("plain", "mine")}

    def _train(self, coordinator: Coordinator, *given: Any) -> str:
        write_study(self.study, given[-1])
        toy.drive(coordinator, self.folder / "runs", self.rows)
        coordinator.interrupt("cut off")
        return ""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests_once: None) -> Runs:
    return Runs(tmp_path, monkeypatch)


Edit = Callable[[Runs, pytest.MonkeyPatch], None]


def edit_function(runs: Runs, _: pytest.MonkeyPatch) -> None:
    runs.edit(runs.space, "return 1.0", "return -1.0")


def edit_class(runs: Runs, _: pytest.MonkeyPatch) -> None:
    runs.edit(runs.space, "+ bonus", "- bonus")


def edit_helper(runs: Runs, _: pytest.MonkeyPatch) -> None:
    runs.edit(runs.helper, "0.05", "-0.5")


def edit_package(_: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def edited(package: str) -> dict[str, bytes]:
        return read_package(package) | ({"trainables/tasks/simulated.py": b"0"} if package == "trainables" else {})

    monkeypatch.setattr(code_version, "read_package", edited)


EDITS = [
    pytest.param(edit_function, "hf.py", marks=pytest.mark.slow),
    pytest.param(edit_class, "hf.py", marks=pytest.mark.slow),
    (edit_helper, "helper.py"),
    (edit_package, "trainables/tasks/simulated.py"),
]


@pytest.mark.parametrize(("edit", "named"), EDITS)
def test_other_code_is_refused_by_file_and_goes_on_if_allowed(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, edit: Edit, named: str
) -> None:
    runs.run()
    (old,) = {code for codes in runs.codes().values() for code in codes}
    assert old in read_study(runs.study)["code"]
    before = runs.codes()
    edit(runs, monkeypatch)
    runs.edit(runs.space, "seeds=3", "seeds=6")
    with pytest.raises(InputError, match=f"^{named} changed since the last run of .*--allow-code-change") as refused:
        runs.run()
    assert "\n" not in str(refused.value)
    assert runs.codes() == before

    assert "continues although" in runs.run(allowed=True)
    study = read_study(runs.study)
    new = study["provenance"]["runs"][-1]["code"]
    assert list(study["code"]) == [old, new]
    assert runs.codes() == {arm: [old] * 3 + [new] * 3 for arm in ("plain", "mine")}
    assert "nothing to train" in runs.run(), "the same code again needs no option"


def test_edit_of_comments_and_docstrings_goes_on_as_the_same_code(runs: Runs) -> None:
    runs.run()
    runs.edit(runs.space, "A loss of my own", "Mine alone")
    runs.edit(runs.helper, "by hand", "by chance")
    runs.rows = None
    assert "nothing to train" in runs.run()
    assert len(read_study(runs.study)["code"]) == 1


@pytest.mark.parametrize(
    ("old", "new"), [("seeds=3", "seeds=4"), ("trials=1", "trials=2"), ("question=", "hang_seconds=9.0, question=")]
)
def test_edit_of_settings_that_may_change_is_no_other_code(runs: Runs, old: str, new: str) -> None:
    runs.run()
    runs.edit(runs.space, old, new)
    runs.run()
    assert len(read_study(runs.study)["code"]) == 1


def test_edit_of_other_settings_is_another_study_whatever_is_allowed(runs: Runs) -> None:
    runs.run()
    runs.edit(runs.space, "SimulatedLoss(needs_teacher=False)", "SimulatedLoss(needs_teacher=False, gain=0.1)")
    with pytest.raises(InputError, match=r"another study of this name \(arms\[0\]\.loss\.gain"):
        runs.run(allowed=True)


def test_trial_that_goes_on_with_other_code_names_both(runs: Runs) -> None:
    runs.rows = 3  # one trial whole, one half
    runs.run()
    edit_helper(runs, pytest.MonkeyPatch())
    runs.rows = None
    runs.run(allowed=True)
    old, new = read_study(runs.study)["code"]
    codes = [code for codes in runs.codes().values() for code in codes]
    assert sorted(codes) == sorted([old, f"{old}+{new}", *[new] * 4])


def test_study_of_schema_1_is_refused_in_one_line_with_who_can_go_on(runs: Runs) -> None:
    runs.run()
    downgrade(runs.study)
    with pytest.raises(InputError, match=r"kdstudy 0\.1\.0.* \(schema 1\).*--name.*--fresh") as refused:
        runs.run(allowed=True)
    assert "\n" not in str(refused.value)


def test_study_without_its_code_is_damaged(runs: Runs) -> None:
    runs.run()
    write_study(runs.study, {**read_study(runs.study), "code": {}})
    with pytest.raises(RecordsError, match="it names no code"):
        runs.run()
