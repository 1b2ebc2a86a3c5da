"""Weights & Biases: its own reader reads back what was logged."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study.trial import Trial
from tests.study.trackers.examples import COMPLETE, FAILED, log, row, trial


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


def test_wandb_writes_concurrent_trials_to_separate_runs(folder: Path) -> None:
    pytest.importorskip("wandb", reason='needs pip install -e ".[wandb]"')
    epochs = [(trial(number), row(epoch, number)) for epoch in (1, 2) for number in (0, 1, 2)]
    log(folder, "wandb", *epochs, (trial(0), COMPLETE, ""), (trial(1), FAILED, "it broke"))
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
