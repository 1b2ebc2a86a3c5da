"""The example of docs/comparisons.md is a study whose arms are tuned alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOC = (Path(__file__).parents[2] / "docs" / "comparisons.md").read_text(encoding="utf-8")


def test_example_is_a_fair_study() -> None:
    found: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", DOC, flags=re.S)[0], found)
    study = found["study"]
    assert [study.is_tuned_alone(arm) for arm in study.arms if not arm.baseline] == [False]
    assert study.max_tests == 5, "two comparisons with a margin each, and the baseline's"
    assert study.net_comparisons[0].versus == ("resnet8w8 / no distillation",)
