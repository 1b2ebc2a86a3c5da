"""A trial's share of a GPU, and what a profile measures; on the CPU, where there is no GPU."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables import small, small_crowds
from tests.trainables.tasks.face_sr import test_task as test_face_sr
from tests.trainables.tasks.segmentation import test_face_parsing
from trainables.losses.none import NoDistillation
from trainables.task import count_parameters
from trainables.tasks import profiling
from trainables.tasks.profiling import (
    CONTEXT_BYTES,
    GIB,
    gpu_memory_share,
    limit_to_gpu_share,
    profile_trial,
    tensor_bytes,
)
from trainables.training.recipe import Recipe


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(GIB, 200 * GIB))
def test_shares_of_a_gpu_and_their_contexts_fit_together(count: int, there: int) -> None:
    each = tensor_bytes(1 / count, there)
    if count > 1 and each:
        assert count * (each + CONTEXT_BYTES) <= there
    assert 0 <= each <= there


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A GPU of 80 GiB that notes what torch is limited to."""
    noted: dict[str, float] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: noted.update(share=share, device=device)
    )
    return noted


def job(**changes: Any) -> Any:
    return dataclasses.replace(small.job(small.TASK, Path(), Path()), **{"device": "cuda", "gpus": 0.25} | changes)


@pytest.mark.parametrize(("share", "limit"), [(0.25, 19.25 / 80), (1.0, 1.0), (0.001, 0.0)])
def test_torch_is_limited_to_the_share_less_the_context(
    share: float, limit: float, pretended: dict[str, float]
) -> None:
    with gpu_memory_share(job(gpus=share)):
        pass
    assert pretended == {"share": pytest.approx(limit), "device": 0}


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.25, r"share of the GPU is 0.25, which leaves 19.2 of 80.0 GiB .* --gpus-per-worker 0.5, or let .* auto"),
        (0.7, r"--gpus-per-worker 1, or let"),
        (1.0, r"a GPU of 80.0 GiB is too small for this trial: .* --workers-per-trial 2"),
    ],
)
def test_too_large_a_trial_fails_by_its_share_and_the_way_out(
    share: float, said: str, pretended: dict[str, float]
) -> None:
    def rows() -> Iterator[Any]:
        yield "a row"
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    told = limit_to_gpu_share(job(gpus=share), rows())
    assert next(told) == "a row"
    with pytest.raises(MemoryError, match=said):
        next(told)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        ("CUDA error: out of memory", MemoryError),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", MemoryError),
        ("CUDA error: an illegal memory access was encountered", RuntimeError),
    ],
)
def test_full_gpu_is_no_other_error(error: str, becomes: type[Exception], pretended: dict[str, float]) -> None:
    with (
        pytest.raises(becomes, match=r"share of the GPU" if becomes is MemoryError else error),
        gpu_memory_share(job()),
    ):
        raise RuntimeError(error)


def test_gpu_that_torch_cannot_use_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        pytest.raises(RuntimeError, match=r"cannot use this node's GPU: .* --gpus-per-worker 0"),
        gpu_memory_share(job()),
    ):
        pass


@pytest.mark.parametrize("work", ["train", "prepare"])
def test_training_and_preparing_are_limited_to_the_share(work: str, pretended: dict[str, float]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 (there is no GPU, or nothing stored: only the limit matters)
        next(getattr(small.TASK, work)(job()))
    assert pretended["share"] == pytest.approx(19.25 / 80)


def test_nothing_is_limited_on_a_cpu(pretended: dict[str, float]) -> None:
    with gpu_memory_share(job(device="cpu")):
        pass
    assert not pretended


# -- profiling -----------------------------------------------------------------------------------------------------

TASKS = {
    "stored logits": (small.TASK, small.job),
    "live teacher": (small.TASK.with_live_teacher(), small.job),
    "stored maps": (small_crowds.TASK, small_crowds.job),
    "a dictionary that nobody has built": (test_face_sr.TASK, test_face_sr.job),
    "stored label maps": (test_face_parsing.TASK, test_face_parsing.job),
}


@pytest.mark.parametrize("kind", TASKS)
def test_profile_trains_as_many_batches_as_asked_with_an_untrained_teacher(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, make = TASKS[kind]
    seen: list[int] = []
    task_loss = type(task).task_loss
    monkeypatch.setattr(
        type(task), "task_loss", lambda self, outputs, batch: seen.append(1) or task_loss(self, outputs, batch)
    )
    profiled = task.profile(make(task, tmp_path, tmp_path), 2)
    assert len(seen) == 2 * 2
    assert profiled.epoch_batches == math.ceil(len(task.positions("train")) / task.recipe.batch_size)
    assert profiled.epoch_seconds > 0
    assert 0 < profiled.peak_bytes < profiled.device_bytes
    assert not list(tmp_path.iterdir())


def test_profile_without_a_student_trains_the_teacher_by_its_own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, int]] = []
    start = profiling.start_training

    def noted(task: Any, context: Any, group: Any, build: Any, recipe: Any, loss: Any) -> Any:
        trained.append((count_parameters(build()), recipe.batch_size))
        return start(task, context, group, build, recipe, loss)

    monkeypatch.setattr(profiling, "start_training", noted)
    own = dataclasses.replace(small.TASK.teacher, recipe=Recipe(batch_size=20))
    task = dataclasses.replace(small.TASK, teacher=own)
    made = dataclasses.replace(small.job(task, tmp_path, tmp_path, loss=None), student=None)
    assert task.profile(made, 1).epoch_batches == 80 / 20
    assert trained == [(count_parameters(task.build(own.model)), 20)]


def test_epoch_time_is_extrapolated_from_the_profiled_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 3 batches of 80 samples in 1 s, all 20 of validation in 4 s: 80/32 · 1 + 4."""
    times = iter([0.0, 9.0, 99.0, 100.0, 101.0, 105.0])
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(profiling, "train_epoch", lambda *_: {})
    monkeypatch.setattr(profiling, "_evaluate_share", lambda *_: 1.0)
    made = small.job(small.TASK, tmp_path, tmp_path, loss=NoDistillation())
    assert profile_trial(small.TASK, made, 1).epoch_seconds == 80 / 32 + 4


def test_stored_outputs_are_stood_in_for_at_their_full_size(tmp_path: Path) -> None:
    made = small.job(small.TASK, tmp_path, tmp_path)
    train = small.TASK.examples("train", "cpu")
    stands = profiling._make_dummy_teacher(small.TASK, made, train, small.LP)
    assert stands.outputs.shape == (len(train), 10)
    assert stands.outputs.nbytes == len(train) * small.TASK.stored_output_bytes


@pytest.mark.gpu
def test_a_trial_larger_than_its_share_fails_itself_and_leaves_its_neighbour_room() -> None:
    there = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(MemoryError, match=r"its share of the GPU is 0\.1,"), gpu_memory_share(job(gpus=0.1)):
        torch.empty(there // 5, dtype=torch.uint8, device="cuda")
    with gpu_memory_share(job(gpus=0.5)):
        assert torch.empty(there // 5, dtype=torch.uint8, device="cuda").is_cuda
    torch.cuda.set_per_process_memory_fraction(1.0)  # for the tests that come after
