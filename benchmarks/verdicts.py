"""Are verdicts right as often as they promise? python -m benchmarks.verdicts [--quick].

Studies are simulated, not trained: each arm's test metric is a level, plus what its seed does to all arms alike, plus
noise of its own. They go through the report's own comparison, from rows of confirm runs to verdicts; only the rows are
made up.

Null studies have no effect at all: arms are compared with one control, whose noise they share. Every verdict is wrong,
and at most 5 % of the studies may show any. This is promised where differences are symmetric about zero, which equal
noise in both arms gives, however skewed; "skewed arms, quiet control" breaks it on purpose. Planted studies have one
arm with an effect, given in standard deviations of its paired differences, and as many seeds as `seeds_needed` asks
for; beside them stands what the paired t test would have promised. Coverage is how often an interval holds the true
mean.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.reporting import machine, result, table
from reports.analysis import statistics
from reports.analysis.comparison import Comparison, compare_arms
from reports.load import StudyRecords

SEED_SD, NOISE_SD = 0.01, 0.005
"""What a seed does to all arms alike, and to each by itself."""
DIFFERENCE_SD = math.sqrt(2) * NOISE_SD
QUICK_STUDIES, MANY = 12, 20
"""In a short run; and by how many more null studies are looked at in the short way."""

Draw = Callable[[np.random.Generator, int, int], NDArray[np.float64]]
"""Noise with mean 0 and standard deviation 1, by arm and seed; the control is the first."""


@dataclass(frozen=True)
class Design:
    """A study to be simulated; with an `effect`, in sd of paired differences, on its first arm after the control."""

    name: str
    noise: str
    arms: int
    """Compared with the control."""
    seeds: int
    effect: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What one simulated study said: whether the planted effect was found, and verdicts on arms without an effect."""

    found: bool
    wrong: int


