"""Background trackers: none of them can delay a study or end it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from study.errors import InputError
from study.trackers import base
from study.trackers.base import open_trackers
from study.trial import EpochResult, Trial, TrialState
from tests.study.trackers.examples import COMPLETE, row, trial


class Broken:
    """Works until its second epoch."""

    def __init__(self) -> None:
        self.epochs, self.closed = 0, 0

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self.epochs += 1
        if self.epochs == 2:
            raise ConnectionError("no answer\nfrom the server")

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        raise AssertionError("unreachable: it failed before")

    def close(self) -> None:
        self.closed += 1
        raise ConnectionError("still no answer")


def test_tracker_that_fails_is_switched_off_with_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, lines = Broken(), []
    monkeypatch.setattr(base, "_open_tracker", lambda *_: broken)
    with open_trackers(["mlflow"], folder, "", lines.append) as (tracker,):
        for epoch in (1, 2, 3):
            tracker.log_epoch(trial(), row(epoch))
        tracker.finish_trial(trial(), COMPLETE, "")
    assert lines == ["--log mlflow is switched off, the study continues: ConnectionError: no answer"]
    assert (broken.epochs, broken.closed) == (2, 1)


class Hanging(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self.answer.wait(20)


def test_tracker_that_hangs_delays_no_epoch_and_the_end_only_briefly(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CLOSE_SECONDS", 0.2)
    hanging, lines = Hanging(), []
    monkeypatch.setattr(base, "_open_tracker", lambda *_: hanging)
    started = time.monotonic()
    with open_trackers(["wandb"], folder, "", lines.append) as (tracker,):
        for epoch in range(1, 1000):
            tracker.log_epoch(trial(), row(epoch))
        assert time.monotonic() - started < 0.2
    assert time.monotonic() - started < 5
    hanging.answer.set()
    assert lines == ["--log wandb: not finished after 0.2 s, the rest is not logged"]


def test_interrupted_study_waits_for_all_its_trackers_together_a_few_seconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.INTERRUPTED_SECONDS <= 3
    monkeypatch.setattr(base, "INTERRUPTED_SECONDS", 1.0)
    hanging, lines = Hanging(), []
    monkeypatch.setattr(base, "_open_tracker", lambda *_: hanging)
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        for tracker in stack.enter_context(open_trackers(["mlflow", "wandb"], folder, "", lines.append)):
            tracker.log_epoch(trial(), row(1))
        raise KeyboardInterrupt
    assert 1 <= time.monotonic() - started < 1.9
    hanging.answer.set()
    assert lines == [f"--log {name}: not finished after 1 s, the rest is not logged" for name in ("mlflow", "wandb")]


SILENT = """
import os, socket, sys
from pathlib import Path
from study.trackers import base
from tests.study.trackers.examples import row, trial

listening = socket.create_server(("127.0.0.1", 0))  # and never answers
os.environ["WANDB_BASE_URL"] = os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
base.INTERRUPTED_SECONDS = 0.5
with base.open_trackers(["mlflow", "wandb"], Path(sys.argv[1]), "", print) as opened:
    for tracker in opened:
        tracker.log_epoch(trial(), row(1))
    raise KeyboardInterrupt
"""


def test_interrupted_process_ends_although_no_server_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason='needs pip install -e ".[wandb]"')
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of this process, if it has used wandb
    words = [sys.executable, "-u", "-c", SILENT, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for _ in ("mlflow", "wandb"):
            assert "not finished after 0.5 s, the rest is not logged" in process.stdout.readline()
        assert process.wait(10) == -signal.SIGINT  # W&B itself waits for 20 s


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_missing_package_is_one_line_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'--log {name}: .*{package}.*; install it with: pip .* "\.\[{name}\]"$'):
        open_trackers([name], folder, "", print).__enter__()


def test_trackers_close_when_the_study_is_interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, lines = Broken(), []
    monkeypatch.setattr(base, "_open_tracker", lambda *_: broken)
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        stack.enter_context(open_trackers(["mlflow", "mlflow"], folder, "", lines.append))
        raise KeyboardInterrupt
    assert broken.closed == 2  # once by the study, once after it failed
