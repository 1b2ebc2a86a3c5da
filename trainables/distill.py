"""The training loop of students and teachers, for all tasks and losses; reads from top to bottom.

A trial is an iterator of results, one an epoch. Differences between tasks are in the task, differences between arms in
the loss, and cooperation of workers in training/distributed.py: the loop branches on none of them. Ray calls it from
study/execution/worker.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from study.identity import derive_seed
from study.task import PARAMETERS
from study.trial import EpochResult, Split, TrialContext
from trainables import sample_panels as exhibits
from trainables.losses.state import LossState, make_loss_state
from trainables.task import Batch, DistillationLoss, Examples, Outputs, count_parameters, index_device
from trainables.training import checkpoint, cuda_graph
from trainables.training.distributed import SINGLE_PROCESS, ProcessGroup, join_group
from trainables.training.nets import build_seeded, to_device
from trainables.training.recipe import Recipe, set_learning_rate
from trainables.training.schedules import Progress, evaluate_schedules, value_at

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


class FrozenTeacher(Protocol):
    """A source of teacher outputs: the net itself, or a store of its outputs."""

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        """Return the function from an epoch's batches to teacher outputs; `views` (N,) are its samples' views."""


@dataclass
class Training:
    """A training in progress, with everything that a checkpoint needs to resume it exactly."""

    group: ProcessGroup
    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss: LossState
    epoch: int
    """Number of completed epochs."""
    results: list[EpochResult]
    """The results of all completed epochs: a driver that was killed may not have recorded the last ones."""
    best_result: EpochResult | None
    best_state: dict[str, Tensor] | None
    captured: cuda_graph.CapturedStep | None = None
    """The step of the last epoch if steps run as a CUDA graph; not part of a checkpoint."""


def distill(
    task: DistillationTask[Any],
    context: TrialContext,
    build: Callable[[], nn.Module],
    recipe: Recipe,
    loss: DistillationLoss,
    teacher: FrozenTeacher,
) -> Iterator[EpochResult]:
    """Train the net that `build` returns under `loss`; yield one result an epoch, save each state as a checkpoint.

    With `context.validate` the net is evaluated on val after each epoch. With `context.test` it is evaluated on test
    after the last epoch, and if there was a validation, once more with the weights of the epoch that was best on it.
    All workers of a trial yield results; rank 0's are recorded.
    Raises FloatingPointError if the training loss is not finite.
    """
    with join_group(context) as group:
        train = task.examples(context.train_on, context.device)
        training = start_training(context, group, build, recipe, loss)
        yield from (result for result in training.results if result["epoch"] > context.recorded_epochs)

        for epoch in range(training.epoch, context.trial.epochs):
            started = time.perf_counter()
            metrics = train_epoch(task, context, training, train, recipe, loss, teacher, epoch)
            if context.student is not None:
                metrics[PARAMETERS] = count_parameters(training.net)
            if context.validate:
                metrics |= evaluate(task, training.net, "val", context.device, group)
            progress = Progress(epoch, context.trial.epochs)
            learning_rate = value_at(recipe.learning_rate, progress)
            result: EpochResult = {
                "epoch": epoch + 1,
                "metrics": metrics,
                "schedules": {"learning_rate": learning_rate, **evaluate_schedules(loss, progress)},
                "seconds": 0.0,
            }
            if context.test and context.validate:
                _keep_best(task, training, result)
            if context.test and epoch + 1 == context.trial.epochs:
                metrics |= _test(task, training, context)
            result["seconds"] = time.perf_counter() - started
            _save(context, training, result)
            yield result


def train_epoch(
    task: DistillationTask[Any],
    context: TrialContext,
    training: Training,
    train: Examples,
    recipe: Recipe,
    loss: DistillationLoss,
    teacher: FrozenTeacher,
    epoch: int,
) -> dict[str, float]:
    """Train on each sample of the training split once, in a seeded order; return the epoch's metrics."""
    seed, device = context.trial.seed, context.device
    group, net, optimizer = training.group, training.net, training.optimizer
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    indices = index_device(train, device)
    order = torch.randperm(len(train), generator=generator).to(indices)  # (N,) positions in the split
    views = task.views.draw(seed, epoch, torch.arange(len(train), device=indices))  # (N,) one view a sample
    compute_teacher_outputs = teacher.begin_epoch(views)
    # dropout draws from the global generator: seeded every epoch, resumed trials and all workers draw the same numbers
    torch.manual_seed(derive_seed(seed, "epoch", epoch))
    net.train()
    meters = task.meters(device, "train")
    distance_names = ["teacher_distance", *(metric.name for metric in task.further_distances)]
    sums = torch.zeros(3 + len(distance_names), device=device)  # total, task, distillation loss and distances

    def train_step(samples: Tensor, progress: Progress) -> None:
        shard = group.shard_batch(samples)  # (B,) of the batch's samples, all of them for a single worker
        batch = train.batch(shard.samples, views[shard.samples])  # inputs (B, C, H, W), targets as the task has them

        # classification: predictions (B, K); segmentation (B, K, h, w); density maps (B, 1, h, w); images (B, 3, H, W)
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            student_outputs = replace(task.outputs(net, batch), samples=batch.samples)
        teacher_outputs = compute_teacher_outputs(batch)
        task_loss = task.task_loss(student_outputs, batch)  # (), a mean over the shard, as the next two
        distill_loss = training.loss(student_outputs, teacher_outputs, batch.targets, progress)
        total_loss = value_at(loss.task_weight, progress) * task_loss + distill_loss

        optimizer.zero_grad(set_to_none=True)
        (shard.weight * total_loss).backward()
        group.all_reduce_gradients(net)
        optimizer.step()
        training.loss.step(student_outputs, teacher_outputs, progress)

        # added up on the device: reading a number back would wait for every step
        distances = torch.zeros(len(distance_names), device=device)
        if loss.needs_teacher:
            with torch.no_grad():
                distances = task.measure_distances(student_outputs, teacher_outputs)  # (1 + M,)
        means = torch.cat([torch.stack([total_loss, task_loss, distill_loss]).detach(), distances])
        sums.add_(means * (shard.weight * len(samples)))
        if shard.weight:
            meters.update(student_outputs, batch)

    batches = order.split(recipe.batch_size)
    run_step: cuda_graph.Step = train_step
    if cuda_graph.is_capturable(task, context, group, recipe, loss, len(batches)):
        run_step = training.captured = cuda_graph.CapturedStep(train_step, training.captured)
    for step, samples in enumerate(batches):
        progress = Progress(epoch, context.trial.epochs, step / len(batches))
        set_learning_rate(optimizer, value_at(recipe.learning_rate, progress))
        run_step(samples, progress)
    group.broadcast_buffers(net)
    mean_loss, *parts = (group.all_reduce_sum(sums) / len(train)).tolist()
    if not math.isfinite(mean_loss):
        raise FloatingPointError(f"training loss is {mean_loss} in epoch {epoch + 1}")
    metrics = {"loss": mean_loss, "task_loss": parts[0], "distill_loss": parts[1]}
    metrics |= dict(zip(distance_names, parts[2:], strict=True)) if loss.needs_teacher else {}
    return {f"train/{name}": value for name, value in (metrics | meters.compute()).items()}


