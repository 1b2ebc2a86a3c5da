"""Ray Tune behind one small door: hands out the flow's trials, passes their rows back.

Tune only places trials on resources, keeps actors alive between them and restarts those whose worker died. What runs,
what is stopped and what is remembered is decided in study/flow.py: Tune's searcher, scheduler and state files see
nothing but a trial's text.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study.cluster import Resources  # isort: skip  (first: it sets what Ray reads when it is imported)
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.flow import Flow
from study.group import TrialGroup
from study.records import RecordsError
from study.rows import Run
from study.study import Study
from study.worker import Told, TrialWorker, Workplace

WORKER_RETRIES = 3
"""How often a trial is started again whose worker or node dies before it has told an epoch; then it has failed."""

TICK_SECONDS = 0.25

Watch = Callable[[], str]
"""Looks after display and caps, every TICK_SECONDS; says why the study is to stop here, or nothing."""


def execute(
    flow: Flow, workplace: Workplace, resources: Resources, space: Any, watch: Watch, say: Callable[[str], None]
) -> str:
    """Run the flow until nothing is left to start, or until it is to stop; returns why.

    `space` is the module of the space file; `say` gets what tasks tell the user.
    """
    # classes written in a space file travel by value: workers cannot import it
    cloudpickle.register_pickle_by_value(space)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = Path(tempfile.mkdtemp(prefix="kdstudy-tune-"))
    door = Door(flow, workplace, watch, say)
    try:
        tune.Tuner(
            _placed(flow.study, workplace, resources),
            tune_config=tune.TuneConfig(
                search_alg=FlowSearcher(door),
                scheduler=FlowScheduler(door),
                num_samples=-1,
                max_concurrent_trials=resources.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
                callbacks=[Tick(door)],
                verbose=0,
            ),
        ).fit()
    except Leave as leaving:
        if leaving.__cause__ is not None:
            raise leaving.__cause__ from None
        return str(leaving)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    flow.flush()
    door.forget()
    return ""


def _placed(study: Study, workplace: Workplace, resources: Resources) -> Any:
    """The actor of one trial after the other, and what it asks for."""
    worker = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.workers == 1:
        return tune.with_resources(tune.with_parameters(TrialWorker, study=study, workplace=workplace), worker)
    # nothing for the group's own actor, so that the workers of as many trials fit as there is room for
    bundles = tune.PlacementGroupFactory([{}, *[worker] * resources.workers])
    return tune.with_resources(tune.with_parameters(TrialGroup, study=study, workplace=workplace), bundles)


class Leave(BaseException):
    """Out of Tune's loop, now. Not an Exception: Tune would wrap it in its own."""


class Tick(tune.Callback):  # type: ignore[misc]
    """Tune's word for: time passes, also while no row comes."""

    def __init__(self, door: Door):
        self._door = door

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._door.tick()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune keeps every trial to the end, and of each the running averages of everything it was told
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()


