"""Errors of Ray about workers, classified for the retry policy, with what their logs say of their end."""

from __future__ import annotations

import re
from pathlib import Path

from ray.exceptions import ActorUnavailableError, RayActorError

from study.execution.ray_internals import find_logs_folder
from study.execution.retries import WorkerFailure

NODE_DIED = "its node has died"
"""Words in Ray's error by which a lost node differs from a worker that died alone; Ray gives no other sign."""

LOG_BYTES, LOG_LINES = 20_000, 40
"""End of a worker's log that is read, and the part of it that is kept with the trial's traceback."""

SHOWN_LINES = 2
"""Last lines of a worker's stderr in the reason of a failure, which is one line."""

RAYS_OWN = re.compile(r":(job_id|actor_name|task_name):|\[[\d-]+ [\d:,]+ [A-Z] \d+ \d+\]|\*\*\* SIG|PC: @|\s+@\s")
"""Beginnings of the lines that Ray adds to a worker's stderr."""

NO_TRACE = "no trace of its end, as after SIGKILL, by which a system short of memory ends processes"


def to_worker_failure(error: Exception | None) -> WorkerFailure:
    """Classify the error of a worker: it died alone, or its node was lost."""
    if not isinstance(error, RayActorError):
        return WorkerFailure(str(error)) if error else WorkerFailure()
    # unavailable: the worker's host stopped answering, which Ray notices long before it declares the node dead
    node_lost = error.preempted or isinstance(error, ActorUnavailableError) or NODE_DIED in error.error_msg
    text = str(error) if node_lost or error.actor_init_failed else add_log(str(error))
    return WorkerFailure(text, error.actor_id or "", node_lost, error.preempted)


def add_log(message: str) -> str:
    """Return Ray's message with the end of the dead worker's stderr, and last a line that names signal and place.

    The message is unchanged if it names no process or the log is not on this node.
    """
    pid, folder = re.search(r"^\s*pid: (\d+)$", message, re.MULTILINE), find_logs_folder()
    logs = sorted(folder.glob(f"worker-*-{pid[1]}.err")) if pid and folder else []
    if not logs:
        return message
    lines = _read_end(logs[-1])
    return "\n".join([message, "The end of its stderr:", *lines[-LOG_LINES:], describe_death(lines)])


def describe_death(lines: list[str]) -> str:
    """Return a line that says how a process died, from the end of its stderr: the signal, the place, the last lines."""
    signals = re.findall(r"\*\*\* (SIG[A-Z0-9]+) received", "\n".join(lines))
    fatal = next((number for number, line in enumerate(lines) if line.startswith("Fatal Python error")), len(lines))
    frame = next((line.strip() for line in lines[fatal:] if line.startswith("  File ")), "")
    own = [line.strip() for line in lines[:fatal] if line.strip() and not RAYS_OWN.match(line)]
    end = f"{signals[-1]}{f' in {frame}' if frame else ''}" if signals else NO_TRACE
    return f"{end}; its stderr ends: {' | '.join(own[-SHOWN_LINES:])}" if own else end


def _read_end(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read().decode(errors="replace").splitlines()
