"""Retry policy for lost workers and nodes. Counters reset whenever the trial completes an epoch.

A restarted trial resumes from its checkpoint, so a loss is free and a long trial may survive many. The bounds end
studies that would otherwise never end: a worker that dies repeatedly within one epoch was most likely killed by what it
trains. Nodes disappear for their own reasons, spot nodes all the time, hence the higher bound for them; it must exist
because a trial that fills a node's memory may take the node down again and again.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

MAX_WORKER_RETRIES = 3
"""Restarts of a trial whose worker dies before completing an epoch; after that the trial has failed."""

MAX_NODE_LOSSES = 20
"""Nodes a trial may lose before completing an epoch. Announced losses (preempted spot nodes) do not count."""

REASON_CHARACTERS = 200


@dataclass(frozen=True)
class WorkerFailure:
    """The end of one worker as Ray reports it."""

    text: str = "Ray gives no reason"
    actor_id: str = ""
    """Ray's id of the worker's actor: Tune may report one failure twice."""
    node_lost: bool = False
    """The worker is gone because its node is."""
    preempted: bool = False
    """The loss of the node was announced, as for a reclaimed spot node."""

    @property
    def reason(self) -> str:
        """The last line of `text`, where Ray states the cause."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return textwrap.shorten(lines[-1], REASON_CHARACTERS, placeholder=" …") if lines else WorkerFailure.text


class RetryPolicy:
    """Worker failures of each trial since its last completed epoch."""

    def __init__(self) -> None:
        self._failures: dict[str, list[WorkerFailure]] = {}
        self._give_ups: dict[str, int] = {}

    def record(self, trial_id: str, failure: WorkerFailure) -> None:
        """Count a failure, unless it was announced or counted before."""
        failures = self._failures.setdefault(trial_id, [])
        known = failure.actor_id and failure.actor_id in {other.actor_id for other in failures}
        if not failure.preempted and not known:
            failures.append(failure)

    def record_give_up(self, trial_id: str) -> None:
        """Count that Tune no longer restarts the trial. Tune may do so after a single failure, hence the own bound."""
        self._give_ups[trial_id] = self._give_ups.get(trial_id, 0) + 1

    def reset(self, trial_id: str) -> None:
        """Forget the failures of a trial that has completed an epoch."""
        self._failures.pop(trial_id, None)
        self._give_ups.pop(trial_id, None)

    def last_failure(self, trial_id: str) -> WorkerFailure:
        """Return the last counted failure, or one without a reason."""
        failures = self._failures.get(trial_id)
        return failures[-1] if failures else WorkerFailure()

    def failure_reason(self, trial_id: str) -> str:
        """Return why the trial has failed for good; empty if it is to be restarted."""
        failures = self._failures.get(trial_id, [])
        nodes = [failure for failure in failures if failure.node_lost]
        workers = [failure for failure in failures if not failure.node_lost]
        if len(workers) > MAX_WORKER_RETRIES:
            return f"its worker died {len(workers)} times without an epoch, last with {workers[-1].reason}"
        if len(nodes) >= MAX_NODE_LOSSES:
            return f"its node was lost {len(nodes)} times without an epoch, last with {nodes[-1].reason}"
        if self._give_ups.get(trial_id, 0) >= MAX_NODE_LOSSES:
            reason = self.last_failure(trial_id).reason
            return f"Ray Tune gave it up {MAX_NODE_LOSSES} times without an epoch, last with {reason}"
        return ""
