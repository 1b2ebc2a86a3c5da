"""Provenance: every fact that study.json has, in groups, and a citation."""

from __future__ import annotations

from pathlib import Path

from reports.load import load_study
from reports.tables import provenance


def test_provenance_holds_commit_versions_machine_seeds_and_hashes(study: Path) -> None:
    groups = {table.caption: dict(table.rows) for table in provenance.make_tables(load_study(study))}
    assert next(iter(groups)) == "Run"
    assert groups["Run"]["commit"].endswith("with uncommitted changes")
    assert groups["Run"]["confirm seeds"].startswith("1000, 1001")
    assert groups["Versions"]["torch"] == "2.9.0"
    assert groups["Machine"]["cores"] == "2"
    assert (groups["Data"]["fingerprint"], groups["Teacher"]["fingerprint"]) == ("5f1c0a9be2d34471", "9d2e6c11aa07f3b5")


def test_citation_names_question_year_version_and_data(study: Path) -> None:
    records = load_study(study)
    citation = provenance.make_citation(records)
    assert citation.startswith(f"@misc{{{records.study['name']},\n  title = {{{records.study['question']}}},\n")
    assert f"  year = {{{records.section('provenance')['updated'][:4]}}}," in citation
    assert "data 5f1c0a9be2d34471}," in citation


def test_study_without_provenance_has_no_empty_table(study: Path) -> None:
    records = load_study(study)
    for key in ("provenance", "inputs", "teacher"):
        records.study.pop(key, None)
    assert [table.caption for table in provenance.make_tables(records)] == ["Run"]
    assert provenance.make_citation(records).endswith("\n}")
