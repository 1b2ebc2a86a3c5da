"""Conformance of all losses on features: training state, checks, settings."""

from __future__ import annotations

import copy
import io
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from study.errors import InputError
from study.identity import describe
from study.space.domains import choice, resolve_corners, uniform
from study.task import StatefulMethod
from tests.trainables.losses.feature_losses import (
    ADAPTED,
    ADVERSARIAL,
    CLASSES,
    CONTRASTIVE,
    MATCHING,
    REVIEW,
    SMALL,
    START,
    every_loss,
    maps,
    outputs,
    running,
    same,
    student_channels,
)
from trainables.losses.common.feature_maps import Adapter
from trainables.losses.features.adversarial_features import AdversarialFeatures, PatchDiscriminator
from trainables.losses.features.crd import CRD
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.features.review_kd import ReviewKD
from trainables.losses.state import make_loss_state
from trainables.task import Outputs
from trainables.tasks.preflight import check_loss
from trainables.training.schedules import Progress, Staircase, evaluate_schedules


@every_loss
def test_student_and_loss_learn_apart(loss):
    made = running(loss)
    parts = [made.discriminator] if hasattr(made, "discriminator") else []
    student, teacher = maps(student_channels(loss), dtype=torch.float32), maps(seed=1, dtype=torch.float32)
    student.requires_grad_()
    teacher.requires_grad_()
    before = copy.deepcopy(made.state_dict())
    made(outputs(student), outputs(teacher), CLASSES, START).backward()
    assert student.grad.abs().max() > 0
    assert all(parameter.grad is None for part in parts for parameter in part.parameters())
    assert same(before, made.state_dict())
    gradient = student.grad.clone()
    made.step(outputs(student), outputs(teacher), START)
    assert torch.equal(student.grad, gradient)
    assert teacher.grad is None
    assert not same(before, made.state_dict())
    if getattr(loss, "adapter", None):
        assert not same(before["adapter"]["conv"], made.state_dict()["adapter"]["conv"])
        assert all(parameter.grad is None for parameter in made.adapter.conv.parameters())


def trained(loss, made, student: nn.Module, steps: range) -> list[float]:
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    values = []
    for step in steps:
        told = outputs(student(maps(4, seed=step, dtype=torch.float32)))
        taught = outputs(maps(seed=100 + step, dtype=torch.float32))
        torch.manual_seed(step)  # as the training loop does in every epoch
        value = made(told, taught, CLASSES, Progress(step, 10))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        made.step(told, taught, Progress(step, 10))
        values.append(value.item())
    return values


@every_loss
def test_training_resumed_from_its_state_equals_one_never_stopped(loss):
    loss = replace(loss, weight=1.0)
    student = nn.Conv2d(4, student_channels(loss), 1)
    twin = copy.deepcopy(student)
    whole = running(loss)
    expected = trained(loss, whole, student, range(6))
    cut = running(loss)
    values = trained(loss, cut, twin, range(3))
    file = io.BytesIO()
    torch.save(cut.state_dict(), file)
    resumed = running(loss, seed=99)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    values += trained(loss, resumed, twin, range(3, 6))
    assert values == expected
    assert same(whole.state_dict(), resumed.state_dict())
    assert len(set(values)) == 6


@every_loss
def test_parts_of_a_loss_follow_from_the_generator(loss):
    assert isinstance(loss, StatefulMethod)
    assert same(running(loss, 1).state_dict(), running(loss, 1).state_dict())
    assert not same(running(loss, 1).state_dict(), running(loss, 2).state_dict())
    assert type(make_loss_state(loss, "cpu")) is type(running(loss))


