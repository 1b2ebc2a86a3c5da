"""What a study will take, without training: its real flow, run against a clock that only counts.

Slots take trials from a Flow as Ray's workers would, an epoch takes the seconds it was measured to take, and scores
come from made-up curves, so that the stopping rule stops about as many trials as it will. Left out: what Ray and a
worker take to start, what failures cost, and that trials side by side may slow each other down more than measured.
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
import pyarrow.parquet as pq

from study.cli.epoch_times import EpochTimes, assume_epoch_seconds
from study.engine.coordinator import Coordinator
from study.engine.replay import replay_records
from study.engine.usage import HOUR, find_exhausted_cap
from study.errors import InputError
from study.records.rows import RunningTrial
from study.records.segments import Records, read_segments
from study.records.study_json import collect_fingerprints, list_runs, read_same_study
from study.search.samplers import Grid, Random
from study.study import Budget, Study
from study.task import Preparation
from study.trial import EpochResult, TrialState

SIMULATED_TRIALS = 200
"""The figures are means over as many simulations as have so many trials: which ones halving stops is chance."""
NOISE = 0.3
"""Of an epoch's score, in deviations of the trials' final scores; how many are stopped hardly depends on it."""


@dataclass(frozen=True)
class Forecast:
    """What is left to do of a study, and what it takes. Preparations are in the hours and the epochs."""

    trials: int
    searches: int
    """Of the trials, those of searches."""
    stopped: int
    """Of the searches' trials, those that the stopping rule is expected to end early."""
    epochs: int
    wall_seconds: float
    gpu_hours: float
    epoch_seconds: float
    """The mean over the trials' epochs."""
    concurrent: int
    recorded: int
    """Trials that have ended already, and are not in the figures."""
    source: str
    """Where the seconds come from; empty if nobody knows, and then the seconds and hours mean nothing."""
    over: str
    """Which cap of the budget will end the study before its end; empty if none."""
    problem: str = ""
    """Why the study cannot go on, as its folder stands; empty if it can."""


def forecast_study(
    study: Study,
    inputs: Mapping[str, Any],
    storage: Path,
    preparations: Sequence[Preparation],
    pace: EpochTimes | None,
    concurrent: int,
    gpus: float,
    retry_failed: bool = False,
) -> Forecast:
    """What a run of this study takes from where its folder stands, with so many trials at once of so many GPUs each.

    A folder of this name that holds another study counts as empty. Without a pace, all but seconds and hours is told.
    Raises RecordsError if the study's rows cannot be read.
    """
    budget = replace(study.budget, wall_hours=None, gpu_hours=None)
    sampler = study.sampler if isinstance(study.sampler, Grid) else Random()  # a grid says how many trials there are
    planned = replace(study, budget=budget, sampler=sampler)
    forecasts: list[Forecast] = []
    with tempfile.TemporaryDirectory(prefix="kdstudy-forecast-") as scratch:
        runs = _copied(study, inputs, storage / study.name, Path(scratch))
        while not forecasts or (forecasts[0].stopped and len(forecasts) * forecasts[0].trials < SIMULATED_TRIALS):
            records = Records(Path(scratch), study.task.metrics)
            flow = Coordinator(
                planned, records, optuna.storages.InMemoryStorage(), [*preparations], collect_fingerprints(inputs)
            )
            flow.flush_seconds, flow.resources = math.inf, {"gpus": gpus}
            replay_records(flow, retry_failed, runs)
            forecasts.append(_simulated(flow, pace, concurrent, random.Random(len(forecasts)), study.budget))
    return _mean(forecasts)


def _copied(study: Study, inputs: Mapping[str, Any], folder: Path, scratch: Path) -> list[dict[str, Any]]:
    """Put a copy of the study's rows, if there are any, into `scratch`; returns its earlier runs."""
    try:
        earlier = read_same_study(folder, study, inputs)
    except InputError:
        return []
    if earlier is None:
        return []
    records = Records(scratch, study.task.metrics)
    for table in (records.trials, records.epochs):
        pq.write_table(read_segments(folder / table.folder.name, table.schema), table.folder / "00000001.parquet")
    return list_runs(earlier)


