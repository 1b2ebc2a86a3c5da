"""Transfers of workers: checkpoints that move between nodes, and artifacts that a preparation replaces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from study.engine.trials import make_preparation_trial
from study.execution.worker_context import WorkerContext
from study.storage import worker_sync
from study.storage.lease import acquire_lease
from study.storage.locations import mirror_of
from study.task import Preparation
from study.trial import TrialContext
from tests.study import s3
from tests.study.s3 import Copy, put
from tests.study.toy import job_of, open_coordinator, toy
from trainables.tasks.simulated import Simulated


class Storing(Simulated):
    """Makes files in a folder of its own."""

    def list_artifacts(self) -> tuple[str, ...]:
        return ("outputs/k",)


def preparing(here: Path) -> TrialContext:
    trial = make_preparation_trial(Preparation("outputs", 1, {}))
    checkpoint = here / "toy" / "checkpoints" / trial.id
    return TrialContext(trial, Storing(), None, None, None, checkpoint, here, "cpu", 0, "train", True, False)


def test_replaced_artifacts_do_not_come_back_and_those_of_other_studies_stay(
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


def test_incomplete_preparation_pushes_only_its_checkpoint(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    mirror, job = mirror_of(here), preparing(here)
    worker_sync.fetch_trial_files(mirror, job)
    (here / "outputs/k").mkdir(parents=True)
    (here / "outputs/k/new").write_text("half")
    (job.checkpoint / "state").write_text("state")
    worker_sync.push_checkpoint(mirror, job, complete=False)
    assert s3.objects(endpoint, f"{tmp_path.name}/outputs") == {}
    assert s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints/{job.trial.id}") == {"state": b"state"}


@pytest.mark.usefixtures("hurried")
def test_trial_resumes_from_its_checkpoint_on_another_node(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here, node = copy(), copy("node")
    mirror, coordinator = mirror_of(node), open_coordinator(toy(), here)
    teacher, trial = coordinator.next_trial(), coordinator.next_trial()
    assert teacher
    assert trial
    for run, epochs in ((teacher, 2), (trial, 3)):
        job = job_of(coordinator.study, run, node)
        worker_sync.fetch_trial_files(mirror, job)
        for row, _ in zip(
            job.task.prepare(job) if run is teacher else job.task.train(job), range(epochs), strict=False
        ):
            worker_sync.push_checkpoint(mirror, job, complete=row["epoch"] == run.trial.epochs)
        worker_sync.drop_local_copy(mirror, job.checkpoint)
        assert not job.checkpoint.exists()
    there = s3.objects(endpoint, tmp_path.name)
    assert there == {
        "teachers/simulated/made": b"",
        f"toy/checkpoints/{teacher.trial.id}/trained_epochs": b"..",
        f"toy/checkpoints/{trial.trial.id}/trained_epochs": b"...",
    }
    other = copy("other")
    job = job_of(coordinator.study, trial, other)
    put(other, **{f"toy__checkpoints__{trial.trial.id}__trained_epochs": "."})  # of an earlier visit
    worker_sync.fetch_trial_files(mirror_of(other), job)
    assert (job.checkpoint / "trained_epochs").read_bytes() == b"..."
    worker_sync.delete_checkpoint(mirror, node / "toy" / "checkpoints" / trial.trial.id)
    worker_sync.fetch_trial_files(mirror_of(other), job)
    assert not (job.checkpoint / "trained_epochs").exists(), "it is to start over"


@pytest.mark.usefixtures("hurried")
def test_checkpoint_of_an_ended_trial_is_deleted_once_its_end_is_on_s3(
    copy: Copy, endpoint: str, tmp_path: Path
) -> None:
    here = copy()
    put(here, toy__checkpoints__over__state="1", toy__checkpoints__on__state="2", toy__checkpoints__failed__state="3")
    (here / "toy/checkpoints/failed/traceback.txt").write_text("Error")
    mirror = mirror_of(here)
    mirror.push("toy/checkpoints")
    shutil.rmtree(here / "toy/checkpoints/failed")  # it was trained by another node
    worker_sync.mark_for_deletion(
        mirror, here / "toy" / "checkpoints" / "on"
    )  # before this machine drove: it may go on elsewhere
    with acquire_lease(here / "toy"):
        worker_sync.mark_for_deletion(mirror, here / "toy" / "checkpoints" / "over")
        assert len(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == 4
        WorkerContext(here / "toy", here, mirror).discard_checkpoint("failed", keep_traceback=True)
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == {"on/state", "failed/traceback.txt"}
    worker_sync.delete_checkpoint(mirror, here / "toy" / "checkpoints" / "failed")
    worker_sync.delete_checkpoint(mirror, here / "toy" / "checkpoints" / "on")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")
