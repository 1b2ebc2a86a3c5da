"""The tracker of --verbose: one line on the terminal for each trial that ends."""

from __future__ import annotations

from collections.abc import Callable

from study.trial import EpochResult, Trial, TrialState


class ConsoleTracker:
    """Prints a trial's cell, number, state, last metrics and parameters when it ends."""

    def __init__(self, print_line: Callable[[str], None]):
        self._print_line = print_line
        self._last: dict[str, EpochResult] = {}

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self._last[trial.id] = row

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        row = self._last.pop(trial.id, None)
        parts = [f"epoch {row['epoch']}/{trial.epochs}" if row else "no epoch"]
        parts += [f"{name} {value:.4g}" for name, value in row["metrics"].items()] if row else []
        parts += [f"{name}={value}" for name, value in trial.params.items()]
        because = f" ({reason})" if reason else ""
        self._print_line(f"{trial.cell}, {trial.phase} {trial.number}: {state}{because} · {' · '.join(parts)}")

    def close(self) -> None:
        """Do nothing: each line is printed at once."""
