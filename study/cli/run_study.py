"""The work of `python -m study.run`: check the study, train it here or on a cluster, write the report.

A module of its own, because run.py, which declares the options, is imported for every --help.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from study.cli import then_down
from study.cli.dry_run.plan import format_estimate, format_plan
from study.cli.notify import VARIABLE, check_url, notify_of_end
from study.cli.options import AUTO, CLUSTER_FILE, RunOptions, load_with_options
from study.cli.output import exit_on_errors
from study.cluster import addresses, jobs
from study.driver import Outcome, drive
from study.errors import InputError
from study.preflight import (
    DriverOptions,
    check_driver_options,
    check_inputs,
    check_pickling,
    read_earlier_run,
)
from study.records.lock import find_unused_name
from study.space_file import Space, make_space, resolve_space
from study.storage.dataset import RemoteDataset, fetch_dataset
from study.storage.downloads import permit_downloads
from study.storage.lease import acquire_lease
from study.storage.locations import display_path, local_path
from study.storage.remote import refresh_copy
from study.storage.worker_sync import fetch_artifacts, fetch_study_names
from study.study import Study


def run_and_exit(options: RunOptions, sent: Study | None = None) -> None:
    """Run the study, here or on a cluster as a job, and exit with the code that study/cli/run.py lists.

    A study that was `sent` from Python is run instead of one of a space file.
    """
    with exit_on_errors():
        try:
            if sent is None:
                options = dataclasses.replace(options, space=resolve_space(options.space))
            check_url(options.notify)
            if options.then is not None:
                then_down.check_options(options.address, Path(options.cluster_file))
            if options.address is not None:
                addresses.check_address(options.address)
            if options.then is not None and not options.dry_run:
                then_down.check_cluster(str(options.address), Path(options.cluster_file))
            sys.exit(_submit(options) if addresses.uses_job_api(options.address) else _run(options, sent))
        except KeyboardInterrupt:
            _exit_interrupted(options)


def _exit_interrupted(options: RunOptions) -> NoReturn:
    click.echo(f"\ninterrupted; all rows are written. Continue with:\n  {options.to_command()}", err=True)
    sys.exit(130)


def _submit(options: RunOptions) -> int:
    """Run the study on a cluster as a job, and end the cluster if asked to; return the study's exit code."""
    name = _check_locally(options)
    words = dataclasses.replace(options, address=None, then=None, cluster_file=CLUSTER_FILE).to_words()[1:]
    study = "" if options.fresh else name
    if options.then and not study:
        raise InputError("--then down needs the name of the study that will run: give --name, and leave --fresh out")
    variables = {VARIABLE: options.notify} if options.notify else {}
    code = jobs.submit_study(
        str(options.address), options.space, words, options.storage_path, study, not options.dry_run, variables
    )
    if options.then and not options.dry_run and code in then_down.ENDED:
        try:
            then_down.end_cluster(str(options.address), Path(options.cluster_file), options.storage_path, study)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            return code or 1
    elif options.then and not options.dry_run:
        left = "the cluster is left running: the study has not ended"
        click.echo(f"{left}; to end it: ray down {options.cluster_file}", err=True)
    return code


def _check_locally(options: RunOptions) -> str:
    """Return the name of a study that will run on a cluster; empty if its data or packages are only there.

    Raises InputError for what is wrong on any machine.
    """
    data_dir = None if options.data_dir is None else Path(options.data_dir)
    try:
        return load_with_options(options, data_dir)[1].name
    except InputError as error:
        lacks_data = data_dir is not None and not data_dir.exists()
        if not options.space.is_file() or not (lacks_data or isinstance(error.__cause__, ImportError | OSError)):
            raise
        click.echo(f"not checked here, but on the cluster: {error}", err=True)
        return options.name or ""


def _run(options: RunOptions, sent: Study | None) -> int:
    """Run the study from this machine; return the exit code."""
    if options.download:
        if "://" in (options.data_dir or ""):
            raise InputError(f"--download fetches into a folder, not to {options.data_dir}: give another --data-dir")
        permit_downloads()
    data = fetch_dataset(options.data_dir)
    folder = data.mirror.folder if data else Path(options.data_dir) if options.data_dir is not None else None
    space, study = (make_space(sent), sent) if sent else load_with_options(options, folder)
    storage = local_path(options.storage_path)
    fetch_artifacts(storage, study.task)
    inputs = _check_inputs(study, storage)
    if options.fresh:
        fetch_study_names(storage)
        study = dataclasses.replace(study, name=find_unused_name(storage, study.name))
        options = dataclasses.replace(options, fresh=False, name=study.name)
    try:
        driver_options = _resolve_options(options, space, study, inputs, storage, data)
        if options.dry_run:
            check_pickling(study, space.module)
            refresh_copy(storage / study.name)
            steps = study.task.list_preparations(storage, study.plan)
            lines = format_plan(study, inputs, steps)
            lines += format_estimate(study, inputs, steps, driver_options, options.seconds_per_epoch)
            _print(Console(highlight=False), "\n".join(lines))
            return 0
        check_driver_options(driver_options, study)
        with notify_of_end(options.notify, study.name) as ending:
            ending.exit_code, ending.detail = _train_and_report(options, space, study, inputs, driver_options)
        return ending.exit_code
    except KeyboardInterrupt:  # here, for the command with the study's new name
        _exit_interrupted(options)


def _check_inputs(study: Study, storage: Path) -> dict[str, Any]:
    """Check data, teacher, students and losses; in Ray Train's context if they fail without it.

    A loss may need the context, which trials have. Importing Ray Train takes a second, so it is tried without first.
    """
    try:
        return check_inputs(study, storage)
    except Exception:
        from study.execution.train_run import run_in_train_context

        return run_in_train_context(lambda: check_inputs(study, storage))


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
) -> tuple[int, str]:
    """Run the driver, write the report; return the exit code and the answer in a sentence or two."""
    from reports.build import build
    from reports.tables.terminal import format_comparisons, summarize

    folder, console = driver_options.storage / study.name, Console(highlight=False)
    progress = Console(highlight=False, quiet=options.quiet)
    with acquire_lease(folder):
        outcome = drive(study, space, inputs, driver_options, options.to_command(), progress)
        try:
            page = build(folder)
        except OSError as error:
            raise InputError(
                f"the report of {display_path(folder)} cannot be written ({error.strerror or error}): free disk space, "
                "then run the same command again; all rows are written"
            ) from None
        width = min(console.width, 110) if console.is_terminal else 110
        _print(console, format_comparisons(folder, width))
    _print(console, f"report: {display_path(folder)}/{page.name}")
    return _report_outcome(outcome, options), summarize(folder) if options.notify else ""


def _report_outcome(outcome: Outcome, options: RunOptions) -> int:
    """Print what went wrong and how to continue; return the exit code."""
    for problem in outcome.problems:
        click.echo(f"failed: {problem}", err=True)
    if outcome.stopped:
        click.echo(f"{outcome.stopped}; all rows are written. Continue with:\n  {options.to_command()}", err=True)
    return 1 if outcome.problems else 3 if outcome.stopped else 0


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