@torch.no_grad()
def evaluate(
    task: DistillationTask[Any], net: nn.Module, split: Split, device: str, group: ProcessGroup = SINGLE_PROCESS
) -> dict[str, float]:
    """Return the task's metrics on a split's untouched images, by `split/name`; the same on all workers."""
    net.eval()
    examples, meters = task.examples(split, device), task.meters(device, split)
    indices = index_device(examples, device)
    batches = torch.arange(len(examples), device=indices).split(task.evaluation_batch(device))
    for samples in group.shard_batches(batches):  # (B,)
        batch = examples.batch(samples, torch.zeros_like(samples))
        meters.update(task.outputs(net, batch), batch)
    return {f"{split}/{name}": value for name, value in meters.compute().items()}


class _NoTeacher:
    """The teacher of losses that do not need one: its outputs are empty."""

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return lambda batch: Outputs(torch.empty(0, device=batch.inputs.device))


NO_TEACHER = _NoTeacher()


def start_training(
    context: TrialContext, group: ProcessGroup, build: Callable[[], nn.Module], recipe: Recipe, loss: DistillationLoss
) -> Training:
    """Return a new training, or the one that the trial's checkpoint continues."""
    seed, device = context.trial.seed, context.device
    net = build_seeded(build, derive_seed(seed, "weights"))
    net = group.prepare_model(to_device(net, device, recipe.precision))
    loss_state = build_seeded(lambda: make_loss_state(loss, device), derive_seed(seed, "loss"))
    training = Training(group, net, recipe.optimizer.build(net.parameters()), loss_state, 0, [], None, None)
    group.barrier()  # rank 0 may still be writing the checkpoint of the attempt before
    state = checkpoint.load(context.checkpoint)
    if state is not None:
        net.load_state_dict(state["net"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.loss.load_state_dict(state["loss"])
        training.epoch, training.results = state["epoch"], state["rows"]
        training.best_result, training.best_state = state["best_row"], state["best_state"]
    if training.epoch < context.trial.start_epoch:
        raise FileNotFoundError(
            f"{context.checkpoint} holds epoch {training.epoch}; this trial continues from {context.trial.start_epoch}"
        )
    if device == "cuda":  # as a tensor, which a captured step reads each time it is replayed
        training.optimizer.param_groups[0]["lr"] = torch.zeros((), device=device)
    return training


def _save(context: TrialContext, training: Training, result: EpochResult) -> None:
    training.epoch = result["epoch"]
    training.results.append(result)
    state = {
        "net": training.net.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "loss": training.loss.state_dict(),
        "epoch": training.epoch,
        "rows": training.results,
        "best_row": training.best_result,
        "best_state": training.best_state,
    }
    if training.group.is_main:
        checkpoint.save(context.checkpoint, state)


def _copy_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _keep_best(task: DistillationTask[Any], training: Training, result: EpochResult) -> None:
    """Keep the weights of the epoch that is best on validation, the earliest among equals."""
    name = task.selection_metric
    sign = 1 if task.metrics[name].direction == "max" else -1
    best = training.best_result
    if best is None or sign * result["metrics"][name] > sign * best["metrics"][name]:
        training.best_result, training.best_state = result, _copy_state(training.net)


def _test(task: DistillationTask[Any], training: Training, context: TrialContext) -> dict[str, Any]:
    """Return the metrics on test of the last epoch, and of the best epoch on validation if there was a validation.

    The first run of a cell also writes panels of a few examples.
    """
    group, net = training.group, training.net
    metrics: dict[str, Any] = evaluate(task, net, "test", context.device, group)
    if context.trial.number == 0 and group.is_main:
        exhibits.write_panels(task, net, context.checkpoint, context.device)
    if training.best_result is None or training.best_state is None:
        return metrics
    last_state = _copy_state(net)
    net.load_state_dict(training.best_state)
    at_best = evaluate(task, net, "test", context.device, group)
    net.load_state_dict(last_state)
    metrics |= {name.replace("test/", "test_at_best_val/"): value for name, value in at_best.items()}
    return metrics | {"best_val_epoch": float(training.best_result["epoch"])}
