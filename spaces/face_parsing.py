"""Does rescaling the student's logits to the teacher's spread at each pixel help face parsing, over plain distillation?

    python -m study.run spaces/face_parsing.py                                          4 minutes on 2 cores
    python -m study.run spaces/face_parsing.py --profile dkd                            4 minutes on 2 cores
    python -m study.run spaces/face_parsing.py --profile paper --data-dir PATH          GPUs and a week

Logit distribution transformation (LDT) standardises a student's logits over the classes at each pixel, multiplies them
by the standard deviation of the teacher's, and then distils as usual: a temperature of the student for each pixel. It
is compared with plain distillation (KD) on the same seeds, as is standardising both nets (KD-STD), which discards the
teacher's confidence. The search covers temperature and weight, neither of which the paper gives, for LDT and for KD
alike: LDT searched is compared with KD searched.

`embedded` needs no download: drawn faces with exact masks, 40 × 40 pixels, written once in CelebAMask-HQ's layout. This
profile tests the machinery and shows what verdicts look like, but is no evidence about photographs. Eight seeds are the
fewest that can decide six comparisons (2/2⁸ · 6 < 0.05), nine for the eight of `paper`.
`dkd` asks the same of DKD per pixel on the same drawn faces, with LDT and without, both searched alike.
`paper` is P0's protocol: CelebAMask-HQ, FCN on ResNet-101 to DeepLabV3 on MobileNetV3 and FCN on ResNet-34 and
ResNet-18, with the arms of both. Nets start from torchvision's ImageNet weights, which must be in torchvision's folder
of weights.
"""

from dataclasses import replace
from pathlib import Path

from study import Arm, Budget, Study, SuccessiveHalving, log_uniform
from trainables import (
    LDT,
    Adam,
    CelebAMaskHQ,
    Cosine,
    DeepLabV3MobileNet,
    DrawnFaces,
    FaceParsing,
    FCNResNet,
    NoDistillation,
    PixelDKD,
    PixelKD,
    PixelKDStd,
    Polynomial,
    Recipe,
    Sgd,
    SmallFCN,
    Teacher,
)

QUESTION = (
    "Does rescaling the student's logits to the teacher's spread at each pixel help face parsing, "
    "over plain distillation?"
)
ASSUMPTIONS = (
    "Logits are compared over the 19 classes at each pixel of the labels, to which both nets' are upsampled "
    "bilinearly, as in torchvision's nets. Divergences are means over pixels, times T².",
    "Temperature and weight are not given: T = 1 and weight 1 are used, with a cross-entropy of weight 1. In LDT the "
    "temperature divides both sides after the transformation.",
    "It does not matter if the teacher's mean is added: softmax over the classes is invariant to it.",
    "Gradients pass through the student's mean and deviation; deviations are unbiased, which matters only for KD-STD.",
    "F1 is the mean over the 18 classes without background, each from its counts over all pixels of the split; "
    "accuracy is that of all pixels. A class absent from all test images is left out.",
    "Faces are mirrored at random; labels of left and right eye, brow and ear are then exchanged.",
)
EMBEDDED_ASSUMPTION = "Data, nets and optimiser settings of this profile are its own, not the paper's."
GIVEN_ASSUMPTION = (
    "Given by the paper: CelebAMask-HQ, the nets, SGD at 0.01, batch 5 and 100 epochs, for teacher and students alike."
)
CHOSEN_ASSUMPTION = (
    "Chosen here: momentum 0.9, weight decay 5e-4, a learning rate that falls as (1 − progress)^0.9, 512 × 512 pixels "
    "and ImageNet weights, which are the field's usual choices; T and the weight of the losses; the number of runs."
)
SPLIT_ASSUMPTION = (
    "The split compares CelebA's index with its bounds as the dataset's own code does, off by one at both borders: "
    "24,183 training, 2,993 validation and 2,824 test images. Confirm does not train on validation images either."
)

