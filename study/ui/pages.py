"""HTML of the live page from the templates in this folder, which share tables and styles with the report's.

A page is a template; the parts that change are its blocks, which are rendered one by one for updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from reports.page import render
from study.cli.list_studies import Overview, format_time
from study.cli.output import format_bytes
from study.ui.reading import StudyReading
from study.ui.updates import PageState

FOLDER = Path(__file__).parent

LIST_PARTS = ("studies",)
STUDY_PARTS = ("state", "cells", "running", "verdicts", "figures", "failures", "trials")


def render_page(template: str, state: PageState, **content: Any) -> str:
    """Return a whole page, with its parts in their present state."""
    return _environment().get_template(template).render(**content, parts=state.parts)


def render_list(studies: Iterable[Overview]) -> PageState:
    """Return the state of the list of studies."""
    return PageState(_render_parts("studies_parts.html", LIST_PARTS, {"studies": list(studies)}), {})


def render_study(study: StudyReading, can_act: bool) -> PageState:
    """Return the state of a study's page; with `can_act`, it has buttons while the study runs."""
    content = {"study": study, "status": study.status, "can_act": can_act and study.status.state == "running"}
    figures = {key: figure.figure.to_json() for key, figure in study.figures.items()}
    return PageState(_render_parts("study_parts.html", STUDY_PARTS, content), figures)


def render_problem(name: str, problem: str) -> PageState:
    """Return the state of the page of a study that cannot be read."""
    part = _render_parts("study_parts.html", ("problem",), {"name": name, "problem": problem})["problem"]
    return PageState({**dict.fromkeys(STUDY_PARTS, ""), "state": part}, {})


def _render_parts(template: str, names: Iterable[str], content: Mapping[str, Any]) -> dict[str, str]:
    found = _environment().get_template(template)
    context = found.new_context(dict(content))
    return {name: "".join(found.blocks[name](context)).strip() for name in names}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader([FOLDER, render.FOLDER]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(allow_breaks=render.allow_breaks, bytes=format_bytes, time=format_time)
    return environment
