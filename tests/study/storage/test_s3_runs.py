"""Whole studies whose storage lies on S3: the same as in a folder, also from another machine and after a kill."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from reports import export
from study.engine.coordinator import Coordinator
from study.run import main
from study.space_file import load_space
from study.storage.locations import local_path
from tests.study import s3
from tests.study.engine.test_population_progress import drive as drive_population
from tests.study.folder import Folder, folder_trials_ended, wait_for
from tests.study.toy import drive, open_coordinator

RUN = "from study import run; from study.storage import lease; lease.STALE_SECONDS = {stale}; run.main()"

DIGITS = """
from study import Arm, Budget, Study
from trainables import KD, Classification, CropFlip, Digits, NoDistillation, ResNet, Teacher

study = Study(
    name="small",
    question="Do the teacher and its outputs go by way of S3?",
    task=Classification(Digits(train=100), Teacher(ResNet(14), epochs=1), views=CropFlip(padding=1, flip=False)),
    students=(ResNet(8, width=4),),
    arms=(Arm("none", NoDistillation(), baseline=True), Arm("KD", KD())),
    budget=Budget(trials=1, epochs=1, seeds=1),
    confirm_on="train",
)
"""

SEARCHES = """
from study import Arm, Budget, PopulationBased, Study, SuccessiveHalving, uniform
from trainables import MovingLoss, MovingOptimum, SimulatedStudent

study = Study(
    name="toy",
    question="Do trials, and checkpoints that are copied, go by way of S3?",
    task=MovingOptimum(seconds_per_epoch=0.1),
    students=(SimulatedStudent(),),
    arms=(
        Arm("plain", MovingLoss(), baseline=True),
        Arm("searched", MovingLoss(x=uniform(0, 1))),
        Arm(
            "dynamic",
            MovingLoss(x=uniform(0, 1), y=uniform(0, 1)),
            search=PopulationBased(interval_epochs=2, quantile=0.4),
        ),
    ),
    budget=Budget(trials=5, epochs=6, seeds=2),
    stopping=SuccessiveHalving(min_epochs=1, reduction=2),
)
"""
"""Of its 76 epochs, the first 20 are the population's; then both arms search."""


class Elsewhere(Folder):
    """A space file, run by machines that keep their studies on S3."""

    def __init__(self, path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch):
        super().__init__(path)
        self.endpoint, self.stale, self._monkeypatch = endpoint, 120.0, monkeypatch
        self.at("here")

    @property
    def storage(self) -> str:
        return f"s3://{s3.BUCKET}/{self.path.name}"

    def at(self, machine: str) -> None:
        """What follows happens on this machine."""
        self.cache = self.path / machine
        for name, value in s3.environment(self.endpoint, self.cache).items():
            self._monkeypatch.setenv(name, value)

    def command(self, *options: str) -> list[str]:
        run = [sys.executable, "-c", RUN.format(stale=self.stale), str(self.space), "--max-concurrent", "1"]
        return [*run, "--storage-path", self.storage, *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        # a request is some milliseconds of the server's, and there are hundreds: a busy machine takes its time
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=300, check=False)

    def call(self, *options: str) -> Result:
        """Call the command in this process, for a run that starts no Ray."""
        return CliRunner().invoke(main, self.command(*options)[3:])

    def land(self) -> None:
        s3.land(self.endpoint, self.path.name, self.runs)

    def epochs_recorded(self) -> int:
        s3.land(self.endpoint, f"{self.path.name}/toy/epochs", self.study / "epochs")
        return super().epochs_recorded()


