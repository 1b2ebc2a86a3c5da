"""Digests of the code that a study runs, which detect an edit between two runs.

A digest covers what Python executes: the syntax tree of each file, with names, numbers, annotations and texts of
messages, but without docstrings, comments and formatting. The arguments of `Study(…)` and `Budget(…)` in user files
are left out: they are settings, which study/identity.py compares.

The files are the space file, the modules that it imports from its own folder or another one on Python's path, such as
the working directory or the sources of an editable installation, files of Python that it or they name in full, if any
of them runs or reads files, as by exec or runpy, and the installed packages `study` and `trainables`. Not covered are
modules imported under a computed name, other installed packages (their versions are in study.json) and data files.
Files are read when the space file is loaded: an edit while a study runs is detected by the next run.

This module imports nothing of the project and is sent to cluster nodes by value, so that a node without the project can
answer.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

PACKAGES = ("study", "trainables")
"""Installed packages whose code determines a row; `reports` only shows rows."""

SPACE_FILE = "space file"
"""Name of the space file within a version, independent of its file name."""

SETTINGS = ("Study", "Budget")
"""Calls whose arguments are settings, not code: the study's description contains them and is compared separately."""

RUNNERS = (
    *("exec", "eval", "compile", "open", "read_text", "read_bytes", "run_path", "run_module", "load_source", "system"),
    *("spec_from_file_location", "SourceFileLoader", "run", "call", "check_call", "check_output", "Popen"),
)
"""Functions that run or read a file of Python; without them a file's name is a text like any other."""

DIGITS = 16
"""Hexadecimal digits of a digest: among a million versions, two share one with a probability below 10^-7."""


class CodeVersion:
    """The files that determine what a study computes, by name: their digests, or what they contained.

    Contents are digested when a digest is first needed: parsing 200 files takes half a second, which a dry run need not
    wait for.
    """

    def __init__(
        self,
        digests: Mapping[str, str],
        user_files: Mapping[str, bytes] | None = None,
        package_files: Mapping[str, bytes] | None = None,
    ):
        self._digests, self._user_files, self._package_files = dict(digests), user_files or {}, package_files or {}

    @property
    def files(self) -> dict[str, str]:
        """The digest of each file. A study may continue with other settings: those of user files do not count."""
        self._digests |= {name: digest_code(text, with_settings=False) for name, text in self._user_files.items()}
        self._digests |= {name: digest_code(text) for name, text in self._package_files.items()}
        self._user_files, self._package_files = {}, {}
        return self._digests

    @property
    def digest(self) -> str:
        """The digest of all files together."""
        return digest_text(json.dumps(sorted(self.files.items())))

    def list_changes(self, earlier: Mapping[str, str]) -> list[str]:
        """Return the names of files that differ from an earlier version, with new and deleted ones marked."""
        changed = sorted(name for name in self.files.keys() | earlier if self.files.get(name) != earlier.get(name))
        return [name + (" (new)" if name not in earlier else " (gone)" * (name not in self.files)) for name in changed]


def read_code_version(space: Path) -> CodeVersion:
    """Return the version of the code that the study in this space file runs."""
    user_files = {SPACE_FILE: space.read_bytes()}
    user_files |= {name: path.read_bytes() for name, path in find_user_modules(space).items()}
    return CodeVersion({}, user_files, _read_packages())


def read_modules_version(modules: Iterable[str]) -> CodeVersion:
    """Return the version of the code of a study that was made in Python; `modules` define its classes and functions.

    Of these count the ones outside installed packages, with the modules that they import. A class of a notebook or of a
    script's main module counts by its own description (study/identity.py).
    """
    user_files: dict[str, bytes] = {}
    for name in modules:
        path = Path(getattr(sys.modules.get(name), "__file__", None) or "")
        if path.is_file() and name.split(".")[0] not in (*PACKAGES, "__main__") and not _is_installed(path.parent):
            user_files[f"{name.replace('.', '/')}.py"] = path.read_bytes()
            user_files |= {other: file.read_bytes() for other, file in find_user_modules(path).items()}
    return CodeVersion({}, user_files, _read_packages())


def _read_packages() -> dict[str, bytes]:
    return {name: text for package in PACKAGES for name, text in read_package(package).items()}


def read_package(package: str) -> dict[str, bytes]:
    """Return the files of an installed package by path from its parent folder; empty if it is missing."""
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return {
        path.relative_to(folder.parent).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    }


