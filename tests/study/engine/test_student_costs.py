"""Costs of students as objectives and limits: measured once, kept through kills, honoured by the search."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import optuna
import pytest

from study import Arm, Budget, Never, Random, SuccessiveHalving, Tpe, integer, uniform
from study.engine.coordinator import Coordinator
from study.engine.student_costs import check_costs
from study.errors import InputError
from study.study import Study
from study.trial import EpochResult
from tests.study.toy import drive, open_coordinator, toy
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent

PLAIN = Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True)
TUNED = Arm("tuned", SimulatedLoss(x=uniform(0, 1)))
LATENCY, INT8_LATENCY, MACS = "student/latency_ms", "student/int8_latency_ms", "student/macs"
EXACT = Simulated(noise=0, seed_effect=0, teacher_epochs=0)


@dataclasses.dataclass(frozen=True)
class SteadyTask(Simulated):
    """A task whose latencies have no noise."""

    def measure_student(self, student: SimulatedStudent, names: Collection[str]) -> dict[str, float]:
        steady = {LATENCY: float(student.width), INT8_LATENCY: student.width / 2}
        others = super().measure_student(student, set(names) - steady.keys())
        return others | {name: steady[name] for name in steady if name in names}

    @property
    def costs(self) -> Collection[str]:
        return (*super().costs, INT8_LATENCY)


STEADY = SteadyTask(noise=0, seed_effect=0, teacher_epochs=0)


def study_of(width: Any = None, **changes: Any) -> Study:
    parts = {
        "arms": (PLAIN, TUNED),
        "task": EXACT,
        "students": (SimulatedStudent("net", integer(1, 6) if width is None else width),),
        "objectives": (LATENCY,),
        "stopping": Never(),
    }
    return dataclasses.replace(toy(), **parts | changes)


def run(study: Study, folder: Path, rows: int | None = None, storage: Any = None) -> Coordinator:
    coordinator = open_coordinator(study, folder, storage)
    drive(coordinator, folder, rows=rows)
    return coordinator


def read_rows(coordinator: Coordinator, phase: str = "search") -> list[dict[str, Any]]:
    rows = [row for row in coordinator.writer.records.trials.read_rows() if row["phase"] == phase]
    return sorted(rows, key=lambda row: (row["cell"], row["number"]))


def width_of(row: dict[str, Any]) -> int:
    return int(json.loads(row["params"])["student.width"])


def collect_latencies(coordinator: Coordinator) -> dict[int, set[float]]:
    """Return all recorded latencies by width, of all phases, cells and epochs."""
    records, found = coordinator.writer.records, dict[int, set[float]]()
    widths = {row["trial_id"]: width_of(row) for row in records.trials.read_rows() if row["phase"] != "prepare"}
    for row in records.epochs.read_rows() + records.trials.read_rows():
        if row["trial_id"] in widths and row[LATENCY] is not None:
            found.setdefault(widths[row["trial_id"]], set()).add(row[LATENCY])
    return found


# -- measured once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [None, 1, 20, 50])
def test_latency_of_a_student_is_measured_once_whatever_resumes(stop_after: int | None, tmp_path: Path) -> None:
    """The task's latency differs each time that it is measured."""
    before = {} if stop_after is None else collect_latencies(run(study_of(), tmp_path, stop_after))
    coordinator = run(study_of(), tmp_path)
    assert coordinator.done
    found = collect_latencies(coordinator)
    assert set(found) == {1, 2, 3, 4, 5, 6}
    assert all(len(values) == 1 for values in found.values())
    assert {width: found[width] for width in before} == before


def test_two_trials_that_measure_at_once_record_the_first_value(tmp_path: Path) -> None:
    students = (SimulatedStudent("net", integer(1, 6)), SimulatedStudent("fixed", 3))
    coordinator = open_coordinator(study_of(students=students, arms=(PLAIN,)), tmp_path)
    started = [coordinator.next_trial() for _ in range(6 + 2)]
    fixed = [one for one in started if one is not None and one.trial.student == "fixed"]
    for one, latency in zip(fixed, (1.5, 2.5), strict=True):
        row = EpochResult(epoch=1, metrics={LATENCY: latency}, schedules={}, seconds=0.0)
        coordinator.report(one.trial.id, row, "here:1")
    assert [one.metrics[LATENCY] for one in fixed] == [1.5, 1.5]


