"""Numbers, durations, settings and lists of words as text, independent of metrics and studies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def format_number(value: float, digits: int) -> str:
    """Return a number with a true minus sign, and without a sign if it rounds to zero: −0.001 at two digits is 0.00."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def format_significant(value: float) -> str:
    """Return a positive number with three significant digits but all digits before the point: "1234", "0.012"."""
    value = float(f"{value:.3g}") if value < 1000 else value
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" if value >= 1 else f"{value:.3g}"


def format_whole(value: float | None) -> str:
    """Return a number without decimals, its thousands apart: "7,213,056"; "–" for None and NaN."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def format_count(value: float | None) -> str:
    """Return a count with three significant digits and a decimal prefix: "1.23 M"; "–" for None."""
    if value is None:
        return "–"
    value = float(f"{value:.3g}")
    prefixes = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (0.0, ""))
    size, prefix = next((size, prefix) for size, prefix in prefixes if value >= size)
    return f"{format_significant(value / (size or 1.0))}{prefix}"


def format_milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds with three significant digits; "–" for None."""
    return "–" if seconds is None else format_significant(1000 * seconds)


def format_value(value: object) -> str:
    """Return the value of a setting as text: a float with four significant digits, "yes", "no", "–" for None."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "–"
    return str(value)


def format_params(params: Mapping[str, object]) -> str:
    """Return the searched values of a trial in one line: "temperature 3.2, beta 1.5"."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: "4.2 s", "48 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def shorten(text: str, length: int) -> str:
    """Return `text` in one line of at most `length` characters, with "…" for what is cut from its middle."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = length // 2
    return text[:head] + "…" + text[len(text) - (length - 1 - head) :]


def spell_number(count: int) -> str:
    """Return a small number as a word."""
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))


def join_words(items: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an s: "1 trial", "12,000 trials"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
