"""Pictures of the panels: images unchanged, labels as colours, maps from dark to bright.

Within an example, all maps of one scale share their range, so that equal colours are equal numbers.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import hex_to_rgb, qualitative, sequential

from reports.examples.panels import Exhibition, Panel
from reports.format.values import format_value

MAX_PAGE_PIXELS = 1_500_000
"""Maximum pixels of all pictures of a page, which keeps it below 8 MB; above it pictures are scaled down."""
SIDE_RANGE = (72, 288)
"""Minimum and maximum of the longer side of a picture, in pixels."""
MIN_SHOWN_SIDE = 150
"""Minimum of the longer side as the page displays it, in CSS pixels."""
LOSSLESS_SIDE = 128
"""Longest side up to which an image is stored without loss, in pixels."""

# looks the same with and without red-green blindness (Nuñez, Anderton, Renslow 2018)
MAP_COLOURS = np.array([hex_to_rgb(colour) for colour in sequential.Cividis], dtype=np.float64)
# without one that is nearly equal to the first
LABEL_COLOURS = ("#2b2f36", *(colour for colour in qualitative.Dark24 if colour != "#222A2A"))

ColourRange = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """One picture with its texts."""

    of: str
    """Name of the net, or of the given panel."""
    caption: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """One example: a row of pictures for each kind of panel."""

    title: str
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]
    """Name and pictures of each row; the given panels come first."""
    scales: tuple[str, ...]
    """Meaning of the colours of maps, one line per scale."""


@dataclass(frozen=True)
class Gallery:
    """The examples of one student."""

    student: str
    examples: tuple[Example, ...]
    legend: tuple[tuple[str, str], ...]
    """Name and colour of each class."""
    damaged: tuple[str, ...]
    """One line per file that could not be read."""


def make_galleries(exhibitions: list[Exhibition]) -> list[Gallery]:
    """Return one gallery per student, its pictures scaled so that all fit in MAX_PAGE_PIXELS."""
    count = sum(len(one.given) + sum(len(net.panels) for net in one.nets) for one in exhibitions)
    side = int(min(max(math.sqrt(MAX_PAGE_PIXELS / max(count, 1)), SIDE_RANGE[0]), SIDE_RANGE[1]))
    return [
        Gallery(
            student=one.student,
            examples=tuple(_make_example(one, number, side) for number in one.examples),
            legend=_make_legend(one),
            damaged=one.damaged,
        )
        for one in exhibitions
    ]


def _make_example(exhibition: Exhibition, number: int, side: int) -> Example:
    given = [panel for panel in exhibition.given if panel.example == number]
    outputs = [(net.net, panel) for net in exhibition.nets for panel in net.panels if panel.example == number]
    ranges = _compute_ranges([*given, *(panel for _, panel in outputs)])
    rows = [("the example", tuple(_make_picture(panel.name, panel, ranges, side) for panel in given))] if given else []
    for name in dict.fromkeys(panel.name for _, panel in outputs):
        same = [(net, panel) for net, panel in outputs if panel.name == name]
        rows.append((name, tuple(_make_picture(net, panel, ranges, side) for net, panel in same)))
    scales = (
        f"{scale}: dark {format_value(low)} or less, bright {format_value(high)} or more"
        for scale, (low, high) in ranges.items()
    )
    return Example(f"Example {number + 1}", tuple(rows), tuple(scales))


def _compute_ranges(panels: Iterable[Panel]) -> dict[str, ColourRange]:
    """Return the darkest and brightest value of each scale: the 1 % and 99 % quantiles of its numbers.

    With the full range, a few peaks would leave everything else dark.
    """
    numbers: dict[str, list[NDArray[np.float64]]] = {}
    for panel in panels:
        if panel.kind == "map":
            numbers.setdefault(panel.scale, []).append(panel.values[np.isfinite(panel.values)].astype(np.float64))
    together = {scale: np.concatenate(parts) for scale, parts in numbers.items()}
    return {scale: tuple(np.quantile(x, [0.01, 0.99])) for scale, x in together.items() if x.size}


def _make_picture(of: str, panel: Panel, ranges: dict[str, ColourRange], side: int) -> Picture:
    height, width = panel.values.shape[:2]
    longer = max(height, width)
    image = _to_image(panel, ranges)
    if side < longer:
        size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
        # labels and colours of maps are indices and cannot be averaged
        how = Image.Resampling.LANCZOS if panel.kind == "image" else Image.Resampling.NEAREST
        image = image.resize(size, how)
    alt = ", ".join(part for part in (of, panel.name if panel.name != of else "", panel.caption) if part)
    shown = max(side, MIN_SHOWN_SIDE) / longer
    return Picture(of, panel.caption, alt, _to_data_uri(image), round(width * shown), round(height * shown))


def _to_image(panel: Panel, ranges: dict[str, ColourRange]) -> Image.Image:
    if panel.kind == "image":
        return Image.fromarray(panel.values.astype(np.uint8), "RGB")
    if panel.kind == "labels":
        colours = [hex_to_rgb(get_label_colour(index)) for index in range(256)]
        return _make_palette_image(panel.values.astype(np.uint8), colours)
    low, high = ranges.get(panel.scale, (0.0, 1.0))
    share = (np.nan_to_num(panel.values.astype(np.float64), nan=low) - low) / (high - low or 1.0)
    return _make_palette_image((share.clip(0, 1) * 255).round().astype(np.uint8), _interpolate_colours())


def _make_palette_image(indices: NDArray[np.uint8], colours: Any) -> Image.Image:
    image = Image.fromarray(indices, "L")
    image.putpalette([int(part) for colour in colours for part in colour])
    return image


def _interpolate_colours() -> NDArray[np.float64]:
    """Return 256 colours interpolated between those of MAP_COLOURS, (256, 3)."""
    places = np.linspace(0, 1, len(MAP_COLOURS))
    return np.stack([np.interp(np.linspace(0, 1, 256), places, MAP_COLOURS[:, part]) for part in range(3)], axis=1)


def get_label_colour(index: int) -> str:
    """Return the colour of the class `index` as #rrggbb; colours repeat after the last."""
    return str(LABEL_COLOURS[index % len(LABEL_COLOURS)])


def _to_data_uri(image: Image.Image) -> str:
    """Return the image as a data URI: JPEG for a photograph above LOSSLESS_SIDE, else PNG."""
    out = io.BytesIO()
    photograph = image.mode == "RGB" and max(image.size) > LOSSLESS_SIDE
    if photograph:
        image.save(out, "JPEG", quality=92, subsampling=0)
    else:
        image.save(out, "PNG", optimize=True)
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{base64.b64encode(out.getvalue()).decode()}"


def _make_legend(exhibition: Exhibition) -> tuple[tuple[str, str], ...]:
    panels = (*exhibition.given, *(panel for net in exhibition.nets for panel in net.panels))
    # the longest: an example in which pixels have no class has a colour for them, too
    classes = max((panel.classes for panel in panels), key=len, default=())
    return tuple((name, get_label_colour(index)) for index, name in enumerate(classes))
