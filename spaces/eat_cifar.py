"""Does an epoch-adaptive temperature help DKD, as published and with its schedule searched?

    python -m study.run spaces/eat_cifar.py                                             2 minutes on 2 cores
    python -m study.run spaces/eat_cifar.py --profile cifar10 --data-dir PATH           a night on 2 cores
    python -m study.run spaces/eat_cifar.py --profile paper --data-dir PATH             a GPU and a night

Six arms (seven in `paper`), baselines included, are compared on the same seeds. The epoch-adaptive temperature (EAT)
falls from T0·(1 + r) to T0·(1 − r), T0 = 4, in eight plateaus; r = 40 % is published for ResNet-8, 20 % for ResNet-20.
The search covers start and end, which may also rise, number of plateaus and shape, and beta of DKD, beginning with the
published values. It is compared with DKD whose constant temperature and beta were searched by as many trials, so that a
difference is that of the schedule.

The profiles are those of lp_cifar.py. In `paper` both students are trained with both ratios, and each published figure
is shown for its own ratio; eight seeds can decide six comparisons per student (2/2⁸ · 6 < 0.05).
"""

import cifar_profiles
from cifar_profiles import BASELINES, BETA

from study import Arm, choice, integer, uniform
from trainables import DKD, Staircase

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


OWN = Arm(
    "DKD + EAT, searched",
    DKD(temperature=SEARCHED, beta=BETA),
    versus="DKD, tuned",
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
