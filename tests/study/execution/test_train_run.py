"""One-worker trials in Ray Train's local mode: rows, contexts, ends and failures of a run, without a cluster."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray.train

from study.cluster import connection
from study.errors import InputError
from study.execution.train_run import TrainThread, run_in_train_context
from study.execution.worker import HANG_REPORT, read_hang_report
from study.trial import EpochResult

TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


def row(epoch: int) -> EpochResult:
    return {"epoch": epoch, "metrics": {"val/accuracy": epoch / 10}, "schedules": {}, "seconds": 0.0}


def epochs(count: int = 3, at_end: Callable[[], None] = lambda: None) -> Callable[[], Iterator[EpochResult]]:
    def train() -> Iterator[EpochResult]:
        try:
            for epoch in range(1, count + 1):
                yield row(epoch)
        finally:
            at_end()

    return train


@pytest.fixture(scope="module")
def thread() -> TrainThread:
    return TrainThread()


def test_rows_arrive_in_order_and_runs_follow_each_other(thread: TrainThread) -> None:
    for name in ("first", "second"):
        run = thread.start(name, epochs())
        assert list(run) == [row(1), row(2), row(3)]
        assert list(run) == []


def test_train_context_names_the_run_and_reports_reach_ray_train(
    thread: TrainThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, reports, report = [], [], ray.train.report

    def note(metrics: dict[str, float]) -> None:
        reports.append(metrics)
        report(metrics)

    monkeypatch.setattr("ray.train.report", note)

    def train() -> Iterator[EpochResult]:
        context = ray.train.get_context()
        contexts.append((context.get_experiment_name(), context.get_world_size(), context.get_world_rank()))
        yield row(1)

    assert list(thread.start("4f1e", train)) == [row(1)]
    assert contexts == [("4f1e", 1, 0)]
    assert reports == [{"epoch": 1, "val/accuracy": 0.1}]


def test_train_context_is_there_for_checks_before_a_study_starts() -> None:
    assert run_in_train_context(lambda: ray.train.get_context().get_world_size()) == 1


def test_environment_of_torchrun_does_not_make_a_trial_wait_for_others(
    thread: TrainThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert len(list(thread.start("alone", epochs()))) == 3


def test_nothing_trains_before_a_row_is_requested_nor_after_the_last_one(thread: TrainThread) -> None:
    ends: list[str] = []
    never = thread.start("never", epochs(at_end=lambda: ends.append("never")))
    never.stop()
    assert ends == []
    stopped = thread.start("stopped", epochs(at_end=lambda: ends.append(threading.current_thread().name)))
    assert next(stopped) == row(1)
    assert ends == []
    stopped.stop()
    assert ends == ["train"]
    assert list(stopped) == []
    assert len(list(thread.start("next", epochs()))) == 3


def test_exception_is_raised_where_the_row_was_requested_with_its_own_traceback(thread: TrainThread) -> None:
    def train() -> Iterator[EpochResult]:
        yield row(1)
        raise ValueError("planted")

    run = thread.start("fails", train)
    next(run)
    with pytest.raises(ValueError, match="planted") as caught:
        next(run)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "train"
    assert len(list(thread.start("next", epochs()))) == 3


def test_exit_of_a_trial_is_an_error_at_the_line_that_calls_it(thread: TrainThread) -> None:
    def train() -> Iterator[EpochResult]:
        yield row(1)
        sys.exit("no data")

    run = thread.start("exits", train)
    next(run)
    with pytest.raises(RuntimeError, match=r"sys\.exit\('no data'\) was called") as caught:
        next(run)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "train"
    assert len(list(thread.start("next", epochs()))) == 3


def test_hang_report_names_the_line_that_trains_and_not_the_one_that_waits(thread: TrainThread, tmp_path: Path) -> None:
    def train() -> Iterator[EpochResult]:
        with (tmp_path / HANG_REPORT.format(rank=0)).open("w") as file:
            file.write("Timeout (0:00:02)!\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        yield row(1)

    next(thread.start("hangs", train))
    hang = read_hang_report(tmp_path)
    assert hang.startswith(f'no epoch within 0:00:02 h: hung at File "{__file__}", line ')
    assert hang.endswith("in train")
    assert read_hang_report(tmp_path) == ""


def test_process_ends_while_a_trial_waits() -> None:
    code = (
        "from study.execution.train_run import TrainThread\n"
        "row = {'epoch': 1, 'metrics': {}, 'schedules': {}, 'seconds': 0.0}\n"
        "from study.execution.train_run import run_in_train_context\n"
        "run_in_train_context(lambda: None)\n"
        "print(next(TrainThread().start('waits', lambda: iter([row, row])))['epoch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "INFO" not in done.stderr, "Ray Train logs each run and each report"


def test_ray_train_v1_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "0")
    with pytest.raises(InputError, match=r"^RAY_TRAIN_V2_ENABLED=0: trials run in Ray Train V2; unset .*1$"):
        connection.connect(None)
    with pytest.raises(InputError, match="RAY_TRAIN_V2_ENABLED=0"):
        run_in_train_context(lambda: None)
