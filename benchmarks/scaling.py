"""Scaling of a study over nodes: python -m benchmarks.scaling [--quick].

Trials sleep through their epochs, so that one machine can stand for many nodes: each is a Ray node with its own raylet
and worker processes; only the machine is shared. Two measurements:

1. Nodes: trials per hour on 1 to 16 nodes, relative to the ideal in which slots never wait.
2. Limit: on the most nodes, epochs become shorter until driver and cores cannot follow: the epochs per second reached.

Each slot's epochs are timed from its first to its last within a window that opens when all slots are busy: starting
processes does not count, changing from one trial to the next does. The driver's share is its processor time.
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

from benchmarks.engine import make_study
from benchmarks.reporting import describe_machine, format_result, format_table
from study.cluster.allocation import Resources
from study.cluster.connection import connect, disconnect
from study.driver import restore_coordinator
from study.engine.coordinator import Coordinator
from study.execution.tune import execute
from study.execution.worker_context import WorkerContext
from study.preflight import DriverOptions
from study.trial import EpochResult, Trial, TrialState
from trainables.tasks import simulated

TRIAL_SECONDS = 10.0
"""Longer than a process takes to start; else Tune would give a trial waiting for its process to one that is free."""

CELL_TRIALS = 200
"""The maximum number of trials per search, because TPE's work grows with it."""

STARTING_SECONDS = 60.0
"""The time for which the study has extra trials while processes start; on an idle machine they take less."""

PATIENCE_SECONDS = 600.0
"""The time after which processes that have not started are assumed never to start."""


@dataclass(frozen=True)
class Measurement:
    """The epochs of `slots` slots, and the load of the driver."""

    slots: int
    epoch_seconds: float
    epochs_per_second: float
    driver: float
    """The driver's processor time over the wall clock."""

    @property
    def epochs(self) -> int:
        """Epochs per trial."""
        return round(TRIAL_SECONDS / self.epoch_seconds)

    @property
    def efficiency(self) -> float:
        return self.epochs_per_second * self.epoch_seconds / self.slots

    @property
    def trials_per_hour(self) -> float:
        return 3600 * self.epochs_per_second / self.epochs


class Window:
    """Tracker (study/trackers/base.py) and watch of the run: records epoch times by slot once all slots are busy."""

    def __init__(self, coordinator: Coordinator, slots: int, seconds: float):
        self._coordinator, self._slots, self._seconds = coordinator, slots, seconds
        self._created = time.monotonic()
        self._opened = self._processor = 0.0
        self.driver = 0.0
        self.times: dict[str, list[float]] = defaultdict(list)

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        if self._opened:
            self.times[self._coordinator.running[trial.id].worker].append(time.monotonic())

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        """Do nothing: only epochs are timed."""

    def close(self) -> None:
        """Do nothing: no file is open."""

    def watch(self) -> str:
        """Open the window when all slots are busy; return the reason to stop the run, or "" to continue."""
        now = time.monotonic()
        if self._opened:
            self.driver = (time.process_time() - self._processor) / (now - self._opened)
            return "measured" if now - self._opened >= self._seconds else ""
        if len({run.worker for run in self._coordinator.running.values() if run.worker}) == self._slots:
            self._opened, self._processor = now, time.process_time()
        return "not all slots are busy" if now - self._created > PATIENCE_SECONDS else ""

    @property
    def rate(self) -> float:
        """Epochs per second of all slots, each from its first epoch to its last."""
        return sum((len(times) - 1) / (times[-1] - times[0]) for times in self.times.values() if len(times) > 1)


@contextmanager
def start_cluster() -> Iterator[Any]:
    """Start a cluster of a head without slots, to which nodes can be added; shut it down on exit."""
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield ray_cluster
    finally:
        ray_cluster.shutdown()


def measure(address: str, slots: int, epoch_seconds: float, seconds: float) -> Measurement:
    """Run a study on the cluster for `seconds` seconds after all its slots are busy, and return the measurement."""
    trials = int(3 * slots * (seconds + STARTING_SECONDS) / TRIAL_SECONDS)
    sleeping = make_study(CELL_TRIALS, round(TRIAL_SECONDS / epoch_seconds), epoch_seconds, trials // CELL_TRIALS + 1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        storage = Path(folder)
        coordinator = restore_coordinator(sleeping, {"data": {"fingerprint": "none"}}, DriverOptions(storage))
        window = Window(coordinator, slots, seconds)
        coordinator.writer.trackers = [window]
        resources = Resources(1, 0.0, slots)
        worker_context = WorkerContext(storage / "engine", storage)
        connect(address)
        try:
            reason = execute(coordinator, worker_context, resources, simulated, window.watch, print)
        finally:
            disconnect()
    if reason != "measured":
        raise click.ClickException(reason or "the study ended before it was measured")
    return Measurement(slots, epoch_seconds, window.rate, window.driver)


def format_row(count: int, run: Measurement) -> tuple[str, ...]:
    """Return the cells of a measurement on `count` nodes."""
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
@click.option("--quick", is_flag=True, help="A short check: two nodes for a few seconds, under 45 s.")
@click.option("--cpus", type=click.IntRange(min=1), default=2, show_default=True, help="Slots per node; 1 if quick.")
def main(quick: bool, cpus: int) -> None:
    """Measure how trials per hour grow with nodes, and find the driver's limit."""
    print("\n".join(describe_machine()), flush=True)
    counts, cpus, seconds = ((1, 2), 1, 2.0) if quick else ((1, 2, 4, 8, 16), cpus, 30.0)
    first, shorter = (0.1, ()) if quick else (1.0, (0.5, 0.25, 0.1))
    asked = [(count, first) for count in counts] + [(counts[-1], short) for short in shorter]
    runs: list[tuple[int, Measurement]] = []
    with start_cluster() as ray_cluster:
        for count, epoch_seconds in asked:
            while len(ray_cluster.worker_nodes) < count:
                ray_cluster.add_node(num_cpus=cpus)
            runs.append((count, measure(ray_cluster.address, count * cpus, epoch_seconds, seconds)))
            print("  ".join(format_row(*runs[-1])), flush=True)
    scaled = [run for _, run in runs[: len(counts)]]
    head = ("nodes", "slots", "epoch", "epochs/s", "trials/h", "of the ideal", "driver, of a core")
    print("\n" + format_table([head, *(format_row(count, run) for count, run in runs)]) + "\n")
    for count, run in zip(counts, scaled, strict=True):
        print(format_result(f"efficiency_{count}_nodes", [100 * run.efficiency], "%"))
    print(format_result("trials_per_hour", [scaled[-1].trials_per_hour], "trials/h"))
    most = max((run for _, run in runs), key=lambda run: run.epochs_per_second)
    print(format_result("epochs_taken", [most.epochs_per_second], "epochs/s"))
    print(format_result("driver_by_epoch", [1e3 * most.driver / most.epochs_per_second], "ms"))
    print(format_result("cores", [os.cpu_count() or 1], "cores"))


if __name__ == "__main__":
    main()
