"""The cost of the engine: python -m benchmarks.engine [--quick].

Simulated trials, which take no time unless asked to, measure three things:

1. Overhead: the wall clock of a trial, and of an epoch, that take no time, two trials at a time, search and rows
   included; the same by two workers, one trial at a time; and of a trial of plain Ray Tune with its OptunaSearch at
   its default settings, in the same run.
2. Bookkeeping: the duration of a long study of trials of known length, relative to the sum of these lengths.
3. Footprint: memory of the driver and files per trial of that study.

The first part of each run is a warm-up and does not count. Ray runs on this machine; trials do no other work.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.reporting import describe_machine, format_result, format_table
from study import Arm, Budget, Never, Study, Tpe, uniform
from study.cluster.allocation import Resources
from study.cluster.connection import connect, disconnect
from study.driver import restore_coordinator
from study.execution.tune import execute
from study.execution.worker_context import WorkerContext
from study.preflight import DriverOptions
from study.trial import EpochResult, Trial, TrialState
from trainables.tasks import simulated
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent

WARM_UP = 0.2
"""The share of a run's trials that are a warm-up and do not count."""


@dataclass(frozen=True)
class Cost:
    """The cost per trial after the warm-up: wall clock in seconds, growth of the driver in bytes, files."""

    seconds: float
    memory_bytes: float
    files: float


def make_study(trials: int, epochs: int, seconds_per_epoch: float = 0.0, cells: int = 1) -> Study:
    """Return a study that searches one setting in each cell, without early stopping."""
    searched = (Arm(f"searched {n}", SimulatedLoss(x=uniform(0, 1), needs_teacher=False)) for n in range(cells))
    return Study(
        name="engine",
        question="What does a trial cost that does nothing?",
        task=Simulated(seconds_per_epoch, teacher_epochs=0),
        students=(SimulatedStudent(),),
        arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True), *searched),
        budget=Budget(trials=trials, epochs=epochs, seeds=1),
        stopping=Never(),
    )


def measure_engine(measured: Study, concurrent: int, cpus: float = 1, workers: int = 1) -> Cost:
    """Run a study on the connected Ray cluster, `concurrent` trials at a time, and return its cost.

    Each trial has so many `workers`, each of them `cpus`.
    """
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        coordinator = restore_coordinator(measured, {"data": {"fingerprint": "none"}}, DriverOptions(storage))
        coordinator.resources = {"device": "cpu", "cpus": cpus, "gpus": 0.0}
        resources = Resources(cpus, 0.0, concurrent, workers)
        recorder = EndRecorder()
        coordinator.writer.trackers = [recorder]
        execute(coordinator, WorkerContext(storage / "engine", storage), resources, simulated, lambda: "", print)
        files = sum(1 for path in (storage / "engine").rglob("*") if path.is_file() and "checkpoints" not in path.parts)
    return _compute_cost(recorder.ends, files)


class EndRecorder:
    """Tracker (study/trackers/base.py) that records each trial's end and this process's memory at that time."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, int]] = []

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        """Do nothing: only ends are timed."""

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        self.ends.append((time.monotonic(), read_resident_bytes()))

    def close(self) -> None:
        """Do nothing: no file is open."""


def read_resident_bytes() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _compute_cost(ends: list[tuple[float, int]], files: int) -> Cost:
    first = int(len(ends) * WARM_UP)
    seconds = (ends[-1][0] - ends[first][0]) / (len(ends) - 1 - first)
    grown = ends[-1][1] - ends[first][1]
    return Cost(seconds, grown / (len(ends) - 1 - first), files / len(ends))


def measure_tune(trials: int, epochs: int, concurrent: int) -> float:
    """Return seconds per trial of the same search by Tune's own OptunaSearch, all defaults but the printing."""
    from optuna.samplers import TPESampler
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def train(config: dict[str, float]) -> None:
        for epoch in range(1, epochs + 1):
            tune.report({"accuracy": 1 - (config["x"] - 0.3) ** 2, "epoch": epoch})

    ends: list[float] = []

    class EndTimes(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: list[object], trial: object, **info: object) -> None:
            ends.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(train, {"CPU": 1}),
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                search_alg=OptunaSearch(sampler=TPESampler(n_startup_trials=Tpe().startup_trials)),
                num_samples=trials,
                max_concurrent_trials=concurrent,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[EndTimes()]),
        ).fit()
    first = int(len(ends) * WARM_UP)
    return (ends[-1] - ends[first]) / (len(ends) - 1 - first)


