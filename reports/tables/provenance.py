"""The tables of provenance: command, commit and seeds, then teacher, data, machine and versions of everything used; and
the images that occur in more than one split.
"""

from __future__ import annotations

from typing import Any

from reports.format.table import Table
from reports.format.values import format_value
from reports.load import StudyRecords

DUPLICATES = "duplicate_images"
"""The key of images that occur in several splits, in the record of the data; they have a table of their own."""


def make_tables(records: StudyRecords) -> list[Table]:
    """Return a table for each group of facts; facts that study.json lacks have no row, groups without any no table."""
    groups = {"Run": _describe_run(records), "Teacher": _flatten(records.section("teacher"))}
    for name, entry in records.section("inputs").items():
        title = str(name).capitalize()
        groups[title] = groups.get(title, {}) | _flatten({key: entry[key] for key in entry if key != DUPLICATES})
    groups["Machine"] = _flatten(records.section("provenance", "machine"))
    groups["Versions"] = _flatten(records.section("provenance", "versions"))
    tables = []
    for title, facts in groups.items():
        rows = tuple((name, _format(value)) for name, value in facts.items() if value not in (None, "", [], {}))
        tables.append(Table(f"provenance-{title.lower()}", title, ("what", "value"), "ll", rows))
    return [table for table in tables if table.rows]


def make_duplicate_tables(records: StudyRecords) -> list[Table]:
    """Return the table of the images that equal or look like one of an earlier split; none if there are none."""
    images = records.section("inputs", "data").get(DUPLICATES)
    if not images:
        return []
    columns = ("image", "split", "what", "image of an earlier split")
    rows = ((one["image"], one["split"], "equals" if one["equal"] else "looks like", one["other"]) for one in images)
    return [Table("duplicates", "Images in more than one split", columns, "llll", tuple(rows))]


def make_citation(records: StudyRecords) -> str:
    """Return a BibTeX entry of the study, which names the version that ran it and the digest of its data."""
    provenance, name = records.section("provenance"), str(records.study.get("name"))
    written = str(provenance.get("updated") or "")
    facts = {
        "kdstudy": records.section("provenance", "versions").get("kdstudy"),
        "commit": str(provenance.get("commit") or "")[:12],
        "data": records.section("inputs", "data").get("fingerprint"),
    }
    note = ", ".join(f"{what} {value}" for what, value in facts.items() if value)
    fields = {"title": str(records.study.get("question") or name), "year": written[:4], "note": note}
    lines = [f"  {field} = {{{value}}}," for field, value in fields.items() if value]
    return "\n".join([f"@misc{{{name},", *lines, "}"])


def _describe_run(records: StudyRecords) -> dict[str, Any]:
    provenance, space = records.section("provenance"), records.section("space")
    commit = provenance.get("commit")
    return {
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


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of a nested object by their path, its keys joined by spaces."""
    if not isinstance(value, dict):
        return {name: value}
    return {path: leaf for key, item in value.items() for path, leaf in _flatten(item, f"{name} {key}".strip()).items()}


def _format(value: Any) -> str:
    return ", ".join(map(_format, value)) if isinstance(value, list) else format_value(value)
