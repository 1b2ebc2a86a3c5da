"""The tables of differences between studies: settings, data and teachers, versions and machines, budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.format.settings import describe
from reports.format.table import Table
from reports.format.values import format_duration
from reports.load import StudyRecords
from study.identity import digest

PACKAGES = ("study/", "trainables/")
"""Prefixes by which a version of the code lists files of kdstudy, in contrast to the space file and its modules."""

ABSENT = "not there"
"""Shown for an entry that this study lacks and another has."""

NOT_SETTINGS = ("name", "question", "budget", "seed")
"""Entries of a study's description that other tables show."""


def make_studies_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """Return the table of the compared studies, one column per study."""
    facts = [
        {
            "name": records.name,
            "folder": str(records.folder),
            "question": records.study.get("question"),
            "state": "finished" if records.finished else "unfinished",
            "data": records.data_name,
            "fingerprint of the data": records.section("inputs", "data").get("fingerprint"),
            "protocol": records.declared_protocol or "no paper's",
            "metric": records.test_metric,
            "confirmed on": records.study.get("confirm_on"),
            "study seed": records.study.get("seed"),
            "started": str(records.section("provenance").get("created") or "")[:16].replace("T", " "),
            "command": records.section("provenance").get("command"),
        }
        for records in studies
    ]
    return _make_table(
        "studies", "Studies", "study", labels, [(key, [fact[key] for fact in facts]) for key in facts[0]]
    )


def make_settings_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """Return the table of settings that differ, by their path in the Study of the space file."""
    described = [
        {key: value for key, value in records.section("study").items() if key not in NOT_SETTINGS}
        for records in studies
    ]
    return _make_table("settings", "Settings that differ", "setting", labels, list(find_differences(described)))


def make_inputs_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """Return the table of differences in data and teachers."""
    found = [records.section("inputs") | {"teacher": _describe_teacher(records)} for records in studies]
    return _make_table("inputs", "Data and teachers that differ", "what", labels, list(find_differences(found)))


def make_versions_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """Return the table of differences in code, versions and machines."""
    kept = ("commit", "dirty", "versions", "machine")
    found = [
        {key: records.section("provenance").get(key, ABSENT) for key in kept}
        | {"code of kdstudy": _digest_code(records)}
        for records in studies
    ]
    return _make_table(
        "versions", "Code, versions and machines that differ", "what", labels, list(find_differences(found))
    )


def _digest_code(records: StudyRecords) -> str:
    """Return the digest of kdstudy's own files, without the space file, for each version of the code that ran."""
    versions = [version for version in records.section("code").values() if isinstance(version, dict)]
    packages = [{name: one for name, one in version.items() if name.startswith(PACKAGES)} for version in versions]
    return ", ".join(dict.fromkeys(digest(files)[:8] for files in packages)) or "not on record"


def make_budget_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """Return the table of planned and used budgets, whether they differ or not."""
    planned = [(word, [r.section("budget").get(name) for r in studies]) for name, word in _PLANNED]
    return _make_table("budget", "Budget", "budget", labels, planned + _list_usage(studies))


_PLANNED = (
    ("trials", "planned trials per searched cell"),
    ("epochs", "planned epochs per trial"),
    ("seeds", "planned confirm seeds per cell"),
    ("wall_hours", "cap on hours"),
    ("gpu_hours", "cap on GPU hours"),
    ("usd_per_hour", "USD per GPU hour"),
)


def _list_usage(studies: Sequence[StudyRecords]) -> list[tuple[str, list[Any]]]:
    trials = [records.trials for records in studies]
    seconds = [frame["seconds"].fillna(0) for frame in trials]
    gpu = [float((used * frame["gpus"].fillna(0)).sum()) / 3600 for used, frame in zip(seconds, trials, strict=True)]
    return [
        ("search trials", [int((frame["phase"] == "search").sum()) for frame in trials]),
        ("runs that count", [len(records.confirmed) for records in studies]),
        ("epochs", [f"{int(frame['epochs_done'].fillna(0).sum()):,}" for frame in trials]),
        ("time, summed over trials", [format_duration(float(used.sum())) for used in seconds]),
        ("GPU hours", [f"{hours:.2f}" if hours else None for hours in gpu]),
    ]


def find_differences(values: Sequence[Any], path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield each leaf in which descriptions differ: its dotted path and its value in each; arms are matched by name."""
    parts = [_get_entries(value) for value in values]
    if all(part is not None for part in parts) and _are_same_kind(values):
        found = [part for part in parts if part is not None]
        for key in dict.fromkeys(key for part in found for key in part):
            yield from find_differences([part.get(key, ABSENT) for part in found], f"{path}.{key}" if path else key)
    elif any(value != values[0] for value in values):
        yield path, list(values)


def _get_entries(value: Any) -> Mapping[str, Any] | None:
    """Return a description's entries by name; None for a value without entries."""
    if isinstance(value, dict):
        return value
    named = isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value)
    if not named or len({str(item["name"]) for item in value}) < len(value):
        return None
    return {str(item["name"]): {key: part for key, part in item.items() if key != "name"} for item in value}


def _are_same_kind(values: Sequence[Any]) -> bool:
    """Return whether entries can be compared one by one: not if one study has KD and another DKD."""
    return len({str(value.get("is")) if isinstance(value, dict) else type(value).__name__ for value in values}) == 1


def _describe_teacher(records: StudyRecords) -> dict[str, Any]:
    """Return what identifies a teacher, and its test score; its training is among the settings."""
    teacher = records.section("inputs", "teacher") | records.section("teacher")
    teacher |= {records.test_metric: records.section("teacher", "metrics").get(records.test_metric)}
    kept = ("name", "parameters", "source", "fingerprint", records.test_metric)
    return {key: teacher[key] for key in kept if teacher.get(key) is not None}


def _make_table(
    name: str, caption: str, title: str, labels: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]
) -> Table:
    return Table(
        name=name,
        caption=caption,
        columns=(title, *labels),
        align="l" * (1 + len(labels)),
        rows=tuple((key, *(_format(value) for value in values)) for key, values in rows),
    )


def _format(value: Any) -> str:
    return "–" if value in (None, "", [], {}) else describe(value)
