"""Losses of super-resolution: against numpy, what each step moves, and training that goes on after a stop."""

from __future__ import annotations

import copy
import io
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize

from study.errors import InputError
from study.identity import describe
from study.space.domains import choice, resolve_corners, uniform
from trainables.losses.adversarial_features import AdversarialFeatures, PatchDiscriminator
from trainables.losses.common.feature_maps import Adapter
from trainables.losses.common.pixel import NORMS, check_norm, pixel_error
from trainables.losses.feature_matching import FeatureMatching
from trainables.losses.state import StatefulLoss, make_loss_state
from trainables.models.backbones import vgg19
from trainables.models.backbones.vgg19 import AFTER_RELU, Vgg19
from trainables.task import Outputs, count_parameters
from trainables.tasks.face_sr.perceptual import perceptual_error
from trainables.tasks.preflight import check_loss
from trainables.training.schedules import Progress, Staircase, evaluate_schedules

START = Progress(0, 10)
SMALL = PatchDiscriminator(in_channels=3, width=4, layers=2)
ADVERSARIAL = AdversarialFeatures(discriminator=SMALL)
NORMED = AdversarialFeatures(discriminator=replace(SMALL, spectral_norm=True))
ADAPTED = AdversarialFeatures(discriminator=SMALL, adapter=Adapter(2, 3))
MATCHING = FeatureMatching(adapter=Adapter(2, 3))
EVERY = {"adversarial": ADVERSARIAL, "normed": NORMED, "adapted": ADAPTED, "matching": MATCHING}
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)


def outputs(features: torch.Tensor) -> Outputs:
    return Outputs(torch.zeros(len(features), 3, 8, 8), {"last": features})


