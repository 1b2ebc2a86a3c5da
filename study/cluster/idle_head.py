"""Shut down the head of a cluster that has been idle: python -m study.cluster.idle_head --minutes 60.

cluster.yaml has cron run it on the head every five minutes. The machine stops and keeps its disk; the next `ray up`
starts it again. Idle is a head without workers, jobs, terminals in use and copies under way. A head whose Ray has ended
is idle, too: workers that it left behind are ended first.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click

from study.cluster.allocation import CLUSTER_FILE

LAST_BUSY = Path("~/.kdstudy-last-busy")
"""An empty file, touched whenever the head is found busy."""

DASHBOARD = "http://127.0.0.1:8265"

TERMINAL_SECONDS = 600
"""Time without input after which a terminal is not in use, such as that of `ray dashboard` or of an ended `tmux`."""

MOST = 10_000
"""Jobs and nodes that are listed; by default Ray lists the oldest 100."""


@click.command()
@click.option("--minutes", type=click.IntRange(min=10), default=60, show_default=True, help="Idle time before the end.")
def main(minutes: int) -> None:
    """Shut this machine down if its cluster has been idle for this long."""
    last_busy = LAST_BUSY.expanduser()
    if is_busy():
        last_busy.touch()
    idle_since = max(read_boot_time(), last_busy.stat().st_mtime if last_busy.exists() else 0.0)
    if time.time() - idle_since > minutes * 60:
        # if Ray has ended here, only this ends its workers
        ray, config = Path(sys.executable).with_name("ray"), CLUSTER_FILE.expanduser()
        subprocess.run(["timeout", "600", str(ray), "down", "--yes", "--workers-only", str(config)], check=False)
        subprocess.run(["sudo", "shutdown", "-h", "now"], check=True)


def read_boot_time() -> float:
    """Return when this machine started, in seconds since 1970."""
    return time.time() - float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])


def is_busy() -> bool:
    """Return whether a terminal is in use, files are copied, or the cluster has workers or a job."""
    logins = subprocess.run(["who"], capture_output=True, check=True).stdout.decode().splitlines()
    if is_running("rsync") or any(is_used(Path("/dev") / login.split()[1]) for login in logins):
        return True
    return is_running("gcs_server") and uses_cluster()


def is_used(terminal: Path) -> bool:
    """Return whether a terminal had input lately; true if that cannot be found out."""
    try:
        return time.time() - terminal.stat().st_atime < TERMINAL_SECONDS
    except OSError:
        return True


def is_running(process: str) -> bool:
    return subprocess.run(["pgrep", "-x", process], stdout=subprocess.DEVNULL, check=False).returncode == 0


def uses_cluster() -> bool:
    """Return whether the cluster has a job that runs or a node other than the head; true if it does not answer."""
    from ray.util.state import list_jobs, list_nodes

    try:
        jobs = list_jobs(DASHBOARD, limit=MOST, raise_on_missing_output=False)
        alive = [("state", "=", "ALIVE")]
        nodes = list_nodes(DASHBOARD, filters=alive, limit=MOST, raise_on_missing_output=False)
    except Exception:  # of any kind: a cluster that is in doubt is not ended
        return True
    return any(job.status in ("PENDING", "RUNNING") for job in jobs) or not all(node.is_head_node for node in nodes)


if __name__ == "__main__":
    main()
