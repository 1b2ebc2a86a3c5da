"""The report in sentences: which data, the answer, what the seeds can decide, what is missing.

Every sentence is made from the records; none claims more than the verdicts do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reports.analysis import published, statistics
from reports.analysis.comparison import ArmResult, Comparison
from reports.format.values import join_words, pluralize
from reports.load import StudyRecords
from study.code_version import SPACE_FILE


def describe_data(records: StudyRecords) -> str:
    """The first line under the title: which data, and whether under a paper's protocol."""
    data = records.section("inputs", "data")
    sizes = [f"{data[key]:,} {word}" for key, word in _SPLITS if isinstance(data.get(key), int)]
    of = f": {join_words(sizes)} samples" if sizes else ""
    said = str(data.get("note") or "").rstrip(".")
    note = f" {said[0].upper()}{said[1:]}." if said else ""
    line = f"Data: {records.data_name}{of}.{note}"
    if records.followed_protocol:
        return f"{line} Data and protocol of {records.declared_protocol}."
    if records.declared_protocol:
        return f"{line} Not {records.declared_protocol}'s data: {explain_incomplete_data(records)}; {_APART}."
    return f"{line} Not the data and protocol of any paper; {_APART}."


def explain_incomplete_data(records: StudyRecords) -> str:
    """Why the data are not those of the study's declared protocol."""
    why = records.section("inputs", "data").get("why_incomplete")
    return str(why) if why else "images are missing or added"


_APART = "published figures are not shown beside measured ones"
_SPLITS = (("train", "training"), ("val", "validation"), ("test", "test"))


MOST_FILES = 3
"""Changed files up to which a line names all."""

MOST_SINGLY = 2
"""So many undecided comparisons are told one by one."""


def summarize_comparisons(comparisons: tuple[Comparison, ...]) -> list[str]:
    """`answer` of each student; a yardstick of which nothing is asked has none, unless nothing is asked at all."""
    return [summarize_comparison(comparison) for comparison in comparisons if comparison.comparisons] or [
        summarize_comparison(comparison) for comparison in comparisons
    ]


def summarize_comparison(comparison: Comparison) -> str:
    """One sentence on one student, made from the verdicts; the arms that are no baselines are what is asked about."""
    alike = [row for row in comparison.claims if row.paired is not None and row.paired.alike]
    undecided = [row for row in comparison.claims if row.verdict == "undecided" and row not in alike]
    unjudged = [row for row in comparison.claims if row.not_judged]
    open_rows = [row for row in comparison.claims if row.verdict is None and not row.not_judged]
    decided = [row for row in comparison.claims if row.verdict is not None and row not in (*undecided, *alike)]
    few = undecided if len(undecided) <= MOST_SINGLY else []
    parts = [_verdict(row, comparison) for row in (*decided, *few, *alike)]
    if undecided and not few:
        parts.append(f"{_against(undecided)} are undecided ({_range(undecided, comparison)})")
    for why in dict.fromkeys(row.not_judged for row in unjudged):
        rows = [row for row in unjudged if row.not_judged == why]
        parts.append(f"{_against(rows)} {'is' if len(rows) == 1 else 'are'} not judged: {why}")
    if open_rows:
        parts.append(f"{_against(open_rows)} {'has' if len(open_rows) == 1 else 'have'} no result")
    return f"{comparison.student}: {'; '.join(parts) or 'nothing is compared'}."


def list_code_notes(comparison: Comparison) -> list[str]:
    """The footnotes of a table some of whose runs were trained by other code than others."""
    notes = []
    if unjudged := [row for row in comparison.rows if row.not_judged]:
        notes.append(
            f"Not judged: {_against(unjudged)}. Code changed between these runs, so that a difference may come from "
            "the code instead of the arm; the column code of trials/ has the version of each run."
        )
    if mixed := [row.arm for row in comparison.rows if row.mixed]:
        notes.append(f"The mean of {join_words(mixed)} is over runs of different code and belongs to no version.")
    return notes


def describe_code_versions(records: StudyRecords) -> str | None:
    """Which rows are of which code, in one line; None if all are of one version."""
    rows = records.trials[(records.trials["phase"] != "prepare") & (records.trials["state"] != "SUPERSEDED")]
    versions = {str(code): of["phase"].value_counts(sort=False) for code, of in rows.groupby("code", sort=False)}
    if len(versions) < 2:
        return None
    said = [
        f"{code or 'not on record'} ({join_words([f'{count} {phase}' for phase, count in phases.items()])})"
        for code, phases in versions.items()
    ]
    changed = [name for name, digests in _digests(records).items() if len(digests) > 1]
    more = [f"{len(changed) - MOST_FILES} more"] if len(changed) > MOST_FILES else []
    named = f" ({join_words(changed[:MOST_FILES] + more)})" if changed else ""
    return (
        f"Code changed between runs of this study{named}: its trials are of versions {join_words(said)}, by the column "
        "code of trials/; no comparison of different versions is judged."
    )


