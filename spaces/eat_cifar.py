"""Does an epoch-adaptive temperature help DKD, as published and with its schedule searched?

    python -m study.run spaces/eat_cifar.py                                             100 s on 2 cores
    python -m study.run spaces/eat_cifar.py --profile cifar10 --data-dir PATH           a night on 2 cores
    python -m study.run spaces/eat_cifar.py --profile paper --data-dir PATH             a GPU and a night

Five arms, baselines among them, on the same seeds; in `paper` six. The epoch-adaptive temperature (EAT) falls from
T0·(1 + r) to T0·(1 − r), T0 = 4, in eight plateaus; r = 40 % is published for ResNet-8 and 20 % for ResNet-20. Searched
are its start and end, which may also rise, the number of plateaus and the shape, the published ones first.

The profiles are those of lp_cifar.py. In `paper` both students train under both ratios, and the published figure stands
beside the ratio it was published for; eight seeds can decide its five comparisons a student (2/2⁸ · 5 < 0.05).
"""

from pathlib import Path

import cifar_profiles as profiles

from study import Arm, Budget, Study, SuccessiveHalving, choice, integer, uniform
from trainables import DKD, KD, NoDistillation, Staircase

QUESTION = "Does an epoch-adaptive temperature help DKD, as published and with its schedule searched?"
READINGS = (profiles.EAT_READING, profiles.DKD_READING)

T0 = 4.0
SEARCHED = Staircase(
    start=uniform(0.6 * T0, 1.8 * T0),
    end=uniform(0.2 * T0, 1.4 * T0),
    stages=integer(1, 16),
    shape=choice("linear", "cosine", "step"),
)


def published(ratio: float) -> Arm:
    temperature = Staircase(T0 * (1 + ratio), T0 * (1 - ratio), stages=8)
    return Arm(
        f"DKD + EAT, r = {ratio}",
        DKD(temperature=temperature),
        versus="DKD",
        published=f"dkd+eat r={ratio}",
    )


BASELINES = (
    Arm("no distillation", NoDistillation(), baseline=True),
    Arm("KD", KD(), baseline=True),
    Arm("DKD", DKD(), baseline=True),
)
OWN = Arm(
    "DKD + EAT, searched",
    DKD(temperature=SEARCHED),
    versus="DKD",
    first=(published(0.4).loss, published(0.2).loss),
)
ARMS = (*BASELINES, published(0.4), OWN)
PAPER_ARMS = (*BASELINES, published(0.4), published(0.2), OWN)


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="eat_cifar",
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
        name="eat_cifar-cifar10",
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
        name="eat_cifar-paper",
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
