"""Trials and epochs to log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.trackers.base import open_trackers
from study.trial import EpochResult, Phase, Trial, TrialState

COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED


def trial(number: int = 0, phase: Phase = "search", arm: str = "DKD + LP") -> Trial:
    params = {"pruning.high": 0.25 + number, "optimiser": "sgd"} if phase == "search" else {}
    return Trial(phase, "resnet8", arm, number, 70 + number, 3, params, {"number": number})


def row(epoch: int, score: float = 0.5) -> EpochResult:
    metrics = {"train/loss": 1 / epoch, "val/accuracy": score + epoch / 10}
    return EpochResult(epoch=epoch, metrics=metrics, schedules={"temperature": 4.0 - epoch}, seconds=0.25)


def log(folder: Path, name: str, *calls: tuple[Any, ...]) -> None:
    """Log as one process of a study: an epoch is (trial, row), an end is (trial, state, reason)."""
    lines: list[str] = []
    with open_trackers([name], folder, "Does it help?", lines.append) as (tracker,):
        for call in calls:
            tracker.log_epoch(*call) if len(call) == 2 else tracker.finish_trial(*call)
    assert lines == []
