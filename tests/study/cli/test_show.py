"""show, and the status that it shows: on studies driven without Ray."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from study import Arm, Budget
from study.cli.list_studies import format_time, list_studies
from study.cli.status import read_status
from study.records.lock import lock_study
from study.records.study_json import read_study, write_study
from tests.study.cli.studies import SPACE, called, written
from tests.study.toy import BASELINE, drive, flush_each, open_coordinator, toy
from trainables.tasks.simulated import Fault, SimulatedLoss


def test_show_gives_each_cells_numbers_as_pandas_finds_them(runs: Path) -> None:
    folder = written(runs)
    told = json.loads(called("show", "toy", "--storage-path", runs, "--json").stdout)
    trials = pd.read_parquet(folder / "trials").drop_duplicates("trial_id", keep="last")
    for cell in told["cells"]:
        here = trials[trials.cell == cell["cell"]]
        tests = here[here.phase == "confirm"]["test/accuracy"]
        assert (cell["test_mean"], cell["test_std"]) == pytest.approx((tests.mean(), tests.std()))
        assert cell["phase"] == "confirmed"
    searched = trials[(trials.phase == "search") & (trials.state == "COMPLETE")]
    best = searched.loc[searched["val/accuracy"].idxmax()]
    assert told["cells"][1]["best"] == best["val/accuracy"]
    assert told["cells"][1]["best_params"] == json.loads(best.params)
    assert told["cells"][1]["stopped"] == (trials.state == "PRUNED").sum()
    epochs = pd.read_parquet(folder / "epochs").drop_duplicates(["trial_id", "epoch"])
    assert told["used"]["epochs"] == len(epochs)
    assert "report" in told["next"]


def test_show_of_a_lower_is_better_study_takes_the_lowest(runs: Path) -> None:
    folder = written(runs)
    told = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(told | {"direction": "min"}))
    scores = pd.read_parquet(folder / "trials").query("phase == 'search' and state == 'COMPLETE'")["val/accuracy"]
    assert read_status(folder).cells[1].best == scores.min()


def test_show_says_what_runs_and_how_to_go_on(runs: Path) -> None:
    folder = written(runs, 20)
    rows = pd.read_parquet(folder / "trials").drop_duplicates("trial_id", keep="last")
    running = rows[rows.state == "RUNNING"].trial_id.item()
    reached = pd.read_parquet(folder / "epochs").query("trial_id == @running").epoch.max()
    (shown,) = read_status(folder).running
    assert (shown.trial, shown.epoch, shown.epochs) == (running, reached, 6)
    assert read_status(folder).cells[1].phase == "searching"
    assert read_status(folder).cells[1].test_mean is None
    cut_off = called("show", folder)
    assert "resumed first" in cut_off.stdout
    assert f"continue it: python -m study resume {folder}" in cut_off.stdout
    with lock_study(folder):
        shown_running = called("show", folder).stdout
    assert "running now" in shown_running
    assert running in shown_running
    assert f"stop it: python -m study stop {folder}" in shown_running


def test_running_trial_is_shown_with_its_first_start_and_no_duration(runs: Path) -> None:
    """Which would count the time between the runs of a resumed one."""
    folder = written(runs, 20)
    coordinator = open_coordinator(toy(), runs)
    run = coordinator.next_trial()  # the one cut off
    assert run is not None
    coordinator.writer.flush()
    with lock_study(folder):
        said = called("show", folder).stdout
        shown = json.loads(called("show", folder, "--json").stdout)["running"]
    (line,) = [line for line in said.splitlines() if line.startswith(run.trial.id)]
    assert line.rstrip().endswith(f"started {format_time(run.started)}")
    assert [datetime.fromisoformat(trial["started"]) for trial in shown] == [run.started]


def test_show_names_failures_with_their_tracebacks(runs: Path) -> None:
    folder = written(runs, study=toy((BASELINE, Arm("breaks", SimulatedLoss(fault=Fault("exception", epoch=2))))))
    failed = read_status(folder).failed
    assert len(failed) == 3
    path = folder / "checkpoints" / failed[0].trial / "traceback.txt"
    path.write_text("Traceback")
    said = called("show", folder).stdout
    assert f"{failed[0].trial}  student / breaks, confirm 0, epoch 1/6: planted failure in epoch 2" in said
    assert str(path) in said
    assert read_status(folder).cells[1].phase == "failed"


def test_superseded_confirm_runs_count_for_nothing(runs: Path) -> None:
    folder = written(runs)
    coordinator = open_coordinator(toy(), runs)
    row = next(row for row in coordinator.writer.records.trials.read_rows() if row["phase"] == "confirm")
    coordinator.writer.records.trials.append(row | {"state": "SUPERSEDED"})
    coordinator.writer.flush()
    assert sum(cell.confirmed for cell in read_status(folder).cells) == 5
    assert list_studies(runs)[0].done == 14


def test_gpu_hours_weigh_a_trials_share_of_a_gpu(runs: Path) -> None:
    folder = written(runs, 20)
    coordinator = open_coordinator(toy(), runs)
    for row in coordinator.writer.records.epochs.read_rows():
        coordinator.writer.records.epochs.append(row | {"seconds": 3600.0})
    coordinator.writer.flush()
    used = read_status(folder).used
    assert used.gpu_hours == pytest.approx(20 * 0.5)
    assert (used.usd, "USD" in called("show", folder).stdout) == (None, False)
    document = read_study(folder)
    document["budget"]["usd_per_hour"] = 0.4
    write_study(folder, document)
    assert read_status(folder).used.usd == pytest.approx(4.0)
    assert "10.00 GPU hours, 4.00 USD" in called("show", folder).stdout


def test_show_reads_while_a_driver_writes_and_merges(runs: Path) -> None:
    """The rows of all earlier readings are in every later one, and no segment that was merged away is complained of."""
    written(runs, 1)
    coordinator = open_coordinator(toy(budget=Budget(trials=24, epochs=6, seeds=3)), runs)
    driver = threading.Thread(target=lambda: drive(coordinator, runs, each=flush_each(coordinator)))
    driver.start()
    counts = []
    while driver.is_alive():
        seen = read_status(runs / "toy")
        counts.append((seen.used.epochs, sum(cell.searched + cell.confirmed for cell in seen.cells)))
    driver.join()
    assert len(counts) > 5
    assert counts == sorted(counts)
    assert counts[-1][0] > counts[0][0]


def test_show_space_prints_the_recorded_file_to_the_letter(runs: Path) -> None:
    assert called("show", "toy", "--space", "--storage-path", written(runs).parent).stdout == SPACE


def test_unknown_study_is_one_line_naming_those_there_are(runs: Path) -> None:
    written(runs)
    for command in ("show", "stop", "resume"):
        refused = called(command, "tyo", "--storage-path", runs)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert "there are: toy" in refused.stderr


def test_watch_without_a_terminal_is_refused(runs: Path) -> None:
    refused = called("show", written(runs), "--watch")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


def test_watch_draws_until_ctrl_c(runs: Path) -> None:
    folder = written(runs, 20)
    terminal, ours = pty.openpty()
    words = [sys.executable, "-m", "study", "show", str(folder), "--watch"]
    process = subprocess.Popen(words, stdout=ours, stderr=subprocess.PIPE, start_new_session=True)
    os.close(ours)
    drawn = b""
    until = time.monotonic() + 60
    while b"continue it" not in drawn:
        assert time.monotonic() < until
        drawn += os.read(terminal, 10_000)
    process.send_signal(signal.SIGINT)
    while process.poll() is None:  # who draws on a terminal that nobody reads stands still
        assert time.monotonic() < until
        with suppress(OSError):
            os.read(terminal, 10_000)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    os.close(terminal)
