"""python -m study.run SPACE: checks a space file, trains what is not on record yet, and writes the report.

Exit codes: 0 done, 1 a cell could not be completed, 2 bad input, 3 stopped by a cap or on request, 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from study.cli.notify import VARIABLE
from study.cli.options import (
    CLUSTER_FILE,
    HELP,
    RunOptions,
    data_dir_option,
    gpus_per_worker_option,
    profile_option,
    storage_path_option,
)
from study.cli.streams import EnduringCommand
from study.cluster.this_machine import interrupt_on_end_signals
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


@click.command(cls=EnduringCommand, epilog=EXAMPLES, context_settings=HELP)
@click.argument("space", type=click.Path(path_type=Path))
@profile_option
@data_dir_option
@click.option(
    "--download",
    is_flag=True,
    help="Fetch CIFAR into --data-dir, and torchvision's weights into its own folder, where they are missing.",
)
@storage_path_option("Where studies and trained teachers are kept: a folder or s3://BUCKET/PREFIX.")
@click.option("--name", help="The study's name and folder, instead of the space file's.")
@click.option("--seed", type=int, help="The study's seed, instead of the space file's.")
@click.option("--trials", type=int, help="Search trials per searched cell.")
@click.option("--epochs", type=int, help="Epochs per trial; fewer shorten the teacher's in proportion.")
@click.option("--seeds", type=int, help="Confirm seeds per cell.")
@click.option("--wall-hours", type=float, help="Stop after this many hours, summed over all runs of the study.")
@click.option("--gpu-hours", type=float, help="Stop after this many hours of GPU time, summed over all runs.")
@click.option(
    "--usd-per-hour",
    type=float,
    help="Price of one GPU for an hour, with its share of the machine: the cost is given with all GPU hours.",
)
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
    "--reproducible-search",
    type=click.IntRange(min=1),
    metavar="K",
    help="At most K search trials of a cell at once, and no choice that depends on which trial reports first: the same "
    "command gives the same table on a busy machine and an idle one.",
)
@click.option(
    "--address",
    help="A running Ray cluster: 'auto' on one of its nodes, HOST:PORT of its head within its network, or "
    "http://HOST:PORT of its dashboard from outside; this machine by default.",
)
@click.option(
    "--then",
    type=click.Choice(["down"]),
    help="With http://HOST:PORT, once the study has ended: copy its storage here and end the cluster.",
)
@click.option(
    "--cluster-file",
    type=click.Path(),
    default=CLUSTER_FILE,
    show_default=True,
    help="For --then, the file of `ray up`.",
)
@click.option("--fresh", is_flag=True, help="Start a new study next to an earlier one of this name.")
@click.option("--retry-failed", is_flag=True, help="Run failed trials of earlier runs again.")
@click.option(
    "--allow-code-change",
    is_flag=True,
    help="Continue although code changed since the last run; no comparison of old with new trials is judged.",
)
@click.option("--log", "logs", multiple=True, type=click.Choice(TRACKERS), help="Also log epochs there; repeatable.")
@click.option(
    "--notify",
    metavar="URL",
    envvar=VARIABLE,
    help=f"Webhook that gets a message when the run ends; better given as {VARIABLE}, since it is a secret.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each trial that ends.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the table and errors.")
@click.option(
    "--seconds-per-epoch",
    type=click.FloatRange(min=0, min_open=True),
    help="For --dry-run's estimate; by default as measured in earlier runs.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be trained, and train nothing.")
def main(**values: Any) -> None:
    """Train and compare what the space file SPACE defines.

    SPACE is a path, or the name of a study that comes with kdstudy, such as lp_cifar.
    """
    options = RunOptions(**values)
    interrupt_on_end_signals()
    # imported late: --help need not wait for all that runs a study
    from study.cli.run_study import run_and_exit

    run_and_exit(options)


if __name__ == "__main__":
    main()
