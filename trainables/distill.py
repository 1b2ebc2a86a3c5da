"""The training loop of students and teachers, for all tasks and losses; reads from top to bottom.

A trial is an iterator of results, one an epoch. Differences between tasks are in the task, differences between arms in
the loss, and cooperation of workers in training/distributed.py: the loop branches on none of them. Ray calls it from
study/execution/worker.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from study.identity import derive_seed
from study.task import PARAMETERS
from study.trial import EpochResult, TrialContext
from trainables.evaluation import EpochMeters, evaluate
from trainables.losses.state import LossState, make_loss_state
from trainables.sample_panels import write_panels
from trainables.task import (
    Batch,
    DistillationLoss,
    Examples,
    FrozenTeacher,
    Outputs,
    count_parameters,
    index_device,
    prefetch,
)
from trainables.training import checkpoint
from trainables.training.cuda_graph import CapturedStep, Step, is_capturable
from trainables.training.distributed import ProcessGroup, join_group
from trainables.training.nets import build_seeded, to_device
from trainables.training.recipe import Recipe, set_learning_rate
from trainables.training.schedules import evaluate_schedules
from trainables.training.settings import Progress, value_at

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


@dataclass
class Training:
    """A training in progress: its settings, and everything that a checkpoint needs to resume it exactly."""

    task: DistillationTask[Any]
    context: TrialContext
    group: ProcessGroup
    recipe: Recipe
    loss: DistillationLoss
    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss_state: LossState
    epoch: int = 0
    """Number of completed epochs."""
    results: list[EpochResult] = field(default_factory=list)
    """The results of all completed epochs: a driver that was killed may not have recorded the last ones."""
    best_result: EpochResult | None = None
    best_state: dict[str, Tensor] | None = None
    captured: CapturedStep | None = None
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
        training = start_training(task, context, group, build, recipe, loss)
        yield from (result for result in training.results if result["epoch"] > context.recorded_epochs)

        for epoch in range(training.epoch, context.trial.epochs):
            started = time.perf_counter()
            metrics = train_epoch(training, train, teacher, epoch)
            if context.student is not None:
                metrics[PARAMETERS] = count_parameters(training.net)
            if context.validate:
                metrics |= evaluate(task, training.net, "val", context.device, group)
            progress = Progress(epoch, context.trial.epochs)
            rate = {"learning_rate": value_at(recipe.learning_rate, progress)}
            schedules = rate | evaluate_schedules(loss, progress)
            result = EpochResult(epoch=epoch + 1, metrics=metrics, schedules=schedules, seconds=0.0)
            if context.test and context.validate:
                _keep_best(training, result)
            if context.test and epoch + 1 == context.trial.epochs:
                metrics |= _test(training)
            result["seconds"] = time.perf_counter() - started
            _save(training, result)
            yield result


def train_epoch(training: Training, train: Examples, teacher: FrozenTeacher, epoch: int) -> dict[str, float]:
    """Train on each sample of the training split once, in a seeded order; return the epoch's metrics."""
    context, recipe = training.context, training.recipe
    order, views = _draw_order(training, train, epoch)
    meters = EpochMeters(training.task, training.loss, context.device)
    step: Step = TrainStep(training, train, views, teacher.begin_epoch(views), meters)
    # dropout draws from the global generator: seeded every epoch, resumed trials and all workers draw the same numbers
    torch.manual_seed(derive_seed(context.trial.seed, "epoch", epoch))
    training.net.train()
    batches = order.split(recipe.batch_size)
    shards = (training.group.cut_batch(samples).samples for samples in batches)  # (B,) each, of this worker
    prefetch(train, ((shard, views[shard]) for shard in shards))
    if is_capturable(training.task, context, training.group, recipe, training.loss, len(batches)):
        step = training.captured = CapturedStep(step, training.captured)
    for number, samples in enumerate(batches):
        progress = Progress(epoch, context.trial.epochs, number / len(batches))
        set_learning_rate(training.optimizer, value_at(recipe.learning_rate, progress))
        step(samples, progress)
    training.group.broadcast_buffers(training.net)
    metrics = meters.compute(training.group, len(train))
    if not math.isfinite(metrics["train/loss"]):
        raise FloatingPointError(f"training loss is {metrics['train/loss']} in epoch {epoch + 1}")
    return metrics


def _draw_order(training: Training, train: Examples, epoch: int) -> tuple[Tensor, Tensor]:
    """Return the positions of an epoch's samples in the order of training, and each sample's view: (N,) int64 each."""
    seed, indices = training.context.trial.seed, index_device(train, training.context.device)
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order = torch.randperm(len(train), generator=generator).to(indices)
    return order, training.task.views.draw(seed, epoch, torch.arange(len(train), device=indices))


