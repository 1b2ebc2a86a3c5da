"""Space files: finding one, and loading the Study that it defines.

A space file is Python that defines `study`: a Study, or a dictionary of profiles, each a Study, or a function from
`--data-dir` (a Path or None) to one. The first profile is the default.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType

from study.code_version import SPACE_FILE, CodeVersion, read_code_version, read_modules_version
from study.errors import InputError
from study.identity import describe, find_origins
from study.study import Study

RENAMED = {
    "Stages": "Staircase",
    "Drops": "MultiStep",
    "Poly": "Polynomial",
    "WarmRestarts": "CosineWarmRestarts",
    "readings": "assumptions",
}
"""New names of what space files used before version 0.2, for the hint in the error."""


TEMPLATE = "first_study"
"""The commented study that `kdstudy new` copies."""


def find_builtin_spaces() -> dict[str, Path]:
    """Return the space files that come with kdstudy, by name: spaces/ in a checkout, data files in a wheel."""
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file():
        files = list((checkout / "spaces").glob("*.py"))
    else:
        installed = metadata.files("kdstudy") or []
        files = [Path(file.locate()) for file in installed if file.parent.parts[-3:] == ("share", "kdstudy", "spaces")]
    return {file.stem: file.resolve() for file in sorted(files) if "\nstudy = " in file.read_text(encoding="utf-8")}


def resolve_space(given: Path) -> Path:
    """Return the space file of a path, or of the name of one that comes with kdstudy, such as lp_cifar.

    Raises InputError if there is neither.
    """
    if given.is_file():
        return given
    builtin = find_builtin_spaces()
    if found := builtin.get(str(given)):
        return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found
    others = sorted(str(other) for other in given.parent.glob("*.py")) if given.parent.is_dir() else []
    known = f"there are: {', '.join(others)}" if others else "its folder has none"
    raise InputError(f"no space file {given}; {known}; and by name: {', '.join(builtin)}")


def write_new_space(file: Path) -> Path:
    """Write the commented study that comes with kdstudy under another name; return its path.

    Raises InputError for a file that exists or cannot be written.
    """
    path = file.with_suffix(".py") if file.suffix != ".py" else file
    if path.exists():
        raise InputError(f"{path} exists and is not overwritten: give another name")
    template = find_builtin_spaces()[TEMPLATE].read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as new:
            new.write(template.replace(f"run {TEMPLATE}", f"run {path}").replace(TEMPLATE, path.stem))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another place") from None
    return path


@dataclass(frozen=True)
class Space:
    """A loaded space file with its study under one profile."""

    study: Study
    module: ModuleType
    path: Path
    profile: str
    source: str
    code: CodeVersion


def load_space(path: Path, profile: str | None, data_dir: Path | None) -> Space:
    """Import a space file and return its study under a profile; None is the first one.

    Raises InputError for a file that is missing, is not valid Python, raises an exception, defines no study, or has no
    such profile.
    """
    path = resolve_space(path)
    module = import_space_file(path)
    if not hasattr(module, "study"):
        raise InputError(
            f"{path} defines no `study`: end it with study = Study(…), or study = {{profile: function, …}}"
        )
    source, code, defined = _read_source(path), read_code_version(path), module.study
    if isinstance(defined, Study):
        if profile is not None:
            raise InputError(f"{path} has no profiles, but --profile {profile} was given: leave the option out")
        return Space(defined, module, path, "", source, code)
    if not isinstance(defined, dict) or not defined:
        raise InputError(
            f"`study` in {path} is {type(defined).__name__}; allowed are a Study, or a dictionary of profiles by name"
        )
    chosen = next(iter(defined)) if profile is None else profile
    if chosen not in defined:
        raise InputError(f"unknown profile {chosen!r}; {path} has: {', '.join(defined)}")
    made = defined[chosen]
    with _as_input_error(path):
        study = made(data_dir) if callable(made) else made
    if not isinstance(study, Study):
        raise InputError(
            f"profile {chosen!r} of {path} is or returns {type(study).__name__}; allowed are a Study, and a function "
            "that returns one: lambda data_dir: Study(…)"
        )
    return Space(study, module, path, chosen, source, code)


def make_space(study: Study) -> Space:
    """Return a study that was made in Python as a space without a file; its code is that of its classes' modules."""
    code = read_modules_version(sorted(find_origins(describe(study))))
    return Space(study, sys.modules["__main__"], Path("Python"), "", "", code)


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Raise any exception of a space file as an InputError of one line, with the file's line that led to it."""
    try:
        yield
    except InputError:
        raise
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise InputError(f"{error.filename or path} is not valid Python: {error.msg}{line}") from None
    except (Exception, SystemExit) as error:
        hint = _find_hint(error)
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f", line {frames[-1]}" if frames else ""
        raise InputError(f"{path}{line}: {type(error).__name__}: {error}{hint}") from error


def _find_hint(error: BaseException) -> str:
    """Return the way out of an error that is common in space files; empty for any other error."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in ("study", "trainables"):
        return f"; import from `{str(error.name).split('.')[0]}` itself: from trainables import KD, ResNet, Teacher, …"
    if isinstance(error, ImportError | TypeError):
        for old, new in RENAMED.items():
            if f"'{old}'" in str(error):
                return f"; it is now called {new!r}"
    if isinstance(error, TypeError) and any(f"'{kind}'" in str(error) for kind in ("Uniform", "Integer", "Choice")):
        return "; a domain cannot be searched there, or must not be checked there: see docs/extending.md"
    return ""


def _read_source(path: Path) -> str:
    try:
        return decode_source(path.read_bytes())
    except (SyntaxError, UnicodeDecodeError):  # Python itself runs a file with such bytes in a comment
        raise InputError(
            f"{path} is not UTF-8: save it as UTF-8, or name its encoding in its first line, # -*- coding: latin-1 -*-"
        ) from None


def import_space_file(path: Path) -> ModuleType:
    """Import a space file, after which modules of its folder can be imported, too.

    Raises InputError for a file that is not valid Python or raises an exception.
    """
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # last, so that modules next to the space file hide no installed package
        sys.path.append(folder)
    name = f"{SPACE_FILE} {path.stem}"  # the space keeps it apart from all importable modules
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file: a space file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module of their class
    with _as_input_error(path):
        # not by the loader, which takes compiled code of another text of equal size and time for this one's
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def list_import_paths() -> list[str]:
    """Return the folders of this process's imports for another one; this package's is among them.

    An editable installation finds the package after all folders, so that a user's study.py would hide it.
    """
    paths = [str(Path(path).resolve()) for path in sys.path]
    root = str(Path(__file__).resolve().parents[1])
    return paths if root in paths else [root, *paths]
