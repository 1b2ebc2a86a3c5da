"""Does logits pruning help DKD, as published and with its schedule searched?

    python -m study.run spaces/lp_cifar.py                                              2 minutes on 2 cores
    python -m study.run spaces/lp_cifar.py --profile cifar10 --data-dir PATH            a night on 2 cores
    python -m study.run spaces/lp_cifar.py --profile paper --data-dir PATH              a GPU and a night

Six arms (eight in `paper`), baselines included, are compared on the same seeds. Logits pruning (LP) removes the
teacher's least likely classes from the loss, a growing share of them: 0 to 40 % in four stages as published. The search
covers start, end, number of stages and shape of this schedule, and temperature and beta of DKD. It is compared with DKD
whose temperature and beta were searched by as many trials, so that a difference is that of pruning.

`embedded` needs no download: on 400 of scikit-learn's digits a ResNet-14 is 4 to 5 points better than a ResNet-8 of a
quarter of its width. Of 10 classes LP prunes 1 to 4, of CIFAR-100's 13 to 40: this profile tests the machinery and
shows what verdicts look like, but is no evidence about the paper. Eight seeds are the fewest that can decide five
comparisons (2/2⁸ · 5 < 0.05); it uses ten.
`cifar10` is CIFAR-10 with a teacher that a laptop can train, ResNet-20 to ResNet-8; with --trials 2 --epochs 1 --seeds
2 it runs in minutes. `paper` is P1's protocol: CIFAR-100, ResNet-110 to ResNet-8 and -20, 80 epochs; where the paper
gives no optimiser settings, the field's reference recipe is used. Two more arms follow what else the paper's text
allows: 20 % throughout, its plain description, and round steps, 0, 10, 20 and 40 %. `--teacher FILE` reads a ResNet-110
that was trained on all images, as the paper's was, instead of training one.
"""

import cifar_profiles
from cifar_profiles import BASELINES, BETA, TEMPERATURE

from study import Arm, choice, integer, uniform
from trainables import DKD, Staircase, Values

PUBLISHED = Staircase(0.0, 0.4, stages=4)
SEARCHED = Staircase(
    start=uniform(0.0, 0.3),
    end=uniform(0.1, 0.7),
    stages=integer(1, 8),
    shape=choice("linear", "cosine", "step"),
)

ARMS = (
    *BASELINES,
    Arm("DKD + LP, published", DKD(pruning=PUBLISHED), versus="DKD", published="dkd+lp"),
    Arm(
        "DKD + LP, searched",
        DKD(temperature=TEMPERATURE, beta=BETA, pruning=SEARCHED),
        versus="DKD, tuned",
        first=(DKD(pruning=PUBLISHED),),
    ),
)

PAPER_ARMS = (
    *ARMS,
    Arm("DKD + LP, 20 % throughout", DKD(pruning=0.2), versus="DKD"),
    Arm("DKD + LP, round steps", DKD(pruning=Values(0.0, 0.1, 0.2, 0.4)), versus="DKD"),
)

study = cifar_profiles.make_profiles(
    "lp_cifar",
    "Does logits pruning help DKD, as published and with its schedule searched?",
    ARMS,
    assumptions=(cifar_profiles.LP_ASSUMPTION, cifar_profiles.LP_STAGES_ASSUMPTION, cifar_profiles.DKD_ASSUMPTION),
    paper_arms=PAPER_ARMS,
)
