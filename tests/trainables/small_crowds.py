"""A crowd task small enough for tests, and jobs for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from study.trial import TrialContext
from tests.trainables import small
from trainables.data.synthetic.crowds import DrawnCrowds
from trainables.losses.density import DensityDistillation
from trainables.models.mcnn import MCNN
from trainables.models.msfanet import MSFANet
from trainables.tasks.crowd_counting.task import CrowdCounting
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine, Staircase
from trainables.training.views import GridCrops

STUDENT = MCNN(width=0.2)
FALLING = DensityDistillation(Staircase(0.7, 0.0, stages=3))
RECIPE = Recipe(4, Cosine(5e-3), Adam())
TASK = CrowdCounting(
    data=DrawnCrowds(train=16, test=6, height=40, width=56, most=20),
    teacher=Teacher(MSFANet(width=4), RECIPE, epochs=2),
    recipe=RECIPE,
    views=GridCrops(32, rows=2, columns=2),
    validation=4,
)


def job(task: CrowdCounting, storage: Path, folder: Path, **settings) -> TrialContext:
    made = small.job(task, storage, folder, **({"loss": FALLING} | settings))
    return dataclasses.replace(made, student=STUDENT)
