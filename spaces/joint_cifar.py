"""Do EAT, DAT and LP together help DKD, and do settings searched over three base losses beat the published ones?

    python -m study.run spaces/joint_cifar.py                                           100 s on 2 cores
    python -m study.run spaces/joint_cifar.py --profile cifar10 --data-dir PATH         a night on 2 cores
    python -m study.run spaces/joint_cifar.py --profile paper --data-dir PATH           a GPU and a night

Four arms on the same seeds; in `paper` five, since EAT's published ratio depends on the student. P1 leaves to future
work what is searched here: the three add-ons at once, their schedules and shares chosen freely, over KD, DKD or KD of
standardised logits. The published settings are compared with DKD, the searched ones with the published ones of
r = 40 %: whether searching helps is decided by their difference, not by two differences to DKD.

The profiles are those of lp_cifar.py. Each base loss has twelve settings of its own, searched only when it is chosen:
the twelve trials of `embedded` and `cifar10` look at a few of them, the forty of `paper` at some. The published
settings come first.
"""

from pathlib import Path

import cifar_profiles as profiles

from study import Arm, Budget, Study, SuccessiveHalving, choice, integer, uniform
from trainables import DKD, KD, DataAdaptiveTemperature, NoDistillation, Staircase

QUESTION = (
    "Do EAT, DAT and LP together help DKD, and do settings searched over three base losses beat the published ones?"
)
READINGS = (
    profiles.EAT_READING,
    profiles.DAT_READING,
    profiles.LP_READING,
    profiles.LP_STAGES_READING,
    profiles.STANDARDISED_READING,
    profiles.DKD_READING,
)
SHAPE = choice("linear", "cosine", "step")


def published(ratio: float) -> Arm:
    eat = Staircase(4.0 * (1 + ratio), 4.0 * (1 - ratio), stages=8)
    dat = DataAdaptiveTemperature(upper_fraction=0.1, lower_fraction=0.1, upper_change=0.05, lower_change=-0.05)
    lp = Staircase(0.0, 0.4, stages=4)
    return Arm(f"all three, r = {ratio}", DKD(temperature=eat, adaptive=dat, pruning=lp), versus="DKD")


def searched_eat(base: float) -> Staircase:
    return Staircase(
        uniform(0.6 * base, 1.8 * base), uniform(0.2 * base, 1.4 * base), stages=integer(1, 16), shape=SHAPE
    )


DAT = DataAdaptiveTemperature(
    upper_fraction=uniform(0.0, 0.5),
    lower_fraction=uniform(0.0, 0.5),
    upper_change=uniform(-0.3, 0.3),
    lower_change=uniform(-0.3, 0.3),
)
LP = Staircase(uniform(0.0, 0.3), uniform(0.1, 0.7), stages=integer(1, 8), shape=SHAPE)

NONE = Arm("no distillation", NoDistillation(), baseline=True)
BASE = Arm("DKD", DKD(), baseline=True)
SEARCHED = Arm(
    "all three, searched",
    choice(
        KD=KD(temperature=searched_eat(4.0), adaptive=DAT, pruning=LP),
        DKD=DKD(temperature=searched_eat(4.0), adaptive=DAT, pruning=LP),
        standardised=KD(standardise=True, weight=9.0, temperature=searched_eat(2.0), adaptive=DAT, pruning=LP),
    ),
    versus="all three, r = 0.4",
    first=(published(0.4).loss, published(0.2).loss),
)
ARMS = (NONE, BASE, published(0.4), SEARCHED)
PAPER_ARMS = (NONE, BASE, published(0.4), published(0.2), SEARCHED)


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="joint_cifar",
        question=QUESTION,
        task=profiles.digits(),
        students=profiles.DIGITS_STUDENTS,
        arms=ARMS,
        budget=Budget(trials=12, epochs=25, seeds=10),
        stopping=SuccessiveHalving(min_epochs=8),
        assumptions=(*READINGS, profiles.DIGITS_READING),
    )


def cifar10(data_dir: Path | None) -> Study:
    return Study(
        name="joint_cifar-cifar10",
        question=QUESTION,
        task=profiles.cifar10(data_dir),
        students=profiles.CIFAR10_STUDENTS,
        arms=ARMS,
        budget=Budget(trials=12, epochs=30, seeds=8),
        stopping=SuccessiveHalving(min_epochs=8),
        assumptions=(*READINGS, profiles.CIFAR10_READING),
    )


def paper(data_dir: Path | None) -> Study:
    return Study(
        name="joint_cifar-paper",
        question=QUESTION,
        task=profiles.cifar100(data_dir),
        students=profiles.CIFAR100_STUDENTS,
        arms=PAPER_ARMS,
        budget=Budget(trials=40, epochs=80, seeds=8),
        stopping=SuccessiveHalving(min_epochs=10),
        assumptions=(*READINGS, profiles.PAPER_READING),
        protocol="P1",
    )


study = {"embedded": embedded, "cifar10": cifar10, "paper": paper}
