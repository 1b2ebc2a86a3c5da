"""Trials of several workers on a real Ray: stopped early, with lost workers and with workers that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.study.folder import Folder, is_whole, wait_for

START_SECONDS = 150
"""Time for Ray Train to start a slot's workers, on a machine that does much else."""

TWO = ("--workers-per-trial", "2", "--gpus-per-worker", "0")

GROUPS_LEFT = """
import json, pathlib
from study.cluster import resources

disconnect = resources.disconnect

def note_and_disconnect():
    table = resources.ray.util.placement_group_table().values()
    pathlib.Path({path!r}).write_text(json.dumps([group["state"] for group in table]))
    disconnect()

resources.disconnect = note_and_disconnect
"""

SECOND_WORKER_FAILS = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ray.train
from torch import distributed

from study import Arm, Budget, Study
from trainables import Classification
from trainables.data.digits import Digits
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables import Recipe
from trainables import Teacher
from trainables import CropFlip

@dataclass(frozen=True)
class Fails:
    how: str
    task_weight: float = 1.0
    needs_teacher: ClassVar[bool] = False

    def __call__(self, student, teacher, targets, progress):
        if ray.train.get_context().get_world_size() != (2 if distributed.is_initialized() else 1):
            raise RuntimeError("not in the context of Ray Train")
        if progress.epoch == 1 and distributed.is_initialized() and distributed.get_rank() == 1:
            if self.how == "raises":
                raise ValueError("planted in the second worker")
            if not Path({marker!r}).exists():
                Path({marker!r}).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return student.prediction.sum() * 0

study = Study(
    name="toy", question="?", students=(ResNet(8, width=4),),
    task=Classification(Digits(train=100), Teacher(ResNet(8)), Recipe(33), CropFlip(1, flip=False), 0.2),
    arms=(Arm("none", NoDistillation(), baseline=True), Arm("dies", Fails("dies")), Arm("raises", Fails("raises"))),
    budget=Budget(trials=1, epochs=3, seeds=1),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write()
    return folder


def search_pid(folder: Folder) -> int:
    """Return a process that has ended a search trial and trains the next one; a preparation's does not."""
    trials = folder.trials()
    ended = trials[(trials.phase == "search") & (trials.worker != "")].worker
    return int(ended.iloc[-1].split(":")[1]) if len(ended) else 0


def find_actor(ancestor: int, name: str) -> int:
    """Return the process of an actor of this class name among the descendants of a process; 0 if there is none."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in lines.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, *_ in rows}
    named = (int(pid) for pid, _, *args in rows if args and args[0].startswith(f"ray::{name}"))

    def descends(pid: int) -> bool:
        return pid == ancestor or (pid in parents and descends(parents[pid]))

    return next(filter(descends, named), 0)


@pytest.mark.slow
def test_early_stops_a_lost_worker_and_a_lost_controller_leave_no_placement_group(folder: Folder) -> None:
    """Trials in one slot, of two CPUs: where one kept its group, the next would wait for ever."""
    folder.write(seconds=0.02, trials=90)
    left = folder.path / "left.json"
    folder.space.write_text(folder.space.read_text() + GROUPS_LEFT.format(path=str(left)))
    process = folder.start(*TWO)
    wait_for(lambda: bool(folder.epochs_recorded()) and bool(search_pid(folder)), process, START_SECONDS)
    os.kill(lost := search_pid(folder), signal.SIGKILL)
    wait_for(lambda: search_pid(folder) != lost, process, START_SECONDS)
    os.kill(find_actor(process.pid, "LentController"), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    is_whole(folder, searched=90)
    trials = folder.trials()
    assert (trials.state == "PRUNED").sum() >= 50
    assert set(trials.cpus) == {2.0}
    assert all(json.loads(config)["workers"] == 2 for config in trials[trials.phase == "confirm"].config)
    groups = json.loads(left.read_text())
    assert groups == ["REMOVED"] * len(groups)
    assert 1 <= len(groups) <= 4, "trials share their slot's group; a slot that loses its controller has another"


@pytest.mark.slow
def test_failing_second_worker_fails_its_trial_with_its_own_reason_and_a_lost_one_costs_nothing(folder: Folder) -> None:
    """Rank 0 sees the same in both cases: a broken connection, or no answer."""
    folder.space.write_text(SECOND_WORKER_FAILS.format(marker=str(folder.path / "died")))
    process = folder.start(*TWO)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert (folder.path / "died").exists()
    trials = folder.trials().set_index("arm")
    assert trials.state.to_dict() == {"none": "COMPLETE", "raises": "FAILED", "dies": "COMPLETE"}
    assert trials.reason.raises.startswith("ValueError: planted in the second worker (toy.py:")
    assert trials.epochs_done.to_dict() == {"none": 3, "raises": 1, "dies": 3}
    assert trials["test/accuracy"].notna().to_dict() == {"none": True, "raises": False, "dies": True}
