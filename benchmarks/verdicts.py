"""Error rates of verdicts on simulated studies: python -m benchmarks.verdicts [--quick].

Studies are simulated, not trained: each arm's test metric is a level, plus an effect of the seed that all arms share,
plus noise of its own. They pass through the report's own comparison, from rows of confirm runs to verdicts; only the
rows are synthetic.

Null studies have no effect: arms are compared with one control, whose noise they share. Every verdict in them is wrong,
and at most 5 % of the studies may have any. This holds where differences are symmetric about zero, which equal noise in
both arms gives, however skewed; "skewed arms, quiet control" breaks the assumption on purpose. Planted studies have one
arm with an effect, in standard deviations of its paired differences, and the number of seeds that `seeds_needed`
returns; the paired t test's prediction is printed for comparison. Studies with a margin of 1.5 standard deviations have
an arm that is worse by just the margin, of which at most 5 % may be called not worse, or one that equals the control.
Coverage is the share of intervals that contain the true mean.
"""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass
from multiprocessing.pool import Pool, ThreadPool

import click
import numpy as np
from scipy import stats

from benchmarks.reporting import describe_machine, format_result, format_table
from benchmarks.simulated_studies import (
    MARGINS,
    NOISES,
    NULLS,
    SIGN_NULLS,
    Design,
    draw_scores,
    list_planted_designs,
    simulate,
)
from reports.analysis import power, sign_tests, statistics
from reports.analysis.verdicts import adjust_by_holm

QUICK_STUDIES, MANY = 4, 20
"""Studies per row of a quick run; and the factor of null studies evaluated by test and correction alone."""


@dataclass(frozen=True)
class Outcome:
    """The result of one study: whether it found the planted effect, and its number of wrong verdicts."""

    found: bool
    wrong: int


def count_verdicts(task: tuple[Design, int]) -> Outcome:
    """Simulate one study and count its verdicts."""
    design, number = task
    verdicts = [contrast.verdict for contrast in simulate(design, number).contrasts]
    nulls = verdicts[1:] if design.effect else verdicts
    return Outcome(found=bool(design.effect) and verdicts[0] == "better", wrong=len(nulls) - nulls.count("undecided"))


def find_wrong_studies(task: tuple[Design, int]) -> list[bool]:
    """Return which null studies have any verdict, by test and correction alone; intervals take most of the time."""
    design, studies = task
    found = []
    for number in range(studies):
        control, *others = draw_scores(design, number)
        compute_p = sign_tests.compute_sign_p if design.test == "sign" else sign_tests.compute_sign_flip_p
        p_values = adjust_by_holm([compute_p(values - control) for values in others])
        found.append(min(p_values) <= sign_tests.LEVEL)
    return found


def find_not_worse(task: tuple[Design, int]) -> bool:
    """Simulate one study, and return whether its arm is shown to be within the margin."""
    design, number = task
    (contrast,) = simulate(design, number).contrasts
    return contrast.within_margin


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


def report_sign_test(many: dict[Design, list[bool]]) -> list[str]:
    """Print the error rates of null studies under the sign test, and return the RESULT lines."""
    rows, results = [["null studies by the sign test: noise", "arms", "seeds", "any wrong verdict, % of studies"]], []
    for design in SIGN_NULLS:
        wrong = many[design]
        rows.append([design.noise, str(design.arms), str(design.seeds), _format_share(sum(wrong), len(wrong))])
        results.append(format_result(f"{design.name}_wrong", [100 * float(np.mean(wrong))], "%"))
    print(f"\n{format_table(rows)}\ngoal: at most 5 % of studies")
    return results


def report_margins(seen: dict[Design, list[bool]]) -> list[str]:
    """Print how often arms are shown to be within the margin, and return the RESULT lines."""
    rows, results = [["margin of 1.5 sd: true difference, sd", "seeds", "within the margin, % of studies"]], []
    for design, found in seen.items():
        rows.append([f"{design.effect}", str(design.seeds), _format_share(sum(found), len(found))])
        results.append(format_result(design.name, [100 * float(np.mean(found))], "%"))
    print(f"\n{format_table(rows)}\ngoal: at most 5 % where the difference is the margin")
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
        found, level = sum(study.found for study in studies), sign_tests.LEVEL / design.arms
        predicted = power.estimate_power(design.effect, 1.0, design.seeds, design.arms)
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
    margin_tasks = [(design, number) for design in MARGINS for number in range(studies)]
    nulls = [(design, MANY * studies) for design in (*NULLS, *SIGN_NULLS)]
    wanted = [(noise, n, intervals) for noise in ("normal", "skewed") for n in (5, 8, 20)]
    with _start_pool(quick) as pool:
        outcomes = pool.map(count_verdicts, tasks, chunksize=20)
        covered = pool.map(measure_coverage, wanted, chunksize=1)
        within = pool.map(find_not_worse, margin_tasks, chunksize=20)
        many = dict(zip([design for design, _ in nulls], pool.map(find_wrong_studies, nulls, chunksize=1), strict=True))
    seen = {design: outcomes[i * studies : (i + 1) * studies] for i, design in enumerate(designs)}
    lines = report_nulls({design: seen[design] for design in NULLS}, many)
    lines += report_sign_test(many)
    lines += report_planted({design: found for design, found in seen.items() if design.effect})
    lines += report_margins({one: within[i * studies : (i + 1) * studies] for i, one in enumerate(MARGINS)})
    lines += report_coverage(dict(zip(wanted, covered, strict=True)))
    print("\n" + "\n".join(lines))


def _start_pool(quick: bool) -> Pool:
    # threads for a quick run: starting processes would take longer than the simulation
    return ThreadPool(1) if quick else multiprocessing.get_context("spawn").Pool()


if __name__ == "__main__":
    main()
