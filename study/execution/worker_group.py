"""Trials of several workers: each worker a process in the trial's placement group, all of them kept for the next trial.

`TrialWorkerGroup` is the actor that Tune knows. It asks for nothing itself, holds the workers, and lets them train an
epoch at a time, side by side; they exchange what they must among themselves (trainables/training/distributed.py). One
that fails, or is lost, takes the others with it. Ray Train is not used: its trainer takes many seconds a trial to start
its workers, and does not give their placement group back when a trial is stopped before its end, so that a search
would starve.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from study.execution.worker import StepReport, Worker, WorkerContext, read_hang_report
from study.study import Study
from study.trial import Trial

ANSWERS = "answers"
ANSWER_SECONDS = 30.0
"""A worker whose process lives answers within this; Ray itself takes about 13 seconds to see that a node is lost."""


class TrialWorkerGroup(tune.Trainable):  # type: ignore[misc]
    """A reused actor, as TrialWorker is, of trials with several workers."""

    def setup(self, config: dict[str, Any], study: Study, workplace: WorkerContext) -> None:
        self._study, self._workplace = study, workplace
        self._members: list[Any] = []
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config, self._begun = new_config, False
        self._trial = Trial(**json.loads(new_config["trial"]))
        return True

    def step(self) -> dict[str, str]:
        """An epoch of all workers; told is what the first of them tells, or the first that fails.

        Raises RayError if one of them is lost, which Tune counts as this actor's own end: the trial starts again.
        """
        if not self._begun and (reason := read_hang_report(self._workplace.checkpoint(self._trial.id))):
            return StepReport(failure=reason).message()
        try:
            told = self._epoch(self._together())
        except RayError:
            self._dismiss()
            raise
        if told.failure or told.halt:
            self._dismiss()  # what failed may have left its process unusable, and the others wait for it
        return told.message()

    def cleanup(self) -> None:
        self._dismiss()

    def _together(self) -> list[Any]:
        """The workers of this trial, each of which has begun it. What is prepared for trials is one worker's work."""
        if not self._members:
            self._members = self._hired()
        members = self._members[:1] if self._trial.phase == "prepare" else self._members
        if not self._begun:
            meeting = ray.get(members[0].meeting.remote())
            ray.get([member.begin.remote(self._config, meeting) for member in members])
            self._begun = True
        return members

    def _hired(self) -> list[Any]:
        """A worker in each bundle of the placement group."""
        group = ray.util.get_current_placement_group()
        bundles: list[dict[str, float]] = group.bundle_specs
        actor = ray.remote(concurrency_groups={ANSWERS: 1})(Member)
        return [
            actor.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0.0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            ).remote(self._study, self._workplace, bundle.get("GPU", 0.0), rank, len(bundles))
            for rank, bundle in enumerate(bundles)
        ]

    def _epoch(self, members: list[Any]) -> StepReport:
        steps = [member.step.remote() for member in members]
        waiting = steps
        while waiting:
            (done,), waiting = ray.wait(waiting)
            told: StepReport = ray.get(done)
            if told.failure or told.halt:
                # a worker whose peer is lost fails first, by the connection that broke: then it is no failure
                ray.get([member.lives.remote() for member in members], timeout=ANSWER_SECONDS)
                return told
        return ray.get(steps[0])  # type: ignore[no-any-return]

    def _dismiss(self) -> None:
        """End all workers, whatever they are at; the next trial gets others."""
        for member in self._members:
            ray.kill(member)
        self._members, self._begun = [], False


class Member(Worker):
    """A worker that also answers while it trains."""

    @ray.method(concurrency_group=ANSWERS)  # type: ignore[untyped-decorator]
    def lives(self) -> bool:
        return True

    def meeting(self) -> str:
        """Where this worker can be met by the others: HOST:PORT, free when asked."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"
