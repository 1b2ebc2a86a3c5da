"""Two workers in one training come to what one alone comes to. Real processes over gloo, started once for all tests."""

from __future__ import annotations

import dataclasses
import multiprocessing
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributed, nn

from study.trial import TrialContext
from tests.trainables import small_crowds
from tests.trainables.small import TASK, job, metrics
from trainables.evaluation import evaluate
from trainables.models.resnet_cifar import ResNet
from trainables.training import checkpoint
from trainables.training.distributed import SINGLE_PROCESS, DistributedGroup, ProcessGroup, join_group
from trainables.training.nets import build_seeded
from trainables.training.recipe import Recipe

WORKERS = 2

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])  # torch is imported once for all workers


@dataclass(frozen=True)
class NanInOne:
    """Not a number, in the second worker only."""

    task_weight: float = 1.0
    needs_teacher: ClassVar[bool] = False

    def __call__(self, student, teacher, targets, progress):
        return student.prediction.mean() * (float("nan") if distributed.get_rank() else 1.0)


# of its 80 samples, one batch has 79, of which one worker computes 40 and the other 39, and one has a single sample
UNEVEN = dataclasses.replace(TASK, recipe=Recipe(batch_size=79, learning_rate=0.05))


def uneven(storage: Path, folder: Path, **settings: Any) -> TrialContext:
    return job(UNEVEN, storage, folder, **settings)


def confirm(storage: Path, folder: Path) -> TrialContext:
    """With batch norm, validation kept apart, test read at the end."""
    return job(TASK, storage, folder, phase="confirm", train_on="train", epochs=2)


def scores(ranks: ProcessGroup = SINGLE_PROCESS) -> list[dict[str, float]]:
    """Of one net on val, which is a single batch, and on test, and of a net that counts."""
    classifier = build_seeded(lambda: TASK.build(ResNet(8, width=4)), 3)
    counter = build_seeded(lambda: small_crowds.TASK.build(small_crowds.STUDENT), 3)
    splits = [evaluate(TASK, classifier, split, "cpu", ranks) for split in ("val", "test")]
    return [*splits, evaluate(small_crowds.TASK, counter, "test", "cpu", ranks)]


def train_layers(group: ProcessGroup) -> dict[str, Tensor]:
    """The state of a float64 net with batch norms and dropouts after batches of which two have unequal shards."""

    def build() -> nn.Module:
        convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        plain = nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4, momentum=None, affine=False), nn.Dropout2d())
        untracked = nn.Sequential(nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5, track_running_stats=False))
        return nn.Sequential(convolution, plain, untracked).double()

    net = build_seeded(build, 5).train()
    net[0][1].register_forward_hook(lambda *_: hooks.append("called"))  # as of a tap
    hooks: list[str] = []
    net = group.prepare_model(net)
    torch.manual_seed(7)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    generator = torch.Generator().manual_seed(6)
    for size in (7, 4, 3):
        images = 100 + 3 * torch.randn(size, 3, 10, 10, dtype=torch.float64, generator=generator)
        shard = group.shard_batch(torch.arange(size))
        optimizer.zero_grad()
        (shard.weight * net(images[shard.samples]).sigmoid().square().sum(1).mean()).backward()
        group.all_reduce_gradients(net)
        optimizer.step()
    assert len(hooks) == 3
    return net.state_dict()


