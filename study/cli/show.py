"""python -m study show: a study's status on the terminal, as a table of cells with its running and failed trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from study.cli.list_studies import format_time
from study.cli.status import StudyStatus, StudyUsage, TrialStatus
from study.space.params import format_setting

WATCH_SECONDS = 2.0
MAX_READING_SHARE = 0.2
"""Maximum processor time of a reading relative to the pause after it: reading takes a core from the trials."""


def render_status(study: StudyStatus) -> Group:
    """Return the status as text and tables."""
    by = f" by {study.by}" if study.by else ""
    parts: list[Table | Text] = [Text(f"{study.name}: {study.question}"), Text(f"{study.state}{by}\n", style="dim")]
    parts += [_render_cells(study), *_format_best(study)]
    if study.running:
        parts += [Text("\nrunning now" if study.by else "\nresumed first"), _render_running(study)]
    if study.failed:
        parts += [Text("\nfailed"), *(_format_failure(trial) for trial in study.failed)]
    return Group(*parts, Text(f"\n{_format_usage(study.used)}"), Text(study.next, style="dim"))


def watch_status(draw: Callable[[], RenderableType], console: Console) -> None:
    """Redraw every WATCH_SECONDS until Ctrl-C, less often if reading takes much processor time."""
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            began = time.thread_time()
            live.update(draw(), refresh=True)
            time.sleep(max(WATCH_SECONDS, (time.thread_time() - began) / MAX_READING_SHARE))


def _render_cells(study: StudyStatus) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    titles = ("cell", "phase", "search", "stopped", "failed", f"best {study.metric}", "confirm", study.test_metric)
    for title in titles:
        table.add_column(Text(title), justify="left" if title in ("cell", "phase") else "right")
    for cell in study.cells:
        spread = f" ± {cell.test_std:.2g}" if cell.test_std is not None else ""
        table.add_row(
            Text(cell.cell),
            Text(cell.phase, style="red" if cell.phase == "failed" else ""),
            f"{cell.searched}/{cell.to_search}" if cell.to_search else "–",
            str(cell.stopped or "–"),
            str(cell.failed or "–"),
            f"{cell.best:.4g}" if cell.best is not None else "–",
            f"{cell.confirmed}/{cell.to_confirm}",
            f"{cell.test_mean:.4g}{spread}" if cell.test_mean is not None else "–",
        )
    return table


def _format_best(study: StudyStatus) -> list[Text]:
    """Return a line with the best parameters so far for each searched cell."""
    lines = []
    for cell in study.cells:
        settings = ", ".join(f"{name} {format_setting(value)}" for name, value in cell.best_params.items())
        lines += [Text(f"best of {cell.cell}: {settings}")] if settings else []
    return lines


def _render_running(study: StudyStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for trial in study.running:
        table.add_row(
            trial.trial,
            Text(f"{trial.cell}, {trial.phase}" + ("" if trial.phase == "prepare" else f" {trial.number}")),
            f"epoch {trial.epoch}/{trial.epochs}",
            Text(trial.worker),
            f"started {format_time(trial.started)}",
        )
    return table


def _format_failure(trial: TrialStatus) -> Text:
    where = f"\n  {trial.traceback}" if trial.traceback else ""
    at = f"{trial.trial}  {trial.cell}, {trial.phase} {trial.number}, epoch {trial.epoch}/{trial.epochs}"
    return Text(f"{at}: {trial.reason}{where}")


def _format_usage(used: StudyUsage) -> str:
    wall = f" of {used.most_wall_hours:g}" if used.most_wall_hours is not None else ""
    gpu = f" of {used.most_gpu_hours:g}" if used.most_gpu_hours is not None else ""
    hours = f"{used.wall_hours:.2f}{wall} hours, {used.gpu_hours:.2f}{gpu} GPU hours"
    return f"used: {used.epochs:,} epochs, {hours}" + (f", {used.usd:,.2f} USD" if used.usd is not None else "")
