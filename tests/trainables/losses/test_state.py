"""A loss with parts of its own: they follow from the trial's seed, learn after the student, and survive a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from tests.trainables.small import TASK, job, metrics
from trainables.training import checkpoint


class Critic:
    """Tells the student's logits from the teacher's by one linear layer."""

    def __init__(self, classes: int):
        self.net = nn.Linear(classes, 1)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1, momentum=0.9)
        self.seen: list[float] = []

    def __call__(self, student, teacher, targets, progress):
        self.seen.append(float(self.net.weight.detach().sum()))
        self.net.requires_grad_(False)
        return (self.net(student.prediction) - 1).square().mean()

    def step(self, student, teacher, progress):
        self.net.requires_grad_(True)
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in self.net.parameters())
        real, fake = self.net(teacher.prediction.float()), self.net(student.prediction.detach())
        ((real - 1).square().mean() + fake.square().mean()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class Criticised:
    task_weight: float = 1.0
    needs_teacher: ClassVar[bool] = True
    begun: ClassVar[list[Critic]] = []

    def new_state(self, device: str) -> Critic:
        self.begun.append(Critic(10))
        return self.begun[-1]

    def __call__(self, student, teacher, targets, progress):
        raise AssertionError("what runs is what was begun")


def train(storage, folder, *, seed=7, recorded=0, epochs=3):
    # features of a live teacher are what such losses read
    live = TASK.with_live_teacher()
    return live.train(job(live, storage, folder, loss=Criticised(), seed=seed, recorded=recorded, epochs=epochs))


def test_parts_of_a_loss_learn_once_a_step_after_the_student(storage, tmp_path):
    list(train(storage, tmp_path, epochs=1))
    seen = Criticised.begun[-1].seen
    assert len(seen) == 3  # 80 samples in batches of 32
    assert len(set(seen)) == 3


def test_parts_of_a_loss_start_from_the_trials_seed(storage, tmp_path):
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        next(train(storage, tmp_path / name, seed=seed))
    one, again, other = (critic.seen for critic in Criticised.begun[-3:])
    assert one == again
    assert one[0] != other[0]


def test_trial_resumed_after_an_epoch_goes_on_with_the_parts_of_its_loss(storage, tmp_path):
    whole = metrics(list(train(storage, tmp_path / "whole")))
    rows = train(storage, tmp_path / "cut")
    head = [next(rows)]
    rows.close()
    assert checkpoint.load(tmp_path / "cut")["loss"]["optimizer"]["state"]
    assert metrics(head + list(train(storage, tmp_path / "cut", recorded=1))) == whole
