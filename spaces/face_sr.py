"""Does an adversarial loss on features transfer a dictionary teacher's faces to a student without the dictionary?

    python -m study.run spaces/face_sr.py                                               6 minutes on 2 cores
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
memory.
"""

from pathlib import Path

from study import Arm, Budget, Study, SuccessiveHalving, integer, log_uniform
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
    "PSNR is the mean over images, of red, green and blue from 0 to 1, not that of all pixels together; SSIM likewise. "
    "Small images are bicubic, without aliasing, rounded to 8 bits. Faces are mirrored at random.",
)
EMBEDDED_ASSUMPTION = "Data, nets and optimiser settings of this profile are its own; there is no perceptual term."
PAPER_ASSUMPTION = (
    "The paper gives neither optimiser nor epochs, number of images or crops. Used are Adam from 2e-4 with cosine "
    "annealing, batch 8, 100 epochs on 20,000 faces, cropped by their boxes extended by 0.3 and without those below "
    "256 pixels, and a perceptual term of 0.01 from five layers of VGG-19."
)
TEACHER_ASSUMPTION = (
    "The teacher is DFDNet's design at half its size, 32 atoms per component and boxes from five landmarks, trained "
    "with pixel and perceptual loss only; the student is this net without the dictionary."
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


def embedded(data_dir: Path | None) -> Study:
    recipe = Recipe(8, Cosine(2e-3), Adam())
    student = SmallSR(16)
    return Study(
        name="face_sr",
        question=QUESTION,
        task=FaceSR(
            data=DrawnSrFaces(train=208, val=32, test=96),
            teacher=Teacher(SmallSR(16, atoms=8), recipe, epochs=10),
            recipe=recipe,
        ),
        students=(student, RCAN(groups=2, blocks=2, width=16), SRFBN(width=16, groups=1, steps=2)),
        arms=arms(student.name, PatchDiscriminator(in_channels=16, width=16, layers=3), matching=0.01),
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
        students=(student, RCAN(), SRFBN()),
        arms=arms(student.name, PatchDiscriminator(), matching=0.01),
        budget=Budget(trials=12, epochs=100, seeds=8),
        metric="val/psnr",
        stopping=SuccessiveHalving(min_epochs=10),
        hang_seconds=4 * 3600,  # an epoch of the largest net takes an hour and more on a GPU of 2017
        assumptions=(*ASSUMPTIONS, PAPER_ASSUMPTION, TEACHER_ASSUMPTION),
        protocol="P2",
    )


study = {"embedded": embedded, "paper": paper}
