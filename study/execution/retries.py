"""What it costs a trial to lose workers and nodes: nothing, up to bounds without which some studies would never end.

A trial goes on from its checkpoint, and an epoch later all is forgiven: a long one may lose many. Workers that die
again and again within an epoch are most likely killed by what they train. Nodes are lost for reasons of their own, and
spot nodes all the time; yet a trial that fills a node's memory may take the node with it, again and again.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

WORKER_RETRIES = 3
"""How often a trial is started again whose worker dies before it has told an epoch; then it has failed."""

NODE_LOSSES = 20
"""So many nodes lost under a trial before it has told an epoch are a failure, too. Announced ones do not count."""

REASON_CHARACTERS = 200


@dataclass(frozen=True)
class WorkerFailure:
    """The end of one worker, as Ray tells it."""

    text: str = "Ray gives no reason"
    actor: str = ""
    """Ray's name of it: Tune may tell of one death twice."""
    of_node: bool = False
    """The worker is gone because its node is."""
    announced: bool = False
    """The node was known to go: a spot node that is taken back."""

    @property
    def reason(self) -> str:
        """The last line, in which Ray says what happened."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return textwrap.shorten(lines[-1], REASON_CHARACTERS, placeholder=" …") if lines else WorkerFailure.text


class RetryPolicy:
    """The deaths under each trial since it last told an epoch."""

    def __init__(self) -> None:
        self._deaths: dict[str, list[WorkerFailure]] = {}
        self._given_up: dict[str, int] = {}

    def add(self, trial_id: str, death: WorkerFailure) -> None:
        deaths = self._deaths.setdefault(trial_id, [])
        if not death.announced and not (death.actor and death.actor in {other.actor for other in deaths}):
            deaths.append(death)

    def given_up(self, trial_id: str) -> None:
        """Tune starts the trial again no more: that may be after a single death, and is bounded by itself."""
        self._given_up[trial_id] = self._given_up.get(trial_id, 0) + 1

    def reset(self, trial_id: str) -> None:
        """The trial got further."""
        self._deaths.pop(trial_id, None)
        self._given_up.pop(trial_id, None)

    def text(self, trial_id: str) -> str:
        """All that Ray said of the last one."""
        deaths = self._deaths.get(trial_id)
        return deaths[-1].text if deaths else WorkerFailure.text

    def failure(self, trial_id: str) -> str:
        """Why the trial has failed by its deaths; empty if it is to be started again."""
        deaths = self._deaths.get(trial_id, [])
        nodes = [death for death in deaths if death.of_node]
        workers = [death for death in deaths if not death.of_node]
        if len(workers) > WORKER_RETRIES:
            return f"its worker died {len(workers)} times without an epoch, last with {workers[-1].reason}"
        if len(nodes) >= NODE_LOSSES:
            return f"its node was lost {len(nodes)} times without an epoch, last with {nodes[-1].reason}"
        if self._given_up.get(trial_id, 0) >= NODE_LOSSES:
            reason = WorkerFailure(self.text(trial_id)).reason
            return f"it was given up {NODE_LOSSES} times without an epoch, last with {reason}"
        return ""
