"""How much of a crowd-counting teacher's density map should its student learn from, and does any of it help?

    python -m study.run spaces/crowd_alpha.py                                           3 minutes on 2 cores
    python -m study.run spaces/crowd_alpha.py --profile paper --data-dir PATH           a GPU and a night

A student learns (1 − alpha) parts of the true map and alpha parts of the teacher's. Eight arms are compared on the same
seeds: no distillation, which is alpha 0 and the control that the paper lacks; the paper's grid 0.1, 0.3, 0.5 and 0.7;
alpha searched between 0 and 1; alpha falling from 0.7 to 0; and alpha chosen during training, by a population whose
weak members become copies of strong ones, which is also compared with the constant alpha that was searched in as many
epochs. Alpha 0.1, the best of the grid in the paper, is also compared with the rest of the grid. The paper seems to
have chosen alpha on its test images; here validation chooses.

`embedded` needs no download: drawn crowds of 5 to 60 people, written once in ShanghaiTech's layout. A narrow M-SFANet
teaches a narrow MCNN; its MAE on test images is 5.20 people, 38 % below the 8.44 ± 0.61 of the MCNN without
distillation (9 seeds). This profile tests the machinery and shows what verdicts look like, but is no evidence about
photographs. Nine seeds are the fewest that can decide eleven comparisons (2/2⁹ · 11 < 0.05).
`paper` is P4's protocol: ShanghaiTech part A, M-SFANet to MCNN. The paper gives neither optimiser nor epochs, crops,
widths of Gaussians or how maps of two resolutions are compared; the assumptions below fill the gaps. The teacher starts
from torchvision's ImageNet weights of VGG-16, which must be in torchvision's folder of weights.
"""

from pathlib import Path

from study import Arm, Budget, PopulationBased, Study, SuccessiveHalving, uniform
from trainables import (
    MCNN,
    Adam,
    Cosine,
    CosineWarmRestarts,
    CrowdCounting,
    DensityDistillation,
    DrawnCrowds,
    GridCrops,
    MSFANet,
    NoDistillation,
    Recipe,
    ShanghaiTech,
    Staircase,
    Teacher,
)

QUESTION = "How much of a crowd-counting teacher's density map should its student learn from, and does any of it help?"
ASSUMPTIONS = (
    "The teacher's map, at half the image's size, is summed over 2 × 2 pixels to the student's size, a quarter, which "
    "preserves counts. Interpolation alone would reduce each count to a quarter, the more so the larger alpha.",
    "Both errors are means over all pixels of a batch, of maps multiplied by 100: people per pixel are such small "
    "numbers that Adam's epsilon would matter.",
    "True maps are geometry-adaptive Gaussians, 0.3 · mean distance to the 3 nearest heads, within 1 to 15 pixels, "
    "each normalised to sum 1 inside the image.",
    "A count is the number of annotated heads, not the sum of the true map; heads annotated outside their image are "
    "moved to its edge. The paper's MSE is the RMSE.",
    "Whole images are evaluated, padded at the right and at the bottom with the mean colour to multiples of 16 pixels; "
    "training errors are those of crops, which contain some of the people.",
    "MCNN starts from He's initialisation, not N(0, 0.01), and has no ReLU after its last convolution.",
)
EMBEDDED_ASSUMPTION = "Data, nets and optimiser settings of this profile are its own, not the paper's."
GIVEN_ASSUMPTION = (
    "Given by the paper: ShanghaiTech part A, M-SFANet and MCNN, the loss and its alphas 0.1, 0.3, 0.5 and 0.7, cosine "
    "annealing with warm restarts."
)
CHOSEN_ASSUMPTION = (
    "Chosen here: Adam from 1e-4 to 1e-6, restarts after 10, 30, 70 and 150 of 310 epochs, 256 × 256 crops at 4 × 4 "
    "places and mirrored, batch 8. 30 of the 300 training images, one of each of 30 groups of similar counts, are for "
    "validation; confirm also trains on them."
)
TEACHER_ASSUMPTION = (
    "The teacher, 22.9 million parameters, is retrained; the paper's figure for it is that of an ensemble. Adam from "
    "1e-4, batch 8, 500 epochs, mirrored crops and the attention's weight of 0.1 are from the recipe of SFANet's "
    "unofficial implementation, to which M-SFANet's authors refer; its constant rate is replaced by a cosine down to "
    "0, since the last epoch at a constant rate is a matter of chance. Not used from that recipe: a short side of at "
    "least 512, scaling by 0.8 to 1.2, gamma, grey, 400 × 400 crops and Gaussians of 5 pixels for all heads; crops and "
    "maps are the student's. With maps multiplied by 100 the attention's weight is 0.1 · 100, for which the first "
    "gradients of both losses have the same ratio as with unscaled maps; this is untested at the paper's size."
)

ARMS = (
    Arm("no distillation", NoDistillation(), baseline=True, published="none"),
    Arm(
        "alpha 0.1",
        DensityDistillation(0.1),
        versus=("no distillation", "alpha 0.3", "alpha 0.5", "alpha 0.7"),
        published="kd alpha=0.1",
    ),
    *(Arm(f"alpha {alpha}", DensityDistillation(alpha), published=f"kd alpha={alpha}") for alpha in (0.3, 0.5, 0.7)),
    Arm("alpha searched", DensityDistillation(uniform(0.0, 1.0))),
    Arm("alpha 0.7 to 0", DensityDistillation(Staircase(0.7, 0.0, stages=5))),
)


def during_training(interval_epochs: int) -> Arm:
    return Arm(
        "alpha during training",
        DensityDistillation(uniform(0.0, 1.0)),
        versus=("no distillation", "alpha searched"),
        search=PopulationBased(interval_epochs=interval_epochs),
    )


def embedded(data_dir: Path | None) -> Study:
    return Study(
        name="crowd_alpha",
        question=QUESTION,
        task=CrowdCounting(
            data=DrawnCrowds(train=128, test=100, height=64, width=96, most=60),
            teacher=Teacher(MSFANet(width=6), Recipe(8, Cosine(5e-3), Adam()), epochs=20),
            recipe=Recipe(8, CosineWarmRestarts(7e-3, cycles=2), Adam()),
            views=GridCrops(32, rows=2, columns=3),
        ),
        students=(MCNN(width=0.35),),
        arms=(*ARMS, during_training(interval_epochs=2)),
        budget=Budget(trials=8, epochs=10, seeds=9),
        metric="val/mae",
        stopping=SuccessiveHalving(min_epochs=3),
        assumptions=(*ASSUMPTIONS, EMBEDDED_ASSUMPTION),
    )


def paper(data_dir: Path | None) -> Study:
    return Study(
        name="crowd_alpha-paper",
        question=QUESTION,
        task=CrowdCounting(
            data=ShanghaiTech(data_dir),
            teacher=Teacher(MSFANet(imagenet=True), Recipe(8, Cosine(1e-4), Adam()), epochs=500),
            recipe=Recipe(8, CosineWarmRestarts(1e-4, 1e-6, cycles=5), Adam()),
            views=GridCrops(256, rows=4, columns=4),
        ),
        students=(MCNN(),),
        arms=(*ARMS, during_training(interval_epochs=31)),  # ten intervals
        budget=Budget(trials=20, epochs=310, seeds=9),
        metric="val/mae",
        stopping=SuccessiveHalving(min_epochs=30),
        assumptions=(*ASSUMPTIONS, GIVEN_ASSUMPTION, CHOSEN_ASSUMPTION, TEACHER_ASSUMPTION),
        protocol="P4",
    )


study = {"embedded": embedded, "paper": paper}
