"""Does a data-adaptive temperature help DKD, as published and with its shares and changes searched?

    python -m study.run spaces/dat_cifar.py                                             100 s on 2 cores
    python -m study.run spaces/dat_cifar.py --profile cifar10 --data-dir PATH           a night on 2 cores
    python -m study.run spaces/dat_cifar.py --profile paper --data-dir PATH             a GPU and a night

Five arms, baselines among them, on the same seeds. The data-adaptive temperature (DAT) is 5 % higher for the tenth of
each batch on which teacher and student differ most, and 5 % lower for the tenth on which they differ least. Searched
are both shares and both changes, the published ones first, negative ones among the others: they reverse the rule.

The profiles are those of lp_cifar.py. In batches of 32, as in `embedded`, a tenth is 3 samples.
"""

from pathlib import Path

import cifar_profiles as profiles

from study import Arm, Budget, Study, SuccessiveHalving, uniform
from trainables import DKD, KD, DataAdaptiveTemperature, NoDistillation

QUESTION = "Does a data-adaptive temperature help DKD, as published and with its shares and changes searched?"
READINGS = (profiles.DAT_READING, profiles.DKD_READING)

PUBLISHED = DataAdaptiveTemperature(
    upper_fraction=0.1,
    lower_fraction=0.1,
    upper_change=0.05,
    lower_change=-0.05,
)
SEARCHED = DataAdaptiveTemperature(
    upper_fraction=uniform(0.0, 0.5),
    lower_fraction=uniform(0.0, 0.5),
    upper_change=uniform(-0.3, 0.3),
    lower_change=uniform(-0.3, 0.3),
)

ARMS = (
    Arm("no distillation", NoDistillation(), baseline=True),
    Arm("KD", KD(), baseline=True),
    Arm("DKD", DKD(), baseline=True),
    Arm("DKD + DAT, published", DKD(adaptive=PUBLISHED), versus="DKD", published="dkd+dat"),
    Arm("DKD + DAT, searched", DKD(adaptive=SEARCHED), versus="DKD", first=(DKD(adaptive=PUBLISHED),)),
)


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="dat_cifar",
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
        name="dat_cifar-cifar10",
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
        name="dat_cifar-paper",
        question=QUESTION,
        task=profiles.cifar100(data_dir),
        students=profiles.CIFAR100_STUDENTS,
        arms=ARMS,
        budget=Budget(trials=40, epochs=80, seeds=8),
        stopping=SuccessiveHalving(min_epochs=10),
        assumptions=(*READINGS, profiles.PAPER_READING),
        protocol="P1",
    )


study = {"embedded": embedded, "cifar10": cifar10, "paper": paper}