def _digests(records: StudyRecords) -> dict[str, set[str | None]]:
    """By file, its digests in the versions of the code that ran."""
    versions = [version for version in records.section("code").values() if isinstance(version, dict)]
    names = dict.fromkeys(name for version in versions for name in version)
    space = Path(str(records.section("space").get("path") or SPACE_FILE)).name
    return {space if name == SPACE_FILE else name: {version.get(name) for version in versions} for name in names}


def summarize_baselines(comparison: Comparison) -> str | None:
    """One sentence on how baselines fare against each other, where they are compared."""
    rows = [row for row in comparison.rows if row.baseline and row.verdict and row not in comparison.claims]
    if not rows:
        return None
    return f"{comparison.student}, among the baselines: {'; '.join(_verdict(row, comparison) for row in rows)}."


def warn_of_few_seeds(seeds: int, comparisons: int) -> str | None:
    """Says beforehand that so many seeds cannot decide so many comparisons, and how many would; None if they can."""
    smallest, needed = statistics.smallest_p(seeds), statistics.seeds_to_decide(comparisons)
    if seeds < 1 or comparisons < 1 or seeds >= needed:
        return None
    corrected = f", {min(1.0, smallest * comparisons):.2g} after correction for {comparisons} comparisons"
    return (
        f"{seeds} {pluralize(seeds, 'seed')} cannot decide: the sign-flip test gives no p below {smallest:.2g}"
        f"{corrected if comparisons > 1 else ''}, so every verdict stays undecided, however large the effect. "
        f"It takes at least {needed} seeds: --seeds {needed}."
    )


def explain_unpublished(records: StudyRecords) -> str | None:
    """Why no published figures are shown; None if they are."""
    methods = tuple(cell.published for cell in records.cells)
    apart = "" if records.followed_protocol == records.declared_protocol else f" ({explain_incomplete_data(records)})"
    return published.explain_absence(records.followed_protocol, records.data_name + apart, records.students, methods)


def list_problems(records: StudyRecords) -> list[str]:
    """What is missing: unfinished work, failed trials, cells without a result, damaged records."""
    lines = list(_unfinished(records))
    failed = records.trials[records.trials["state"] == "FAILED"]
    if len(failed):
        by_phase = [f"{count} in {phase}" for phase, count in failed["phase"].value_counts(sort=False).items()]
        lines.append(f"{len(failed)} {pluralize(len(failed), 'trial')} failed ({', '.join(by_phase)}).")
    lines += [line] if (line := describe_code_versions(records)) else []
    lines += [f"Damaged or doubtful records: {warning}." for warning in records.warnings]
    return lines


def _unfinished(records: StudyRecords) -> Iterable[str]:
    counts = records.confirmed["cell"].value_counts()
    planned = records.get_budget("seeds")
    short = [cell for cell in records.cells if counts.get(cell.name, 0) < planned]
    if not records.finished:
        done = sum(min(int(counts.get(cell.name, 0)), planned) for cell in records.cells)
        yield (
            f"This study is not finished: {done} of {planned * len(records.cells)} confirm runs have a result. "
            "All figures and verdicts are provisional; the same command goes on with it, "
            "and with --retry-failed runs failed trials again."
        )
    elif short:
        names = join_words([f"{cell.name} ({counts.get(cell.name, 0)} of {planned})" for cell in short])
        yield f"Not every cell has all its confirm runs: {names}."


def _verdict(row: ArmResult, comparison: Comparison) -> str:
    assert row.paired is not None
    if row.paired.alike:
        return f"{row.arm} and {row.versus} gave the same with every seed"
    unit = f" {comparison.metric.difference_unit}" if comparison.metric.difference_unit else ""
    by = f"{comparison.metric.format_signed(row.paired.difference)}{unit} {comparison.metric.noun}"
    if row.verdict != "undecided":
        return f"{row.arm} is {row.verdict} than {row.versus} ({by})"
    seeds = f"; about {row.seeds_needed} seeds would decide a difference of this size" if row.seeds_needed else ""
    return f"{row.arm} against {row.versus} is undecided ({by}{seeds})"


def _range(rows: list[ArmResult], comparison: Comparison) -> str:
    """ "between −0.15 and +0.01 MAE": the differences seen."""
    seen = sorted(row.paired.difference for row in rows if row.paired is not None)
    unit = f" {comparison.metric.difference_unit}" if comparison.metric.difference_unit else ""
    low, high = comparison.metric.format_signed(seen[0]), comparison.metric.format_signed(seen[-1])
    return f"between {low} and {high}{unit} {comparison.metric.noun}"


def _against(rows: list[ArmResult]) -> str:
    """ "DKD + LP and KD against DKD": arms grouped by what they are compared with."""
    groups: dict[str | None, list[str]] = {}
    for row in rows:
        groups.setdefault(row.versus, []).append(row.arm)
    return join_words([f"{join_words(arms)} against {versus}" for versus, arms in groups.items()])
