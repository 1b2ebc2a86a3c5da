"""Studies that another process can and cannot read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from study.errors import InputError
from study.preflight import check_pickling
from study.space_file import load_space

SPACE = """
import threading
from dataclasses import dataclass
from functools import lru_cache

from study import Arm, Budget, Study
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent

LOCK = threading.Lock()

@lru_cache
def cached(x):
    return x

def plain(x):
    return x

@dataclass(frozen=True)
class Mine(SimulatedLoss):
    def score_of(self):
        BODY

study = Study("toy", "?", Simulated(), (SimulatedStudent(),), (Arm("mine", Mine(), baseline=True),), Budget(1, 1, 1))
"""


def check(folder: Path, body: str) -> None:
    path = folder / "space.py"
    path.write_text(SPACE.replace("BODY", body))
    space = load_space(path, None, None)
    check_pickling(space.study, space.module)


def test_study_of_a_space_file_is_read_in_a_new_process(tmp_path: Path) -> None:
    check(tmp_path, "return plain(self.x)")


@pytest.mark.parametrize(
    ("body", "problem"),
    [("return cached(self.x)", "No module named|lru_cache|module"), ("return LOCK.locked()", "cannot pickle.*lock")],
)
def test_object_that_cannot_be_sent_is_named_before_a_run(tmp_path: Path, body: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"the study cannot be sent to workers \(.*({problem})") as caught:
        check(tmp_path, body)
    assert "\n" not in str(caught.value)
    assert "into a module next to the space file" in str(caught.value)


def test_users_file_of_the_packages_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    paths = [path for path in sys.path if not (Path(path) / "study" / "study.py").is_file()]
    monkeypatch.setattr(sys, "path", paths)
    space = load_space(Path("study.py"), None, None)
    check_pickling(space.study, space.module)
