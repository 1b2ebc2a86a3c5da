"""RunOptions: the options of `python -m study.run`, as words of a command line again, and applied to a study."""

from __future__ import annotations

import dataclasses
import glob
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
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

HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of all commands."""

SECRET = ("notify",)
"""Options that are in no recorded or printed command."""

RUN_COMMAND = "python -m study.run"

STUDY_FIELDS = ("name", "seed", "workers_per_trial", "reproducible_search")
BUDGET_FIELDS = ("trials", "epochs", "seeds", "wall_hours", "gpu_hours", "usd_per_hour")
"""Options that replace a field of the study, or of its budget."""


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


def load_with_options(options: RunOptions, data_dir: Path | None) -> tuple[Space, Study]:
    """Return the space file and its study with the changes that the options ask for."""
    from study.space_file import load_space

    space = load_space(options.space, options.profile, data_dir)
    return space, apply_options(space.study, options)


def apply_options(study: Study, options: RunOptions) -> Study:
    """Return the study with the options' values in place of the space file's.

    Fewer epochs shorten preparations in proportion. Another number of epochs or another precision leaves a paper's
    protocol.
    """
    budget = dataclasses.replace(study.budget, **_select_given(options, BUDGET_FIELDS))
    changed = dataclasses.replace(study, budget=budget, **_select_given(options, STUDY_FIELDS))
    if (share := budget.epochs / study.budget.epochs) != 1:
        task = study.task.with_shorter_preparations(share) if share < 1 else study.task
        changed = dataclasses.replace(changed, task=task, protocol="")
    if options.precision is not None:
        changed = _with_precision(changed, options.precision)
    if options.teacher is not None:
        changed = _with_teacher_file(changed, Path(options.teacher))
    if options.teacher_store == "off":
        changed = dataclasses.replace(changed, task=changed.task.with_live_teacher())
    return changed


def _select_given(options: RunOptions, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) not in (None, "")}


def _with_precision(study: Study, precision: str) -> Study:
    task = study.task.with_precision(precision)
    arms = tuple(
        arm
        if arm.recipe is None
        else dataclasses.replace(arm, recipe=study.task.with_recipe(arm.recipe).with_precision(precision).recipe)
        for arm in study.arms
    )
    same = task == study.task and arms == study.arms
    return dataclasses.replace(study, task=task, arms=arms, protocol=study.protocol if same else "")


def _with_teacher_file(study: Study, path: Path) -> Study:
    """Return the study with its teacher read from a file, which its assumptions then state."""
    assumption = (
        f"The teacher was read from {path.name}, given with --teacher, whatever is said above of its training. If it "
        "was trained on validation images too, as published ones are, the search looks better than it is."
    )
    task = study.task.with_teacher_file(path)
    return dataclasses.replace(study, task=task, assumptions=(*study.assumptions, assumption))


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


profile_option = click.option("--profile", help="One of the space file's profiles; the first one by default.")
data_dir_option = click.option(
    "--data-dir", type=click.Path(), help="The profile's data set: a folder or s3://BUCKET/PREFIX."
)


def storage_path_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare --storage-path."""
    return click.option("--storage-path", type=click.Path(), default=DEFAULT_STORAGE, show_default=True, help=help_text)


def complete_study(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of studies that begin as typed, for completion by the shell; none of a storage on S3."""
    storage = Path(context.params.get("storage_path") or DEFAULT_STORAGE)
    return sorted(path.parent.name for path in storage.glob(f"{glob.escape(incomplete)}*/{STUDY_JSON}"))
