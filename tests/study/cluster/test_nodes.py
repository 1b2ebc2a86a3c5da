"""Nodes that come and go under a study, and its driver killed while they live: a real cluster of Ray on one machine.

A node is lost every KDSTUDY_KILL_SECONDS until there were KDSTUDY_KILLS; for five minutes with one a minute:
KDSTUDY_KILL_SECONDS=60 KDSTUDY_KILLS=5 python -m pytest -m cluster -k again_and_again tests/study/cluster/test_nodes.py
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from study.run import main
from study.space_file import load_space
from tests.study.cluster.nodes import start_cluster
from tests.study.execution.test_train_slot import GROUPS_LEFT
from tests.study.folder import Folder, is_whole, wait_for
from tests.study.toy import drive, open_coordinator
from trainables.tasks.simulated import Simulated

KILL_SECONDS = float(os.environ.get("KDSTUDY_KILL_SECONDS", "8"))
KILLS = int(os.environ.get("KDSTUDY_KILLS", "2"))
NODES = 2
EPOCHS = 6

NOTED = """
import dataclasses, os
from study import Arm, Budget, Never, Random, Study, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

@dataclasses.dataclass(frozen=True)
class Noted(Simulated):
    # writes down each epoch when it begins, also one that is never reported
    def train(self, job):
        begun, marks = job.storage / "begun" / job.trial.id, job.checkpoint / "trained_epochs"
        begun.parent.mkdir(exist_ok=True)
        rows = super().train(job)
        for epoch in range(job.recorded_epochs + 1, job.trial.epochs + 1):
            if epoch > (marks.stat().st_size if marks.is_file() else 0):
                with begun.open("a") as file:
                    file.write(f"{{epoch}} {{os.getpid()}}\\n")
            yield next(rows)

study = Study(
    name="toy", question="?", task=Noted(seconds_per_epoch=1.0, teacher_epochs=2), students=(SimulatedStudent(),),
    arms=(
        Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
        Arm("searched", SimulatedLoss(x=uniform(0, 1), gain=0.05)),
    ),
    # without a rule or a sampler for which it matters which trial was first
    sampler=Random(), stopping=Never(), budget=Budget(trials={trials}, epochs={epochs}, seeds=2),
)
"""

FAILURES_LOGGED = """
from study.execution import retries

record = retries.RetryPolicy.record

def log_and_record(self, trial_id, failure):
    with open({path!r}, "a") as file:
        file.write(f"{{failure.node_lost}} {{failure.preempted}} {{failure.reason}}\\n")
    record(self, trial_id, failure)

retries.RetryPolicy.record = log_and_record
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def cluster() -> Iterator[Any]:
    with start_cluster() as made:
        yield made


def end_raylet(cluster: Any, node: Any) -> None:
    """As where the system kills it for memory: nobody says goodbye, and the machine stays."""
    raylet = node.all_processes["raylet"][0].process
    raylet.send_signal(signal.SIGKILL)
    raylet.wait()


def end_at_once(cluster: Any, node: Any) -> None:
    cluster.remove_node(node, allow_graceful=False)


def end_in_order(cluster: Any, node: Any) -> None:
    cluster.remove_node(node, allow_graceful=True)


def take_back(cluster: Any, node: Any) -> None:
    """As a cloud takes a spot machine back: Ray is told, and a little later it is gone."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline = int((time.time() + 3) * 1000)
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, why = GcsClient(address=cluster.address).drain_node(node._node_id, reason, "taken back", deadline)
    assert accepted, why
    time.sleep(2)
    cluster.remove_node(node, allow_graceful=False)


ENDS: tuple[Callable[[Any, Any], None], ...] = (end_raylet, take_back, end_at_once, end_in_order)


def expected(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the same study is when nothing disturbs it: in this process, in no time."""
    monkeypatch.setattr("trainables.tasks.simulated.time.sleep", lambda seconds: None)
    coordinator = open_coordinator(load_space(folder.space, None, None).study, folder.path / "peace")
    (folder.path / "peace").mkdir(exist_ok=True)
    assert drive(coordinator, folder.path / "peace")
    monkeypatch.undo()
    coordinator.writer.records.compact()
    peace = folder.path / "peace" / "toy"
    return pd.read_parquet(peace / "trials"), pd.read_parquet(peace / "epochs")


def processes(folder: Folder) -> set[str]:
    """Those that have begun an epoch."""
    lines = [line for path in (folder.runs / "begun").glob("*") for line in path.read_text().splitlines()]
    return {line.split()[-1] for line in lines}


