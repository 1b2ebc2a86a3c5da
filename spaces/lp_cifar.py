"""Does logits pruning help DKD, and does a searched schedule help more than the published one?

    python -m study.run spaces/lp_cifar.py                                              90 s on 2 cores
    python -m study.run spaces/lp_cifar.py --profile cifar10 --data-dir PATH            a night on 2 cores
    python -m study.run spaces/lp_cifar.py --profile paper --data-dir PATH              a GPU and a night

Five arms, baselines among them, on the same seeds. Logits pruning (LP) removes the teacher's least likely classes from
the loss, a growing share of them: 0 to 40 % in four stages as published; searched are its start, end, number of stages
and shape.

`embedded` needs no download: scikit-learn's digits, 400 of their training images, from which a ResNet-14 learns 4 to 5
points more than a ResNet-8 of a quarter of its width. On 10 classes LP drops 1 to 4 of them where CIFAR-100 drops 13 to
40: this profile shows that the machinery works and what its verdicts look like, and says nothing about the paper. Eight
seeds are the fewest that can decide four comparisons (2/2⁸ · 4 < 0.05); ten are taken.
`cifar10` is real CIFAR-10 with a teacher that a laptop can train: ResNet-20 to ResNet-8; add --trials 2 --epochs 1
--seeds 2 to see it run in minutes. `paper` is P1's: CIFAR-100, ResNet-110 to ResNet-8 and -20,
80 epochs; the paper gives no optimiser settings, so the field's reference recipe stands in for them.
"""

from pathlib import Path

from study import Arm, Budget, Study, SuccessiveHalving, choice, integer, uniform
from trainables.cifar import Classification
from trainables.data.cifar import Cifar
from trainables.data.digits import Digits
from trainables.losses.dkd import DKD
from trainables.losses.kd import KD
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.recipe import Recipe
from trainables.schedules import Cosine, Stages
from trainables.teachers import Teacher
from trainables.views import CropFlip

QUESTION = "Does logits pruning help DKD, and does a searched schedule help more than the published one?"

ARMS = (
    Arm("no distillation", NoDistillation(), baseline=True),
    Arm("KD", KD(), baseline=True),
    Arm("DKD", DKD(), baseline=True),
    Arm("DKD + LP, published", DKD(pruning=Stages(0.0, 0.4, stages=4)), versus="DKD", published="dkd+lp"),
    Arm(
        "DKD + LP, searched",
        DKD(
            pruning=Stages(
                start=uniform(0.0, 0.3),
                end=uniform(0.1, 0.7),
                stages=integer(1, 8),
                shape=choice("linear", "cosine"),
            )
        ),
        versus="DKD",
    ),
)


def embedded(data_dir: Path | None) -> Study:
    recipe = Recipe(batch_size=32, learning_rate=Cosine(0.05))
    return Study(
        name="lp_cifar",
        question=QUESTION,
        task=Classification(
            data=Digits(train=400),
            teacher=Teacher(ResNet(14), recipe, epochs=40),
            recipe=recipe,
            views=CropFlip(padding=1, flip=False),  # a mirrored digit is no digit
            validation=0.3,
        ),
        students=(ResNet(8, width=4),),
        arms=ARMS,
        budget=Budget(trials=12, epochs=25, seeds=10),
        stopping=SuccessiveHalving(min_epochs=8),
    )


def cifar10(data_dir: Path | None) -> Study:
    return Study(
        name="lp_cifar-cifar10",
        question=QUESTION,
        task=Classification(data=Cifar(10, data_dir), teacher=Teacher(ResNet(20), epochs=30)),
        students=(ResNet(8),),
        arms=ARMS,
        budget=Budget(trials=12, epochs=30, seeds=8),
        stopping=SuccessiveHalving(min_epochs=8),
    )


def paper(data_dir: Path | None) -> Study:
    return Study(
        name="lp_cifar-paper",
        question=QUESTION,
        task=Classification(data=Cifar(100, data_dir), teacher=Teacher(ResNet(110), epochs=240)),
        students=(ResNet(8), ResNet(20)),
        arms=ARMS,
        budget=Budget(trials=40, epochs=80, seeds=8),
        stopping=SuccessiveHalving(min_epochs=10),
        protocol="P1",
    )


study = {"embedded": embedded, "cifar10": cifar10, "paper": paper}
