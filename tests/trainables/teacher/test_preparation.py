"""Processes that fill one store: two at once with plans that overlap, and one that is killed and gone on after."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from study.task import Plan
from tests.trainables.small import PLAN, TASK, prepared
from trainables.teacher import output_store as store
from trainables.teacher import preparation as preparing
from trainables.teacher import sources

OVERLAPPING = Plan(((8, "train+val"), (9, "train")), PLAN.epochs)

FILL = """
import sys
from pathlib import Path
import torch
from study.task import Plan
from tests.trainables.small import TASK, prepared
from trainables.teacher import output_store, preparation

def told(*arguments):
    path = written(*arguments)
    print(path.name, flush=True)
    sys.stdin.readline()
    return path

torch.set_num_threads(1)
written, preparation.write_shard, output_store.SHARD_BYTES = preparation.write_shard, told, 2000
print("ready", flush=True)
sys.stdin.readline()
prepared(TASK, Path(sys.argv[1]), Plan(*eval(sys.argv[2])))
"""
"""Fills a store, and waits for a line before it begins and after each shard."""


@pytest.fixture
def with_teacher(storage, tmp_path) -> Path:
    """A storage of its own with the small task's teacher, who has told nothing yet."""
    shutil.copytree(storage / "teachers", tmp_path / "teachers")
    return tmp_path


def filling(storage: Path, plan: Plan) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FILL, str(storage), repr((plan.runs, plan.epochs))]
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def let(process: subprocess.Popen[str], times: int = 1) -> None:
    process.stdin.write("\n" * times)
    process.stdin.flush()


def codes_drawn(plan: Plan) -> set[int]:
    return set(preparing.mark_drawn(TASK, plan).flatten().nonzero().squeeze(1).tolist())


def codes_held(storage: Path) -> list[int]:
    """Of all shards, each of which is found to hold what a live teacher says."""
    live, pool, codes = sources.open_live_teacher(TASK, storage, "cpu"), TASK.examples("train+val", "cpu"), []
    for path in sorted(sources.store_folder(TASK, storage).glob("*.safetensors")):
        shard = store.open_shard(path)
        samples, views = shard.codes // TASK.views.count, shard.codes % TASK.views.count
        expected = live.begin_epoch(views)(pool.batch(samples, views)).prediction
        torch.testing.assert_close(shard.outputs, expected, rtol=2e-3, atol=2e-3)
        codes += shard.codes.tolist()
    return codes


@pytest.mark.slow  # two processes that import torch
def test_two_processes_fill_one_store_at_once_with_overlapping_plans(with_teacher):
    processes = [filling(with_teacher, plan) for plan in (PLAN, OVERLAPPING)]
    assert [told(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        let(process, 1000)
    assert [process.wait(60) for process in processes] == [0, 0]
    ours, others = codes_drawn(PLAN), codes_drawn(OVERLAPPING)
    held = codes_held(with_teacher)
    assert set(held) == ours | others
    twice = {code for code in held if held.count(code) > 1}
    assert twice <= ours & others  # both lacked it when they looked
    assert TASK.list_preparations(with_teacher, PLAN) == TASK.list_preparations(with_teacher, OVERLAPPING) == []


def test_fill_killed_between_shards_goes_on_with_what_is_missing(with_teacher, monkeypatch):
    process = filling(with_teacher, PLAN)
    assert told(process) == "ready"
    for _ in range(3):
        let(process)
        written = told(process)
    process.kill()
    process.wait(60)
    folder = sources.store_folder(TASK, with_teacher)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 3
    assert max(before) == written
    monkeypatch.setattr(store, "SHARD_BYTES", 2000)
    steps = prepared(TASK, with_teacher)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert before.items() <= after.items()
    assert len(after) == 3 + len(steps) > 6
    held = codes_held(with_teacher)
    assert len(held) == len(set(held))
    assert set(held) == codes_drawn(PLAN)
