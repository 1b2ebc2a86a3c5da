"""The table of provenance: command, commit, seeds, and the fingerprints and versions of everything used."""

from __future__ import annotations

from typing import Any

from reports.format.table import Table
from reports.format.values import format_value
from reports.load import StudyRecords


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of provenance; facts that study.json lacks have no row."""
    provenance, space = records.section("provenance"), records.section("space")
    commit = provenance.get("commit")
    facts: dict[str, Any] = {
        "command": provenance.get("command"),
        "commit": f"{commit}, with uncommitted changes" if commit and provenance.get("dirty") else commit,
        "started": provenance.get("created"),
        "last written": provenance.get("updated"),
        "space file": space.get("path"),
        "profile": space.get("profile"),
        "study seed": records.study.get("seed"),
        "confirm seeds": ", ".join(str(seed) for seed in sorted(set(records.confirmed["seed"]))),
        "record schema": records.study.get("schema"),
    }
    facts |= _flatten(records.section("teacher"), "teacher") | _flatten(
        records.section("provenance", "machine"), "machine"
    )
    for name, entry in records.section("inputs").items():
        facts |= _flatten(entry, name)
    facts |= _flatten(records.section("provenance", "versions"), "version of")
    rows = tuple((name, _format(value)) for name, value in facts.items() if value not in (None, "", [], {}))
    return [Table("provenance", "Provenance", ("what", "value"), "ll", rows)]


def _flatten(value: Any, name: str) -> dict[str, Any]:
    """Return the leaves of a nested object by their path, its keys joined by spaces."""
    if not isinstance(value, dict):
        return {name: value}
    return {path: leaf for key, item in value.items() for path, leaf in _flatten(item, f"{name} {key}").items()}


def _format(value: Any) -> str:
    return ", ".join(map(_format, value)) if isinstance(value, list) else format_value(value)
