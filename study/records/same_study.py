"""The check that a folder holds the study that is to run, under the same code: no other one is continued."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.code_version import SPACE_FILE
from study.errors import InputError
from study.identity import SOURCE_CHANGE, describe, find_differences
from study.records.parquet_table import RecordsError
from study.records.paths import StudyPaths
from study.records.study_json import SCHEMA_VERSION, collect_fingerprints, list_runs, read_study
from study.space_file import Space
from study.study import Study

MAX_NAMED_FILES = 4
MAX_NAMED_CHANGES = 5
"""Changes named in one message; further ones are counted."""


def read_same_study(folder: Path, study: Study, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return study.json of an earlier run in this folder; None if there was none. `check_code` compares the code.

    Raises InputError with the differences if it describes another study (other settings, data or teacher), or if its
    schema is older; RecordsError if it is damaged.
    """
    path = StudyPaths(folder).study_json
    if not path.is_file():
        return None
    earlier = read_study(folder)
    if not {"study", "inputs", "provenance"} <= earlier.keys():
        raise RecordsError(f"{path} is damaged: restore it from a copy, or start a new study with --fresh")
    if earlier.get("schema", 0) < SCHEMA_VERSION:
        raise InputError(_format_old_schema(folder, earlier))
    if not earlier.get("code"):
        raise RecordsError(f"{path} is damaged, it names no code: restore it from a copy")
    before = {"workers_per_trial": 1} | earlier["study"]  # the field is younger than the schema
    changes = [change for change in find_differences(before, describe(study)) if not _is_allowed(change, study)]
    changes += find_differences(collect_fingerprints(earlier["inputs"]), collect_fingerprints(inputs))
    if changes:
        more = len(changes) - MAX_NAMED_CHANGES
        named = "; ".join(changes[:MAX_NAMED_CHANGES]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"{folder} holds another study of this name ({named}): "
            "undo the change, give a new --name, or start a new study with --fresh"
        )
    return earlier


def _format_old_schema(folder: Path, earlier: Mapping[str, Any]) -> str:
    version = earlier["provenance"].get("versions", {}).get("kdstudy") or "an earlier kdstudy"
    commit = str(earlier["provenance"].get("commit") or "")[:12]
    writer = f"{version}, commit {commit}" if commit else version
    return (
        f"{folder} was written by kdstudy {writer} (schema {earlier.get('schema')}): this version reports it but "
        "cannot continue it; continue it with that version, give a new --name, or start a new study with --fresh"
    )


def _is_allowed(change: str, study: Study) -> bool:
    """Return whether a difference only extends the study, or is one of code, which `check_code` judges."""
    if SOURCE_CHANGE.search(change):
        return True
    match = re.fullmatch(r"budget\.(trials|seeds): (\d+) → (\d+)", change)
    if match is None or int(match[3]) <= int(match[2]):
        return False
    searches = [arm.search for arm in study.arms if arm.search]
    # more members would be compared with others whose checkpoints are gone
    return match[1] == "seeds" or all(one.count_members(int(match[2])) == one.population for one in searches)


def check_code(folder: Path, earlier: Mapping[str, Any], study: Study, space: Space, allowed: bool) -> str:
    """Compare the code with that of the study's last run; return the names of changed files if that is allowed.

    Raises InputError naming what changed if it is not allowed, since old and new trials would be averaged.
    """
    last = list_runs(earlier)[-1].get("code")
    changed = space.code.list_changes(earlier["code"].get(last, {})) if last != space.code.digest else []
    if not changed:  # a class from another package may have changed, which is in none of these files
        changes = find_differences(earlier["study"], describe(study))
        changed = [change.split(":")[0] for change in changes if SOURCE_CHANGE.search(change)]
    names = _join_names([space.path.name if name == SPACE_FILE else name for name in changed])
    if changed and not allowed:
        raise InputError(
            f"{names} changed since the last run of {folder}: undo the change, start a new study with --fresh or a new "
            "--name, or continue with --allow-code-change, which judges no comparison of old with new trials"
        )
    return names


def _join_names(names: list[str]) -> str:
    """Return "a.py, b.py and 3 more files"."""
    if len(names) > MAX_NAMED_FILES:
        named = MAX_NAMED_FILES - 1
        names = [*names[:named], f"{len(names) - named} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
