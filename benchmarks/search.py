"""What a search costs: python -m benchmarks.search [--quick].

Plain random search without stopping trains 30 trials to their last epoch; its best validation score is the mark. Then
Tpe with SuccessiveHalving searches the same space from the same study seed, one trial at a time, until a trial that
completed scores at least as well. What counts is the epochs it has spent by then, stopped trials' among them, over the
epochs of the random search. It may spend as many as that; if it does not get there it counts as 1, and is counted.

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
from benchmarks.reporting import machine, result, table
from study import Budget, Never, Random, Study, SuccessiveHalving, Tpe
from study.engine.coordinator import Coordinator
from study.records.rows import RunningTrial
from study.records.segments import Records
from study.space.domains import resolve_params
from study.trial import TrialContext

TRIALS = 30
"""Of the random search."""
GOAL = 1 / 3


def cost(problem: str, seed: int, trials: int) -> float:
    """Epochs until the mark is reached, as a share of the random search's; infinite if it is not reached by 1."""
    study, most = PROBLEMS[problem](seed), trials * EPOCHS
    budget = Budget(most, EPOCHS, 1)  # more trials than there are epochs for
    plain = dataclasses.replace(study, sampler=Random(), stopping=Never(), budget=budget)
    mark = max(score for _, score in completed(plain, most))
    searched = dataclasses.replace(study, sampler=Tpe(), stopping=SuccessiveHalving(), budget=budget)
    spent = next((spent for spent, score in completed(searched, most) if score >= mark), math.inf)
    return spent / most if spent <= most else math.inf


def completed(study: Study, most_epochs: int) -> Iterator[tuple[int, float]]:
    """Search until so many epochs are spent: of each trial that completes, the epochs spent by then and its score."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), study.task.metrics)
        coordinator = Coordinator(study, records, optuna.storages.InMemoryStorage(), [], {})
        coordinator.writer.flush_seconds = math.inf  # nothing is to be resumed
        spent = 0
        while spent < most_epochs and (run := coordinator.next_trial()) is not None and run.trial.phase == "search":
            for row in study.task.train(_job(study, run, Path(folder))):
                spent += 1
                if coordinator.report(run.trial.id, row, ""):
                    break
            if run.epochs_done == run.trial.epochs:
                yield spent, run.metrics[study.metric]


def _job(study: Study, run: RunningTrial, folder: Path) -> TrialContext:
    trial = run.trial
    return TrialContext(
        trial=trial,
        task=study.task,
        student=study.find_student(trial.student),
        loss=resolve_params(study.find_arm(trial.arm).loss, trial.params),
        checkpoint=folder / trial.id,
        storage=folder,
        device="cpu",
        recorded_epochs=0,
        train_on="train",
        validate=True,
        test=False,
    )


# -- the command -------------------------------------------------------------------------------------------------------


def report(costs: dict[str, list[float]]) -> None:
    """Print medians and quartiles: a table, then lines to be read by programs."""
    rows = [["problem", "seeds", "epochs against random search's: median (quartiles)", "not reached"]]
    results = []
    for problem, found in costs.items():
        shares = [min(share, 1.0) for share in found]
        low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
        missed = sum(math.isinf(share) for share in found)
        rows.append([problem, str(len(found)), f"{middle:.2f} ({low:.2f}–{high:.2f})", f"{missed} of {len(found)}"])
        results += [result(f"{problem}_epochs_share", [middle], "x"), result(f"{problem}_lower_quartile", [low], "x")]
        results += [result(f"{problem}_upper_quartile", [high], "x"), result(f"{problem}_missed", [missed], "seeds")]
    print()
    print(table(rows))
    print(f"\ngoal     at most {GOAL:.2f} of the epochs, by the median; a seed that does not get there counts as 1\n")
    print("\n".join(results))


def _cost(task: tuple[str, int, int]) -> float:
    torch.set_num_threads(1)
    return cost(*task)


@click.command()
@click.option("--quick", is_flag=True, help="A short run that shows that all works: few seeds and trials.")
@click.option("--seeds", default=40, show_default=True, type=click.IntRange(min=2), help="Studies per problem.")
@click.option("--trials", default=TRIALS, show_default=True, type=click.IntRange(min=2), help="Of the random search.")
def main(quick: bool, seeds: int, trials: int) -> None:
    """Epochs until Tpe with SuccessiveHalving is as good as plain random search."""
    if quick:
        seeds, trials = 2, 8
    print("\n".join([*machine(), f"search   {trials} random trials of {EPOCHS} epochs, {seeds} studies a problem"]))
    tasks = {problem: [(problem, seed, trials) for seed in range(seeds)] for problem in PROBLEMS}
    if quick:  # processes of its own would take longer to start than to search
        report({problem: list(map(_cost, listed)) for problem, listed in tasks.items()})
        return
    with multiprocessing.get_context("spawn").Pool() as pool:  # a forked process hangs in torch's threads
        report({problem: pool.map(_cost, listed, chunksize=1) for problem, listed in tasks.items()})


if __name__ == "__main__":
    main()
