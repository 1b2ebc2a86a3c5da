"""Make the pictures of README.md and docs/, and the sample report: python docs/make_pictures.py runs/lp_cifar.

Chromium takes the pictures of that study's report, and of the live page while the same study runs again, in a temporary
folder; the terminal's is what `kdstudy show` prints meanwhile, as SVG. The sample report is a single file: the links to
the data of its figures hold the data.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from rich.console import Console

from study.cli.show import render_status
from study.cli.status import StudyStatus, read_status
from study.records.paths import StudyPaths

HERE = Path(__file__).resolve().parent
PICTURES = HERE / "pictures"

WIDTH = 1100
REPORT_HEIGHT = 1040
"""Pixels: the answer and the comparison table."""
LIVE_HEIGHT = 1240
"""The cells, what runs, and that verdicts are not final."""

SCHEMES = (("light", "1"), ("dark", "0"))
"""Names of the two pictures of a page, with Chromium's number of the preferred colours."""

STUDY = ("study", "run", "lp_cifar", "--quiet")
CONFIRMED_SHARE = 0.4
"""Share of confirm runs that have ended when the live page is taken: it then has verdicts, all of them provisional."""

POLL_SECONDS = 0.5


def main(study: Path) -> None:
    """Write docs/pictures/ and docs/sample-report.html."""
    PICTURES.mkdir(exist_ok=True)
    (HERE / "sample-report.html").write_text(embed_data(study / "report.html"), encoding="utf-8")
    take_pictures((study / "report.html").resolve().as_uri(), "report", REPORT_HEIGHT)
    with tempfile.TemporaryDirectory() as folder, chdir(folder), run_module(*STUDY) as running:
        status = wait_for_confirm_runs(Path("runs/lp_cifar"), running)
        with run_module("study", "ui", "--port", "0") as server:
            take_pictures(read_address(server).replace("/?", "/study/lp_cifar?"), "live", LIVE_HEIGHT)
    write_terminal(status)


def embed_data(page: Path) -> str:
    """Return a report whose links to figures/*.csv are data: links with the files' text."""
    return re.sub(
        r'href="(figures/[^"]+)"',
        lambda link: f'href="{_make_data_link(page.parent / unquote(link[1]))}"',
        page.read_text(encoding="utf-8"),
    )


def _make_data_link(path: Path) -> str:
    return f"data:text/csv;charset=utf-8,{quote(path.read_text(encoding='utf-8'))}"


@contextmanager
def run_module(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m` with these words, and end it with the context."""
    process = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for_confirm_runs(folder: Path, running: subprocess.Popen[str]) -> StudyStatus:
    """Return the status of a running study once CONFIRMED_SHARE of its confirm runs have ended."""
    while running.poll() is None:
        time.sleep(POLL_SECONDS)
        if not StudyPaths(folder).study_json.is_file():
            continue
        status = read_status(folder)
        confirmed, planned = (sum(getattr(cell, name) for cell in status.cells) for name in ("confirmed", "to_confirm"))
        if status.running and confirmed >= CONFIRMED_SHARE * planned:
            return status
    raise SystemExit(f"the study ended with exit code {running.returncode} before a picture was taken")


def read_address(server: subprocess.Popen[str]) -> str:
    """Return the address that `kdstudy ui` prints."""
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise SystemExit("kdstudy ui printed no address")


def take_pictures(address: str, name: str, height: int) -> None:
    """Write the top of a page as PNG in both colours."""
    for scheme, setting in SCHEMES:
        with tempfile.TemporaryDirectory() as profile:
            options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"]
            options += [f"--blink-settings=preferredColorScheme={setting}", f"--window-size={WIDTH},{height}"]
            options += [f"--screenshot={PICTURES / f'{name}-{scheme}.png'}"]
            subprocess.run(["chromium", *options, address], check=True, capture_output=True)


def write_terminal(status: StudyStatus) -> None:
    """Write what `kdstudy show` prints as SVG."""
    console = Console(record=True, width=120, file=sys.stderr)
    console.print(render_status(status))
    svg = console.export_svg(title="kdstudy show lp_cifar")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts from another host
    (PICTURES / "terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
