"""The examples of docs/extending.md are space files: they pass every check, and train."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import contents
from reports.build import build
from study.preflight import check_inputs
from study.space_file import load_space
from study.study import Budget
from tests.study.toy import drive, open_coordinator
from trainables import Digits

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
EXAMPLES = {match[1]: block for block in BLOCKS if (match := re.search(r'name="(\w+)",\n', block))}


def test_every_way_to_extend_a_study_has_an_example() -> None:
    assert list(EXAMPLES) == ["mse", "widths", "power", "plain", "npz", "brightness"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_passes_every_check_and_trains(name: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(EXAMPLES[name], encoding="utf-8")
    write_digits(tmp_path / "images.npz")
    study = load_space(tmp_path / "example.py", None, tmp_path).study
    check_inputs(study, tmp_path)
    task = study.task.with_shorter_preparations(0.1)
    study = dataclasses.replace(study, task=task, budget=Budget(trials=1, epochs=1, seeds=1), confirm_on="train")
    coordinator = open_coordinator(study, tmp_path)
    assert drive(coordinator, tmp_path)
    assert coordinator.done, coordinator.problems


def test_table_of_ones_own_is_written_and_shown(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (block for block in BLOCKS if "def make_tables" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    monkeypatch.setattr(contents, "TABLES", (*contents.TABLES, contents.ReportTable(names["make_tables"], "budget")))
    page = build(study).read_text(encoding="utf-8")
    assert "Confirm seeds of this study" in page.split('<section id="budget">')[1].split("</section>")[0]
    assert {path.suffix for path in (study / "tables").glob("seeds.*")} == {".csv", ".md", ".tex"}


def write_digits(path: Path) -> None:
    """Write scikit-learn's digits in the layout of the example of a data set."""
    digits = Digits().load()
    np.savez(
        path,
        x_train=digits.train_images[:, 0],
        y_train=digits.train_labels,
        x_test=digits.test_images[:, 0],
        y_test=digits.test_labels,
    )
