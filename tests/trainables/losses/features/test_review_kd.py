"""ReviewKD against numpy: the fusion from the last tap to the first, and the loss at several levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from trainables.losses.features.review_kd import ReviewKD, context_loss
from trainables.task import Outputs
from trainables.training.schedules import Progress

LOSS = ReviewKD((2, 3, 4), (3, 4, 5), inner_channels=6, weight=2.0, warmup=0.5)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(*features: torch.Tensor) -> Outputs:
    by_name = {f"layer{number}": each for number, each in enumerate(features)}
    return Outputs(torch.zeros(len(features[0]), 2), by_name | {"last": features[-1]})


def sides() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    student = [maps(3, 2, 8, 8), maps(3, 3, 4, 4, seed=1), maps(3, 4, seed=2)]  # the last one is pooled
    teacher = [maps(3, 3, 16, 16, seed=3), maps(3, 4, 4, 4, seed=4), maps(3, 5, seed=5)]
    return student, teacher


def exact(loss: ReviewKD = LOSS):
    torch.manual_seed(0)
    state = loss.new_state("cpu")
    state.fusions.net.double()
    return state


def conv(layer: torch.nn.Conv2d, x: np.ndarray) -> np.ndarray:
    weight, pad = layer.weight.detach().numpy(), layer.padding[0]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.array([[correlate(image, kernel, "valid", "direct")[0] for kernel in weight] for image in padded])
    return out if layer.bias is None else out + layer.bias.detach().numpy()[:, None, None]


def norm(x: np.ndarray) -> np.ndarray:
    mean, var = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    return (x - mean) / np.sqrt(var + 1e-5)


def nearest(x: np.ndarray, side: int) -> np.ndarray:
    places = [i * x.shape[2] // side for i in range(side)]
    return x[:, :, places][:, :, :, places]


def pooled(x: np.ndarray, side: int) -> np.ndarray:
    n = x.shape[2] // side
    return x.reshape(*x.shape[:2], side, n, side, n).mean(axis=(3, 5))


def hierarchical(a: np.ndarray, b: np.ndarray) -> float:
    values, weights = [((a - b) ** 2).mean()], [1.0]
    for side in (4, 2, 1):
        if side < a.shape[2]:
            values.append(((pooled(a, side) - pooled(b, side)) ** 2).mean())
            weights.append(weights[-1] / 2)
    return float(np.average(values, weights=weights))


def reference(state, student, teacher) -> float:
    total, deeper = 0.0, None
    for fusion, f_s, f_t in reversed(list(zip(state.fusions.net, student, teacher, strict=True))):
        f_s, f_t = (f.numpy().reshape(*f.shape, *[1] * (4 - f.dim())) for f in (f_s, f_t))
        x = norm(conv(fusion.project[0], f_s))
        if deeper is not None:
            deeper = nearest(deeper, x.shape[2])
            a = 1 / (1 + np.exp(-conv(fusion.attend, np.concatenate([x, deeper], axis=1))))
            x = x * a[:, :1] + deeper * a[:, 1:]
        deeper = nearest(x, f_t.shape[2])
        total += hierarchical(norm(conv(fusion.match[0], deeper)), f_t)
    return total


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.2), (3, 0.8), (9, 1.0)])
def test_loss_equals_numpy_over_taps_of_other_widths_and_sizes(epoch, factor):
    (student, teacher), state = sides(), exact()
    value = state(outputs(*student), outputs(*teacher), None, Progress(epoch, 10))
    assert value.item() == pytest.approx(2 * factor * reference(state, student, teacher), rel=1e-10)


def test_gradient_equals_finite_differences_and_reaches_every_tap():
    state, teacher = exact(), [maps(2, 3, 4, 4, seed=3), maps(2, 4, 2, 2, seed=4), maps(2, 5, 2, 2, seed=5)]
    student = [maps(2, 2, 4, 4), maps(2, 3, 2, 2, seed=1), maps(2, 4, 2, 2, seed=2)]
    for each in (*student, *teacher):
        each.requires_grad_()

    def value(*taps):
        return state(outputs(*taps), outputs(*teacher), None, Progress(9, 10))

    assert torch.autograd.gradcheck(value, tuple(student), rtol=1e-3)
    value(*student).backward()
    assert all(each.grad.abs().max() > 0 for each in student)
    assert all(each.grad is None for each in teacher)
    assert all(parameter.grad is not None for parameter in state.fusions.net.parameters())


def test_equal_maps_have_no_loss_and_small_maps_fewer_levels():
    x, y = maps(2, 3, 8, 8), maps(2, 3, 8, 8, seed=1)
    assert context_loss(x, x) == 0
    assert context_loss(x, y).item() == pytest.approx(hierarchical(x.numpy(), y.numpy()), rel=1e-12)
    dot, other = maps(2, 3, 1, 1), maps(2, 3, 1, 1, seed=1)
    assert context_loss(dot, other).item() == pytest.approx(((dot - other) ** 2).mean().item(), rel=1e-12)


def test_one_sample_of_a_pooled_tap_has_a_loss():
    state = exact(ReviewKD((2, 4), (3, 5), inner_channels=6))
    student, teacher = [maps(1, 2, 4, 4), maps(1, 4, 1, 1)], [maps(1, 3, 4, 4), maps(1, 5, 1, 1)]
    value = state(outputs(*student), outputs(*teacher), None, Progress(1, 10))
    assert value.isfinite()


def test_fusion_learns():
    (student, teacher), state = sides(), exact(ReviewKD((2, 3, 4), (3, 4, 5), inner_channels=6, learning_rate=0.1))
    values = []
    for step in range(30):
        value = state(outputs(*student), outputs(*teacher), None, Progress(step, 30))
        value.backward()
        state.step(outputs(*student), outputs(*teacher), Progress(step, 30))
        values.append(value.item())
    assert values[-1] < 0.9 * values[3]
