"""The blocks that make up a section of the page. page/blocks.html has one macro for each class."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.examples.images import Gallery
from reports.figures.style import ReportFigure
from reports.format.settings import Setting
from reports.format.table import Table


@dataclass(frozen=True)
class Heading:
    """A heading below the section's own."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; a note is smaller and grey."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class FigureGrid:
    """Small figures next to each other, with a common title and caption."""

    title: str
    caption: str
    figures: tuple[ReportFigure, ...]


@dataclass(frozen=True)
class SettingsList:
    """The study's settings as a nested list."""

    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class BulletList:
    """One bullet for each text."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class SourceFile:
    """The text of a file, folded."""

    name: str
    text: str


@dataclass(frozen=True)
class FoldedTable:
    """A table below its caption, folded."""

    table: Table


@dataclass(frozen=True)
class FilteredTable:
    """A large table as data, of which page/filter.js shows the rows that match menus and text.

    `filters` names the columns that get a menu.
    """

    table: Table
    filters: tuple[str, ...]

    @property
    def menus(self) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
        """Position, title and options of each menu; columns of one word alone have none."""
        columns = self.table.columns
        options = ((columns.index(name), name, tuple(dict.fromkeys(self._get_column(name)))) for name in self.filters)
        return tuple(menu for menu in options if len(menu[2]) > 1)

    @property
    def data(self) -> str:
        """The rows by column as JSON, deflated and in base64: a tenth of the size, with thousands of long settings."""
        columns = [encode_column(self._get_column(name)) for name in self.table.columns]
        content = {"columns": columns, "align": self.table.align, "kinds": self.table.kinds}
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return base64.b64encode(zlib.compress(text.encode(errors="replace"), 9)).decode()

    def _get_column(self, name: str) -> tuple[str, ...]:
        at = self.table.columns.index(name)
        return tuple(row[at] for row in self.table.rows)


def encode_column(cells: Sequence[str]) -> dict[str, list[Any]]:
    """Return a column as its words, with the place of each row's word among them if words repeat."""
    places = {word: place for place, word in enumerate(dict.fromkeys(cells))}
    if len(places) == len(cells):
        return {"words": [*cells]}
    return {"words": [*places], "places": [places[cell] for cell in cells]}


Block = (
    Heading
    | Paragraph
    | Table
    | ReportFigure
    | FigureGrid
    | SettingsList
    | BulletList
    | SourceFile
    | FoldedTable
    | FilteredTable
    | Gallery
)
