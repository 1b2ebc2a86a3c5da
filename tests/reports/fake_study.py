"""A small study's folder, written through study.records: what the engine would have left behind."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from study import choice, integer, log_uniform, uniform
from study.records.columns import find_setting_columns
from study.records.parquet_table import Records
from study.records.study_json import write_study

SETTINGS = {
    "logits.prune.end": uniform(0.05, 0.6),
    "logits.prune.stages": integer(2, 6),
    "logits.prune.shape": choice("linear", "cosine"),
    "logits.temperature": log_uniform(1, 20),
}
METRICS = {"train/loss": "min", "train/accuracy": "max", "val/accuracy": "max", "test/accuracy": "max"}
CODE = "c0de" * 4
EPOCHS, TRIALS, SEEDS = 8, 16, 8
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)

NONE = [0.9110, 0.9155, 0.9088, 0.9132, 0.9099, 0.9143, 0.9121, 0.9077]
DKD = [0.9421, 0.9399, 0.9443, 0.9410, 0.9432, 0.9388, 0.9454, 0.9421]
SEARCHED = [0.9466, 0.9388, 0.9477, 0.9421, 0.9410, 0.9432, 0.9443, 0.9466]
"""Test accuracy of the three arms by seed index: DKD clearly beats none, the searched arm and DKD are close."""


class Writer:
    """Builds a study's folder; every part can be changed before `write`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.students = ["resnet8"]
        self.arms = {"none": NONE, "DKD": DKD, "DKD + LP searched": SEARCHED}
        self.versus: dict[str, list[str]] = {"none": [], "DKD": ["none"], "DKD + LP searched": ["DKD"]}
        self.margins: dict[str, float] = {}
        self.published: dict[str, str | None] = {"DKD": "dkd", "DKD + LP searched": "dkd+lp"}
        self.searched = {"DKD + LP searched"}
        self.study: dict[str, Any] = copy.deepcopy(STUDY) | {"name": folder.name}
        self.code: Callable[[str, str, str, int], str] = lambda student, arm, phase, number: CODE
        """The version of the code of a trial, by its student, arm, phase and number."""
        self.typed_settings = True
        """Write each setting to a column of its own, as since version 0.2."""
        self.trials: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []

    def fill(self) -> Writer:
        """Rows of the teacher, of each search with pruned and failed trials, and of every confirm run."""
        self._trial("resnet20", "teacher", "prepare", 0, "COMPLETE", EPOCHS, {"test/accuracy": 0.9699}, {})
        for student in self.students:
            for arm, scores in self.arms.items():
                if arm in self.searched:
                    self._search(student, arm)
                for number, score in enumerate(scores):
                    self._trial(student, arm, "confirm", number, "COMPLETE", EPOCHS, {"test/accuracy": score}, {})
        return self

    def write(self) -> Path:
        self.study["cells"] = [self._cell(student, arm) for student in self.students for arm in self.arms]
        records = Records(self.folder, METRICS, find_setting_columns([SETTINGS]) if self.typed_settings else None)
        for row in self.epochs:
            records.epochs.append(row)
        for row in self.trials:
            records.add_trial(row, json.loads(row["params"]))
        records.flush()
        write_study(self.folder, self.study)
        return self.folder

    def _search(self, student: str, arm: str) -> None:
        for number in range(TRIALS):
            params = {"logits.prune.end": 0.05 + 0.035 * (number % 16), "logits.prune.stages": 2 + number % 5}
            params |= {
                "logits.temperature": 10 ** (0.08 * (number % 16)),
                "logits.prune.shape": "linear" if number % 3 else "cosine",
            }
            state = "FAILED" if number in (4, 11) else "PRUNED" if number % 3 == 1 else "COMPLETE"
            done = {"FAILED": 3, "PRUNED": 4, "COMPLETE": EPOCHS}[state]
            score = (0.94 - 0.3 * (params["logits.prune.end"] - 0.35) ** 2) * (0.86 if state == "PRUNED" else 1)
            metrics = {} if state == "FAILED" else {"val/accuracy": score}
            self._trial(student, arm, "search", number, state, done, metrics, params)

    def _trial(
        self,
        student: str,
        arm: str,
        phase: str,
        number: int,
        state: str,
        done: int,
        metrics: dict[str, float],
        params: Any,
    ) -> None:
        cell, trial_id = f"{student} / {arm}", f"{phase[0]}{len(self.trials):011d}"
        started = START + timedelta(seconds=6 * len(self.trials))
        reason = {"FAILED": "the loss is not finite in epoch 3", "PRUNED": "rung 4: below the best third"}.get(state)
        row = {"trial_id": trial_id, "cell": cell, "student": student, "arm": arm, "phase": phase, "number": number}
        row |= {"seed": 1000 + number, "state": state, "reason": reason, "epochs": EPOCHS, "epochs_done": done}
        row |= {"params": json.dumps(params), "config": "{}", "seconds": 0.7 * done, "started": started}
        row |= {
            "ended": started + timedelta(seconds=0.7 * done),
            "worker": "w0",
            "device": "cpu",
            "cpus": 1.0,
            "gpus": 0.0,
            "code": self.code(student, arm, phase, number),
        }
        self.trials.append(row | metrics)
        for epoch in range(1, done + 1):
            self._epoch(trial_id, cell, phase, epoch, number, done, metrics)

    def _epoch(
        self, trial_id: str, cell: str, phase: str, epoch: int, number: int, done: int, metrics: dict[str, float]
    ) -> None:
        rise = 1 - 0.75 * math.exp(-epoch / 2) + 0.004 * math.sin(number + epoch)
        final = next(iter(metrics.values()), 0.85)
        measured = {"train/loss": 2.3 * math.exp(-epoch / 3), "train/accuracy": min(1.0, 1.02 * final * rise)}
        if phase == "search":
            measured["val/accuracy"] = final if epoch == done and metrics else final * rise
        elif epoch == done:
            measured |= metrics
        schedules = {"learning_rate": 0.1 * 0.5 ** (epoch // 3), "logits.prune": 0.1 * ((epoch - 1) // 2)}
        row = {"trial_id": trial_id, "cell": cell, "phase": phase, "epoch": epoch, "seconds": 0.7, "recorded": START}
        self.epochs.append(row | {"schedules": json.dumps(schedules)} | measured)

    def _cell(self, student: str, arm: str) -> dict[str, Any]:
        parameters = ["logits.prune.end", "logits.prune.stages", "logits.prune.shape", "logits.temperature"]
        return {
            "cell": f"{student} / {arm}",
            "student": student,
            "arm": arm,
            "baseline": arm not in self.searched,
            "versus": self.versus.get(arm, []),
            "margin": self.margins.get(arm),
            "searched": arm in self.searched,
            "published": self.published.get(arm),
            "parameters": parameters if arm in self.searched else [],
        }


STUDY: dict[str, Any] = {
    "schema": 2,
    "question": "Does searching the schedule of logits pruning improve on DKD?",
    "finished": True,
    "metric": "val/accuracy",
    "test_metric": "test/accuracy",
    "direction": "max",
    "objectives": [],
    "constraints": {},
    "warm_start": {},
    "metrics": METRICS,
    "prediction": "class logits (B, K)",
    "confirm_on": "train+val",
    "test": "sign-flip",
    "net_comparisons": [],
    "protocol": "",
    "assumptions": ["LP: p % of all K classes, rounded down."],
    "seed": 0,
    "budget": {"is": "Budget", "trials": TRIALS, "epochs": EPOCHS, "seeds": SEEDS},
    "inputs": {
        "data": {
            "name": "digits (scikit-learn), 8×8 grey, 10 classes",
            "fingerprint": "5f1c0a9be2d34471",
            "train": 300,
            "val": 60,
            "test": 899,
            "classes": 10,
        }
    },
    "teacher": {
        "name": "resnet20",
        "parameters": 272474,
        "source": "trained here",
        "metrics": {"test/accuracy": 0.9699},
        "fingerprint": "9d2e6c11aa07f3b5",
    },
    "students": {"resnet8": {"parameters": 78042}, "resnet20": {"parameters": 272474}},
    "study": {
        "is": "Study",
        "name": "fake",
        "task": {"is": "Digits", "train_samples": 300, "views": {"is": "CropFlip", "padding": 1}},
        "arms": [
            {"is": "Arm", "name": "none", "loss": {"is": "NoDistillation"}, "baseline": True},
            {"is": "Arm", "name": "DKD", "loss": {"is": "DKD", "alpha": 1.0, "beta": 8.0, "temperature": 4.0}},
            {
                "is": "Arm",
                "name": "DKD + LP searched",
                "loss": {
                    "is": "DKD",
                    "logits": {
                        "is": "LogitsPruning",
                        "temperature": {"is": "Uniform", "low": 1.0, "high": 20.0, "log": True},
                        "prune": {
                            "is": "Stages",
                            "start": 0.0,
                            "end": {"is": "Uniform", "low": 0.05, "high": 0.6, "log": False},
                            "stages": {"is": "Integer", "low": 2, "high": 6, "log": False},
                            "shape": {"is": "Choice", "labels": ["linear", "cosine"], "options": ["linear", "cosine"]},
                        },
                    },
                },
            },
        ],
        "sampler": {"is": "Tpe", "startup_trials": 6},
        "stopping": {"is": "SuccessiveHalving", "keep": 0.33, "first_epochs": 4},
    },
    "provenance": {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": True,
        "versions": {"torch": "2.9.0", "ray": "2.60.0", "optuna": "5.0.0"},
        "machine": {"cpu": "x86_64", "cores": 2, "memory_gb": 8, "gpus": []},
        "command": "python -m study.run spaces/lp_cifar.py",
        "created": "2026-01-05T09:00:00+00:00",
        "updated": "2026-01-05T09:02:00+00:00",
    },
    "code": {CODE: {"space file": "ab" * 8, "trainables/distill.py": "cd" * 8}},
    "space": {"path": "spaces/lp_cifar.py", "profile": "embedded", "source": '"""A question?"""\nstudy = Study(...)\n'},
}
