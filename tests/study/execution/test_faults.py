"""Faults on a real Ray: an error inside a trial fails that trial alone, one of the machine fails no trial."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.study.folder import Folder, is_whole, wait_for

FAULTY = """
from study import Arm, Budget, Study
from trainables import Fault, Simulated, SimulatedLoss, SimulatedStudent

def bad(kind):
    return Arm(kind, SimulatedLoss(needs_teacher=False, fault=Fault(kind, epoch=2)))

study = Study(
    name="toy", question="?", students=(SimulatedStudent(),),
    task=Simulated(seconds_per_epoch=0.15, teacher_epochs=0),  # longer than REPORT_SECONDS: one epoch a report
    arms=(*(bad(kind) for kind in ("hang", "exception", "nan", "memory", "killed")),
          Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True)),
    budget=Budget(trials=1, epochs=3, seeds=1), hang_seconds=2,
)
"""

REASONS = {
    "hang": r'no epoch within 0:00:02 h: hung at File ".*fault\.py", line \d+ in trigger',
    "exception": r"ValueError: planted failure in epoch 2 \(fault\.py:\d+\)",
    "nan": "test/accuracy is nan in epoch 3",
    "memory": r"MemoryError: planted failure in epoch 2 \(fault\.py:\d+\)",
    "killed": "its worker died 4 times without an epoch, last with ",
}

FULL_DISK = """
import dataclasses, errno
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent

@dataclasses.dataclass(frozen=True)
class Full(Simulated):
    def train(self, job):
        for row in super().train(job):
            if row["epoch"] == 2 and not (job.storage / "room").exists():
                raise OSError(errno.ENOSPC, "No space left on device", str(job.checkpoint / "state.pt"))
            yield row

study = Study(
    name="toy", question="?", task=Full(teacher_epochs=0), students=(SimulatedStudent(),),
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),),
    budget=Budget(trials=1, epochs=3, seeds=2),
)
"""

SLOW_STARTS = """
import dataclasses, os, time
from pathlib import Path
import ray
from study import Arm, Budget, Never, Study, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

STARTS = Path({starts!r})

@dataclasses.dataclass(frozen=True)
class SlowStarts(Simulated):
    def __setstate__(self, state):
        self.__dict__.update(state)
        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            (STARTS / str(os.getpid())).touch()
            time.sleep(4 * (len(list(STARTS.iterdir())) - 1))

study = Study(
    name="toy", question="?", task=SlowStarts(seconds_per_epoch=0.15, teacher_epochs=0), students=(SimulatedStudent(),),
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
          Arm("searched", SimulatedLoss(x=uniform(0, 1), needs_teacher=False))),
    budget=Budget(trials=60, epochs=1, seeds=1), stopping=Never(),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write()
    return folder


@pytest.mark.slow
def test_each_fault_writes_one_failed_row_with_its_reason_and_the_study_continues(folder: Folder) -> None:
    folder.space.write_text(FAULTY)
    done = folder.run("--max-concurrent", "1", "--verbose")
    assert done.returncode == 1, done.stderr
    trials = folder.trials().set_index("arm")
    assert len(trials) == len(REASONS) + 1
    assert trials.state.plain == "COMPLETE"
    for kind, reason in REASONS.items():
        assert trials.state[kind] == "FAILED"
        assert re.match(reason, trials.reason[kind]), trials.reason[kind]
        assert f"student / {kind}, confirm 0: FAILED ({trials.reason[kind]})" in done.stdout
    hung = folder.study / "checkpoints" / trials.trial_id.hang / "traceback.txt"
    assert "in trigger" in hung.read_text()


@pytest.mark.slow
def test_no_starting_worker_is_discarded_for_one_that_becomes_free(folder: Folder, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    folder.space.write_text(SLOW_STARTS.format(starts=str(starts)))
    done = folder.run("--max-concurrent", "2")
    assert done.returncode == 0, done.stderr
    assert len(list(starts.iterdir())) == 2


@pytest.mark.slow
def test_full_disk_of_a_worker_ends_the_run_and_fails_no_trial(folder: Folder) -> None:
    folder.space.write_text(FULL_DISK)
    full = folder.run()
    assert (full.returncode, full.stderr.count("\n")) == (2, 1), full.stderr
    assert "the storage cannot be written (No space left on device: " in full.stderr
    assert "FAILED" not in set(folder.trials().state)
    (folder.runs / "room").touch()
    done = folder.run()
    assert done.returncode == 0, done.stderr
    assert set(folder.trials().state) == {"COMPLETE"}


@pytest.mark.slow
def test_run_stops_on_request_and_does_not_resume_over_an_exhausted_cap(folder: Folder) -> None:
    folder.write(seconds=0.3)
    process = folder.start()
    wait_for(lambda: folder.epochs_recorded() > 3, process)
    (folder.study / "stop").touch()
    asked = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode == 3
    assert "stopped on request" in stderr
    assert "INTERRUPTED" in set(folder.trials().state)
    before = folder.trials()

    capped = folder.run("--wall-hours", "0.0001")
    assert capped.returncode == 3, capped.stderr
    assert "wall_hours 0.0001 used up" in capped.stderr
    pd.testing.assert_frame_equal(folder.trials(), before)

    assert folder.run().returncode == 0
    is_whole(folder)


@pytest.mark.slow
def test_worker_that_ray_kills_for_memory_fails_its_trial_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a limit that every machine exceeds
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "3000")
    folder.write(seconds=60)
    done = folder.run("--max-concurrent", "1")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert folder.trials().set_index("cell").reason.teacher == (
        "its worker died 4 times without an epoch, last with an end by Ray, as its node's memory was nearly full: "
        "run fewer at once, --max-concurrent"
    )
