"""Errors of Ray about workers, classified for the retry policy."""

from __future__ import annotations

from ray.exceptions import ActorUnavailableError, RayActorError

from study.execution.retries import WorkerFailure

NODE_DIED = "its node has died"
"""Words in Ray's error by which a lost node differs from a worker that died alone; Ray gives no other sign."""


def to_worker_failure(error: Exception | None) -> WorkerFailure:
    """Classify the error of a worker: it died alone, or its node was lost."""
    if not isinstance(error, RayActorError):
        return WorkerFailure(str(error)) if error else WorkerFailure()
    # unavailable: the worker's host stopped answering, which Ray notices long before it declares the node dead
    node_lost = error.preempted or isinstance(error, ActorUnavailableError) or NODE_DIED in error.error_msg
    return WorkerFailure(str(error), error.actor_id or "", node_lost, error.preempted)
