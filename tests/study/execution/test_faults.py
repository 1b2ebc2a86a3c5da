"""Faults on a real Ray: an error inside a trial fails that trial alone, one of the machine fails no trial."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from tests.study.folder import Folder, call

FAULTY = """
import dataclasses, errno
from study import Arm, Budget, Study
from trainables import Fault, Simulated, SimulatedLoss, SimulatedStudent

POISONED = False

@dataclasses.dataclass(frozen=True)
class Faulty(Simulated):
    def train(self, job):
        global POISONED
        if POISONED:
            raise RuntimeError("this process was left unusable by an earlier trial")
        if job.loss.gain == -1:
            POISONED = True
            raise RuntimeError("device error")
        # not from here if there is room: a reason names the last line of the space file that an error passes through
        return super().train(job) if (job.storage / "room").exists() else self.fill_disk(job)

    def fill_disk(self, job):
        for row in super().train(job):
            if row["epoch"] == 2:
                raise OSError(errno.ENOSPC, "No space left on device", str(job.checkpoint / "state.pt"))
            yield row

def bad(kind):
    return Arm(kind, SimulatedLoss(needs_teacher=False, fault=Fault(kind, epoch=2)))

study = Study(
    name="toy", question="?", students=(SimulatedStudent(),),
    task=Faulty(seconds_per_epoch=0.15, teacher_epochs=0),  # longer than REPORT_SECONDS: one epoch a report
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
          Arm("poison", SimulatedLoss(needs_teacher=False, gain=-1)),
          *(bad(kind) for kind in ("hang", "exception", "nan", "memory", "killed")),
          Arm("last", SimulatedLoss(needs_teacher=False))),
    budget=Budget(trials=1, epochs=3, seeds=1), hang_seconds=2,
)
"""

REASONS = {
    "poison": r"RuntimeError: device error \(toy\.py:",
    "hang": r'no epoch within 0:00:02 h: hung at File ".*fault\.py", line \d+ in trigger',
    "exception": r"ValueError: planted failure in epoch 2 \(fault\.py:\d+\)",
    "nan": "test/accuracy is nan in epoch 3",
    "memory": r"MemoryError: planted failure in epoch 2 \(fault\.py:\d+\)",
    "killed": "its worker died 4 times without an epoch, last with ",
}

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
def test_full_disk_fails_no_trial_and_other_faults_only_their_own_with_a_reason(folder: Folder) -> None:
    """One process for all: what a failed trial leaves behind in it must not reach the next."""
    folder.space.write_text(FAULTY)
    full = folder.run("--max-concurrent", "1")
    assert (full.returncode, full.stderr.count("\n")) == (2, 1), full.stderr
    assert "the storage cannot be written (No space left on device: " in full.stderr
    assert "FAILED" not in set(folder.trials().state)

    (folder.runs / "room").touch()
    done = folder.run("--max-concurrent", "1", "--verbose")
    assert done.returncode == 1, done.stderr
    trials = folder.trials().set_index("arm")
    assert len(trials) == len(REASONS) + 2
    assert trials.state[["plain", "last"]].tolist() == ["COMPLETE", "COMPLETE"]
    for kind, reason in REASONS.items():
        assert trials.state[kind] == "FAILED"
        assert re.match(reason, trials.reason[kind]), trials.reason[kind]
        assert f"student / {kind}, confirm 0: FAILED ({trials.reason[kind]})" in done.stdout
        assert f"student / {kind}: 1 of 1 seeds failed, the first with {trials.reason[kind]}" in done.stderr
    tracebacks = {kind: folder.study / "checkpoints" / trials.trial_id[kind] / "traceback.txt" for kind in REASONS}
    assert "in trigger" in tracebacks["hang"].read_text()
    assert tracebacks["killed"].read_text()
    check_that_failures_stay(folder)


def check_that_failures_stay(folder: Folder) -> None:
    """Run the study again: failed trials count as ended, and are repeated only on request and by the same code."""
    before = folder.trials()
    assert call(folder).exit_code == 1
    pd.testing.assert_frame_equal(folder.trials(), before)
    folder.space.write_text(FAULTY.replace("== -1:", "== -9:"))
    refused = call(folder, "--retry-failed")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: toy.py changed since the last run of ")


@pytest.mark.slow
def test_no_starting_worker_is_discarded_for_one_that_becomes_free(folder: Folder, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    folder.space.write_text(SLOW_STARTS.format(starts=str(starts)))
    done = folder.run("--max-concurrent", "2")
    assert done.returncode == 0, done.stderr
    assert len(list(starts.iterdir())) == 2


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
