"""Studies that are refused, each with one line that states the way out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from study import Arm, CmaEs, Grid, NetComparison, Never, PopulationBased, WarmStart, choice, integer, uniform
from study.errors import InputError
from tests.study.toy import BASELINE, SEARCHED, toy
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.logits.kd import KD
from trainables.tasks.simulated import Extra, SimulatedLoss, SimulatedStudent


def first(*losses: Any) -> Arm:
    return dataclasses.replace(SEARCHED, first=losses)


@dataclasses.dataclass(frozen=True)
class Stateful(SimulatedLoss):
    """A loss with a discriminator of its own."""

    def new_state(self, device: str) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Synchronized(Stateful):
    """A stateful loss whose state is kept equal across workers."""

    def single_worker_reason(self) -> str:
        return ""


@dataclasses.dataclass(frozen=True)
class Beginning(SimulatedLoss):
    """A stateful loss written for version 0.1."""

    def begin(self, device: str) -> Any: ...


DAT = DataAdaptiveTemperature()


TEN = tuple(SimulatedLoss(x=number / 10, gain=0.05) for number in range(10))


WIDE = SimulatedStudent("wide", integer(1, 6))


CHOOSING = Arm("choosing", SimulatedLoss(x=uniform(0, 1), extra=choice(None, Extra())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": (SEARCHED,)}, "no arm is a baseline"),
        ({"arms": ()}, "no arm is a baseline"),
        ({"arms": (BASELINE, BASELINE)}, "two arms are called 'plain'"),
        ({"students": (SimulatedStudent(), SimulatedStudent())}, "two students are called 'student'"),
        ({"students": ()}, "at least one student"),
        ({"metric": "test/accuracy"}, r"only validation metrics may \(val/accuracy, val/cost\)"),
        ({"metric": "val/loss"}, "only validation metrics may"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, versus="nobody"))}, "compared with 'nobody'"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, versus="searched"))}, "compared with 'searched'"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, versus=("plain", "plain")))}, "with 'plain' twice"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, versus=("plain", "nobody")))}, "compared with 'nobody'"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, margin=0.0))}, "margin is 0.0; allowed is a number above 0"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, margin="1"))}, "margin is '1'; allowed"),
        (
            {"net_comparisons": (NetComparison("student / plain", ("other / plain",), ("test/accuracy",)),)},
            "net comparison of 'other / plain': the cells are student / plain, student / searched",
        ),
        (
            {"net_comparisons": (NetComparison("student / plain", ("student / searched",), ("test/accuracy",)),)},
            "both are the same student; compare arms by",
        ),
        ({"test": "t"}, "test is 't'; allowed are 'sign-flip' and 'sign'"),
        ({"confirm_on": "trainval"}, "confirm_on is 'trainval'"),
        ({"confirm_on": "test"}, "confirm_on is 'test'"),
        ({"arms": (dataclasses.replace(BASELINE, name="a / b"),)}, "arm name 'a / b'"),
        ({"arms": (BASELINE, Arm("array", SimulatedLoss(gain=np.float32(1))))}, "cannot be part of a study"),
        ({"name": "../elsewhere"}, "study name '../elsewhere'"),
        ({"name": "teachers"}, "is reserved"),
        ({"arms": (BASELINE, Arm("hot", KD(temperature=uniform(-1, 4))))}, "arm 'hot' at an end .* temperature is -1"),
        (
            {"objectives": ("val/accuracy",)},
            "objective 'val/accuracy': .* other than 'val/accuracy', each once: val/cost",
        ),
        ({"objectives": ("test/cost",)}, "objective 'test/cost': allowed are validation metrics"),
        ({"objectives": ("val/cost", "val/cost")}, "objective 'val/cost': .* each once"),
        ({"objectives": "val/cost"}, "write a tuple"),
        ({"objectives": ("val/cost",)}, "it would prune by 'val/accuracy' alone, .* use stopping=Never"),
        (
            {"objectives": ("val/cost",), "stopping": Never(), "sampler": CmaEs()},
            "CmaEs, which optimises a single metric",
        ),
        ({"objectives": ("student/latency",)}, "objective 'student/latency': .*: val/cost, and costs: student/param"),
        (
            {"objectives": ("student/latency_ms",), "stopping": Never()},
            "objective 'student/latency_ms' is a cost of the student, and no student is searched",
        ),
        (
            {"objectives": ("student/macs",), "students": (WIDE,)},
            "it would prune by 'val/accuracy' alone, .* use stopping=Never",
        ),
        ({"constraints": {"student/macs": 5e6}}, "no student is searched: make a field of a student a domain"),
        (
            {"constraints": {"student/int8_latency_ms": 5}, "students": (WIDE,)},
            "constraint on 'student/int8_latency_ms'",
        ),
        ({"constraints": {"val/cost": 5}, "students": (WIDE,)}, "on 'val/cost': allowed are costs of the student: stu"),
        *(
            ({"constraints": {"student/macs": limit}, "students": (WIDE,)}, "is .*; allowed is a number above 0")
            for limit in (float("nan"), -1, 0, float("inf"), "5e6", True)
        ),
        *(
            ({"constraints": limits, "students": (WIDE,)}, "constraints is .*; write limits by cost")
            for limits in ({}, ("student/macs", 5), "student/macs")
        ),
        (
            {"constraints": {"student/macs": 5e6}, "students": (WIDE,), "sampler": CmaEs()},
            "with constraints, sampler is CmaEs, which takes none",
        ),
        (
            {
                "constraints": {"student/macs": 5e6},
                "students": (WIDE, SimulatedStudent("fixed")),
                "arms": (BASELINE, dataclasses.replace(SEARCHED, search=PopulationBased(), students=("fixed",))),
            },
            "arm 'searched': PopulationBased changes settings during training, and a student stays as it is",
        ),
        ({"warm_start": "runs/earlier"}, "warm_start is 'runs/earlier'; write WarmStart"),
        ({"warm_start": WarmStart("runs/earlier"), "sampler": Grid()}, "a grid tries all its points anyway"),
        ({"arms": (BASELINE, CHOOSING), "sampler": CmaEs()}, "arm 'choosing': CmaEs cannot search the choice 'extra'"),
        ({"arms": (BASELINE, first(SimulatedLoss(x=2, gain=0.05)))}, "arm 'searched': .* x is 2; allowed .* 0 to 1"),
        ({"arms": (BASELINE, first(SimulatedLoss(x=0.5)))}, "gain is 0.0; the search space has 0.05 there, fixed"),
        ({"arms": (BASELINE, first(KD()))}, "the loss is KD.*; the search space has a SimulatedLoss there"),
        ({"arms": (BASELINE, first(*[SimulatedLoss(x=0.5, gain=0.05)] * 2))}, "two first points are the same"),
        ({"arms": (BASELINE, first(*TEN))}, "arm 'searched' has 10 first points, budget.trials is 9"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, first=TEN[0]))}, "write a tuple of losses"),
        ({"arms": (dataclasses.replace(BASELINE, first=TEN),)}, "arm 'plain' has first points and nothing to search"),
        ({"arms": (BASELINE, Arm("old", Beginning()))}, r"Beginning defines begin\(\), .* now called new_state\(\)"),
        ({"students": SimulatedStudent()}, r"students is SimulatedStudent\(.*\); write a tuple: students=\(…,\)"),
        ({"arms": BASELINE}, r"arms is Arm\(.*\); write a tuple"),
        ({"assumptions": "Sized by hand."}, "assumptions is 'Sized by hand.'; write a tuple"),
        ({"sampler": "tpe"}, "sampler is 'tpe'; allowed are Tpe"),
        ({"stopping": None}, r"stopping is None; allowed are SuccessiveHalving\(…\), Never\(…\)"),
        ({"hang_seconds": "1 h"}, "hang_seconds is '1 h'"),
        ({"seed": "0"}, "seed is '0'; allowed is a whole number"),
        ({"name": None}, "study name None: use letters"),
        ({"question": None}, "None among question and assumptions"),
        ({"assumptions": ("a file \udcff",)}, "without lone surrogates"),
        ({"workers_per_trial": 0}, "workers_per_trial is 0; allowed is a whole number, at least 1"),
        ({"workers_per_trial": 1.5}, "workers_per_trial is 1.5"),
        (
            {"workers_per_trial": 2, "arms": (BASELINE, Arm("gan", Stateful()))},
            "arm 'gan': Stateful cannot be trained by 2 workers: it owns parts .*; use workers_per_trial=1",
        ),
        (
            {"workers_per_trial": 2, "arms": (BASELINE, Arm("dat", KD(adaptive=choice(None, DAT))))},
            "arm 'dat': KD cannot be trained by 2 workers: its adaptive temperature ranks .*; use workers_per_trial=1",
        ),
    ],
)
def test_study_that_cannot_be_fair_or_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        dataclasses.replace(toy(), **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loss", [SimulatedLoss(), KD(), Synchronized()])
def test_losses_without_a_reason_may_be_split_over_workers(loss: Any) -> None:
    assert toy((BASELINE, Arm("split", loss)), workers_per_trial=2).workers_per_trial == 2


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (
            (BASELINE, dataclasses.replace(SEARCHED, students=("nobody",))),
            "arm 'searched' is for student 'nobody'; the",
        ),
        ((dataclasses.replace(BASELINE, students=("student",)),), "student 'yardstick' has no arm"),
        (
            (dataclasses.replace(BASELINE, students=("student",)), SEARCHED),
            "'searched' is compared with 'plain', which is not for 'yardstick'",
        ),
    ],
)
def test_arms_for_some_students_that_cannot_be_compared_are_refused(arms: tuple[Arm, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy(students=(SimulatedStudent(), SimulatedStudent("yardstick")), arms=arms)


@pytest.mark.parametrize("name", ["", " ", "KD ", "a\nb", "\x1b[31mKD", "KD\0", "\u2028", "\udcff", 3, None])
def test_arm_whose_name_is_no_line_of_text_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match=r"arm name .*: allowed is a line of text"):
        toy(arms=(BASELINE, dataclasses.replace(SEARCHED, name=name)))


@pytest.mark.parametrize("name", ["KD [t=4]", "τ = 4", "Größe", "知識蒸留", "👩\u200d🔬", "a/b", "n" * 300])
def test_arm_may_have_any_name_of_a_line(name: str) -> None:
    assert toy(arms=(BASELINE, dataclasses.replace(SEARCHED, name=name))).arms[1].name == name
