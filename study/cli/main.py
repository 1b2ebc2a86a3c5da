"""All commands in one: python -m study COMMAND.

What each does lies in its own file. Exit codes: 0 done, 1 something failed, 2 bad input, 3 stopped by a cap or on
request, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.text import Text

from study.cli import doctor, run
from study.cli import list_studies as listing
from study.cli import resume as resuming
from study.cli import show as showing
from study.cli import status as standing
from study.cluster import jobs
from study.errors import InputError
from study.records.segments import RecordsError
from study.storage import remote
from study.storage.dataset import resolve_data_dir
from study.storage.locations import local_path

EXAMPLES = """
\b
Examples:
  python -m study doctor spaces/lp_cifar.py      can this machine run it?
  python -m study run spaces/lp_cifar.py         run it; the same command goes on with it
  python -m study list                           which studies are there, and how far?
  python -m study show lp_cifar --watch          this one, while it runs
  python -m study stop lp_cifar                  interrupt it, from any shell
  python -m study resume lp_cifar                go on with it
"""
"""An \\b alone on its line keeps click from filling the paragraph."""

HELP = {"help_option_names": ["-h", "--help"]}

storage_path_option = click.option(
    "--storage-path",
    type=click.Path(),
    default="runs",
    show_default=True,
    help="Where the studies lie: a folder, or s3://BUCKET/PREFIX.",
)
study_argument = click.argument("study")
address_option = click.option("--address", help="http://HOST:PORT of a cluster's dashboard: ask on its head.")
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Tell what the user can mend in one line, exit code 2."""
    try:
        yield
    except (InputError, RecordsError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def format_examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  python -m study {line}" for line in lines)


def to_json(value: Any) -> str:
    """Paths and times as text."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def answer_from_cluster(address: str, study: str = "", watch: bool = False) -> NoReturn:
    """Print what this very command answers on the head of the cluster there, and end as it does."""
    context = click.get_current_context()
    words = [str(context.info_name), *jobs.collect_command_words(context, "watch")]

    def told(answer: str) -> str:
        return (
            answer if {"--json", "--space"} & set(words) else jobs.adapt_next_steps(answer, address)
        )  # texts for machines

    def seen() -> Text:
        answer, code = jobs.run_on_head(address, words, study)
        if code:
            raise InputError(answer.strip().removeprefix("error: "))
        return Text(told(answer))

    with exit_on_errors():
        if watch:
            showing.watch(seen, make_console())
            sys.exit(0)
        answer, code = jobs.run_on_head(address, words, study)
    click.echo(told(answer), nl=False, err=code != 0)
    sys.exit(code)


def make_console() -> Console:
    """Tables are not squeezed where there is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


@click.group(epilog=EXAMPLES, context_settings=HELP)
@click.pass_context
def main(context: click.Context) -> None:
    """Run studies, see how far they are, stop them and go on with them."""
    if context.invoked_subcommand == "run" and sys.argv[1:2] == ["run"]:
        del sys.argv[1]  # study.run quotes the words it was given


main.add_command(run.main, "run")


@main.command(
    "list",
    context_settings=HELP,
    epilog=format_examples(
        "list", "list --storage-path /data/runs --json | jq '.[].name'", "list --address http://127.0.0.1:8265"
    ),
)
@storage_path_option
@address_option
@as_json
def list_(storage_path: str, address: str | None, as_json: bool) -> None:
    """Show which studies there are, and how far.

    A trial counts as done when it has ended, however it ended. The last row says when something was last written.
    """
    if address is not None:
        answer_from_cluster(address)
    with exit_on_errors():
        listed = listing.list_studies(remote.open_storage(storage_path))
    if as_json:
        click.echo(to_json([asdict(study) for study in listed]))
        return
    if not listed:
        click.echo(f"no studies below {storage_path}")
        return
    make_console().print(listing.render_list(listed))
    for study in listed:
        if study.problem:
            click.echo(f"{study.name}: {study.problem}")


@main.command(
    context_settings=HELP,
    epilog=format_examples("show lp_cifar", "show lp_cifar --watch", "show /data/runs/lp_cifar --json",
                    "show lp_cifar --address http://127.0.0.1:8265",
                    "show lp_cifar --space > spaces/lp_cifar.py"),
)  # fmt: skip
@study_argument
@storage_path_option
@address_option
@click.option("--watch", is_flag=True, help="Draw it anew every 2 s until Ctrl-C; less often from a cluster.")
@click.option("--space", is_flag=True, help="Print the space file that it was run with, and nothing else.")
@as_json
def show(study: str, storage_path: str, address: str | None, watch: bool, space: bool, as_json: bool) -> None:
    """Show one study: its cells, what runs, what failed.

    STUDY is a name below the storage path, or a path. Only reads, also while the study runs.
    """
    if watch + space + as_json > 1:
        raise click.UsageError("--watch, --space and --json do not go together")
    with exit_on_errors():
        if watch and not sys.stdout.isatty():
            raise InputError("--watch needs a terminal: use --json, and ask again")
        if address is not None:
            answer_from_cluster(address, study, watch)
        folder = listing.find_study(*remote.locate_study(study, storage_path))
        if space:
            click.echo(resuming.read_source(folder, listing.read_shown_study(folder)), nl=False)
        elif as_json:
            click.echo(to_json(asdict(standing.read_status(folder))))
        elif not watch:
            make_console().print(showing.render_status(standing.read_status(folder)), soft_wrap=True)
        else:
            showing.watch(
                lambda: showing.render_status(standing.read_status(remote.refresh_copy(folder))), make_console()
            )


@main.command(
    context_settings=HELP | {"ignore_unknown_options": True},
    epilog=format_examples("resume lp_cifar", "resume lp_cifar --trials 40", "resume lp_cifar --retry-failed"),
)
@study_argument
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@storage_path_option
def resume(study: str, options: tuple[str, ...], storage_path: str) -> None:
    """Go on with a study by its last command.

    The command is on record in its study.json. OPTIONS are those of run and take the place of the recorded ones.
    Failed trials are run again only if --retry-failed is among them.
    """
    with exit_on_errors():
        resuming.resume_study(listing.find_study(*remote.locate_study(study, storage_path)), options)


@main.command(
    context_settings=HELP,
    epilog=format_examples(
        "stop lp_cifar", "stop lp_cifar --wait 300", "stop lp_cifar --address http://127.0.0.1:8265"
    ),
)
@study_argument
@storage_path_option
@address_option
@click.option("--wait", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Seconds at most.")
def stop(study: str, storage_path: str, address: str | None, wait: float) -> None:
    """Ask a running study to stop, and wait until it has.

    As by Ctrl-C: all rows are written, and what was under way goes on from its checkpoint when the study is resumed.
    Exit code 1 if it still runs when the wait is over; the request stands.
    """
    if address is not None:
        answer_from_cluster(address, study)
    with exit_on_errors():
        folder = listing.find_study(*remote.locate_study(study, storage_path))
        running, began = listing.find_driver(folder), time.monotonic()
        still = resuming.stop_study(folder, wait)
        finished = listing.read_shown_study(remote.refresh_copy(folder))["finished"]
    go_on = (
        "it is finished" if finished else f"go on with: python -m study resume {standing.format_study_argument(folder)}"
    )
    if still:
        click.echo(f"{folder.name} was asked to stop, and {still} still runs it after {wait:g} s", err=True)
        sys.exit(1)
    if not running:
        click.echo(f"{folder.name} does not run; {go_on}")
    else:
        click.echo(f"{folder.name} stopped after {time.monotonic() - began:.1f} s; {go_on}")


@main.command("doctor", context_settings=HELP, epilog=format_examples("doctor", "doctor spaces/lp_cifar.py"))
@click.argument("space", type=click.Path(path_type=Path), required=False)
@click.option("--profile", help="Which of the space file's profiles; the first one by default.")
@click.option(
    "--data-dir", type=click.Path(), help="Where the profile's data set lies; a folder or s3://BUCKET/PREFIX."
)
@run.gpus_per_worker_option("As it will be given to run.")
@click.option("--workers-per-trial", type=click.IntRange(min=1), help="The same; by default the space file's.")
@click.option("--address", help="The Ray cluster that will be used; this machine by default.")
@storage_path_option
def doctor_(space: Path | None, profile: str | None, data_dir: str | None, gpus_per_worker: float | str | None,
            workers_per_trial: int | None, address: str | None, storage_path: str) -> None:  # fmt: skip
    """Check whether this machine can run studies.

    Also the one in SPACE, if it is given; nothing is trained. Exit code 1 if something fails; a warning is something
    that can be lived with.
    """
    with exit_on_errors():
        storage = local_path(storage_path)
        share = gpus_per_worker if isinstance(gpus_per_worker, float) else None  # auto gives at most 1, the default
        wish = doctor.DoctorOptions(
            storage, space, profile, resolve_data_dir(data_dir), share, address, workers_per_trial
        )
        healthy = doctor.run_checks(wish, make_console())
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
