"""All commands in one: python -m study COMMAND, also installed as kdstudy.

Exit codes: 0 done, 1 something failed, 2 bad input, 3 stopped by a cap or on request, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click
from click.shell_completion import CompletionItem, ShellComplete

from study.cli import run
from study.cli.list_studies import list_studies, render_list
from study.cli.on_head import answer_from_cluster
from study.cli.options import HELP, complete_study, storage_path_option
from study.cli.output import exit_on_errors, format_examples, make_console, to_json
from study.cli.show import render_status, watch_status
from study.cli.status import format_study_argument, read_status
from study.cli.streams import EnduringGroup
from study.errors import InputError
from study.records.progress import read_shown_study
from study.storage import remote

EXAMPLES = """
\b
Examples:
  python -m study doctor spaces/lp_cifar.py      check whether this machine can run it
  python -m study run spaces/lp_cifar.py         run it; the same command continues it
  python -m study list                           all studies and their progress
  python -m study show lp_cifar --watch          one study while it runs
  python -m study stop lp_cifar                  interrupt it, from any shell
  python -m study resume lp_cifar                continue it
  python -m study new my_study                   write a commented space file to start from
"""
"""A \\b alone on its line keeps click from filling the paragraph."""

in_storage = storage_path_option("Where the studies lie: a folder or s3://BUCKET/PREFIX.")
study_argument = click.argument("study", shell_complete=complete_study)
address_option = click.option("--address", help="http://HOST:PORT of a cluster's dashboard: ask its head.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group(cls=EnduringGroup, epilog=EXAMPLES, context_settings=HELP)
@click.version_option(package_name="kdstudy", prog_name="kdstudy", message="%(prog)s %(version)s")
def main() -> None:
    """Run studies, follow their progress, stop and continue them."""


main.add_command(run.main, "run")

LATE_COMMANDS = {
    "doctor": ("study.cli.doctor", "Check whether this machine can run studies."),
    "report": ("reports.build", "Write the report of studies, also of unfinished ones."),
    "compare": ("reports.compare", "Show several studies next to each other on one page."),
    "export": ("reports.export", "Write trained students as safetensors and ONNX, with a model card."),
    "ui": ("study.ui.server", "Show the studies below a storage path live in a browser."),
}
"""Commands whose modules are imported only when they run: plotly and ONNX take seconds to import."""


def add_late_command(name: str, module: str, summary: str) -> None:
    """Add a command that hands all its arguments, --help included, to the command `main` of a module."""

    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        command = importlib.import_module(module).main
        words = list(ctx.params.get("arguments") or ())
        return ShellComplete(command, {}, f"kdstudy {name}", "").get_completions(words, incomplete)

    @main.command(name, help=summary, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument(
        "arguments",
        nargs=-1,
        type=click.UNPROCESSED,
        shell_complete=lambda ctx, _, incomplete: complete(ctx, incomplete),
    )
    def forward(arguments: tuple[str, ...]) -> None:
        importlib.import_module(module).main.main(list(arguments), prog_name=f"kdstudy {name}")

    forward.shell_complete = complete  # type: ignore[method-assign]


for name, (module, summary) in LATE_COMMANDS.items():
    add_late_command(name, module, summary)


@main.command(context_settings=HELP, epilog=format_examples("new my_study", "new spaces/my_study.py"))
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Write a commented space file to start from.

    FILE gets the suffix .py if it has none, and the study its name. An existing file is never overwritten.
    """
    from study.space_file import write_new_space

    with exit_on_errors():
        path = write_new_space(file)
    click.echo(f"wrote {path}; run it with: kdstudy run {path}")


@main.command(
    "list",
    context_settings=HELP,
    epilog=format_examples(
        "list", "list --storage-path /data/runs --json | jq '.[].name'", "list --address http://127.0.0.1:8265"
    ),
)
@in_storage
@address_option
@json_option
def list_(storage_path: str, address: str | None, as_json: bool) -> None:
    """List all studies and their progress.

    A trial counts as done when it has ended, in whatever state. "last row" is the time of the last write.
    """
    if address is not None:
        answer_from_cluster(address)
    with exit_on_errors():
        studies = list_studies(remote.open_storage(storage_path))
    if as_json:
        click.echo(to_json([asdict(study) for study in studies]))
        return
    if not studies:
        click.echo(f"no studies below {storage_path}")
        return
    make_console().print(render_list(studies))
    for study in studies:
        if study.problem:
            click.echo(f"{study.name}: {study.problem}")


