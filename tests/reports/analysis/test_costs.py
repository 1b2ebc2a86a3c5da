"""The Pareto front of scores and costs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reports.analysis.costs import Net, ScoredNet, find_cost_front


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=10), st.sampled_from(["max", "min"])
)
def test_front_holds_the_nets_that_none_dominates(points: list[tuple[int, int]], direction: str) -> None:
    data = [ScoredNet(Net("x", False, {"macs": cost}), "a", 0, float(score), 0.0) for cost, score in points]
    sign = 1 if direction == "max" else -1
    expected = sorted(
        (cost, score)
        for cost, score in points
        if not any(c <= cost and sign * s >= sign * score and (c, s) != (cost, score) for c, s in points)
    )
    found = [(one.net.get_cost("macs"), one.score) for one in find_cost_front(data, "macs", direction)]
    assert found == expected
