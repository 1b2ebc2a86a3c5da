"""Trials of several workers on a real Ray: stopped early, with lost workers and with workers that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.study.folder import Folder, check_epochs, wait_for

START_SECONDS = 300
"""Time for Ray Train to start a slot's workers three times, on a machine that does much else."""

TWO = ("--workers-per-trial", "2", "--gpus-per-worker", "0")

GROUPS_LEFT = """
import json, pathlib
from study.cluster import connection

disconnect = connection.disconnect

def note_and_disconnect():
    table = connection.ray.util.placement_group_table().values()
    pathlib.Path({path!r}).write_text(json.dumps([group["state"] for group in table]))
    disconnect()

connection.disconnect = note_and_disconnect
"""

SPACE = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ray.train
from torch import distributed

from study import Arm, Budget, Study, SuccessiveHalving, uniform
from trainables import KD, Classification, CropFlip, Digits, NoDistillation, Recipe, ResNet, Teacher

FOLDER = Path({folder!r})

@dataclass(frozen=True)
class Planted:
    # in the second of its epochs, the first time
    how: str
    task_weight: float = 1.0
    needs_teacher: ClassVar[bool] = False

    def __call__(self, student, teacher, targets, progress):
        if ray.train.get_context().get_world_size() != (2 if distributed.is_initialized() else 1):
            raise RuntimeError("not in the context of Ray Train")
        if progress.epoch == 1 and distributed.is_initialized():
            self.trigger(distributed.get_rank())
        return student.prediction.sum() * 0

    def trigger(self, rank):
        marker = FOLDER / self.how
        if self.how == "raises" and rank == 1:
            raise ValueError("planted in the second worker")
        if self.how == "dies" and rank == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "waits" and rank == 0 and not marker.exists():
            marker.touch()
            time.sleep(600)

study = Study(
    name="toy", question="?", students=(ResNet(8, width=4),),
    task=Classification(Digits(train=100), Teacher(ResNet(8), epochs=1), Recipe(33), CropFlip(1, flip=False), 0.2),
    arms=(
        Arm("none", NoDistillation(), baseline=True), Arm("searched", KD(weight=uniform(0, 1))),
        Arm("dies", Planted("dies")), Arm("waits", Planted("waits")), Arm("raises", Planted("raises")),
    ),
    budget=Budget(trials={trials}, epochs=4, seeds=1),
    stopping=SuccessiveHalving(min_epochs=1, reduction=2),
)
"""
"""The teacher trains on one worker, all else on two. The arm that fails is last: no trial needs other workers then."""

TRIALS, STOPPED = 40, 5
"""Search trials, and how many of them halving stops at least; 12 on one machine, whose scores decide."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    space = SPACE.format(folder=str(tmp_path), trials=TRIALS)
    folder.space.write_text(space + GROUPS_LEFT.format(path=str(tmp_path / "left.json")))
    return folder


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
def test_one_slot_survives_early_stops_a_lost_worker_a_lost_controller_and_a_failing_worker(folder: Folder) -> None:
    """Trials in one slot, of two CPUs: where one kept its placement group, the next would wait for ever.

    Rank 0 sees the same when the second worker fails and when it dies: a broken connection, or no answer.
    """
    process = folder.start(*TWO)
    wait_for((folder.path / "waits").exists, process, START_SECONDS)
    os.kill(find_actor(process.pid, "LentController"), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr  # for the arm that fails
    assert (folder.path / "dies").exists()

    trials = folder.trials()
    assert trials.phase.value_counts().to_dict() == {"search": TRIALS, "confirm": 5, "prepare": 2}
    searched = trials[trials.phase == "search"]
    assert set(searched.state) == {"COMPLETE", "PRUNED"}
    assert (searched.state == "PRUNED").sum() >= STOPPED
    check_epochs(trials, folder.epochs())
    assert set(trials.cpus) == {2.0}
    check_confirmed(trials[trials.phase == "confirm"].set_index("arm"))
    groups = json.loads((folder.path / "left.json").read_text())
    assert groups == ["REMOVED"] * len(groups)
    assert 1 <= len(groups) <= 4, "trials share their slot's group; a slot that loses its controller has another"


def check_confirmed(trials: pd.DataFrame) -> None:
    """Only the arm whose second worker fails has failed, with the reason of that worker."""
    assert all(json.loads(config)["workers"] == 2 for config in trials.config)
    assert trials.reason.raises.startswith("ValueError: planted in the second worker (toy.py:")
    assert (trials.state["raises"], trials.epochs_done["raises"]) == ("FAILED", 1)
    others = trials.drop("raises")
    assert set(others.state) == {"COMPLETE"}
    assert set(others.epochs_done) == {4}
    assert others["test/accuracy"].notna().all()
    assert np.isnan(trials["test/accuracy"]["raises"])
