"""The page's figures as image files for papers and slides: `python -m reports.build runs/x --figures svg` or `png`.

Plotly renders them with kaleido in a local Chrome or Chromium, offline. Nothing else needs either of the two. The
colours are those of the printed page.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from reports.figures.style import ReportFigure
from reports.format.table import make_file_stems
from study.errors import InputError

IMAGE_FORMATS = ("svg", "png")
WIDE_PIXELS, SMALL_PIXELS = 760, 380
TEXT, GRID, AXIS = "#1b1f24", "#e4e7eb", "#a8b0b9"
"""The light theme of page.js."""


def write_images(drawn: Sequence[ReportFigure], folder: Path, kind: str) -> list[Path]:
    """Write each figure as `folder`/<title>.`kind`, and return the paths.

    Raises InputError if kaleido or a browser is missing.
    """
    try:
        importlib.import_module("kaleido")
    except ImportError:
        raise InputError(f'figures as {kind} need kaleido: pip install -e ".[figures]"') from None
    folder.mkdir(exist_ok=True)
    stems = make_file_stems([one.title for one in drawn])
    paths = [folder / f"{stems[one.title]}.{kind}" for one in drawn]
    figures = [make_print_copy(one) for one in drawn]
    size = {"width": [one.layout.width for one in figures], "height": [one.layout.height for one in figures]}
    try:
        plotly.io.write_images(figures, paths, format=kind, scale=2 if kind == "png" else 1, **size)
    except RuntimeError as error:  # kaleido raises it both if no browser is found and if it does not start
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"figures as {kind} need Chrome or Chromium, which kaleido could not start ({reason}): install one, "
            "or set BROWSER_PATH to it"
        ) from None
    return paths


def make_print_copy(one: ReportFigure) -> go.Figure:
    """Return a copy of the figure with a white background, the light theme's colours and a fixed width."""
    figure = go.Figure(one.figure)
    figure.update_layout(paper_bgcolor="white", font_color=TEXT, width=SMALL_PIXELS if one.small else WIDE_PIXELS)
    figure.update_layout(margin={"l": 12, "r": 16, "t": 12, "b": 12}, height=figure.layout.height or 380)
    return figure.update_xaxes(gridcolor=GRID, linecolor=AXIS).update_yaxes(gridcolor=GRID, linecolor=AXIS)
