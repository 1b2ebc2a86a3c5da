"""study.json: written in one step, read only where it is whole and of a known schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.records.parquet_table import RecordsError
from study.records.study_json import read_study, write_study


def test_study_json_survives_a_failed_write(tmp_path: Path) -> None:
    write_study(tmp_path, {"schema": 1, "name": "first"})
    with pytest.raises(TypeError):
        write_study(tmp_path, {"schema": 1, "name": object()})
    assert read_study(tmp_path)["name"] == "first"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no study"),
        ("{half", "is damaged"),
        (json.dumps({"schema": 99}), "schema 99; this version reads up to 2"),
    ],
)
def test_folder_that_is_no_study_of_this_version_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(RecordsError, match=message):
        read_study(tmp_path)
