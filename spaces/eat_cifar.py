"""Does an epoch-adaptive temperature help DKD, as published and with its schedule searched?

    python -m study.run spaces/eat_cifar.py                                             100 s on 2 cores
    python -m study.run spaces/eat_cifar.py --profile cifar10 --data-dir PATH           a night on 2 cores
    python -m study.run spaces/eat_cifar.py --profile paper --data-dir PATH             a GPU and a night

Five arms (six in `paper`), baselines included, are compared on the same seeds. The epoch-adaptive temperature (EAT)
falls from T0·(1 + r) to T0·(1 − r), T0 = 4, in eight plateaus; r = 40 % is published for ResNet-8, 20 % for ResNet-20.
The search covers start and end, which may also rise, number of plateaus and shape, beginning with the published values.

The profiles are those of lp_cifar.py. In `paper` both students are trained with both ratios, and each published figure
is shown for its own ratio; eight seeds can decide five comparisons per student (2/2⁸ · 5 < 0.05).
"""

import cifar_profiles

from study import Arm, choice, integer, uniform
from trainables import DKD, KD, NoDistillation, Staircase

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

study = cifar_profiles.make_profiles(
    "eat_cifar",
    "Does an epoch-adaptive temperature help DKD, as published and with its schedule searched?",
    ARMS,
    assumptions=(cifar_profiles.EAT_ASSUMPTION, cifar_profiles.DKD_ASSUMPTION),
    paper_arms=PAPER_ARMS,
)
