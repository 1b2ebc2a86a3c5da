"""The sentences of a report: the data, a summary of each comparison, warnings and problems.

All sentences are derived from the records, and claim no more than the verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from reports.analysis import published
from reports.analysis.across_students import compare_nets, pool_students
from reports.analysis.comparison import Comparison
from reports.analysis.verdicts import Contrast
from reports.format.metrics import Metric
from reports.format.values import count_of, format_params, join_words
from reports.load import StudyRecords
from study.code_version import SPACE_FILE
from study.trial import SKIPPED

SPLITS = (("train", "training"), ("val", "validation"), ("test", "test"))
NOT_SHOWN = "published figures are not shown next to measured ones"

MAX_FILES = 3
"""Changed files that are named one by one; further ones are counted."""

TUNING_ALONE = "the latter was not searched alike: a gain may come from tuning alone"

MAX_UNDECIDED = 2
"""Undecided comparisons that are described one by one; more share a phrase."""


def describe_data(records: StudyRecords) -> str:
    """Return the line below the title: the data, and whether the study follows a paper's protocol."""
    data = records.section("inputs", "data")
    sizes = [f"{data[key]:,} {word}" for key, word in SPLITS if isinstance(data.get(key), int)]
    samples = f": {join_words(sizes)} samples" if sizes else ""
    note = str(data.get("note") or "").rstrip(".")
    note = f" {note[0].upper()}{note[1:]}." if note else ""
    line = f"Data: {records.data_name}{samples}.{note}"
    if records.followed_protocol:
        given = "as far as the paper gives it; the assumptions name what is chosen here"
        return f"{line} Data and protocol of {records.declared_protocol}, {given}."
    if records.declared_protocol:
        return f"{line} Not {records.declared_protocol}'s data: {explain_incomplete_data(records)}; {NOT_SHOWN}."
    return f"{line} Not the data and protocol of any paper; {NOT_SHOWN}."


def explain_incomplete_data(records: StudyRecords) -> str:
    """Return why the data are not those of the declared protocol."""
    why = records.section("inputs", "data").get("why_incomplete")
    return str(why) if why else "images are missing or added"


def summarize_comparisons(comparisons: tuple[Comparison, ...]) -> list[str]:
    """Return a sentence per student with comparisons; if no student has any, a sentence per student."""
    compared = [comparison for comparison in comparisons if comparison.contrasts]
    return [summarize_comparison(comparison) for comparison in compared or comparisons]


def summarize_across_students(records: StudyRecords) -> list[str]:
    """Return a sentence on the verdicts over all students, and one on nets against nets, where the study has them."""
    pooled, nets = pool_students(records), compare_nets(records)
    lines = [summarize_comparison(pooled)] if pooled else []
    judged = [_describe_verdict(one.contrast, one.metric) for one in nets if one.contrast.paired]
    return lines + ([f"Nets against nets, not methods: {'; '.join(judged)}."] if judged else [])


def summarize_points(comparisons: tuple[Comparison, ...]) -> list[str]:
    """Return a sentence per student on the points of its fronts, each compared at its own student."""
    return [_summarize_points(comparison) for comparison in comparisons if comparison.point_contrasts]


def _summarize_points(comparison: Comparison) -> str:
    named = [
        replace(contrast, arm=f"{contrast.arm} ({format_params(point.student or point.params)})")
        for point in comparison.points
        for contrast in point.contrasts
    ]
    decided = [one for one in named if one.verdict not in (None, "undecided")]
    left = f"{len(named) - len(decided)} of {len(named)} comparisons undecided" if len(decided) < len(named) else ""
    parts = [*(_describe_verdict(one, comparison.metric) for one in decided), *([left] if left else [])]
    return f"{comparison.student}, points of fronts at equal student: {'; '.join(parts)}."


