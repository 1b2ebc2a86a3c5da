"""Time saved by keeping freed memory in training processes: python -m benchmarks.freed_memory [--rounds 3] [--quick].

Trials of face super-resolution, whose tensors are large, alternate between processes with the variables that workers
have (WORKER_ENVIRONMENT in study/cluster/connection.py) and processes without those of glibc. A trial trains in a
thread, as it does in a worker. Its first epoch is a warm-up and does not count. Losses of both must be equal.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import click
import torch

from benchmarks.reporting import describe_machine, format_result, format_spread, format_table
from study.cluster.connection import WORKER_ENVIRONMENT
from study.trial import EpochResult, Trial, TrialContext
from trainables.data.synthetic.sr_faces import DrawnSrFaces
from trainables.losses.none import NoDistillation
from trainables.models.sr.small_sr import SmallSR
from trainables.tasks.face_sr.task import FaceSR
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine

FACES, EPOCHS = 104, 4
QUICK_FACES, QUICK_EPOCHS = 8, 2


def train_trial(faces: int, epochs: int) -> list[EpochResult]:
    """Train a student without distillation in a thread, and return its epochs."""
    recipe = Recipe(8, Cosine(2e-3), Adam())
    student = SmallSR(16)
    task = FaceSR(DrawnSrFaces(train=faces, val=2, test=2), Teacher(SmallSR(16, atoms=8), recipe, 1), recipe)
    rows: list[EpochResult] = []
    with tempfile.TemporaryDirectory(prefix="kdstudy-memory-") as folder:
        context = TrialContext(
            trial=Trial("search", student.name, "none", 0, 0, epochs, {}, {}),
            task=task,
            student=student,
            loss=NoDistillation(),
            recipe=recipe,
            checkpoint=Path(folder) / "checkpoint",
            storage=Path(folder),
            device="cpu",
            recorded_epochs=0,
            train_on="train",
            validate=False,
            test=False,
        )
        thread = threading.Thread(target=lambda: rows.extend(task.train(context)))
        thread.start()
        thread.join()
    return rows


def measure_child(faces: int, epochs: int, keeps: bool) -> tuple[float, float, list[float]]:
    """Train a trial in a process of its own; return seconds per epoch, the system's share of its time, and losses."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    added = {name: value for name, value in WORKER_ENVIRONMENT.items() if keeps or not name.startswith("MALLOC_")}
    words = [sys.executable, "-m", "benchmarks.freed_memory", "--child", str(faces), str(epochs)]
    done = subprocess.run(words, env=environment | added, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["system"], found["losses"]


def print_child(faces: int, epochs: int) -> None:
    """Print what `measure_child` reads."""
    torch.set_num_threads(1)
    rows = train_trial(faces, epochs)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = [row["seconds"] for row in rows[1:]]
    losses = [row["metrics"]["train/loss"] for row in rows]
    system = used.ru_stime / (used.ru_stime + used.ru_utime)
    print(json.dumps({"seconds": sum(seconds) / len(seconds), "system": system, "losses": losses}))


@click.command()
@click.option("--quick", is_flag=True, help="A short check with few faces.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Processes of each kind.")
@click.option("--child", nargs=2, type=int, hidden=True)
def main(quick: bool, rounds: int, child: tuple[int, int] | None) -> None:
    """Compare trials whose processes keep freed memory with trials whose processes give it back."""
    if child:
        print_child(*child)
        return
    rounds, faces, epochs = (1, QUICK_FACES, QUICK_EPOCHS) if quick else (rounds, FACES, EPOCHS)
    print("\n".join(describe_machine()), flush=True)
    DrawnSrFaces(train=faces, val=2, test=2).load()  # drawn once, and not in the first trial's time
    measured = [[measure_child(faces, epochs, keeps) for keeps in (False, True)] for _ in range(rounds)]
    given_back, kept = ([pair[index] for pair in measured] for index in (0, 1))
    rows = [["freed memory", "seconds per epoch", "the system's share, %"]]
    for name, trials in (("given back", given_back), ("kept", kept)):
        seconds, system = [trial[0] for trial in trials], [100 * trial[1] for trial in trials]
        rows.append([name, format_spread(seconds, 2), format_spread(system)])
    differences = sum(one[2] != other[2] for one, other in measured)
    ratios = [one[0] / other[0] for one, other in measured]
    print("\n" + format_table(rows) + "\n")
    print(format_result("freed_memory_speedup", ratios, "x"))
    print(format_result("freed_memory_differences", [differences], "differences"))


if __name__ == "__main__":
    main()