def _simulated(
    flow: Coordinator, pace: EpochTimes | None, concurrent: int, draw: random.Random, budget: Budget
) -> Forecast:
    gpu_seconds, recorded, searched, stopped = flow.gpu_seconds, *_ended(flow)
    ticks = list(_ticks(flow, pace or assume_epoch_seconds(1.0), concurrent, draw))
    wall_seconds = ticks[-1][0] if ticks else 0.0
    trials_ended, searches_ended, all_stopped = _ended(flow)
    return Forecast(
        trials=trials_ended - recorded,
        searches=searches_ended - searched,
        stopped=all_stopped - stopped,
        epochs=len(ticks),
        wall_seconds=wall_seconds,
        gpu_hours=(flow.gpu_seconds - gpu_seconds) / HOUR,
        epoch_seconds=mean([seconds for _, phase, seconds in ticks if phase != "prepare"] or [0.0]),
        concurrent=concurrent,
        recorded=recorded,
        source=pace.source if pace else "",
        over=find_exhausted_cap(budget, flow.wall_seconds_before + wall_seconds, flow.gpu_seconds) if pace else "",
        problem=flow.problem,
    )


def _ticks(
    flow: Coordinator, pace: EpochTimes, concurrent: int, draw: random.Random
) -> Iterator[tuple[float, str, float]]:
    """The end of each epoch, in the order of time: when, in which phase, after how many seconds."""
    under_way: list[tuple[float, int, RunningTrial, float]] = []
    now, order = 0.0, itertools.count()  # of two epochs that end at once, the one begun first comes first
    while True:
        while len(under_way) < concurrent and (run := flow.next()) is not None:
            heapq.heappush(under_way, (now + pace.of(run.trial), next(order), run, draw.gauss(0, 1)))
        if not under_way:
            return
        ended = False
        while not ended:
            now, _, run, final = heapq.heappop(under_way)
            seconds = pace.of(run.trial)
            ended = flow.report(run.trial.id, _row(flow.study, run, final, seconds, draw), "")
            if not ended:
                heapq.heappush(under_way, (now + seconds, next(order), run, final))
            yield now, run.trial.phase, seconds


def _row(study: Study, run: RunningTrial, final: float, seconds: float, draw: random.Random) -> EpochResult:
    """An epoch whose scores move towards `final`, in units in which trials' final scores are N(0, 1).

    As many would be stopped if lower were better: the curves are the same upside down.
    """
    epoch = run.epochs_done + 1
    score = final * (1 - math.exp(-3 * epoch / run.trial.epochs)) + NOISE * draw.gauss(0, 1)
    metrics = dict.fromkeys([*study.objective_directions, study.test_metric], score)
    return EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=seconds)


def _ended(flow: Coordinator) -> tuple[int, int, int]:
    """How many trials have ended, of these how many of searches, of these how many the stopping rule ended."""
    searched = [state for cell in flow.cells.values() for state, _ in cell.searched.values()]
    confirmed = sum(state is not None for cell in flow.cells.values() for state in cell.confirmed.values())
    return len(searched) + confirmed, len(searched), searched.count(TrialState.PRUNED)


def _mean(forecasts: Sequence[Forecast]) -> Forecast:
    def of(name: str) -> float:
        return mean(float(getattr(forecast_study, name)) for forecast_study in forecasts)

    return replace(
        forecasts[0],
        stopped=round(of("stopped")),
        epochs=round(of("epochs")),
        wall_seconds=of("wall_seconds"),
        gpu_hours=of("gpu_hours"),
        epoch_seconds=of("epoch_seconds"),
    )


# -- in words ----------------------------------------------------------------------------------------------------------


def format_forecast(forecast: Forecast, name: str) -> list[str]:
    """The forecast for a user who has asked for a dry run of the study `name`."""
    if not forecast.trials:
        return [forecast.problem or "nothing is left to train"]
    left = f"what is left, {forecast.trials} trials: " if forecast.recorded else ""
    stopped = f"; halving is expected to stop about {forecast.stopped} of {forecast.searches} search trials"
    halving = stopped if forecast.stopped else ""
    if not forecast.source:
        return [
            f"{left}about {forecast.epochs} epochs with preparations{halving}",
            "to price it, give --seconds-per-epoch, or measure a few epochs first: "
            f"add --trials 1 --seeds 1 --epochs 2 --name {name}-try",
        ]
    gpus = f", {_plain(forecast.gpu_hours)} GPU hours" if forecast.gpu_hours else ""
    said = [
        f"{left}about {format_duration(forecast.wall_seconds)} on {forecast.concurrent} "
        f"trial{'s' if forecast.concurrent > 1 else ''} at once "
        f"({forecast.epoch_seconds:.3g} s an epoch, {forecast.source}){gpus}{halving}"
    ]
    return said + ([f"its budget ends it before: {forecast.over}"] if forecast.over else [])


def format_duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: 42 s, 12 min, 1 h 10 min, 3 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def _plain(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"