@pytest.mark.parametrize("stop_after", [1, 30, 71])
@pytest.mark.parametrize("lag", [None, 2])
def test_search_with_costs_and_limits_resumes_as_if_uninterrupted(
    stop_after: int, lag: int | None, tmp_path: Path
) -> None:
    study = study_of(
        integer(1, 40),
        task=STEADY,
        budget=Budget(trials=20, epochs=4, seeds=2),
        sampler=Tpe(startup_trials=4),
        constraints={MACS: 10_000 * 20**2, LATENCY: 15.5},
        reproducible_search=lag,
    )
    storages = [optuna.storages.InMemoryStorage() for _ in range(2)]
    whole = run(study, tmp_path / "whole", storage=storages[0])
    run(study, tmp_path / "cut", stop_after)
    resumed = run(study, tmp_path / "cut", storage=storages[1])
    columns = ("cell", "number", "params", "state", "reason", LATENCY, MACS)
    views = [[{name: row[name] for name in columns} for row in read_rows(one)] for one in (whole, resumed)]
    assert views[0] == views[1]
    assert {row["state"] for row in views[0]} == {"COMPLETE", "PRUNED"}
    attributes = [
        [(trial.params, trial.state, trial.values, trial.constraints, trial.intermediate_values) for trial in trials]
        for trials in (optuna.load_study(study_name="net / tuned", storage=storage).trials for storage in storages)
    ]
    assert attributes[0] == attributes[1]
    confirmed = [[(row["params"], row["number"]) for row in read_rows(one, "confirm")] for one in (whole, resumed)]
    assert confirmed[0] == confirmed[1]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_student_above_an_exact_limit_is_not_trained(tmp_path: Path) -> None:
    coordinator = run(study_of(objectives=(), constraints={MACS: 90_000}), tmp_path)
    rows = read_rows(coordinator)
    assert len(rows) == 6 + 9
    for row in rows:
        wide = width_of(row) > 3
        assert row["state"] == ("PRUNED" if wide else "COMPLETE")
        assert row["epochs_done"] == (0 if wide else 6)
        assert row[MACS] == 10_000 * width_of(row) ** 2
        assert (row["reason"] == f"student/macs is {row[MACS]:,.0f}, its limit 90,000") == wide
    assert {width_of(row) for row in read_rows(coordinator, "confirm") if row["arm"] == "plain"} == {3}
    assert coordinator.done


@dataclasses.dataclass(frozen=True)
class PickyTask(Simulated):
    """A task with a net that cannot be built with a width of 3."""

    def measure_student(self, student: SimulatedStudent, names: Collection[str]) -> dict[str, float]:
        if student.width == 3:
            raise ValueError("width must divide 4")
        return super().measure_student(student, names)


def test_student_that_cannot_be_built_fails_its_trial_alone(tmp_path: Path) -> None:
    limits = {"task": PickyTask(noise=0, seed_effect=0, teacher_epochs=0), "constraints": {MACS: 1e12}}
    coordinator = run(study_of(integer(1, 4), objectives=(), **limits), tmp_path)
    rows = read_rows(coordinator)
    assert {width_of(row) for row in rows if row["state"] == "FAILED"} == {3}
    assert {row["reason"] for row in rows if row["state"] == "FAILED"} == {"ValueError: width must divide 4"}
    assert any(row["state"] == "COMPLETE" for row in rows)


