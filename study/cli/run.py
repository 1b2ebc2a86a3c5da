"""The command line: python -m study.run SPACE.

Reads a space file, checks everything that can be checked, trains what is not on record yet, and writes the report.
Exit codes: 0 done, 1 a cell could not be completed, 2 bad input, 3 stopped by a cap or on request, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console

from study.cluster import addresses, jobs
from study.driver import (
    Outcome,
    RunOptions,
    check_earlier,
    check_inputs,
    check_run_options,
    drive,
    preparation_lines,
    resources_of,
)
from study.engine.warm_start import warm_points
from study.errors import InputError
from study.records.segments import RecordsError
from study.records.study_json import beside
from study.space_file import Space, capped, in_precision, load_space, overridden
from study.storage.dataset import RemoteDataset, fetch_dataset
from study.storage.lease import acquire_lease
from study.storage.locations import display_path, local_path
from study.storage.remote import refresh_copy
from study.storage.worker_sync import fetch_artifacts, fetch_study_names
from study.study import Study
from study.trackers.base import TRACKERS

EXAMPLES = """
\b
Examples:
  python -m study.run spaces/lp_cifar.py
  python -m study.run spaces/lp_cifar.py --dry-run
  python -m study.run spaces/lp_cifar.py --profile cifar10 --data-dir ~/data/cifar-10-batches-bin
  python -m study.run spaces/lp_cifar.py --trials 50 --seeds 10 --name lp_long

The same command again goes on where the last one ended, whatever ended it.
"""

AUTO: Literal["auto"] = "auto"


class GpuShare(click.FloatRange):
    """A number of GPUs, or the word that has it measured."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AUTO if value == AUTO else super().convert(value, param, ctx)


