"""The cost of a report: python -m benchmarks.report [--trials 1000] [--epochs 100] [--quick].

Writes a synthetic study of about `--trials` trials, row by row through the engine's own writer: two students, a
teacher, five arms of which two are searched with successive halving, ten confirm seeds, some failed trials, and moving
learning rate and pruning. Then runs `python -m reports.build` on it in its own process, and measures time, peak memory
and size of the page. Goals at 1,000 trials of 100 epochs: 10 s, 8 MB, 1.5 GB.
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from benchmarks.reporting import describe_machine, format_result
from study.records.parquet_table import Records
from study.records.study_json import write_study

STUDENTS = ("resnet8", "resnet20")
ARMS = ("no distillation", "KD", "DKD", "DKD + LP", "DKD + EAT")
SEARCHED = ARMS[3:]
SEEDS, WORKERS = 10, 8
SPACE = {
    "pruning.end": {"is": "Uniform", "low": 0.05, "high": 0.6, "log": False},
    "temperature": {"is": "Uniform", "low": 1.0, "high": 20.0, "log": True},
    "weight": {"is": "Uniform", "low": 0.1, "high": 10.0, "log": True},
    "pruning.stages": {"is": "Integer", "low": 2, "high": 8, "log": False},
    "pruning.shape": {"is": "Choice", "labels": ["linear", "cosine"], "options": ["linear", "cosine"]},
}
METRICS = {"train/loss": "min", "train/accuracy": "max", "train/teacher_distance": "min"}
METRICS |= {"val/accuracy": "max", "test/accuracy": "max"}
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@dataclass(frozen=True)
class SyntheticTrial:
    """A trial to write: its identity, its state, and its number of epochs."""

    student: str
    arm: str
    phase: str
    number: int
    state: str
    epochs_done: int
    params: dict[str, Any]


def write_synthetic_study(folder: Path, trials: int, epochs: int) -> None:
    """Write a finished study of about `trials` trials to `folder`."""
    records = Records(folder, METRICS)
    rng = random.Random(0)
    for place, synthetic in enumerate(_generate_trials(trials, epochs, rng)):
        _write_trial(records, synthetic, place, epochs, rng)
        if place % 200 == 199:
            records.flush()
    records.compact()
    write_study(folder, _make_study_json(trials, epochs))


def _generate_trials(trials: int, epochs: int, rng: random.Random) -> Iterator[SyntheticTrial]:
    searches = (trials - len(STUDENTS) * len(ARMS) * SEEDS) // (len(STUDENTS) * len(SEARCHED))
    yield SyntheticTrial("", "teacher", "prepare", 0, "COMPLETE", epochs, {})
    for student in STUDENTS:
        for arm in ARMS:
            for number in range(max(searches, 1) if arm in SEARCHED else 0):
                state = rng.choices(("COMPLETE", "PRUNED", "FAILED"), (35, 62, 3))[0]
                done = epochs if state == "COMPLETE" else rng.choice((epochs // 9, epochs // 3)) or 1
                yield SyntheticTrial(student, arm, "search", number, state, done, _draw_params(rng))
            for number in range(SEEDS):
                yield SyntheticTrial(student, arm, "confirm", number, "COMPLETE", epochs, {})


def _draw_params(rng: random.Random) -> dict[str, Any]:
    return {
        "pruning.end": rng.uniform(0.05, 0.6),
        "temperature": 20 ** rng.random(),
        "weight": 10 ** rng.uniform(-1, 1),
        "pruning.stages": rng.randint(2, 8),
        "pruning.shape": rng.choice(("linear", "cosine")),
    }


def _write_trial(records: Records, synthetic: SyntheticTrial, place: int, epochs: int, rng: random.Random) -> None:
    score = (
        0.9
        - 0.3 * (synthetic.params.get("pruning.end", 0.4) - 0.3) ** 2
        + 0.01 * ARMS.index(synthetic.arm) * (synthetic.phase == "confirm")
        + rng.gauss(0, 0.003)
        if synthetic.arm in ARMS
        else 0.95
    )
    cell, trial_id = (f"{synthetic.student} / {synthetic.arm}" if synthetic.student else synthetic.arm), f"{place:012x}"
    # each worker runs its trials one after the other
    started = START + timedelta(seconds=place // WORKERS * epochs * 0.7 + place % WORKERS)
    row: dict[str, Any] = {"trial_id": trial_id, "cell": cell, "phase": synthetic.phase}
    last: dict[str, float] = {}
    for epoch in range(1, synthetic.epochs_done + 1):
        rise = score * (1 - math.exp(-5 * epoch / epochs)) + rng.gauss(0, 0.002)
        last = {"train/loss": 1 - rise, "train/accuracy": rise, "train/teacher_distance": 2.0 - rise}
        last |= {"val/accuracy": rise} if synthetic.phase == "search" else {}
        last |= {"test/accuracy": score} if synthetic.phase != "search" and epoch == epochs else {}
        moving = {"learning_rate": 0.1 * 0.5 ** (4 * epoch // epochs), "pruning": 0.1 * (4 * epoch // epochs)}
        when = started + timedelta(seconds=0.6 * epoch)
        recorded = {"epoch": epoch, "seconds": 0.6, "recorded": when, "schedules": json.dumps(moving)}
        records.epochs.append(row | recorded | last)
    ended = started + timedelta(seconds=0.6 * synthetic.epochs_done)
    row |= {
        "student": synthetic.student,
        "arm": synthetic.arm,
        "number": synthetic.number,
        "seed": synthetic.number,
        "state": synthetic.state,
    }
    row |= {"reason": "" if synthetic.state == "COMPLETE" else "rung 9: below the best third", "epochs": epochs}
    row |= {"epochs_done": synthetic.epochs_done, "params": json.dumps(synthetic.params), "config": json.dumps(_CONFIG)}
    row |= {
        "seconds": 0.6 * synthetic.epochs_done,
        "started": started,
        "ended": ended,
        "worker": f"n0:{place % WORKERS}",
    }
    records.trials.append(row | {"device": "cuda", "cpus": 2.0, "gpus": 0.5} | last)


_CONFIG = {"task": {"is": "Classification", "views": "x" * 500}, "loss": {"is": "DKD"}}  # as long as a real config


def _make_study_json(trials: int, epochs: int) -> dict[str, Any]:
    arms = [{"is": "Arm", "name": arm, "loss": {"is": "DKD"} | (SPACE if arm in SEARCHED else {})} for arm in ARMS]
    return {
        "schema": 1,
        "name": "synthetic",
        "question": "How much does a report cost?",
        "finished": True,
        "metric": "val/accuracy",
        "test_metric": "test/accuracy",
        "direction": "max",
        "metrics": METRICS,
        "confirm_on": "train+val",
        "budget": {"trials": trials, "epochs": epochs, "seeds": SEEDS},
        "cells": [_make_cell(student, arm) for student in STUDENTS for arm in ARMS],
        "study": {"arms": arms},
    }


def _make_cell(student: str, arm: str) -> dict[str, Any]:
    searched = arm in SEARCHED
    versus = None if arm == ARMS[0] else "DKD" if searched else ARMS[0]
    names = {"cell": f"{student} / {arm}", "student": student, "arm": arm, "versus": versus}
    return names | {"baseline": not searched, "searched": searched, "parameters": list(SPACE) if searched else []}


# -- the command -------------------------------------------------------------------------------------------------------


CHILD = """
import sys
from pathlib import Path
from reports.build import main

