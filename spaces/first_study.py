"""Does DKD help a small net more than KD, each with its temperature tuned?

    kdstudy run first_study                                1 minute on 2 cores
    kdstudy run first_study --dry-run                      what would be trained, and for how long

A study to start from: every part that you may want to change has a comment. The images are scikit-learn's digits, which
need no download.
"""

from study import Arm, Budget, Study, SuccessiveHalving, log_uniform
from trainables import DKD, KD, Classification, Cosine, CropFlip, Digits, NoDistillation, Recipe, ResNet, Teacher

study = Study(
    # The name of its folder below runs/, and of its report.
    name="first_study",
    question="Does DKD help a small net more than KD, each with its temperature tuned?",
    task=Classification(
        # Your own images, in photos/train/<class>/ and photos/test/<class>/: import ImageFolder, and write
        # ImageFolder(train="photos/train", test="photos/test", size=64).
        data=Digits(train=400),
        # The teacher is trained once and kept. One of your own: kdstudy run … --teacher weights.pth, for a net such as
        # Torchvision("resnet50"), or Net(function) for any function that returns an nn.Module.
        teacher=Teacher(ResNet(14), Recipe(32, Cosine(0.05)), epochs=20),
        # Students train with this batch size, rate and optimizer; each may be searched, like the temperature below.
        recipe=Recipe(32, Cosine(0.05)),
        # The random views of an image: crops after padding; without flips, as a mirrored digit is not a digit.
        views=CropFlip(padding=1, flip=False),
        # The share of training images that the search is judged by; the test split is read once, at the end.
        validation=0.2,
    ),
    students=(ResNet(8, width=4),),
    arms=(
        # What the others are compared with: the same net without a teacher.
        Arm("no distillation", NoDistillation(), baseline=True),
        # A domain in place of a number is searched: log_uniform, uniform, integer, choice.
        Arm("KD, tuned", KD(temperature=log_uniform(1.0, 8.0))),
        # Compared with the arm that searches the same numbers as often; with "no distillation", a gain might come from
        # the search alone. An arm can have several comparisons: the correction for several tests covers them all.
        Arm("DKD, tuned", DKD(temperature=log_uniform(1.0, 8.0)), versus=("KD, tuned", "no distillation")),
    ),
    # Search trials for each searched arm, epochs for each trial, and paired seeds that confirm each arm.
    budget=Budget(trials=8, epochs=15, seeds=8),
    # Search trials that fall behind are stopped, none before its fifth epoch.
    stopping=SuccessiveHalving(min_epochs=5),
    # Two search trials of an arm at a time, and the same proposals whichever ends first: the same table each time.
    reproducible_search=2,
)
