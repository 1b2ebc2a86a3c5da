"""What a preparation leaves on S3: what it made, beside what others made meanwhile, and not what it replaced."""

from __future__ import annotations

from pathlib import Path

from study.engine.coordinator import preparation_trial
from study.storage import worker_sync
from study.storage.locations import mirror_of
from study.task import Preparation
from study.trial import TrialContext
from tests.study import s3
from tests.study.s3 import Copy
from trainables.tasks.simulated import Simulated


class Storing(Simulated):
    """Makes files in a folder of its own."""

    def list_artifacts(self) -> tuple[str, ...]:
        return ("outputs/k",)


def preparing(here: Path) -> TrialContext:
    trial = preparation_trial(Preparation("outputs", 1, {}))
    checkpoint = here / "toy" / "checkpoints" / trial.id
    return TrialContext(trial, Storing(), None, None, checkpoint, here, "cpu", 0, "train", True, False)


def test_what_was_replaced_does_not_come_back_and_what_others_made_stays(
    copy: Copy, endpoint: str, tmp_path: Path
) -> None:
    here = copy()
    mirror, job = mirror_of(here), preparing(here)
    for name in ("old", "damaged", "kept"):
        mirror.write_text(f"outputs/k/{name}", name)
    worker_sync.fetch_trial_files(mirror, job)
    (here / "outputs/k/old").unlink()
    (here / "outputs/k/damaged").unlink()
    (here / "outputs/k/damaged").write_text("mended")
    (here / "outputs/k/new").write_text("new")
    mirror.write_text("outputs/k/another", "another study's")
    worker_sync.push_checkpoint(mirror, job, complete=True)
    there = {name: content.decode() for name, content in s3.objects(endpoint, f"{tmp_path.name}/outputs/k").items()}
    assert there == {"damaged": "mended", "kept": "kept", "new": "new", "another": "another study's"}
    assert {path.name for path in (here / "outputs/k").iterdir()} == set(there)


def test_part_of_a_preparation_leaves_its_checkpoint_alone(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    mirror, job = mirror_of(here), preparing(here)
    worker_sync.fetch_trial_files(mirror, job)
    (here / "outputs/k").mkdir(parents=True)
    (here / "outputs/k/new").write_text("half")
    (job.checkpoint / "state").write_text("state")
    worker_sync.push_checkpoint(mirror, job, complete=False)
    assert s3.objects(endpoint, f"{tmp_path.name}/outputs") == {}
    assert s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints/{job.trial.id}") == {"state": b"state"}
