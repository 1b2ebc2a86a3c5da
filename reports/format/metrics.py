"""How a metric is written for people: factor, decimals, unit, label. Knows nothing of which metrics a study has."""

from __future__ import annotations

import math
from dataclasses import dataclass

FRACTIONS = {"accuracy", "top1", "top5", "f1", "f1_all", "precision", "recall", "iou", "mean_iou"}
"""Recorded as fractions, written in percent; their differences are percentage points."""

UNITS = {"psnr": ("dB", 3), "ssim": ("", 4), "lpips": ("", 4), "mae": ("", 2), "rmse": ("", 2), "loss": ("", 4)}
"""Unit and decimals of metrics that are written as they are."""

ABBREVIATIONS = {"psnr", "ssim", "lpips", "mae", "rmse", "f1"}
"""Written in capitals."""

NOUNS = {"f1_all": "F1 with background", "teacher_distance": "distance to the teacher"}
"""Written otherwise than they are called."""

CLASS = "class_"
"""How the name of a score of one class begins: "class_f1_skin" is the class skin's f1."""


@dataclass(frozen=True)
class Metric:
    """A metric by `split/name`, and its written form."""

    name: str
    factor: float
    digits: int
    unit: str
    difference_unit: str

    @property
    def bare(self) -> str:
        """The name without its split: "accuracy" of "test/accuracy"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def words(self) -> str:
        """ "test accuracy" of "test/accuracy", "test MAE" of "test/mae"."""
        return {"val": "validation"}.get(self._split, self._split).replace("_", " ") + f" {self.noun}".rstrip()

    @property
    def noun(self) -> str:
        """The name without its split, as it is written: "accuracy", "MAE"."""
        return NOUNS.get(self.bare) or (self.bare.upper() if self.bare in ABBREVIATIONS else self.bare)

    @property
    def label(self) -> str:
        """For a column or an axis: "test accuracy, %"."""
        return self.words + (f", {self.unit}" if self.unit else "")

    @property
    def _split(self) -> str:
        return self.name.rsplit("/", 1)[0] if "/" in self.name else ""

    def text(self, value: float | None) -> str:
        """The value in its written unit, without the unit: 0.9532 → "95.32"."""
        return "–" if value is None or not math.isfinite(value) else number(value * self.factor, self.digits)

    def signed(self, value: float | None) -> str:
        """The same with its sign: "+0.64", "−0.12"."""
        text = self.text(value)
        return text if text.startswith(("−", "–")) else f"+{text}"


def metric(name: str) -> Metric:
    """The written form of the metric called `name`."""
    bare = name.rsplit("/", 1)[-1]
    if bare.startswith(CLASS):
        bare = bare.removeprefix(CLASS).split("_", 1)[0]
    if bare in FRACTIONS:
        return Metric(name, 100.0, 2, "%", "points")
    unit, digits = UNITS.get(bare, ("", 4))
    return Metric(name, 1.0, digits, unit, unit)


def number(value: float, digits: int) -> str:
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


def duration(seconds: float) -> str:
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
