"""The command line on a real Ray: end to end, killed, interrupted, told nonsense. On the simulated task, no torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
import ray
from click.testing import CliRunner, Result
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from study.cli.run import main
from tests.study.folder import Folder, folder_trials_ended, is_whole, wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.write()
    return made


def interrupt(folder: Folder, number: signal.Signals, epochs: int) -> None:
    """Start a study, and end it by a signal when so many epochs are recorded."""
    process = folder.start()
    wait_for(lambda: folder.epochs_recorded() > epochs, process)
    sent = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - sent < 20  # five seconds on an idle machine, most of them Ray's
    assert process.returncode == 130
    assert "python -m study.run" in stderr
    states = set(folder.trials().state)
    assert "INTERRUPTED" in states
    assert "RUNNING" not in states


def test_study_is_interrupted_runs_to_its_end_and_is_then_only_reported(folder: Folder) -> None:
    folder.write(seconds=0.15)
    interrupt(folder, signal.SIGINT, epochs=3)
    done = folder.run()
    assert done.returncode == 0, done.stderr
    is_whole(folder)
    assert (folder.study / "report.html").is_file()
    assert str(folder.study / "report.html") in done.stdout
    assert "searched" in done.stdout
    provenance = json.loads((folder.study / "study.json").read_text())["provenance"]
    assert provenance["updated"] > provenance["created"]
    before = folder.trials()

    again = folder.run()
    assert again.returncode == 0, again.stderr
    assert "nothing to train, writing the report again" in again.stdout
    pd.testing.assert_frame_equal(folder.trials(), before)

    journal = JournalStorage(JournalFileBackend(str(folder.study / "optuna.journal")))
    told = optuna.load_study(study_name="student / searched", storage=journal).trials
    rows = before[before.phase == "search"].set_index("number")
    assert {trial.state.name for trial in told} == {"COMPLETE", "PRUNED"}
    for trial in told:
        assert trial.state.name == rows.state[trial.number]
        assert len(trial.intermediate_values) == rows.epochs_done[trial.number]


@pytest.mark.slow
def test_finished_study_goes_on_with_more_trials_not_with_fewer_and_starts_beside_itself(folder: Folder) -> None:
    assert folder.run().returncode == 0
    folder.write(trials=10)
    extended = folder.run()
    assert extended.returncode == 0, extended.stderr
    assert len(folder.trials().query("phase == 'search'")) == 10
    runs = json.loads((folder.study / "study.json").read_text())["provenance"]["runs"]
    assert [(run["budget"]["trials"], run["results_known"]) for run in runs] == [(9, False), (10, True)]

    folder.write(trials=9)
    changed = folder.run()
    assert changed.returncode == 2
    assert "budget.trials: 10 → 9" in changed.stderr
    other = subprocess.run(folder.command("--fresh"), capture_output=True, text=True, timeout=120, check=False)
    assert other.returncode == 0, other.stderr
    assert (folder.runs / "toy-2" / "report.html").is_file()
    fresh = folder.run("--fresh", "--dry-run")
    assert fresh.returncode == 0
    assert "toy-3" in fresh.stdout


@pytest.mark.slow
def test_sighup_then_sigkill_then_the_same_command_repeats_no_trial(folder: Folder) -> None:
    folder.write(seconds=0.15)
    interrupt(folder, signal.SIGHUP, epochs=3)
    process = folder.start()
    wait_for(lambda: folder.epochs_recorded() > 20, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = folder_trials_ended(folder)
    assert ended

    resumed = folder.run()
    assert resumed.returncode == 0, resumed.stderr
    is_whole(folder)
    after = folder.trials().set_index("trial_id")
    for trial_id, at in ended.items():
        assert after.ended[trial_id] == at, "a trial that had ended was run again"

    described = json.loads((folder.study / "study.json").read_text())
    (folder.study / "study.json").write_text(json.dumps(described | {"finished": False}))
    assert folder.run().returncode == 0, "killed between the last row and the last word"
    is_whole(folder)


@pytest.mark.slow
def test_lost_worker_is_not_the_trials_failure(folder: Folder) -> None:
    folder.write(seconds=0.3)
    process = folder.start()

    wait_for(lambda: bool(folder.epochs_recorded()) and bool(folder.worker_pid()), process)
    os.kill(folder.worker_pid(), signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    is_whole(folder)


FAILING = """
import dataclasses, os
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent

