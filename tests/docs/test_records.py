"""docs/records.md names every column with its type, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copytree
from typing import Any

import pandas as pd
import pytest

from reports.analysis.comparison import compare_arms, to_dataframe
from reports.load import load_study
from study.records.columns import EPOCH_COLUMNS, TRIAL_COLUMNS
from study.records.study_json import read_study
from study.trial import TrialState

DOC = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return DOC.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize(("title", "columns"), [("trials/", TRIAL_COLUMNS), ("epochs/", EPOCH_COLUMNS)])
def test_docs_name_every_column_and_type_in_order(title: str, columns: tuple[tuple[str, Any], ...]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", section(title).replace("| column |", ""), flags=re.M)
    assert rows[: len(columns)] == [(name, str(kind)) for name, kind in columns]


def test_docs_name_every_state() -> None:
    assert re.findall(r"^\| `([A-Z]+)` \|", section("trials/"), flags=re.M) == [str(state) for state in TrialState]


def test_docs_name_every_key_of_study_json(study: Path) -> None:
    rows = re.findall(r"^\| (`.+?) \|", section("study.json"), flags=re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(read_study(study))


def test_docs_name_every_column_of_the_comparison(study: Path) -> None:
    rows = re.findall(r"^\| (`.+?) \|", section("tables/"), flags=re.M)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(to_dataframe(compare_arms(load_study(study))).columns)


def test_docs_examples_run(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(reported, tmp_path / "runs" / "x")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", DOC, flags=re.S):
        exec(code, found)
    shown = capsys.readouterr().out
    assert "DKD" in shown
    assert isinstance(found["trials"], pd.DataFrame)
    assert found["by_seed"].shape == (8, 3)
    assert found["params"].shape == (10, 4)
