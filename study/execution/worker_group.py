"""Trials of several workers: one process per rank in the trial's placement group, all reused for the next trial.

`WorkerGroup` is the actor that Tune knows. It requests no resources itself, holds the workers and lets them train one
epoch at a time together; they exchange gradients among themselves (trainables/training/distributed.py). A worker that
fails or is lost ends the others too. Ray Train is not used: its trainer takes many seconds per trial to start workers,
and does not return their placement group when a trial is stopped early, so that a search would starve.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from study.execution.worker import StepReport, Worker, read_hang_report
from study.execution.worker_context import WorkerContext
from study.study import Study
from study.trial import Trial

PING_GROUP = "ping"
PING_SECONDS = 30.0
"""Time within which a live worker answers a ping; Ray itself takes about 13 seconds to detect a lost node."""


class WorkerGroup(tune.Trainable):  # type: ignore[misc]
    """Reused Tune actor of trials of several workers."""

    def setup(self, config: dict[str, Any], study: Study, context: WorkerContext) -> None:
        self._study, self._context = study, context
        self._workers: list[Any] = []
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config, self._started = new_config, False
        self._trial = Trial(**json.loads(new_config["trial"]))
        return True

    def step(self) -> dict[str, str]:
        """Train one epoch on all workers; return the report of rank 0, or of the first worker that fails.

        Raises RayError if a worker is lost; Tune treats that as the death of this actor and restarts the trial.
        """
        if not self._started and (hang := read_hang_report(self._context.checkpoint_folder(self._trial.id))):
            return StepReport(failure=hang).to_message()
        try:
            report = self._train_epoch(self._start_workers())
        except RayError:
            self._kill_workers()
            raise
        if report.failure or report.halt:
            self._kill_workers()  # the failed process may be unusable, and the others wait for it
        return report.to_message()

    def cleanup(self) -> None:
        self._kill_workers()

    def _start_workers(self) -> list[Any]:
        """Return this trial's workers, each with the trial started. Preparations run on a single worker."""
        if not self._workers:
            self._workers = self._create_workers()
        workers = self._workers[:1] if self._trial.phase == "prepare" else self._workers
        if not self._started:
            address = ray.get(workers[0].find_rendezvous_address.remote())
            ray.get([worker.start_trial.remote(self._config, address) for worker in workers])
            self._started = True
        return workers

    def _create_workers(self) -> list[Any]:
        """Create one worker in each bundle of the placement group."""
        group = ray.util.get_current_placement_group()
        bundles: list[dict[str, float]] = group.bundle_specs
        actor = ray.remote(concurrency_groups={PING_GROUP: 1})(GroupWorker)
        return [
            actor.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0.0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            ).remote(self._study, self._context, bundle.get("GPU", 0.0), rank, len(bundles))
            for rank, bundle in enumerate(bundles)
        ]

    def _train_epoch(self, workers: list[Any]) -> StepReport:
        steps = [worker.step.remote() for worker in workers]
        pending = steps
        while pending:
            (done,), pending = ray.wait(pending)
            report: StepReport = ray.get(done)
            if report.failure or report.halt:
                # a worker whose peer was lost fails first, by a broken connection: then the ping raises instead
                ray.get([worker.ping.remote() for worker in workers], timeout=PING_SECONDS)
                return report
        return ray.get(steps[0])  # type: ignore[no-any-return]

    def _kill_workers(self) -> None:
        """Kill all workers, whatever they are doing; the next trial gets new ones."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers, self._started = [], False


class GroupWorker(Worker):
    """A rank's worker, which also answers while it trains."""

    @ray.method(concurrency_group=PING_GROUP)  # type: ignore[untyped-decorator]
    def ping(self) -> bool:
        return True

    def find_rendezvous_address(self) -> str:
        """Return HOST:PORT at which the ranks can meet; the port was free when asked."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"
