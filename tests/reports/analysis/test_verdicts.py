"""Oracles: a worked example of Holm's correction, and its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.analysis.verdicts import adjust_by_holm


def test_holm_equals_the_worked_example() -> None:
    # By hand: sorted 0.005, 0.010, 0.030, 0.040 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not fall.
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_by_holm([]) == []
    assert adjust_by_holm([0.6, 0.9]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, adjust_by_holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, p * len(p_values)) + 1e-12
