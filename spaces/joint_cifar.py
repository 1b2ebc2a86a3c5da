"""Do EAT, DAT and LP together help DKD, and do settings searched over three base losses beat the published ones?

    python -m study.run spaces/joint_cifar.py                                           2 minutes on 2 cores
    python -m study.run spaces/joint_cifar.py --profile cifar10 --data-dir PATH         a night on 2 cores
    python -m study.run spaces/joint_cifar.py --profile paper --data-dir PATH           a GPU and a night

Five arms (six in `paper`, since EAT's published ratio depends on the student) are compared on the same seeds. The
search covers what P1 leaves to future work: all three add-ons at once, with free schedules and shares, over KD, DKD or
KD of standardised logits. The published settings are compared with DKD. The searched ones are compared with the
published ones of r = 40 %, and with the base losses alone, of which as many trials searched the best and its constant
temperature: what the latter reach too is no benefit of the add-ons.

The profiles are those of lp_cifar.py. Each base loss has twelve settings of its own, searched only when it is chosen,
so that the twelve trials of `embedded` and `cifar10` and the forty of `paper` sample them sparsely, beginning with the
published values.
"""

import cifar_profiles

from study import Arm, choice, integer, log_uniform, uniform
from trainables import DKD, KD, DataAdaptiveTemperature, NoDistillation, Staircase

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
TUNED = Arm(
    "base loss, tuned",
    choice(
        KD=KD(temperature=log_uniform(1.0, 8.0)),
        DKD=DKD(temperature=log_uniform(1.0, 8.0)),
        standardised=KD(standardise=True, weight=9.0, temperature=log_uniform(0.5, 4.0)),
    ),
    baseline=True,
    first=(DKD(), KD()),
)
SEARCHED = Arm(
    "all three, searched",
    choice(
        KD=KD(temperature=searched_eat(4.0), adaptive=DAT, pruning=LP),
        DKD=DKD(temperature=searched_eat(4.0), adaptive=DAT, pruning=LP),
        standardised=KD(standardise=True, weight=9.0, temperature=searched_eat(2.0), adaptive=DAT, pruning=LP),
    ),
    versus=("base loss, tuned", "all three, r = 0.4"),
    first=(published(0.4).loss, published(0.2).loss),
)
ARMS = (NONE, BASE, TUNED, published(0.4), SEARCHED)
PAPER_ARMS = (NONE, BASE, TUNED, published(0.4), published(0.2), SEARCHED)

study = cifar_profiles.make_profiles(
    "joint_cifar",
    "Do EAT, DAT and LP together help DKD, and do settings searched over three base losses beat the published ones?",
    ARMS,
    assumptions=(
        cifar_profiles.EAT_ASSUMPTION,
        cifar_profiles.DAT_ASSUMPTION,
        cifar_profiles.LP_ASSUMPTION,
        cifar_profiles.LP_STAGES_ASSUMPTION,
        cifar_profiles.STANDARDISED_ASSUMPTION,
        cifar_profiles.DKD_ASSUMPTION,
    ),
    paper_arms=PAPER_ARMS,
)