@dataclass(frozen=True)
class TrainStep:
    """One step of an epoch: forward and backward pass of a batch, and the optimizer's step."""

    training: Training
    train: Examples
    views: Tensor
    """(N,) the view of each sample in this epoch."""
    compute_teacher_outputs: Callable[[Batch], Outputs]
    meters: EpochMeters

    def __call__(self, samples: Tensor, progress: Progress) -> None:
        """Train on the samples (B,)."""
        training, task, net = self.training, self.training.task, self.training.net
        shard = training.group.shard_batch(samples)  # (B,) of the batch's samples, all of them for a single worker
        batch = self.train.batch(shard.samples, self.views[shard.samples])  # inputs (B, C, H, W), targets of the task

        # classification: predictions (B, K); segmentation (B, K, h, w); density maps (B, 1, h, w); images (B, 3, H, W)
        with torch.autocast(training.context.device, torch.bfloat16, enabled=training.recipe.precision == "bfloat16"):
            student = replace(task.outputs(net, batch), samples=batch.samples)
        teacher = self.compute_teacher_outputs(batch)
        task_loss = task.task_loss(student, batch)  # (), a mean over the shard, as the next two
        distill_loss = training.loss_state(student, teacher, batch.targets, progress)
        total_loss = value_at(training.loss.task_weight, progress) * task_loss + distill_loss

        training.optimizer.zero_grad(set_to_none=True)
        (shard.weight * total_loss).backward()
        training.group.all_reduce_gradients(net)
        training.optimizer.step()
        training.loss_state.step(student, teacher, progress)
        self.meters.update(shard, batch, student, teacher, (total_loss, task_loss, distill_loss))


def start_training(
    task: DistillationTask[Any],
    context: TrialContext,
    group: ProcessGroup,
    build: Callable[[], nn.Module],
    recipe: Recipe,
    loss: DistillationLoss,
) -> Training:
    """Return a new training, or the one that the trial's checkpoint continues."""
    seed, device = context.trial.seed, context.device
    net = build_seeded(build, derive_seed(seed, "weights"))
    net = group.prepare_model(to_device(net, device, recipe.precision))
    loss_state = build_seeded(lambda: make_loss_state(loss, device), derive_seed(seed, "loss"))
    optimizer = recipe.optimizer.build(net.parameters())
    training = Training(task, context, group, recipe, loss, net, optimizer, loss_state)
    group.barrier()  # rank 0 may still be writing the checkpoint of the attempt before
    _restore(training)
    if device == "cuda":  # as a tensor, which a captured step reads each time it is replayed
        optimizer.param_groups[0]["lr"] = torch.zeros((), device=device)
    return training


def _restore(training: Training) -> None:
    """Continue from the trial's checkpoint, if there is one."""
    context, state = training.context, checkpoint.load(training.context.checkpoint)
    if state is not None:
        training.net.load_state_dict(state["net"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.loss_state.load_state_dict(state["loss"])
        training.epoch, training.results = state["epoch"], state["rows"]
        training.best_result, training.best_state = state["best_row"], state["best_state"]
    if training.epoch < context.trial.start_epoch:
        raise FileNotFoundError(
            f"{context.checkpoint} holds epoch {training.epoch}; this trial continues from {context.trial.start_epoch}"
        )


def _save(training: Training, result: EpochResult) -> None:
    training.epoch = result["epoch"]
    training.results.append(result)
    state = {
        "net": training.net.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "loss": training.loss_state.state_dict(),
        "epoch": training.epoch,
        "rows": training.results,
        "best_row": training.best_result,
        "best_state": training.best_state,
    }
    if training.group.is_main:
        checkpoint.save(training.context.checkpoint, state)


def _copy_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _keep_best(training: Training, result: EpochResult) -> None:
    """Keep the weights of the epoch that is best on validation, the earliest among equals."""
    name = training.task.selection_metric
    sign = 1 if training.task.metrics[name].direction == "max" else -1
    best = training.best_result
    if best is None or sign * result["metrics"][name] > sign * best["metrics"][name]:
        training.best_result, training.best_state = result, _copy_state(training.net)


def _test(training: Training) -> dict[str, float]:
    """Return the metrics on test of the last epoch, and of the best epoch on validation if there was a validation.

    The first run of a cell also writes panels of a few examples.
    """
    task, context, group, net = training.task, training.context, training.group, training.net
    metrics = evaluate(task, net, "test", context.device, group)
    if context.trial.number == 0 and group.is_main:
        write_panels(task, net, context.checkpoint, context.device)
    if training.best_result is None or training.best_state is None:
        return metrics
    last_state = _copy_state(net)
    net.load_state_dict(training.best_state)
    at_best = evaluate(task, net, "test", context.device, group)
    net.load_state_dict(last_state)
    metrics |= {name.replace("test/", "test_at_best_val/"): value for name, value in at_best.items()}
    return metrics | {"best_val_epoch": float(training.best_result["epoch"])}
