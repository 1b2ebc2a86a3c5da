"""The command line: python -m study.run SPACE.

Reads a space file, checks everything that can be checked, trains what is not on record yet, and writes the report.
Exit codes: 0 done, 1 a cell could not be completed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from study.drive import Place, check_inputs, check_place, drive, notes
from study.errors import InputError
from study.folder import beside
from study.loading import load_space, overridden
from study.records import RecordsError
from study.study import Study

EXAMPLES = """
\b
Examples:
  python -m study.run spaces/lp_cifar.py
  python -m study.run spaces/lp_cifar.py --dry-run
  python -m study.run spaces/lp_cifar.py --profile cifar10 --data-dir ~/data/cifar-10-batches-bin
  python -m study.run spaces/lp_cifar.py --trials 50 --seeds 10 --name lp_long

The same command again goes on where the last one ended, whatever ended it.
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("space", type=click.Path(path_type=Path))
@click.option("--profile", help="Which of the space file's profiles; the first one by default.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the profile's data set lies.")
@click.option(
    "--storage-path",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Studies and trained teachers are kept below this folder.",
)
@click.option("--name", help="The study's name and folder, instead of the space file's.")
@click.option("--seed", type=int, help="The study's seed, instead of the space file's.")
@click.option("--trials", type=int, help="Search trials per searched cell.")
@click.option("--epochs", type=int, help="Epochs per trial; fewer shorten the teacher's in proportion.")
@click.option("--seeds", type=int, help="Confirm seeds per cell.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="At most so many trials at once.")
@click.option(
    "--gpus-per-trial",
    type=click.FloatRange(min=0),
    help="GPUs a trial, fractions allowed; 1 if there are any.",
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
    help="Of the students' training, instead of the space file's.",
)
@click.option("--address", help="A running Ray cluster, such as 'auto'; this machine by default.")
@click.option("--fresh", is_flag=True, help="Start anew beside an earlier study of this name.")
@click.option("--retry-failed", is_flag=True, help="Run trials again that failed in an earlier run.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
def main(space: Path, profile: str | None, data_dir: Path | None, storage_path: Path, name: str | None,
         seed: int | None, trials: int | None, epochs: int | None, seeds: int | None, max_concurrent: int | None,
         gpus_per_trial: float | None, teacher_store: str, precision: str | None, address: str | None, fresh: bool,
         retry_failed: bool, dry_run: bool) -> None:  # fmt: skip
    """Train and compare what the space file SPACE names."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's goodbye is an interruption too
    study = None
    try:
        loaded = load_space(space, profile, data_dir)
        study = overridden(loaded.study, name=name, seed=seed, trials=trials, epochs=epochs, seeds=seeds)
        if precision is not None:
            study = dataclasses.replace(study, task=study.task.with_precision(precision))
        if teacher_store == "off":
            study = dataclasses.replace(study, task=study.task.with_live_teacher())
        storage = Path(os.path.expanduser(storage_path)).resolve()  # noqa: PTH111 (Path's own refuses ~nobody)
        inputs = check_inputs(study, storage)
        if fresh:
            study = dataclasses.replace(study, name=beside(storage, study.name))
        if dry_run:
            console.print("\n".join(plan(study, inputs, storage)), markup=False, soft_wrap=True)
            return
        place = Place(storage, address, gpus_per_trial, max_concurrent, retry_failed)
        check_place(place)
        problems = drive(study, loaded, inputs, place, command_for(study), console)
        report(storage / study.name, console)
        for problem in problems:
            click.echo(f"failed: {problem}", err=True)
        code = 1 if problems else 0
    except (InputError, RecordsError) as error:
        click.echo(f"error: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; all rows are written. Go on with:\n  {command_for(study)}", err=True)
        code = 130
    sys.exit(code)


def plan(study: Study, inputs: dict[str, Any], storage: Path) -> list[str]:
    """What would be trained, in a few lines."""
    from reports.headline import seeds_warning

    budget = study.budget
    searched = [cell for cell in study.cells if cell.arm.searched]
    lines = [
        f"{study.name}: {study.question}",
        f"data: {inputs.get('data', {}).get('name', 'none')}",
    ]
    lines += notes(study.task.preparations(storage, study.plan))
    lines.append("cells:")
    for cell in study.cells:
        search = f"search {budget.trials} trials, then " if cell.arm.searched else ""
        lines.append(f"  {cell.name}: {search}confirm {budget.seeds} seeds")
    lines.append(f"seeds: study {study.seed}; {budget.seeds} confirm seeds, the same for all arms")
    if warning := seeds_warning(budget.seeds, len(study.arms) - 1):
        lines.append(warning)
    trials = len(searched) * budget.trials + len(study.cells) * budget.seeds
    at_most = "at most " if searched else ""
    lines.append(
        f"{len(study.cells)} cells, {trials} trials ({len(searched) * budget.trials} search, "
        f"{len(study.cells) * budget.seeds} confirm), {at_most}{trials * budget.epochs} epochs"
    )
    return lines


def report(folder: Path, console: Console) -> None:
    """Write the report and print its comparison."""
    from reports.build import build
    from reports.tables import comparison_text

    page = build(folder)
    width = min(console.width, 110) if console.is_terminal else 110
    console.print(comparison_text(folder, width), markup=False, soft_wrap=True)
    console.print(f"report: {page}", markup=False, soft_wrap=True)


def command_for(study: Study | None) -> str:
    """The command that goes on with this study: the one that was given, without what would start another."""
    words = [word for word in sys.argv[1:] if word != "--fresh"]
    if "--fresh" in sys.argv and study is not None:
        words += ["--name", study.name]
    return "python -m study.run " + shlex.join(words)


if __name__ == "__main__":
    main()
