"""Studies from Python: results as frames and figures, and runs in scripts, threads and beside another Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import ray

from reports import load
from reports.analysis.search import find_best_trial
from study import Arm, Budget, Study, choice, load_study, run_study, uniform
from study.cli.options import PythonOptions
from study.errors import InputError
from study.records.lock import read_lock_holder
from study.records.parquet_table import RecordsError
from study.space_file import make_space
from tests.reports.fake_study import Writer
from tests.study.toy import BASELINE, toy
from trainables.tasks.simulated import Extra, Simulated, SimulatedLoss, SimulatedStudent

SEARCHED = Arm("searched", SimulatedLoss(x=uniform(0, 1), extra=choice(off=None, on=Extra(z=uniform(0, 1)))))


def make_study() -> Study:
    task = Simulated(teacher_epochs=0)
    return toy((BASELINE, SEARCHED), task=task, budget=Budget(trials=5, epochs=4, seeds=2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Writer(tmp_path / "fake").fill().write()


def test_results_are_frames_with_typed_settings_and_figures_by_name(folder: Path) -> None:
    results = load_study(str(folder))
    assert (results.folder, results.finished) == (folder, True)
    search = results.trials[results.trials["phase"] == "search"]
    assert search["params.logits.temperature"].dtype == float
    assert set(search["params.logits.prune.shape"]) == {"linear", "cosine"}
    assert len(results.epochs) == results.trials["epochs_done"].sum()
    assert list(results.comparison["arm"]) == ["none", "DKD", "DKD + LP searched"]
    assert len(results.figures) > 5
    assert all(isinstance(figure, go.Figure) for figure in results.figures.values())


def test_best_holds_the_settings_that_are_confirmed(folder: Path) -> None:
    records = load.load_study(folder)
    (cell,) = (cell for cell in records.cells if cell.searched)
    best, trial = load_study(folder).best, find_best_trial(records, cell)
    assert trial is not None
    assert list(best) == [cell.name]
    assert best[cell.name]["logits.temperature"] == trial["params.logits.temperature"]


def test_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="no study"):
        load_study(tmp_path)


def test_continuation_is_named_as_a_call() -> None:
    options = PythonOptions(space=Path("Python"), storage_path="/data/runs", max_concurrent=2, address="1.2.3.4:5")
    assert options.to_command() == "run_study(study, storage='/data/runs', max_concurrent=2)"
    assert PythonOptions(space=Path("Python")).to_command() == "run_study(study)"


@dataclass(frozen=True)
class OwnStudent(SimulatedStudent):
    """A student of this module, which is no installed package."""


def test_code_of_the_classes_modules_counts() -> None:
    own = make_space(toy(students=(OwnStudent(),))).code
    assert f"{__name__.replace('.', '/')}.py" in own.files
    assert "tests/study/toy.py" in own.files  # which it imports
    assert own.digest != make_space(toy()).code.digest


def test_study_that_cannot_be_sent_is_refused() -> None:
    study = toy()
    object.__setattr__(study, "question", threading.Lock())
    with pytest.raises(InputError, match="cannot be sent"):
        run_study(study)


def test_dashboard_is_refused() -> None:
    with pytest.raises(InputError, match="space file"):
        run_study(toy(), address="http://127.0.0.1:8265")


@pytest.fixture
def own_ray() -> Iterator[None]:
    """A Ray that the caller of run_study has started: the study runs on it."""
    ray.init(address="local", num_cpus=1, include_dashboard=False)  # not on a cluster that runs here by chance
    yield
    ray.shutdown()


@pytest.mark.slow
def test_run_in_a_thread_beside_a_ray_of_its_own_gives_results_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own_ray: None
) -> None:
    @dataclass(frozen=True)
    class LocalStudent(SimulatedStudent):
        """A student that no other process can import."""

    study, found = replace(make_study(), students=(LocalStudent(),)), []
    thread = threading.Thread(target=lambda: found.append(run_study(study, tmp_path, max_concurrent=1)))
    thread.start()
    thread.join()
    (results,) = found
    assert results.finished
    assert set(results.trials["params.extra"].dropna()) <= {"off", "on"}
    assert "student / searched: confirmed" in capsys.readouterr().out
    assert run_study(study, str(tmp_path)).finished
    assert "nothing to train" in capsys.readouterr().out
    assert ray.get(ray.put(1)) == 1, "the Ray of its own still works"


@pytest.mark.slow
def test_bad_input_is_raised_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written") as refusal:
        run_study(make_study(), tmp_path / "file")
    assert "\n" not in str(refusal.value)


SCRIPT = """
import sys
from dataclasses import dataclass
from pathlib import Path

from study import Arm, Budget, Study, run_study, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

@dataclass(frozen=True)
class MyLoss(SimulatedLoss):
    pass

study = Study(
    name="mine", question="?", task=Simulated(seconds_per_epoch=0.4, teacher_epochs=0),
    students=(SimulatedStudent(),), budget=Budget(trials=3, epochs=3, seeds=2),
    arms=(Arm("plain", MyLoss(needs_teacher=False), baseline=True), Arm("searched", MyLoss(x=uniform(0, 1)))),
)
print(run_study(study, "runs", max_concurrent=1).finished)
"""


def write_script(folder: Path) -> list[str]:
    (folder / "script.py").write_text(SCRIPT)
    return [sys.executable, "script.py"]


@pytest.mark.slow
def test_end_of_a_script_interrupts_the_study_of_its_own_classes_which_continues(tmp_path: Path) -> None:
    study, command = tmp_path / "runs" / "mine", write_script(tmp_path)
    trained = 0
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        wait_until(lambda: count_epochs(study) > trained)  # noqa: B023 - it is called at once
        os.kill(process.pid, number)
        assert process.wait(60) != 0
        wait_until(lambda: not read_lock_holder(study))  # the study's own process has written its rows
        trained = count_epochs(study)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True", done.stdout + done.stderr


def count_epochs(study: Path) -> int:
    epochs = study / "epochs"
    return len(pd.read_parquet(epochs).drop_duplicates(["trial_id", "epoch"])) if any(epochs.glob("*.parquet")) else 0


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
