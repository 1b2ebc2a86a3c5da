"""Losses on inner features in classification: nets with taps, a teacher that is run at every step, and the store."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from study import Arm, Budget, Study, integer
from study.cli.dry_run.plan import format_plan
from study.errors import InputError
from study.identity import describe
from study.space.domains import find_domains
from study.task import Plan
from tests.trainables import small
from trainables.export.restore import PredictionModel
from trainables.losses.common.feature_maps import Adapter
from trainables.losses.features.attention import AttentionTransfer
from trainables.losses.features.crd import CRD
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.features.review_kd import ReviewKD
from trainables.losses.features.rkd import RKD
from trainables.losses.logits.kd import KD
from trainables.losses.none import NoDistillation
from trainables.models.net_function import Net
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.profiling import profile_trial
from trainables.teacher.sources import open_teacher
from trainables.teacher.weights import LiveTeacher, Teacher


def make_net(classes, channels, width=4):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


def without_classes(channels):
    return nn.Identity()


def no_net(classes):
    return classes


TEACHER, STUDENT = Net(make_net, {"width": 6}, taps=("2",)), Net(make_net, taps=("0", "2"))
TASK = dataclasses.replace(small.TASK, teacher=Teacher(TEACHER, small.RECIPE, epochs=1))
FEATURES = FeatureMatching()


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    small.prepared(TASK, folder)
    return folder


def job(storage, folder, loss, **changes):
    return dataclasses.replace(small.job(TASK, storage, folder, loss=loss, epochs=2), student=STUDENT, **changes)


def test_student_learns_from_the_teachers_features(storage, tmp_path):
    rows = list(TASK.train(job(storage, tmp_path / "c", FEATURES)))
    losses = [row["metrics"]["train/distill_loss"] for row in rows]
    assert losses[1] < losses[0]
    assert 0 <= rows[-1]["metrics"]["val/accuracy"] <= 1


def test_adapter_fits_nets_of_other_width(tmp_path):
    teacher = Teacher(Net(make_net, {"width": 6}, taps=("0",)), small.RECIPE, epochs=1)
    task, student = dataclasses.replace(small.TASK, teacher=teacher), Net(make_net, {"width": 4}, taps=("0",))
    with pytest.raises(InputError, match=r"where channels differ, adapter=Adapter\(4, 6\)"):
        task.check((student,), (FEATURES,), tmp_path)
    loss = FeatureMatching(adapter=Adapter(4, 6))
    task.check((student,), (loss,), tmp_path)
    small.prepared(task, tmp_path)
    context = small.job(task, tmp_path, tmp_path / "c", loss=loss, epochs=1)
    (row,) = task.train(dataclasses.replace(context, student=student))
    assert row["metrics"]["train/distill_loss"] > 0


def test_teacher_of_features_is_run_at_every_step_and_others_are_read_from_the_store(storage, tmp_path):
    assert isinstance(open_teacher(TASK, job(storage, tmp_path, FEATURES)), LiveTeacher)
    assert not isinstance(open_teacher(TASK, job(storage, tmp_path, KD())), LiveTeacher)


def test_losses_are_tried_on_features_before_a_study(storage):
    TASK.check((STUDENT,), (FEATURES, KD()), storage)
    with pytest.raises(InputError, match=r"which these nets do not return; .*taps="):
        TASK.check((ResNet(8, 4),), (FEATURES,), storage)


def test_every_loss_on_features_is_trained_with_taps_of_resnets(tmp_path):
    taps = ("layer1", "layer2", "layer3")
    teacher = Teacher(ResNet(14, width=4, taps=taps), small.RECIPE, epochs=1)
    task, student = dataclasses.replace(small.TASK, teacher=teacher), ResNet(8, width=2, taps=taps)
    losses = (
        FeatureMatching(adapter=Adapter(8, 16)),
        AttentionTransfer(),
        RKD(),
        CRD(8, 16, negatives=20, dimensions=8),
        ReviewKD((2, 4, 8), (4, 8, 16), inner_channels=8),
    )
    task.check((student,), losses, tmp_path)
    small.prepared(task, tmp_path)
    for loss in losses:
        context = small.job(task, tmp_path, tmp_path / type(loss).__name__, loss=loss, epochs=1)
        (row,) = task.train(dataclasses.replace(context, student=student))
        assert row["metrics"]["train/distill_loss"] > 0


@pytest.mark.parametrize("loss", [CRD(8, 8, negatives=20, dimensions=8), ReviewKD((8,), (8,), inner_channels=4)])
def test_trial_resumed_after_an_epoch_continues_with_the_parts_of_its_loss(storage, tmp_path, loss):
    def train(folder, recorded=0):
        context = job(storage, tmp_path / folder, loss, recorded_epochs=recorded)
        return TASK.train(dataclasses.replace(context, student=dataclasses.replace(STUDENT, taps=("2",))))

    whole = small.metrics(list(train("whole")))
    rows = train("cut")
    head = [next(rows)]
    rows.close()
    assert small.metrics(head + list(train("cut", recorded=1))) == whole


def study_of(*losses) -> Study:
    arms = (Arm("none", NoDistillation(), baseline=True), *(Arm(f"arm {n}", loss) for n, loss in enumerate(losses)))
    return Study("toy", "?", TASK, (STUDENT,), arms, Budget(2, 2, 3))


def test_nothing_is_stored_for_losses_on_features_alone(tmp_path):
    features, both, plain = study_of(FEATURES), study_of(FEATURES, KD()), study_of(KD())
    assert (len(features.plan.runs), features.plan.stored_runs) == (3, ())
    assert both.plan == plain.plan
    assert describe(plain.plan).keys() == {"is", "from", "runs", "epochs"}
    steps = {study: [step.name for step in TASK.list_preparations(tmp_path, study.plan)] for study in (features, plain)}
    assert steps[features] == ["teacher"]
    assert len(steps[plain]) > 1


def test_dry_run_names_arms_whose_teacher_is_run_at_every_step():
    line = "features are not stored: the teacher of arm 0 is run at every step"
    assert line in format_plan(study_of(FEATURES, KD()), {}, [])
    assert line not in format_plan(study_of(KD()), {}, [])


def test_profile_of_a_loss_on_features_runs_the_teacher(storage, tmp_path):
    assert profile_trial(TASK, job(storage, tmp_path / "c", FEATURES), 1).epoch_seconds > 0


def test_net_with_taps_is_exported_by_its_prediction(tmp_path):
    net = PredictionModel(TASK, TASK.build(STUDENT)).eval()
    images = torch.randn(2, 1, 8, 8)
    program = torch.export.export(net, (images,), strict=False)
    assert torch.allclose(program.module()(images), net(images))


# -- nets from functions


def test_function_gets_the_number_of_classes_and_its_settings():
    net = Net(make_net, {"width": 5}).build(channels=2, classes=3)
    assert net(torch.randn(1, 2, 8, 8)).shape == (1, 3)
    assert net[0].out_channels == 5
    assert Net(make_net, {"width": 5}).name == "make_net-width5"


def test_settings_of_a_function_are_searched_by_name():
    searched = Net(make_net, {"width": integer(2, 8)})
    assert [name for name, _ in find_domains(searched)] == ["settings.width"]
    assert searched.name == "make_net-width{2..8}"
    hash(searched)


def test_function_is_described_by_its_name_and_code():
    described = describe(Net(make_net))["function"]
    assert described["is"] == "make_net"
    assert len(described["source"]) == 16
    assert describe(Net(make_net)) != describe(Net(make_net, {"width": 5}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda classes: None,), "allowed is a function by its name"),
        ((without_classes,), r"without_classes\(\) has no parameter 'classes'; it has channels"),
        ((make_net, {"depth": 3}), r"make_net\(\) has no parameter 'depth'; it has classes, channels, width"),
    ],
)
def test_function_that_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Net(*arguments)


def test_function_that_returns_no_net_is_refused():
    with pytest.raises(InputError, match=r"no_net\(\) returns int; allowed is an nn\.Module"):
        Net(no_net).build(1, classes=3)


def test_plan_of_stored_runs_fills_the_store_with_them_alone(tmp_path):
    plan = Plan(small.PLAN.runs, small.PLAN.epochs, small.PLAN.runs[:1])
    _, step = TASK.list_preparations(tmp_path, plan)
    assert step.config["plan"]["runs"] == describe(small.PLAN.runs[:1])
