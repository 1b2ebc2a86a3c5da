"""Make the pictures of README.md and the sample report from a study: python docs/make_pictures.py runs/lp_cifar.

Chromium takes the pictures of the report; the terminal's is what `kdstudy show` prints, as SVG. The sample report is a
single file: the links to the data of its figures hold the data.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

from rich.console import Console

from study.cli.show import render_status
from study.cli.status import read_status

HERE = Path(__file__).parent
SIZE = "1100,1000"
"""Pixels: the answer and the comparison table."""


def main(study: Path) -> None:
    """Write docs/pictures/ and docs/sample-report.html."""
    pictures = HERE / "pictures"
    pictures.mkdir(exist_ok=True)
    (HERE / "sample-report.html").write_text(embed_data(study / "report.html"), encoding="utf-8")
    for scheme, setting in (("light", "1"), ("dark", "0")):
        take_picture(study / "report.html", pictures / f"report-{scheme}.png", f"preferredColorScheme={setting}")
    console = Console(record=True, width=120, file=sys.stderr)
    console.print(render_status(read_status(study)))
    svg = console.export_svg(title=f"kdstudy show {study.name}")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts from another host
    (pictures / "terminal.svg").write_text(svg, encoding="utf-8")


def embed_data(page: Path) -> str:
    """Return a report whose links to figures/*.csv are data: links with the files' text."""
    return re.sub(
        r'href="(figures/[^"]+)"',
        lambda link: f'href="{_make_data_link(page.parent / unquote(link[1]))}"',
        page.read_text(encoding="utf-8"),
    )


def _make_data_link(path: Path) -> str:
    return f"data:text/csv;charset=utf-8,{quote(path.read_text(encoding='utf-8'))}"


def take_picture(page: Path, picture: Path, settings: str) -> None:
    """Write the top of a page as PNG, as Chromium shows it under these settings of its renderer."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"]
        options += [f"--blink-settings={settings}", f"--window-size={SIZE}", f"--screenshot={picture.resolve()}"]
        subprocess.run(["chromium", *options, page.resolve().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
