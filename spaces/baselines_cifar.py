"""Which loss on logits is best, if all of them are tuned alike?

    python -m study.run spaces/baselines_cifar.py                                       3 minutes on 2 cores
    python -m study.run spaces/baselines_cifar.py --profile features                    some minutes on 2 cores
    python -m study.run spaces/baselines_cifar.py --profile cifar100 --data-dir PATH    a GPU and some days
    python -m study.run spaces/baselines_cifar.py --profile cifar100_features --data-dir PATH

Ten arms are compared on the same seeds: no distillation, KD, and eight losses of the field, each compared with KD. All
searches have the same number of trials and two settings, beginning with the published values: the temperature, between
1 and 16, and the weight that the loss's authors tune, between a third and three times their value. TTM's range, 10 to
90, surrounds its 45. CTKD learns its temperature; the rate at which it does is searched instead.

`embedded` needs no download: scikit-learn's digits, as in lp_cifar.py. It tests the machinery and shows what verdicts
look like, but is no evidence about losses on photographs. `cifar100` is the field's pair ResNet-56 to ResNet-20, by the
recipe of its tables. Nine seeds are the fewest that can decide nine comparisons (2/2⁹ · 9 < 0.05).

`features` and `cifar100_features` compare FitNet, AT, RKD, CRD and ReviewKD with KD on the same data, nets and recipes.
Each searches the weights that it has, down to a hundredth of the published ones, which suit images of 32 pixels, and
where that is one, the temperature or learning rate of its own; AT has no second setting. Their teacher is run at every
step. Eight seeds can decide six comparisons (2/2⁸ · 6 < 0.05).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cifar_profiles

from study import Arm, Budget, Study, SuccessiveHalving, log_uniform
from trainables import (
    CRD,
    CTKD,
    DIST,
    DKD,
    KD,
    MLKD,
    NKD,
    RKD,
    TTM,
    Adapter,
    AttentionTransfer,
    Cifar,
    Classification,
    FeatureMatching,
    MultiStep,
    NoDistillation,
    ResNet,
    ReviewKD,
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

TAPS = ("layer1", "layer2", "layer3")
FEATURES_QUESTION = "Which loss on features is best, if all of them are tuned alike, and is it better than KD?"
FEATURES_ASSUMPTIONS = (
    "Features are the outputs of the three stages, after ReLU: of all for AT and ReviewKD, of the last one for FitNet, "
    "and its mean over pixels for RKD and CRD. ReviewKD is without the pooled features as a fourth stage.",
    "Each loss has the settings of its authors' code, or of mdistiller's, where it is not searched.",
)


def below(weight: float) -> Any:
    """Return the domain of a weight from a hundredth to three times the published value.

    Published weights are for maps of CIFAR's size: the means over the few pixels of smaller ones are larger.
    """
    return log_uniform(weight / 100, 3 * weight)


def make_feature_arms(student: ResNet, teacher: ResNet) -> tuple[Arm, ...]:
    """Return the arms of losses on features, which know the channels of both nets, after the first two of ARMS."""
    (s_1, s_2, s_3), (t_1, t_2, t_3) = ((net.width, 2 * net.width, 4 * net.width) for net in (student, teacher))
    fitnet = FeatureMatching(100.0, norm="mse", adapter=Adapter(s_3, t_3))
    tuned_adapter = Adapter(s_3, t_3, learning_rate=around(1e-3))
    crd, review = CRD(s_3, t_3), ReviewKD((s_1, s_2, s_3), (t_1, t_2, t_3))
    searched = (
        ("FitNet", replace(fitnet, weight=below(100.0), adapter=tuned_adapter), fitnet),
        ("AT", AttentionTransfer(below(1000.0)), AttentionTransfer()),
        ("RKD", RKD(below(25.0), below(50.0)), RKD()),
        ("CRD", replace(crd, weight=below(0.8), temperature=around(0.07)), crd),
        ("ReviewKD", replace(review, weight=below(1.0), learning_rate=MultiStep(around(0.05))), review),
    )
    return *ARMS[:2], *(Arm(name, loss, versus="KD", first=(first,)) for name, loss, first in searched)


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


def features(data_dir: Path | None) -> Study:
    task, student, teacher = cifar_profiles.digits_task(), ResNet(8, width=4, taps=TAPS), ResNet(14, taps=TAPS)
    return Study(
        name="baselines_cifar-features",
        question=FEATURES_QUESTION,
        task=replace(task, teacher=replace(task.teacher, model=teacher)),
        students=(student,),
        arms=make_feature_arms(student, teacher),
        budget=Budget(trials=4, epochs=12, seeds=8),
        stopping=SuccessiveHalving(min_epochs=4),
        reproducible_search=2,
        assumptions=(*FEATURES_ASSUMPTIONS, cifar_profiles.DIGITS_ASSUMPTION),
    )


def cifar100_features(data_dir: Path | None) -> Study:
    student, teacher = ResNet(20, taps=TAPS), ResNet(56, taps=TAPS)
    return Study(
        name="baselines_cifar-cifar100_features",
        question=FEATURES_QUESTION,
        task=Classification(data=Cifar(100, data_dir), teacher=Teacher(teacher, epochs=240)),
        students=(student,),
        arms=make_feature_arms(student, teacher),
        budget=Budget(trials=12, epochs=240, seeds=8),
        stopping=SuccessiveHalving(min_epochs=30),
        assumptions=FEATURES_ASSUMPTIONS,
    )


study = {
    "embedded": embedded,
    "features": features,
    "cifar100": cifar100,
    "cifar100_features": cifar100_features,
}
