"""Trackers: what each wrote is read back by its own package, and none of them can harm a study."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from study.errors import InputError
from study.trackers import base as trackers
from study.trackers.base import open_trackers
from study.trial import EpochResult, Phase, Trial, TrialState

COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def trial(number: int = 0, phase: Phase = "search", arm: str = "DKD + LP") -> Trial:
    params = {"pruning.high": 0.25 + number, "optimiser": "sgd"} if phase == "search" else {}
    return Trial(phase, "resnet8", arm, number, 70 + number, 3, params, {"number": number})


def row(epoch: int, score: float = 0.5) -> EpochResult:
    metrics = {"train/loss": 1 / epoch, "val/accuracy": score + epoch / 10}
    return EpochResult(epoch=epoch, metrics=metrics, schedules={"temperature": 4.0 - epoch}, seconds=0.25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    return tmp_path / "toy"


def tell(folder: Path, name: str, *calls: tuple[Any, ...]) -> None:
    """One process of a study: an epoch is (trial, row), an end is (trial, state, reason)."""
    said: list[str] = []
    with open_trackers([name], folder, "Does it help?", said.append) as (tracker,):
        for call in calls:
            tracker.log_epoch(*call) if len(call) == 2 else tracker.finish_trial(*call)
    assert said == []


# -- TensorBoard -------------------------------------------------------------------------------------------------------


def events(folder: Path) -> Any:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs pip install tensorboard"
    )
    return accumulators.EventAccumulator(str(folder)).Reload()


def test_tensorboard_has_each_trials_scalars_and_parameters(folder: Path) -> None:
    told = [(trial(number), row(epoch, number)) for epoch in (1, 2, 3) for number in (0, 1)]
    tell(folder, "tensorboard", *told, (trial(0), COMPLETE, ""), (trial(1), PRUNED, "rung 1"))
    read = events(folder / "tensorboard" / "resnet8" / "DKD + LP" / f"search-1-{trial(1).id}")
    assert {"train/loss", "val/accuracy", "schedule/temperature", "seconds"} == set(read.Tags()["scalars"])
    assert {e.step: e.value for e in read.Scalars("val/accuracy")} == pytest.approx({1: 1.1, 2: 1.2, 3: 1.3})
    from tensorboard.plugins.hparams import metadata

    content = read.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    assert start.hparams["pruning.high"].number_value == 1.25
    assert start.hparams["optimiser"].string_value == "sgd"
    assert (start.hparams["cell"].string_value, start.hparams["seed"].string_value) == ("resnet8 / DKD + LP", "71")


def test_tensorboard_replaces_epochs_that_a_killed_study_told_and_lost(folder: Path) -> None:
    tell(folder, "tensorboard", *[(trial(), row(epoch)) for epoch in (1, 2, 3)])
    tell(folder, "tensorboard", (trial(), row(3, 5.0)), (trial(), COMPLETE, ""))
    read = events(folder / "tensorboard" / "resnet8" / "DKD + LP" / f"search-0-{trial().id}")
    assert [e.step for e in read.Scalars("val/accuracy")] == [1, 2, 3]
    assert read.Scalars("val/accuracy")[-1].value == pytest.approx(5.3)


@pytest.mark.parametrize("arms", [("a/b", "a%2Fb"), ("..", "%2E."), ("../../x", "x"), ("τ", "%3C4")])
def test_tensorboard_folders_stay_inside_and_apart_for_any_arm_name(folder: Path, arms: tuple[str, str]) -> None:
    pytest.importorskip("tensorboardX", reason="comes with ray[tune]")
    tell(folder, "tensorboard", *[(trial(arm=arm), FAILED, "it broke") for arm in arms])
    assert [path.name for path in folder.iterdir()] == ["tensorboard"]
    assert len(list((folder / "tensorboard" / "resnet8").glob("*/search-0-*"))) == 2


# -- MLflow ------------------------------------------------------------------------------------------------------------


def mlflow_runs(folder: Path) -> dict[str, Any]:
    """By run name, with the client that knows their histories."""
    mlflow = pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toy")
    assert experiment.tags["mlflow.note.content"] == "Does it help?"
    runs = client.search_runs([experiment.experiment_id])
    for run in runs:
        run.history = {n: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)]
                       for n in run.data.metrics}  # fmt: skip
    assert len(runs) == len({run.info.run_name for run in runs})
    return {run.info.run_name: run for run in runs}


def test_mlflow_has_a_run_per_trial_with_its_history_and_state(folder: Path) -> None:
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    told = [(trial(number), row(epoch, number)) for epoch in (1, 2) for number in (0, 1, 2, 3)]
    ends = [(trial(0), COMPLETE, ""), (trial(1), PRUNED, "rung 1"), (trial(2), FAILED, "it broke")]
    tell(folder, "mlflow", *told, *ends)
    runs = mlflow_runs(folder)
    states = {name[-1]: (run.info.status, run.data.tags["state"]) for name, run in runs.items()}
    assert states == {
        "0": ("FINISHED", "COMPLETE"),
        "1": ("FINISHED", "PRUNED"),
        "2": ("FAILED", "FAILED"),
        "3": ("KILLED", "INTERRUPTED"),
    }
    run = runs["resnet8 / DKD + LP search-1"]
    assert run.data.params == {"pruning.high": "1.25", "optimiser": "sgd"}
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert tags == {
        "trial_id": trial(1).id, "cell": "resnet8 / DKD + LP", "student": "resnet8", "arm": "DKD + LP",
        "phase": "search", "number": "1", "seed": "71", "state": "PRUNED", "reason": "rung 1",
    }  # fmt: skip
    assert run.history["val/accuracy"] == [(1, 1.1), (2, 1.2)]
    assert set(run.history) == {"train/loss", "val/accuracy", "schedule/temperature", "seconds"}


def test_mlflow_continues_the_run_of_a_resumed_trial_and_sends_no_epoch_twice(folder: Path) -> None:
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    tell(folder, "mlflow", (trial(), row(1)), (trial(), row(2)))
    tell(folder, "mlflow", (trial(), row(2)), (trial(), row(3)), (trial(), COMPLETE, ""))
    (run,) = mlflow_runs(folder).values()
    assert [step for step, _ in run.history["val/accuracy"]] == [1, 2, 3]
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "COMPLETE")


def test_mlflow_keeps_scores_that_are_not_finite(folder: Path) -> None:
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    tell(folder, "mlflow", (trial(), row(1, float("nan"))), (trial(), FAILED, "val/accuracy is nan in epoch 1"))
    (run,) = mlflow_runs(folder).values()
    assert str(run.history["val/accuracy"]) == "[(1, nan)]"


# -- Weights & Biases --------------------------------------------------------------------------------------------------


def wandb_records(path: Path) -> Iterator[Any]:
    """A run's file: records in LevelDB's log format after a header of 7 bytes. Source: leveldb, doc/log_format.md."""
    from wandb.proto import wandb_internal_pb2

    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # a block's trailer
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def wandb_run(folder: Path, trial: Trial) -> tuple[Any, list[dict[str, str]], int]:
    """What an offline file says of a trial: the run, its history as JSON texts, its exit code."""
    (path,) = (folder / "wandb").glob(f"offline-run-*-{trial.id}/run-{trial.id}.wandb")
    run, history, code = None, [], -1
    for record in wandb_records(path):
        if record.HasField("run") and run is None:
            run = record.run
        elif record.HasField("history"):
            history.append({"".join(item.nested_key) or item.key: item.value_json for item in record.history.item})
        elif record.HasField("exit"):
            code = record.exit.exit_code
    return run, history, code


def test_wandb_writes_trials_that_run_side_by_side_to_runs_of_their_own(folder: Path) -> None:
    pytest.importorskip("wandb", reason='needs pip install -e ".[wandb]"')
    told = [(trial(number), row(epoch, number)) for epoch in (1, 2) for number in (0, 1, 2)]
    tell(folder, "wandb", *told, (trial(0), COMPLETE, ""), (trial(1), FAILED, "it broke"))
    until = time.monotonic() + 10
    while wandb_run(folder, trial(2))[2] < 0 and time.monotonic() < until:  # its end is written behind `finish`
        time.sleep(0.1)
    assert [wandb_run(folder, trial(number))[2] for number in (0, 1, 2)] == [0, 1, 1]
    run, history, _ = wandb_run(folder, trial(1))
    assert (run.run_id, run.project, run.run_group, run.job_type) == (
        trial(1).id, "toy", "resnet8 / DKD + LP", "search",
    )  # fmt: skip
    config = {item.key: item.value_json for item in run.config.update}
    assert (config["seed"], config["params"]) == ('"71"', '{"pruning.high":1.25,"optimiser":"sgd"}')
    assert [(entry["_step"], entry["val/accuracy"]) for entry in history] == [("1", "1.1"), ("2", "1.2")]
    assert history[0]["schedule/temperature"] == "3"
    assert not run.git.commit


def test_wandb_without_an_account_is_one_line_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason='needs pip install -e ".[wandb]"')
    # a process of its own: wandb reads its settings once
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    code = f"from pathlib import Path; from study.trackers.wandb import WandB; WandB(Path({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "InputError: --log wandb: no account on this machine" in done.stderr.splitlines()[-1]


# -- all of them -------------------------------------------------------------------------------------------------------


class Broken:
    """Works until its second epoch."""

    def __init__(self) -> None:
        self.epochs, self.closed = 0, 0

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self.epochs += 1
        if self.epochs == 2:
            raise ConnectionError("no answer\nfrom the server")

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        raise AssertionError("not told any more")

    def close(self) -> None:
        self.closed += 1
        raise ConnectionError("still no answer")


def test_tracker_that_fails_is_switched_off_with_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, said = Broken(), []
    monkeypatch.setattr(trackers, "_open_tracker", lambda *_: broken)
    with open_trackers(["mlflow"], folder, "", said.append) as (tracker,):
        for epoch in (1, 2, 3):
            tracker.log_epoch(trial(), row(epoch))
        tracker.finish_trial(trial(), COMPLETE, "")
    assert said == ["--log mlflow is switched off, the study continues: ConnectionError: no answer"]
    assert (broken.epochs, broken.closed) == (2, 1)


class Hanging(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self.answer.wait(20)


def test_tracker_that_hangs_makes_no_epoch_wait_and_the_end_only_so_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.2)
    hanging, said = Hanging(), []
    monkeypatch.setattr(trackers, "_open_tracker", lambda *_: hanging)
    started = time.monotonic()
    with open_trackers(["wandb"], folder, "", said.append) as (tracker,):
        for epoch in range(1, 1000):
            tracker.log_epoch(trial(), row(epoch))
        assert time.monotonic() - started < 0.2
    assert time.monotonic() - started < 5
    hanging.answer.set()
    assert said == ["--log wandb: not finished after 0.2 s, the rest is not logged"]


def test_interrupted_study_waits_for_all_its_trackers_together_a_few_seconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trackers.INTERRUPTED_SECONDS <= 3
    monkeypatch.setattr(trackers, "INTERRUPTED_SECONDS", 1.0)
    hanging, said = Hanging(), []
    monkeypatch.setattr(trackers, "_open_tracker", lambda *_: hanging)
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        for tracker in stack.enter_context(open_trackers(["mlflow", "wandb"], folder, "", said.append)):
            tracker.log_epoch(trial(), row(1))
        raise KeyboardInterrupt
    assert 1 <= time.monotonic() - started < 1.9
    hanging.answer.set()
    assert said == [f"--log {name}: not finished after 1 s, the rest is not logged" for name in ("mlflow", "wandb")]


SILENT = """
import os, socket, sys
from pathlib import Path
from study.trackers import base as trackers
from tests.study.trackers.test_trackers import row, trial

listening = socket.create_server(("127.0.0.1", 0))  # and says nothing
os.environ["WANDB_BASE_URL"] = os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
trackers.INTERRUPTED_SECONDS = 0.5
with trackers.open_trackers(["mlflow", "wandb"], Path(sys.argv[1]), "", print) as opened:
    for tracker in opened:
        tracker.log_epoch(trial(), row(1))
    raise KeyboardInterrupt
"""


def test_interrupted_process_ends_though_no_server_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_trackers_close_when_the_study_breaks_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, said = Broken(), []
    monkeypatch.setattr(trackers, "_open_tracker", lambda *_: broken)
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        stack.enter_context(open_trackers(["mlflow", "mlflow"], folder, "", said.append))
        raise KeyboardInterrupt
    assert broken.closed == 2  # told once, and once more after it failed
