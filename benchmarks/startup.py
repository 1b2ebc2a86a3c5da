"""Time until a command answers: python -m benchmarks.startup [--quick].

`python -m study.run --help`, `python -m study list` of a storage without studies, and the dry run of `lp_cifar` on
scikit-learn's digits, each in a new process, in turn. Wall time is what a user waits for and grows with the machine's
other work; processor time, of the process and its children, hardly does. Bytecode and the system's file cache are warm:
the first round does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.reporting import describe_machine, format_result, format_spread, format_table

ROOT = Path(__file__).parents[1]
GOALS = {"help": 0.7, "list": 0.8, "dry_run": 3.0}
"""Seconds of wall time."""


def list_commands(storage: Path) -> dict[str, list[str]]:
    """Return the words of each command after `python -m`, by the names of `GOALS`."""
    return {
        "help": ["study.run", "--help"],
        "list": ["study", "list", "--storage-path", str(storage)],
        "dry_run": ["study.run", "spaces/lp_cifar.py", "--dry-run", "--storage-path", str(storage)],
    }


def time_command(words: list[str]) -> tuple[float, float]:
    """Run a command; return its wall time and its processor time in seconds."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


@click.command()
@click.option("--quick", is_flag=True, help="A single round, and none before it.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1), help="Rounds that count.")
def main(quick: bool, rounds: int) -> None:
    """Measure how long commands take to answer."""
    rounds, warm_ups = (1, 0) if quick else (rounds, 1)
    print("\n".join([*describe_machine(), f"rounds   {rounds}\n"]))
    with tempfile.TemporaryDirectory(prefix="kdstudy-startup-") as temporary:
        commands = list_commands(Path(temporary))
        times = [{name: time_command(words) for name, words in commands.items()} for _ in range(warm_ups + rounds)]
    times = times[warm_ups:]
    rows, results = [["command", "wall time, s", "processor time, s", "goal, s"]], []
    for name, words in commands.items():
        wall, processor = ([taken[name][kind] for taken in times] for kind in (0, 1))
        label = " ".join(["python -m", *words]).replace(temporary, "…")
        rows.append([label, format_spread(wall, 2), format_spread(processor, 2), f"{GOALS[name]:.1f}"])
        results += [format_result(f"{name}_wall", wall, "s"), format_result(f"{name}_processor", processor, "s")]
    print(format_table(rows) + "\n")
    missed = [name for name in commands if statistics.median(taken[name][0] for taken in times) > GOALS[name]]
    print(f"goals    {'all reached' if not missed else 'missed: ' + ', '.join(missed)}\n")
    print("\n".join(results))


if __name__ == "__main__":
    main()
