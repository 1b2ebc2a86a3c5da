"""Which edits make another version of the code, and that a study goes on with another one only if that is allowed."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ray import cloudpickle
from rich.console import Console

from study import code_version
from study import driver as drive
from study.cluster import software_check as installed
from study.code_version import (
    CodeVersion,
    digest_code,
    digest_package,
    find_user_modules,
    read_code_version,
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

CODE = '''
"""A module."""
import math
LIMIT = 1_000  # of what

@property
def area(r: float) -> float:
    """Of a circle."""
    return math.pi * r ** 2

class Ring:
    width: float = 1.0
    """In metres."""
'''


@pytest.fixture(autouse=True)
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the folders of other tests' space files out of the path: their modules have the same names."""
    temporary = str(tmp_path.parents[1])
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.startswith(temporary)])


digest_once = cache(digest_code)
"""The digest of a file, which is computed once for all tests: the two packages take most of a second."""


@pytest.fixture
def digests_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_version, "digest_code", digest_once)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# of what", "# of something else"),
        ('"""A module."""', ""),
        ('    """Of a circle."""', '    "In square metres."'),
        ('    """In metres."""', '    """In feet."""'),
        ("math.pi * r ** 2", "(math.pi*r\n            **2)"),
        ("1_000", "1000"),
    ],
)
def test_comments_docstrings_and_formatting_make_no_other_version(old: str, new: str) -> None:
    assert old in CODE
    assert digest_code(CODE.replace(old, new).encode()) == digest_code(CODE.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1_000", "1_001"),
        ("1_000", "None"),
        ("1_000", "'1000'"),
        ("r ** 2", "r ** 2.0"),
        ("r ** 2", "2 ** r"),
        ("width", "breadth"),
        ("@property\n", ""),
        ("    return math.pi * r ** 2", '    return """Of a circle."""'),
        ("import math", "import math, os"),
    ],
)
def test_whatever_python_executes_makes_another_version(old: str, new: str) -> None:
    assert old in CODE
    assert digest_code(CODE.replace(old, new).encode()) != digest_code(CODE.encode())


def test_what_is_no_python_is_known_by_its_bytes() -> None:
    assert digest_code(b"def (") != digest_code(b"def ((")


def test_modules_are_followed_from_the_space_file_through_its_folder_and_nowhere_else(tmp_path: Path) -> None:
    files = {
        "space.py": "import math, torch, helper\nfrom nets import wide\nfrom study import Study\nimport reports.load",
        "helper.py": "def late():\n    from nested.deep import thing\n    import broken",
        "nets/__init__.py": "from .shared import width",
        "nets/wide.py": "from ..helper import late\nfrom . import narrow",
        "nets/narrow.py": "",
        "nets/shared.py": "",
        "nets/unused.py": "",
        "nested/deep.py": "import space",
        "broken.py": "def (",
        "unused.py": "",
        "study/__init__.py": "",
        "reports/load.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = find_user_modules(tmp_path / "space.py")
    unreached = {"space.py", "nets/unused.py", "unused.py", "study/__init__.py", "reports/load.py"}
    assert set(found) == set(files) - unreached
    assert all(path == tmp_path / name for name, path in found.items())


def test_modules_of_other_folders_on_the_path_are_followed_and_installed_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "spaces/space.py": "import mylib.losses, installed, helper",
        "spaces/helper.py": "",
        "mylib/losses.py": "from . import shared",
        "mylib/shared.py": "import tools",
        "lib/tools.py": "",
        "lib/helper.py": "",
        "site-packages/installed.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    # as `python -m study.run spaces/space.py` with PYTHONPATH=lib has it
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "lib"), *sys.path, str(tmp_path / "site-packages")])
    assert find_user_modules(Path("spaces/space.py")) == {
        "helper.py": tmp_path / "lib" / "helper.py",  # the first on the path is the one that Python imports
        "mylib/losses.py": tmp_path / "mylib" / "losses.py",
        "mylib/shared.py": tmp_path / "mylib" / "shared.py",
        "tools.py": tmp_path / "lib" / "tools.py",
    }


def test_modules_next_to_a_linked_space_file_and_those_of_literal_names_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    text = "import importlib\nimportlib.import_module('helper')\n__import__(name)\nimport_module('.x', 'y')"
    (tmp_path / "real" / "space.py").write_text(text)
    (tmp_path / "real" / "helper.py").touch()
    (tmp_path / "link.py").symlink_to("real/space.py")
    assert list(find_user_modules(tmp_path / "link.py")) == ["helper.py"]