class RenamedOption(click.Option):
    """An option of which --help lists the last name alone: its former ones keep working."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, self.opts = self.opts, self.opts[-1:]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def gpus_per_worker_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    names = ("--gpus-per-trial", "--gpus-per-worker", "gpus_per_worker")
    return click.option(*names, cls=RenamedOption, type=GpuShare(min=0), metavar=f"FLOAT|{AUTO}", help=help_text)


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("space", type=click.Path(path_type=Path))
@click.option("--profile", help="Which of the space file's profiles; the first one by default.")
@click.option(
    "--data-dir", type=click.Path(), help="Where the profile's data set lies; a folder or s3://BUCKET/PREFIX."
)
@click.option(
    "--storage-path",
    type=click.Path(),
    default="runs",
    show_default=True,
    help="Studies and trained teachers are kept below this folder, or s3://BUCKET/PREFIX.",
)
@click.option("--name", help="The study's name and folder, instead of the space file's.")
@click.option("--seed", type=int, help="The study's seed, instead of the space file's.")
@click.option("--trials", type=int, help="Search trials per searched cell.")
@click.option("--epochs", type=int, help="Epochs per trial; fewer shorten the teacher's in proportion.")
@click.option("--seeds", type=int, help="Confirm seeds per cell.")
@click.option("--wall-hours", type=float, help="Stop after so many hours, all runs of this study together.")
@click.option("--gpu-hours", type=float, help="Stop after so many hours of GPU time, all runs together.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="At most so many trials at once.")
@gpus_per_worker_option(
    "Share of a GPU for each worker of a trial: at most 1, and 1 if there are GPUs. 'auto' measures how many trials "
    "one GPU serves best."
)
@click.option(
    "--workers-per-trial",
    type=click.IntRange(min=1),
    help="Processes that train a trial together, a part of each batch each; instead of the space file's.",
)
@click.option(
    "--teacher-store",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Compute the teacher's outputs once for all trials, or anew at every step.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the students' training, instead of the space file's; another one leaves a paper's protocol.",
)
@click.option(
    "--address",
    help="A running Ray cluster: 'auto' on a node of it, HOST:PORT of its head from within its network, or "
    "http://HOST:PORT of its dashboard from elsewhere; this machine by default.",
)
@click.option("--fresh", is_flag=True, help="Start anew beside an earlier study of this name.")
@click.option("--retry-failed", is_flag=True, help="Run trials again that failed in an earlier run.")
@click.option(
    "--allow-code-change",
    is_flag=True,
    help="Go on although code has changed since the last run; no comparison of old with new trials is judged.",
)
@click.option("--log", "logs", multiple=True, type=click.Choice(TRACKERS), help="Also log epochs there; repeatable.")
@click.option("-v", "--verbose", is_flag=True, help="A line for each trial that ends.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but the table and what went wrong.")
@click.option(
    "--seconds-per-epoch",
    type=click.FloatRange(min=0, min_open=True),
    help="For --dry-run's estimate; by default as measured in earlier runs.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
def main(space: Path, profile: str | None, data_dir: str | None, storage_path: str, name: str | None,
         seed: int | None, trials: int | None, epochs: int | None, seeds: int | None,
         wall_hours: float | None, gpu_hours: float | None, max_concurrent: int | None,
         gpus_per_worker: float | Literal["auto"] | None, workers_per_trial: int | None, teacher_store: str,
         precision: str | None, address: str | None, fresh: bool, retry_failed: bool, allow_code_change: bool,
         logs: tuple[str, ...], verbose: bool, quiet: bool, seconds_per_epoch: float | None,
         dry_run: bool) -> None:  # fmt: skip
    """Train and compare what the space file SPACE names."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's goodbye is an interruption too
    study = None
    folder = None if data_dir is None else Path(data_dir)

    def asked_for() -> tuple[Space, Study]:
        loaded = load_space(space, profile, folder)
        study = overridden(loaded.study, name=name, seed=seed, trials=trials, epochs=epochs, seeds=seeds)
        study = capped(study, wall_hours, gpu_hours)
        if workers_per_trial is not None:
            study = dataclasses.replace(study, workers_per_trial=workers_per_trial)
        if precision is not None:
            study = in_precision(study, precision)
        if teacher_store == "off":
            study = dataclasses.replace(study, task=study.task.with_live_teacher())
        return loaded, study

    try:
        if address is not None:
            addresses.check_address(address)
        if addresses.uses_job_api(address):
            named = checked_here(space, folder, lambda: asked_for()[1].name)
            words = jobs.collect_command_words(click.get_current_context(), "space")
            sys.exit(
                jobs.submit_study(str(address), space, words, storage_path, "" if fresh else named, trains=not dry_run)
            )
        if data := fetch_dataset(data_dir):
            folder = data.mirror.folder
        loaded, study = asked_for()
        storage = local_path(storage_path)
        fetch_artifacts(storage, study.task)
        inputs = check_inputs(study, storage)
        if fresh:
            fetch_study_names(storage)
            study = dataclasses.replace(study, name=beside(storage, study.name))
        if gpus_per_worker == AUTO:
            refresh_copy(storage / study.name)
            check_earlier(study, loaded, inputs, storage, allow_code_change)
            heard = Console(highlight=False, quiet=quiet and not dry_run)
            gpus_per_worker = measured_share(study, storage, loaded, address, data, heard)
        place = RunOptions(
            storage, address, gpus_per_worker, max_concurrent, retry_failed, allow_code_change, logs, verbose, data
        )
        if dry_run:
            refresh_copy(storage / study.name)
            said = plan(study, inputs, storage) + price(study, inputs, place, seconds_per_epoch)
            console.print("\n".join(said), markup=False, soft_wrap=True)
            return
        check_run_options(place, study)
        progress = Console(highlight=False, quiet=quiet)
        with acquire_lease(storage / study.name):
            outcome = drive(study, loaded, inputs, place, command_for(study), progress)
            page = report(storage / study.name, console)
        console.print(f"report: {display_path(storage / study.name)}/{page.name}", markup=False, soft_wrap=True)
        code = ended(outcome, study)
    except (InputError, RecordsError) as error:
        click.echo(f"error: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; all rows are written. Go on with:\n  {command_for(study)}", err=True)
        code = 130
    sys.exit(code)


