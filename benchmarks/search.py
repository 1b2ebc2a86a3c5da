"""The cost of a search: python -m benchmarks.search [--quick].

Plain random search without stopping trains 30 trials to their last epoch; its best validation score is the target. Then
Tpe with SuccessiveHalving searches the same space from the same study seed, one trial at a time, until a completed
trial scores at least as well. The cost is the number of epochs spent by then, including those of stopped trials, as a
share of the random search's epochs. The search may spend as many epochs as the random search; if it does not reach the
target by then, its cost counts as 1, and it is listed as not reached.

Both run through the engine's own coordinator, without Ray. Problems are in problems.py. Nothing reads test data.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import optuna
import torch

from benchmarks.problems import EPOCHS, PROBLEMS
from benchmarks.reporting import describe_machine, format_result, format_table
from study import Budget, Never, Random, Study, SuccessiveHalving, Tpe
from study.engine.coordinator import Coordinator
from study.execution.worker_context import WorkerContext
from study.records.parquet_table import Records
from study.records.paths import StudyPaths
from study.records.rows import RunningTrial
from study.trial import TrialContext

TRIALS = 30
"""Trials of the random search."""
GOAL = 1 / 3
"""The largest share of the random search's epochs that the median may take."""


def measure_cost(problem: str, seed: int, trials: int) -> float:
    """Return the epochs until the target is reached, as a share of the random search's; inf if it is not reached."""
    study, most = PROBLEMS[problem](seed), trials * EPOCHS
    budget = Budget(most, EPOCHS, 1)  # the epochs end first
    plain = dataclasses.replace(study, sampler=Random(), stopping=Never(), budget=budget)
    target = max(score for _, score in run_search(plain, most))
    searched = dataclasses.replace(study, sampler=Tpe(), stopping=SuccessiveHalving(), budget=budget)
    spent = next((spent for spent, score in run_search(searched, most) if score >= target), math.inf)
    return spent / most if spent <= most else math.inf


def run_search(study: Study, most_epochs: int) -> Iterator[tuple[int, float]]:
    """Search until `most_epochs` epochs are spent; yield the epochs spent and the score at each completed trial."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), study.task.metrics)
        coordinator = Coordinator(study, records, optuna.storages.InMemoryStorage(), [], {})
        coordinator.writer.flush_seconds = math.inf  # no resume, so no need to write rows
        spent = 0
        while spent < most_epochs and (run := coordinator.next_trial()) is not None and run.trial.phase == "search":
            spent += train_trial(coordinator, run, Path(folder))
            if run.epochs_done == run.trial.epochs:
                yield spent, run.metrics[study.metric]


def train_trial(coordinator: Coordinator, run: RunningTrial, folder: Path) -> int:
    """Train a trial, from a copy of its parent's checkpoint if it has one, until it ends; return its epochs."""
    study = coordinator.study
    context = make_context(study, run, folder)
    WorkerContext(folder, folder).inherit_checkpoint(context)
    for row in study.task.train(context):
        if coordinator.report(run.trial.id, row, ""):
            break
    return run.epochs_done


def make_context(study: Study, run: RunningTrial, folder: Path) -> TrialContext:
    trial = run.trial
    configuration = study.find_cell(trial.cell).configure(trial.params)
    return TrialContext(
        trial=trial,
        task=study.task,
        student=configuration.student,
        loss=configuration.loss,
        recipe=configuration.recipe,
        checkpoint=StudyPaths(folder).checkpoint(trial.id),
        storage=folder,
        device="cpu",
        recorded_epochs=run.epoch,
        train_on="train",
        validate=True,
        test=False,
    )


# -- the command -------------------------------------------------------------------------------------------------------


def report(costs: dict[str, list[float]]) -> None:
    """Print medians and quartiles: a table, then RESULT lines for programs."""
    rows = [["problem", "seeds", "epochs against random search's: median (quartiles)", "not reached"]]
    results = []
    for problem, found in costs.items():
        shares = [min(share, 1.0) for share in found]
        low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
        missed = sum(math.isinf(share) for share in found)
        rows.append([problem, str(len(found)), f"{middle:.2f} ({low:.2f}–{high:.2f})", f"{missed} of {len(found)}"])
        results += [
            format_result(f"{problem}_epochs_share", [middle], "x"),
            format_result(f"{problem}_lower_quartile", [low], "x"),
        ]
        results += [
            format_result(f"{problem}_upper_quartile", [high], "x"),
            format_result(f"{problem}_missed", [missed], "seeds"),
        ]
    print()
    print(format_table(rows))
    print(f"\ngoal     at most {GOAL:.2f} of the epochs (median); a seed that misses the target counts as 1\n")
    print("\n".join(results))


def _measure_cost(task: tuple[str, int, int]) -> float:
    torch.set_num_threads(1)
    return measure_cost(*task)


@click.command()
@click.option("--quick", is_flag=True, help="A short check: few seeds and trials.")
@click.option("--seeds", default=40, show_default=True, type=click.IntRange(min=2), help="Studies per problem.")
@click.option(
    "--trials", default=TRIALS, show_default=True, type=click.IntRange(min=2), help="Trials of the random search."
)
def main(quick: bool, seeds: int, trials: int) -> None:
    """Measure the epochs until Tpe with SuccessiveHalving is as good as plain random search."""
    if quick:
        seeds, trials = 2, 4
    print(
        "\n".join(
            [*describe_machine(), f"search   {trials} random trials of {EPOCHS} epochs, {seeds} studies per problem"]
        )
    )
    tasks = {problem: [(problem, seed, trials) for seed in range(seeds)] for problem in PROBLEMS}
    if quick:  # starting processes would take longer than the search
        report({problem: list(map(_measure_cost, listed)) for problem, listed in tasks.items()})
        return
    with multiprocessing.get_context("spawn").Pool() as pool:  # a forked process hangs in torch's threads
        report({problem: pool.map(_measure_cost, listed, chunksize=1) for problem, listed in tasks.items()})


if __name__ == "__main__":
    main()
