"""MixUp and CutMix: what is drawn, the shares of images and labels, training with them, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from study.errors import InputError
from study.identity import describe
from study.task import Plan
from tests.trainables import small
from tests.trainables.small import metrics, prepared
from trainables.export.restore import instantiate
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.logits.ctkd import CTKD
from trainables.losses.logits.dist import DIST
from trainables.losses.logits.dkd import DKD
from trainables.losses.logits.kd import KD
from trainables.losses.logits.mlkd import MLKD
from trainables.losses.logits.nkd import NKD
from trainables.losses.logits.ttm import TTM
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.task import Batch, Outputs
from trainables.tasks.classification.metrics import Accuracy
from trainables.teacher.sources import open_teacher
from trainables.teacher.weights import LiveTeacher
from trainables.training.mixing import Mixed
from trainables.training.random_views import ResizedCrops
from trainables.training.schedules import Staircase
from trainables.training.views import CropFlip

PLAIN = CropFlip(padding=1, flip=False)
BOTH = Mixed(PLAIN, mixup=0.4, cutmix=1.0)
TASK = dataclasses.replace(small.TASK, views=BOTH)
MANY = torch.arange(4000)


def draw(views: Mixed, seed: int = 3, epoch: int = 0) -> torch.Tensor:
    return views.draw(seed, epoch, MANY)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_of_mixup_are_of_the_beta_distribution(alpha):
    views = Mixed(PLAIN, mixup=alpha)
    shares = views.compute_shares(draw(views), 2, 3)
    assert shares.shape == (4000, 2, 3)
    assert torch.equal(shares, shares[:, :1, :1].expand_as(shares))
    assert scipy.stats.kstest(shares[:, 0, 0].double().numpy(), scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_replaces_a_rectangle_whose_middle_is_anywhere():
    views, side = Mixed(PLAIN, cutmix=1.0), 32
    shares = views.compute_shares(draw(views), side, side)
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    cut = shares == 0
    rows, columns = cut.any(dim=2), cut.any(dim=1)
    assert torch.equal(cut, rows[:, :, None] & columns[:, None, :])
    # without the cut at the edges the mean share of Beta(1, 1) would be a half; with it less is replaced
    assert 0.5 < shares.mean() < 0.75
    whole = cut[rows[:, 1:-1].any(1)].float().mean(dim=0)
    assert whole[16, 16] > whole[0, 0] > 0


def test_half_of_the_images_are_mixed_by_each_where_both_are_asked_for():
    shares = BOTH.compute_shares(draw(BOTH), 8, 8)
    by_mixup = ((shares > 0) & (shares < 1)).any(dim=(1, 2))
    assert scipy.stats.binomtest(int(by_mixup.sum()), len(by_mixup)).pvalue > 1e-3


def test_draws_depend_on_seed_epoch_and_sample_and_on_nothing_else():
    codes = draw(BOTH)
    assert torch.equal(BOTH.draw(3, 0, MANY.flip(0)), codes.flip(0))
    assert len(codes.unique()) == len(codes)
    for other in (draw(BOTH, seed=4), draw(BOTH, epoch=1)):
        assert not (other == codes).any()
    assert 0 < codes.min() <= codes.max() < BOTH.count
    _, partners, _ = BOTH.draw_pairs(codes, 10)
    assert scipy.stats.chisquare(np.bincount(partners, minlength=10)).pvalue > 1e-3


def test_batches_mix_two_images_of_the_split_and_their_labels():
    train, codes = TASK.examples("train", "cpu"), BOTH.draw(1, 2, torch.arange(20))
    batch = train.batch(torch.arange(20), codes)
    own, partners, view = BOTH.draw_pairs(codes, len(train))
    plain = dataclasses.replace(TASK, views=PLAIN).examples("train", "cpu")
    one, two = plain.batch(torch.arange(20), own), plain.batch(partners, view)
    shares = BOTH.compute_shares(codes, 8, 8)[:, None]
    torch.testing.assert_close(batch.inputs, shares * one.inputs + (1 - shares) * two.inputs, atol=1e-5, rtol=1e-5)
    share = shares.mean(dim=(1, 2, 3))[:, None]
    expected = share * F.one_hot(one.targets, 10) + (1 - share) * F.one_hot(two.targets, 10)
    torch.testing.assert_close(batch.targets, expected)
    torch.testing.assert_close(batch.targets.sum(dim=1), torch.ones(20))


def test_image_does_not_depend_on_its_batch():
    train, codes = TASK.examples("train", "cpu"), BOTH.draw(1, 0, torch.arange(20))
    whole = train.batch(torch.arange(20), codes)
    part = train.batch(torch.tensor([7, 3]), codes[[7, 3]])
    assert torch.equal(part.inputs, whole.inputs[[7, 3]])
    assert torch.equal(part.targets, whole.targets[[7, 3]])


def test_view_zero_is_the_untouched_image():
    train, plain = TASK.examples("train", "cpu"), dataclasses.replace(TASK, views=PLAIN).examples("train", "cpu")
    first, zero = torch.arange(5), torch.zeros(5, dtype=torch.int64)
    batch, expected = train.batch(first, zero), plain.batch(first, zero)
    assert torch.equal(batch.inputs, expected.inputs)
    assert torch.equal(batch.targets, F.one_hot(expected.targets, 10).float())


def test_validation_and_test_are_not_mixed():
    for split in ("val", "test"):
        assert TASK.examples(split, "cpu").batch(torch.arange(2), torch.zeros(2, dtype=torch.int64)).targets.dim() == 1


@pytest.mark.parametrize("weights", [None, tuple(range(1, 11))])
def test_task_loss_of_a_mixed_label_is_the_mixture_of_both(weights):
    task = dataclasses.replace(TASK, class_weights=weights)
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(0))

    def loss(targets):
        return task.task_loss(Outputs(logits), Batch(torch.empty(0), targets, MANY[:1], MANY[:1]))

    soft = torch.zeros(1, 10)
    soft[0, 2], soft[0, 5] = 0.7, 0.3
    torch.testing.assert_close(loss(soft), 0.7 * loss(torch.tensor([2])) + 0.3 * loss(torch.tensor([5])))


def test_accuracy_on_mixed_images_is_of_the_larger_share():
    meter = Accuracy("cpu")
    targets = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    meter.update(Outputs(torch.tensor([[1.0, 0.0], [1.0, 0.0]])), Batch(torch.empty(0), targets, MANY, MANY))
    assert meter.compute() == {"accuracy": 0.5}


@pytest.mark.parametrize(
    "loss", [NoDistillation(), KD(), DIST(), MLKD(), TTM(), CTKD()], ids=lambda loss: type(loss).__name__
)
def test_losses_without_labels_train_on_mixed_images(loss, tmp_path):
    TASK.check((ResNet(8, width=4),), (loss,), tmp_path)
    assert [name for name, _ in prepared(TASK, tmp_path, Plan(((7, "train"),), epochs=2))] == ["teacher"]
    rows = metrics(list(TASK.train(small.job(TASK, tmp_path, tmp_path / "t", loss=loss, epochs=2))))
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_teacher_is_run_on_the_mixed_images_and_this_is_said(tmp_path):
    prepared(TASK, tmp_path, Plan(((7, "train"),), epochs=2))
    assert TASK.stored_output_bytes is None
    assert isinstance(open_teacher(TASK, small.job(TASK, tmp_path, tmp_path / "t", loss=KD())), LiveTeacher)
    note = TASK.check((ResNet(8, width=4),), (KD(),), tmp_path)["data"]["note"]
    assert "training images are mixed: the teacher is run at every step" in note


def test_kd_on_mixed_images_is_that_of_all_classes():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (Outputs(torch.randn(4, 10, generator=generator)) for _ in range(2))
    soft, hard = torch.full((4, 10), 0.1), torch.tensor([0, 3, 5, 9])
    values = [KD()(student, teacher, targets, small.LP) for targets in (soft, hard)]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("loss", [DKD(), NKD(), KD(pruning=0.2), KD(pruning=Staircase(0.0, 0.4, stages=3))])
def test_losses_that_read_labels_are_refused(loss, tmp_path):
    with pytest.raises(InputError, match=f"{type(loss).__name__} reads the class of each image, and a mixed image"):
        TASK.check((ResNet(8, width=4),), (loss,), tmp_path)


def test_own_loss_that_reads_labels_is_refused_when_it_is_tried(tmp_path):
    class Own(FeatureMatching):
        reads_features = False

        def __call__(self, student, teacher, targets, progress):
            return student.prediction.gather(1, targets[:, None]).mean()

    with pytest.raises(InputError, match="Own raises RuntimeError on outputs of the student"):
        TASK.check((ResNet(8, width=4),), (Own(),), tmp_path)


def test_description_rebuilds_the_views():
    views = Mixed(ResizedCrops(16), mixup=0.2)
    assert instantiate(describe(views), None) == views


@pytest.mark.parametrize(
    ("settings", "match"), [({}, "neither mixup nor cutmix is above 0"), ({"mixup": -1.0}, "mixup is -1")]
)
def test_settings_that_make_no_sense_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Mixed(PLAIN, **settings)
