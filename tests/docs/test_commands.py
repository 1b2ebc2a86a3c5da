"""README.md, docs/ and the clusters' files: every command of kdstudy in them is one, with options that it has."""

from __future__ import annotations

import importlib
import re
import shlex
from contextlib import suppress
from pathlib import Path

import click
import pytest

from study.cli.main import LATE_COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "cluster.yaml", *(path for path in (ROOT / "docs").iterdir() if path.is_file())]
MODULES = {"study.run": "run", "reports.build": "report", "reports.compare": "compare", "reports.export": "export"}
COMMAND = re.compile(r"(?:exec )?(?:kdstudy|python -m (study(?:\.run)?|reports\.\w+)) +(\w.*)")


def find_commands(text: str) -> list[list[str]]:
    """Return the words of each command that a line or a piece of code begins with, and of those behind && and |.

    Two spaces end a command; commands of `python -m` get the words that kdstudy has for them.
    """
    text = re.sub(r" *\\\n *", " ", text)
    pieces = [*re.findall(r"`([^`\n]+)`", text), *(line.lstrip("# ") for line in text.splitlines())]
    parts = [part.strip(" '") for piece in pieces for part in re.split(r"&&|\||;| > |  ", piece)]
    found = [match.groups() for part in parts if (match := COMMAND.fullmatch(part))]
    return [
        [*filter(None, [MODULES.get(module or "")]), *shlex.split(words, comments=True)]
        for module, words in found
        if words.count('"') % 2 == 0 and "…" not in words
    ]


def find_command(name: str) -> click.Command:
    return importlib.import_module(LATE_COMMANDS[name][0]).main if name in LATE_COMMANDS else main.commands[name]


def parse(words: list[str]) -> None:
    name, arguments = words[0], words[1:]
    command = find_command(name)
    while isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with suppress(click.MissingParameter):  # as in `kdstudy export best --space FILE`, of which a page names a part
        command.make_context(name, [*arguments])


CASES = {
    f"{page.name}: {shlex.join(words)}": words
    for page in PAGES
    if page.suffix in (".md", ".yaml", ".sh")
    for words in find_commands(page.read_text(encoding="utf-8"))
    if words[0] in main.commands and len(words) > 1
}


def test_commands_are_found_on_most_pages() -> None:
    assert len(CASES) > 50
    assert len({case.split(":")[0] for case in CASES}) > 10


@pytest.mark.parametrize("case", CASES)
def test_command_has_the_options_that_it_is_shown_with(case: str) -> None:
    parse(CASES[case])


@pytest.mark.parametrize("name", ["run", "list", "show", "stop", "resume", "doctor"])
def test_every_option_is_explained(name: str) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    options = [option.opts[-1] for option in find_command(name).params if isinstance(option, click.Option)]
    assert [option for option in options if f"`{option}" not in page] == []
