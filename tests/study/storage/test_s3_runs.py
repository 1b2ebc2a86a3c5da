"""Whole studies whose storage lies on S3: the same as in a folder, also from another machine and after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.study import s3
from tests.study.folder import Folder, folder_trials_ended, is_whole, wait_for
from tests.study.toy import drive, open_coordinator, toy

RUN = "from study import run; from study.storage import lease; lease.STALE_SECONDS = {stale}; run.main()"

DIGITS = """
from study import Arm, Budget, Study
from trainables import KD, Classification, CropFlip, Digits, NoDistillation, ResNet, Teacher

study = Study(
    name="small",
    question="Do the teacher and its outputs go by way of S3?",
    task=Classification(Digits(train=400), Teacher(ResNet(14), epochs=1), views=CropFlip(padding=1, flip=False)),
    students=(ResNet(8, width=4),),
    arms=(Arm("none", NoDistillation(), baseline=True), Arm("KD", KD())),
    budget=Budget(trials=1, epochs=1, seeds=1),
)
"""


POPULATION = """
from study import Arm, Budget, PopulationBased, Study, uniform
from trainables import MovingLoss, MovingOptimum, SimulatedStudent

study = Study(
    name="toy",
    question="Do checkpoints that are copied go by way of S3?",
    task=MovingOptimum(seconds_per_epoch=0.1),
    students=(SimulatedStudent(),),
    arms=(
        Arm("plain", MovingLoss(), baseline=True),
        Arm(
            "dynamic",
            MovingLoss(x=uniform(0, 1), y=uniform(0, 1)),
            search=PopulationBased(interval_epochs=2, quantile=0.4),
        ),
    ),
    budget=Budget(trials=5, epochs=6, seeds=2),
)
"""


class Elsewhere(Folder):
    """A space file, run by machines that keep their studies on S3."""

    def __init__(self, path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch):
        super().__init__(path)
        self.endpoint, self.stale, self._monkeypatch = endpoint, 120.0, monkeypatch
        self.at("here")

    def at(self, machine: str) -> None:
        """What follows happens on this machine."""
        self.cache = self.path / machine
        for name, value in s3.environment(self.endpoint, self.cache).items():
            self._monkeypatch.setenv(name, value)

    def command(self, *options: str) -> list[str]:
        run = [sys.executable, "-c", RUN.format(stale=self.stale), str(self.space), "--max-concurrent", "1"]
        return [*run, "--storage-path", f"s3://{s3.BUCKET}/{self.path.name}", *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        # a request is some milliseconds of the server's, and there are hundreds: a busy machine takes its time
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=300, check=False)

    def land(self) -> None:
        s3.land(self.endpoint, self.path.name, self.runs)

    def epochs_recorded(self) -> int:
        self.land()
        return super().epochs_recorded()


@pytest.fixture
def there(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    made = Elsewhere(tmp_path, endpoint, monkeypatch)
    made.write()
    return made


def lasting(rows: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on when and where it was computed."""
    of_the_run = ["seconds", "started", "ended", "recorded", "worker", "device", "cpus", "gpus", "code"]
    return rows.drop(columns=of_the_run, errors="ignore")


@pytest.mark.slow
def test_study_on_s3_equals_one_in_a_folder_and_is_only_reported_from_another_machine(there: Elsewhere) -> None:
    local = Folder(there.path / "local")
    coordinator = open_coordinator(toy(), local.runs)
    assert drive(coordinator, local.runs)
    coordinator.writer.records.compact()
    done = there.run()
    assert done.returncode == 0, done.stderr
    assert f"report: s3://{s3.BUCKET}/{there.path.name}/toy/report.html" in done.stdout
    there.land()
    is_whole(there)
    before = there.trials()
    read = pd.read_parquet(f"s3://{s3.BUCKET}/{there.path.name}/toy/trials")
    pd.testing.assert_frame_equal(read, before)
    for table in ("trials", "epochs"):
        pd.testing.assert_frame_equal(
            lasting(getattr(there, table)()), lasting(getattr(local, table)()), check_like=True
        )
    assert {path.name for path in there.study.iterdir()} >= {"report.html", "tables", "optuna.journal", "study.json"}

    shutil.rmtree(there.cache)
    again = there.run()
    assert again.returncode == 0, again.stderr
    finished = f"s3://{s3.BUCKET}/{there.path.name}/toy is finished"
    assert f"{finished}: nothing to train, writing the report again" in again.stdout
    there.land()
    pd.testing.assert_frame_equal(there.trials(), before)


@pytest.mark.slow
def test_another_machine_continues_after_a_killed_driver_and_repeats_no_trial(there: Elsewhere) -> None:
    there.write(seconds=0.15)
    process = there.start()
    wait_for(lambda: there.epochs_recorded() > 20, process, 240)
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
    there.land()
    is_whole(there)
    after = there.trials().set_index("trial_id")
    for trial_id, at in ended.items():
        assert after.ended[trial_id] == at, "a trial that had ended was run again"


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
    second = there.run("--name", "second")
    assert second.returncode == 0, second.stderr
    assert "prepare:" not in second.stdout
    there.land()
    scores = [pd.read_parquet(there.runs / name / "trials").set_index("cell") for name in ("small", "second")]
    metrics = [name for name in scores[1] if name.startswith(("val/", "test/"))]
    pd.testing.assert_frame_equal(scores[1][metrics], scores[0].loc[scores[1].index, metrics])

    there.at("a third")
    export = ["reports.export", "best", "--study", f"s3://{s3.BUCKET}/{there.path.name}/small"]
    out = there.path / "exported"
    done = subprocess.run(
        [sys.executable, "-m", *export, "--cell", "resnet8w4 / KD", "--out", out],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"MODEL_CARD.md", "model.safetensors"} <= {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_population_on_s3_continues_elsewhere_and_equals_one_in_a_folder(there: Elsewhere) -> None:
    there.space.write_text(POPULATION)
    local = Folder(there.path)
    local.runs, local.study = there.path / "local", there.path / "local" / "toy"
    whole = subprocess.run(
        [*local.command(), "--max-concurrent", "1"], capture_output=True, text=True, timeout=300, check=False
    )
    assert whole.returncode == 0, whole.stderr

    process = there.start()
    wait_for(lambda: there.epochs_recorded() > 14, process, 240)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there.at("other")
    there.stale = 0.0
    resumed = there.run()
    assert resumed.returncode == 0, resumed.stderr
    there.land()
    for table in ("trials", "epochs"):
        pd.testing.assert_frame_equal(
            lasting(getattr(there, table)()), lasting(getattr(local, table)()), check_like=True
        )
    kept = {name.split("/")[0] for name in s3.objects(there.endpoint, f"{there.path.name}/toy/checkpoints")}
    trials = there.trials()
    assert kept == set(trials[trials.phase == "confirm"].trial_id), "a checkpoint of a chain is left, or one is missing"


def test_missing_bucket_ends_a_run_before_anything_is_read(there: Elsewhere) -> None:
    done = subprocess.run(
        there.command("--storage-path", "s3://nowhere/x"), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: s3://nowhere/x at http://127.0.0.1:")
    assert done.stderr.count("\n") == 1
