"""The study of the field's losses: that it can decide, and that its arms are tuned alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from study.space.domains import find_domains
from study.space_file import load_space
from study.study import Study
from trainables.task import Outputs
from trainables.tasks.preflight import check_loss

SPACE = Path(__file__).parents[2] / "spaces" / "baselines_cifar.py"
every_profile = pytest.mark.parametrize(
    "study", [load_space(SPACE, p, Path("data")).study for p in ("embedded", "cifar100")]
)


@every_profile
def test_seeds_can_decide_all_comparisons(study: Study) -> None:
    assert study.max_tests == 9
    assert study.max_tests * 2 / 2**study.budget.seeds <= 0.05


@every_profile
def test_every_arm_is_compared_with_kd_and_searches_two_numbers_as_it_does(study: Study) -> None:
    for arm in study.arms[1:]:
        assert len(list(find_domains(arm.loss))) == 2, arm.name
        assert len(arm.first) == 1
        assert arm.name == "KD" or [other.name for other in study.find_comparisons(arm)] == ["KD"]
    assert [arm.name for arm in study.arms if study.is_searched(arm) and study.is_tuned_alone(arm)] in ([], ["KD"])


@every_profile
def test_all_temperatures_are_searched_over_the_same_domain(study: Study) -> None:
    domains = {repr(arm.loss.temperature) for arm in study.arms if hasattr(arm.loss, "temperature")}
    assert len(domains) == 1


every_feature_profile = pytest.mark.parametrize(
    "study", [load_space(SPACE, p, Path("data")).study for p in ("features", "cifar100_features")]
)


@every_feature_profile
def test_losses_on_features_are_compared_with_kd_by_seeds_that_can_decide(study: Study) -> None:
    assert study.max_tests == 6
    assert study.max_tests * 2 / 2**study.budget.seeds <= 0.05
    for arm in study.arms[2:]:
        assert [other.name for other in study.find_comparisons(arm)] == ["KD"]
        assert len(list(find_domains(arm.loss))) == (1 if arm.name == "AT" else 2), arm.name


@every_feature_profile
def test_losses_on_features_fit_both_nets(study: Study) -> None:
    images = torch.zeros(2, 3, 16, 16)
    student, teacher = (
        Outputs(*net.build(3, 10).eval()(images)) for net in (study.students[0], study.task.teacher.model)
    )
    for arm in study.arms[2:]:
        check_loss(arm.first[0], student, teacher, torch.zeros(2, dtype=torch.int64), "two images")
