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
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.study.cli.studies import called
from tests.study.folder import Folder, call, folder_trials_ended, is_whole, wait_for


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

    again = call(folder)
    assert again.exit_code == 0, again.stderr
    assert "nothing to train, writing the report again" in again.stdout
    pd.testing.assert_frame_equal(folder.trials(), before)

    journal = JournalStorage(JournalFileBackend(str(folder.study / "optuna.journal")))
    told = optuna.load_study(study_name="student / searched", storage=journal).trials
    rows = before[before.phase == "search"].set_index("number")
    assert {trial.state.name for trial in told} == {"COMPLETE", "PRUNED"}
    for trial in told:
        assert trial.state.name == rows.state[trial.number]
        assert len(trial.intermediate_values) == rows.epochs_done[trial.number]


def test_finished_study_goes_on_with_more_trials_not_with_fewer_and_starts_beside_itself(
    folder: Folder, without_ray: None
) -> None:
    assert call(folder).exit_code == 0
    folder.write(trials=10)
    extended = call(folder)
    assert extended.exit_code == 0, extended.stderr
    assert len(folder.trials().query("phase == 'search'")) == 10
    runs = json.loads((folder.study / "study.json").read_text())["provenance"]["runs"]
    assert [(run["budget"]["trials"], run["results_known"]) for run in runs] == [(9, False), (10, True)]

    folder.write(trials=9)
    changed = call(folder)
    assert changed.exit_code == 2
    assert "budget.trials: 10 → 9" in changed.stderr
    other = call(folder, "--fresh")
    assert other.exit_code == 0, other.stderr
    assert (folder.runs / "toy-2" / "report.html").is_file()
    fresh = call(folder, "--fresh", "--dry-run")
    assert fresh.exit_code == 0
    assert "toy-3" in fresh.stdout


@pytest.mark.slow
def test_sighup_sigkill_and_a_lost_worker_fail_and_repeat_no_trial(folder: Folder) -> None:
    folder.write(seconds=0.25)
    interrupt(folder, signal.SIGHUP, epochs=3)
    process = folder.start()
    wait_for(lambda: len(folder_trials_ended(folder)) > 3, process)
    second = call(folder)
    assert second.exit_code == 2
    assert "is being run by another process" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended, gone = folder_trials_ended(folder), folder.worker_pids()

    resumed = folder.start_resume("--trials", "10")
    wait_for(lambda: bool(folder.worker_pids() - gone), resumed)
    os.kill(min(folder.worker_pids() - gone), signal.SIGKILL)  # it trains the next trial, or goes on with its own
    _, stderr = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, stderr
    is_whole(folder, searched=10)
    after = folder.trials().set_index("trial_id")
    for trial_id, at in ended.items():
        assert after.ended[trial_id] == at, "a trial that had ended was run again"

    described = json.loads((folder.study / "study.json").read_text())
    (folder.study / "study.json").write_text(json.dumps(described | {"finished": False}))
    assert call(folder, "--trials", "10").exit_code == 0, "killed between the last row and the last word"
    is_whole(folder, searched=10)


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


def test_edited_helper_function_mixes_no_trials_without_a_word(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    monkeypatch.chdir(folder.path)
    folder.space.write_text(OWN_LOSS)
    assert call(folder).exit_code == 0
    folder.space.write_text(
        OWN_LOSS.replace("def bonus():", "def bonus():  # found by hand").replace("seeds=2", "seeds=3")
    )
    assert call(folder).exit_code == 0, "a comment and the number of seeds are no code"
    assert set(folder.trials().code) == {(before := folder.trials().code.iloc[0])}

    folder.space.write_text(OWN_LOSS.replace("0.05", "-0.5"))
    refused = call(folder, "--seeds", "6")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "toy.py changed since the last run of" in refused.stderr
    assert set(folder.trials().code) == {before}

    allowed = called("resume", folder.study, "--seeds", "6", "--allow-code-change")
    assert allowed.exit_code == 0, allowed.stderr
    assert "not judged: trials of two code versions" in allowed.stdout
    assert folder.trials().groupby("arm").code.nunique().to_dict() == {"mine": 2, "plain": 2}
    recorded = json.loads((folder.study / "study.json").read_text())
    assert "--allow-code-change" not in recorded["provenance"]["command"]
    assert call(folder, "--seeds", "6").exit_code == 0, "the same code as in the last run needs no option"


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
