"""Error rates of verdicts on simulated studies: python -m benchmarks.verdicts [--quick].

Studies are simulated, not trained: each arm's test metric is a level, plus an effect of the seed that all arms share,
plus noise of its own. They pass through the report's own comparison, from rows of confirm runs to verdicts; only the
rows are synthetic.

Null studies have no effect: arms are compared with one control, whose noise they share. Every verdict in them is wrong,
and at most 5 % of the studies may have any. This holds where differences are symmetric about zero, which equal noise in
both arms gives, however skewed; "skewed arms, quiet control" breaks the assumption on purpose. Planted studies have one
arm with an effect, in standard deviations of its paired differences, and the number of seeds that `seeds_needed`
returns; the paired t test's prediction is printed for comparison. Coverage is the share of intervals that contain the
true mean.
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

from benchmarks.reporting import describe_machine, format_result, format_table
from reports.analysis import statistics
from reports.analysis.comparison import Comparison, compare_arms
from reports.load import StudyRecords

SEED_SD, NOISE_SD = 0.01, 0.005
"""Standard deviations of the effect of a seed that all arms share, and of each arm's own noise."""
DIFFERENCE_SD = math.sqrt(2) * NOISE_SD
QUICK_STUDIES, MANY = 12, 20
"""Studies per row of a quick run; and the factor of null studies evaluated by test and correction alone."""

Draw = Callable[[np.random.Generator, int, int], NDArray[np.float64]]
"""Draw noise (arms, seeds) with mean 0 and standard deviation 1; the control is the first arm."""


@dataclass(frozen=True)
class Design:
    """A study to simulate. `effect`, in sd of paired differences, is on the first arm after the control."""

    name: str
    noise: str
    arms: int
    """The number of arms compared with the control."""
    seeds: int
    effect: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The result of one study: whether it found the planted effect, and its number of wrong verdicts."""

    found: bool
    wrong: int


def draw_normal(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    return rng.normal(size=(arms, seeds))


def draw_skewed(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Draw noise with most runs slightly above the mean and a few far below it, as in training."""
    return 1.0 - rng.exponential(size=(arms, seeds))


