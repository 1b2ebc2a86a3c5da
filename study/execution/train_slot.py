"""Trials of several workers: a slot is one long run of Ray Train, whose workers train one trial after the other.

`TrainSlot` is the actor that Tune knows and reuses. It requests no resources itself: it starts a TorchTrainer whose
workers live in the placement group that Tune has reserved for the trial, and orders one epoch at a time from them
(study/execution/slot_exchange.py). Ray Train sets up their devices and torch.distributed, watches them and replaces
all of them when one is lost; a run per trial would take more than ten seconds to start.

Losses are bounded: each one is reported to the driver, whose retry policy ends a trial whose workers are lost too often
without an epoch. If a node of its placement group is lost, or no workers start in GROUP_SECONDS, the slot ends, and
Tune places its trial elsewhere: Ray replaces the lost part of a placement group only if another node has room for it,
holds what is left of it until then, and tries so without a pause.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import asdict
from typing import Any

import ray
import ray.train
import ray.train.collective
from ray import tune
from ray.exceptions import RayActorError, RayError

from study.cluster.node_tasks import get_or_error
from study.execution.ray_internals import lend_placement_group
from study.execution.slot_exchange import END, RENEW
from study.execution.worker import StepReport, Worker, read_hang_report
from study.execution.worker_context import WorkerContext
from study.execution.worker_failures import NODE_DIED, to_worker_failure
from study.study import Study
from study.trial import Trial

GROUP_SECONDS = 300.0
"""Time within which Ray Train starts all workers of a slot; 7 to 15 seconds where the machine is not overloaded."""

WATCH_SECONDS = 1.0
"""Interval at which a slot looks at its workers during an epoch; Ray Train does so every half second."""

PING_SECONDS = 30.0
"""Time within which a live worker answers a ping; Ray itself takes about 13 seconds to detect a lost node."""

CLOSE_SECONDS = 20.0
"""Time for the workers of a slot to end in order; after that they are killed with Ray Train's controller."""

COLLECTIVE_SECONDS = 7 * 24 * 3600
"""Bound of torch.distributed's collectives: practically none, since the hang watch ends workers that hang."""


