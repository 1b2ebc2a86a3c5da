from __future__ import annotations

import pytest

from reports.format.metrics import make_metric
from reports.format.values import format_count, format_duration, format_milliseconds, format_number, shorten


def test_numbers_durations_and_long_texts_are_formatted() -> None:
    assert format_number(-0.001, 2) == "0.00"
    assert [format_duration(s) for s in (0.71, 48, 200, 7500)] == ["0.7 s", "48 s", "3 min 20 s", "2 h 05 min"]
    assert shorten("a" * 300, 11) == "aaaaa…aaaaa"
    assert make_metric("val/accuracy").label == "validation accuracy, %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (999.0, "999"), (1000, "1.00 k"), (99_960, "100 k"), (999_999, "1.00 M"), (253_170_000, "253 M")],
)
def test_counts_have_three_digits_and_a_prefix(value: float | None, text: str) -> None:
    assert format_count(value) == text


def test_times_below_a_millisecond_keep_their_digits() -> None:
    assert [format_milliseconds(value) for value in (0.0000123, 0.00123, 1.5, None)] == ["0.0123", "1.23", "1500", "–"]
