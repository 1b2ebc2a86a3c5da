"""What a run shows while it runs: a table of cells with an estimate, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
from study.trial import EpochResult, Trial, TrialState

REFRESH_SECONDS = 0.25
LINE_SECONDS = 20.0


class Display:
    """Call `update` after every change; it redraws as often as is useful."""

    def __init__(self, flow: Coordinator, console: Console, concurrent: int):
        self._flow, self._console, self._concurrent = flow, console, concurrent
        self._live: Live | None = None
        self._drawn = self._started = time.monotonic()
        self._phases: dict[str, str] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def update(self) -> None:
        now = time.monotonic()
        if self._live is not None:
            if now - self._drawn > REFRESH_SECONDS:
                self._drawn = now
                self._live.update(self._render(), refresh=True)
            return
        for name, cell in self._flow.cells.items():
            phase = _phase(cell)
            if phase != self._phases.setdefault(name, "waiting"):
                self._phases[name] = phase
                self._say(f"{name}: {phase}")
        if now - self._drawn > LINE_SECONDS:
            self._say(self._progress_line())

    def _say(self, line: str) -> None:
        self._drawn = time.monotonic()
        self._console.print(
            f"[{_clock(self._drawn - self._started)}] {line}", markup=False, highlight=False, soft_wrap=True
        )

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("cell", "phase", "search", "stopped", "failed", "best val", "confirm"):
            table.add_column(column, justify="left" if column in ("cell", "phase") else "right")
        for cell in self._flow.cells.values():
            table.add_row(*_table_row(cell, self._flow))
        done, planned = self._epochs()
        bar = Padding(ProgressBar(total=max(planned, 1), completed=done, width=60), (1, 0, 0, 0))
        return Group(table, bar, Text(self._progress_line(), style="dim"))

    def _progress_line(self) -> str:
        done, planned = self._epochs()
        what = self._preparing()
        eta = self._eta(planned - done)
        share = f"{100 * done / planned:.0f} %" if planned else "done"
        return f"{what}{share} of {planned} epochs · {eta}"

    def _preparing(self) -> str:
        steps = [run for run in self._flow.running.values() if run.trial.phase == "prepare"]
        if not steps:
            return ""
        left = len(self._flow.preparations)
        more = f" and {left - 1} more to prepare" if left > 1 else ""
        return f"{steps[0].trial.arm} {steps[0].epochs_done}/{steps[0].trial.epochs} epochs{more} · "

    def _epochs(self) -> tuple[int, int]:
        """Epochs done, and epochs there will be: search trials not yet run count as long as those that ended did."""
        done = planned = 0
        flow, full = self._flow, self._flow.study.budget.epochs
        for cell in flow.cells.values():
            lengths = list(cell.search_epochs.values())
            expected = mean(lengths) if lengths else full
            left = cell.trials - len(lengths)
            confirmed = sum(state is not None for state in cell.confirmed.values())
            done += sum(lengths) + confirmed * full
            planned += round(sum(lengths) + left * expected) + flow.study.budget.seeds * full
        under_way = sum(run.epochs_done for run in flow.running.values() if run.trial.phase != "prepare")
        return done + under_way, max(planned, done + under_way)

    def _eta(self, epochs_left: int) -> str:
        if not self._flow.epoch_seconds:
            return "no estimate yet"
        seconds = mean(self._flow.epoch_seconds) * epochs_left / self._concurrent
        return f"about {_clock(seconds)} left"


class ConsoleTracker:
    """A line for each trial that ends: a tracker (study/trackers/base.py) on the terminal."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._last: dict[str, EpochResult] = {}

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self._last[trial.id] = row

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        row = self._last.pop(trial.id, None)
        scores = [f"{name} {value:.4g}" for name, value in row["metrics"].items()] if row else []
        told = [f"epoch {row['epoch']}/{trial.epochs}" if row else "no epoch", *scores]
        told += [f"{name}={value}" for name, value in trial.params.items()]
        why = f" ({reason})" if reason else ""
        self._say(f"{trial.cell}, {trial.phase} {trial.number}: {state}{why} · {' · '.join(told)}")

    def close(self) -> None:
        """Every line is said when it is known."""


def _phase(cell: CellProgress) -> str:
    if cell.problem:
        return f"failed: {cell.problem}"
    if cell.done:
        return "confirmed"
    if cell.trials and not cell.search_done:
        return "searching" if cell.params else "waiting"
    return "confirming" if cell.confirmed else "waiting"


def _table_row(cell: CellProgress, flow: Coordinator) -> list[str]:
    states = [state for state, _ in cell.searched.values()]
    best = cell.searched[cell.best][1] if cell.best is not None else None
    failed = states.count(TrialState.FAILED) + list(cell.confirmed.values()).count(TrialState.FAILED)
    confirmed = sum(state is TrialState.COMPLETE for state in cell.confirmed.values())
    return [
        cell.name,
        _phase(cell).split(":")[0],
        f"{len(states)}/{cell.trials}" if cell.trials else "–",
        str(states.count(TrialState.PRUNED) or "–"),
        str(failed or "–"),
        f"{best:.4g}" if best is not None else "–",
        f"{confirmed}/{flow.study.budget.seeds}",
    ]


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
