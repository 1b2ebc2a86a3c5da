"""The Pareto front of measured points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from study.trial import Direction


def find_pareto_front(
    rows: Sequence[Mapping[str, Any]], objectives: Sequence[str], directions: Sequence[Direction]
) -> list[int]:
    """Return the positions of the rows that no other row dominates, in the given order.

    A row dominates another if it is at least as good in every objective and better in one; equal rows do not dominate
    each other. A row in which an objective is missing or not finite is ignored.
    """
    signs = [-1.0 if direction == "max" else 1.0 for direction in directions]
    costs: dict[int, tuple[float, ...]] = {}
    for position, row in enumerate(rows):
        values = [math.nan if row.get(name) is None else float(row[name]) for name in objectives]
        if all(map(math.isfinite, values)):
            # 9 digits: means of the same values in another order are equal
            costs[position] = tuple(float(f"{sign * value:.9g}") for sign, value in zip(signs, values, strict=True))
    front: dict[tuple[float, ...], None] = {}
    for cost in sorted(set(costs.values())):  # in this order, a point comes after all points that dominate it
        if not any(all(left <= right for left, right in zip(other, cost, strict=True)) for other in front):
            front[cost] = None
    return [position for position, cost in costs.items() if cost in front]