@every_loss
def test_check_of_a_loss_is_one_number_that_draws_nothing(loss):
    student, teacher = (outputs(maps(channels, dtype=torch.float32)) for channels in (student_channels(loss), 3))
    before = torch.random.get_rng_state()
    check_loss(loss, student, teacher, None, "noise")
    values = {loss(student, teacher, None, START).item() for _ in range(2)}
    assert len(values) == 1
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdversarialFeatures(weight=-1.0), "weight"),
        (lambda: AdversarialFeatures(learning_rate=-1e-4), "learning_rate"),
        (lambda: AdversarialFeatures(betas=(0.5, 1.0)), "betas"),
        (lambda: AdversarialFeatures(discriminator=64), "discriminator"),
        (lambda: AdversarialFeatures(task_weight=-1.0), "task_weight"),
        (lambda: PatchDiscriminator(layers=0), "layers"),
        (lambda: PatchDiscriminator(in_channels=0), "in_channels"),
        (lambda: FeatureMatching(norm="l2"), "norm"),
        (lambda: FeatureMatching(weight=Staircase(0.0, -1.0, stages=2)), "weight"),
        (lambda: FeatureMatching(adapter=16), "adapter"),
        (lambda: Adapter(0, 3), "student_channels"),
        (lambda: CRD(negatives=0), "negatives"),
        (lambda: CRD(temperature=0.0), "temperature"),
        (lambda: CRD(momentum=1.0), "momentum"),
        (lambda: CRD(optimizer=0.1), "optimizer"),
        (lambda: ReviewKD(student_channels=()), "student_channels"),
        (lambda: ReviewKD(student_channels=(16, 32)), "as many of both"),
        (lambda: ReviewKD(warmup=2.0), "warmup"),
    ],
)
def test_setting_out_of_range_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def nothing(channels: int) -> Outputs:
    return outputs(torch.zeros(1, channels, 8, 8))


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "words"),
    [
        (ADVERSARIAL, nothing(16), nothing(16), "give in_channels=16"),
        (ADVERSARIAL, nothing(8), nothing(3), r"adapter=Adapter\(8, 3\)"),
        (ADVERSARIAL, outputs(torch.zeros(1, 3, 2, 2)), outputs(torch.zeros(1, 3, 2, 2)), "give fewer layers"),
        (ADVERSARIAL, Outputs(torch.zeros(1)), nothing(3), "do not return"),
        (FeatureMatching(), nothing(3), Outputs(torch.zeros(1)), "do not return"),
        (FeatureMatching(), nothing(3), outputs(torch.zeros(1, 3, 4, 4)), r"\(3, 8, 8\) and \(3, 4, 4\)"),
        (MATCHING, nothing(5), nothing(3), "the student has 5 channels"),
        (CONTRASTIVE, nothing(5), nothing(3), "give student_channels=5"),
        (CONTRASTIVE, nothing(3), Outputs(torch.zeros(1)), "do not return"),
        (REVIEW, nothing(3), nothing(5), r"teacher_channels=\(3,\), but the taps have \(5,\) channels"),
        (REVIEW, Outputs(torch.zeros(1)), nothing(3), "the taps have no channels"),
    ],
)
def test_features_that_do_not_fit_are_refused_before_training(loss, student, teacher, words):
    with pytest.raises(InputError, match=words):
        check_loss(loss, student, teacher, None, "noise")


@every_loss
def test_loss_describes_all_its_settings(loss):
    assert set(describe(loss)) >= {"is", *(field.name for field in fields(loss))}
    assert loss.needs_teacher


def test_settings_of_a_loss_can_be_searched_and_scheduled():
    searched = AdversarialFeatures(
        weight=uniform(1e-4, 1e-1), discriminator=replace(SMALL, width=choice(4, 8)), betas=(choice(0.5, 0.9), 0.999)
    )
    assert {loss.discriminator.width for loss in resolve_corners(searched)} == {4, 8}
    moving = replace(ADAPTED, adapter=Adapter(2, 3, learning_rate=Staircase(1.0, 0.0, stages=2)))
    assert evaluate_schedules(moving, START) == {"adapter.learning_rate": 1.0}


@pytest.mark.parametrize("loss", [CONTRASTIVE, REVIEW, MATCHING])
def test_loss_under_autocast_is_float32_and_exact(loss):
    made, channels = running(loss), student_channels(loss)
    student, teacher = maps(channels).bfloat16(), maps(seed=1).bfloat16()
    exact = made(outputs(student.float()), outputs(teacher.float()), CLASSES, START)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = made(outputs(student), outputs(teacher), CLASSES, START)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)
