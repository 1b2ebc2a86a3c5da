"""Does logits pruning help DKD, as published and with its schedule searched?

    python -m study.run spaces/lp_cifar.py                                              100 s on 2 cores
    python -m study.run spaces/lp_cifar.py --profile cifar10 --data-dir PATH            a night on 2 cores
    python -m study.run spaces/lp_cifar.py --profile paper --data-dir PATH              a GPU and a night

Five arms, baselines among them, on the same seeds. Logits pruning (LP) removes the teacher's least likely classes from
the loss, a growing share of them: 0 to 40 % in four stages as published; searched are its start, end, number of stages
and shape, the published ones first.

`embedded` needs no download: scikit-learn's digits, 400 of their training images, from which a ResNet-14 learns 4 to 5
points more than a ResNet-8 of a quarter of its width. On 10 classes LP drops 1 to 4 of them where CIFAR-100 drops 13 to
40: this profile shows that the machinery works and what its verdicts look like, and says nothing about the paper. Eight
seeds are the fewest that can decide four comparisons (2/2⁸ · 4 < 0.05); ten are taken.
`cifar10` is real CIFAR-10 with a teacher that a laptop can train: ResNet-20 to ResNet-8; add --trials 2 --epochs 1
--seeds 2 to see it run in minutes. `paper` is P1's: CIFAR-100, ResNet-110 to ResNet-8 and -20,
80 epochs; the paper gives no optimiser settings, so the field's reference recipe stands in for them.
"""

from pathlib import Path

import cifar_profiles as profiles

from study import Arm, Budget, Study, SuccessiveHalving, choice, integer, uniform
from trainables import DKD, KD, NoDistillation, Staircase

QUESTION = "Does logits pruning help DKD, as published and with its schedule searched?"
READINGS = (profiles.LP_READING, profiles.LP_STAGES_READING, profiles.DKD_READING)

PUBLISHED = Staircase(0.0, 0.4, stages=4)
SEARCHED = Staircase(
    start=uniform(0.0, 0.3),
    end=uniform(0.1, 0.7),
    stages=integer(1, 8),
    shape=choice("linear", "cosine", "step"),
)

ARMS = (
    Arm("no distillation", NoDistillation(), baseline=True),
    Arm("KD", KD(), baseline=True),
    Arm("DKD", DKD(), baseline=True),
    Arm("DKD + LP, published", DKD(pruning=PUBLISHED), versus="DKD", published="dkd+lp"),
    Arm("DKD + LP, searched", DKD(pruning=SEARCHED), versus="DKD", first=(DKD(pruning=PUBLISHED),)),
)


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="lp_cifar",
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
        name="lp_cifar-cifar10",
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
        name="lp_cifar-paper",
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
