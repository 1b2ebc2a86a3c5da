"""How a study scales with nodes: python -m benchmarks.scaling [--quick].

Trials sleep through their epochs, so that one machine can play many nodes: each is Ray's own, with a raylet and worker
processes, and lacks only a machine to itself. Two questions:

1. Nodes: trials an hour on 1 to 16 nodes, against the ideal in which slots never wait.
2. Limit: on the most nodes, epochs become shorter until driver and cores cannot follow: the epochs a second they take.

What is measured are the epochs of each slot, from one to the last within a window that opens when all slots are busy:
starting processes does not count, going from one trial to the next does. The driver's part is its processor time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.engine import study
from benchmarks.reporting import machine, result, table
from study.cluster import resources as cluster
from study.driver import restore_coordinator
from study.engine.coordinator import Coordinator
from study.execution import tune as executor
from study.execution.worker_context import WorkerContext
from study.preflight import DriverOptions
from study.trial import EpochResult, Trial, TrialState
from trainables.tasks import simulated

TRIAL_SECONDS = 10.0
"""Longer than a process takes to start: Tune gives a trial that waits for its own to the first one that gets free."""

CELL_TRIALS = 200
"""What a search may have; TPE's work grows with it."""

STARTING_SECONDS = 60.0
"""What the study has trials for while processes start; they take less on an idle machine."""

PATIENCE_SECONDS = 600.0
"""When processes that have not started never will."""


@dataclass(frozen=True)
class Measured:
    """What so many slots did."""

    slots: int
    epoch_seconds: float
    epochs_per_second: float
    driver: float
    """Its processor time over the wall clock."""

    @property
    def epochs(self) -> int:
        """Of a trial."""
        return round(TRIAL_SECONDS / self.epoch_seconds)

    @property
    def efficiency(self) -> float:
        return self.epochs_per_second * self.epoch_seconds / self.slots

    @property
    def trials_per_hour(self) -> float:
        return 3600 * self.epochs_per_second / self.epochs


class Window:
    """When each slot's epochs came, once all are busy: a tracker (study/trackers/base.py), and the run's watch."""

    def __init__(self, coordinator: Coordinator, slots: int, seconds: float):
        self._flow, self._slots, self._seconds = coordinator, slots, seconds
        self._created = time.monotonic()
        self._opened = self._processor = 0.0
        self.driver = 0.0
        self.times: dict[str, list[float]] = defaultdict(list)

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        if self._opened:
            self.times[self._flow.running[trial.id].worker].append(time.monotonic())

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        """Epochs alone are timed."""

    def close(self) -> None:
        """Nothing is kept open."""

    def watch(self) -> str:
        now = time.monotonic()
        if self._opened:
            self.driver = (time.process_time() - self._processor) / (now - self._opened)
            return "measured" if now - self._opened >= self._seconds else ""
        if len({run.worker for run in self._flow.running.values() if run.worker}) == self._slots:
            self._opened, self._processor = now, time.process_time()
        return "not all slots are busy" if now - self._created > PATIENCE_SECONDS else ""

    @property
    def rate(self) -> float:
        """Epochs a second of all slots, each from its first to its last."""
        return sum((len(times) - 1) / (times[-1] - times[0]) for times in self.times.values() if len(times) > 1)


@contextmanager
def nodes() -> Iterator[Any]:
    """A cluster of a head on which no trial runs; nodes are added to it."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


def measured(address: str, slots: int, epoch_seconds: float, seconds: float) -> Measured:
    """Run a study on the cluster for so long after all its slots are busy."""
    trials = int(3 * slots * (seconds + STARTING_SECONDS) / TRIAL_SECONDS)
    asleep = study(CELL_TRIALS, round(TRIAL_SECONDS / epoch_seconds), epoch_seconds, trials // CELL_TRIALS + 1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        storage = Path(folder)
        coordinator = restore_coordinator(asleep, {"data": {"fingerprint": "none"}}, DriverOptions(storage))
        window = Window(coordinator, slots, seconds)
        coordinator.writer.trackers = [window]
        resources = cluster.Resources(1, 0.0, slots)
        workplace = WorkerContext(storage / "engine", storage)
        cluster.connect(address)
        try:
            reason = executor.execute(coordinator, workplace, resources, simulated, window.watch, print)
        finally:
            cluster.disconnect()
    if reason != "measured":
        raise click.ClickException(reason or "the study ended before it was measured")
    return Measured(slots, epoch_seconds, window.rate, window.driver)


def row(count: int, run: Measured) -> tuple[str, ...]:
    return (
        str(count),
        str(run.slots),
        f"{run.epoch_seconds:g} s",
        f"{run.epochs_per_second:,.1f}",
        f"{run.trials_per_hour:,.0f}",
        f"{run.efficiency:.1%}",
        f"{run.driver:.0%}",
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Two nodes for a few seconds, under 45 s.")
@click.option("--cpus", type=click.IntRange(min=1), default=2, show_default=True, help="Slots of a node; 1 if quick.")
def main(quick: bool, cpus: int) -> None:
    """Measure how trials an hour grow with nodes, and where the driver's limit lies."""
    print("\n".join(machine()), flush=True)
    counts, cpus, seconds = ((1, 2), 1, 3.0) if quick else ((1, 2, 4, 8, 16), cpus, 30.0)
    shorter = (0.1,) if quick else (0.5, 0.25, 0.1)
    asked = [(count, 0.5 if quick else 1.0) for count in counts] + [(counts[-1], short) for short in shorter]
    runs: list[tuple[int, Measured]] = []
    with nodes() as made:
        for count, epoch_seconds in asked:
            while len(made.worker_nodes) < count:
                made.add_node(num_cpus=cpus)
            runs.append((count, measured(made.address, count * cpus, epoch_seconds, seconds)))
            print("  ".join(row(*runs[-1])), flush=True)
    scaled = [run for _, run in runs[: len(counts)]]
    head = ("nodes", "slots", "epoch", "epochs/s", "trials/h", "of the ideal", "driver, of a core")
    print("\n" + table([head, *(row(count, run) for count, run in runs)]) + "\n")
    for count, run in zip(counts, scaled, strict=True):
        print(result(f"efficiency_{count}_nodes", [100 * run.efficiency], "%"))
    print(result("trials_per_hour", [scaled[-1].trials_per_hour], "trials/h"))
    most = max((run for _, run in runs), key=lambda run: run.epochs_per_second)
    print(result("epochs_taken", [most.epochs_per_second], "epochs/s"))
    print(result("driver_by_epoch", [1e3 * most.driver / most.epochs_per_second], "ms"))
    print(result("cores", [os.cpu_count() or 1], "cores"))


if __name__ == "__main__":
    main()
