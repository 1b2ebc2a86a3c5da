"""Recipes and students that a search decides, in the training loop and in the checks before a study."""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from study import choice, integer, log_uniform, uniform
from study.arm import Arm
from study.errors import InputError
from study.preflight import check_inputs
from study.space.domains import resolve_corners
from study.study import Budget, Study
from tests.trainables import small
from trainables.losses.logits.kd import KD
from trainables.losses.none import NoDistillation
from trainables.models.mcnn import MCNN
from trainables.models.resnet_cifar import ResNet
from trainables.models.segmentation import SmallFCN
from trainables.models.sr.rcan import RCAN
from trainables.teacher.sources import store_key
from trainables.training.recipe import Adam, AdamW, Recipe, Sgd
from trainables.training.schedules import Cosine

SEARCHED = Recipe(
    batch_size=choice(16, 32), learning_rate=Cosine(log_uniform(0.01, 0.2)), optimizer=choice(Sgd(), AdamW())
)


STUDENT = ResNet(8, width=integer(2, 4))


@dataclasses.dataclass(frozen=True)
class Pooled:
    """A net whose batch norm gets one value per channel and image."""

    name: str = "pooled"

    def build(self, channels: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))


def study_of(task=small.TASK, student=STUDENT, recipe=None) -> Study:
    arms = (Arm("none", NoDistillation(), baseline=True, recipe=recipe), Arm("KD", KD(), recipe=recipe))
    return Study("toy", "?", task, (student,), arms, Budget(2, 2, 2))


def test_trial_is_trained_by_the_recipe_of_its_configuration(tmp_path):
    task = small.TASK.with_recipe(SEARCHED)
    for batch_size, optimizer in ((16, Sgd()), (32, AdamW())):
        recipe = Recipe(batch_size, Cosine(0.1), optimizer)
        folder = tmp_path / f"{batch_size}"
        context = small.job(task, tmp_path, folder, loss=NoDistillation(), epochs=2)
        rows = list(task.train(dataclasses.replace(context, recipe=recipe)))
        fixed = small.job(
            task.with_recipe(recipe), tmp_path, folder.with_suffix(".fixed"), loss=NoDistillation(), epochs=2
        )
        assert small.metrics(rows) == small.metrics(list(fixed.task.train(fixed)))
        assert rows[0]["schedules"]["learning_rate"] == 0.1


def test_rows_have_the_number_of_parameters_of_their_student(tmp_path):
    counts = {}
    for width in (2, 4):
        context = small.job(small.TASK, tmp_path, tmp_path / str(width), loss=NoDistillation(), epochs=1)
        (row,) = small.TASK.train(dataclasses.replace(context, student=ResNet(8, width)))
        counts[width] = row["metrics"]["student/parameters"]
    assert counts[2] < counts[4]
    assert "student/parameters" in small.TASK.metrics


def test_teacher_and_its_stored_outputs_do_not_depend_on_the_recipe_of_students():
    searched = small.TASK.with_recipe(SEARCHED)
    assert searched.teacher_key == small.TASK.teacher_key
    assert store_key(searched) == store_key(small.TASK)
    assert searched.list_artifacts() == small.TASK.list_artifacts()


def test_all_arms_share_one_set_of_teacher_outputs(tmp_path):
    own = study_of(recipe=SEARCHED)
    assert own.task.list_artifacts() == study_of().task.list_artifacts()


def test_recipe_of_every_corner_is_checked_with_the_last_batch(tmp_path):
    recipe = dataclasses.replace(SEARCHED, batch_size=choice(16, 79))  # 80 training samples, 100 in confirm runs
    with pytest.raises(InputError, match="trains on 80 samples in batches of 79: the last batch is one sample"):
        check_inputs(study_of(recipe=recipe, student=Pooled()), tmp_path)
    assert check_inputs(study_of(recipe=SEARCHED), tmp_path)["data"]["train"] == 80


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(batch_size=uniform(16, 128)), r"batch_size is 16\.0; allowed is a whole number, such as integer\(16"),
        (Recipe(learning_rate=uniform(-1, 1)), "learning_rate is -1"),
        (Recipe(optimizer=Sgd(momentum=uniform(0, 1))), "momentum is 1"),
        (Recipe(optimizer=Sgd(weight_decay=uniform(-1, 1))), "weight_decay is -1"),
        (Recipe(optimizer=AdamW(betas=(0.9, uniform(0.9, 1)))), "a beta of Adam is 1"),
        (Recipe(precision=choice("float32", "float16")), "precision 'float16'"),
        (choice(a=Recipe(), b=Sgd()), r"recipe is Sgd\(.*; write Recipe"),
    ],
)
def test_recipe_that_cannot_train_at_an_end_of_its_space_is_refused(recipe, message):
    for change in ({"recipe": recipe}, {"task": small.TASK.with_recipe(recipe)}):
        with pytest.raises(InputError, match=f"at an end of its search space: {message}"):
            study_of(**change)


def test_student_that_cannot_be_built_at_an_end_of_its_space_is_refused():
    with pytest.raises(InputError, match="ResNet of width 0"):
        study_of(student=ResNet(8, width=integer(0, 4)))
    with pytest.raises(InputError, match="ResNet of depth 9"):
        study_of(student=ResNet(choice(8, 9)))


def test_domains_of_the_teacher_and_of_data_are_refused():
    teacher = dataclasses.replace(small.TASK.teacher, recipe=SEARCHED)
    with pytest.raises(InputError, match=r"task\.teacher\.recipe\.batch_size is a domain.*cannot be searched"):
        study_of(dataclasses.replace(small.TASK, teacher=teacher))


def test_precision_reaches_every_recipe_to_choose_from():
    task = small.TASK.with_recipe(choice(sgd=Recipe(), adam=Recipe(optimizer=Adam())))
    changed = task.with_precision("bfloat16")
    assert {corner.precision for corner in resolve_corners(changed.recipe)} == {"bfloat16"}


@pytest.mark.parametrize(
    ("student", "name"),
    [
        (ResNet(choice(8, 14), width=integer(2, 8)), "resnet{8,14}w{2..8}"),
        (MCNN(uniform(0.1, 1)), "mcnn-{0.1..1}"),
        (SmallFCN(integer(4, 8)), "small_fcn-{4..8}"),
        (RCAN(width=choice(16, 32)), "rcan-w{16,32}"),
    ],
)
def test_searched_student_is_named_by_its_domains(student, name):
    assert student.name == name
