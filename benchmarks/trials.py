"""A real study's trials without the engine: python -m benchmarks.trials [--data-dir PATH] [--quick]. Needs no Ray.

Of `spaces/lp_cifar.py`: the teacher is trained, its outputs are stored, then a confirm run of each arm is trained, as a
study does it; where an arm is searched, with the settings its search tries first. DKD's is trained three times, and
every number of the last two must be the same. With --data-dir on CIFAR-10, of which some training files may be missing,
else on scikit-learn's digits.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.reporting import machine, result, table
from study.space_file import load_space
from study.study import Arm, Study
from study.task import Plan
from study.trial import EpochResult, Trial, TrialContext

SEED = 0
SPACE = Path(__file__).parents[1] / "spaces" / "lp_cifar.py"


def prepared(study: Study, folder: Path, device: str) -> list[list[str]]:
    """Do every preparation; returns a line of name and seconds for each."""
    task, plan, lines = study.task, Plan(((SEED, "train+val"),), study.budget.epochs), []
    while steps := task.list_preparations(folder, plan):
        step, started = min(steps, key=lambda step: step.stage), time.perf_counter()
        trial = Trial("prepare", "", step.name, 0, SEED, step.epochs, {}, step.config)
        list(task.prepare(_job(study, folder, device, trial, None, None)))
        lines.append([step.name, f"{time.perf_counter() - started:.1f}"])
    return lines


def confirm_run(study: Study, folder: Path, device: str, arm: Arm, name: str) -> list[EpochResult]:
    loss = arm.first[0] if arm.is_searched else arm.loss
    student = study.students[0]
    trial = Trial("confirm", student.name, name, 0, SEED, study.budget.epochs, {}, {})
    return list(study.task.train(_job(study, folder, device, trial, student, loss)))


def _job(study: Study, folder: Path, device: str, trial: Trial, student: Any, loss: Any) -> TrialContext:
    confirm = trial.phase == "confirm"
    return TrialContext(
        trial=trial,
        task=study.task,
        student=student,
        loss=loss,
        checkpoint=folder / "checkpoints" / re.sub(r"\W+", "-", trial.arm),
        storage=folder,
        device=device,
        recorded_epochs=0,
        train_on="train+val" if confirm else "train",
        validate=not confirm,
        test=confirm,
    )


@click.command()
@click.option("--quick", is_flag=True, help="A short run that shows that all works: two epochs.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="The GPU if there is one, else the processor.")
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), help="CIFAR-10.")
@click.option("--epochs", default=10, show_default=True, type=click.IntRange(min=2), help="Of each trial and teacher.")
def main(quick: bool, device: str | None, data_dir: Path | None, epochs: int) -> None:
    """Trials of spaces/lp_cifar.py, without the engine."""
    device, epochs = device or ("cuda" if torch.cuda.is_available() else "cpu"), 2 if quick else epochs
    torch.set_num_threads(1)
    study = load_space(SPACE, "cifar10" if data_dir else "embedded", data_dir).study
    teacher = replace(study.task.teacher, epochs=epochs)  # type: ignore[attr-defined]
    study = replace(study, task=replace(study.task, teacher=teacher), budget=replace(study.budget, epochs=epochs))  # type: ignore[type-var]
    data = study.task.data.load()  # type: ignore[attr-defined]
    print("\n".join([*machine(), f"device   {device}", f"data     {data.name}: {data.note or 'all'}"]))
    with tempfile.TemporaryDirectory(prefix="kdstudy-trials-") as temporary:
        folder = Path(temporary)
        print("\n" + table([["preparation", "seconds"], *prepared(study, folder, device)]), flush=True)
        _report(study, folder, device)


def _report(study: Study, folder: Path, device: str) -> None:
    shown, results = [["arm", "test accuracy, %", "seconds an epoch"]], []
    for arm in study.arms:
        rows = confirm_run(study, folder, device, arm, arm.name)
        seconds, accuracy = [row["seconds"] for row in rows[1:]], 100 * rows[-1]["metrics"]["test/accuracy"]
        shown.append([arm.name, f"{accuracy:.2f}", f"{sum(seconds) / len(seconds):.2f}"])
        name = f"{device}_{re.sub('[^a-z0-9]+', '_', arm.name.lower())}"
        results += [result(f"{name}_epoch", seconds, "s"), result(f"{name}_accuracy", [accuracy], "%")]
    first, again = (confirm_run(study, folder, device, study.arms[2], f"run {number}") for number in (1, 2))
    differences = sum(one["metrics"] != other["metrics"] for one, other in zip(first, again, strict=True))
    print("\n" + table(shown))
    print(f"\n{study.arms[2].name} trained twice: {differences} of {len(first)} epochs differ\n")
    print("\n".join([*results, result(f"{device}_trial_differences", [differences], "differences")]))


if __name__ == "__main__":
    main()
