"""What every task with a teacher does alike: of the engine's protocol (study/trial.py), all that needs no data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from torch import nn

from study.task import Plan, Preparation, TrialProfile
from study.trial import EpochResult, TrialContext
from trainables.distill import distill
from trainables.export.cost import measure_cost
from trainables.task import TrainableTask, count_parameters, without_pretrained
from trainables.tasks import profiling as measuring
from trainables.tasks.profiling import gpu_memory_share, limit_to_gpu_share
from trainables.teacher import preparation as preparing
from trainables.teacher import sources
from trainables.teacher import weights as teachers
from trainables.training.recipe import Recipe


class TaughtTask(TrainableTask, Protocol):
    """What this file asks of a task: a frozen dataclass that the training loop can train."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def recipe(self) -> Recipe: ...

    def untrained(self, model: Any) -> nn.Module: ...


Task = TypeVar("Task", bound=TaughtTask)


class Taught:
    """A base class without fields: a task's description stays its own. `teacher_store` is a field of each task."""

    def with_shorter_preparations(self: Task, share: float) -> Task:
        epochs = max(1, round(self.teacher.epochs * share))
        return replace(self, teacher=replace(self.teacher, epochs=epochs))

    def with_precision(self: Task, precision: str) -> Task:
        return replace(self, recipe=replace(self.recipe, precision=precision))

    def with_live_teacher(self: Task) -> Task:
        return replace(self, teacher_store=False)

    def teacher_net(self: TaughtTask, job: TrialContext) -> nn.Module:
        """What the teacher's training starts from."""
        return self.build(self.teacher.model)

    def untrained(self: TaughtTask, model: Any) -> nn.Module:
        """A net whose weights do not matter, to be tried or measured."""
        return self.build(without_pretrained(model))

    def list_artifacts(self: TaughtTask) -> tuple[str, ...]:
        return preparing.artifact_folders(self)

    def is_intact(self, path: Path) -> bool:
        return preparing.is_intact(path)

    def list_preparations(self: TaughtTask, storage: Path, plan: Plan) -> list[Preparation]:
        return preparing.list_preparations(self, storage, plan)

    def prepare(self: TaughtTask, job: TrialContext) -> Iterator[EpochResult]:
        return limit_to_gpu_share(job, preparing.run_preparation(self, job))

    def train(self: TaughtTask, job: TrialContext) -> Iterator[EpochResult]:
        with gpu_memory_share(job):
            teacher = sources.open_teacher(self, job)
            yield from distill(self, job, lambda: self.build(job.student), self.recipe, job.loss, teacher)

    def profile(self: TaughtTask, job: TrialContext, batches: int) -> TrialProfile:
        return measuring.rehearse(self, job, batches, lambda: self.untrained(self.teacher.model))

    def describe_models(self: TaughtTask, students: tuple[Any, ...], storage: Path) -> dict[str, Any]:
        return {
            "teacher": teachers.read_record(storage, self.teacher_key),
            "students": {student.name: {"parameters": count_parameters(self.build(student))} for student in students},
        }

    def measure_cost(self: TaughtTask, student: Any, storage: Path) -> dict[str, Any]:
        if student is None and teachers.read_record(storage, self.teacher_key) is None:
            return {}
        return measure_cost(self, self.untrained(self.teacher.model if student is None else student))