def normal(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    return rng.normal(size=(arms, seeds))


def skewed(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Most runs a little above the mean, a few far below it, as training runs are."""
    return 1.0 - rng.exponential(size=(arms, seeds))


def quiet_control(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Skewed, with a control that hardly varies: differences then are as skewed as the arms."""
    return skewed(rng, arms, seeds) * np.where(np.arange(arms) == 0, 0.1, 1.0)[:, None]


NOISES: dict[str, Draw] = {"normal": normal, "skewed": skewed, "skewed arms, quiet control": quiet_control}
NULLS = tuple(
    Design(f"null_{name}_{arms}", noise, arms, seeds)
    for name, noise in (("normal", "normal"), ("skewed", "skewed"), ("quiet", "skewed arms, quiet control"))
    for arms, seeds in ((3, 8), (6, 10))
)


def planted() -> Iterable[Design]:
    """Large to moderate effects, alone and among six comparisons, with the seeds that are said to be needed."""
    for arms in (1, 6):
        for effect in (2.0, 1.6, 1.3, 1.0, 0.7):
            needed = statistics.seeds_needed(effect, 1.0, arms)
            assert needed is not None
            yield Design(f"planted_{effect}_{arms}".replace(".", ""), "normal", arms, needed, effect)


def simulate(design: Design, number: int) -> Comparison:
    """One study through the report's comparison, as if its confirm runs had been recorded."""
    arms = ["control", *(f"arm {i}" for i in range(1, design.arms + 1))]
    (comparison,) = compare_arms(_records(arms, _values(design, number)))
    return comparison


def _values(design: Design, number: int) -> NDArray[np.float64]:
    """The test metric by arm and seed."""
    rng = np.random.default_rng([number, *design.name.encode()])
    values = 0.9 + SEED_SD * rng.normal(size=design.seeds)
    values = values + NOISE_SD * NOISES[design.noise](rng, design.arms + 1, design.seeds)
    values[1] += design.effect * DIFFERENCE_SD
    return values


def _records(arms: list[str], values: NDArray[np.float64]) -> StudyRecords:
    cells = [
        {"cell": arm, "student": "student", "arm": arm, "versus": "control" if arm != "control" else None}
        for arm in arms
    ]
    study = {"metric": "val/accuracy", "direction": "max", "cells": cells, "budget": {"seeds": values.shape[1]}}
    trials = pd.DataFrame(
        {
            "cell": np.repeat(arms, values.shape[1]),
            "phase": "confirm",
            "state": "COMPLETE",
            "number": np.tile(np.arange(values.shape[1]), len(arms)),
            "seed": np.tile(np.arange(values.shape[1]), len(arms)),
            "test/accuracy": values.ravel(),
        }
    )
    return StudyRecords(Path(), study, trials, pd.DataFrame())


def look(task: tuple[Design, int]) -> Seen:
    """Simulate one study and count its verdicts."""
    design, number = task
    verdicts = [row.verdict for row in simulate(design, number).rows if row.versus]
    nulls = verdicts[1:] if design.effect else verdicts
    return Seen(found=bool(design.effect) and verdicts[0] == "better", wrong=len(nulls) - nulls.count("undecided"))


def wrong_studies(task: tuple[Design, int]) -> list[bool]:
    """Which null studies show any verdict, by test and correction alone: intervals take nearly all of the time."""
    design, studies = task
    found = []
    for number in range(studies):
        control, *others = _values(design, number)
        p_values = statistics.adjust_by_holm([statistics.compute_sign_flip_p(values - control) for values in others])
        found.append(min(p_values) <= statistics.LEVEL)
    return found


def coverage(task: tuple[str, int, int]) -> tuple[float, float]:
    """How often the BCa and the t interval of so many values hold their true mean, 0."""
    noise, n, studies = task
    rng = np.random.default_rng([n, studies])
    draws = NOISES[noise](rng, studies, n)
    bca = [_holds(statistics.compute_bca_interval(x)) for x in draws]
    return float(np.mean(bca)), float(np.mean([_holds(statistics.compute_mean(x).interval) for x in draws.tolist()]))


def _holds(interval: statistics.Interval | None) -> bool:
    return interval is not None and interval.low <= 0 <= interval.high


# -- the command -------------------------------------------------------------------------------------------------------


def report_nulls(seen: dict[Design, list[Seen]], many: dict[Design, list[bool]]) -> list[str]:
    """Print how often null studies are wrong, and return the lines for programs."""
    count = len(next(iter(many.values())))
    head = ["null studies: noise", "arms", "seeds", "any wrong verdict, % of studies", "% of verdicts"]
    rows, results = [[*head, f"% of {count} studies"]], []
    for design, studies in seen.items():
        if [study.wrong > 0 for study in studies] != many[design][: len(studies)]:
            raise click.ClickException(f"{design.name}: the short way does not give the report's verdicts")
        wrong, verdicts = sum(study.wrong > 0 for study in studies), design.arms * len(studies)
        each = 100 * sum(study.wrong for study in studies) / verdicts
        cells = [design.noise, str(design.arms), str(design.seeds), _share(wrong, len(studies)), f"{each:.2f}"]
        rows.append([*cells, _share(sum(many[design]), count)])
        results.append(result(f"{design.name}_wrong", [100 * wrong / len(studies)], "%"))
        results.append(result(f"{design.name}_many_wrong", [100 * float(np.mean(many[design]))], "%"))
    print(f"\n{table(rows)}\ngoal: at most 5 % of studies; the last two rows are outside the promise")
    return results


def report_planted(seen: dict[Design, list[Seen]]) -> list[str]:
    """Print how often planted effects are found against the prediction, and return the lines for programs."""
    head = [
        "planted: effect, sd",
        "comparisons",
        "seeds needed",
        "found, % of studies",
        "predicted",
        "by the t test",
    ]
    rows, results = [head], []
    for design, studies in seen.items():
        found, level = sum(study.found for study in studies), statistics.LEVEL / design.arms
        predicted = statistics.estimate_power(design.effect, 1.0, design.seeds, design.arms)
        promised = stats.nct.sf(
            stats.t.ppf(1 - level / 2, design.seeds - 1), design.seeds - 1, design.effect * math.sqrt(design.seeds)
        )
        cells = [_share(found, len(studies)), f"{100 * predicted:.0f}", f"{100 * promised:.0f}"]
        rows.append([f"{design.effect}", str(design.arms), str(design.seeds), *cells])
        results.append(result(f"{design.name}_found", [100 * found / len(studies)], "%"))
        results.append(result(f"{design.name}_predicted", [100 * predicted], "%"))
    print(f"\n{table(rows)}")
    return results


def report_coverage(seen: dict[tuple[str, int, int], tuple[float, float]]) -> list[str]:
    """Print the intervals' coverage, and return the lines for programs."""
    rows, results = [["coverage: values", "n", "BCa, %", "t, %"]], []
    for (noise, n, _), (bca, t) in seen.items():
        rows.append([noise, str(n), f"{100 * bca:.1f}", f"{100 * t:.1f}"])
        results += [result(f"bca_{noise}_{n}", [100 * bca], "%"), result(f"t_{noise}_{n}", [100 * t], "%")]
    print(f"\n{table(rows)}")
    return results


def _share(count: int, of: int) -> str:
    """`4.1 (3.0–5.5)`: percent with the 95 % Wilson interval."""
    interval = stats.binomtest(count, of).proportion_ci(method="wilson")
    return f"{100 * count / of:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


@click.command()
@click.option("--quick", is_flag=True, help="A short run that shows that all works: few studies.")
@click.option("--studies", default=1000, show_default=True, type=click.IntRange(min=10), help="Simulated per row.")
def main(quick: bool, studies: int) -> None:
    """How often verdicts are wrong, effects are found, and intervals hold the true mean."""
    studies = QUICK_STUDIES if quick else studies
    intervals = 2 * studies
    print("\n".join([*machine(), f"studies  {studies} a row, {intervals} intervals a row"]))
    designs = [*NULLS, *planted()]
    tasks = [(design, number) for design in designs for number in range(studies)]
    nulls = [(design, MANY * studies) for design in NULLS]
    wanted = [(noise, n, intervals) for noise in ("normal", "skewed") for n in (5, 8, 20)]
    if quick:  # processes of its own would take longer to start than to simulate
        looked, covered, many = list(map(look, tasks)), list(map(coverage, wanted)), list(map(wrong_studies, nulls))
    else:
        with multiprocessing.get_context("spawn").Pool() as pool:
            looked, covered = pool.map(look, tasks, chunksize=20), pool.map(coverage, wanted, chunksize=1)
            many = pool.map(wrong_studies, nulls, chunksize=1)
    seen = {design: looked[i * studies : (i + 1) * studies] for i, design in enumerate(designs)}
    lines = report_nulls({design: seen[design] for design in NULLS}, dict(zip(NULLS, many, strict=True)))
    lines += report_planted({design: found for design, found in seen.items() if design.effect})
    lines += report_coverage(dict(zip(wanted, covered, strict=True)))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