TEMPERATURE, WEIGHT = log_uniform(1.0, 8.0), log_uniform(0.1, 10.0)
"""Settings that KD and LDT share, searched in both: LDT is KD with a temperature of its own for each pixel."""

ARMS = (
    Arm("no distillation", NoDistillation(), baseline=True, published="none"),
    Arm("KD", PixelKD(), baseline=True, versus="no distillation", published="kd"),
    Arm("KD, tuned", PixelKD(TEMPERATURE, WEIGHT), baseline=True, first=(PixelKD(),)),
    Arm("KD-STD", PixelKDStd(), versus=("KD", "no distillation"), published="kd_std"),
    Arm("LDT", LDT(), versus="KD", published="ldt"),
    Arm("LDT, searched", LDT(TEMPERATURE, WEIGHT), versus="KD, tuned", first=(LDT(),)),
)

BETA = log_uniform(1.0, 8.0)
DKD_ARMS = (
    Arm(
        "DKD, tuned",
        PixelDKD(TEMPERATURE, WEIGHT, beta=BETA),
        baseline=True,
        versus="no distillation",
        first=(PixelDKD(),),
    ),
    Arm(
        "DKD + LDT, tuned",
        PixelDKD(TEMPERATURE, WEIGHT, beta=BETA, transform="ldt"),
        versus="DKD, tuned",
        first=(PixelDKD(transform="ldt"),),
    ),
)
"""LDT with another loss on logits, which P0 names as future work."""
DKD_ASSUMPTION = (
    "DKD per pixel: the label's class against the others, and these among each other; under LDT the student's logits "
    "are scaled over all classes first. beta is searched from 1 to 8, the values that its authors use."
)


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="face_parsing",
        question=QUESTION,
        task=FaceParsing(
            data=DrawnFaces(train=192, val=60, test=128, size=40),
            teacher=Teacher(SmallFCN(24), Recipe(4, Cosine(5e-3), Adam()), epochs=16),
            recipe=Recipe(4, Cosine(1e-2), Adam()),  # the better rate of 1e-2 and 2e-2 on validation, for all arms
        ),
        students=(SmallFCN(12),),
        arms=ARMS,
        budget=Budget(trials=5, epochs=8, seeds=8),
        metric="val/f1",
        stopping=SuccessiveHalving(min_epochs=3),
        assumptions=(*ASSUMPTIONS, EMBEDDED_ASSUMPTION),
    )


def dkd(data_dir: Path | None) -> Study:
    study = embedded(data_dir)
    return replace(
        study,
        name="face_parsing-dkd",
        question="Does rescaling the student's logits at each pixel help face parsing, over DKD?",
        arms=(ARMS[0], *DKD_ARMS),
        assumptions=(*study.assumptions, DKD_ASSUMPTION),
    )


def paper(data_dir: Path | None) -> Study:
    recipe = Recipe(5, Polynomial(0.01), Sgd())
    return Study(
        name="face_parsing-paper",
        question=QUESTION,
        task=FaceParsing(
            data=CelebAMaskHQ(data_dir),
            teacher=Teacher(FCNResNet(101, imagenet=True), recipe, epochs=100),
            recipe=recipe,
        ),
        students=(DeepLabV3MobileNet(imagenet=True), FCNResNet(34, imagenet=True), FCNResNet(18, imagenet=True)),
        arms=(*ARMS, *DKD_ARMS),
        budget=Budget(trials=12, epochs=100, seeds=9),
        metric="val/f1",
        confirm_on="train",
        stopping=SuccessiveHalving(min_epochs=10),
        hang_seconds=4 * 3600,  # an epoch of the largest net takes an hour and more on a GPU of 2017
        assumptions=(*ASSUMPTIONS, DKD_ASSUMPTION, GIVEN_ASSUMPTION, CHOSEN_ASSUMPTION, SPLIT_ASSUMPTION),
        protocol="P0",
    )


study = {"embedded": embedded, "dkd": dkd, "paper": paper}
