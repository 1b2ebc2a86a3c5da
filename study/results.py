"""Studies from Python and notebooks: run one, and read its results as DataFrames and figures. docs/python.md shows how.

A study runs in a process of its own, as from the command line: so it can be started in any thread, keeps its signals
and environment variables to itself, and finds a Ray that its workers need, whatever this process does with Ray.
`reports` is imported when results are read.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from study.cli.options import PythonOptions
from study.cli.streams import make_streams_endure
from study.cluster.addresses import uses_job_api
from study.cluster.this_machine import interrupt_on_end_signals
from study.errors import InputError, format_first_line
from study.preflight import explain_pickling, make_environment, pickle_study
from study.storage.locations import local_path
from study.storage.remote import locate_study

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from reports.load import StudyRecords
    from study.study import Study

RUN = "from study.results import run_sent_study; run_sent_study()"
"""The code of the process that runs a study."""


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The results of a study, finished or not, as its folder had them when they were loaded."""

    _records: StudyRecords = field(repr=False)

    @property
    def folder(self) -> Path:
        return self._records.folder

    @property
    def finished(self) -> bool:
        return self._records.finished

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial in its last state, with the columns of docs/records.md: each setting is a typed column."""
        return self._records.trials

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch."""
        return self._records.epochs

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """The arms with their planned comparisons: the numbers of tables/comparison.csv."""
        from reports.analysis.comparison import compare_arms, to_dataframe

        return to_dataframe(compare_arms(self._records))

    @cached_property
    def figures(self) -> dict[str, go.Figure]:
        """The figures of the report by title, in its order, on a white background."""
        from reports.contents import list_figures, make_sections
        from reports.figures.files import make_print_copy

        return {figure.title: make_print_copy(figure) for figure in list_figures(make_sections(self._records, []))}

    @cached_property
    def best(self) -> dict[str, dict[str, Any]]:
        """The settings of the best complete search trial of each searched cell, on validation, by the cell's name."""
        from reports.analysis.search import find_best_trial
        from reports.frames import parse_json_object

        found = {cell.name: find_best_trial(self._records, cell) for cell in self._records.cells if cell.searched}
        return {name: parse_json_object(trial["params"]) for name, trial in found.items() if trial is not None}


def load_study(folder: str | Path) -> StudyResults:
    """Return the results of the study in `folder`, such as "runs/x" or "s3://BUCKET/PREFIX/x".

    Raises RecordsError if it is no study, or if a newer version of kdstudy wrote it.
    """
    from reports import load

    name, storage = locate_study(str(folder), "")
    return StudyResults(load.load_study(storage / name))


def run_study(
    study: Study,
    storage: str | Path = "runs",
    *,
    max_concurrent: int | None = None,
    gpus_per_worker: float | Literal["auto"] | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    allow_code_change: bool = False,
    logs: Sequence[str] = (),
    verbose: bool = False,
    quiet: bool = False,
) -> StudyResults:
    """Train what is not on record yet in `storage`, write the report, and return the results.

    The arguments are options of `kdstudy run` (docs/cli.md). If this process is connected to Ray, the study runs on
    that cluster, unless `address` names another. An interruption leaves a study that the same call continues.
    Raises InputError for what the command would refuse. A cell that cannot become complete is printed, and leaves the
    results unfinished.
    """
    if uses_job_api(address):
        raise InputError(
            f"address {address!r} takes space files only: write the study to one, and give that to python -m study.run"
        )
    options = PythonOptions(
        space=Path("Python"),
        storage_path=str(storage),
        max_concurrent=max_concurrent,
        gpus_per_worker=gpus_per_worker,
        address=address or _find_ray_address(),
        retry_failed=retry_failed,
        allow_code_change=allow_code_change,
        logs=tuple(logs),
        verbose=verbose,
        quiet=quiet,
    )
    code, errors = _run_process(pickle_study(study, options))
    if code == 2:
        raise InputError("".join(errors).partition("error: ")[2] or "".join(errors))
    return load_study(local_path(str(storage)) / study.name)


def _find_ray_address() -> str | None:
    """Return the address of the Ray cluster that this process is connected to; None if it is connected to none."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return str(ray.get_runtime_context().gcs_address)


def _run_process(content: bytes) -> tuple[int, list[str]]:
    """Run a pickled study in a new process and print its output; return its exit code and the lines of its stderr.

    The process is interrupted when its stdin is closed: by an exception here, and if this process ends.
    """
    environment = make_environment() | {"PYTHONIOENCODING": "utf-8"}
    # a terminal is handed on, for the live table
    terminal = sys.__stdout__ is not None and sys.__stdout__.isatty() and sys.stdout is sys.__stdout__
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=None if terminal else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C interrupts this process, which interrupts that one
    )
    errors: list[str] = []
    relays = [threading.Thread(target=_relay, args=(process.stderr, sys.stderr, errors))]
    relays += [threading.Thread(target=_relay, args=(process.stdout, sys.stdout, []))] if process.stdout else []
    for relay in relays:
        relay.start()
    try:
        process.stdin.write(content)  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        process.wait()
    finally:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        for relay in relays:
            relay.join()
    return process.returncode, errors


def _relay(source: IO[bytes], target: IO[str], lines: list[str]) -> None:
    """Print each line of `source` as it comes, and collect them in `lines`."""
    for line in source:
        lines.append(line.decode(errors="replace"))
        with suppress(OSError, ValueError):  # nothing reads this process's output any more: the study trains on
            target.write(lines[-1])
            target.flush()


# -- in the process that runs a study ----------------------------------------------------------------------------------


def run_sent_study() -> None:
    """Run the study on stdin, as `run_study` sends it; interrupt the run when stdin is closed there."""
    from study.cli.run_study import run_and_exit

    make_streams_endure()
    try:
        study, options = pickle.load(sys.stdin.buffer)
    except Exception as error:  # of any kind: it is a user's object that refuses
        click.echo(f"error: {explain_pickling(format_first_line(error))}", err=True)
        sys.exit(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by a script in the background of a shell
    interrupt_on_end_signals()
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    run_and_exit(options, study)


def _interrupt_at_end_of_input() -> None:
    if os.read(0, 1) == b"":
        os.kill(os.getpid(), signal.SIGINT)
