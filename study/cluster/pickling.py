"""The check that a study can be sent to workers: another process reads it, which has not run the space file."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

from ray import cloudpickle

from study.errors import InputError
from study.study import Study

READ = "import sys; from ray import cloudpickle; cloudpickle.loads(sys.stdin.buffer.read())"
SECONDS = 120.0
"""Time for a process to read a study: it imports torch, which takes a minute on a busy network disk."""


def check_pickling(study: Study, space: ModuleType) -> None:
    """Write a study as Ray would, and read it in a new process.

    Raises InputError naming what cannot be written or read.
    """
    cloudpickle.register_pickle_by_value(space)
    try:
        content = cloudpickle.dumps(study)
    except Exception as error:  # of any kind: it is a user's object that refuses
        raise InputError(_explain(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")) from error
    path = os.pathsep.join(filter(None, sys.path))  # as workers get it: with the space file's folder
    process = subprocess.run(
        [sys.executable, "-c", READ],
        input=content,
        capture_output=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if process.returncode:
        lines = process.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(_explain(lines[-1] if lines else f"exit code {process.returncode}"))


def _explain(problem: str) -> str:
    return (
        f"the study cannot be sent to workers ({problem}): put functions with a cache, locks and open files that its "
        "classes use into a module next to the space file, and import that"
    )