@pytest.mark.parametrize(("cost", "scale"), [(LATENCY, 1.0), (INT8_LATENCY, 0.5)])
@pytest.mark.parametrize("epochs", [1, 6])
def test_student_above_a_measured_limit_ends_after_its_first_epoch(
    cost: str, scale: float, epochs: int, tmp_path: Path
) -> None:
    """The second arm's trials of it are not trained, as its latency is known."""
    budget, limit = Budget(trials=9, epochs=epochs, seeds=1), 3.5 * scale
    rows = read_rows(run(study_of(task=STEADY, budget=budget, constraints={cost: limit}), tmp_path))
    for row in rows:
        slow = width_of(row) > 3
        assert row["state"] == ("PRUNED" if slow else "COMPLETE")
        assert row["epochs_done"] in ((0, 1) if slow else (epochs,))
        assert (row["reason"] == f"{cost} is {scale * width_of(row):.4g}, its limit {limit:.4g}") == slow
        assert row[cost] == scale * width_of(row)
    trained = [width_of(row) for row in rows if row["epochs_done"] == 1 and width_of(row) > 3]
    assert sorted(trained) == [4, 5, 6]


def test_trials_above_a_limit_do_not_count_for_the_stopping_rule(tmp_path: Path) -> None:
    """Wide students score best here; were they among the rungs, all that are allowed would be stopped."""
    study = study_of(
        task=STEADY, objectives=(), constraints={LATENCY: 2.5}, stopping=SuccessiveHalving(1, 2), arms=(PLAIN,)
    )
    rows = read_rows(run(study, tmp_path))
    assert "COMPLETE" in {row["state"] for row in rows if width_of(row) <= 2}
    reasons = [row["reason"] for row in rows if row["reason"].startswith("halving")]
    assert all("among 1 " in reason or "among 2 " in reason for reason in reasons)


def test_tpe_learns_the_limit(tmp_path: Path) -> None:
    """Accuracy rises with width up to 200, of which 20 are allowed: one draw in ten."""
    budget = Budget(trials=60, epochs=1, seeds=1)
    shares = []
    for sampler in (Tpe(startup_trials=8), Random()):
        study = study_of(
            integer(1, 200), objectives=(), sampler=sampler, budget=budget, constraints={MACS: 10_000 * 20**2}
        )
        rows = read_rows(run(study, tmp_path / type(sampler).__name__))
        late = [row["state"] == "COMPLETE" for row in rows if row["number"] >= 30]
        shares.append(sum(late) / len(late))
    assert shares[0] > 2 * shares[1]


def test_cell_in_which_every_trial_exceeds_a_limit_names_it(tmp_path: Path) -> None:
    coordinator = run(study_of(task=STEADY, constraints={LATENCY: 0.5}), tmp_path)
    assert coordinator.problems[0].startswith("net / plain: none of its 6 search trials completed: 6 stopped")
    assert "student/latency_ms is " in coordinator.problems[0]


# -- before a study starts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "limit", "expected"),
    [
        (integer(4, 6), 90_000, r"none of 3 students of net meets the constraints \(student/macs 90,000\); the lowest "
         r"found: student/macs 160,000\. Raise the limits, or allow smaller students"),
        (integer(4, 4000), 90_000, "none of 66 students of net meets"),
        (integer(2, 6), 90_000, ""),
        (integer(2, 4000), 90_000, ""),
    ],
)  # fmt: skip
def test_limit_that_no_student_meets_is_refused(width: Any, limit: float, expected: str) -> None:
    study = study_of(width, constraints={MACS: limit})
    if not expected:
        check_costs(study)
        return
    with pytest.raises(InputError, match=expected) as refusal:
        check_costs(study)
    assert "\n" not in str(refusal.value)


def test_fixed_student_next_to_a_searched_one_must_meet_the_limits() -> None:
    students = (SimulatedStudent("net", integer(1, 6)), SimulatedStudent("fixed", 4))
    with pytest.raises(InputError, match=r"fixed exceeds the constraints \(student/macs 90,000\); the lowest"):
        check_costs(study_of(students=students, constraints={MACS: 90_000}))


@dataclasses.dataclass(frozen=True)
class BrokenTask(Simulated):
    value: float = float("nan")

    def measure_student(self, student: Any, names: Collection[str]) -> dict[str, float]:
        return dict.fromkeys(names, self.value)


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0, float("inf")])
def test_cost_that_is_no_number_above_0_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=rf"student/latency_ms of net is {value}; allowed is a number above 0"):
        check_costs(study_of(task=BrokenTask(value=value)))
