"""Which loss on logits is best, if all of them are tuned alike?

    python -m study.run spaces/baselines_cifar.py                                       3 minutes on 2 cores
    python -m study.run spaces/baselines_cifar.py --profile cifar100 --data-dir PATH    a GPU and some days

Ten arms are compared on the same seeds: no distillation, KD, and eight losses of the field, each compared with KD. All
searches have the same number of trials and two settings, beginning with the published values: the temperature, between
1 and 16, and the weight that the loss's authors tune, between a third and three times their value. TTM's range, 10 to
90, surrounds its 45. CTKD learns its temperature; the rate at which it does is searched instead.

`embedded` needs no download: scikit-learn's digits, as in lp_cifar.py. It tests the machinery and shows what verdicts
look like, but is no evidence about losses on photographs. `cifar100` is the field's pair ResNet-56 to ResNet-20, by the
recipe of its tables. Nine seeds are the fewest that can decide nine comparisons (2/2⁹ · 9 < 0.05).
"""

from pathlib import Path
from typing import Any

import cifar_profiles

from study import Arm, Budget, Study, SuccessiveHalving, log_uniform
from trainables import (
    CTKD,
    DIST,
    DKD,
    KD,
    MLKD,
    NKD,
    TTM,
    Cifar,
    Classification,
    MultiStep,
    NoDistillation,
    ResNet,
    Teacher,
)

TEMPERATURE = log_uniform(1.0, 16.0)
"""The temperatures that every loss with a constant one is searched over."""


def around(weight: float) -> Any:
    """Return the domain of a weight from a third to three times the published value."""
    return log_uniform(weight / 3, 3 * weight)


ARMS = (
    Arm("no distillation", NoDistillation(), baseline=True),
    Arm("KD", KD(TEMPERATURE, weight=around(0.9)), baseline=True, first=(KD(),)),
    Arm("DKD", DKD(TEMPERATURE, beta=around(2.0)), versus="KD", first=(DKD(),)),
    Arm(
        "standardised KD",
        KD(TEMPERATURE, weight=around(9.0), standardise=True),
        versus="KD",
        first=(KD(2.0, weight=9.0, standardise=True),),
    ),
    Arm("NKD", NKD(TEMPERATURE, gamma=around(1.5)), versus="KD", first=(NKD(),)),
    Arm("DIST", DIST(TEMPERATURE, weight=around(1.0)), versus="KD", first=(DIST(),)),
    Arm("TTM", TTM(TEMPERATURE, weight=log_uniform(10.0, 90.0)), versus="KD", first=(TTM(),)),
    Arm(
        "WTTM",
        TTM(TEMPERATURE, weight=around(4.0), weighted=True),
        versus="KD",
        first=(TTM(5.0, weight=4.0, weighted=True),),
    ),
    Arm("MLKD", MLKD(TEMPERATURE, weight=around(0.9)), versus="KD", first=(MLKD(),)),
    Arm(
        "CTKD",
        CTKD(weight=around(0.9), learning_rate=MultiStep(around(0.05))),
        versus="KD",
        first=(CTKD(),),
    ),
)
ASSUMPTIONS = (
    "Each loss has the settings of its authors' code on CIFAR-100 where it is not searched; all arms share one recipe.",
    "MLKD without its second view of each image and without its masks; CTKD with one temperature for all samples.",
    "WTTM begins at T = 5 and weight 4, with which its authors add it to another loss; TTM at their T = 10, weight 45.",
)


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="baselines_cifar",
        question="Which loss on logits is best, if all of them are tuned alike?",
        task=cifar_profiles.digits_task(),
        students=(ResNet(8, width=4),),
        arms=ARMS,
        budget=Budget(trials=6, epochs=12, seeds=9),
        stopping=SuccessiveHalving(min_epochs=4),
        reproducible_search=2,
        assumptions=(*ASSUMPTIONS, cifar_profiles.DIGITS_ASSUMPTION),
    )


def cifar100(data_dir: Path | None) -> Study:
    return Study(
        name="baselines_cifar-cifar100",
        question="Which loss on logits is best, if all of them are tuned alike?",
        task=Classification(data=Cifar(100, data_dir), teacher=Teacher(ResNet(56), epochs=240)),
        students=(ResNet(20),),
        arms=ARMS,
        budget=Budget(trials=12, epochs=240, seeds=9),
        stopping=SuccessiveHalving(min_epochs=30),
        assumptions=ASSUMPTIONS,
    )


study = {"embedded": embedded, "cifar100": cifar100}
