"""Which steps are recorded as a CUDA graph; on a GPU: a replayed step equals a launched one, and none waits for it."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch

from study.trial import EpochResult, TrialContext
from tests.trainables.small import TASK, job, metrics
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.logits.dkd import DKD
from trainables.losses.logits.kd import KD
from trainables.losses.none import NoDistillation
from trainables.losses.pixels.ldt import LDT
from trainables.task import DistillationLoss
from trainables.training import checkpoint, cuda_graph
from trainables.training.distributed import SINGLE_PROCESS, DistributedGroup
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine, MultiStep, Staircase

MANY = dataclasses.replace(TASK, recipe=Recipe(batch_size=6, learning_rate=Cosine(0.05)))
"""80 images are 13 batches and a smaller one."""

LOSSES = {
    "none": NoDistillation(),
    "KD": KD(adaptive=DataAdaptiveTemperature(0.3, 0.3)),
    "DKD": DKD(pruning=Staircase(0.0, 0.4, stages=3), warmup=0.9),
}


def on_gpu(made: TrialContext) -> TrialContext:
    return dataclasses.replace(made, device="cuda")


def is_capturable(
    made: TrialContext, recipe: Recipe = TASK.recipe, workers: int = 1, steps: int = 100, task=TASK
) -> bool:
    ranks = DistributedGroup(0, workers) if workers > 1 else SINGLE_PROCESS
    return cuda_graph.is_capturable(task, made, ranks, recipe, made.loss, steps)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_classification_on_a_gpu_is_replayed(tmp_path: Path, loss: DistillationLoss) -> None:
    assert is_capturable(on_gpu(job(TASK, tmp_path, tmp_path, loss=loss)))


def test_what_changes_from_step_to_step_is_launched(tmp_path: Path) -> None:
    made = on_gpu(job(TASK, tmp_path, tmp_path))
    assert not is_capturable(job(TASK, tmp_path, tmp_path)), "on a processor"
    assert not is_capturable(made, workers=2)
    assert not is_capturable(made, steps=cuda_graph.MIN_STEPS - 1)
    assert not is_capturable(made, Recipe(optimizer=Adam()))
    assert not is_capturable(made, task=object())
    assert not is_capturable(on_gpu(job(TASK, tmp_path, tmp_path, loss=KD(temperature=Cosine(4.0, 1.0)))))
    assert not is_capturable(on_gpu(job(TASK, tmp_path, tmp_path, loss=LDT())))


def test_schedules_that_move_between_epochs_alone_are_constant_within_one() -> None:
    assert cuda_graph.is_constant_within_epochs(DKD(pruning=Staircase(0.0, 0.4, stages=4), temperature=MultiStep(4.0)))
    assert not cuda_graph.is_constant_within_epochs(KD(adaptive=DataAdaptiveTemperature(upper_change=Cosine(0.1))))


# -- on a GPU ----------------------------------------------------------------------------------------------------------


def trained(
    task, storage: Path, folder: Path, loss: DistillationLoss, epochs: int = 3
) -> tuple[list[EpochResult], dict]:
    rows = list(task.train(on_gpu(job(task, storage, folder, loss=loss, epochs=epochs))))
    return metrics(rows), checkpoint.load(folder)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_replayed_steps_equal_launched_ones_to_the_bit(storage, tmp_path, monkeypatch, loss, live, precision) -> None:
    task = MANY.with_precision(precision)
    task = task.with_live_teacher() if live else task
    rows, state = trained(task, storage, tmp_path / "replayed", loss)
    monkeypatch.setattr(cuda_graph, "MIN_STEPS", 1000)
    expected, launched = trained(task, storage, tmp_path / "launched", loss)
    assert rows == expected
    assert all(torch.equal(state["net"][name], value) for name, value in launched["net"].items())


@pytest.mark.gpu
def test_replayed_trial_resumed_equals_one_never_stopped(storage, tmp_path) -> None:
    whole, _ = trained(MANY, storage, tmp_path / "whole", LOSSES["DKD"])
    rows = MANY.train(on_gpu(job(MANY, storage, tmp_path / "cut", loss=LOSSES["DKD"])))
    head = [next(rows)]
    rows.close()
    tail = list(MANY.train(on_gpu(job(MANY, storage, tmp_path / "cut", loss=LOSSES["DKD"], recorded=1))))
    assert metrics(head + tail) == whole


@pytest.mark.gpu
def test_memory_of_recordings_is_taken_over_from_epoch_to_epoch(storage, tmp_path) -> None:
    rows = MANY.train(on_gpu(job(MANY, storage, tmp_path, loss=NoDistillation(), epochs=6)))
    reserved = [torch.cuda.memory_reserved() for _ in rows]
    assert reserved[5] == reserved[2]


@pytest.mark.gpu
@pytest.mark.parametrize("replays", [True, False])
def test_no_training_step_waits_for_the_device(storage, tmp_path, monkeypatch, replays) -> None:
    """Some waits an epoch are due: its order goes to the device, its sums come back. None is due to a step."""
    monkeypatch.setattr(cuda_graph, "MIN_STEPS", 1 if replays else 1000)
    few, many = (waits(dataclasses.replace(MANY, recipe=Recipe(batch_size=size)), storage, tmp_path / str(size))
                 for size in (20, 5))  # fmt: skip
    assert few == many > 0


def waits(task, storage: Path, folder: Path) -> int:
    """How often an epoch waits for the device; the one before it sets up what only the first needs."""
    rows = task.train(on_gpu(job(task, storage, folder)))
    next(rows)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            next(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)
