"""The trials of a real study without the engine: python -m benchmarks.trials [--data-dir PATH] [--quick]. Needs no Ray.

Trains the teacher of `spaces/lp_cifar.py`, stores its outputs, then trains a confirm run of each arm as a study does; a
searched arm gets the settings that its search tries first. DKD is trained three times, and every number of the last two
runs must be equal. Uses CIFAR-10 with --data-dir, of which some training files may be missing, else scikit-learn's
digits.
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

from benchmarks.reporting import describe_machine, format_result, format_table
from study.arm import Arm
from study.space.domains import is_unresolved
from study.space_file import load_space
from study.study import Study
from study.task import Plan
from study.trial import EpochResult, Trial, TrialContext

SEED = 0
SPACE = Path(__file__).parents[1] / "spaces" / "lp_cifar.py"


def run_preparations(study: Study, folder: Path, device: str) -> list[list[str]]:
    """Run every preparation; return name and seconds of each."""
    task, plan, lines = study.task, Plan(((SEED, "train+val"),), study.budget.epochs), []
    while steps := task.list_preparations(folder, plan):
        step, started = min(steps, key=lambda step: step.stage), time.perf_counter()
        trial = Trial("prepare", "", step.name, 0, SEED, step.epochs, {}, step.config)
        list(task.prepare(_make_context(study, folder, device, trial, None, None)))
        lines.append([step.name, f"{time.perf_counter() - started:.1f}"])
    return lines


def train_confirm_run(study: Study, folder: Path, device: str, arm: Arm, name: str) -> list[EpochResult]:
    """Train a confirm run of an arm and return its epochs; `name` names the run."""
    loss = arm.first[0] if is_unresolved(arm.loss) else arm.loss
    student = study.students[0]
    trial = Trial("confirm", student.name, name, 0, SEED, study.budget.epochs, {}, {})
    return list(study.task.train(_make_context(study, folder, device, trial, student, loss)))


def _make_context(study: Study, folder: Path, device: str, trial: Trial, student: Any, loss: Any) -> TrialContext:
    confirm = trial.phase == "confirm"
    return TrialContext(
        trial=trial,
        task=study.task,
        student=student,
        loss=loss,
        recipe=study.task.recipe,
        checkpoint=folder / "checkpoints" / re.sub(r"\W+", "-", trial.arm),
        storage=folder,
        device=device,
        recorded_epochs=0,
        train_on="train+val" if confirm else "train",
        validate=not confirm,
        test=confirm,
    )


@click.command()
@click.option("--quick", is_flag=True, help="A short check: two epochs.")
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), help="The default is the GPU if there is one, else the CPU."
)
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), help="The folder of CIFAR-10.")
@click.option(
    "--epochs",
    default=10,
    show_default=True,
    type=click.IntRange(min=2),
    help="Epochs of each trial and of the teacher.",
)
def main(quick: bool, device: str | None, data_dir: Path | None, epochs: int) -> None:
    """Train the trials of spaces/lp_cifar.py without the engine."""
    device, epochs = device or ("cuda" if torch.cuda.is_available() else "cpu"), 2 if quick else epochs
    torch.set_num_threads(1)
    study = load_space(SPACE, "cifar10" if data_dir else "embedded", data_dir).study
    teacher = replace(study.task.teacher, epochs=epochs)  # type: ignore[attr-defined]
    study = replace(study, task=replace(study.task, teacher=teacher), budget=replace(study.budget, epochs=epochs))  # type: ignore[type-var]
    data = study.task.data.load()  # type: ignore[attr-defined]
    print("\n".join([*describe_machine(), f"device   {device}", f"data     {data.name}: {data.note or 'all'}"]))
    with tempfile.TemporaryDirectory(prefix="kdstudy-trials-") as temporary:
        folder = Path(temporary)
        print("\n" + format_table([["preparation", "seconds"], *run_preparations(study, folder, device)]), flush=True)
        _report(study, folder, device)


def _report(study: Study, folder: Path, device: str) -> None:
    rows_printed, results = [["arm", "test accuracy, %", "seconds per epoch"]], []
    for arm in study.arms:
        rows = train_confirm_run(study, folder, device, arm, arm.name)
        seconds, accuracy = [row["seconds"] for row in rows[1:]], 100 * rows[-1]["metrics"]["test/accuracy"]
        rows_printed.append([arm.name, f"{accuracy:.2f}", f"{sum(seconds) / len(seconds):.2f}"])
        name = f"{device}_{re.sub('[^a-z0-9]+', '_', arm.name.lower())}"
        results += [format_result(f"{name}_epoch", seconds, "s"), format_result(f"{name}_accuracy", [accuracy], "%")]
    one_run, other_run = (train_confirm_run(study, folder, device, study.arms[2], f"run {number}") for number in (1, 2))
    differences = sum(one["metrics"] != other["metrics"] for one, other in zip(one_run, other_run, strict=True))
    print("\n" + format_table(rows_printed))
    print(f"\n{study.arms[2].name} trained twice: {differences} of {len(one_run)} epochs differ\n")
    print("\n".join([*results, format_result(f"{device}_trial_differences", [differences], "differences")]))


if __name__ == "__main__":
    main()
