"""Who may import whom, and that README.md shows the files there are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "spaces": {"study", "trainables"},
    # trainables see of the engine only its words: types, descriptions, domains, errors, files
    "trainables": {"study.trial", "study.describe", "study.errors", "study.space", "study.atomic", "trainables"},
    # reports read rows, wherever they lie
    "reports": {
        "study.records",
        "study.describe",
        "study.errors",
        "study.storage.dataset",
        "study.storage.elsewhere",
        "study.storage.places",
        "reports",
    },
    "study": {"study"},
}
NEAR_RAY = ["cluster", "everywhere", "executor", "group", "installed", "jobs", "rehearsal", "round_trip", "worker"]
MAY_USE = {
    # a student can only be taken out of a study by the code that trained it; both import it late, or for its types
    "trainables": {"reports/export.py", "reports/model_card.py"},
    "ray": {f"study/{name}.py" for name in NEAR_RAY},
    "reports": {"study/run.py", "study/commands/doctor.py"},
    "torch": {"trainables/"},
    "optuna": {"study/", "reports/importance.py"},
}


def modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from study import run` names study.run as much as `import study.run` does
            for alias in node.names:
                below = ROOT / node.module.replace(".", "/") / f"{alias.name}.py"
                yield f"{node.module}.{alias.name}" if below.is_file() else node.module


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_keep_their_direction(folder: str) -> None:
    ours = set(ALLOWED) | {"spaces", "tests", "benchmarks"}
    for path in modules(folder):
        place = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            top = name.split(".")[0]
            if top in ours and not any(place.startswith(user) for user in MAY_USE.get(top, ())):
                allowed = any(name == ok or name.startswith(f"{ok}.") for ok in ALLOWED[folder])
                assert allowed, f"{place} imports {name}"


@pytest.mark.parametrize("library", ["ray", "torch", "optuna"])
def test_heavy_libraries_stay_where_they_belong(library: str) -> None:
    for folder in ALLOWED:
        for path in modules(folder):
            place = path.relative_to(ROOT).as_posix()
            if library in {name.split(".")[0] for name in imports(path)}:
                assert any(place.startswith(user) for user in MAY_USE[library]), f"{place} imports {library}"


def test_readme_shows_the_files_there_are() -> None:
    text = (ROOT / "README.md").read_text()
    tree = text.split("<!-- tree -->")[1]
    for folder in ("study", "study/commands", "study/storage", "trainables", "reports", "spaces"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name != "__init__.py":
                assert path.name in tree, f"README.md's file tree lacks {folder}/{path.name}"
    for word in tree.replace("|", " ").split():
        if word.endswith(".py"):
            assert any(ROOT.rglob(Path(word).name)), f"README.md's file tree shows {word}, which does not exist"
