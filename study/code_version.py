"""The version of the code that a study runs, as one digest, by which an edit between two runs is noticed.

What counts is what Python would execute: the syntax tree of each file without docstrings, comments and formatting.
Names, numbers, the order of statements, annotations and the texts of messages all count. The arguments of `Study(…)`
and `Budget(…)` in the user's files do not: they are settings, which study/identity.py compares.

The files are the space file, the modules that it imports from its own folder, and the installed packages `study` and
`trainables`. Not seen are modules that are imported under a computed name, other installed packages (their versions are
in study.json) and files that the code reads. The digest is taken when the space file is loaded: an edit while a study
runs is noticed by the next run.

Imports nothing of this project and is sent to cluster nodes by value, so that a node without the project can answer.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

PACKAGES = ("study", "trainables")
"""What decides a row. `reports` only shows rows."""

SPACE_FILE = "space file"
"""The name of the space file among the files of a version, whatever the file is called."""

SETTINGS = ("Study", "Budget")
"""Calls of the space file whose arguments are no code: the study's description has them, and is compared by itself."""

DIGITS = 16
"""Hexadecimal digits of a digest: two of a million versions share one with a chance of 1 in 10^8."""


@dataclass(frozen=True)
class CodeVersion:
    """The digests of the files that decide what a study computes, by name."""

    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """One digest of all files."""
        return digest_text(json.dumps(sorted(self.files.items())))

    def list_changes(self, earlier: Mapping[str, str]) -> list[str]:
        """The names of the files that are not as in an earlier version; new and missing ones are marked."""
        changed = sorted(name for name in self.files.keys() | earlier if self.files.get(name) != earlier.get(name))
        return [name + (" (new)" if name not in earlier else " (gone)" * (name not in self.files)) for name in changed]


def read_code_version(space: Path) -> CodeVersion:
    """The version of the code that the study in this space file runs."""
    files = {SPACE_FILE: _digest_user_code(space.read_bytes())}
    for path in find_sibling_modules(space):
        files[path.relative_to(space.parent).as_posix()] = _digest_user_code(path.read_bytes())
    for package in PACKAGES:
        files |= digest_package(package)
    return CodeVersion(files)


def digest_package(package: str) -> dict[str, str]:
    """The digests of an installed package's files, by their path from its parent folder; empty if it is missing."""
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return {
        path.relative_to(folder.parent).as_posix(): digest_code(path.read_bytes())
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    }


def find_sibling_modules(space: Path) -> list[Path]:
    """The modules in the space file's folder that it imports, directly or through others, wherever in their text."""
    found: dict[Path, None] = {space: None}
    pending = [space]
    while pending:
        for path in _find_imports(pending.pop(), space.parent):
            if path not in found:
                found[path] = None
                pending.append(path)
    return sorted(path for path in found if path != space)


def digest_code(text: bytes) -> str:
    """The digest of Python code, to which docstrings, comments and formatting make no difference."""
    try:
        return digest_text(_to_text(ast.parse(text)))
    except (SyntaxError, ValueError):  # no Python: its bytes are all that can be compared
        return sha256(text).hexdigest()[:DIGITS]


def _digest_user_code(text: bytes) -> str:
    """The digest of code without its settings: a study is continued with more seeds or a longer limit."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return digest_code(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in SETTINGS:
            node.args, node.keywords = [], []
    return digest_text(_to_text(tree))


def digest_text(text: str) -> str:
    """The first digits of a text's SHA-256."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _to_text(node: Any) -> str:
    """A syntax tree as text, the same in all versions of Python: what is empty, such as a newer field, is left out."""
    if isinstance(node, list):
        return f"[{','.join([_to_text(item) for item in node if not _is_docstring(item)])}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind")]
    parts = [f"{name}={_to_text(value)}" for name, value in fields if value is not None and value != []]
    return f"{type(node).__name__}({','.join(parts)})"


def _is_docstring(node: Any) -> bool:
    """Whether this statement is a mere text, as docstrings of modules, classes, functions and fields are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _find_imports(path: Path, folder: Path) -> Iterator[Path]:
    """The files below `folder` that the import statements of one file name."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = path.relative_to(folder).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            names = [module, *((*module, alias.name) for alias in node.names)]  # a name may be a module of a package
        else:
            continue
        for name in names:
            yield from _find_files(name, folder)


def _find_files(module: tuple[str, ...], folder: Path) -> Iterator[Path]:
    """The files that importing a module runs: its own and those of the packages that it lies in."""
    if not module or module[0] in (*PACKAGES, "reports"):
        return
    for length in range(1, len(module) + 1):
        place = folder.joinpath(*module[:length])
        yield from (path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file())
