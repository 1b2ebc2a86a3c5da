"""Who may import whom: packages, lowest first, and the libraries that only some of them may use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = {
    "study": (
        "errors atomic code_version identity trial task space search trackers arm validation study ablation "
        "space_file records storage engine cluster preflight execution driver cli results ui run __main__"
    ),
    "trainables": "training task losses models data sample_panels evaluation distill export teacher tasks",
    "reports": "format frames load analysis text figures tables examples papers page contents build compare export",
}
"""A package, or a module beside them, imports only from those before it."""

BETWEEN = {
    "spaces": {"study", "trainables", "cifar_profiles"},
    # the engine's words alone: types, descriptions, domains, errors, files
    "trainables": {
        "study.trial",
        "study.task",
        "study.identity",
        "study.errors",
        "study.space",
        "study.atomic",
    },
    "reports": {"study.records", "study.trial", "study.task", "study.code_version", "study.identity", "study.errors"},
    "study": set[str](),
}
"""What each part may import of the others."""

EXCEPTIONS = {
    # the commands take studies from wherever they are stored
    "reports/build.py": {"study.storage"},
    "reports/compare.py": {"study.storage"},
    # what is missing is fetched, if the command permits it
    "trainables/data/cifar.py": {"study.storage"},
    "trainables/models/backbones/pretrained.py": {"study.storage"},
    "trainables/models/timm_nets.py": {"study.storage"},
    # a student is rebuilt by the code that trained it
    "reports/export.py": {"study.atomic", "study.storage", "study.space_file", "trainables.export"},
    "reports/text/model_card.py": {"trainables.export"},
    # the command line ends with the report
    "study/cli/": {"reports.build", "reports.format", "reports.tables", "reports.text"},
    # the live page shows parts of the report
    "study/ui/": {
        "reports.frames",
        "reports.load",
        "reports.analysis",
        "reports.figures",
        "reports.format",
        "reports.tables",
        "reports.page",
    },
    # results are read from Python as reports read them
    "study/results.py": {"reports.load", "reports.frames", "reports.analysis", "reports.figures", "reports.contents"},
}

LIBRARIES = {
    "ray": ("study/cluster/", "study/execution/"),
    "optuna": ("study/search/", "study/engine/", "study/cli/dry_run/forecast.py", "reports/figures/importance.py"),
    "torch": ("trainables/", "spaces/own_images.py"),  # a space file that writes a net
    "starlette": ("study/ui/",),
}
"""Where each heavy library may be imported."""


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def imports(path: Path) -> list[str]:
    """Return the modules a file imports, in functions too; not those of `if TYPE_CHECKING:`."""
    return list(find_imports(path))


def find_imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from study import run` names study.run as much as `import study.run` does
            for alias in node.names:
                below = ROOT / node.module.replace(".", "/") / alias.name
                yield f"{node.module}.{alias.name}" if below.with_suffix(".py").is_file() else node.module


def package(name: str) -> str:
    """Return the first two parts of a module's name: "study.engine" of "study.engine.cell"."""
    return ".".join(name.split(".")[:2])


def packages(path: Path) -> Iterator[str]:
    ours = {*LAYERS, "spaces", "cifar_profiles", "tests", "benchmarks"}
    yield from (package(name) for name in imports(path) if name.split(".")[0] in ours)


@pytest.mark.parametrize("top", LAYERS)
def test_packages_import_only_from_lower_ones(top: str) -> None:
    order = [f"{top}.{name}" for name in LAYERS[top].split()]
    for path in modules(top):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        if name == f"{top}.__init__":  # what users import
            continue
        own = package(name)
        assert own in order, f"{own} has no place in LAYERS"
        for other in packages(path):
            if other.startswith(f"{top}.") and other != own:
                assert order.index(other) < order.index(own), f"{name} imports {other}, which lies above {own}"


@pytest.mark.parametrize("top", BETWEEN)
def test_parts_import_only_what_they_may_of_others(top: str) -> None:
    for path in modules(top):
        place = path.relative_to(ROOT).as_posix()
        further = {name for start, names in EXCEPTIONS.items() if place.startswith(start) for name in names}
        for other in packages(path):
            if other.split(".")[0] != top:
                allowed = BETWEEN[top] | further
                assert other in allowed or other.split(".")[0] in allowed, f"{place} imports {other}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_heavy_libraries_stay_where_they_belong(library: str) -> None:
    for folder in BETWEEN:
        for path in modules(folder):
            place = path.relative_to(ROOT).as_posix()
            if library in {name.split(".")[0] for name in imports(path)}:
                assert place.startswith(LIBRARIES[library]), f"{place} imports {library}"


def test_no_package_holds_more_modules_than_can_be_seen_at_once() -> None:
    most = 16  # about fifteen; study/cluster and trainables/losses grow by a file a method
    for top in BETWEEN:
        for folder in {path.parent for path in modules(top)}:
            count = sum(path.name != "__init__.py" for path in folder.glob("*.py"))
            assert count <= most, f"{folder.relative_to(ROOT)} has {count} modules"