POISONED = False

@dataclasses.dataclass(frozen=True)
class Poison(Simulated):
    def train(self, job):
        global POISONED
        if POISONED:
            raise RuntimeError("this process was left unusable by an earlier trial")
        if job.loss.gain == -1:
            POISONED = True
            raise RuntimeError("device error")
        if job.loss.gain == -2:
            os._exit(3)
        yield from super().train(job)

study = Study(
    name="toy", question="?", task=Poison(teacher_epochs=0), students=(SimulatedStudent(),),
    arms=(
        Arm("poison", SimulatedLoss(gain=-1)),
        Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
        Arm("exits", SimulatedLoss(gain=-2)),
    ),
    budget=Budget(trials=1, epochs=2, seeds=2),
)
"""


@pytest.mark.slow
def test_failures_stay_with_their_trials_and_say_what_happened(folder: Folder) -> None:
    """One process for all: what a failed trial leaves behind in it must not reach the next."""
    folder.space.write_text(FAILING)
    done = folder.run("--max-concurrent", "1")
    assert done.returncode == 1, done.stderr
    trials = folder.trials().set_index("arm")
    assert set(trials.loc["plain"].state) == {"COMPLETE"}
    assert set(trials.loc["poison"].state) == {"FAILED"}
    for reason in trials.loc["poison"].reason:
        assert reason.startswith("RuntimeError: device error (toy.py:")
    for trial_id, reason in zip(trials.loc["exits"].trial_id, trials.loc["exits"].reason, strict=True):
        assert reason.startswith("its worker died 4 times without an epoch, last with ")
        assert (folder.study / "checkpoints" / trial_id / "traceback.txt").read_text()
    assert "poison: 2 of 2 seeds failed, the first with RuntimeError: device error" in done.stderr

    again = folder.run("--max-concurrent", "1")
    assert again.returncode == 1
    pd.testing.assert_frame_equal(folder.trials(), trials.reset_index()[folder.trials().columns.tolist()])
    folder.space.write_text(FAILING.replace("== -1:", "== -9:"))
    refused = folder.run("--retry-failed")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: toy.py changed since the last run of ")


OWN_LOSS = """
from dataclasses import dataclass
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent

def bonus():
    return 0.05

@dataclass(frozen=True)
class Mine(SimulatedLoss):
    @property
    def score(self):
        return super().score + bonus()

