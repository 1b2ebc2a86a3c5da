"""Unit, digits and label of metrics as study.json declares them, and their values as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from reports.format.values import format_number

SCHEMA_1 = {
    **dict.fromkeys(("accuracy", "top1", "top5", "precision", "recall", "iou", "mean_iou"), ("%", 2, "")),
    "f1": ("%", 2, "F1"),
    "f1_all": ("%", 2, "F1 with background"),
    "mae": ("", 2, "MAE"),
    "rmse": ("", 2, "RMSE"),
    "psnr": ("dB", 3, "PSNR"),
    "ssim": ("", 4, "SSIM"),
    "lpips": ("", 4, "LPIPS"),
    "teacher_distance": ("", 4, "distance to the teacher"),
}
"""Unit, digits and label of the metrics of schema 1 studies, whose study.json declares only directions."""

CLASS_PREFIX = "class_"
"""Prefix of the name of a score of one class: "class_f1_skin" is the F1 of the class skin."""


@dataclass(frozen=True)
class Metric:
    """A metric by its name `split/name`, with the unit, digits and label used wherever it is shown."""

    name: str
    factor: float
    digits: int
    unit: str
    difference_unit: str
    noun: str
    """The label without its split: "accuracy", "MAE"."""

    @property
    def bare(self) -> str:
        """The name without its split: "accuracy" for "test/accuracy"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def words(self) -> str:
        """The label with its split: "test accuracy" for "test/accuracy", "test MAE" for "test/mae"."""
        return {"val": "validation"}.get(self._split, self._split).replace("_", " ") + f" {self.noun}".rstrip()

    @property
    def label(self) -> str:
        """The title of a column or an axis: "test accuracy, %"."""
        return self.words + (f", {self.unit}" if self.unit else "")

    @property
    def after_difference(self) -> str:
        """The unit of a difference, to follow it: " points"; empty without one."""
        return f" {self.difference_unit}" if self.difference_unit else ""

    def title_difference(self, title: str = "difference") -> str:
        """Return the title of a column or an axis of differences: "difference, points"."""
        return f"{title}, {self.difference_unit}" if self.difference_unit else title

    @property
    def resolution(self) -> float:
        """The largest difference, in the recorded unit, that is rounding alone: a millionth of the last written digit.

        One test sample of a million changes an accuracy by 10,000 times as much.
        """
        return 1e-6 * 10.0**-self.digits / self.factor

    @property
    def _split(self) -> str:
        return self.name.rsplit("/", 1)[0] if "/" in self.name else ""

    def format(self, value: float | None) -> str:
        """Return the value in the unit it is shown in, without the unit: 0.9532 → "95.32"; "–" if not finite."""
        return "–" if value is None or not math.isfinite(value) else format_number(value * self.factor, self.digits)

    def format_signed(self, value: float | None) -> str:
        """Return the value with its sign: "+0.64", "−0.12"."""
        text = self.format(value)
        return text if text.startswith(("−", "–")) else f"+{text}"


def make_metric(name: str, declared: object = None) -> Metric:
    """Return the metric `name`, given its entry in `metrics` of study.json; without an entry, by its name.

    A metric with the unit % is recorded as a fraction; its differences are shown in percentage points.
    """
    bare = name.rsplit("/", 1)[-1]
    if isinstance(declared, Mapping):
        unit, digits, label = (declared.get(key) for key in ("unit", "digits", "label"))
    else:
        unit, digits, label = SCHEMA_1.get(bare, ("", 4, ""))
        if bare.startswith(CLASS_PREFIX):
            unit, digits, _ = SCHEMA_1.get(bare.removeprefix(CLASS_PREFIX).split("_", 1)[0], ("", 4, ""))
    unit, digits, noun = str(unit or ""), digits if isinstance(digits, int) else 4, str(label or bare)
    if unit == "%":
        return Metric(name, 100.0, digits, unit, "points", noun)
    return Metric(name, 1.0, digits, unit, unit, noun)
