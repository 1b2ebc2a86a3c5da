"""The estimate of --dry-run: the study's own coordinator, run against a simulated clock without training.

Trials take slots as on Ray's workers, each epoch takes its measured seconds, and scores follow random curves, so that
the stopping rule ends about as many trials as it will. Not included: the start of Ray and its workers, failures, and a
slowdown of concurrent trials beyond the measured one.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import optuna

from reports.format.values import count_of
from study.cli.dry_run.epoch_times import EpochTimes, assume_epoch_seconds
from study.engine.coordinator import Coordinator
from study.engine.replay import replay_records
from study.engine.usage import HOUR, find_exhausted_cap, format_cost
from study.errors import InputError
from study.records.parquet_table import Records, read_parquet_table
from study.records.rows import RunningTrial
from study.records.same_study import read_same_study
from study.records.study_json import collect_fingerprints, list_runs
from study.search.samplers import Grid, Random
from study.study import Budget, Study
from study.task import Preparation
from study.trial import EpochResult, TrialState

SIMULATED_TRIALS = 200
"""Simulations are repeated until they have this many trials: which trials the stopping rule ends is random."""

SIMULATED_EPOCHS = 50_000
"""Simulations are not repeated beyond this many epochs, which take a second or two."""

NOISE = 0.3
"""Standard deviation of an epoch's score, in units of that of the final scores. The number of stopped trials hardly
depends on it."""


@dataclass(frozen=True)
class Forecast:
    """Remaining work of a study and its cost; hours and epochs include preparations."""

    trials: int
    searches: int
    """The number of search trials among them."""
    stopped: int
    """Search trials that the stopping rule is expected to end early."""
    epochs: int
    wall_seconds: float
    gpu_hours: float
    epoch_seconds: float
    """Mean over the trials' epochs."""
    concurrent: int
    recorded: int
    """Trials that have ended already; no other figure includes them."""
    source: str
    """Where the seconds come from; empty if unknown, and then seconds and hours have no meaning."""
    over: str
    """The cap of the budget that will end the study early; empty if none will."""
    problem: str = ""
    """Why the study cannot continue, from its records; empty if it can."""
    usd_per_hour: float | None = None
    """Price of a GPU for one hour."""


def forecast_study(
    study: Study,
    inputs: Mapping[str, Any],
    storage: Path,
    preparations: Sequence[Preparation],
    times: EpochTimes | None,
    concurrent: int,
    gpus: float,
    retry_failed: bool = False,
) -> Forecast:
    """Forecast a run that resumes the study in its folder, with `concurrent` trials at once of `gpus` GPUs each.

    A folder that holds another study counts as empty. Without `times`, seconds and hours have no meaning.
    Raises RecordsError if the study's rows cannot be read.
    """
    budget = replace(study.budget, wall_hours=None, gpu_hours=None)
    sampler = study.sampler if isinstance(study.sampler, Grid) else Random()  # a grid decides the number of trials
    # without constraints: to know who meets them takes a pass of each student, and the forecast is of the most work
    simulated = replace(study, budget=budget, sampler=sampler, constraints=None)
    fingerprints = collect_fingerprints(inputs)
    forecasts: list[Forecast] = []
    with tempfile.TemporaryDirectory(prefix="kdstudy-forecast-") as scratch:
        runs = _copy_rows(study, inputs, storage / study.name, Path(scratch))
        while not forecasts or _should_repeat(forecasts):
            records, journal = Records(Path(scratch), study.metrics), optuna.storages.InMemoryStorage()
            coordinator = Coordinator(
                simulated, records, journal, [*preparations], fingerprints, flush_seconds=math.inf
            )
            coordinator.resources = {"gpus": gpus}
            replay_records(coordinator, retry_failed, runs)
            rng = random.Random(len(forecasts))
            forecasts.append(_simulate(coordinator, times, concurrent, rng, study.budget))
    return _average(forecasts)


def _should_repeat(forecasts: Sequence[Forecast]) -> bool:
    first, count = forecasts[0], len(forecasts)
    return bool(first.stopped) and count * first.trials < SIMULATED_TRIALS and count * first.epochs < SIMULATED_EPOCHS


def _copy_rows(study: Study, inputs: Mapping[str, Any], folder: Path, scratch: Path) -> list[dict[str, Any]]:
    """Copy the study's rows, if there are any, into `scratch`; return its earlier runs."""
    try:
        earlier = read_same_study(folder, study, inputs)
    except InputError:
        return []
    if earlier is None:
        return []
    records = Records(scratch, study.metrics)
    for table in (records.trials, records.epochs):
        table.replace_rows(read_parquet_table(folder / table.folder.name, table.schema))
    return list_runs(earlier)


