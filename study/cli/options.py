"""RunOptions: the options of `python -m study.run`, as click parses them and as words of a command line again."""

from __future__ import annotations

import dataclasses
import glob
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from study.records.paths import DEFAULT_STORAGE, STUDY_JSON

if TYPE_CHECKING:
    from study.space_file import Space
    from study.study import Study

AUTO: Literal["auto"] = "auto"
"""The value of --gpus-per-worker that measures how many trials one GPU serves best."""

CLUSTER_FILE = "cluster.yaml"
"""The file that `ray up` takes, in the checkout's folder."""

SECRET = ("notify",)
"""Options that are in no recorded or printed command."""

RUN_COMMAND = "python -m study.run"


@dataclass(frozen=True)
class RunOptions:
    """The options of one run; the fields are named and ordered as `run --help` lists them."""

    space: Path
    profile: str | None = None
    data_dir: str | None = None
    download: bool = False
    storage_path: str = DEFAULT_STORAGE
    name: str | None = None
    seed: int | None = None
    trials: int | None = None
    epochs: int | None = None
    seeds: int | None = None
    wall_hours: float | None = None
    gpu_hours: float | None = None
    usd_per_hour: float | None = None
    max_concurrent: int | None = None
    gpus_per_worker: float | Literal["auto"] | None = None
    workers_per_trial: int | None = None
    teacher: str | None = None
    teacher_store: str = "on"
    precision: str | None = None
    reproducible_search: int | None = None
    address: str | None = None
    then: str | None = None
    cluster_file: str = CLUSTER_FILE
    fresh: bool = False
    retry_failed: bool = False
    allow_code_change: bool = False
    logs: tuple[str, ...] = ()
    notify: str | None = None
    verbose: bool = False
    quiet: bool = False
    seconds_per_epoch: float | None = None
    dry_run: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """Every option without its default, by field; neither the space file nor what is secret is among them."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("space", *SECRET) and getattr(self, field.name) != field.default
        }

    def to_words(self) -> list[str]:
        """Return the command line that gives these options: the space file, then every option without its default."""
        return [str(self.space), *format_words(self.given)]

    def to_command(self) -> str:
        """Return the command that continues the study: without options that start another or hold for one run."""
        lasting = dataclasses.replace(self, fresh=False, allow_code_change=False)
        # as it was typed: a study.py in the current folder hides the package from `python -m`
        command = "kdstudy run" if Path(sys.argv[0]).name == "kdstudy" else RUN_COMMAND
        return f"{command} {shlex.join(lasting.to_words())}"


class PythonOptions(RunOptions):
    """The options of a run from Python, which a call of run_study continues (study/results.py)."""

    def to_command(self) -> str:
        given = dataclasses.replace(self, address=None, allow_code_change=False).given
        arguments = [f"{'storage' if name == 'storage_path' else name}={value!r}" for name, value in given.items()]
        return f"run_study({', '.join(['study', *arguments])})"


def format_words(values: Mapping[str, Any]) -> list[str]:
    """Return options by field name as words; True is a flag, a list or tuple a repeated option."""
    words: list[str] = []
    for name, value in values.items():
        if value is True:
            words.append(format_option(name))
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            words += [format_option(name), str(item).removesuffix(".0") if isinstance(item, float) else str(item)]
    return words


def format_option(name: str) -> str:
    """Return the option that sets a field of RunOptions."""
    return "--log" if name == "logs" else f"--{name.replace('_', '-')}"


def load_study(options: RunOptions, data_dir: Path | None) -> tuple[Space, Study]:
    """Return the space file and its study with the changes that the options ask for."""
    from study.space_file import load_space, with_caps, with_overrides, with_precision, with_teacher_file

    space = load_space(options.space, options.profile, data_dir)
    study = with_overrides(
        space.study,
        name=options.name,
        seed=options.seed,
        trials=options.trials,
        epochs=options.epochs,
        seeds=options.seeds,
    )
    study = with_caps(study, options.wall_hours, options.gpu_hours, options.usd_per_hour)
    if options.workers_per_trial is not None:
        study = dataclasses.replace(study, workers_per_trial=options.workers_per_trial)
    if options.reproducible_search is not None:
        study = dataclasses.replace(study, reproducible_search=options.reproducible_search)
    if options.precision is not None:
        study = with_precision(study, options.precision)
    if options.teacher is not None:
        study = with_teacher_file(study, Path(options.teacher))
    if options.teacher_store == "off":
        study = dataclasses.replace(study, task=study.task.with_live_teacher())
    return space, study


class _GpuShare(click.FloatRange):
    """A number of GPUs, or AUTO."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AUTO if value == AUTO else super().convert(value, param, ctx)


class _RenamedOption(click.Option):
    """An option whose former names still work, but are not listed by --help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, self.opts = self.opts, self.opts[-1:]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def gpus_per_worker_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare --gpus-per-worker, which was called --gpus-per-trial before."""
    names = ("--gpus-per-trial", "--gpus-per-worker", "gpus_per_worker")
    return click.option(*names, cls=_RenamedOption, type=_GpuShare(min=0), metavar=f"FLOAT|{AUTO}", help=help_text)


def complete_study(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of studies that begin as typed, for completion by the shell; none of a storage on S3."""
    storage = Path(context.params.get("storage_path") or DEFAULT_STORAGE)
    return sorted(path.parent.name for path in storage.glob(f"{glob.escape(incomplete)}*/{STUDY_JSON}"))