class Door:
    """Between Tune's trials and the flow's: who is who, and what to do with a message."""

    def __init__(self, flow: Flow, workplace: Workplace, watch: Watch, say: Callable[[str], None]):
        self.flow, self._workplace, self._watch, self._say = flow, workplace, watch, say
        self._ids: dict[str, str] = {}
        self._errors: dict[str, Exception | None] = {}
        """What Tune last said of each trial whose worker died."""
        self._deaths: Counter[str] = Counter()
        """Of each trial's workers since it last got further."""
        self._given_up: Counter[str] = Counter()
        self._ticked = 0.0
        self._over: list[tuple[str, float]] = []
        """Trials whose checkpoint is not needed once their end is on disk, and when they ended."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a pickled copy of its searcher, which nobody ever opens

    def tick(self) -> None:
        """Write what is due, and leave if it is time to."""
        if time.monotonic() - self._ticked < TICK_SECONDS:
            return
        self._ticked = time.monotonic()
        with _out_of_tune():
            self.flow.flush_if_due()
            self.forget()
            if reason := self._watch():
                raise Leave(reason)

    def forget(self) -> None:
        """Remove the checkpoints of trials whose end is on disk: until then a kill would cost the whole trial."""
        while self._over and self._over[0][1] < self.flow.flushed:
            self._workplace.forget(self._over.pop(0)[0])

    def open(self, tune_id: str) -> dict[str, Any] | str | None:
        with _out_of_tune():
            run = self.flow.next()
        if run is None:
            return None if self.flow.running else Searcher.FINISHED
        self._ids[tune_id] = run.trial.id
        if run.start_over:
            self._workplace.forget(run.trial.id)
        return as_config(run)

    def hear(self, tune_id: str, text: str) -> tuple[bool, bool]:
        """Pass a worker's message to the flow; whether the trial has ended, and whether it got further by it."""
        told = Told(**json.loads(text))
        trial_id = self._ids[tune_id]
        run = self.flow.running[trial_id]
        before = run.epochs_done
        with _out_of_tune():
            for note in told.notes:
                self._say(f"{run.trial.cell}, {run.trial.phase} {run.trial.number}: {note}")
            ended = any(self.flow.report(trial_id, row, told.worker) for row in told.rows)
            if told.storage:
                raise RecordsError(f"the storage takes no more ({told.storage}): make room, then run the command again")
            if told.failure and not ended:
                self.flow.fail(trial_id, told.failure, told.worker)
            elif ended and run.trial.phase != "confirm":
                self._over.append((trial_id, time.monotonic()))  # only a confirmed student's weights are worth keeping
        return ended or bool(told.failure), run.epochs_done > before

    def forgive(self, tune_id: str) -> None:
        """A trial got further: what it lost before does not count."""
        trial_id = self._ids[tune_id]
        self._deaths.pop(trial_id, None)
        self._given_up.pop(trial_id, None)

    def died(self, tune_id: str, error: Exception | None) -> None:
        """A worker died, or could not start."""
        trial_id = self._ids[tune_id]
        self._errors[trial_id] = error
        self._deaths[trial_id] += 1

    def lost(self, tune_id: str) -> None:
        """Tune gave a trial up. It has failed if its workers died more often than is forgiven.

        Where a worker dies just as it turns to its next trial, Tune gives that one up after a single death.
        """
        trial_id = self._ids[tune_id]
        self._given_up[trial_id] += 1
        if max(self._deaths[trial_id], self._given_up[trial_id]) <= WORKER_RETRIES:
            self.flow.again(trial_id)
            return
        error = self._errors.get(trial_id)
        lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
        last = f"{type(error).__name__}: {lines[-1]}" if lines else "Ray gives no reason"
        with _out_of_tune():
            self._workplace.explain(trial_id, str(error))
            self.flow.fail(trial_id, f"its worker died {WORKER_RETRIES + 1} times without an epoch, last with {last}")


@contextmanager
def _out_of_tune() -> Iterator[None]:
    """Let an error of ours leave Tune's loop as it is."""
    try:
        yield
    except Exception as error:
        raise Leave from error


class FlowSearcher(Searcher):  # type: ignore[misc]
    """Tune's word for: what runs next."""

    def __init__(self, door: Door):
        super().__init__(metric="message", mode="max")
        self._door = door

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self._door.open(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # without an error, the flow has ended the trial already: when it heard the last row
        if error:
            self._door.lost(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """The rows are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The rows are the state."""


class FlowScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's word for: a row has come, does the trial go on."""

    def __init__(self, door: Door):
        super().__init__()
        self._door = door

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ended, got_on = self._door.hear(trial.trial_id, result["message"])
        if got_on:
            trial.run_metadata.num_failures = 0  # forgiven: a long trial may lose many a node
            self._door.forgive(trial.trial_id)
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # told at every death of a worker; the searcher hears of the last one only
        self._door.died(trial.trial_id, trial.get_error())


def as_config(run: Run) -> dict[str, Any]:
    """A trial as Tune carries it: one text, so that Tune neither flattens nor prints its settings."""
    return {"trial": json.dumps(asdict(run.trial)), "epochs_done": run.epochs_done}
