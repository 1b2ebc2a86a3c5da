"""The warning of too few seeds, which --dry-run gives too: it imports neither pandas nor scipy."""

from __future__ import annotations

from reports.analysis import power
from reports.format.values import count_of


def warn_of_few_seeds(seeds: int, tests: int) -> str | None:
    """Return a warning if this number of seeds cannot decide, with the number that can; None if it can.

    `tests` is the number of comparisons and margins that share a correction.
    """
    smallest, needed = power.smallest_p(seeds), power.seeds_to_decide(tests)
    if seeds < 1 or tests < 1 or seeds >= needed:
        return None
    corrected = f", {min(1.0, smallest * tests):.2g} after correction for {tests} comparisons"
    return (
        f"{count_of(seeds, 'seed')} cannot decide: the sign-flip test gives no p below {smallest:.2g}"
        f"{corrected if tests > 1 else ''}, so every verdict stays undecided, however large the effect. "
        f"It takes at least {needed} seeds: --seeds {needed}."
    )
