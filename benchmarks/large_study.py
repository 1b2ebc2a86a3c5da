"""The driver's part of a large study: python -m benchmarks.large_study [--trials 10000] [--cells 1] [--quick].

A study of simulated trials of 20 epochs that take no time, 8 at a time, is searched by TPE with the default stopping
rule and recorded, in one process and without Ray: what is measured is the coordinator, the search and the records. Then
`python -m study show` and `python -m reports.build` run on its folder, each in its own process. `--cells` divides the
trials into several searches: TPE's work per proposal grows with the trials of its own search. Goals at 10,000 trials:
20 KiB of driver memory per trial, the last tenth at most 1.5 times as slow as the first, 3 s for `show`, 20 s and 8 MB
for the report.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.engine import make_study, read_resident_bytes
from benchmarks.report import measure_build
from benchmarks.reporting import describe_machine, format_result, format_table
from study import Study, SuccessiveHalving
from study.code_version import CodeVersion
from study.driver import restore_coordinator
from study.engine.coordinator import Coordinator
from study.preflight import DriverOptions
from study.records.study_json import build_study_json, write_study
from study.space_file import Space
from study.trial import EpochResult
from trainables.tasks import simulated

EPOCHS, CONCURRENT = 20, 8
INPUTS = {"data": {"fingerprint": "none"}}


def run_study(study: Study, storage: Path) -> list[tuple[float, int]]:
    """Run a study to its end; return processor time and resident memory at the end of each trial."""
    coordinator = restore_coordinator(study, INPUTS, DriverOptions(storage))
    coordinator.resources = {"device": "cpu", "cpus": 1.0, "gpus": 0.0}
    ends = []
    running: deque[str] = deque()
    while True:
        while len(running) < CONCURRENT and (run := coordinator.next_trial()) is not None:
            running.append(run.trial.id)
        if not running:
            break
        trial_id = running.popleft()
        if _report_epoch(coordinator, trial_id):
            ends.append((time.process_time(), read_resident_bytes()))
        else:
            running.append(trial_id)
    coordinator.writer.flush()
    space = Space(study, simulated, Path(__file__), "", "", CodeVersion({"space file": "0" * 16}))
    document = build_study_json(study, space, INPUTS, None, "python -m benchmarks.large_study")
    write_study(storage / study.name, document | {"finished": True})
    return ends


def _report_epoch(coordinator: Coordinator, trial_id: str) -> bool:
    """Report the trial's next epoch, whose score rises to that of its parameters; return whether it ended the trial."""
    run = coordinator.running[trial_id]
    epoch, x = run.epochs_done + 1, float(run.trial.params.get("x", 0.5))
    score = (0.9 - (x - 0.3) ** 2) * (1 - 0.5**epoch)
    metrics = dict.fromkeys([*coordinator.study.objective_directions, coordinator.study.test_metric], score)
    return coordinator.report(trial_id, EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=1.0), "")


def time_show(folder: Path) -> float:
    """Return the seconds that `python -m study show` takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "study", "show", str(folder)], check=True, capture_output=True)
    return time.perf_counter() - started


@click.command()
@click.option("--quick", is_flag=True, help="A short check: 120 trials.")
@click.option("--trials", default=10_000, show_default=True, type=click.IntRange(min=40), help="Search trials in all.")
@click.option(
    "--cells", default=1, show_default=True, type=click.IntRange(min=1), help="Searches they are divided into."
)
def main(quick: bool, trials: int, cells: int) -> None:
    """Measure driver, `show` and report of a large study of simulated trials."""
    trials = 120 if quick else trials
    print(
        "\n".join([*describe_machine(), f"study    {trials} trials of {EPOCHS} epochs in {cells} searches"]), flush=True
    )
    study = replace(make_study(trials // cells, EPOCHS, cells=cells), stopping=SuccessiveHalving())
    with tempfile.TemporaryDirectory(prefix="kdstudy-large-") as temporary:
        ends = run_study(study, Path(temporary))
        folder = Path(temporary) / study.name
        show, cost = time_show(folder), measure_build(folder)
        page = (folder / "report.html").stat().st_size
    tenth = len(ends) // 10
    seconds = [
        (ends[stop][0] - ends[start][0]) / tenth for start, stop in itertools.pairwise(range(0, len(ends), tenth))
    ]
    memory = (ends[-1][1] - ends[tenth][1]) / (len(ends) - 1 - tenth)
    numbers, costs = map(str, range(1, len(seconds) + 1)), (f"{1000 * value:.1f}" for value in seconds)
    print(format_table([["tenth", *numbers], ["processor time per trial, ms", *costs]]) + "\n")
    print(format_result("last_over_first", [seconds[-1] / seconds[0]], "x"))
    print(format_result("memory_by_trial", [memory / 1024], "KiB"))
    print(format_result("show_seconds", [show], "s"))
    print(format_result("report_seconds", [cost.seconds], "s"))
    print(format_result("report_megabytes", [page / 1e6], "MB"))


if __name__ == "__main__":
    main()
