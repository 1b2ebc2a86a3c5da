"""The base class of tasks: a subclass defines what is learned and how it is scored, the base class does all else.

It lies above distill.py, teacher/ and export/, which it calls; these import the class for type checking alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from study.errors import InputError
from study.space.domains import is_unresolved
from study.task import COSTS, SPLITS, Metric, Plan, Preparation, TrialProfile
from study.trial import EpochResult, Split, TrialContext
from trainables.distill import distill
from trainables.export.cost import measure_cost, measure_student_costs
from trainables.task import DistillationLoss, LoadedT, ModelSpec, count_parameters, name_metrics, without_pretrained
from trainables.tasks.definition import TaskDefinition
from trainables.tasks.preflight import check_task
from trainables.tasks.profiling import gpu_memory_share, limit_to_gpu_share, profile_trial
from trainables.teacher import preparation
from trainables.teacher.sources import open_teacher
from trainables.teacher.weights import read_record
from trainables.training.recipe import Recipe, set_precision
from trainables.training.schedules import Values


@dataclass(frozen=True)
class DistillationTask(TaskDefinition[LoadedT]):
    """A task whose students learn from targets and a teacher. Subclasses are frozen dataclasses.

    Write these eight members:

        scores                  the metrics that `meters` measures, the one that selects first
        prediction              what `Outputs.prediction` is, in one sentence
        build(model)            the net of a model's settings
        load_examples(split)    a split on a device
        positions(split)        the samples of a split
        task_loss               the loss that all arms share
        teacher_distance        how far a student is from the teacher
        meters(split)           a fresh accumulator of the scores

    Where the defaults do not fit, override `outputs` (a net returns more than its prediction), `sample_batch`, `panels`
    (pictures for the report), `output_bytes` (teacher outputs are worth storing), `train_scores`, `data_record`,
    `check_data`, `further_distances` with `measure_distances`, `evaluation_batch_sizes`. Add a field for each setting:
    all of them identify the teacher.
    tests/trainables/tasks/test_base.py holds a complete task.
    """

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric that a result may contain, by `split/name`."""
        return name_metrics(self.scores, self.train_scores, self.further_distances)

    def check(
        self,
        students: tuple[ModelSpec, ...],
        losses: tuple[DistillationLoss, ...],
        storage: Path,
        trained_on: tuple[Split, ...] = SPLITS,
        recipes: tuple[Recipe, ...] | None = None,
    ) -> dict[str, Any]:
        return check_task(self, students, losses, storage, trained_on, (self.recipe,) if recipes is None else recipes)

    def with_recipe(self, recipe: Recipe) -> Self:
        if not (isinstance(recipe, Recipe) or is_unresolved(recipe)):
            raise InputError(f"recipe is {recipe!r}; write Recipe(…)")
        return replace(self, recipe=recipe)

    def make_schedule(self, values: Sequence[float]) -> Values:
        return Values(*values)

    def with_shorter_preparations(self, share: float) -> Self:
        epochs = max(1, round(self.teacher.epochs * share))
        return replace(self, teacher=replace(self.teacher, epochs=epochs))

    def with_precision(self, precision: str) -> Self:
        return replace(self, recipe=set_precision(self.recipe, precision))

    def with_live_teacher(self) -> Self:
        return self if self.output_bytes is None else replace(self, teacher_store=False)

    def with_teacher_file(self, path: Path) -> Self:
        return replace(self, teacher=replace(self.teacher, weights=path))

    def list_artifacts(self) -> tuple[str, ...]:
        return preparation.artifact_folders(self)

    def is_intact(self, path: Path) -> bool:
        return preparation.is_intact(path)

    def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        return preparation.list_preparations(self, storage, plan)

    def prepare(self, context: TrialContext) -> Iterator[EpochResult]:
        return limit_to_gpu_share(context, preparation.run_preparation(self, context))

    def train(self, context: TrialContext) -> Iterator[EpochResult]:
        with gpu_memory_share(context):
            teacher = open_teacher(self, context)
            task = self.adapt_to(context.loss)
            student, recipe, loss = context.student, context.recipe, context.loss
            yield from distill(task, context, lambda: self.build(student), recipe, loss, teacher)

    def profile(self, context: TrialContext, batches: int) -> TrialProfile:
        return profile_trial(self, context, batches)

    def describe_models(self, students: Mapping[str, ModelSpec], storage: Path) -> dict[str, Any]:
        return {
            "teacher": read_record(storage, self.teacher_key),
            "students": {
                key: {"name": student.name, "parameters": count_parameters(self.build(student))}
                for key, student in students.items()
            },
        }

    @property
    def costs(self) -> Collection[str]:
        return tuple(COSTS)

    def measure_student(self, student: ModelSpec, names: Collection[str]) -> dict[str, float]:
        return measure_student_costs(self, self.build_for_checks(without_pretrained(student)), names)

    def measure_cost(self, student: ModelSpec | None, storage: Path) -> dict[str, Any]:
        if student is None and read_record(storage, self.teacher_key) is None:
            return {}
        model = self.teacher.model if student is None else student
        return measure_cost(self, self.build_for_checks(without_pretrained(model)))
