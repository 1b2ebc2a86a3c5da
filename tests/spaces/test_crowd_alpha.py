"""The study of alpha in crowd counting: its control, the paper's grid, and figures that are the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.analysis import published
from study.space_file import load_space
from study.study import Study
from trainables.losses.none import NoDistillation
from trainables.training.schedules import Progress, value_at

SPACE = Path(__file__).parents[2] / "spaces" / "crowd_alpha.py"
every_profile = pytest.mark.parametrize(
    "study",
    [pytest.param(load_space(SPACE, profile, Path("data")).study, id=profile) for profile in ("embedded", "paper")],
)


@every_profile
def test_all_of_the_papers_grid_is_compared_with_a_control(study: Study) -> None:
    (control,) = (arm for arm in study.arms if arm.baseline)
    assert isinstance(control.loss, NoDistillation)
    assert [getattr(arm.loss, "alpha", None) for arm in study.arms[1:5]] == [0.1, 0.3, 0.5, 0.7]
    assert [arm.name for arm in study.arms if study.is_searched(arm)] == [
        "alpha searched",
        "alpha during training",
    ]
    assert all(study.find_comparisons(arm)[0] == control for arm in study.arms[1:])
    # P4's claim that 0.1 is the best of its grid
    assert [arm.name for arm in study.find_comparisons(study.arms[1])[1:]] == ["alpha 0.3", "alpha 0.5", "alpha 0.7"]


@every_profile
def test_the_teachers_last_epoch_is_at_a_rate_of_nearly_nothing(study: Study) -> None:
    teacher = study.task.teacher
    rates = [
        value_at(teacher.recipe.learning_rate, Progress(epoch, teacher.epochs)) for epoch in (0, teacher.epochs - 1)
    ]
    assert rates[1] < 0.01 * rates[0]


@every_profile
def test_fewer_errors_are_better(study: Study) -> None:
    assert (study.metric, study.direction, study.test_metric) == ("val/mae", "min", "test/mae")


def test_papers_figures_stand_beside_its_student_and_its_teacher() -> None:
    study = load_space(SPACE, "paper", None).study
    (student,) = study.students
    grid = {arm.published: arm for arm in study.arms if arm.published}
    # P4, table 2: MAE by alpha; without distillation it quotes 110.2
    for method, mae in {"none": 110.2, "kd alpha=0.1": 90.86, "kd alpha=0.7": 110.85}.items():
        assert grid[method]
        assert mae in {row.value for row in published.find_figures(study.protocol, student.name, method)}
    teacher = {row.metric: row.value for row in published.find_figures("P4", study.task.teacher.model.name, "teacher")}
    assert teacher["mae"] == 57.55
    assert load_space(SPACE, "embedded", None).study.protocol == ""