@pytest.fixture(scope="module")
def told(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of two workers' checkpoints, and what each of them saw."""
    folder = tmp_path_factory.mktemp("workers")
    address = free_address()
    with ProcessPoolExecutor(WORKERS, PROCESSES) as pool:
        workers = [pool.submit(a_worker, rank, storage, folder, address) for rank in range(WORKERS)]
        return folder, [worker.result(timeout=300) for worker in workers]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def save_late(folder: Path, state: dict[str, Any], save: Any = checkpoint.save) -> None:
    """Write a checkpoint when the other worker has already begun to resume from it."""
    time.sleep(0.5)
    save(folder, state)


def a_worker(rank: int, storage: Path, folder: Path, address: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=WORKERS)

    def mine(made: TrialContext) -> TrialContext:
        return dataclasses.replace(made, rank=rank, workers=WORKERS)

    seen: dict[str, Any] = {"whole": metrics(list(UNEVEN.train(mine(uneven(storage, folder / "whole")))))}
    rows = UNEVEN.train(mine(uneven(storage, folder / "cut")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_late)
        head = [next(rows)]
    rows.close()
    tail = UNEVEN.train(mine(uneven(storage, folder / "cut", recorded=1)))
    seen["resumed"] = metrics(head + list(tail))
    seen["confirm"] = metrics(list(TASK.train(mine(confirm(storage, folder / "confirm")))))
    with join_group(mine(uneven(storage, folder))) as ranks:
        seen["scores"] = scores(ranks)
        seen["layers"] = {name: values.tolist() for name, values in train_layers(ranks).items()}
    try:
        list(TASK.train(mine(job(TASK, storage, folder / "nan", loss=NanInOne()))))
    except FloatingPointError as error:
        seen["nan"] = str(error)
    if rank == 0:  # as in a preparation: its meters must not wait for the second worker
        with join_group(uneven(storage, folder)) as ranks:
            seen["alone"] = scores(ranks)
    return seen


def test_two_workers_take_the_steps_of_one(storage, tmp_path, told):
    """The same batches, order, views and stored outputs; parts of unequal size count by their size."""
    folder, seen = told
    alone = metrics(list(UNEVEN.train(uneven(storage, tmp_path))))
    for rank in range(WORKERS):
        for row, expected in zip(seen[rank]["whole"], alone, strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
    one, two = (checkpoint.load(path) for path in (tmp_path, folder / "whole"))
    # after six steps float32 rounds by up to 5e-6, on some processors more than on others; a wrong share moves 1e-2
    for name, weights in one["net"].items():
        assert torch.allclose(weights, two["net"][name], rtol=1e-4, atol=2e-5), name


def test_all_workers_tell_the_same_metrics(told):
    (first, second) = told[1]
    assert {name: seen for name, seen in first.items() if name != "alone"} == second


def test_scores_of_two_workers_are_those_of_one(told):
    *accuracies, counts = told[1][0]["scores"]
    *expected, errors = scores()
    assert accuracies == expected
    assert counts == pytest.approx(errors, rel=1e-6)  # sums of numbers that are not whole, in another order


def test_two_workers_resumed_go_on_as_if_never_stopped(told):
    seen = told[1][0]
    assert seen["resumed"] == seen["whole"]


def test_batch_norms_and_dropouts_of_two_workers_are_those_of_one(told):
    alone = train_layers(SINGLE_PROCESS)
    assert alone.keys() == told[1][0]["layers"].keys()
    for name, values in told[1][0]["layers"].items():
        torch.testing.assert_close(torch.tensor(values, dtype=alone[name].dtype), alone[name], rtol=1e-12, atol=1e-12)


def test_best_epoch_test_scores_and_weights_are_of_one_net(told):
    folder, seen = told
    state = checkpoint.load(folder / "confirm")
    net = TASK.build(ResNet(8, width=4))
    for kept, name in (("net", "test/accuracy"), ("best_state", "test_at_best_val/accuracy")):
        net.load_state_dict(state[kept])
        assert evaluate(TASK, net, "test", "cpu")["test/accuracy"] == seen[0]["confirm"][-1][name]


def test_loss_that_is_not_finite_in_one_worker_fails_in_all(told):
    for seen in told[1]:
        assert seen["nan"] == "training loss is nan in epoch 1"


def test_training_by_one_of_two_workers_does_not_wait_for_the_other(told):
    assert told[1][0]["alone"] == scores()


def test_several_workers_without_a_process_group_are_refused(storage, tmp_path):
    alone = dataclasses.replace(uneven(storage, tmp_path), workers=WORKERS)
    with pytest.raises(RuntimeError, match=r"^a trial of 2 workers needs torch\.distributed"):
        next(UNEVEN.train(alone))


@pytest.mark.gpu
def test_two_workers_on_one_gpu_normalise_over_the_whole_batch(storage, tmp_path):
    """Gloo carries what they share, since NCCL wants a GPU for each; batch norm takes its statistics over both."""
    address = free_address()
    with ProcessPoolExecutor(WORKERS, PROCESSES) as pool:
        workers = [pool.submit(on_a_gpu, storage, tmp_path, rank, WORKERS, address) for rank in range(WORKERS)]
        (first, second) = [worker.result(timeout=300) for worker in workers]
    assert first == second
    for row, expected in zip(first, on_a_gpu(storage, tmp_path / "alone"), strict=True):
        assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-3)


def on_a_gpu(storage: Path, folder: Path, rank: int = 0, workers: int = 1, address: str = "") -> list[dict[str, float]]:
    """With batch norm."""
    if workers > 1:
        distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=workers)
    made = job(UNEVEN, storage, folder)
    mine = dataclasses.replace(made, device="cuda", rank=rank, workers=workers)
    return metrics(list(UNEVEN.train(mine)))


@given(batch=st.integers(1, 40), workers=st.integers(2, 9))
def test_parts_cover_a_batch_once_and_no_worker_is_idle(batch: int, workers: int) -> None:
    whole = torch.randperm(batch)
    parts = [DistributedGroup(rank, workers).shard_batch(whole) for rank in range(workers)]
    assert torch.equal(torch.cat([part.samples for part in parts if part.weight]), whole)
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert all(len(part.samples) for part in parts)
    means = [part.weight * float(part.samples.float().mean()) for part in parts]
    assert sum(means) == pytest.approx(float(whole.float().mean()), abs=1e-4)


def test_batches_may_be_cut_ahead_of_their_turn() -> None:
    """The net's layers compute the current shard while later batches are prefetched."""
    group = DistributedGroup(1, 2)
    current = group.shard_batch(torch.arange(8))
    assert group.cut_batch(torch.arange(3)).start == 2
    assert group.shard is current


@given(batches=st.integers(0, 20), workers=st.integers(2, 9))
def test_batches_to_evaluate_are_each_one_workers(batches: int, workers: int) -> None:
    split = torch.arange(3 * batches).split(3)[:batches]
    shared = [DistributedGroup(rank, workers).shard_batches(split) for rank in range(workers)]
    assert sorted(int(batch[0]) for turns in shared for batch in turns) == [3 * number for number in range(batches)]