def maps(channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, channels, 8, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def running(loss, seed: int = 0):
    torch.manual_seed(seed)
    return loss.new_state("cpu")


def exact(loss):
    """Running in float64."""
    made = running(loss)
    made.discriminator.double()
    return made


def student_channels(loss) -> int:
    return 2 if loss.adapter else 3


# -- pixels


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_error_equals_numpy(norm):
    image, target = torch.rand(2, 4, 3, 5, 6, dtype=torch.float64)
    a, b = image.numpy(), target.numpy()
    expected = {
        "mse": ((a - b) ** 2).mean(),
        "l1": np.abs(a - b).mean(),
        "l2norm": np.mean([np.linalg.norm((x - y).ravel()) for x, y in zip(a, b, strict=True)]),
    }[norm]
    assert pixel_error(norm, image, target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_error_of_steps_is_the_mean_over_them(norm):
    steps, target = torch.rand(2, 4, 3, 5, 6), torch.rand(2, 3, 5, 6)
    each = [pixel_error(norm, steps[:, step], target) for step in range(4)]
    torch.testing.assert_close(pixel_error(norm, steps, target[:, None]), torch.stack(each).mean())


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_error_of_equal_images_is_zero_and_its_gradient_finite(norm):
    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    value = pixel_error(norm, image, image.detach())
    value.backward()
    assert value == 0
    assert torch.isfinite(image.grad).all()


def test_unknown_norm_is_refused():
    with pytest.raises(InputError, match="pixel_norm is 'l2'; allowed are 'mse', 'l2norm', 'l1'"):
        check_norm("pixel_norm", "l2")
    check_norm("pixel_norm", choice("mse", "l1"))


def test_half_precision_images_are_compared_in_single():
    image, target = torch.rand(2, 2, 3, 8, 8).bfloat16()
    assert pixel_error("mse", image, target).dtype == torch.float32


# -- perceptual


@pytest.fixture(scope="module")
def vgg() -> tuple[Vgg19, nn.Sequential]:
    """Ours and torchvision's, of the same random weights, in float64."""
    torch.manual_seed(0)
    theirs = make_layers(cfgs["E"]).double()
    ours = Vgg19(tuple(AFTER_RELU.values())).double()
    ours.load_state_dict({f"features.{name}": tensor for name, tensor in theirs.state_dict().items()})
    for name, values in (("mean", vgg19.IMAGENET_MEAN), ("std", vgg19.IMAGENET_STD)):  # which were rounded to float32
        getattr(ours, name).copy_(torch.tensor(values, dtype=torch.float64)[:, None, None])
    return ours, theirs


def test_perceptual_error_is_a_sum_over_layers_of_torchvisions_vgg(vgg):
    ours, theirs = vgg
    image, target = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
    expected = 0.0
    with torch.no_grad():
        for number in AFTER_RELU.values():
            layers = theirs[: number + 1]
            seen, wanted = (
                layers(normalize(x, vgg19.IMAGENET_MEAN, vgg19.IMAGENET_STD)).numpy() for x in (image, target)
            )
            expected += ((seen - wanted) ** 2).mean()
        value = perceptual_error(ours, image, target)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_perceptual_gradient_reaches_the_image_alone(vgg):
    image, target = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
    image.requires_grad_()
    target.requires_grad_()
    perceptual_error(vgg[0], image, target, "l2norm").backward()
    assert image.grad.abs().max() > 0
    assert target.grad is None
    assert all(parameter.grad is None for parameter in vgg[0].parameters())


# -- adversarial features


def reference_judgement(net: nn.Module, features: np.ndarray) -> np.ndarray:
    """The discriminator in numpy and scipy: convolutions by their definition, stride by taking every other place."""
    x = features
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        weight, bias = (tensor.detach().numpy() for tensor in (layer.weight, layer.bias))
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        convolved = [
            [
                correlate(image, kernel, mode="valid", method="direct")[0] + b
                for kernel, b in zip(weight, bias, strict=True)
            ]
            for image in padded
        ]
        x = np.array(convolved)
        if layer is not layers[-1]:
            x = x[:, :, ::2, ::2]
            x = np.where(x > 0, x, 0.2 * x)
    return x


@pytest.mark.parametrize("weight", [1e-3, Staircase(0.5, 2.0, stages=2)])
def test_adversarial_loss_equals_numpy(weight):
    made = exact(replace(ADVERSARIAL, weight=weight))
    student, progress = maps(), Progress(9, 10)
    judged = reference_judgement(made.discriminator, student.numpy())
    assert judged.shape == (2, 1, 2, 3)
    expected = (1e-3 if weight == 1e-3 else 2.0) * ((judged - 1) ** 2).mean()
    value = made(outputs(student), outputs(maps(seed=1)), None, progress)
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_discriminator_takes_one_step_of_adam_down_its_own_loss():
    made = exact(replace(ADVERSARIAL, learning_rate=Staircase(0.5, 0.01, stages=2)))
    student, teacher = maps(), maps(seed=1)
    twin = copy.deepcopy(made.discriminator)
    fake, real = (reference_judgement(twin, features.numpy()) for features in (student, teacher))
    loss = (twin(teacher) - 1).square().mean() + twin(student).square().mean()
    assert loss.item() == pytest.approx(((real - 1) ** 2).mean() + (fake**2).mean(), rel=1e-12)
    loss.backward()
    made.step(outputs(student), outputs(teacher), Progress(9, 10))
    for ours, theirs in zip(made.discriminator.parameters(), twin.parameters(), strict=True):
        # Kingma & Ba 2015, algorithm 1, first step: both moments are those of one gradient
        gradient = theirs.grad.numpy()
        expected = theirs.detach().numpy() - 0.01 * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_discriminator_learns_to_tell_teacher_from_student():
    made = running(replace(ADVERSARIAL, learning_rate=1e-2))
    student, teacher = maps(dtype=torch.float32), maps(seed=1, dtype=torch.float32) + 1
    for _ in range(60):
        made.step(outputs(student), outputs(teacher), START)
    with torch.no_grad():
        assert made.discriminator(teacher).mean() > 0.8
        assert made.discriminator(student).mean() < 0.2


@every_loss
def test_student_and_loss_learn_apart(loss):
    made = running(loss)
    parts = [made.discriminator] if hasattr(made, "discriminator") else []
    student, teacher = maps(student_channels(loss), dtype=torch.float32), maps(seed=1, dtype=torch.float32)
    student.requires_grad_()
    teacher.requires_grad_()
    before = copy.deepcopy(made.state_dict())
    made(outputs(student), outputs(teacher), None, START).backward()
    assert student.grad.abs().max() > 0
    assert all(parameter.grad is None for part in parts for parameter in part.parameters())
    assert same(before, made.state_dict())
    gradient = student.grad.clone()
    made.step(outputs(student), outputs(teacher), START)
    assert torch.equal(student.grad, gradient)
    assert teacher.grad is None
    assert not same(before, made.state_dict())
    if loss.adapter:
        assert not same(before["adapter"]["conv"], made.state_dict()["adapter"]["conv"])
        assert all(parameter.grad is None for parameter in made.adapter.conv.parameters())


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def trained(loss, made, student: nn.Module, steps: range) -> list[float]:
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    values = []
    for step in steps:
        told = outputs(student(maps(4, seed=step, dtype=torch.float32)))
        taught = outputs(maps(seed=100 + step, dtype=torch.float32))
        value = made(told, taught, None, Progress(step, 10))
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
    assert isinstance(loss, StatefulLoss)
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


def test_spectral_norm_bounds_every_convolution():
    made = running(NORMED)
    for step in range(30):
        made.step(outputs(maps(seed=step).float()), outputs(maps(seed=-step - 1 + 1000).float()), START)
    for layer in made.discriminator.eval():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.05)


def test_published_discriminator_halves_four_times():
    with torch.device("meta"):
        net = PatchDiscriminator().build()
        assert net(torch.empty(1, 64, 256, 256)).shape == (1, 1, 16, 16)
        # 16·64·64 + 64, and so on by doubled widths; 512·9 + 1
        assert count_parameters(net) == 65_600 + 131_200 + 524_544 + 2_097_664 + 4_609


# -- feature matching


@pytest.mark.parametrize("norm", NORMS)
def test_feature_matching_equals_numpy(norm):
    student, teacher = maps(), maps(seed=1)
    a, b = student.numpy(), teacher.numpy()
    expected = {
        "mse": ((a - b) ** 2).mean(),
        "l1": np.abs(a - b).mean(),
        "l2norm": np.linalg.norm((a - b).reshape(2, -1), axis=1).mean(),
    }[norm]
    value = FeatureMatching(weight=0.3, norm=norm)(outputs(student), outputs(teacher), None, START)
    assert value.item() == pytest.approx(0.3 * expected, rel=1e-12)


def test_adapter_makes_features_of_another_width_fit():
    made = running(FeatureMatching(norm="mse", adapter=Adapter(2, 3, learning_rate=0.05)))
    student = maps(2, dtype=torch.float32)
    teacher = torch.einsum("oc,bchw->bohw", torch.tensor([[1.0, 2], [0.5, 0], [-1, 1]]), student) + 1
    for _ in range(300):
        value = made(outputs(student), outputs(teacher), None, START)
        value.backward()
        made.step(outputs(student), outputs(teacher), START)
    assert value < 1e-3


# -- what is refused


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
