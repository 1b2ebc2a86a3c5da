"""A space file on the simulated task, and runs of it as a user starts them: on a real Ray, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from click.testing import CliRunner, Result

from study.cli.run import main

SPACE = """
from study import Arm, Budget, Study, SuccessiveHalving, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

study = Study(
    name="toy",
    question="Does the gain show?",
    task=Simulated(seconds_per_epoch={seconds}, teacher_epochs=2),
    students=(SimulatedStudent(),),
    arms=(
        Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
        Arm("searched", SimulatedLoss(x=uniform(0, 1), gain=0.05)),
    ),
    budget=Budget(trials={trials}, epochs=6, seeds=3),
    stopping=SuccessiveHalving(min_epochs=1, reduction=2),
)
"""


class Folder:
    """A space file and the runs of it."""

    def __init__(self, path: Path):
        self.path, self.space, self.runs = path, path / "toy.py", path / "runs"
        self.study = self.runs / "toy"
        self._written, self._recorded = list[tuple[Path, int]](), 0

    def write(self, seconds: float = 0.0, trials: int = 9) -> None:
        self.space.write_text(SPACE.format(seconds=seconds, trials=trials))

    def command(self, *options: str) -> list[str]:
        run = [sys.executable, "-m", "study.run", str(self.space), "--storage-path", str(self.runs)]
        return [*run, "--max-concurrent", "2", *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=120, check=False)

    def start(self, *options: str) -> subprocess.Popen[str]:
        return start(self.command(*options))

    def start_resume(self, *options: str) -> subprocess.Popen[str]:
        return start([sys.executable, "-m", "study", "resume", str(self.study), *options])

    def trials(self) -> pd.DataFrame:
        return pd.read_parquet(self.study / "trials")

    def epochs(self) -> pd.DataFrame:
        return pd.read_parquet(self.study / "epochs")

    def worker_pids(self) -> set[int]:
        """The processes that have trained; workers are reused, so those of the present run go on training."""
        return {int(worker.split(":")[1]) for worker in self.trials().worker if worker}

    def epochs_recorded(self) -> int:
        """Count epochs on record; the files are read only when they have changed, as tests ask ten times a second."""
        written = [(path, path.stat().st_mtime_ns) for path in sorted(self.study.glob("epochs/*.parquet"))]
        if written != self._written:
            self._written = written
            self._recorded = len(self.epochs().drop_duplicates(["trial_id", "epoch"])) if written else 0
        return self._recorded


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command in a group of its own, so that a signal reaches this run and nothing else."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def call(folder: Folder, *options: str) -> Result:
    """Run the command in this process: for what is refused, or trains nothing."""
    return CliRunner().invoke(main, [str(folder.space), "--storage-path", str(folder.runs), *options])


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60, interval: float = 0.1
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(interval)


def is_whole(folder: Folder, searched: int = 9, confirmed: int = 6, prepared: int = 1) -> None:
    """One row a trial, one row a trial and epoch, nothing missing, every cell confirmed."""
    trials = folder.trials()
    assert set(trials.state) <= {"COMPLETE", "PRUNED"}
    check_epochs(trials, folder.epochs())
    phases = {"search": searched, "confirm": confirmed, "prepare": prepared}
    assert trials.phase.value_counts().to_dict() == {phase: count for phase, count in phases.items() if count}
    assert json.loads((folder.study / "study.json").read_text())["finished"]


def check_epochs(trials: pd.DataFrame, epochs: pd.DataFrame) -> None:
    """One row a trial, one row a trial and epoch, nothing missing."""
    assert trials.trial_id.is_unique
    assert not epochs.duplicated(["trial_id", "epoch"]).any()
    last = epochs.groupby("trial_id").epoch.agg(["max", "size"]).loc[trials.trial_id]
    assert (last["max"].to_numpy() == trials.epochs_done.to_numpy()).all()
    assert (last["size"].to_numpy() == trials.epochs_done.to_numpy()).all()


def folder_trials_ended(folder: Folder) -> dict[str, pd.Timestamp]:
    rows = folder.trials().drop_duplicates("trial_id", keep="last")
    return dict(rows[rows.state.isin(["COMPLETE", "PRUNED"])].set_index("trial_id").ended)
