"""python -m study.run SPACE: checks a space file, trains what is not on record yet, and writes the report.

Exit codes: 0 done, 1 a cell could not be completed, 2 bad input, 3 stopped by a cap or on request, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from study.cli.options import AUTO, RunOptions, gpus_per_worker_option, load_study
from study.cli.plan import format_estimate, format_plan
from study.cli.streams import EnduringCommand
from study.cluster import addresses, jobs
from study.driver import Outcome, drive
from study.errors import InputError
from study.preflight import DriverOptions, check_driver_options, check_inputs, read_earlier_run
from study.records.lock import find_unused_name
from study.records.paths import DEFAULT_STORAGE
from study.records.segments import RecordsError
from study.space_file import Space
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

The same command again continues where the last run ended, whatever ended it.
"""


@click.command(cls=EnduringCommand, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("space", type=click.Path(path_type=Path))
@click.option("--profile", help="One of the space file's profiles; the first one by default.")
@click.option("--data-dir", type=click.Path(), help="The profile's data set: a folder or s3://BUCKET/PREFIX.")
@click.option(
    "--storage-path",
    type=click.Path(),
    default=DEFAULT_STORAGE,
    show_default=True,
    help="Where studies and trained teachers are kept: a folder or s3://BUCKET/PREFIX.",
)
@click.option("--name", help="The study's name and folder, instead of the space file's.")
@click.option("--seed", type=int, help="The study's seed, instead of the space file's.")
@click.option("--trials", type=int, help="Search trials per searched cell.")
@click.option("--epochs", type=int, help="Epochs per trial; fewer shorten the teacher's in proportion.")
@click.option("--seeds", type=int, help="Confirm seeds per cell.")
@click.option("--wall-hours", type=float, help="Stop after this many hours, summed over all runs of the study.")
@click.option("--gpu-hours", type=float, help="Stop after this many hours of GPU time, summed over all runs.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Maximum number of trials at once.")
@gpus_per_worker_option(
    "Share of a GPU for each worker of a trial, from 0 to 1; by default 1 if there are GPUs. 'auto' measures how many "
    "trials one GPU serves best."
)
@click.option(
    "--workers-per-trial",
    type=click.IntRange(min=1),
    help="Processes that train a trial together, each with a shard of every batch; instead of the space file's.",
)
@click.option(
    "--teacher",
    type=click.Path(),
    help="Read the teacher from this .safetensors or .pth file instead of training it.",
)
@click.option(
    "--teacher-store",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Compute the teacher's outputs once for all trials, or run the teacher at each step.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the students' training, instead of the space file's; another one leaves a paper's protocol.",
)
@click.option(
    "--address",
    help="A running Ray cluster: 'auto' on one of its nodes, HOST:PORT of its head within its network, or "
    "http://HOST:PORT of its dashboard from outside; this machine by default.",
)
@click.option("--fresh", is_flag=True, help="Start a new study next to an earlier one of this name.")
@click.option("--retry-failed", is_flag=True, help="Run failed trials of earlier runs again.")
@click.option(
    "--allow-code-change",
    is_flag=True,
    help="Continue although code changed since the last run; no comparison of old with new trials is judged.",
)
@click.option("--log", "logs", multiple=True, type=click.Choice(TRACKERS), help="Also log epochs there; repeatable.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each trial that ends.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the table and errors.")
@click.option(
    "--seconds-per-epoch",
    type=click.FloatRange(min=0, min_open=True),
    help="For --dry-run's estimate; by default as measured in earlier runs.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be trained, and train nothing.")
def main(**values: Any) -> None:
    """Train and compare what the space file SPACE defines."""
    options = RunOptions(**values)
    if threading.current_thread() is threading.main_thread():  # only there Python sets signals
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # batch systems end jobs by it: an interruption too
    try:
        if options.address is not None:
            addresses.check_address(options.address)
        sys.exit(_submit(options) if addresses.uses_job_api(options.address) else _run(options))
    except (InputError, RecordsError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _exit_interrupted(options)


def _exit_interrupted(options: RunOptions) -> NoReturn:
    click.echo(f"\ninterrupted; all rows are written. Continue with:\n  {options.to_command()}", err=True)
    sys.exit(130)


def _submit(options: RunOptions) -> int:
    """Run the study on a cluster as a job; return its exit code."""
    name = _check_locally(options)
    words = dataclasses.replace(options, address=None).to_words()[1:]
    study = "" if options.fresh else name
    return jobs.submit_study(
        str(options.address), options.space, words, options.storage_path, study, trains=not options.dry_run
    )


def _check_locally(options: RunOptions) -> str:
    """Return the name of a study that will run on a cluster; empty if its data or packages are only there.

    Raises InputError for what is wrong on any machine.
    """
    data_dir = None if options.data_dir is None else Path(options.data_dir)
    try:
        return load_study(options, data_dir)[1].name
    except InputError as error:
        lacks_data = data_dir is not None and not data_dir.exists()
        if not options.space.is_file() or not (lacks_data or isinstance(error.__cause__, ImportError | OSError)):
            raise
        click.echo(f"not checked here, but on the cluster: {error}", err=True)
        return ""


def _run(options: RunOptions) -> int:
    """Run the study from this machine; return the exit code."""
    data = fetch_dataset(options.data_dir)
    given = None if options.data_dir is None else Path(options.data_dir)
    space, study = load_study(options, data.mirror.folder if data else given)
    storage = local_path(options.storage_path)
    fetch_artifacts(storage, study.task)
    from study.execution.train_run import run_in_train_context

    inputs = run_in_train_context(lambda: check_inputs(study, storage))
    if options.fresh:
        fetch_study_names(storage)
        study = dataclasses.replace(study, name=find_unused_name(storage, study.name))
        options = dataclasses.replace(options, fresh=False, name=study.name)
    try:
        driver_options = _resolve_options(options, space, study, inputs, storage, data)
        if options.dry_run:
            refresh_copy(storage / study.name)
            lines = format_plan(study, inputs, storage)
            lines += format_estimate(study, inputs, driver_options, options.seconds_per_epoch)
            _print(Console(highlight=False), "\n".join(lines))
            return 0
        check_driver_options(driver_options, study)
        return _train_and_report(options, space, study, inputs, driver_options)
    except KeyboardInterrupt:  # here, for the command with the study's new name
        _exit_interrupted(options)


def _resolve_options(
    options: RunOptions,
    space: Space,
    study: Study,
    inputs: dict[str, Any],
    storage: Path,
    data: RemoteDataset | None,
) -> DriverOptions:
    """Return the driver's options, with a measured share of a GPU for --gpus-per-worker auto."""
    share = options.gpus_per_worker
    if share == AUTO:
        from study.cluster.gpu_profiling import measure_gpu_share

        refresh_copy(storage / study.name)
        read_earlier_run(study, space, inputs, storage, options.allow_code_change)
        console = Console(highlight=False, quiet=options.quiet and not options.dry_run)
        share = measure_gpu_share(
            study, storage, space.module, options.address, lambda line: _print(console, line), data
        )
    return DriverOptions(
        storage,
        options.address,
        share,
        options.max_concurrent,
        options.retry_failed,
        options.allow_code_change,
        options.logs,
        options.verbose,
        data,
    )


def _train_and_report(
    options: RunOptions, space: Space, study: Study, inputs: dict[str, Any], driver_options: DriverOptions
) -> int:
    """Run the driver, write the report, and return the exit code."""
    from reports.build import build
    from reports.tables.terminal import format_comparisons

    folder, console = driver_options.storage / study.name, Console(highlight=False)
    progress = Console(highlight=False, quiet=options.quiet)
    with acquire_lease(folder):
        outcome = drive(study, space, inputs, driver_options, options.to_command(), progress)
        page = build(folder)
        width = min(console.width, 110) if console.is_terminal else 110
        _print(console, format_comparisons(folder, width))
    _print(console, f"report: {display_path(folder)}/{page.name}")
    return _report_outcome(outcome, options)


def _report_outcome(outcome: Outcome, options: RunOptions) -> int:
    """Print what went wrong and how to continue; return the exit code."""
    for problem in outcome.problems:
        click.echo(f"failed: {problem}", err=True)
    if outcome.stopped:
        click.echo(f"{outcome.stopped}; all rows are written. Continue with:\n  {options.to_command()}", err=True)
    return 1 if outcome.problems else 3 if outcome.stopped else 0


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
