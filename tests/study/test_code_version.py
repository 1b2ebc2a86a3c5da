"""Which edits make another version of the code, and which files belong to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ray import cloudpickle

from study import code_version
from study.cluster import software_check
from study.code_version import (
    CodeVersion,
    digest_code,
    find_user_modules,
    read_code_version,
    read_package,
)

pytestmark = pytest.mark.usefixtures("own_path")

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


def read_version(package: str) -> CodeVersion:
    return CodeVersion({}, package_files=read_package(package))


@pytest.mark.usefixtures("digests_once")
def test_edit_of_a_package_file_is_another_version_wherever_the_package_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_version("trainables").files
    shutil.copytree(Path(code_version.__file__).parents[1] / "trainables", tmp_path / "trainables")
    spec = lambda name: type("Spec", (), {"submodule_search_locations": [str(tmp_path / name)]})  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", spec)
    assert read_version("trainables").files == before
    path = tmp_path / "trainables" / "tasks" / "simulated.py"
    path.write_text(path.read_text() + "\nX = 1\n")
    assert read_version("trainables").list_changes(before) == ["trainables/tasks/simulated.py"]


def test_changes_are_named_with_what_is_new_and_what_is_gone() -> None:
    now = CodeVersion({"a.py": "1", "b.py": "2", "c.py": "3"})
    assert now.list_changes({"a.py": "1", "b.py": "1", "d.py": "4"}) == ["b.py", "c.py (new)", "d.py (gone)"]


def test_node_without_the_project_can_say_so() -> None:
    question = cloudpickle.dumps(software_check._make_reader())
    script = (
        "import sys\nsys.modules |= {name: None for name in ('study', 'trainables')}\n"
        "from ray import cloudpickle\nimport importlib.util, importlib.machinery\n"
        "importlib.util.find_spec = lambda name: importlib.machinery.PathFinder.find_spec(name, ['/nowhere'])\n"
        f"print(cloudpickle.loads({question!r})())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\"kdstudy's study\": ''" in done.stdout


@pytest.mark.usefixtures("digests_once")
def test_version_is_that_of_the_files_when_they_were_read(tmp_path: Path) -> None:
    space, helper = tmp_path / "space.py", tmp_path / "helper.py"
    space.write_text("import helper\n")
    helper.write_text("x = 1\n")
    version, same = (read_code_version(space) for _ in range(2))
    helper.write_text("x = 2\n")
    assert version.digest == same.digest
    assert read_code_version(space).list_changes(version.files) == ["helper.py"]