def summarize_comparison(comparison: Comparison) -> str:
    """Return the verdicts on one student's arms in one sentence, baselines left out."""
    alike = [row for row in comparison.claims if row.paired is not None and row.paired.alike]
    undecided = [row for row in comparison.claims if row.verdict == "undecided" and row not in alike]
    unjudged = [row for row in comparison.claims if row.not_judged]
    unmeasured = [row for row in comparison.claims if row.verdict is None and not row.not_judged]
    decided = [row for row in comparison.claims if row.verdict is not None and row not in (*undecided, *alike)]
    few = undecided if len(undecided) <= MAX_UNDECIDED else []
    parts = [_describe_verdict(row, comparison.metric) for row in (*decided, *few, *alike)]
    if undecided and not few:
        parts.append(f"{_name_pairs(undecided)} are undecided ({_format_range(undecided, comparison)})")
    for why in dict.fromkeys(row.not_judged for row in unjudged):
        rows = [row for row in unjudged if row.not_judged == why]
        parts.append(f"{_name_pairs(rows)} {'is' if len(rows) == 1 else 'are'} not judged: {why}")
    if unmeasured:
        parts.append(f"{_name_pairs(unmeasured)} {'has' if len(unmeasured) == 1 else 'have'} no result")
    return f"{comparison.student}: {'; '.join(parts) or 'nothing is compared'}."


def list_code_notes(comparison: Comparison) -> list[str]:
    """Return footnotes for a table whose runs were trained by different versions of the code."""
    notes = []
    if unjudged := [contrast for contrast in comparison.contrasts if contrast.not_judged]:
        notes.append(
            f"Not judged: {_name_pairs(unjudged)}. Code changed between these runs, so that a difference may come from "
            "the code instead of the arm; the column code of trials/ has the version of each run."
        )
    if mixed := [row.arm for row in comparison.rows if row.mixed]:
        notes.append(f"The mean of {join_words(mixed)} is over runs of different code and belongs to no version.")
    return notes


def describe_code_versions(records: StudyRecords) -> str | None:
    """Return which trials were trained by which version of the code; None if there is only one version."""
    rows = records.trials[(records.trials["phase"] != "prepare") & (records.trials["state"] != "SUPERSEDED")]
    versions = {str(code): group["phase"].value_counts(sort=False) for code, group in rows.groupby("code", sort=False)}
    if len(versions) < 2:
        return None
    described = [
        f"{code or 'not on record'} ({join_words([f'{count} {phase}' for phase, count in phases.items()])})"
        for code, phases in versions.items()
    ]
    changed = [name for name, digests in _collect_digests(records).items() if len(digests) > 1]
    more = [f"{len(changed) - MAX_FILES} more"] if len(changed) > MAX_FILES else []
    named = f" ({join_words(changed[:MAX_FILES] + more)})" if changed else ""
    return (
        f"Code changed between runs of this study{named}: its trials are of versions {join_words(described)}, by the "
        "column code of trials/; no comparison of different versions is judged."
    )


def _collect_digests(records: StudyRecords) -> dict[str, set[str | None]]:
    """Return the digests of each file in the versions of the code that ran."""
    versions = [version for version in records.section("code").values() if isinstance(version, dict)]
    names = dict.fromkeys(name for version in versions for name in version)
    space = Path(str(records.section("space").get("path") or SPACE_FILE)).name
    return {space if name == SPACE_FILE else name: {version.get(name) for version in versions} for name in names}


def summarize_baselines(comparison: Comparison) -> str | None:
    """Return the verdicts among baselines in one sentence; None if no baselines are compared."""
    rows = [row for row in comparison.contrasts if row.baseline and row.verdict and row not in comparison.claims]
    if not rows:
        return None
    verdicts = [_describe_verdict(row, comparison.metric) for row in rows]
    return f"{comparison.student}, among the baselines: {'; '.join(verdicts)}."


def explain_unpublished(records: StudyRecords) -> str | None:
    """Return why no published figures are shown; None if they are."""
    methods = tuple(cell.published for cell in records.cells)
    apart = "" if records.followed_protocol == records.declared_protocol else f" ({explain_incomplete_data(records)})"
    return published.explain_absence(records.followed_protocol, records.data_name + apart, records.students, methods)