main(sys.argv[1:], standalone_mode=False)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""
"""Run the command, then print its own peak memory: the system's count for a child includes its parent's."""


@dataclass(frozen=True)
class Cost:
    """Wall clock and processor time in seconds, and peak memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure_build(folder: Path) -> Cost:
    """Run `python -m reports.build` on a study's folder in its own process, and return its cost."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - start, cpu, 1024 * int(done.stdout.splitlines()[-1].split()[1]))


@click.command()
@click.option("--quick", is_flag=True, help="A short check: 120 trials of 9 epochs.")
@click.option(
    "--trials", default=1000, show_default=True, type=click.IntRange(min=120), help="Trials of the synthetic study."
)
@click.option("--epochs", default=100, show_default=True, type=click.IntRange(min=9), help="Epochs per trial.")
def main(quick: bool, trials: int, epochs: int) -> None:
    """Measure time, memory and size of the report of a large study."""
    trials, epochs = (120, 9) if quick else (trials, epochs)
    print("\n".join([*describe_machine(), f"study    {trials} trials of {epochs} epochs"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="kdstudy-report-") as parent:
        folder = Path(parent) / "synthetic"
        write_synthetic_study(folder, trials, epochs)
        cost = measure_build(folder)
        size = (folder / "report.html").stat().st_size
    print(
        f"report   {cost.seconds:.1f} s, of which processor time {cost.cpu_seconds:.1f} s, page {size / 1e6:.2f} MB, ",
        end="",
    )
    print(f"peak memory {cost.peak_bytes / 1e9:.2f} GB")
    print("goals    10 s, 8 MB, 1.5 GB at 1,000 trials of 100 epochs\n")
    print(format_result("report_seconds", [cost.seconds], "s"))
    print(format_result("report_cpu_seconds", [cost.cpu_seconds], "s"))
    print(format_result("report_megabytes", [size / 1e6], "MB"))
    print(format_result("report_peak_memory", [cost.peak_bytes / 1e9], "GB"))


if __name__ == "__main__":
    main()