def draw_quiet_control(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Draw skewed noise with a control that hardly varies: differences are then as skewed as the arms."""
    return draw_skewed(rng, arms, seeds) * np.where(np.arange(arms) == 0, 0.1, 1.0)[:, None]


NOISES: dict[str, Draw] = {
    "normal": draw_normal,
    "skewed": draw_skewed,
    "skewed arms, quiet control": draw_quiet_control,
}
NULLS = tuple(
    Design(f"null_{name}_{arms}", noise, arms, seeds)
    for name, noise in (("normal", "normal"), ("skewed", "skewed"), ("quiet", "skewed arms, quiet control"))
    for arms, seeds in ((3, 8), (6, 10))
)


def list_planted_designs() -> Iterable[Design]:
    """Return large to moderate effects, alone and among six comparisons, with the seeds that `seeds_needed` returns."""
    for arms in (1, 6):
        for effect in (2.0, 1.6, 1.3, 1.0, 0.7):
            needed = statistics.seeds_needed(effect, 1.0, arms)
            assert needed is not None
            yield Design(f"planted_{effect}_{arms}".replace(".", ""), "normal", arms, needed, effect)


def simulate(design: Design, number: int) -> Comparison:
    """Simulate one study, and return the report's comparison of its confirm runs."""
    arms = ["control", *(f"arm {i}" for i in range(1, design.arms + 1))]
    (comparison,) = compare_arms(_make_records(arms, _draw_scores(design, number)))
    return comparison


def _draw_scores(design: Design, number: int) -> NDArray[np.float64]:
    """Draw the test metric (arms, seeds); the control is the first arm."""
    rng = np.random.default_rng([number, *design.name.encode()])
    values = 0.9 + SEED_SD * rng.normal(size=design.seeds)
    values = values + NOISE_SD * NOISES[design.noise](rng, design.arms + 1, design.seeds)
    values[1] += design.effect * DIFFERENCE_SD
    return values


def _make_records(arms: list[str], values: NDArray[np.float64]) -> StudyRecords:
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


def count_verdicts(task: tuple[Design, int]) -> Outcome:
    """Simulate one study and count its verdicts."""
    design, number = task
    verdicts = [row.verdict for row in simulate(design, number).rows if row.versus]
    nulls = verdicts[1:] if design.effect else verdicts
    return Outcome(found=bool(design.effect) and verdicts[0] == "better", wrong=len(nulls) - nulls.count("undecided"))


def find_wrong_studies(task: tuple[Design, int]) -> list[bool]:
    """Return which null studies have any verdict, by test and correction alone; intervals take most of the time."""
    design, studies = task
    found = []
    for number in range(studies):
        control, *others = _draw_scores(design, number)
        p_values = statistics.adjust_by_holm([statistics.compute_sign_flip_p(values - control) for values in others])
        found.append(min(p_values) <= statistics.LEVEL)
    return found


def measure_coverage(task: tuple[str, int, int]) -> tuple[float, float]:
    """Return the shares of BCa and of t intervals of n values that contain the true mean, 0."""
    noise, n, studies = task
    rng = np.random.default_rng([n, studies])
    draws = NOISES[noise](rng, studies, n)
    bca = [_contains_zero(statistics.compute_bca_interval(x)) for x in draws]
    return float(np.mean(bca)), float(
        np.mean([_contains_zero(statistics.compute_mean(x).interval) for x in draws.tolist()])
    )


def _contains_zero(interval: statistics.Interval | None) -> bool:
    return interval is not None and interval.low <= 0 <= interval.high


# -- the command -------------------------------------------------------------------------------------------------------


def report_nulls(seen: dict[Design, list[Outcome]], many: dict[Design, list[bool]]) -> list[str]:
    """Print the error rates of null studies, and return the RESULT lines."""
    count = len(next(iter(many.values())))
    head = ["null studies: noise", "arms", "seeds", "any wrong verdict, % of studies", "% of verdicts"]
    rows, results = [[*head, f"% of {count} studies"]], []
    for design, studies in seen.items():
        if [study.wrong > 0 for study in studies] != many[design][: len(studies)]:
            raise click.ClickException(f"{design.name}: test and correction alone do not give the report's verdicts")
        wrong, verdicts = sum(study.wrong > 0 for study in studies), design.arms * len(studies)
        each = 100 * sum(study.wrong for study in studies) / verdicts
        cells = [design.noise, str(design.arms), str(design.seeds), _format_share(wrong, len(studies)), f"{each:.2f}"]
        rows.append([*cells, _format_share(sum(many[design]), count)])
        results.append(format_result(f"{design.name}_wrong", [100 * wrong / len(studies)], "%"))
        results.append(format_result(f"{design.name}_many_wrong", [100 * float(np.mean(many[design]))], "%"))
    print(f"\n{format_table(rows)}\ngoal: at most 5 % of studies; the last two rows break the assumption of symmetry")
    return results


def report_planted(seen: dict[Design, list[Outcome]]) -> list[str]:
    """Print how often planted effects are found, next to the prediction, and return the RESULT lines."""
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
        cells = [_format_share(found, len(studies)), f"{100 * predicted:.0f}", f"{100 * promised:.0f}"]
        rows.append([f"{design.effect}", str(design.arms), str(design.seeds), *cells])
        results.append(format_result(f"{design.name}_found", [100 * found / len(studies)], "%"))
        results.append(format_result(f"{design.name}_predicted", [100 * predicted], "%"))
    print(f"\n{format_table(rows)}")
    return results


def report_coverage(seen: dict[tuple[str, int, int], tuple[float, float]]) -> list[str]:
    """Print the coverage of intervals, and return the RESULT lines."""
    rows, results = [["coverage: values", "n", "BCa, %", "t, %"]], []
    for (noise, n, _), (bca, t) in seen.items():
        rows.append([noise, str(n), f"{100 * bca:.1f}", f"{100 * t:.1f}"])
        results += [
            format_result(f"bca_{noise}_{n}", [100 * bca], "%"),
            format_result(f"t_{noise}_{n}", [100 * t], "%"),
        ]
    print(f"\n{format_table(rows)}")
    return results


def _format_share(count: int, of: int) -> str:
    """Return percent with the 95 % Wilson interval, such as `4.1 (3.0–5.5)`."""
    interval = stats.binomtest(count, of).proportion_ci(method="wilson")
    return f"{100 * count / of:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


@click.command()
@click.option("--quick", is_flag=True, help="A short check: few studies.")
@click.option(
    "--studies", default=1000, show_default=True, type=click.IntRange(min=10), help="Simulated studies per row."
)
def main(quick: bool, studies: int) -> None:
    """Measure how often verdicts are wrong, effects are found, and intervals contain the true mean."""
    studies = QUICK_STUDIES if quick else studies
    intervals = 2 * studies
    print("\n".join([*describe_machine(), f"studies  {studies} per row, {intervals} intervals per row"]))
    designs = [*NULLS, *list_planted_designs()]
    tasks = [(design, number) for design in designs for number in range(studies)]
    nulls = [(design, MANY * studies) for design in NULLS]
    wanted = [(noise, n, intervals) for noise in ("normal", "skewed") for n in (5, 8, 20)]
    if quick:  # starting processes would take longer than the simulation
        outcomes, covered, many = (
            list(map(count_verdicts, tasks)),
            list(map(measure_coverage, wanted)),
            list(map(find_wrong_studies, nulls)),
        )
    else:
        with multiprocessing.get_context("spawn").Pool() as pool:
            outcomes, covered = (
                pool.map(count_verdicts, tasks, chunksize=20),
                pool.map(measure_coverage, wanted, chunksize=1),
            )
            many = pool.map(find_wrong_studies, nulls, chunksize=1)
    seen = {design: outcomes[i * studies : (i + 1) * studies] for i, design in enumerate(designs)}
    lines = report_nulls({design: seen[design] for design in NULLS}, dict(zip(NULLS, many, strict=True)))
    lines += report_planted({design: found for design, found in seen.items() if design.effect})
    lines += report_coverage(dict(zip(wanted, covered, strict=True)))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
