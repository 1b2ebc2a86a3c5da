"""Transfers of workers: checkpoints that move between nodes, and artifacts that a preparation replaces."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.engine.trials import make_preparation_trial
from study.execution.worker_context import INHERITED, WorkerContext
from study.records.paths import TRACEBACK
from study.storage import worker_sync
from study.storage.lease import acquire_lease
from study.storage.locations import mirror_of
from study.task import Preparation
from study.trial import Link, Trial, TrialContext
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
    put(here, toy__checkpoints__over__state="1", toy__checkpoints__on__state="2")
    mirror = mirror_of(here)
    mirror.push("toy/checkpoints")
    worker_sync.mark_for_deletion(
        mirror, here / "toy" / "checkpoints" / "on"
    )  # before this machine drove: it may go on elsewhere
    with acquire_lease(here / "toy"):
        worker_sync.mark_for_deletion(mirror, here / "toy" / "checkpoints" / "over")
        assert len(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == 2
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == {"on/state"}
    worker_sync.delete_checkpoint(mirror, here / "toy" / "checkpoints" / "on")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")


# -- checkpoints that links of chains inherit --------------------------------------------------------------------------


def context_at(here: Path) -> WorkerContext:
    return WorkerContext(here / "toy", here, mirror_of(here))


def make_link(context: WorkerContext, member: int, rank: int = 0) -> Any:
    trial = Trial("search", "student", "arm", 5 + member, 0, 10, {}, {}, Link(member, 5, 10, "parent"))
    task = SimpleNamespace(list_artifacts=lambda: ())
    return SimpleNamespace(
        trial=trial,
        checkpoint=context.checkpoint_folder(trial.id),
        rank=rank,
        task=task,
        loss=SimpleNamespace(needs_teacher=False),
    )


def start_link(context: WorkerContext, job: Any) -> None:
    context.fetch_files(job)
    context.inherit_checkpoint(job)


def push_parent(here: Path) -> None:
    put(here, toy__checkpoints__parent__state="epoch 5", toy__checkpoints__parent__nets__student="of epoch 5")
    mirror_of(here).push("toy/checkpoints/parent")
    worker_sync.drop_local_copy(mirror_of(here), here / "toy" / "checkpoints" / "parent")


def test_links_inherit_on_any_node_and_leave_no_other_copy(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    push_parent(copy("first"))
    node = context_at(copy("second"))
    inherited = {"state": b"epoch 5", "nets/student": b"of epoch 5", INHERITED: b"parent"}
    for job in (make_link(node, member) for member in (0, 1)):
        start_link(node, job)
        assert s3.local_files(job.checkpoint) == inherited
        assert s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints/{job.trial.id}") == inherited
        assert {path.name for path in job.checkpoint.iterdir()} == {"state", "nets", INHERITED}
    assert not node.checkpoint_folder("parent").exists()
    assert (s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints/parent")).keys() == {"state", "nets/student"}


def test_next_worker_of_a_link_continues_it_though_its_parent_is_gone(copy: Copy) -> None:
    push_parent(copy("first"))
    node = context_at(copy("second"))
    job = make_link(node, 0)
    start_link(node, job)
    (job.checkpoint / "state").write_text("epoch 6")
    worker_sync.push_checkpoint(node.mirror, job, complete=False)
    worker_sync.delete_checkpoint(node.mirror, node.checkpoint_folder("parent"))
    other = context_at(copy("third"))
    again = make_link(other, 0)
    start_link(other, again)
    assert (again.checkpoint / "state").read_text() == "epoch 6"


def test_copy_whose_mark_has_not_reached_s3_is_made_again(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark arrives last, also where all files have the same time."""
    push_parent(copy("first"))
    node = context_at(copy("second"))
    job, pushed = make_link(node, 0), list[str]()
    upload = type(node.mirror)._upload
    monkeypatch.setattr(
        type(node.mirror), "_upload", lambda self, file: pushed.append(Path(file.name).name) or upload(self, file)
    )
    start_link(node, job)
    assert pushed == ["student", "state", INHERITED]
    node.mirror.delete_object(f"toy/checkpoints/{job.trial.id}/{INHERITED}")
    node.mirror.write_text(f"toy/checkpoints/{job.trial.id}/state", "half")
    other = context_at(copy("third"))
    again = make_link(other, 0)
    start_link(other, again)
    assert (again.checkpoint / "state").read_text() == "epoch 5"


def test_each_worker_of_a_link_inherits_on_its_own_node_and_one_writes(
    copy: Copy, endpoint: str, tmp_path: Path
) -> None:
    push_parent(copy("first"))
    node = context_at(copy("second"))
    job = make_link(node, 0, rank=1)
    start_link(node, job)
    assert (job.checkpoint / "state").read_text() == "epoch 5"
    assert s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints/{job.trial.id}") == {}


def test_link_whose_parent_is_gone_from_s3_fails(copy: Copy) -> None:
    context = context_at(copy())
    with pytest.raises(FileNotFoundError, match="the checkpoint of its parent parent is gone"):
        start_link(context, make_link(context, 0))


@pytest.mark.usefixtures("hurried")
def test_traceback_of_a_failed_link_stays_on_s3(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__checkpoints__failed__state="1", toy__checkpoints__failed__nets__student="2")
    (here / "toy" / "checkpoints" / "failed" / TRACEBACK).write_text("Error")
    mirror_of(here).push("toy/checkpoints")
    with acquire_lease(here / "toy"):
        context_at(here).discard_checkpoint("failed", keep_traceback=True)
    assert s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints") == {f"failed/{TRACEBACK}": b"Error"}
