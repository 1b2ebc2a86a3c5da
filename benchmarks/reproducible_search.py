"""The price of a reproducible search: python -m benchmarks.reproducible_search [--quick]. Needs no Ray.

Studies of simulated trials of 27 epochs, whose epochs differ in length by a factor of 1.6 (standard deviation of the
logarithm 0.5), run through the engine's own coordinator against a simulated clock, with Tpe and SuccessiveHalving. For
each number of searched cells and of places, the duration and the epochs of `reproducible_search=k` are given as a share
of those of the plain search of the same seed, and the score of the chosen settings as a difference.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import optuna

from benchmarks.reporting import describe_machine, format_result, format_table
from benchmarks.search import make_context
from study import Arm, Budget, Study, uniform
from study.engine.coordinator import Coordinator
from study.records.parquet_table import Records
from study.records.rows import RunningTrial
from study.trial import EpochResult
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent

EPOCHS, TRIALS, SPREAD = 27, 24, 0.5
COUNTS = (1, 2, 4, 8)
LOSS = SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), needs_teacher=False)
Figures = tuple[float, float, float]
"""Duration, epochs, and mean score of the chosen settings over the cells."""


def make_study(cells: int, seed: int) -> Study:
    plain = Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True)
    return Study(
        name="simulated",
        question="How long does a reproducible search take?",
        task=Simulated(teacher_epochs=0, noise=0.02, checkpoints=False),
        students=(SimulatedStudent(),),
        arms=(plain, *(Arm(f"searched {number}", LOSS) for number in range(cells))),
        budget=Budget(TRIALS, EPOCHS, 5),
        seed=seed,
    )


def run_study(study: Study, places: int, seed: int) -> Figures:
    """Run a study to its end against a simulated clock; the mean epoch takes one unit of time."""
    rng, order, now, epochs = random.Random(seed), itertools.count(), 0.0, 0
    running: list[tuple[float, int, float, RunningTrial, Iterator[EpochResult]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, storage = Path(name), optuna.storages.InMemoryStorage()
        coordinator = Coordinator(study, Records(folder, study.task.metrics), storage, [], {}, flush_seconds=math.inf)
        while True:
            while len(running) < places and (run := coordinator.next_trial()) is not None:
                seconds = rng.lognormvariate(-(SPREAD**2) / 2, SPREAD)
                results = iter(study.task.train(make_context(study, run, folder)))
                heapq.heappush(running, (now + seconds, next(order), seconds, run, results))
            if not running:
                break
            now, number, seconds, run, results = heapq.heappop(running)
            epochs += 1
            if not coordinator.report(run.trial.id, next(results), ""):
                heapq.heappush(running, (now + seconds, number, seconds, run, results))
    return now, float(epochs), _compute_score(study, coordinator)


def _compute_score(study: Study, coordinator: Coordinator) -> float:
    """Return the mean limit of accuracy of the cells' chosen settings, without noise."""
    chosen = [(name, cell.search.chosen_params) for name, cell in coordinator.cells.items() if cell.search.trials]
    return statistics.mean(float(study.find_cell(name).configure(params or {}).loss.score) for name, params in chosen)


def measure_price(cells: int, places: int, count: int, seeds: int) -> Figures:
    """Return the medians over seeds: share of the duration, share of the epochs, difference in score."""
    found = []
    for seed in range(seeds):
        study = make_study(cells, seed)
        duration, epochs, score = run_study(study, places, seed)
        other = run_study(replace(study, reproducible_search=count), places, seed)
        found.append((other[0] / duration, other[1] / epochs, other[2] - score))
    first, second, third = (statistics.median(column) for column in zip(*found, strict=True))
    return first, second, third


@click.command()
@click.option("--quick", is_flag=True, help="A short check: one study.")
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(min=1), help="Studies per row.")
def main(quick: bool, seeds: int) -> None:
    """Measure what `reproducible_search` costs."""
    print("\n".join(describe_machine()), flush=True)
    cases = [(1, 2, 2)] if quick else list(itertools.product((1, 3), (2, 4, 8), COUNTS))
    rows, results = [["searched cells", "places", "k", "duration", "epochs", "score"]], []
    for cells, places, count in cases:
        duration, epochs, score = measure_price(cells, places, count, 1 if quick else seeds)
        rows.append([str(cells), str(places), str(count), f"{duration:.2f}", f"{epochs:.2f}", f"{score:+.4f}"])
        results.append(format_result(f"cells{cells}_places{places}_k{count}_duration", [duration], "x"))
    print("\n" + format_table(rows) + "\n\n" + "\n".join(results))


if __name__ == "__main__":
    main()
