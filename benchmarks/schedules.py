"""Schedules found during training against fixed ones: python -m benchmarks.schedules [--seeds 40] [--quick].

On a simulated task whose best settings move, and whose results depend on all settings since the first epoch, Tpe with
SuccessiveHalving searches start, end and stages of a staircase for each of two settings. The epochs after which it had
completed its best trial are then given to a population: as many members as they are whole runs. Each search chooses by
noisy validation scores; what it chose is then scored without noise, as a share of the best schedule's score. The best
x rises and falls, which no staircase follows; the best y falls steadily, as one staircase does.

Both run through the engine's own coordinator, without Ray. Nothing reads test data.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import optuna

from benchmarks.problems import EPOCHS, make_moving_study
from benchmarks.reporting import describe_machine, format_result, format_table
from benchmarks.search import train_trial
from study import Budget, PopulationBased, Study, SuccessiveHalving, Tpe
from study.engine.coordinator import Coordinator
from study.records.parquet_table import Records

TRIALS = 30
"""Runs that the search of fixed schedules may take."""
INTERVALS = (3, 1)
"""Epochs of an interval: a ninth of a run, and the shortest one."""
GOAL = 0.95
"""Share of the best schedule's score that counts as found."""


@dataclass(frozen=True)
class Found:
    """The choice of a search: its score without noise, and the epochs spent when its best trial was complete."""

    share: float
    epochs: int


def search_schedule(study: Study, arm: str, most_epochs: int) -> Found:
    """Search an arm until its search is done, or `most_epochs` epochs are spent; return the choice."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), study.task.metrics)
        coordinator = Coordinator(study, records, optuna.storages.InMemoryStorage(), [], {})
        coordinator.writer.flush_seconds = math.inf
        cell, spent, at_best, best = coordinator.cells[f"student / {arm}"], 0, 0, None
        search = cell.search
        while spent < most_epochs and not search.done and (run := coordinator.next_trial()) is not None:
            spent += train_trial(coordinator, run, Path(folder))
            if search.best_number != best:
                best, at_best = search.best_number, spent
        params = search.chosen_params if search.done else search.params[best or 0]
        return Found(cell.cell.configure(params or {}).loss.measure_run(EPOCHS), at_best)


def compare(seed: int, trials: int) -> dict[str, Found]:
    """Return the choices of Tpe with halving and, in at most as many epochs, of populations."""
    study, most = make_moving_study(seed), trials * EPOCHS
    plain, fixed, dynamic = study.arms
    budget = Budget(10 * trials, EPOCHS, 1)
    tuned = dataclasses.replace(study, arms=(plain, fixed), sampler=Tpe(), stopping=SuccessiveHalving(), budget=budget)
    found = {"fixed": search_schedule(tuned, "fixed", most)}
    members = Budget(max(2, found["fixed"].epochs // EPOCHS), EPOCHS, 1)
    for interval in INTERVALS:
        arm = dataclasses.replace(dynamic, search=PopulationBased(interval_epochs=interval))
        grown = dataclasses.replace(study, arms=(plain, arm), budget=members)
        chosen = search_schedule(grown, "dynamic", most)
        found[f"population_{interval}"] = dataclasses.replace(chosen, epochs=members.trials * EPOCHS)
    return found


def report(found: list[dict[str, Found]]) -> None:
    """Print medians and quartiles: a table, then RESULT lines for programs."""
    rows = [
        ["search", "share of the optimum: median (quartiles)", "within 5 %", "better than fixed", "epochs (median)"]
    ]
    results = []
    for name in found[0]:
        shares = [one[name].share for one in found]
        low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
        near = sum(share >= GOAL for share in shares)
        better = sum(one[name].share > one["fixed"].share for one in found)
        epochs = statistics.median(one[name].epochs for one in found)
        count = f"of {len(found)}"
        rows.append(
            [name, f"{middle:.3f} ({low:.3f}–{high:.3f})", f"{near} {count}", f"{better} {count}", f"{epochs:.0f}"]
        )
        results += [
            format_result(f"schedules_{name}_share", [middle], "x"),
            format_result(f"schedules_{name}_missed", [len(found) - near], "seeds"),
        ]
    print()
    print(format_table(rows))
    print(f"\ngoal     at least {GOAL:.2f} of the optimum\n")
    print("\n".join(results))


@click.command()
@click.option("--quick", is_flag=True, help="A short check: few seeds and trials.")
@click.option("--seeds", default=40, show_default=True, type=click.IntRange(min=2), help="Studies.")
@click.option("--trials", default=TRIALS, show_default=True, type=click.IntRange(min=2), help="Runs of a fixed search.")
def main(quick: bool, seeds: int, trials: int) -> None:
    """Compare a population's schedule with the best fixed one, found in as many epochs."""
    if quick:
        seeds, trials = 2, 4
    print("\n".join([*describe_machine(), f"search   {trials} runs of {EPOCHS} epochs, {seeds} studies"]), flush=True)
    report([compare(seed, trials) for seed in range(seeds)])


if __name__ == "__main__":
    main()