def measured_share(
    study: Study, storage: Path, space: Space, address: str | None, data: RemoteDataset | None, console: Console
) -> float:
    """The share of a GPU that --gpus-per-worker auto gives each trial.

    Raises InputError where it cannot be measured.
    """
    from study.cluster.gpu_profiling import measure_gpu_share

    say = partial(console.print, markup=False, soft_wrap=True)
    return measure_gpu_share(study, storage, space.module, address, say, data)


def ended(outcome: Outcome, study: Study) -> int:
    """Say what went wrong and how to go on; returns the exit code."""
    for problem in outcome.problems:
        click.echo(f"failed: {problem}", err=True)
    if outcome.stopped:
        click.echo(f"{outcome.stopped}; all rows are written. Go on with:\n  {command_for(study)}", err=True)
    return 1 if outcome.problems else 3 if outcome.stopped else 0


def checked_here(space: Path, data_dir: Path | None, named: Callable[[], str]) -> str:
    """The name of a study that will run elsewhere; empty if what it is made of is only there.

    Raises InputError for what is wrong wherever it runs.
    """
    try:
        return named()
    except InputError as error:
        lacks_data = data_dir is not None and not data_dir.exists()
        if not space.is_file() or not (lacks_data or isinstance(error.__cause__, ImportError | OSError)):
            raise
        click.echo(f"not checked here, but there: {error}", err=True)
        return ""


def plan(study: Study, inputs: dict[str, Any], storage: Path) -> list[str]:
    """What would be trained, in a few lines."""
    from reports.text.summary import warn_of_few_seeds

    budget = study.budget
    searches = [study.count_trials(cell.arm) for cell in study.cells]
    lines = [
        f"{study.name}: {study.question}",
        f"data: {inputs.get('data', {}).get('name', 'none')}",
    ]
    lines += preparation_lines(study.task.list_preparations(storage, study.plan))
    lines.append("cells:")
    for cell, trials in zip(study.cells, searches, strict=True):
        search = f"search {trials} trials, then " if trials else ""
        lines.append(f"  {cell.name}: {search}confirm {budget.seeds} seeds")
    lines.append(f"seeds: study {study.seed}; {budget.seeds} confirm seeds, the same for all arms")
    if warning := warn_of_few_seeds(budget.seeds, len(study.arms) - 1):
        lines.append(warning)
    confirms = len(study.cells) * budget.seeds
    total = sum(searches) + confirms
    at_most = "at most " if sum(searches) else ""
    lines.append(
        f"{len(study.cells)} cells, {total} trials ({sum(searches)} search, {confirms} confirm), "
        f"{at_most}{total * budget.epochs} epochs"
    )
    return lines


def price(study: Study, inputs: dict[str, Any], place: RunOptions, seconds_per_epoch: float | None) -> list[str]:
    """About how long it would take, in a line or two.

    Raises InputError if its warm start has nothing to start from.
    """
    if not (place.storage / study.name / "study.json").is_file():
        warm_points(study)
    from study.cli.epoch_times import assumed, measured
    from study.cli.forecast import forecast, lines

    resources = resources_of(place, study)
    pace = assumed(seconds_per_epoch) if seconds_per_epoch else measured(study, inputs, place.storage, resources.gpus)
    steps = study.task.list_preparations(place.storage, study.plan)
    slots, gpus = resources.concurrent, resources.trial_gpus
    told = forecast(study, inputs, place.storage, steps, pace, slots, gpus, place.retry_failed)
    return lines(told, study.name)


def report(folder: Path, console: Console) -> Path:
    """Write the report and print its comparison; returns its page."""
    from reports.build import build
    from reports.tables.terminal import format_comparisons

    page = build(folder)
    width = min(console.width, 110) if console.is_terminal else 110
    console.print(format_comparisons(folder, width), markup=False, soft_wrap=True)
    return page


def command_for(study: Study | None) -> str:
    """The command that goes on with this study: the one given, without what starts another or was allowed once."""
    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--allow-code-change")]
    if "--fresh" in sys.argv and study is not None:
        words += ["--name", study.name]
    return "python -m study.run " + shlex.join(words)


if __name__ == "__main__":
    main()
