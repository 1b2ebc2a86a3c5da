"""The Pareto front of a search with several objectives, and the few of its points that are confirmed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import le

from study.trial import Direction


def find_front(values: Mapping[int, Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Return the numbers of the trials that no other surpasses in all objectives, best by the first objective first.

    Of trials with equal values the one of the lowest number is on it.
    """
    signs = [-1.0 if direction == "max" else 1.0 for direction in directions]
    losses = {number: tuple(s * v for s, v in zip(signs, values[number], strict=True)) for number in sorted(values)}
    ranked = sorted(losses, key=lambda number: (losses[number], number))
    front: list[int] = []
    # in this order only an earlier trial can be as good in every objective
    for number in ranked:
        if not any(all(map(le, losses[other], losses[number])) for other in front):
            front.append(number)
    return front


def spread_front(front: Sequence[int], values: Mapping[int, Sequence[float]], most: int) -> list[int]:
    """Return at most `most` points of a front: its first, then in turn the one whose second value is farthest off.

    More points therefore add to fewer.
    """
    chosen = list(front[:1])
    while len(chosen) < min(most, len(front)):
        costs = [values[number][1] for number in chosen]
        left = [number for number in front if number not in chosen]
        chosen.append(max(left, key=lambda n: (min(measure_distance(values[n][1], cost) for cost in costs), -n)))
    return chosen


def measure_distance(one: float, other: float) -> float:
    """Return how far two costs are apart: the logarithm of their ratio, or the difference if one is not above 0."""
    return abs(math.log(one / other)) if one > 0 and other > 0 else abs(one - other)