def find_user_modules(space: Path) -> dict[str, Path]:
    """Return the modules outside installed packages that a space file imports, by path from their root.

    Also those that it imports through others, in functions, or by a literal name, and files ….py that it or they name,
    if any of them runs files.
    """
    space = space.resolve()  # a link's modules are next to the file that it leads to
    roots = [root for entry in sys.path if (root := Path(entry).resolve()).is_dir() and not _is_installed(root)]
    found: dict[str, Path] = {}
    named, runs_files, pending = list[tuple[Path, Path]](), False, [(space, space.parent)]
    while pending:
        path, root = pending.pop()
        nodes = _parse(path)
        runs_files = runs_files or any(map(_is_runner, nodes))
        named += [file for node in nodes for file in _find_named_file(node, path.parent)]
        imported = _find_imports(nodes, path.relative_to(root).parent.parts, [*roots, space.parent])
        for path, root in [*imported, *(named if runs_files else ())]:
            name = path.relative_to(root).as_posix()
            if name not in found and path != space:
                found[name] = path
                pending.append((path, root))
    return dict(sorted(found.items()))


def _is_installed(root: Path) -> bool:
    """Return whether a folder on Python's path holds the standard library or installed packages."""
    return root == Path(json.__file__).resolve().parents[1] or bool({"site-packages", "dist-packages"} & {*root.parts})


def digest_code(text: bytes, with_settings: bool = True) -> str:
    """Return the digest of Python code without docstrings, comments and formatting."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # not valid Python: compare its bytes
        return sha256(text).hexdigest()[:DIGITS]
    for node in () if with_settings else ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in SETTINGS:
            node.args, node.keywords = [], []
    return digest_text(_to_text(tree))


def digest_text(text: str) -> str:
    """Return the first DIGITS hexadecimal digits of a text's SHA-256."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _to_text(node: Any) -> str:
    """Return a syntax tree as text, equal in all versions of Python: empty fields, such as newer ones, are left out."""
    if isinstance(node, list):
        return f"[{','.join([_to_text(item) for item in node if not _is_docstring(item)])}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind")]
    parts = [f"{name}={_to_text(value)}" for name, value in fields if value is not None and value != []]
    return f"{type(node).__name__}({','.join(parts)})"


def _is_docstring(node: Any) -> bool:
    """Return whether a statement is only a string, as docstrings of modules, classes, functions and fields are."""
    return isinstance(node, ast.Expr) and _is_text(node.value)


def _parse(path: Path) -> list[ast.AST]:
    """Return the nodes of a file's syntax tree; none if it is not valid Python."""
    try:
        return list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return []


def _is_runner(node: ast.AST) -> bool:
    """Return whether a node names a function that runs or reads files."""
    names = (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
    return any(isinstance(name, str) and name in RUNNERS for name in names)


def _find_imports(
    nodes: Iterable[ast.AST], package: tuple[str, ...], roots: Sequence[Path]
) -> Iterator[tuple[Path, Path]]:
    """Yield the files that the code of a module in `package` imports from one of `roots`, each with its root."""
    for node in nodes:
        for name in _list_imported_names(node, package):
            if name and name[0] not in (*PACKAGES, "reports"):
                yield from _find_files(name, roots)


def _list_imported_names(node: ast.AST, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the modules that a node of a syntax tree imports in `package`, as parts of their names."""
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parent = package[: len(package) - node.level + 1] if node.level else ()
        module = (*parent, *(node.module.split(".") if node.module else ()))
        return [module, *((*module, alias.name) for alias in node.names)]  # a name may be a module of a package
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        names = [str(ast.literal_eval(arg)).split(".") for arg in node.args[:1] if _is_text(arg)]
        return [tuple(name) for name in names if all(part.isidentifier() for part in name)]
    return []


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _find_files(module: tuple[str, ...], roots: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files that importing a module runs: its own and the __init__.py of its packages, with their root."""
    for root in roots:
        names = [root.joinpath(*module[:length]) for length in range(1, len(module) + 1)]
        files = [path for name in names for path in (name / "__init__.py", name.with_suffix(".py")) if path.is_file()]
        if files:
            yield from ((path, root) for path in files)
            return
    for length in range(1, len(module) + 1):  # an editable installation may find modules in folders not on the path
        path = Path(getattr(sys.modules.get(".".join(module[:length])), "__file__", None) or "")
        if path.suffix == ".py" and path.is_file() and not any(map(_is_installed, path.resolve().parents)):
            yield path.resolve(), path.resolve().parents[length - (path.name != "__init__.py")]


def _find_named_file(node: ast.AST, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the file of Python that a text of a syntax tree names, from its own folder or the current one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
        for parent in (folder, Path.cwd()):
            try:
                path = (parent / node.value).resolve()
                if path.is_file():
                    yield path, parent if path.is_relative_to(parent) else path.parent
                    return
            except (OSError, ValueError):  # no name of a file
                return
