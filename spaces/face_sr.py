"""Does an adversarial loss on features transfer a dictionary teacher's faces to a student without the dictionary?

    python -m study.run spaces/face_sr.py                                               4 minutes on 2 cores
    python -m study.run spaces/face_sr.py --profile paper --data-dir PATH               GPUs and weeks

Faces are restored at 8 times their size. The teacher matches eyes, nose and mouth with a dictionary; the student is the
same net without it. A discriminator learns to distinguish the teacher's last features from the student's, which the
student learns to prevent; plain matching of these features is the control that an adversary must beat. RCAN and SRFBN,
to which the paper compares, are trained in the same study on the same data with the same loss. The search covers the
adversary's weight and its schedule, beginning with the published arm's; it is compared with matching whose weight was
searched by as many trials.

`embedded` needs no download: drawn faces of 64 × 64 pixels from 8 × 8, written once in VGGFace2's layout. Nets are
narrow, and the dictionary holds patches of training faces. This profile tests the machinery and shows what verdicts
look like, but is no evidence about photographs. Eight seeds are the fewest that can decide six comparisons
(2/2⁸ · 6 < 0.05).
`paper` is P2's protocol as far as it is known: VGGFace2 at 256 × 256 pixels from 32 × 32. VGG-19's ImageNet weights
must be in torchvision's folder of weights; LPIPS is reported if AlexNet's are there too. SRFBN needs about 30 GB of GPU
memory. Three arms are added: no distillation and adversarial with the objective as printed, norms instead of means of
squares and all weights 1, and RCAN and SRFBN under their authors' loss. A fourth net of the teacher's size, without
atoms, shows if a lead of the teacher is the dictionary's. Nine seeds can decide eight comparisons (2/2⁹ · 8 < 0.05).
"""

from pathlib import Path

from study import Arm, Budget, NetComparison, Study, SuccessiveHalving, integer, log_uniform
from trainables import (
    RCAN,
    SRFBN,
    Adam,
    AdversarialFeatures,
    Cosine,
    DrawnSrFaces,
    FaceSR,
    FeatureMatching,
    NoDistillation,
    PatchDiscriminator,
    Recipe,
    Reconstruction,
    ReconstructionAlone,
    SmallSR,
    Staircase,
    Teacher,
    VGGFace2,
    VggSR,
)

QUESTION = (
    "Does an adversarial loss on features transfer a dictionary teacher's faces to a student without the dictionary?"
)
ASSUMPTIONS = (
    "All three weights of the paper's loss are printed as 1, without saying if errors are sums or means. Means of "
    "squared differences are used, with weight 1 for pixels and 0.001 for the adversary, which destroys PSNR from 0.01 "
    "on. The weight and its schedule are also searched.",
    "The discriminator is least-squares, on the last features before the convolution to RGB, real for the teacher's "
    "and fake for the student's; it steps after the student. Its architecture and Adam at 2e-4 are not from the paper.",
    "The student without distillation is the same net under the pixel loss alone, as the teacher is.",
    "RCAN and SRFBN are trained with the same loss as the student, SRFBN's as the mean over its steps.",
    "PSNR is the mean over images, of red, green and blue from 0 to 1, not that of all pixels together; SSIM likewise, "
    "over windows within the image. Images are neither rounded nor cut.",
    "Small images are bicubic, without aliasing, rounded to 8 bits. Faces are mirrored at random.",
)
EMBEDDED_ASSUMPTION = "Data, nets and optimiser settings of this profile are its own; there is no perceptual term."
GIVEN_ASSUMPTION = (
    "Given by the paper: VGGFace2, 256 × 256 pixels from 32 × 32, a teacher and a student of the same structure, "
    "adversarial least-squares loss on the last features, pixel and perceptual loss, RCAN and SRFBN as rivals."
)
CHOSEN_ASSUMPTION = (
    "Chosen here: Adam from 2e-4 with cosine "
    "annealing, batch 8, 100 epochs on 20,000 faces, cropped by their boxes extended by 0.3 and without those below "
    "256 pixels, and a perceptual term of 0.01 from five layers of VGG-19."
)
PRINTED_ASSUMPTION = (
    "The objective as printed is an arm of its own, with one without its adversarial term as the control: norms over "
    "all colours and pixels of an image from 0 to 1, of each layer of VGG-19 likewise, means over images, weights 1."
)
RIVALS_ASSUMPTION = (
    "RCAN and SRFBN are also trained by the loss of their authors, L1 without a perceptual term, of which the paper's "
    "table shows the scores; optimiser and epochs are those of all nets."
)
TEACHER_ASSUMPTION = (
    "The teacher is DFDNet's design at half its size, 32 atoms per component and boxes from five landmarks, trained "
    "with pixel and perceptual loss only; the student is this net without the dictionary. The layers that weigh atoms "
    "give the teacher 1.88 times the student's trained parameters: the net vgg_sr-control has layers of the same "
    "shapes without atoms."
)


