"""What the CIFAR studies have in common: data, teacher, students, recipe and views of their three profiles.

Also how they read P1, the paper whose add-ons they study, where it leaves something open: a sentence for each of its
methods, printed by the report. Arms and budgets are the space files' own.
"""

from __future__ import annotations

from pathlib import Path

from trainables import Cifar, Classification, Cosine, CropFlip, Digits, Recipe, ResNet, Teacher

DIGITS_STUDENTS = (ResNet(8, width=4),)
CIFAR10_STUDENTS = (ResNet(8),)
CIFAR100_STUDENTS = (ResNet(8), ResNet(20))
"""The students of P1."""


def digits() -> Classification:
    """400 of scikit-learn's digits, no download: ResNet-14 learns 4 to 5 points more than a ResNet-8 of width 4."""
    recipe = Recipe(batch_size=32, learning_rate=Cosine(0.05))
    return Classification(
        data=Digits(train=400),
        teacher=Teacher(ResNet(14), recipe, epochs=40),
        recipe=recipe,
        views=CropFlip(padding=1, flip=False),  # a mirrored digit is no digit
        validation=0.3,
    )


def cifar10(root: Path | None) -> Classification:
    """CIFAR-10 below `root`, with a teacher that a laptop can train: ResNet-20, 30 epochs."""
    return Classification(data=Cifar(10, root), teacher=Teacher(ResNet(20), epochs=30))


def cifar100(root: Path | None) -> Classification:
    """P1's protocol: CIFAR-100 below `root` and ResNet-110, by the field's reference recipe (recipe.py)."""
    return Classification(data=Cifar(100, root), teacher=Teacher(ResNet(110), epochs=240))


# -- readings of P1 ------------------------------------------------------------------------------------------------

EAT_READING = (
    "EAT, from T0·(1 + r) to T0·(1 − r) changing every 10 of 80 epochs: linear over 8 equal plateaus of any run, both "
    "ends reached, T0 = 4; the factor T² of the loss is kept, so that the schedule does not rescale the gradient."
)
DAT_READING = (
    "DAT: samples are ranked within each batch by the plain KL of teacher and student at the epoch's temperature (the "
    "setting ranked_at takes another), over the classes the loss compares and whatever the base loss; the top and the "
    "bottom share are rounded down to whole samples, of equal ones the later in the batch ranks higher; each sample "
    "keeps the factor T² of its own T."
)
LP_READING = (
    "LP: p % of all K classes, rounded down, taken among the non-target ones; the target is never pruned and two "
    "others always stay; teacher logits are compared in half precision, of equal ones the lower class goes first."
)
LP_STAGES_READING = (
    '"0 to 40 % in four stages": 0, 13.3, 26.7, 40 %, each for a quarter of the run. It was best for ResNet-8; which '
    "setting gave ResNet-20's figure is not known, and the same is taken."
)
STANDARDISED_READING = (
    "Standardised KD: logits are standardised over the classes that LP keeps, by the unbiased standard deviation; base "
    "temperature 2 and weight 9, as in Sun et al. 2024."
)
DKD_READING = "DKD: alpha 1, beta 2, warm-up over the same share of any run, 20 of 240 epochs."
DIGITS_READING = "Data, nets and optimiser settings of this profile are its own, not the paper's."
CIFAR10_READING = (
    "Optimiser settings are not given by the paper: the field's CIFAR-100 recipe (SGD, batch 64, learning rate 0.05, "
    "momentum 0.9, weight decay 5e-4, ×0.1 at 5/8, 6/8 and 7/8 of the epochs). Data and nets are this profile's own."
)
PAPER_READING = (
    "Optimiser settings and the teacher's epochs are not given by the paper: the field's reference recipe (SGD, batch "
    "64, learning rate 0.05, momentum 0.9, weight decay 5e-4, ×0.1 at 5/8, 6/8 and 7/8 of the epochs), teacher 240 "
    "epochs on the training split. The search scores on 10 % of the training images, which confirm trains on as well."
)