@contextmanager
def enable_default_loggers() -> Iterator[None]:
    """Let Tune write its default logs, which study/execution/tune.py switches off for this process."""
    name = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"
    off = os.environ.pop(name)
    try:
        yield
    finally:
        os.environ[name] = off


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A short check with few trials, under 45 s.")
@click.option("--trials", type=click.IntRange(min=20), help="Trials of the long study [10000; quick: 10].")
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Concurrent trials of the long study; 2 if quick.",
)
def main(quick: bool, trials: int | None, slots: int) -> None:
    """Measure the cost of trials, epochs and bookkeeping."""
    print("\n".join(describe_machine()), flush=True)
    connect(None)
    try:
        report_costs(quick, *((40, 10, 2, trials or 10, 2) if quick else (600, 40, 40, trials or 10_000, slots)))
    finally:
        disconnect()


def report_costs(quick: bool, short: int, many_epochs: int, peers: int, long: int, slots: int) -> None:
    single = measure_engine(make_study(short, 1), 2)
    several = measure_engine(make_study(max(short // 5, 10), many_epochs), 2)
    by_epoch = (several.seconds - single.seconds) / (many_epochs - 1)
    pair = measure_engine(make_study(max(short // 4, 20), 1), 1, workers=2)
    pair_by_epoch = math.nan
    if not quick:  # workers of another slot take ten seconds to start
        pair_several = measure_engine(make_study(max(short // 10, 10), many_epochs), 1, workers=2)
        pair_by_epoch = (pair_several.seconds - pair.seconds) / (many_epochs - 1)
    with enable_default_loggers():
        tune_seconds = measure_tune(peers, 1, 2)
    epochs, seconds = 4, 0.25
    cells = max(long // 200, 1)  # about 200 trials per search, as in a study
    run = measure_engine(make_study(long // cells, epochs, seconds, cells), slots, cpus=(os.cpu_count() or 1) / slots)
    over = run.seconds * slots / (epochs * seconds) - 1
    print()
    print(
        format_table(
            [
                ("what", "measured", "goal"),
                ("a trial of one epoch, two at a time", f"{1e3 * single.seconds:.1f} ms", "30 ms"),
                ("each further epoch", f"{1e3 * by_epoch:.2f} ms", "5 ms"),
                ("a trial of one epoch by two workers", f"{1e3 * pair.seconds:.1f} ms", "100 ms"),
                ("each further epoch by two workers", "–" if quick else f"{1e3 * pair_by_epoch:.2f} ms", ""),
                ("a trial of plain Tune with OptunaSearch", f"{1e3 * tune_seconds:.0f} ms", ""),
                (f"{long} trials of {epochs * seconds:g} s, {slots} at a time: over the ideal", f"{over:.1%}", "15 %"),
                ("driver memory by trial", f"{run.memory_bytes / 1024:.1f} KiB", "50 KiB"),
                ("files by trial, before the last compaction", f"{run.files:.3f}", "3"),
            ]
        )
    )
    print()
    print(format_result("engine_trial", [single.seconds], "s"))
    print(format_result("engine_epoch", [max(by_epoch, 1e-6)], "s"))
    print(format_result("engine_trial_two_workers", [pair.seconds], "s"))
    if not quick:
        print(format_result("engine_epoch_two_workers", [max(pair_by_epoch, 1e-6)], "s"))
    print(format_result("tune_trial", [tune_seconds], "s"))
    print(format_result("tune_over_engine", [tune_seconds / single.seconds], "x"))
    print(format_result("bookkeeping", [max(100 * over, 0.01)], "%"))
    print(format_result("driver_memory_by_trial", [max(run.memory_bytes / 1024, 0.01)], "KiB"))
    print(format_result("files_by_trial", [run.files], "files"))


if __name__ == "__main__":
    main()