def arms(student: str, discriminator: PatchDiscriminator, matching: float) -> tuple[Arm, ...]:
    """Return no distillation for all nets, and the arms for the student, whose last features match the teacher's."""
    only = (student,)
    published = AdversarialFeatures(1e-3, discriminator)
    weight = Staircase(log_uniform(1e-4, 1e-1), log_uniform(1e-4, 1e-1), stages=integer(1, 4))
    return (
        Arm("no distillation", NoDistillation(), baseline=True, published="none"),
        Arm("feature matching", FeatureMatching(matching), baseline=True, students=only),
        Arm(
            "feature matching, tuned",
            FeatureMatching(log_uniform(1e-4, 1.0)),
            baseline=True,
            students=only,
            first=(FeatureMatching(matching),),
        ),
        Arm(
            "adversarial",
            published,
            versus=("no distillation", "feature matching"),
            published="adversarial_kd",
            students=only,
        ),
        Arm(
            "adversarial, searched",
            AdversarialFeatures(weight, discriminator),
            versus=("no distillation", "feature matching, tuned"),
            students=only,
            first=(AdversarialFeatures(Staircase(1e-3, 1e-3, stages=1), discriminator),),
        ),
    )


def paper_arms(student: str, rivals: tuple[str, ...]) -> tuple[Arm, ...]:
    """Return the arms of the paper's objective as printed, and of RCAN and SRFBN under their authors' loss."""
    printed = Reconstruction("l2norm", perceptual_norm="l2norm", perceptual_weight=1.0)
    alone = Arm(
        "no distillation, as printed",
        ReconstructionAlone(printed),
        baseline=True,
        versus="no distillation",
        students=(student,),
    )
    adversarial = AdversarialFeatures(1.0, reconstruction=printed)
    return (
        alone,
        Arm("adversarial, as printed", adversarial, versus=alone.name, students=(student,)),
        Arm(
            "authors' loss",
            ReconstructionAlone(),
            baseline=True,
            versus="no distillation",
            published="baseline",
            students=rivals,
        ),
    )


def against_rivals(student: str, rivals: tuple[str, ...], *metrics: str) -> NetComparison:
    """Return the paper's claim that the distilled student is better than RCAN and SRFBN."""
    return NetComparison(f"{student} / adversarial", tuple(f"{rival} / no distillation" for rival in rivals), metrics)


def embedded(data_dir: Path | None) -> Study:
    recipe = Recipe(4, Cosine(2e-3), Adam())  # the better rate of 2e-3 and 5e-3 on validation, for all nets and arms
    student, rivals = SmallSR(16), (RCAN(groups=2, blocks=2, width=16), SRFBN(width=16, groups=1, steps=2))
    return Study(
        name="face_sr",
        question=QUESTION,
        task=FaceSR(
            data=DrawnSrFaces(train=48, val=16, test=32),
            teacher=Teacher(SmallSR(16, atoms=8), recipe, epochs=12),
            recipe=recipe,
        ),
        students=(student, *rivals),
        arms=arms(student.name, PatchDiscriminator(in_channels=16, width=16, layers=3), matching=0.01),
        net_comparisons=(against_rivals(student.name, tuple(net.name for net in rivals), "test/psnr"),),
        budget=Budget(trials=4, epochs=6, seeds=8),
        metric="val/psnr",
        stopping=SuccessiveHalving(min_epochs=2),
        assumptions=(*ASSUMPTIONS, EMBEDDED_ASSUMPTION),
    )


def paper(data_dir: Path | None) -> Study:
    recipe = Recipe(8, Cosine(2e-4), Adam())
    student = VggSR()
    return Study(
        name="face_sr-paper",
        question=QUESTION,
        task=FaceSR(
            data=VGGFace2(data_dir),
            teacher=Teacher(VggSR(atoms=32), recipe, epochs=100),
            recipe=recipe,
            perceptual_weight=0.01,
        ),
        students=(student, RCAN(), SRFBN(), VggSR(control=True)),
        arms=(
            *arms(student.name, PatchDiscriminator(), matching=0.01),
            *paper_arms(student.name, (RCAN().name, SRFBN().name)),
        ),
        net_comparisons=(against_rivals(student.name, (RCAN().name, SRFBN().name), "test/psnr", "test/lpips"),),
        budget=Budget(trials=12, epochs=100, seeds=9),
        metric="val/psnr",
        stopping=SuccessiveHalving(min_epochs=10),
        hang_seconds=4 * 3600,  # an epoch of the largest net takes an hour and more on a GPU of 2017
        assumptions=(
            *ASSUMPTIONS,
            GIVEN_ASSUMPTION,
            CHOSEN_ASSUMPTION,
            PRINTED_ASSUMPTION,
            RIVALS_ASSUMPTION,
            TEACHER_ASSUMPTION,
        ),
        protocol="P2",
    )


study = {"embedded": embedded, "paper": paper}
