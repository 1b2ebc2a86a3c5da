"""Does an adversary on features pass a dictionary teacher's faces on to a student without the dictionary?

    python -m study.run spaces/face_sr.py                                               6 minutes on 2 cores
    python -m study.run spaces/face_sr.py --profile paper --data-dir PATH               GPUs and weeks

Faces are restored at 8 times their size. The teacher looks up eyes, nose and mouth in a dictionary; the student is the
same net without it. A discriminator learns to tell the teacher's last features from the student's, and the student to
pass for the teacher. Plain matching of these features is the control: what an adversary is for, it must beat. RCAN and
SRFBN, which the paper compares with, are trained in the same study on the same data, by the same loss.

`embedded` needs no download: drawn faces of 64 × 64 pixels from 8 × 8, written once in VGGFace2's own layout. Nets are
narrow, and the dictionary holds patches of training faces. This profile shows that the machinery works and what its
verdicts look like; it says nothing about photographs. Seven seeds are the fewest that can decide three comparisons
(2/2⁷ · 3 < 0.05).
`paper` is P2's, as far as it is known: VGGFace2 at 256 × 256 pixels from 32 × 32. VGG-19's ImageNet weights must lie
where torchvision keeps them; LPIPS appears if AlexNet's do, too. SRFBN takes some 30 GB of a GPU's memory.
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

QUESTION = "Does an adversary on features pass a dictionary teacher's faces on to a student without the dictionary?"
READINGS = (
    "All three weights of the paper's loss are printed as 1, and whether errors are sums or means is not said. Means "
    "of squared differences stand in, at weight 1 for pixels and 0.001 for the adversary: at 0.01 and more it destroys "
    "PSNR. The weight and how it moves are searched as well.",
    "The discriminator is least-squares, on the last features before the convolution to RGB, real for the teacher's "
    "and fake for the student's; it steps after the student. Its shape and its Adam at 2e-4 are not the paper's words.",
    "The student without distillation is the same net under the pixel loss alone, as the teacher is.",
    "RCAN and SRFBN are trained by the same loss as the student, SRFBN's as a mean over its steps.",
    "PSNR is the mean over images of red, green and blue in 0 to 1, not that of all pixels together; SSIM likewise. "
    "Small images are bicubic, without aliasing, rounded to 8 bits. Faces are mirrored at random.",
)
EMBEDDED_READING = "Data, nets and optimiser settings of this profile are its own; there is no perceptual term."
PAPER_READING = (
    "The paper gives neither optimiser nor epochs, nor the number of images or how they are cut out: Adam from 2e-4 "
    "along a cosine, batch 8, 100 epochs on 20,000 faces stand in, cut out by their boxes extended by 0.3, those below "
    "256 pixels left out, and a perceptual term of 0.01 from five layers of VGG-19."
)
TEACHER_READING = (
    "The teacher is DFDNet's design at half its size, 32 atoms a component and boxes from five landmarks, trained by "
    "pixel and perceptual loss only; the student is it without dictionary."
)


def arms(student: str, discriminator: PatchDiscriminator, matching: float) -> tuple[Arm, ...]:
    """No distillation for all nets; the rest for the student, whose last features are like the teacher's."""
    only = (student,)
    published = AdversarialFeatures(1e-3, discriminator)
    weight = Staircase(log_uniform(1e-4, 1e-1), log_uniform(1e-4, 1e-1), stages=integer(1, 4))
    return (
        Arm("no distillation", NoDistillation(), baseline=True, published="none"),
        Arm("feature matching", FeatureMatching(matching), baseline=True, versus="no distillation", students=only),
        Arm("adversarial", published, versus="no distillation", published="adversarial_kd", students=only),
        Arm(
            "adversarial, searched",
            AdversarialFeatures(weight, discriminator),
            versus="no distillation",
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
        budget=Budget(trials=4, epochs=6, seeds=7),
        metric="val/psnr",
        stopping=SuccessiveHalving(min_epochs=2),
        assumptions=(*READINGS, EMBEDDED_READING),
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
        budget=Budget(trials=12, epochs=100, seeds=7),
        metric="val/psnr",
        stopping=SuccessiveHalving(min_epochs=10),
        hang_seconds=4 * 3600,  # an epoch of the largest net takes an hour and more on a GPU of 2017
        assumptions=(*READINGS, PAPER_READING, TEACHER_READING),
        protocol="P2",
    )


study = {"embedded": embedded, "paper": paper}
