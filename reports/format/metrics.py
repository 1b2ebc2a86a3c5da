"""The written form of metrics, as study.json declares it: factor, decimals, unit, label. Also of numbers and times."""

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
"""Unit, digits and label of the metrics of studies of schema 1, whose study.json declares directions alone."""

CLASS_PREFIX = "class_"
"""How the name of a score of one class begins: "class_f1_skin" is the class skin's f1."""


@dataclass(frozen=True)
class Metric:
    """A metric by `split/name`, and its written form."""

    name: str
    factor: float
    digits: int
    unit: str
    difference_unit: str
    noun: str
    """The name without its split, as it is written: "accuracy", "MAE"."""

    @property
    def bare(self) -> str:
        """The name without its split: "accuracy" of "test/accuracy"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def words(self) -> str:
        """ "test accuracy" of "test/accuracy", "test MAE" of "test/mae"."""
        return {"val": "validation"}.get(self._split, self._split).replace("_", " ") + f" {self.noun}".rstrip()

    @property
    def label(self) -> str:
        """For a column or an axis: "test accuracy, %"."""
        return self.words + (f", {self.unit}" if self.unit else "")

    @property
    def _split(self) -> str:
        return self.name.rsplit("/", 1)[0] if "/" in self.name else ""

    def format(self, value: float | None) -> str:
        """The value in its written unit, without the unit: 0.9532 → "95.32"."""
        return "–" if value is None or not math.isfinite(value) else format_number(value * self.factor, self.digits)

    def format_signed(self, value: float | None) -> str:
        """The same with its sign: "+0.64", "−0.12"."""
        text = self.format(value)
        return text if text.startswith(("−", "–")) else f"+{text}"


def make_metric(name: str, declared: object = None) -> Metric:
    """Return the written form of the metric `name`, given its entry in study.json's `metrics`.

    What is recorded as a fraction is written in percent, its differences in percentage points.
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
