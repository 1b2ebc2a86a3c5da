"""Do temperature and pruning ratio that are chosen during training beat schedules that are fixed before it?

    python -m study.run spaces/dynamic_cifar.py                                         2 minutes on 2 cores
    python -m study.run spaces/dynamic_cifar.py --profile cifar10 --data-dir PATH       a night on 2 cores
    python -m study.run spaces/dynamic_cifar.py --profile paper --data-dir PATH         a GPU and a night

P1 leaves to future work to apply its three add-ons together and to determine the temperature's rate of change and the
pruning ratio during training. Four arms are compared on the same seeds: DKD; DKD whose temperature and beta are
searched; all three add-ons with searched schedules, each fixed for a whole run; and all three chosen during training,
by a population whose weak members become copies of strong ones. A chain of copies may win by luck: confirm trains its
schedule from scratch. All three searches may train the same number of epochs; halving stops trials of the first two.

The profiles are those of lp_cifar.py; `embedded` has a smaller budget, whose eight seeds are the fewest that can
decide four comparisons (2/2⁸ · 4 < 0.05).
"""

import cifar_profiles
from cifar_profiles import BETA, TEMPERATURE

from study import Arm, Budget, PopulationBased, choice, integer, log_uniform, uniform
from trainables import DKD, DataAdaptiveTemperature, Staircase

SHAPE = choice("linear", "cosine", "step")
EAT = Staircase(uniform(2.4, 7.2), uniform(0.8, 5.6), stages=integer(1, 16), shape=SHAPE)
LP = Staircase(uniform(0.0, 0.3), uniform(0.1, 0.7), stages=integer(1, 8), shape=SHAPE)
DAT = DataAdaptiveTemperature(
    upper_fraction=uniform(0.0, 0.5),
    lower_fraction=uniform(0.0, 0.5),
    upper_change=uniform(-0.3, 0.3),
    lower_change=uniform(-0.3, 0.3),
)
PUBLISHED_DAT = DataAdaptiveTemperature(upper_fraction=0.1, lower_fraction=0.1, upper_change=0.05, lower_change=-0.05)
PUBLISHED = DKD(
    temperature=Staircase(5.6, 2.4, stages=8), adaptive=PUBLISHED_DAT, pruning=Staircase(0.0, 0.4, stages=4)
)

ARMS = (
    Arm("DKD", DKD(), baseline=True),
    Arm("DKD, tuned", DKD(temperature=TEMPERATURE, beta=BETA), baseline=True, first=(DKD(),)),
    Arm(
        "all three, fixed schedules",
        DKD(temperature=EAT, adaptive=DAT, pruning=LP),
        versus="DKD, tuned",
        first=(PUBLISHED,),
    ),
    Arm(
        "all three, during training",
        DKD(temperature=log_uniform(0.8, 7.2), adaptive=DAT, pruning=uniform(0.0, 0.7)),
        versus=("DKD, tuned", "all three, fixed schedules"),
        first=(DKD(adaptive=PUBLISHED_DAT),),
        search=PopulationBased(interval_epochs=5),
    ),
)

study = cifar_profiles.make_profiles(
    "dynamic_cifar",
    "Do temperature and pruning ratio that are chosen during training beat schedules that are fixed before it?",
    ARMS,
    assumptions=(
        cifar_profiles.EAT_ASSUMPTION,
        cifar_profiles.DAT_ASSUMPTION,
        cifar_profiles.LP_ASSUMPTION,
        cifar_profiles.DKD_ASSUMPTION,
    ),
    embedded_budget=Budget(trials=10, epochs=20, seeds=8),  # a second for each trial of the population
)
