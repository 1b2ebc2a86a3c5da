"""Which small net, and which distillation loss, for images of one's own?

    python -m study.run spaces/own_images.py                        2 minutes on 2 cores
    python -m study.run spaces/own_images.py --data-dir FOLDER      your images: FOLDER/train/<class>/, FOLDER/test/

Four arms search the same learning rates and widths of one student, each for itself: none, KD, DKD, and FitNet, which
compares inner features. They trade off accuracy against latency: of each arm the most accurate and the fastest point of
its front are confirmed, and compared with no distillation at the same width. The teacher is torchvision's ResNet-18,
the student a function of this file. Without --data-dir the images are scikit-learn's digits, written once as PNG files
in a folder for each class: 400 for training, 899 for test. The page docs/own-data.md goes through this file.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from study import Arm, Budget, Never, Study, choice, log_uniform
from trainables import (
    DKD,
    KD,
    AdamW,
    Classification,
    Cosine,
    CropFlip,
    Digits,
    FeatureMatching,
    ImageFolder,
    Net,
    NoDistillation,
    Recipe,
    Teacher,
    Torchvision,
)
from trainables.data.arrays.cache import get_cache_folder, load_or_make


def small_net(channels: int, classes: int, width: int) -> nn.Module:
    """Return a net of three convolutions, the last with the 64 channels that the teacher's first stage has."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def write_digits() -> Path:
    """Return a folder of scikit-learn's digits as PNG files, which is made on first use."""

    def make(folder: Path) -> None:
        digits = Digits(train=400).load()
        for split in ("train", "test"):
            images, labels = getattr(digits, f"{split}_images"), getattr(digits, f"{split}_labels")
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / split / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(image[0])).save(path)

    folder = get_cache_folder("example") / "digits"
    return load_or_make(folder, "digits as PNG files", lambda folder: folder if folder.is_dir() else None, make)


def own_images(data_dir: Path | None) -> Study:
    searched = Recipe(batch_size=32, learning_rate=Cosine(log_uniform(1e-2, 5e-2)), optimizer=AdamW())
    return Study(
        name="own_images",
        question="Which small net, and which distillation loss, for images of one's own?",
        task=Classification(
            ImageFolder(data_dir or write_digits(), train="train", test="test", size=16, grey=data_dir is None),
            Teacher(Torchvision("resnet18", taps=("layer1",)), Recipe(32, Cosine(1e-3), AdamW()), epochs=24),
            recipe=searched,
            views=CropFlip(padding=1, flip=False),
            validation=0.2,
        ),
        students=(Net(small_net, {"width": choice(16, 64)}, taps=("8",)),),
        arms=(
            Arm("no distillation", NoDistillation(), baseline=True),
            Arm("KD", KD(temperature=log_uniform(1, 8))),
            Arm("DKD", DKD(temperature=log_uniform(1, 8))),
            Arm("FitNet", FeatureMatching(weight=log_uniform(0.03, 3), norm="mse")),
        ),
        objectives=("student/latency_ms",),
        confirm_front=2,
        budget=Budget(trials=5, epochs=8, seeds=9),
        stopping=Never(),  # after an epoch or two all these trials are near chance
    )


study = {"own_images": own_images}
