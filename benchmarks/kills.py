"""Compare killed studies with an undisturbed one: python -m benchmarks.kills [--population] [--workers 2] [--quick].

A simulated study, one trial at a time of one worker or of several, runs once undisturbed. Then it runs repeatedly, and
each run's driver is killed with SIGKILL at a moment drawn uniformly from the duration of a full run, start and report
included, until `--kills` drivers were killed. A study that ends in between is compared with the undisturbed one, and
the next study starts. The comparison covers, value by value: trials with their states, reasons, proposals and scores,
epochs with their metrics, Optuna's trials, and the checkpoints that members of a population leave, which are none. A
trial or epoch that is missing, duplicated or different is one difference. Preparations are not compared: their results
are stored by content, so a study killed between storing and recording one does not need it.

With `--population` the study is one search by a population, two trials at a time, of a task whose scores depend on all
settings since the first epoch: a copy of another checkpoint than the first time changes them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.reporting import describe_machine, format_result
from study.records.columns import KEYS
from study.records.parquet_table import Records, read_parquet_table
from study.records.paths import StudyPaths
from trainables.tasks.simulated import Simulated

SPACE = """
from study import Arm, Budget, PopulationBased, Study, SuccessiveHalving, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

study = Study(
    name="killed",
    question="Does a killed study end as one never killed?",
    task=Simulated(seconds_per_epoch=0.04),
    students=(SimulatedStudent(),),
    arms=(
        Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
        Arm("searched", SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), gain=0.05)),
        Arm("other", SimulatedLoss(x=uniform(0, 1), gain=0.02)),
        Arm("population", SimulatedLoss(x=uniform(0, 1)), search=PopulationBased(interval_epochs=2, quantile=0.4)),
    ),
    budget=Budget(trials={trials}, epochs=8, seeds=2),
    stopping=SuccessiveHalving(min_epochs=1, reduction=2, brackets=2),
)
"""

POPULATION_SPACE = """
from study import Arm, Budget, PopulationBased, Study, uniform
from trainables import MovingLoss, MovingOptimum, SimulatedStudent

study = Study(
    name="killed",
    question="Does a killed population end as one never killed?",
    task=MovingOptimum(seconds_per_epoch=0.04),
    students=(SimulatedStudent(),),
    arms=(
        Arm("plain", MovingLoss(), baseline=True),
        Arm(
            "population",
            MovingLoss(x=uniform(0, 1), y=uniform(0, 1)),
            search=PopulationBased(interval_epochs=2, quantile=0.4),
        ),
    ),
    budget=Budget(trials={trials}, epochs=12, seeds=2),
    reproducible_search=2,  # no decision depends on which of two trials ends first
)
"""

TRIALS, MEMBERS = 14, 8
"""Trials of each search, and members of the population with `--population`."""

TRIAL = ("trial_id", "cell", "phase", "number", "seed", "state", "reason", "params", "config", "epochs_done", "member",
         "start_epoch", "end_epoch", "parent")  # fmt: skip
EPOCH = ("trial_id", "epoch")

Outcome = dict[tuple[Any, ...], tuple[Any, ...]]
"""The compared values of each trial, epoch and Optuna trial, by its key."""


@contextmanager
def start_driver(folder: Path, options: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the study's command in its own session; kill what is left of its processes on exit."""
    words = ["-m", "study.run", str(folder / "killed.py"), "--storage-path", str(folder), *options]
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_study(folder: Path, options: Sequence[str], kill_after: float | None) -> bool:
    """Start or continue the study and kill its driver after `kill_after` seconds; return whether it ended before."""
    with start_driver(folder, options) as process:
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
    if code != 0:
        raise click.ClickException(
            f"the study ended with exit code {code}: {(folder / 'output.txt').read_text()[-2000:]}"
        )
    return True


def read_outcome(folder: Path) -> Outcome:
    """Read a study's rows and its Optuna journal. A duplicated row gets a key of its own."""
    records = Records(folder / "killed", Simulated.metrics)
    seen: Outcome = {}
    for table, columns in ((records.trials, TRIAL), (records.epochs, EPOCH)):
        for row in read_parquet_table(table.folder, table.schema).to_pylist():
            if row["phase"] == "prepare":
                continue
            key = (table.folder.name, *(row[name] for name in KEYS[table.folder.name]))
            values = tuple(row[name] for name in (*columns, *Simulated.metrics))
            seen[(*key, "again") if key in seen else key] = values
    left = {path.name for path in StudyPaths(folder / "killed").folder.glob("checkpoints/*")}
    members = {row["trial_id"] for row in records.trials.read_rows() if row["member"] is not None}
    seen["checkpoints of members",] = tuple(sorted(left & members))
    journal = JournalStorage(JournalFileBackend(str(folder / "killed" / "optuna.journal")))
    for study in optuna.get_all_study_summaries(journal):
        for trial in optuna.load_study(study_name=study.study_name, storage=journal).trials:
            values = (trial.state.name, trial.params, trial.values, trial.intermediate_values, trial.user_attrs)
            seen["optuna", study.study_name, trial.number] = values
    return seen


def list_differences(undisturbed: Outcome, other: Outcome) -> list[str]:
    keys = sorted(undisturbed.keys() | other.keys(), key=str)
    return [
        f"{key}: {undisturbed.get(key)} and {other.get(key)}" for key in keys if undisturbed.get(key) != other.get(key)
    ]


def make_folder(space: str, trials: int) -> Path:
    """Create a temporary folder with the space file, and return it."""
    folder = Path(tempfile.mkdtemp(prefix="kdstudy-kills-"))
    (folder / "killed.py").write_text(space.format(trials=trials))
    return folder


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(min=1), default=100, show_default=True, help="Number of drivers to kill.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the moments.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Workers of each trial.")
@click.option("--population", is_flag=True, help="A search by a population alone, two trials at a time.")
@click.option("--quick", is_flag=True, help="One kill, halfway through a smaller study.")
def main(kills: int, seed: int, workers: int, population: bool, quick: bool) -> None:
    """Kill a study's driver at random moments, and compare the resumed study with an undisturbed one."""
    print("\n".join(describe_machine()), flush=True)
    moments = random.Random(seed)
    space, trials = (POPULATION_SPACE, MEMBERS) if population else (SPACE, TRIALS)
    kills, trials = (1, 2) if quick else (kills, trials)
    shares = (0.4, 0.5) if quick else (0.0, 1.0)  # start and report take half of a small study
    options = ["--max-concurrent", "2" if population else "1", "--workers-per-trial", str(workers)]
    folder = make_folder(space, trials)
    start = time.monotonic()
    run_study(folder, options, None)
    length = time.monotonic() - start
    undisturbed, found, studies, left = read_outcome(folder), 0, 0, kills
    print(f"undisturbed: {len(undisturbed)} items to compare, {length:.1f} s", flush=True)
    while left:
        folder, spent = make_folder(space, trials), 0
        while not run_study(folder, options, length * moments.uniform(*shares) if left else None):
            left, spent = left - 1, spent + 1
        differing = list_differences(undisturbed, read_outcome(folder))
        found, studies = found + len(differing), studies + 1
        print("\n".join([f"study {studies}: {spent} kills, {len(differing)} differences", *differing]), flush=True)
    print()
    prefix = "population_" if population else ""
    print(format_result(f"{prefix}kills", [kills], "kills"))
    print(format_result(f"{prefix}studies", [studies], "studies"))
    print(format_result(f"{prefix}compared", [len(undisturbed)], "values"))
    print(format_result(f"{prefix}differences", [found], "differences"))


if __name__ == "__main__":
    main()