@main.command(
    context_settings=HELP,
    epilog=format_examples("show lp_cifar", "show lp_cifar --watch", "show /data/runs/lp_cifar --json",
                           "show lp_cifar --address http://127.0.0.1:8265",
                           "show lp_cifar --space > spaces/lp_cifar.py"),
)  # fmt: skip
@study_argument
@in_storage
@address_option
@click.option("--watch", is_flag=True, help="Redraw every 2 s until Ctrl-C; less often from a cluster.")
@click.option("--space", is_flag=True, help="Print only the space file that it was run with.")
@json_option
def show(study: str, storage_path: str, address: str | None, watch: bool, space: bool, as_json: bool) -> None:
    """Show one study: its cells, running trials and failures.

    STUDY is a name below the storage path, or a path. Only reads, also while the study runs.
    """
    if watch + space + as_json > 1:
        raise click.UsageError("--watch, --space and --json exclude each other: give one of them")
    with exit_on_errors():
        if watch and not sys.stdout.isatty():
            raise InputError("--watch needs a terminal: repeat the command with --json instead")
        if address is not None:
            answer_from_cluster(address, study, watch)
        folder = remote.find_study(study, storage_path)
        if space:
            from study.cli.resume import encode_source, read_source

            click.echo(encode_source(read_source(folder, read_shown_study(folder))), nl=False)
        elif as_json:
            click.echo(to_json(asdict(read_status(folder))))
        elif not watch:
            make_console().print(render_status(read_status(folder)), soft_wrap=True)
        else:
            watch_status(lambda: render_status(read_status(remote.refresh_copy(folder))), make_console())


@main.command(
    context_settings=HELP | {"ignore_unknown_options": True},
    epilog=format_examples("resume lp_cifar", "resume lp_cifar --trials 40", "resume lp_cifar --retry-failed"),
)
@study_argument
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@in_storage
def resume(study: str, options: tuple[str, ...], storage_path: str) -> None:
    """Continue a study with its last command.

    The command is recorded in its study.json. OPTIONS are those of run and override the recorded ones. Failed trials
    run again only with --retry-failed.
    """
    from study.cli.resume import resume_study

    with exit_on_errors():
        resume_study(remote.find_study(study, storage_path), options)


@main.command(
    context_settings=HELP,
    epilog=format_examples(
        "stop lp_cifar", "stop lp_cifar --wait 300", "stop lp_cifar --address http://127.0.0.1:8265"
    ),
)
@study_argument
@in_storage
@address_option
@click.option("--wait", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Maximum wait in seconds.")
def stop(study: str, storage_path: str, address: str | None, wait: float) -> None:
    """Ask a running study to stop, and wait until it has.

    As with Ctrl-C, all rows are written, and running trials continue from their checkpoints when the study is resumed.
    Exit code 1 if it still runs after the wait; the request stays in force.
    """
    if address is not None:
        answer_from_cluster(address, study)
    with exit_on_errors():
        folder = remote.find_study(study, storage_path)
        was_running, began = bool(remote.find_driver(folder)), time.monotonic()
        driver = remote.stop_study(folder, wait)
        finished = read_shown_study(remote.refresh_copy(folder))["finished"]
    next_step = f"continue with: python -m study resume {format_study_argument(folder)}"
    next_step = "it is finished" if finished else next_step
    if driver:
        click.echo(f"{folder.name} was asked to stop, and {driver} still runs it after {wait:g} s", err=True)
        sys.exit(1)
    if not was_running:
        click.echo(f"{folder.name} does not run; {next_step}")
    else:
        click.echo(f"{folder.name} stopped after {time.monotonic() - began:.1f} s; {next_step}")


if __name__ == "__main__":
    main()