def _simulate(
    coordinator: Coordinator, times: EpochTimes | None, concurrent: int, rng: random.Random, budget: Budget
) -> Forecast:
    usage = coordinator.usage
    gpu_seconds, earlier_wall_seconds = usage.gpu_seconds, usage.wall_seconds
    recorded, searched, stopped = _count_ended(coordinator)
    ticks = list(_run_epochs(coordinator, times or assume_epoch_seconds(1.0), concurrent, rng))
    wall_seconds = ticks[-1][0] if ticks else 0.0
    trials_ended, searches_ended, all_stopped = _count_ended(coordinator)
    cap = find_exhausted_cap(budget, earlier_wall_seconds + wall_seconds, usage.gpu_seconds)
    return Forecast(
        trials=trials_ended - recorded,
        searches=searches_ended - searched,
        stopped=all_stopped - stopped,
        epochs=len(ticks),
        wall_seconds=wall_seconds,
        gpu_hours=(usage.gpu_seconds - gpu_seconds) / HOUR,
        epoch_seconds=mean([seconds for _, phase, seconds in ticks if phase != "prepare"] or [0.0]),
        concurrent=concurrent,
        recorded=recorded,
        source=times.source if times else "",
        over=cap if times else "",
        problem=coordinator.problem,
        usd_per_hour=budget.usd_per_hour,
    )


def _run_epochs(
    coordinator: Coordinator, times: EpochTimes, concurrent: int, rng: random.Random
) -> Iterator[tuple[float, str, float]]:
    """Yield the end of each epoch in order of time: the simulated time, the phase and the epoch's seconds."""
    running: list[tuple[float, int, RunningTrial, float]] = []
    now, order = 0.0, itertools.count()  # of two epochs that end at once, the one started first comes first
    while True:
        while len(running) < concurrent and (run := coordinator.next_trial()) is not None:
            heapq.heappush(running, (now + times.find_seconds(run.trial), next(order), run, rng.gauss(0, 1)))
        if not running:
            return
        ended = False
        while not ended:
            now, _, run, final_score = heapq.heappop(running)
            seconds = times.find_seconds(run.trial)
            row = _make_result(coordinator.study, run, final_score, seconds, rng)
            ended = coordinator.report(run.trial.id, row, "")
            if not ended:
                heapq.heappush(running, (now + seconds, next(order), run, final_score))
            yield now, run.trial.phase, seconds


def _make_result(
    study: Study, run: RunningTrial, final_score: float, seconds: float, rng: random.Random
) -> EpochResult:
    """Return an epoch whose scores approach `final_score`, in units in which final scores are N(0, 1).

    The distribution is symmetric, so the metric's direction makes no difference.
    """
    epoch = run.epoch + 1
    score = final_score * (1 - math.exp(-3 * epoch / run.trial.epochs)) + NOISE * rng.gauss(0, 1)
    metrics = dict.fromkeys([*study.objective_directions, study.test_metric], score)
    return EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=seconds)


def _count_ended(coordinator: Coordinator) -> tuple[int, int, int]:
    """Return the number of ended trials, of search trials among them, and of those ended by the stopping rule."""
    cells = coordinator.cells.values()
    searched = [state for cell in cells for state, _ in cell.search.ended.values()]
    confirmed = sum(state is not None for cell in cells for state in cell.confirmed.values())
    return len(searched) + confirmed, len(searched), searched.count(TrialState.PRUNED)


def _average(forecasts: Sequence[Forecast]) -> Forecast:
    return replace(
        forecasts[0],
        stopped=round(mean(forecast.stopped for forecast in forecasts)),
        epochs=round(mean(forecast.epochs for forecast in forecasts)),
        wall_seconds=mean(forecast.wall_seconds for forecast in forecasts),
        gpu_hours=mean(forecast.gpu_hours for forecast in forecasts),
        epoch_seconds=mean(forecast.epoch_seconds for forecast in forecasts),
    )


# -- as text -----------------------------------------------------------------------------------------------------------


def format_forecast(forecast: Forecast, name: str) -> list[str]:
    """Return the forecast of the study `name` in one or two lines."""
    if not forecast.trials:
        return [forecast.problem or "nothing is left to train"]
    left = f"what is left, {count_of(forecast.trials, 'trial')}: " if forecast.recorded else ""
    stopped = f"; halving is expected to stop about {forecast.stopped} of {forecast.searches} search trials"
    halving = stopped if forecast.stopped else ""
    if not forecast.source:
        return [
            f"{left}about {count_of(forecast.epochs, 'epoch')} with preparations{halving}",
            "for a time estimate pass --seconds-per-epoch, or run a few epochs first: "
            f"add --trials 1 --seeds 1 --epochs 2 --name {name}-try",
        ]
    cost = format_cost(forecast.gpu_hours, forecast.usd_per_hour)
    gpus = f", {_format_hours(forecast.gpu_hours)} GPU hours{cost}" if forecast.gpu_hours else ""
    lines = [
        f"{left}about {format_duration(forecast.wall_seconds)} on {count_of(forecast.concurrent, 'trial')} at once "
        f"({forecast.epoch_seconds:.3g} s an epoch, {forecast.source}){gpus}{halving}"
    ]
    return lines + ([f"its budget ends it before: {forecast.over}"] if forecast.over else [])


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: 42 s, 12 min, 1 h 10 min, 3 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def _format_hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"