@pytest.fixture
def there(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    return Elsewhere(tmp_path, endpoint, monkeypatch)


def lasting(rows: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on when and where it was computed."""
    of_the_run = ["seconds", "started", "ended", "recorded", "worker", "device", "cpus", "gpus", "code"]
    return rows.drop(columns=of_the_run, errors="ignore")


def run_in_process(space: Path, storage: Path, name: str, drive: Callable[[Coordinator, Path], bool]) -> Path:
    """Run the study without Ray, one trial after the other; return its folder."""
    study = dataclasses.replace(load_space(space, None, None).study, name=name)
    coordinator = open_coordinator(study, storage)
    assert drive(coordinator, storage)
    coordinator.writer.records.compact()
    return storage / study.name


@pytest.mark.slow
def test_another_machine_continues_after_a_killed_driver_and_the_study_equals_one_in_a_folder(
    there: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.space.write_text(SEARCHES)
    process = there.start()
    wait_for(lambda: there.epochs_recorded() > 26, process, 240, interval=1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there.land()
    ended = folder_trials_ended(there)
    assert ended

    there.at("other")
    there.stale = 0.0
    resumed = there.run()
    assert resumed.returncode == 0, resumed.stderr
    assert "continues with" in resumed.stdout
    assert f"report: {there.storage}/toy/report.html" in resumed.stdout
    there.land()
    after = there.trials()
    assert json.loads((there.study / "study.json").read_text())["finished"]
    assert {path.name for path in there.study.iterdir()} >= {"report.html", "tables", "optuna.journal", "study.json"}
    for trial_id, at in ended.items():
        assert after.set_index("trial_id").ended[trial_id] == at, "a trial that had ended was run again"
    read = pd.read_parquet(f"{there.storage}/toy/trials")
    pd.testing.assert_frame_equal(read, after)
    kept = {name.split("/")[0] for name in s3.objects(there.endpoint, f"{there.path.name}/toy/checkpoints")}
    confirmed, chained = after.phase == "confirm", (after.phase == "search") & (after.arm == "dynamic")
    assert kept >= set(after[confirmed].trial_id), "a checkpoint is missing"
    assert not kept & set(after[chained].trial_id), "a checkpoint of a chain is left"

    there.at("a third")
    again = there.call()
    assert again.exit_code == 0, again.stderr
    assert f"{there.storage}/toy is finished: nothing to train, writing the report again" in again.stdout
    there.land()
    pd.testing.assert_frame_equal(there.trials(), after)

    with monkeypatch.context() as patched:
        patched.setattr("trainables.tasks.moving.time.sleep", lambda seconds: None)
        undisturbed = run_in_process(there.space, there.path / "local", "toy", drive_population)
    for table in ("trials", "epochs"):
        expected = pd.read_parquet(undisturbed / table)
        pd.testing.assert_frame_equal(lasting(getattr(there, table)()), lasting(expected), check_like=True)
    assert {"PRUNED", "COMPLETE"} == set(after.state)


@pytest.mark.slow
def test_teacher_and_its_outputs_serve_a_study_on_another_machine(there: Elsewhere) -> None:
    there.space.write_text(DIGITS)
    first = there.run()
    assert first.returncode == 0, first.stderr
    assert "prepare: train teacher" in first.stdout
    assert "prepare: store teacher outputs" in first.stdout
    kept = {name.rsplit("/", 1)[-1] for name in s3.objects(there.endpoint, f"{there.path.name}/teachers")}
    assert {"teacher.json", "weights.safetensors"} <= kept
    assert s3.objects(there.endpoint, f"{there.path.name}/outputs")

    there.at("other")
    planned = there.call("--name", "second", "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert "prepare:" not in planned.stdout
    second = run_in_process(there.space, local_path(there.storage), "second", drive)
    there.land()
    scores = [pd.read_parquet(path).set_index("cell") for path in (there.runs / "small" / "trials", second / "trials")]
    metrics = [name for name in scores[1] if name.startswith("test/")]
    assert metrics
    assert len(scores[1]) == 2, "the teacher was trained again"
    pd.testing.assert_frame_equal(scores[1][metrics], scores[0].loc[scores[1].index, metrics])

    there.at("a third")
    out = there.path / "exported"
    study = f"{there.storage}/small"
    done = CliRunner().invoke(export.main, ["best", "--study", study, "--cell", "resnet8w4 / KD", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    assert {"MODEL_CARD.md", "model.safetensors"} <= {path.name for path in out.iterdir()}


def test_missing_bucket_ends_a_run_before_anything_is_read(there: Elsewhere) -> None:
    there.write()
    done = subprocess.run(
        there.command("--storage-path", "s3://nowhere/x"), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: s3://nowhere/x at http://127.0.0.1:")
    assert done.stderr.count("\n") == 1