def compared(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    kept = [*keys, *(name for name in ("state", "reason", "params", "epochs_done", "seed") if name in table)]
    return table[[*kept, *Simulated.metrics]].sort_values(keys).reset_index(drop=True)


@pytest.mark.cluster
def test_study_whose_nodes_are_lost_again_and_again_ends_as_one_left_in_peace(
    folder: Folder, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = int(KILLS * KILL_SECONDS * NODES / EPOCHS)
    told, noted = folder.path / "deaths.txt", NOTED.format(trials=trials, epochs=EPOCHS)
    folder.space.write_text(noted + FAILURES_LOGGED.format(path=str(told)))
    nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES)]  # each has one trial at a time
    process = folder.start("--address", cluster.address, "--max-concurrent", str(NODES))
    wait_for(lambda: len(processes(folder)) == NODES, process, 180)
    lost = 0
    for end in itertools.islice(itertools.cycle(ENDS), KILLS):
        if process.poll() is not None:
            break
        end(cluster, nodes.pop(0))
        lost += 1
        nodes.append(cluster.add_node(num_cpus=1))
        time.sleep(KILL_SECONDS)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stdout + stderr
    assert lost == KILLS, "the study ended before its last node was lost"

    deaths = told.read_text().splitlines()
    assert all(death.startswith("True ") for death in deaths), deaths
    assert any(death.startswith("True True ") for death in deaths), deaths

    folder.space.write_text(noted)
    peaceful_trials, peaceful_epochs = expected(folder, monkeypatch)
    keys = ["cell", "phase", "number"]
    pd.testing.assert_frame_equal(compared(folder.trials(), keys), compared(peaceful_trials, keys))
    keys = ["trial_id", "epoch"]
    pd.testing.assert_frame_equal(compared(folder.epochs(), keys), compared(peaceful_epochs, keys))
    repeated = 0
    for path in (folder.runs / "begun").iterdir():
        epochs = [int(line.split()[0]) for line in path.read_text().splitlines()]
        assert epochs == sorted(epochs), "two processes trained one trial, or a checkpoint was lost"
        assert set(epochs) == set(range(1, EPOCHS + 1))
        assert max(map(epochs.count, epochs)) <= 2
        repeated += len(epochs) - EPOCHS
    assert 0 < repeated <= KILLS, "a node's one trial repeats one epoch"
    print(f"{lost} nodes lost, {len(folder.trials())} trials, {repeated} of {len(folder.epochs())} epochs repeated")
    print("\n".join(deaths))


@pytest.mark.cluster
def test_driver_and_nodes_lost_under_trials_of_several_workers_leave_no_placement_group(
    folder: Folder, cluster: Any
) -> None:
    """Each trial has a worker on either node; halving stops some early. What stayed would block the next one."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    folder.write(seconds=0.3)
    left = folder.path / "left.json"
    space = folder.space.read_text().replace("teacher_epochs=2", "teacher_epochs=0")  # workers anew after a teacher
    folder.space.write_text(space + GROUPS_LEFT.format(path=str(left)))
    options = ("--address", cluster.address, "--workers-per-trial", "2")
    process = folder.start(*options)
    wait_for(lambda: folder.epochs_recorded() > 2, process, 300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = folder.epochs_recorded()
    process = folder.start(*options)
    wait_for(lambda: folder.epochs_recorded() > before, process, 300)
    for node, end in zip(nodes, (end_at_once, end_in_order), strict=True):
        end(cluster, node)
        cluster.add_node(num_cpus=1)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    is_whole(folder, prepared=0)
    assert "PRUNED" in set(folder.trials().state)
    assert set(json.loads(left.read_text())) == {"REMOVED"}


@pytest.mark.cluster
def test_study_waits_for_nodes_that_an_autoscaler_may_add_and_asks_for_them(
    folder: Folder, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.autoscaler.v2.sdk import get_cluster_status

    types = {"head": {"resources": {"CPU": 0}}, "worker": {"resources": {"CPU": 1}, "max_workers": 2}}
    ray_up = {"head_node_type": "head", "max_workers": 8, "available_node_types": types}
    (folder.path / "ray_bootstrap_config.yaml").write_text(json.dumps(ray_up))
    folder.write(seconds=2.0)  # a trial takes longer than a worker to start: else the first worker takes them all
    folder.space.write_text(folder.space.read_text().replace("teacher_epochs=2", "teacher_epochs=0"))
    options = ("--address", cluster.address, "--max-concurrent", "5", "--trials", "2", "--epochs", "2", "--seeds", "2")
    refused = CliRunner().invoke(main, folder.command(*options)[3:])
    assert refused.exit_code == 2
    assert "no trial fits" in refused.stderr

    def asked() -> list[float]:
        demand = get_cluster_status(cluster.address).resource_demands.placement_group_demand
        return [bundle.bundle["CPU"] for group in demand for bundle in group.bundles_by_count]

    # in another home the token is elsewhere, which the cluster wants if a test of this process has set one
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(Path("~/.ray/auth_token").expanduser()))
    monkeypatch.setenv("HOME", str(folder.path))
    process = folder.start(*options)
    wait_for(lambda: asked() == [1.0, 1.0], process, 120, interval=0.5)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    trials = folder.trials()
    assert set(trials.state) <= {"COMPLETE", "PRUNED"}
    assert trials.worker.nunique() == 2
