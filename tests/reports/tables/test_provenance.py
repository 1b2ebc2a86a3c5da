from __future__ import annotations

from pathlib import Path

from reports.load import load_study
from reports.tables import provenance


def test_provenance_holds_commit_versions_machine_seeds_and_hashes(study: Path) -> None:
    facts = dict(provenance.make_tables(load_study(study))[0].rows)
    assert facts["commit"].endswith("with uncommitted changes")
    assert facts["version of torch"] == "2.9.0"
    assert facts["machine cores"] == "2"
    assert facts["confirm seeds"].startswith("1000, 1001")
    assert (facts["data fingerprint"], facts["teacher fingerprint"]) == ("5f1c0a9be2d34471", "9d2e6c11aa07f3b5")
