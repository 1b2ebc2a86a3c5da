"""docs/python.md: its examples run, with a smaller budget and without Ray, and name what there is."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import study as package
from study import Budget, Study, StudyResults, load_study, run_study
from study.space_file import make_space
from tests.study.toy import train_without_ray

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")


def run_without_ray(study: Study, storage: str) -> StudyResults:
    return load_study(train_without_ray(make_space(study), Path(storage), Budget(trials=2, epochs=1, seeds=2)))


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(package, "run_study", run_without_ray, raising=False)
    found: dict[str, Any] = {"__name__": __name__}
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(code, found)
    results = found["results"]
    assert results.finished
    assert len(found["search"]) == 2
    assert re.findall(r'results\.figures\["(.+?)"\]', PAGE)[0] in results.figures
    temperature = results.best["resnet8w4 / KD"]["temperature"]
    assert str(temperature) in capsys.readouterr().out


def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(package, "run_study", run_without_ray, raising=False)
    found: dict[str, Any] = {"__name__": __name__}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), found)
    assert found["results"].finished
    assert len(found["search"]) == 2 * 2
    assert found["results"].best.keys() == {"small_net-width{8..32} / no distillation", "small_net-width{8..32} / KD"}
    assert all(not cell.get("outputs") for cell in notebook["cells"])


def test_page_names_every_option_and_attribute() -> None:
    options = [name for name in inspect.signature(run_study).parameters if name not in ("study", "storage")]
    attributes = [name for name in vars(StudyResults) if not name.startswith("_")]
    assert all(f"`{name}`" in PAGE for name in (*options, *attributes))