study = Study(
    name="toy", question="?", task=Simulated(teacher_epochs=0), students=(SimulatedStudent(),),
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True), Arm("mine", Mine())),
    budget=Budget(trials=1, epochs=1, seeds=2),
)
"""


@pytest.mark.slow
def test_edited_helper_function_mixes_no_trials_without_a_word(folder: Folder) -> None:
    folder.space.write_text(OWN_LOSS)
    assert folder.run().returncode == 0
    folder.space.write_text(
        OWN_LOSS.replace("def bonus():", "def bonus():  # found by hand").replace("seeds=2", "seeds=3")
    )
    assert folder.run().returncode == 0, "a comment and the number of seeds are no code"
    assert set(folder.trials().code) == {(before := folder.trials().code.iloc[0])}

    folder.space.write_text(OWN_LOSS.replace("0.05", "-0.5"))
    refused = folder.run("--seeds", "6")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "toy.py changed since the last run of" in refused.stderr
    assert set(folder.trials().code) == {before}

    resume = [sys.executable, "-m", "study", "resume", str(folder.study), "--seeds", "6", "--allow-code-change"]
    allowed = subprocess.run(resume, capture_output=True, text=True, timeout=120, check=False)
    assert allowed.returncode == 0, allowed.stderr
    assert "not judged: trials of two code versions" in allowed.stdout
    assert folder.trials().groupby("arm").code.nunique().to_dict() == {"mine": 2, "plain": 2}
    recorded = json.loads((folder.study / "study.json").read_text())
    assert "--allow-code-change" not in recorded["provenance"]["command"]
    assert folder.run("--seeds", "6").returncode == 0, "the same code as in the last run needs no option"


@pytest.mark.slow
def test_second_driver_is_refused_and_the_lock_does_not_outlive_a_crash(folder: Folder) -> None:
    folder.write(seconds=0.3)
    process = folder.start()
    wait_for(lambda: folder.epochs_recorded() > 0, process)
    second = folder.run()
    assert second.returncode == 2
    assert "is being run by another process" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder.write(seconds=0.3)
    third = folder.start()
    wait_for(lambda: "student" in (third.stdout.readline() if third.stdout else ""), third)
    third.send_signal(signal.SIGINT)
    third.communicate(timeout=30)
    assert third.returncode == 130


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "paper"], "has no profiles"),
        (["--trials", "0"], "trials is 0; allowed is a whole number, at least 1"),
        (["--seeds", "0"], "seeds is 0; allowed is a whole number, at least 1"),
        (["--gpus-per-worker", "64"], "a share of one GPU, from 0 to 1"),
        (["--storage-path", "/proc/nowhere"], "storage path /proc/nowhere cannot be written"),
        (["--name", "a/b"], "study name 'a/b'"),
        (["--max-concurrent", "0"], "--max-concurrent"),
        (["--gpus-per-worker", "1.5"], "a share of one GPU, from 0 to 1"),
        (["--gpus-per-worker", "nan"], "a share of one GPU, from 0 to 1"),
        (["--workers-per-trial", "4095", "--gpus-per-worker", "1"], "a trial asks for 4095 workers of 1 CPU and 1 GPU"),
        (["--workers-per-trial", "4096"], "a trial asks for 4096 workers of 1 CPU and "),
        (["--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
        (["--address", "nowhere"], "allowed are 'auto'"),
        (["--address", "ray://127.0.0.1:1"], "allowed are 'auto'"),
    ],
)
def test_bad_option_is_one_line_before_ray_is_started(folder: Folder, options: list[str], message: str) -> None:
    refused = call(folder, *options)
    assert not ray.is_initialized()
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1 or "Usage:" in refused.stderr
    assert not (folder.study / "trials").exists()


def call(folder: Folder, *options: str) -> Result:
    return CliRunner().invoke(main, [str(folder.space), "--storage-path", str(folder.runs), *options])


def test_study_folder_that_is_a_file_is_refused(folder: Folder) -> None:
    folder.runs.mkdir()
    folder.study.write_text("")
    refused = folder.run()
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "cannot be used" in refused.stderr


def test_missing_space_file_is_refused(folder: Folder) -> None:
    folder.space.unlink()
    refused = call(folder)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "no space file" in refused.stderr


def test_dry_run_says_what_would_be_trained_and_writes_nothing(folder: Folder) -> None:
    said = call(folder, "--dry-run")
    assert said.exit_code == 0
    assert "2 cells, 15 trials (9 search, 6 confirm), at most 90 epochs" in said.stdout
    assert not folder.runs.exists()


def test_dry_run_imports_neither_ray_nor_what_only_reports_need(folder: Folder) -> None:
    heavy = ("ray", "pandas", "scipy.stats", "scipy.special", "sklearn", "torch")  # a third to two seconds each
    code = (
        "import runpy, sys\ntry: runpy.run_module('study.run', run_name='__main__')\n"
        f"except SystemExit: print('imported:', *[name for name in {heavy} if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(folder.space), "--storage-path", str(folder.runs), "--dry-run"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.endswith("\nimported:\n")


def test_help_has_examples(folder: Folder) -> None:
    said = call(folder, "--help")
    for option in ("--profile", "--data-dir", "--storage-path", "--name", "--seed", "--trials", "--epochs", "--seeds",
                   "--max-concurrent", "--gpus-per-worker", "--workers-per-trial", "--address", "--fresh",
                   "--dry-run"):  # fmt: skip
        assert option in said.stdout
    assert "python -m study.run spaces/lp_cifar.py --dry-run" in said.stdout