@pytest.mark.parametrize(
    "text",
    [
        "exec(open('helper.py').read())",
        "runpy.run_path('./helper.py')",
        "importlib.util.spec_from_file_location('h', Path(__file__).with_name('helper.py'))",
        "SourceFileLoader('h', '../{folder}/helper.py').load_module()",
    ],
)
def test_file_that_is_named_in_full_is_followed(text: str, tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(text.format(folder=tmp_path.name) + "\nhint = 'is no.py', '\\0.py'")
    (tmp_path / "helper.py").write_text("import deeper")
    (tmp_path / "deeper.py").touch()
    assert list(find_user_modules(tmp_path / "space.py")) == ["deeper.py", "helper.py"]


@pytest.mark.parametrize("helper", ["", "def load(name):\n    exec(open(name).read())", "from runpy import run_path"])
def test_file_that_is_merely_named_counts_only_if_a_module_runs_files(helper: str, tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text("import helper\nnote = 'helper.py and', 'train.py'\nprint('other.py')")
    (tmp_path / "helper.py").write_text(helper)
    for name in ("train.py", "other.py"):
        (tmp_path / name).touch()
    found = list(find_user_modules(tmp_path / "space.py"))
    assert found == (["helper.py", "other.py", "train.py"] if helper else ["helper.py"])


def test_modules_of_an_editable_installation_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "src" / "mylib").mkdir(parents=True)
    (tmp_path / "space.py").write_text("import json, torch\nfrom mylib.losses import Mine")
    for name, text in (("mylib", ""), ("mylib.losses", "from . import shared"), ("mylib.shared", "")):
        path = tmp_path / "mine" / "src" / "mylib" / f"{name.partition('.')[2] or '__init__'}.py"
        path.write_text(text)
        module = ModuleType(name)
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, name, module)  # as its finder does, without a folder on Python's path
    assert list(find_user_modules(tmp_path / "space.py")) == ["mylib/__init__.py", "mylib/losses.py", "mylib/shared.py"]


@pytest.mark.usefixtures("digests_once")
def test_version_holds_the_space_file_under_one_name_and_both_packages(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("x = 1")
    one, two = read_code_version(tmp_path / "one.py"), read_code_version(tmp_path / "two.py")
    assert one.digest == two.digest
    assert {"space file", "study/code_version.py", "trainables/tasks/simulated.py"} <= one.files.keys()
    assert not any(name.startswith("reports/") for name in one.files)


@pytest.mark.usefixtures("digests_once")
def test_edit_of_a_package_file_is_another_version_wherever_the_package_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_package("trainables")
    shutil.copytree(Path(code_version.__file__).parents[1] / "trainables", tmp_path / "trainables")
    spec = lambda name: type("Spec", (), {"submodule_search_locations": [str(tmp_path / name)]})  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", spec)
    assert digest_package("trainables") == before
    path = tmp_path / "trainables" / "tasks" / "simulated.py"
    path.write_text(path.read_text() + "\nX = 1\n")
    assert CodeVersion(digest_package("trainables")).list_changes(before) == ["trainables/tasks/simulated.py"]


def test_changes_are_named_with_what_is_new_and_what_is_gone() -> None:
    now = CodeVersion({"a.py": "1", "b.py": "2", "c.py": "3"})
    assert now.list_changes({"a.py": "1", "b.py": "1", "d.py": "4"}) == ["b.py", "c.py (new)", "d.py (gone)"]


def test_node_without_the_project_can_say_so() -> None:
    question = cloudpickle.dumps(installed._make_reader())
    script = (
        "import sys\nsys.modules |= {name: None for name in ('study', 'trainables')}\n"
        "from ray import cloudpickle\nimport importlib.util, importlib.machinery\n"
        "importlib.util.find_spec = lambda name: importlib.machinery.PathFinder.find_spec(name, ['/nowhere'])\n"
        f"print(cloudpickle.loads({question!r})())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\"kdstudy's study\": ''" in done.stdout


# -- going on ------------------------------------------------------------------------------------------------------

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
        monkeypatch.setattr(drive, "_train", self._train)
        self.rows: int | None = None
        """Epochs after which a run is cut off."""

    def edit(self, path: Path, old: str, new: str) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def run(self, allowed: bool = False) -> str:
        """What the run prints."""
        sys.modules.pop("helper", None)
        space = load_space(self.space, None, None)
        lines = Console(record=True, width=1000, file=io.StringIO())
        place = DriverOptions(self.folder / "runs", allow_code_change=allowed)
        drive.drive(space.study, space, {"data": {"fingerprint": "x"}}, place, "python -m study.run hf.py", lines)
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


@pytest.mark.usefixtures("digests_once")
def test_version_is_that_of_the_files_when_they_were_read(tmp_path: Path) -> None:
    space, helper = tmp_path / "space.py", tmp_path / "helper.py"
    space.write_text("import helper\n")
    helper.write_text("x = 1\n")
    version, same = (read_code_version(space) for _ in range(2))
    helper.write_text("x = 2\n")
    assert version.digest == same.digest
    assert read_code_version(space).list_changes(version.files) == ["helper.py"]


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
