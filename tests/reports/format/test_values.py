from __future__ import annotations

from reports.format.metrics import make_metric
from reports.format.values import format_duration, format_number, shorten


def test_numbers_durations_and_long_texts_are_formatted() -> None:
    assert format_number(-0.001, 2) == "0.00"
    assert [format_duration(s) for s in (0.71, 48, 200, 7500)] == ["0.7 s", "48 s", "3 min 20 s", "2 h 05 min"]
    assert shorten("a" * 300, 11) == "aaaaa…aaaaa"
    assert make_metric("val/accuracy").label == "validation accuracy, %"
