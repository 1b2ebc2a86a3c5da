"""Commands with --address http://HOST:PORT: they run on the head of that cluster, and their output is printed here."""

from __future__ import annotations

import re
import sys
from typing import NoReturn

import click
from click.core import ParameterSource
from rich.text import Text

from study.cli.output import exit_on_errors, make_console
from study.cli.show import watch_status
from study.cluster import jobs
from study.errors import InputError


def answer_from_cluster(address: str, study: str = "", watch: bool = False) -> NoReturn:
    """Run this command on the head of the cluster, print its output, and exit with its code."""
    context = click.get_current_context()
    words = [str(context.info_name), *_collect_words(context)]
    is_for_machines = bool({"--json", "--space"} & set(words))

    def adapt(answer: str) -> str:
        return answer if is_for_machines else _adapt_next_steps(answer, address)

    def draw() -> Text:
        answer, code = jobs.run_on_head(address, words, study)
        if code:
            raise InputError(answer.strip().removeprefix("error: "))
        return Text(adapt(answer))

    with exit_on_errors():
        if watch:
            watch_status(draw, make_console())
            sys.exit(0)
        answer, code = jobs.run_on_head(address, words, study)
    click.echo(adapt(answer), nl=False, err=code != 0)
    sys.exit(code)


def _adapt_next_steps(output: str, address: str) -> str:
    """Return the head's output with its suggested commands as they are typed on this machine."""
    output = re.sub(r"python -m study stop \S+", rf"\g<0> --address {address}", output)
    return re.sub(r"python -m study resume \S+", "the command that it was submitted with", output)


def _collect_words(context: click.Context) -> list[str]:
    """Return the typed command line as words for another one, except --address and --watch."""
    words: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name in ("address", "watch"):
            continue
        value = context.params[name]
        values = [str(item) for item in (value if isinstance(value, tuple) else (value,))]
        if isinstance(parameter, click.Argument):
            words += values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[-1])
        else:
            words += [word for item in values for word in (parameter.opts[-1], item)]
    return words
