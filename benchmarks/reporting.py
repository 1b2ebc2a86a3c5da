"""Output that all benchmarks share: the machine, aligned tables, and `RESULT name value unit` lines for programs."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch


def describe_machine() -> list[str]:
    """Return processor, load, library and commit, one line each. The load counts: a busy machine widens all spreads."""
    return [
        f"cpu      {_read_processor_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at start",
        f"torch    {torch.__version__}, {torch.get_num_threads()} thread(s)",
        f"commit   {_read_commit()}",
    ]


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text with aligned columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def format_spread(values: Sequence[float], digits: int = 0) -> str:
    """Return `median (min–max)`."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def format_result(name: str, values: Sequence[float], unit: str) -> str:
    """Return the line that programs read: the median of the values."""
    return f"RESULT {name} {statistics.median(values):.4g} {unit}"


def _read_processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read_commit() -> str:
    """Return the commit's short hash, with `+` if tracked files differ from it; "unknown" outside a git checkout."""
    try:
        commit = _run_git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _run_git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _run_git(*arguments: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()
