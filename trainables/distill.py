"""The training loop, for all tasks and for teachers too: read it from top to bottom.

A trial is an iterator of rows, one an epoch. What differs between tasks is in the task, what differs between arms is
in the loss; there is no branch on either here, nor on how many workers train a trial together: what they share is in
parallel.py. Left out: Ray, which lives in study/execution/worker.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from study.identity import derive_seed
from study.trial import EpochResult, Split, TrialContext
from trainables import sample_panels as exhibits
from trainables.losses.state import LossState, make_loss_state
from trainables.task import Batch, DistillationLoss, Examples, Outputs
from trainables.training import checkpoint
from trainables.training.distributed import SINGLE_PROCESS, ProcessGroup, join_group
from trainables.training.recipe import Recipe
from trainables.training.schedules import Progress, evaluate_schedules, value_at

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


class TeacherOutputs(Protocol):
    """Where teacher outputs come from: the net itself, or a store of what it once said."""

    def epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        """The source for one epoch, in which the split's samples are seen at these views (N,)."""


@dataclass
class Training:
    """What is trained, and all that a checkpoint must hold to go on exactly."""

    ranks: ProcessGroup
    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss: LossState
    epoch: int
    rows: list[EpochResult]
    """Of all epochs so far: a driver that was killed may not have written the last ones down."""
    best_row: EpochResult | None
    best_state: dict[str, Tensor] | None


def distill(
    task: DistillationTask[Any],
    job: TrialContext,
    build: Callable[[], nn.Module],
    recipe: Recipe,
    loss: DistillationLoss,
    teacher: TeacherOutputs,
) -> Iterator[EpochResult]:
    """Train what `build` returns under `loss`, yielding a row an epoch; the last state stays in `job.checkpoint`.

    With `job.validate` the net is evaluated on val after each epoch, and with `job.test` on test after the last one:
    as it then is, and, if there was a validation, as it was in the epoch that was best on it. Of several workers, all
    yield rows; those of the first are the trial's.
    Raises FloatingPointError when the training loss is not finite.
    """
    with join_group(job) as ranks:
        train = task.examples(job.train_on, job.device)
        training = start_training(job, ranks, build, recipe, loss)
        yield from (row for row in training.rows if row["epoch"] > job.recorded_epochs)

        for epoch in range(training.epoch, job.trial.epochs):
            started = time.perf_counter()
            metrics = train_epoch(task, job, training, train, recipe, loss, teacher, epoch)
            if job.validate:
                metrics |= evaluate(task, training.net, "val", job.device, ranks)
            row: EpochResult = {
                "epoch": epoch + 1,
                "metrics": metrics,
                "schedules": _schedules(recipe, loss, Progress(epoch, job.trial.epochs)),
                "seconds": 0.0,
            }
            if job.test and job.validate:
                _keep_best(task, training, row)
            if job.test and epoch + 1 == job.trial.epochs:
                metrics |= _test(task, training, job)
            row["seconds"] = time.perf_counter() - started
            _save(job, training, row)
            yield row