def list_problems(records: StudyRecords) -> list[str]:
    """Return sentences on unfinished work, failed trials, changed code and damaged records."""
    lines = list(_describe_unfinished(records))
    failed = records.trials[records.trials["state"] == "FAILED"]
    if len(failed):
        by_phase = [f"{count} in {phase}" for phase, count in failed["phase"].value_counts(sort=False).items()]
        lines.append(f"{count_of(len(failed), 'trial')} failed ({', '.join(by_phase)}).")
    lines += [skipped] if (skipped := _describe_skipped(records)) else []
    lines += [line] if (line := describe_code_versions(records)) else []
    lines += [f"Damaged or doubtful records: {warning}." for warning in records.warnings]
    return lines


def _describe_skipped(records: StudyRecords) -> str:
    """Return how many search trials of each cell the user ended; empty if none."""
    by_hand = records.trials["reason"].fillna("").str.startswith(SKIPPED) & (records.trials["state"] == "PRUNED")
    counts = records.trials[by_hand]["cell"].value_counts(sort=False)
    listed = join_words([f"{count} of {cell}" for cell, count in counts.items()])
    return f"Search trials were skipped by hand: {listed}. Their searches are shorter than planned." if listed else ""


def _describe_unfinished(records: StudyRecords) -> Iterable[str]:
    counts = records.confirmed["cell"].value_counts()
    planned = records.get_budget("seeds")
    short = [cell for cell in records.cells if counts.get(cell.name, 0) < planned]
    if not records.finished:
        done = sum(min(int(counts.get(cell.name, 0)), planned) for cell in records.cells)
        yield (
            f"This study is not finished: {done} of {planned * len(records.cells)} confirm runs have a result. "
            "All figures and verdicts are provisional. If its run has ended, the same command resumes it; "
            "with --retry-failed it also repeats failed trials."
        )
    elif short:
        names = join_words([f"{cell.name} ({counts.get(cell.name, 0)} of {planned})" for cell in short])
        yield f"Not every cell has all its confirm runs: {names}."


def _describe_verdict(contrast: Contrast, metric: Metric) -> str:
    assert contrast.paired is not None
    arm, versus = contrast.arm, contrast.versus
    if contrast.paired.alike:
        return f"{arm} and {versus} gave the same with every seed"
    unit = metric.after_difference
    by = f"{metric.format_signed(contrast.paired.difference)}{unit} {metric.noun}"
    margin = f" by {metric.format(contrast.margin)}{unit} or more" if contrast.margin is not None else ""
    alone = f"; {TUNING_ALONE}" if contrast.tuning_alone else ""
    alone += "; their students differ" if contrast.students_differ else ""
    if contrast.verdict == "not worse":
        return f"{arm} is not worse than {versus}{margin} ({by}{alone})"
    if contrast.verdict != "undecided":
        within = f"; not{margin}" if contrast.verdict == "worse" and contrast.within_margin else ""
        return f"{arm} is {contrast.verdict} than {versus} ({by}{within}{alone})"
    seeds = contrast.seeds_needed
    needed = f"; about {seeds} seeds would decide a difference of this size" if seeds else ""
    return f"{arm} against {versus} is undecided ({by}{needed}{alone})"


def _format_range(rows: list[Contrast], comparison: Comparison) -> str:
    """Return the range of the differences: "between −0.15 and +0.01 MAE"."""
    differences = sorted(row.paired.difference for row in rows if row.paired is not None)
    low, high = comparison.metric.format_signed(differences[0]), comparison.metric.format_signed(differences[-1])
    return f"between {low} and {high}{comparison.metric.after_difference} {comparison.metric.noun}"


def _name_pairs(rows: list[Contrast]) -> str:
    """Return arms grouped by the arm they are compared with: "DKD + LP and KD against DKD"."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.versus, []).append(row.arm)
    return join_words([f"{join_words(arms)} against {versus}" for versus, arms in groups.items()])
