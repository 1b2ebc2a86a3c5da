"""No training step of any task waits for the device."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.trainables import small, small_crowds
from tests.trainables.small import prepared
from tests.trainables.tasks.face_sr import test_task as sr
from tests.trainables.tasks.segmentation import test_face_parsing as faces
from tests.trainables.waits import DEVICE, WaitCounter
from trainables.losses.density import DensityDistillation
from trainables.losses.logits.dkd import DKD
from trainables.losses.pixels.ldt import LDT
from trainables.losses.pixels.pixel_kd_std import PixelKDStd
from trainables.tasks import definition
from trainables.teacher import sources

TASKS = {"classification": small, "face parsing": faces, "face SR": sr, "crowd counting": small_crowds}
LOSSES = {
    "classification": DKD(pruning=0.3),
    "face parsing": LDT(),
    "face SR": sr.ADVERSARY,
    "crowd counting": DensityDistillation(0.5),
}


def count_waits(job, task, storage, folder, loss, batch_size: int) -> dict[str, int]:
    """Return what waits in one epoch, training alone; the epoch before sets up what only the first needs."""
    recipe = dataclasses.replace(task.recipe, batch_size=batch_size)
    task = dataclasses.replace(task, recipe=recipe)
    made = dataclasses.replace(job(task, storage, folder, loss=loss, epochs=2), validate=False, device=DEVICE)
    definition._load_examples.cache_clear()  # examples and nets are to be moved while the counter looks on
    sources._cached_net.cache_clear()
    sources._cached_store.cache_clear()
    with WaitCounter() as counter:
        rows = task.train(made)
        next(rows)
        counter.waits.clear()
        next(rows)
    return dict(counter.waits)


@pytest.fixture(scope="module", params=TASKS, ids=list(TASKS))
def prepared_task(request, tmp_path_factory):
    module, storage = TASKS[request.param], tmp_path_factory.mktemp("storage")
    prepared(module.TASK, storage, dataclasses.replace(small.PLAN, epochs=2))
    return request.param, module, storage


@pytest.mark.parametrize("live", [False, True])
def test_no_training_step_waits_for_the_device(prepared_task, tmp_path, live):
    """Some waits an epoch are due: its sums come back, its checkpoint is written. None is due to a step."""
    name, module, storage = prepared_task
    task = module.TASK.with_live_teacher() if live else module.TASK
    sizes = (20, 8) if name == "classification" else (5, 2)  # it has four times as many samples as the others
    few, many = (count_waits(module.job, task, storage, tmp_path / str(size), LOSSES[name], size) for size in sizes)
    assert few == many
    assert few["torch.Tensor.tolist"] > 0


def test_luma_and_standardised_logits_do_not_wait_either(tmp_path, tmp_path_factory):
    for name, module, task, loss in (
        ("sr", sr, dataclasses.replace(sr.TASK, channel="y"), sr.ADVERSARY),
        ("faces", faces, faces.TASK, PixelKDStd()),
    ):
        storage = tmp_path_factory.mktemp(name)
        prepared(task, storage, dataclasses.replace(small.PLAN, epochs=2))
        few, many = (count_waits(module.job, task, storage, tmp_path / f"{name}{size}", loss, size) for size in (5, 2))
        assert few == many


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("torch.Tensor.item", lambda x, host: (x * host).sum().item()),
        ("torch.Tensor.tolist", lambda x, host: x.tolist()),
        ("torch.Tensor.cpu", lambda x, host: x.cpu()),
        ("torch.Tensor.__bool__", lambda x, host: bool((x > 0).any())),
        ("torch.Tensor.__float__", lambda x, host: float(x.mean())),
        ("torch.Tensor.__getitem__", lambda x, host: x[x > 2]),
        ("torch.Tensor.__getitem__", lambda x, host: x[[2, 0]]),
        ("torch.Tensor.__getitem__", lambda x, host: x[host.long()]),
        ("torch.bincount", lambda x, host: torch.bincount(x.long())),
        ("torch.Tensor.to", lambda x, host: x + host.to(DEVICE)),
        ("tensor of numbers", lambda x, host: x + torch.tensor([1, 2, 3], device=x.device)),
    ],
)
def test_counter_sees_what_waits(name, call):
    host = torch.arange(3.0)
    with WaitCounter() as counter:
        x = host.to(DEVICE, non_blocking=True)
        call(x, host)
    assert name in counter.waits
    assert sum(counter.waits.values()) == 1


def test_counter_lets_pass_what_does_not_wait():
    host = torch.arange(3.0)
    with WaitCounter() as counter:
        x = host.to(DEVICE, non_blocking=True)
        y = x[x.argsort()][1:] + torch.zeros(2, device=x.device) + float(host.sum()) + host.long().tolist()[0]
        first, _ = y.where(y > 0, 0).unbind()
        first.float().add_(x[None, 0, ...].sum())
        x.to(torch.float64).to(x)
    assert not counter.waits
