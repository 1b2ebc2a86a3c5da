"""In what two or more studies differ: settings, data and teacher, versions and machines, budgets; a table each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.format.settings import describe
from reports.format.table import Table
from reports.format.values import format_duration
from reports.load import StudyRecords
from study.identity import digest

PACKAGES = ("study/", "trainables/")
"""What the files of kdstudy begin with among those of a version of the code."""

ABSENT = "not there"
"""Stands for a part that another study has and this one has not."""

NOT_SETTINGS = ("name", "question", "budget", "seed")
"""Parts of a study's description that other tables show."""


def make_studies_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """What is compared: one column a study."""
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
    return _side_by_side(
        "studies", "Studies", "study", labels, [(key, [fact[key] for fact in facts]) for key in facts[0]]
    )


def make_settings_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """Settings that differ, by their place in the space file's Study."""
    described = [
        {key: value for key, value in records.section("study").items() if key not in NOT_SETTINGS}
        for records in studies
    ]
    return _side_by_side("settings", "Settings that differ", "setting", labels, list(find_differences(described)))


def make_inputs_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """What differs in data and teachers."""
    found = [records.section("inputs") | {"teacher": _teacher(records)} for records in studies]
    return _side_by_side("inputs", "Data and teachers that differ", "what", labels, list(find_differences(found)))


def make_versions_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """What differs in code, versions and machines."""
    kept = ("commit", "dirty", "versions", "machine")
    found = [
        {key: records.section("provenance").get(key, ABSENT) for key in kept} | {"code of kdstudy": _code(records)}
        for records in studies
    ]
    return _side_by_side(
        "versions", "Code, versions and machines that differ", "what", labels, list(find_differences(found))
    )


def _code(records: StudyRecords) -> str:
    """The digest of kdstudy's own files in each version of the code that ran, without the study's space file."""
    versions = [version for version in records.section("code").values() if isinstance(version, dict)]
    packages = [{name: one for name, one in version.items() if name.startswith(PACKAGES)} for version in versions]
    return ", ".join(dict.fromkeys(digest(files)[:8] for files in packages)) or "not on record"


def make_budget_table(studies: Sequence[StudyRecords], labels: Sequence[str]) -> Table:
    """What each study was given and took, equal or not."""
    planned = [(word, [r.section("budget").get(name) for r in studies]) for name, word in _PLANNED]
    return _side_by_side("budget", "Budget", "budget", labels, planned + _spent(studies))


_PLANNED = (
    ("trials", "planned trials per searched cell"),
    ("epochs", "planned epochs per trial"),
    ("seeds", "planned confirm seeds per cell"),
    ("wall_hours", "cap on hours"),
    ("gpu_hours", "cap on GPU hours"),
)


def _spent(studies: Sequence[StudyRecords]) -> list[tuple[str, list[Any]]]:
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
    """Each leaf in which descriptions differ: its dotted name and its value in each; arms are matched by name."""
    parts = [_parts(value) for value in values]
    if all(part is not None for part in parts) and _alike(values):
        found = [part for part in parts if part is not None]
        for key in dict.fromkeys(key for part in found for key in part):
            yield from find_differences([part.get(key, ABSENT) for part in found], f"{path}.{key}" if path else key)
    elif any(value != values[0] for value in values):
        yield path, list(values)


def _parts(value: Any) -> Mapping[str, Any] | None:
    """A description's entries by name; None for what has none."""
    if isinstance(value, dict):
        return value
    named = isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value)
    if not named or len({str(item["name"]) for item in value}) < len(value):
        return None
    return {str(item["name"]): {key: part for key, part in item.items() if key != "name"} for item in value}


def _alike(values: Sequence[Any]) -> bool:
    """Whether it makes sense to look inside: not where one study has KD and the other DKD."""
    return len({str(value.get("is")) if isinstance(value, dict) else type(value).__name__ for value in values}) == 1


def _teacher(records: StudyRecords) -> dict[str, Any]:
    """What tells teachers apart, and what they score; how one was trained is among the settings."""
    teacher = records.section("inputs", "teacher") | records.section("teacher")
    teacher |= {records.test_metric: records.section("teacher", "metrics").get(records.test_metric)}
    kept = ("name", "parameters", "source", "fingerprint", records.test_metric)
    return {key: teacher[key] for key in kept if teacher.get(key) is not None}


def _side_by_side(
    name: str, caption: str, title: str, labels: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]
) -> Table:
    return Table(
        name=name,
        caption=caption,
        columns=(title, *labels),
        align="l" * (1 + len(labels)),
        rows=tuple((key, *(_written(value) for value in values)) for key, values in rows),
    )


def _written(value: Any) -> str:
    return "–" if value in (None, "", [], {}) else describe(value)
