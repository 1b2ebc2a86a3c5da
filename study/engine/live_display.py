"""The progress display of a run: a table of cells with a time estimate, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from statistics import mean

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.engine.cell import CellProgress
from study.engine.coordinator import Coordinator
from study.trial import TrialState

REFRESH_SECONDS = 0.25
LINE_SECONDS = 20.0
"""Interval of progress lines without a terminal."""


class LiveDisplay:
    """The display of one run; call `update` after every change, it redraws at most every REFRESH_SECONDS."""

    def __init__(self, coordinator: Coordinator, console: Console, concurrent: int):
        self._coordinator, self._console, self._concurrent = coordinator, console, concurrent
        self._live: Live | None = None
        self._last_drawn = self._started = time.monotonic()
        self._phases: dict[str, str] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the table while the context is open, if the console is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def update(self) -> None:
        now = time.monotonic()
        if self._live is not None:
            if now - self._last_drawn > REFRESH_SECONDS:
                self._last_drawn = now
                self._live.update(self._render(), refresh=True)
            return
        for name, cell in self._coordinator.cells.items():
            phase = _name_phase(cell)
            if phase != self._phases.setdefault(name, "waiting"):
                self._phases[name] = phase
                self._print_line(f"{name}: {phase}")
        if now - self._last_drawn > LINE_SECONDS:
            self._print_line(self._format_progress())

    def _print_line(self, line: str) -> None:
        self._last_drawn = time.monotonic()
        self._console.print(
            f"[{_format_clock(self._last_drawn - self._started)}] {line}", markup=False, highlight=False, soft_wrap=True
        )

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("cell", "phase", "search", "stopped", "failed", "best val", "confirm"):
            table.add_column(column, justify="left" if column in ("cell", "phase") else "right")
        for cell in self._coordinator.cells.values():
            table.add_row(*_make_table_row(cell))
        done, planned = self._count_epochs()
        bar = Padding(ProgressBar(total=max(planned, 1), completed=done, width=60), (1, 0, 0, 0))
        return Group(table, bar, Text(self._format_progress(), style="dim"))

    def _format_progress(self) -> str:
        done, planned = self._count_epochs()
        preparation = self._format_preparation()
        eta = self._format_eta(planned - done)
        share = f"{100 * done / planned:.0f} %" if planned else "done"
        return f"{preparation}{share} of {planned} epochs · {eta}"

    def _format_preparation(self) -> str:
        steps = [run for run in self._coordinator.running.values() if run.trial.phase == "prepare"]
        if not steps:
            return ""
        left = len(self._coordinator.queue.preparations)
        more = f" and {left - 1} more to prepare" if left > 1 else ""
        return f"{steps[0].trial.arm} {steps[0].epochs_done}/{steps[0].trial.epochs} epochs{more} · "

    def _count_epochs(self) -> tuple[int, int]:
        """Return the number of epochs done and planned; search trials to come count the mean epochs of ended ones."""
        done = planned = 0
        coordinator, full = self._coordinator, self._coordinator.study.budget.epochs
        for cell in coordinator.cells.values():
            lengths = list(cell.search.epochs.values())
            expected = mean(lengths) if lengths else cell.search.runs * full / max(1, cell.search.trials)
            left = cell.search.trials - len(lengths)
            confirmed = sum(state is not None for state in cell.confirmed.values())
            done += sum(lengths) + confirmed * full
            planned += round(sum(lengths) + left * expected) + cell.planned_confirms * full
        running = sum(run.epochs_done for run in coordinator.running.values() if run.trial.phase != "prepare")
        return done + running, max(planned, done + running)

    def _format_eta(self, epochs_left: int) -> str:
        if not self._coordinator.epoch_seconds:
            return "no estimate yet"
        seconds = mean(self._coordinator.epoch_seconds) * epochs_left / self._concurrent
        return f"about {_format_clock(seconds)} left"


def _name_phase(cell: CellProgress) -> str:
    if cell.problem:
        return f"failed: {cell.problem}"
    if cell.done:
        return "confirmed"
    if cell.search.trials and not cell.search.done:
        return "searching" if cell.search.params else "waiting"
    return "confirming" if cell.confirmed else "waiting"


def _make_table_row(cell: CellProgress) -> list[Text | str]:
    search = cell.search
    states = [state for state, _ in search.ended.values()]
    best = search.ended[search.best_number][1] if search.best_number is not None else None
    failed = states.count(TrialState.FAILED) + list(cell.confirmed.values()).count(TrialState.FAILED)
    confirmed = sum(state is TrialState.COMPLETE for state in cell.confirmed.values())
    return [
        Text(cell.name),  # a name may look like markup
        _name_phase(cell).split(":")[0],
        f"{len(states)}/{search.trials}" if search.trials else "–",
        str(states.count(TrialState.PRUNED) or "–"),
        str(failed or "–"),
        f"{best:.4g}" if best is not None else "–",
        f"{confirmed}/{cell.planned_confirms}",
    ]


def _format_clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
