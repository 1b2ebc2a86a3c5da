"""Does a killed study end as one never killed? python -m benchmarks.kills [--kills 100] [--quick].

A simulated study, one trial at a time, is run once in peace. Then it is run again and again, each run's driver killed
with SIGKILL at a moment drawn uniformly from the length of a whole run, start and report included, until so many kills
are spent; a study that gets to its end in between is compared with the peaceful one, and the next one begins. Compared
are, value by value: trials with their states, reasons, proposals and scores, epochs with their metrics, and what Optuna
was told. A trial or an epoch that is missing, doubled or different is one difference. Preparations are not compared:
what they make is kept by content, and a study killed between making and telling does not need it any more.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.reporting import machine, result
from study.records.segments import KEYS, Records, read_segments
from trainables.tasks.simulated import Simulated

SPACE = """
from study import Arm, Budget, Study, SuccessiveHalving, uniform
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
    ),
    budget=Budget(trials={trials}, epochs=8, seeds=2),
    stopping=SuccessiveHalving(min_epochs=1, reduction=2, brackets=2),
)
"""

TRIALS = 14

TRIAL = ("trial_id", "cell", "phase", "number", "seed", "state", "reason", "params", "config", "epochs_done")
EPOCH = ("trial_id", "epoch")

Picture = dict[tuple[Any, ...], tuple[Any, ...]]
"""What is compared: each trial, epoch and Optuna trial, by what names it."""


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The study's command in a session of its own; what is left of its processes ends with this context."""
    words = ["-m", "study.run", str(folder / "killed.py"), "--storage-path", str(folder), "--max-concurrent", "1"]
    with (folder / "said.txt").open("ab") as said:
        process = subprocess.Popen([sys.executable, *words], stdout=said, stderr=said, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(folder: Path, patience: float | None) -> bool:
    """Start or go on with the study; kill its driver after so many seconds. True if it had ended before."""
    with running(folder) as process:
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
    if code != 0:
        raise click.ClickException(
            f"the study ended with exit code {code}: {(folder / 'said.txt').read_text()[-2000:]}"
        )
    return True


def picture(folder: Path) -> Picture:
    """The study as its rows and its Optuna journal have it. A doubled row shows under a key of its own."""
    records = Records(folder / "killed", Simulated.metrics)
    seen: Picture = {}
    for table, columns in ((records.trials, TRIAL), (records.epochs, EPOCH)):
        for row in read_segments(table.folder, table.schema).to_pylist():
            if row["phase"] == "prepare":
                continue
            key = (table.folder.name, *(row[name] for name in KEYS[table.folder.name]))
            values = tuple(row[name] for name in (*columns, *Simulated.metrics))
            seen[(*key, "again") if key in seen else key] = values
    journal = JournalStorage(JournalFileBackend(str(folder / "killed" / "optuna.journal")))
    for study in optuna.get_all_study_summaries(journal):
        for told in optuna.load_study(study_name=study.study_name, storage=journal).trials:
            values = (told.state.name, told.params, told.values, told.intermediate_values, told.user_attrs)
            seen["optuna", study.study_name, told.number] = values
    return seen


def differences(peaceful: Picture, other: Picture) -> list[str]:
    keys = sorted(peaceful.keys() | other.keys(), key=str)
    return [f"{key}: {peaceful.get(key)} and {other.get(key)}" for key in keys if peaceful.get(key) != other.get(key)]


def begun(trials: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kdstudy-kills-"))
    (folder / "killed.py").write_text(SPACE.format(trials=trials))
    return folder


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(min=1), default=100, show_default=True, help="How many drivers to kill.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments.")
@click.option("--quick", is_flag=True, help="One kill of a smaller study.")
def main(kills: int, seed: int, quick: bool) -> None:
    """Kill a study's driver at random moments and compare what comes of it with a study left in peace."""
    print("\n".join(machine()), flush=True)
    moments = random.Random(seed)
    kills, trials = (1, 4) if quick else (kills, TRIALS)
    folder = begun(trials)
    start = time.monotonic()
    finish(folder, None)
    length = time.monotonic() - start
    peaceful, found, studies, left = picture(folder), 0, 0, kills
    print(f"in peace: {len(peaceful)} things to compare, {length:.1f} s", flush=True)
    while left:
        folder, spent = begun(trials), 0
        while not finish(folder, moments.uniform(0, length) if left else None):
            left, spent = left - 1, spent + 1
        differing = differences(peaceful, picture(folder))
        found, studies = found + len(differing), studies + 1
        print("\n".join([f"study {studies}: {spent} kills, {len(differing)} differences", *differing]), flush=True)
    print()
    print(result("kills", [kills], "kills"))
    print(result("studies", [studies], "studies"))
    print(result("compared", [len(peaceful)], "values"))
    print(result("differences", [found], "differences"))


if __name__ == "__main__":
    main()
