"""What all benchmarks print: where they ran, aligned tables, and `RESULT name value unit` lines for programs."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch


def machine() -> list[str]:
    """Processor, library and commit, a line each; with the load, since a busy machine widens all spreads."""
    return [
        f"cpu      {_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at start",
        f"torch    {torch.__version__}, {torch.get_num_threads()} thread(s)",
        f"commit   {_commit()}",
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one its head, columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`median (min–max)`."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def result(name: str, values: Sequence[float], unit: str) -> str:
    """The line that a program reads: the median."""
    return f"RESULT {name} {statistics.median(values):.4g} {unit}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit's short name, `+` if files that git tracks differ from it."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()
