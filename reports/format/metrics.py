"""The written form of metrics, as study.json declares it: factor, decimals, unit, label. Also of numbers and times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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


def format_number(value: float, digits: int) -> str:
    """A number with a true minus sign, and none before a zero: −0.001 at two digits is "0.00"."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def format_value(value: object) -> str:
    """A setting's value: numbers at four significant digits, everything else as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "–"
    return str(value)


def format_duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def shorten(text: str, length: int) -> str:
    """`text` in at most `length` characters and one line; what is left out in the middle becomes "…"."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = (length - 1 + 1) // 2
    return text[:head] + "…" + text[len(text) - (length - 1 - head) :]
