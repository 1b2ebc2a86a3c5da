"""The CIFAR studies' three profiles: data, teacher, students, recipe, views and budget of each.

The assumptions are how these studies read P1, the paper whose add-ons they test, where it is not explicit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from study import Arm, Budget, Study, SuccessiveHalving, log_uniform
from trainables import DKD, KD, Cifar, Classification, Cosine, CropFlip, Digits, NoDistillation, Recipe, ResNet, Teacher

TEMPERATURE, BETA = log_uniform(1.0, 8.0), log_uniform(0.5, 8.0)
"""Settings of DKD that the searched arm of a study shares with its tuned baseline, so that both are tuned alike."""

EMBEDDED_BUDGET = Budget(trials=12, epochs=25, seeds=10)

BASELINES = (
    Arm("no distillation", NoDistillation(), baseline=True),
    Arm("KD", KD(), baseline=True),
    Arm("DKD", DKD(), baseline=True),
    Arm("DKD, tuned", DKD(temperature=TEMPERATURE, beta=BETA), baseline=True, first=(DKD(),)),
)


def make_profiles(
    name: str,
    question: str,
    arms: tuple[Arm, ...],
    assumptions: tuple[str, ...],
    paper_arms: tuple[Arm, ...] | None = None,
    embedded_budget: Budget = EMBEDDED_BUDGET,
) -> dict[str, Callable[[Path | None], Study]]:
    """Return the profiles of one study, each a function from --data-dir; `paper_arms` replace `arms` in `paper`."""

    def embedded(data_dir: Path | None) -> Study:
        return Study(
            name=name,
            question=question,
            task=digits_task(),
            students=(ResNet(8, width=4),),
            arms=arms,
            budget=embedded_budget,
            stopping=SuccessiveHalving(min_epochs=8),
            reproducible_search=2,  # the same table each time, however fast the machine
            assumptions=(*assumptions, DIGITS_ASSUMPTION),
        )

    def cifar10(data_dir: Path | None) -> Study:
        return Study(
            name=f"{name}-cifar10",
            question=question,
            task=cifar10_task(data_dir),
            students=(ResNet(8),),
            arms=arms,
            budget=Budget(trials=12, epochs=30, seeds=8),
            stopping=SuccessiveHalving(min_epochs=8),
            assumptions=(*assumptions, CIFAR10_ASSUMPTION),
        )

    def paper(data_dir: Path | None) -> Study:
        return Study(
            name=f"{name}-paper",
            question=question,
            task=cifar100_task(data_dir),
            students=(ResNet(8), ResNet(20)),  # P1's
            arms=paper_arms or arms,
            budget=Budget(trials=40, epochs=80, seeds=9),
            stopping=SuccessiveHalving(min_epochs=10),
            assumptions=(*assumptions, GIVEN_ASSUMPTION, CHOSEN_ASSUMPTION, TEACHER_ASSUMPTION),
            protocol="P1",
        )

    return {"embedded": embedded, "cifar10": cifar10, "paper": paper}


def digits_task() -> Classification:
    """Return the task on 400 of scikit-learn's digits: ResNet-14 is 4 to 5 points better than a ResNet-8 of width 4."""
    recipe = Recipe(batch_size=32, learning_rate=Cosine(0.05))
    return Classification(
        data=Digits(train=400),
        teacher=Teacher(ResNet(14), recipe, epochs=40),
        recipe=recipe,
        views=CropFlip(padding=1, flip=False),  # a mirrored digit is not a digit
        validation=0.3,
    )


def cifar10_task(root: Path | None) -> Classification:
    """Return the task on CIFAR-10 below `root`, with a teacher that a laptop can train: ResNet-20, 30 epochs."""
    return Classification(data=Cifar(10, root), teacher=Teacher(ResNet(20), epochs=30))


def cifar100_task(root: Path | None) -> Classification:
    """Return P1's task: CIFAR-100 below `root` and ResNet-110, trained by the default recipe (training/recipe.py)."""
    return Classification(data=Cifar(100, root), teacher=Teacher(ResNet(110), epochs=240))


# -- assumptions about P1 ------------------------------------------------------------------------------------------

EAT_ASSUMPTION = (
    "EAT, from T0·(1 + r) to T0·(1 − r) changing every 10 of 80 epochs: linear over 8 equal plateaus of a run of any "
    "length, reaching both ends, T0 = 4; the factor T² of the loss is kept, so that the schedule does not rescale the "
    "gradient."
)
DAT_ASSUMPTION = (
    "DAT: samples are ranked within each batch by the plain KL divergence of teacher and student at the epoch's "
    "temperature (or at the setting ranked_at), over the classes that the loss compares, for every base loss; top and "
    "bottom share are rounded down to integers, and of equal samples the later in the batch ranks higher; each sample "
    "keeps the factor T² of its own T."
)
LP_ASSUMPTION = (
    "LP: p % of all K classes, rounded down, are pruned among the non-target ones; the target is never pruned and two "
    "others always remain; teacher logits are compared in half precision, and of equal ones the lower class is pruned "
    "first."
)
LP_STAGES_ASSUMPTION = (
    '"0 to 40 % in four stages": 0, 13.3, 26.7 and 40 %, each for a quarter of the run. Of the four only the least and '
    "the largest are known; equal steps are chosen here. The schedule was best for ResNet-8; the setting behind "
    "ResNet-20's figure is not known, and the same is used."
)
STANDARDISED_ASSUMPTION = (
    "Standardised KD: logits are standardised over the classes that LP keeps, by the unbiased standard deviation; base "
    "temperature 2 and weight 9, as in Sun et al. 2024."
)
DKD_ASSUMPTION = (
    "DKD's settings are chosen here: alpha 1, beta 2, warm-up over the same share of a run of any length, 20 of 240 "
    "epochs."
)
DIGITS_ASSUMPTION = "Data, nets and optimiser settings of this profile are its own, not the paper's."
CIFAR10_ASSUMPTION = (
    "Optimiser settings are not given by the paper: the field's CIFAR-100 recipe (SGD, batch 64, learning rate 0.05, "
    "momentum 0.9, weight decay 5e-4, ×0.1 at 5/8, 6/8 and 7/8 of the epochs). Data and nets are this profile's own."
)
GIVEN_ASSUMPTION = (
    "Given by the paper: CIFAR-100, a pretrained ResNet-110 as the teacher, ResNet-8 and ResNet-20 as students, 80 "
    "epochs, DKD as the base loss, T0 = 4."
)
CHOSEN_ASSUMPTION = (
    "Chosen here: the optimiser and its learning rate, by the field's reference recipe (SGD, batch 64, learning rate "
    "0.05, momentum 0.9, weight decay 5e-4, ×0.1 at 5/8, 6/8 and 7/8 of the epochs); DKD's alpha, beta and warm-up; "
    "the number of runs; the last epoch as the one reported. The search is scored on 10 % of the training images; "
    "confirm also trains on them."
)
TEACHER_ASSUMPTION = (
    "The paper's teacher is pretrained, presumably on all 50,000 images. Without --teacher FILE, which reads such a "
    "one, the teacher is trained here for 240 epochs on the training split."
)
