"""The blocks that make up a section of the page. page/blocks.html has one macro for each class."""

from __future__ import annotations

from dataclasses import dataclass

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
    | Gallery
)
