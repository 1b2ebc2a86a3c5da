"""Output that nobody reads, terminals of any encoding, streams that are closed, and systems without locks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

PRINT = r"""
import sys
from study.cli.streams import make_streams_endure
make_streams_endure()
import click
from rich.console import Console
for number in range(200):  # more than a pipe holds
    print("line", number)
    click.echo("→ × − é \udcff " + "x" * 500)
    Console().print("rich … ┃", markup=False)
    print("error", file=sys.stderr)
sys.stdout.flush()
open(sys.argv[1], "w").write("done")
"""


def run(words: str, code: str, path: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CODE": code, "PY": sys.executable, "DONE": str(path), **variables}
    return subprocess.run(
        ["bash", "-c", words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        '"$PY" -c "$CODE" "$DONE" | head -1',
        '"$PY" -c "$CODE" "$DONE" 2>&1 | head -1',
        '"$PY" -c "$CODE" "$DONE" | true',
        '"$PY" -u -c "$CODE" "$DONE" | head -c 3',
        '"$PY" -c "$CODE" "$DONE" >&-',
        '"$PY" -c "$CODE" "$DONE" <&- >&- 2>&-',
        '"$PY" -c "$CODE" "$DONE" 2>&-',
        '"$PY" -c "$CODE" "$DONE" > /dev/null',
    ],
)
def test_program_ends_its_work_without_a_reader(words: str, tmp_path) -> None:
    result = run(f"{words}; exit ${{PIPESTATUS[0]}}", PRINT, tmp_path / "done")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "done").read_text() == "done"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437", "ascii:strict"])
def test_characters_a_terminal_lacks_are_escaped(encoding: str, tmp_path) -> None:
    result = run(
        '"$PY" -c "$CODE" "$DONE" | tail -3 > "$DONE.txt"', PRINT, tmp_path / "done", PYTHONIOENCODING=encoding
    )
    assert (tmp_path / "done").is_file(), result.stderr
    text = (tmp_path / "done.txt").read_bytes()
    assert (b"\\u2026" in text) == (encoding != "utf-8"), "print and Rich escape; click itself writes UTF-8 to ASCII"
    assert (b"\\udcff" in text) == (not encoding.startswith("ascii"))


def test_terminal_that_is_closed_ends_nothing(tmp_path) -> None:
    terminal, program = pty.openpty()
    environment = {**os.environ, "CODE": PRINT}
    child = subprocess.Popen(
        [sys.executable, "-c", PRINT, str(tmp_path / "done")], stdout=program, stderr=program, env=environment
    )
    os.close(program)
    os.close(terminal)
    assert child.wait(60) == 0
    assert (tmp_path / "done").is_file()


def test_full_disk_is_named_and_ends_nothing(tmp_path) -> None:
    result = run('"$PY" -c "$CODE" "$DONE" > /dev/full', PRINT, tmp_path / "done")
    assert result.returncode == 0
    assert (tmp_path / "done").is_file()
    assert "output cannot be written (No space left on device) and is dropped" in result.stderr


def test_text_and_order_are_kept(tmp_path) -> None:
    result = run('"$PY" -c "$CODE" "$DONE"', PRINT.replace("200", "3"), tmp_path / "done", PYTHONIOENCODING="utf-8")
    assert [line[:6] for line in result.stdout.splitlines()][:3] == ["line 0", "→ × − ", "rich …"]
    assert result.stderr.count("error") == 3


MODULES = ["study.run", "reports.build", "reports.compare", "reports.export", "trainables.data.arrays.cache"]
"""One for all of the package that refuses, and those of others, which must not need locks before they import it."""


@pytest.mark.parametrize("module", MODULES)
def test_system_without_locks_is_refused_in_one_line(module: str) -> None:
    code = f"import sys; sys.modules['fcntl'] = None; import runpy; runpy.run_module({module!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: kdstudy runs on Linux and macOS; on Windows, install and run it in WSL 2\n"


@pytest.mark.parametrize(("words", "code"), [(["-OO"], 2), (["-O"], 0)])
def test_python_without_docstrings_is_refused_in_one_line(words: list[str], code: int) -> None:
    command = [sys.executable, *words, "-m", "study", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert result.stderr.count("\n") == (code > 0)
    assert code == 0 or "unset PYTHONOPTIMIZE" in result.stderr


@pytest.mark.parametrize("words", [["study.run", "x.py"], ["study", "list"]])
def test_current_folder_that_is_gone_is_one_line(words: list[str], tmp_path) -> None:
    code = 'mkdir gone && cd gone && rmdir ../gone && exec "$PY" -m ' + " ".join(words)
    environment = {**os.environ, "PY": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        ["bash", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert (
        result.stderr == "error: the current folder cannot be used (No such file or directory): change to another one\n"
    )