def train_epoch(
    task: DistillationTask[Any],
    job: TrialContext,
    training: Training,
    train: Examples,
    recipe: Recipe,
    loss: DistillationLoss,
    teacher: TeacherOutputs,
    epoch: int,
) -> dict[str, float]:
    """One pass over the training split in a seeded order; returns its metrics."""
    seed, ranks, net, optimizer = job.trial.seed, training.ranks, training.net, training.optimizer
    order = _order(seed, epoch, len(train)).to(job.device)
    views = task.views.draw(seed, epoch, torch.arange(len(train), device=job.device))
    teacher_outputs = teacher.epoch(views)
    # dropout draws from the global generator: seeded per epoch, a resumed trial draws what it would have drawn
    torch.manual_seed(derive_seed(seed, "epoch", epoch) + ranks.rank)
    net.train()
    meters = task.meters(job.device, "train")
    sums = torch.zeros(4, device=job.device)
    batches = order.split(recipe.batch_size)
    for step, whole in enumerate(batches):
        progress = Progress(epoch, job.trial.epochs, step / len(batches))
        part = ranks.shard_batch(whole)
        batch = train.batch(part.samples, views[part.samples])
        with torch.autocast(job.device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            student_outputs = task.outputs(net, batch)
        task_loss = task.task_loss(student_outputs, batch)
        taught = teacher_outputs(batch)
        distill_loss = training.loss(student_outputs, taught, batch.targets, progress)
        total = value_at(loss.task_weight, progress) * task_loss + distill_loss

        optimizer.param_groups[0]["lr"] = value_at(recipe.learning_rate, progress)
        optimizer.zero_grad(set_to_none=True)
        (part.weight * total).backward()
        ranks.all_reduce_gradients(net)
        optimizer.step()
        training.loss.step(student_outputs, taught, progress)

        # summed on the device: reading a number back would wait for every step
        distance = _distance(task, loss, student_outputs, taught)
        means = torch.stack([total.detach(), task_loss.detach(), distill_loss.detach(), distance])
        sums += means * (part.weight * len(whole))
        if part.weight:
            meters.update(student_outputs, batch)
    ranks.broadcast_buffers(net)
    total_loss, task_part, distill_part, teacher_distance = (ranks.all_reduce_sum(sums) / len(train)).tolist()
    if not math.isfinite(total_loss):
        raise FloatingPointError(f"training loss is {total_loss} in epoch {epoch + 1}")
    losses = {"loss": total_loss, "task_loss": task_part, "distill_loss": distill_part}
    losses |= {"teacher_distance": teacher_distance} if loss.needs_teacher else {}
    return {f"train/{name}": value for name, value in (losses | meters.compute()).items()}


@torch.no_grad()
def _distance(task: DistillationTask[Any], loss: DistillationLoss, student: Outputs, teacher: Outputs) -> Tensor:
    """Of a batch; 0 where nobody asks the teacher."""
    if not loss.needs_teacher:
        return torch.zeros((), device=student.prediction.device)
    return task.teacher_distance(student, teacher)


@torch.no_grad()
def evaluate(
    task: DistillationTask[Any], net: nn.Module, split: Split, device: str, ranks: ProcessGroup = SINGLE_PROCESS
) -> dict[str, float]:
    """The task's metrics on a split, views untouched, by `split/name`; all workers get the same."""
    net.eval()
    examples, meters = task.examples(split, device), task.meters(device, split)
    for samples in ranks.shard_batches(torch.arange(len(examples), device=device).split(task.evaluation_batch(device))):
        batch = examples.batch(samples, torch.zeros_like(samples))
        meters.update(task.outputs(net, batch), batch)
    return {f"{split}/{name}": value for name, value in meters.compute().items()}


class _NoTeacher:
    """For losses that do not read the teacher's outputs."""

    def epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return lambda batch: Outputs(torch.empty(0, device=batch.inputs.device))


no_teacher = _NoTeacher()


Built = TypeVar("Built")


def build_seeded(build: Callable[[], Built], seed: int) -> Built:
    """What `build` returns, whose initial weights follow from the seed alone, the CPU's generator left as it was.

    Those of GPUs stay seeded so; every epoch seeds all of them anew.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def to_device(net: nn.Module, device: str) -> nn.Module:
    """`net` on the device, its weights laid out as convolutions there are fastest: channels last.

    On GPUs, float32 is float32 (TF32 errs as much as the float16 in which a teacher's outputs are stored), and
    convolutions give the same each time.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def start_training(
    job: TrialContext, ranks: ProcessGroup, build: Callable[[], nn.Module], recipe: Recipe, loss: DistillationLoss
) -> Training:
    """A fresh training, or the one whose checkpoint lies in the trial's folder."""
    net = ranks.prepare_model(to_device(build_seeded(build, derive_seed(job.trial.seed, "weights")), job.device))
    running = build_seeded(lambda: make_loss_state(loss, job.device), derive_seed(job.trial.seed, "loss"))
    training = Training(ranks, net, recipe.optimizer.build(net.parameters()), running, 0, [], None, None)
    state = checkpoint.load(job.checkpoint)
    if state is not None:
        net.load_state_dict(state["net"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.loss.load_state_dict(state["loss"])
        training.epoch, training.rows = state["epoch"], state["rows"]
        training.best_row, training.best_state = state["best_row"], state["best_state"]
    return training


def _save(job: TrialContext, training: Training, row: EpochResult) -> None:
    training.epoch = row["epoch"]
    training.rows.append(row)
    state = {
        "net": training.net.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "loss": training.loss.state_dict(),
        "epoch": training.epoch,
        "rows": training.rows,
        "best_row": training.best_row,
        "best_state": training.best_state,
    }
    if training.ranks.is_main:
        checkpoint.save(job.checkpoint, state)


def _order(seed: int, epoch: int, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(samples, generator=generator)


def _schedules(recipe: Recipe, loss: DistillationLoss, progress: Progress) -> dict[str, float]:
    return {"learning_rate": value_at(recipe.learning_rate, progress), **evaluate_schedules(loss, progress)}


def _keep_best(task: DistillationTask[Any], training: Training, row: EpochResult) -> None:
    """Remember the weights of the epoch that is best on validation, the earliest of equals."""
    name = task.selection_metric
    sign = 1 if task.metrics[name].direction == "max" else -1
    best = training.best_row
    if best is None or sign * row["metrics"][name] > sign * best["metrics"][name]:
        training.best_row = row
        training.best_state = {key: value.detach().clone() for key, value in training.net.state_dict().items()}


def _test(task: DistillationTask[Any], training: Training, job: TrialContext) -> dict[str, Any]:
    """Read the test split: at the last epoch, and at the best-validation epoch if there was a validation.

    The first of a cell's runs also keeps what its net makes of a few examples.
    """
    ranks = training.ranks
    metrics: dict[str, Any] = evaluate(task, training.net, "test", job.device, ranks)
    if job.trial.number == 0 and ranks.is_main:
        exhibits.write_panels(task, training.net, job.checkpoint, job.device)
    if training.best_row is None or training.best_state is None:
        return metrics
    last = {key: value.detach().clone() for key, value in training.net.state_dict().items()}
    training.net.load_state_dict(training.best_state)
    at_best = evaluate(task, training.net, "test", job.device, ranks)
    training.net.load_state_dict(last)
    metrics |= {name.replace("test/", "test_at_best_val/"): value for name, value in at_best.items()}
    return metrics | {"best_val_epoch": float(training.best_row["epoch"])}
