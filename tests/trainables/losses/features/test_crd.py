"""CRD against numpy, sample by sample, and its memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from study.errors import InputError
from tests.trainables.losses.feature_losses import START
from trainables.losses.common.sample_memory import UNSEEN, SampleMemory
from trainables.losses.features.crd import CRD, CRDState
from trainables.task import Outputs
from trainables.training.schedules import Progress

LOSS = CRD(4, 5, weight=2.0, temperature=0.5, negatives=7, dimensions=3, momentum=0.25, learning_rate=0.0)
ORDER = torch.tensor([[5, 2, 8], [0, 6, 3], [2, 8, 0]])
"""The samples of three batches; sample 1, 4 and 7 are never seen."""
CLASSES = torch.tensor([0, 1, 2, 1, 1, 0, 1, 2, 2])


def vectors(seed: int, channels: int) -> torch.Tensor:
    return torch.randn(3, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(features: torch.Tensor, samples: torch.Tensor | None = None) -> Outputs:
    return Outputs(torch.zeros(len(features), 3), {"last": features}, samples)


def exact(loss: CRD = LOSS) -> CRDState:
    """Return a state in float64."""
    torch.manual_seed(0)
    state = loss.new_state("cpu")
    state.heads.net.double()
    state.memory.vectors = state.memory.vectors.double()
    return state


def embed(state: CRDState, side: int, features: torch.Tensor) -> np.ndarray:
    head = state.heads.net[side]
    rows = features.numpy() @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference(state, memory: dict[int, list[np.ndarray]], batch, samples, seed: int) -> float:
    """The loss of a batch, given the memory by sample: [student's, teacher's]."""
    e = [embed(state, side, features) for side, features in enumerate(batch)]
    noise = 7 * math.exp(1 / (2 * 3 * 0.5**2))
    torch.manual_seed(seed)
    share = torch.rand(len(samples), 7).double().numpy() if memory else None
    total = 0.0
    for i, sample in enumerate(samples):
        label = int(CLASSES[sample])
        others = [s for s in sorted(memory, key=lambda s: (int(CLASSES[s]), s)) if CLASSES[s] != label]
        for side in (0, 1):
            own = memory[sample] if sample in memory else [e[0][i], e[1][i]]
            x = math.exp(e[side][i] @ own[1 - side] / 0.5)
            total -= math.log(x / (x + noise))
            for k in range(7 if others else 0):
                other = others[int(share[i, k] * len(others))]
                x = math.exp(e[side][i] @ memory[other][1 - side] / 0.5)
                total -= math.log(1 - x / (x + noise))
    return 2 * total / len(samples)


def test_loss_of_three_batches_equals_numpy():
    state, memory = exact(), {}
    for step, samples in enumerate(ORDER):
        batch = vectors(step, 4), vectors(10 + step, 5)
        expected = reference(state, memory, batch, samples.tolist(), seed=step)
        torch.manual_seed(step)
        student, teacher = outputs(batch[0].requires_grad_(), samples), outputs(batch[1])
        value = state(student, teacher, CLASSES[samples], START)
        assert value.item() == pytest.approx(expected, rel=1e-10)
        value.backward()
        state.step(student, teacher, START)
        new = [embed(state, side, features.detach()) for side, features in enumerate(batch)]
        for i, sample in enumerate(samples.tolist()):
            old = memory.get(sample, [new[0][i], new[1][i]])
            moved = [0.25 * a + 0.75 * b[i] for a, b in zip(old, new, strict=True)]
            memory[sample] = [each / np.linalg.norm(each) for each in moved]
    assert len(state.memory) == 9
    assert state.memory.classes.tolist() == [0, UNSEEN, 2, 1, UNSEEN, 0, 1, UNSEEN, 2]


def test_gradient_equals_finite_differences_and_leaves_the_teacher_alone():
    state = exact()
    samples = ORDER[0]
    state(outputs(vectors(0, 4), samples), outputs(vectors(1, 5)), CLASSES[samples], START)
    state.step(outputs(vectors(0, 4)), outputs(vectors(1, 5)), START)
    student, teacher = vectors(2, 4).requires_grad_(), vectors(3, 5).requires_grad_()

    def value(z):
        torch.manual_seed(0)
        return state(outputs(z, samples), outputs(teacher), CLASSES[samples], START)

    assert torch.autograd.gradcheck(value, student)
    value(student).backward()
    assert teacher.grad is None
    assert all(parameter.grad.abs().max() > 0 for parameter in state.heads.net.parameters())


def test_embeddings_of_a_sample_come_together_and_those_of_other_classes_do_not():
    loss = CRD(4, 5, temperature=0.2, negatives=16, dimensions=8, learning_rate=0.05)
    torch.manual_seed(0)
    state = loss.new_state("cpu")
    student, teacher = torch.randn(12, 4, requires_grad=True), torch.randn(12, 5)
    samples, classes = torch.arange(12), torch.arange(12) % 3
    optimizer = torch.optim.Adam([student], 0.05)
    for step in range(150):
        value = state(outputs(student, samples), outputs(teacher), classes, Progress(step // 75, 2))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        state.step(outputs(student), outputs(teacher), Progress(step // 75, 2))
    e_s, e_t = (embed(state, side, features.detach()) for side, features in enumerate((student, teacher)))
    similarity = torch.from_numpy(e_s @ e_t.T)
    other = similarity[classes[:, None] != classes]
    assert similarity.diagonal().mean() > 0.8
    assert other.mean() < 0.2


def test_drawn_samples_are_all_of_other_classes_and_equally_often():
    memory = SampleMemory(2, "cpu")
    classes = torch.tensor([2, 0, 1, 0, 2, 1, 1])
    memory.update(torch.arange(7) * 2, classes, torch.ones(2, 7, 2), 0.5, is_growing=True)
    torch.manual_seed(0)
    drawn, exist = memory.draw_others(torch.tensor([0, 1, 2, 3]), 7000)
    assert exist.all()
    for label, row in enumerate(drawn):
        found, counts = row.unique(return_counts=True)
        expected = [2 * i for i, each in enumerate(classes.tolist()) if each != label]
        assert found.tolist() == expected
        assert counts.min() > 0.85 * 7000 / len(expected)


def test_memory_of_one_class_has_nothing_to_draw():
    memory = SampleMemory(2, "cpu")
    memory.update(torch.tensor([1]), torch.tensor([4]), torch.ones(2, 1, 2), 0.5, is_growing=True)
    assert not memory.draw_others(torch.tensor([4]), 3)[1].any()
    state = exact()
    batch = outputs(vectors(0, 4)[:1], torch.tensor([1])), outputs(vectors(1, 5)[:1])
    for _ in range(2):
        assert state(*batch, torch.tensor([4]), START).isfinite()
        state.step(*batch, START)


def test_noise_is_what_the_authors_estimate_from_a_memory_of_noise():
    generator = torch.Generator().manual_seed(0)
    bound = 1 / math.sqrt(128 / 3)
    noise = (2 * torch.rand(20_000, 128, generator=generator, dtype=torch.float64) - 1) * bound
    anchor = torch.nn.functional.normalize(torch.randn(128, generator=generator, dtype=torch.float64), dim=0)
    estimated = ((noise @ anchor) / 0.07).exp().mean()
    assert math.exp(1 / (2 * 128 * 0.07**2)) == pytest.approx(estimated.item(), rel=0.05)


def test_outputs_without_samples_are_refused():
    with pytest.raises(InputError, match="memory by sample"):
        exact()(outputs(vectors(0, 4)), outputs(vectors(1, 5)), CLASSES[:3], START)
