"""Does a data-adaptive temperature help DKD, as published and with its shares and changes searched?

    python -m study.run spaces/dat_cifar.py                                             2 minutes on 2 cores
    python -m study.run spaces/dat_cifar.py --profile cifar10 --data-dir PATH           a night on 2 cores
    python -m study.run spaces/dat_cifar.py --profile paper --data-dir PATH             a GPU and a night

Six arms, baselines included, are compared on the same seeds. The data-adaptive temperature (DAT) is 5 % higher for the
tenth of each batch in which teacher and student differ most, and 5 % lower for the tenth in which they differ least.
The search covers both shares and both changes, and temperature and beta of DKD, beginning with the published values;
changes of the opposite sign, which reverse the rule, are included. It is compared with DKD whose temperature and beta
were searched by as many trials, so that a difference is that of the rule.

The profiles are those of lp_cifar.py. In batches of 32, as in `embedded`, a tenth is 3 samples.
"""

import cifar_profiles
from cifar_profiles import BASELINES, BETA, TEMPERATURE

from study import Arm, uniform
from trainables import DKD, DataAdaptiveTemperature

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
    *BASELINES,
    Arm("DKD + DAT, published", DKD(adaptive=PUBLISHED), versus="DKD", published="dkd+dat"),
    Arm(
        "DKD + DAT, searched",
        DKD(temperature=TEMPERATURE, beta=BETA, adaptive=SEARCHED),
        versus="DKD, tuned",
        first=(DKD(adaptive=PUBLISHED),),
    ),
)

study = cifar_profiles.make_profiles(
    "dat_cifar",
    "Does a data-adaptive temperature help DKD, as published and with its shares and changes searched?",
    ARMS,
    assumptions=(cifar_profiles.DAT_ASSUMPTION, cifar_profiles.DKD_ASSUMPTION),
)