class TrainSlot(tune.Trainable):  # type: ignore[misc]
    """Reused Tune actor of trials of several workers."""

    def setup(self, config: dict[str, Any], study: Study, context: WorkerContext, exchange: Any) -> None:
        self._context, self._exchange = context, exchange
        self._name = ray.get_runtime_context().get_actor_id()
        self._group, self._workers = "", list[Any]()
        self._trained_alone, self._run_error = False, ""
        self._placement = ray.util.get_current_placement_group()
        self._trainer: Any = None
        ray.get(exchange.open.remote(self._name, len(self._placement.bundle_specs)))
        self._run = threading.Thread(target=self._fit, args=(study,), name="train", daemon=True)
        self._run.start()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config, self._started = new_config, False
        self._trial = Trial.from_json(new_config["trial"])
        return True

    def step(self) -> dict[str, str]:
        """Train one epoch on all workers; return the report of rank 0, or of the worker that failed.

        Raises RayError if the slot cannot continue; Tune then restarts the trial elsewhere.
        """
        if not self._started and (hang := read_hang_report(self._context.checkpoint_folder(self._trial.id))):
            return StepReport(failure=hang).to_message()
        try:
            report = self._train_epoch()
        except RayError as error:
            self._forget_group()
            lost = to_worker_failure(error)
            if lost.node_lost or self._run_error:
                raise
            return StepReport(lost=asdict(lost)).to_message()
        if report.rows:
            self._config = {**self._config, "epochs_done": report.rows[-1]["epoch"]}
        if report.failure or report.halt:
            self._renew_group()  # the failed process may be unusable, and the others may wait for it
        return report.to_message()

    def cleanup(self) -> None:
        ray.get(self._exchange.close.remote(self._name))
        self._run.join(0 if self._is_node_lost() else CLOSE_SECONDS)
        if self._run.is_alive() and self._trainer is not None and self._trainer.controller is not None:
            # the process of this actor ends only after its calls, and Tune frees the placement group only after both
            ray.kill(self._trainer.controller)

    def _train_epoch(self) -> StepReport:
        alone = self._trial.phase == "prepare"
        if self._trained_alone and not alone:
            self._renew_group()  # its first worker has left the process group; see trainables/training/distributed.py
        if not self._group:
            self._group, self._workers = self._wait_for(self._exchange.wait_for_group.remote(self._name), GROUP_SECONDS)
        self._trained_alone = alone
        ranks = 1 if alone else len(self._workers)
        order = self._exchange.train_epoch.remote(self._name, self._group, self._config, not self._started, ranks)
        reports = self._wait_for(order)
        if reports is None:
            self._check_workers(strict=True)
            raise RayActorError(self._group, "Ray Train has replaced the workers")
        self._started = True
        failed = next((report for report in reports if report["failure"] or report["halt"]), None)
        if failed is not None:
            # a worker whose peer was lost fails first, by a broken connection: then the ping raises instead
            self._check_workers(strict=True)
        return StepReport(**(failed or reports[0]))

    def _wait_for(self, answer: Any, seconds: float | None = None) -> Any:
        """Return what the exchange answers. Raises RayError if a worker or the run ends first, or time is up."""
        waited = 0.0
        while not ray.wait([answer], timeout=WATCH_SECONDS)[0]:
            waited += WATCH_SECONDS
            if seconds is not None and waited > seconds:
                self._run_error = f"Ray Train has started no workers within {seconds:g} seconds"
            if self._run_error:
                raise RayActorError(self._name, self._run_error)
            self._check_workers(strict=False)
            if self._is_node_lost():
                raise RayActorError(self._name, f"a part of its placement group is gone, as {NODE_DIED}")
        return ray.get(answer)

    def _is_node_lost(self) -> bool:
        """Return whether a node of the slot's placement group has died, which Ray then schedules again."""
        return bool(ray.util.placement_group_table(self._placement).get("state") != "CREATED")

    def _check_workers(self, strict: bool) -> None:
        """Raise the RayError of a worker that has died; if strict, also of one that does not answer."""
        if not self._workers:
            return
        pings = [worker.__ray_ready__.remote() for worker in self._workers]
        seconds = PING_SECONDS if strict else WATCH_SECONDS / 4
        answered, silent = ray.wait(pings, num_returns=len(pings), timeout=seconds)
        errors = [error for error in map(get_or_error, answered) if isinstance(error, RayError)]
        if errors:  # Ray Train kills the others, by ray.kill: they are not the cause
            raise next((error for error in errors if "ray.kill" not in str(error)), errors[0])
        if strict and silent:
            raise RayActorError(self._group, f"a worker has not answered within {seconds:g} seconds")

    def _renew_group(self) -> None:
        """Let Ray Train start new workers."""
        ray.get(self._exchange.renew.remote(self._name, self._group))
        self._forget_group()

    def _forget_group(self) -> None:
        if self._group:
            ray.get(self._exchange.renew.remote(self._name, self._group))
        self._group, self._workers, self._started, self._trained_alone = "", [], False, False

    def _fit(self, study: Study) -> None:
        """Run Ray Train until the slot is closed; called in a thread of its own."""
        from ray.train.torch import TorchConfig, TorchTrainer

        name, context, exchange = self._name, self._context, self._exchange
        bundle: dict[str, float] = self._placement.bundle_specs[0]
        workers, gpus = len(self._placement.bundle_specs), bundle.get("GPU", 0.0)
        with tempfile.TemporaryDirectory(prefix="kdstudy-train-") as folder:
            try:
                self._trainer = lend_placement_group(TorchTrainer, self._placement)(
                    lambda: serve_slot(study, context, exchange, name, gpus),
                    # NCCL requires a GPU for each worker; smaller shares may lie on the same one
                    torch_config=TorchConfig("nccl" if gpus > 0.5 else "gloo", timeout_s=COLLECTIVE_SECONDS),
                    scaling_config=ray.train.ScalingConfig(
                        num_workers=workers, use_gpu=gpus > 0, resources_per_worker=bundle
                    ),
                    run_config=ray.train.RunConfig(
                        name=name, storage_path=folder, failure_config=ray.train.FailureConfig(max_failures=-1)
                    ),
                )
                self._trainer.fit()
                self._run_error = "Ray Train has ended the run"
            except Exception as error:
                self._run_error = f"Ray Train has ended the run: {error}"


def serve_slot(study: Study, context: WorkerContext, exchange: Any, name: str, gpus: float) -> None:
    """Train epochs of whatever trial the slot has, until it is closed: Ray Train's train function on each worker."""
    this = ray.train.get_context()
    rank, actor = this.get_world_rank(), ray.get_runtime_context().current_actor
    group = ray.train.collective.broadcast_from_rank_zero(ray.get_runtime_context().get_actor_id())
    worker = Worker(study, context, gpus, rank, this.get_world_size())
    done = 0
    ray.get(exchange.join.remote(name, group, rank, actor))
    while (order := ray.get(exchange.next_order.remote(name, group, done))) != END:
        if order == RENEW:
            raise RuntimeError("the slot requests new workers")
        report = StepReport()
        if rank < order.ranks:
            if order.first:
                worker.start_trial(order.config)
            report = worker.step()
        done = order.number
        ray.get(exchange.report.remote(name, group, rank, done, asdict(report)))
