"""Allocation of nodes against brute force, and how many trials share one GPU, from measured epochs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from study.cli import doctor
from study.cli.run import main
from study.cluster import gpu_profiling
from study.cluster.allocation import GPU_RESOLUTION, Node, allocate
from study.cluster.gpu_packing import GIB, MAX_TRIALS_PER_GPU, MIN_GAIN, MemoryNeed, find_packing, packing_lines
from study.cluster.gpu_profiling import Profiler, Workload, measure_gpu_share, measure_packing
from study.errors import InputError
from study.execution.worker import Worker
from study.execution.worker_context import WorkerContext
from study.space.configuration import Configuration
from study.space.domains import resolve_corners
from study.study import Study
from study.task import TrialProfile
from tests.study import toy
from tests.study.cli.studies import called
from trainables.tasks.simulated import Fault, SimulatedLoss

NODES = st.lists(st.builds(Node, st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=3)
SHARES = st.sampled_from([0.0, 0.0001, 0.25, 0.3, 0.34, 1 / 3, 0.16667, 0.5, 0.51, 0.7, 1.0])


def brute_force(nodes: list[Node], parts_each: int) -> int:
    """The most workers that can stand anywhere at once: each on a node with a CPU left, and on GPUs of that node alone.

    Tries every order of places.
    """
    best = 0

    def place(left: list[tuple[int, tuple[int, ...]]], placed: int) -> None:
        nonlocal best
        best = max(best, placed)
        for number, (cpus, gpus) in enumerate(left):
            if not cpus:
                continue
            for taken in {tuple(sorted(rest)) for rest in _taken(gpus, parts_each)}:
                place([*left[:number], (cpus - 1, taken), *left[number + 1 :]], placed + 1)
                return  # workers are all alike: which of them stands here does not matter

    for order in (nodes, nodes[::-1]):
        place([(node.cpus, (GPU_RESOLUTION,) * node.gpus) for node in order], 0)
    return best


def _taken(gpus: tuple[int, ...], parts: int) -> list[list[int]]:
    """What may be left of a node's GPUs when a worker has taken so many parts."""
    if parts == 0:
        return [list(gpus)]
    having = [number for number, has in enumerate(gpus) if has >= parts]
    return [[has - parts * (n == number) for n, has in enumerate(gpus)] for number in having]


@settings(deadline=None)
@given(NODES, SHARES, st.integers(1, 3))
def test_allocation_runs_as_many_trials_as_brute_force_places(nodes: list[Node], share: float, workers: int) -> None:
    fitting = brute_force(nodes, int(share * GPU_RESOLUTION)) // workers
    if fitting:
        assert allocate(nodes, share, None, workers).concurrent == fitting
    else:
        with pytest.raises(InputError, match=r"there are .*; (lower|give)"):
            allocate(nodes, share, None, workers)


@pytest.mark.parametrize(
    ("share", "fitting"),
    # what Ray 2.60 placed on two GPUs: it cuts a share after its fourth digit
    [(0.3, 6), (1 / 3, 6), (0.16667, 12), (0.14286, 14)],
)
def test_shares_are_rounded_as_ray_rounds_them(share: float, fitting: int) -> None:
    assert allocate([Node(40, 2)], share, None).concurrent == fitting


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (1.5, "allowed is a share of one GPU"),
        (2.0, "a trial trains on several by --workers-per-trial"),
        (-0.5, "allowed is a share"),
        (float("nan"), "allowed is a share"),
        (0.00004, "smallest share .* 0.0001"),
    ],
)
def test_invalid_shares_are_refused(share: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        allocate([Node(16, 4)], share, None)


def test_refusal_counts_equal_nodes() -> None:
    with pytest.raises(InputError, match="on one node, there are 90 × 0 CPU and 1 GPU, 4 CPU and 0 GPU: no trial fits"):
        allocate([*[Node(0, 1)] * 90, Node(4, 0)], 1, None)


def test_a_cluster_without_cpus_gets_other_advice_than_to_lower_its_gpus() -> None:
    with pytest.raises(InputError, match="no trial fits; give the nodes CPUs"):
        allocate([Node(0, 0)], 0, None)


def test_share_of_a_gpu_reaches_the_trial_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.execution.worker.ray.get_gpu_ids", lambda: [0])
    worker = Worker(toy.toy(), WorkerContext(tmp_path, tmp_path), 0.25)
    run = toy.open_coordinator(toy.toy(), tmp_path).next_trial()
    assert run is not None
    worker.start_trial({"trial": json.dumps(asdict(run.trial)), "epochs_done": 0})
    context = worker._trial_context()
    assert (context.device, context.gpus) == ("cuda", 0.25)


@pytest.mark.parametrize(("option", "workers"), [((), "2"), (("--workers-per-trial", "3"), "3")])
def test_doctor_asks_for_room_for_all_workers(
    option: tuple[str, ...], workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(doctor, "run_python", lambda code, words, _: asked.append(words) or ("", "planted"))
    (tmp_path / "toy.py").write_text("from tests.study.toy import toy\nstudy = toy(workers_per_trial=2)\n")
    called("doctor", tmp_path / "toy.py", "--storage-path", tmp_path, "--gpus-per-worker", "0.5", *option)
    assert asked[-1] == ["", "0.5", workers]


@pytest.mark.parametrize(
    ("nodes", "share", "workers", "message"),
    [
        ([Node(16, 2)], 0.5, 1, "4 trials at once, each with 1 CPU and 0.5 GPU"),
        ([Node(2, 0)], None, 2, "1 trial at once, each with 2 workers of 1 CPU and 0 GPU"),
    ],
)
def test_resources_are_described_in_words(nodes: list[Node], share: float | None, workers: int, message: str) -> None:
    assert str(allocate(nodes, share, None, workers)) == message


# -- how many share a GPU ------------------------------------------------------------------------------------------


def timer(seconds: dict[int, float]) -> Callable[[int], float]:
    def time_epoch(count: int) -> float:
        if count not in seconds:
            raise MemoryError("planted")
        return seconds[count]

    return time_epoch


@settings(deadline=None)
@given(
    st.integers(1, 30 * GIB),
    st.integers(0, GIB),
    st.integers(1, 20),
    st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
)
def test_a_packing_fits_and_each_doubling_gained_enough(
    peak: int, overhead: int, processes: int, seconds: list[float]
) -> None:
    need = MemoryNeed(peak, overhead, 24 * GIB)
    tried: list[int] = []

    def time_epoch(copies: int) -> float:
        tried.append(copies)
        return seconds[copies.bit_length() - 1]

    found = find_packing(need, time_epoch, processes)
    assert tried == sorted(found.epoch_seconds) == [1, 2, 4, 8][: len(tried)]
    for copies in tried[1:]:
        assert copies * (1.1 * peak + overhead) <= 24 * GIB + copies  # bytes are rounded
        assert copies <= min(processes, MAX_TRIALS_PER_GPU)
    for copies in tried[:-1]:
        assert (
            copies == 1 or found.gain(copies // 2, copies) >= MIN_GAIN
        )  # nothing is tried after what gains too little
    assert found.trials_per_gpu in tried[-2:]
    assert found.share == 1 / found.trials_per_gpu


def test_every_step_of_the_arithmetic_is_printed() -> None:
    need = MemoryNeed(round(3.1 * GIB), 3 * GIB // 4, 80 * GIB)
    found = find_packing(need, timer({1: 41.0, 2: 43.0, 4: 50.0, 8: 96.0}), 16)
    assert packing_lines(found) == [
        "one trial takes 3.10 of 80.0 GiB and 41 s an epoch; with 10% to spare and 0.75 GiB for its process there is "
        "room for 19",
        "2 side by side: 43 s each, +91% training an hour against 1",
        "4 side by side: 50 s each, +72% training an hour against 2",
        "8 side by side: 96 s each, +4% training an hour against 4",
        "--gpus-per-worker 0.25",
    ]


@pytest.mark.parametrize(
    ("gib", "processes", "seconds", "why", "copies"),
    [
        (9.0, 16, {1: 1.0, 2: 1.0}, "there is room for 2", 2),
        (1.0, 3, {1: 1.0, 2: 1.0}, "each needs a CPU, and there are 3 for a GPU", 2),
        (1.0, 16, {1: 1.0, 2: 1.0}, "4 ran out of memory", 2),
        (1.0, 16, {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, "8 are enough", 8),
        (30.0, 16, {1: 1.0}, "there is room for 0", 1),
    ],
)
def test_the_limit_on_trials_is_explained(
    gib: float, processes: int, seconds: dict[int, float], why: str, copies: int
) -> None:
    found = find_packing(MemoryNeed(round(gib * GIB), 0, 24 * GIB), timer(seconds), processes)
    assert found.trials_per_gpu == copies
    assert packing_lines(found)[-2:] == [f"more are not tried: {why}", f"--gpus-per-worker {1 / copies:g}"]


# -- profiling -----------------------------------------------------------------------------------------------------


def test_a_failing_workload_is_reported_and_one_that_does_not_fit_ends_the_profiling() -> None:
    study = toy.toy()
    fails, full, works = (
        Configuration(SimulatedLoss(fault=fault), study.task.recipe, study.students[0])
        for fault in (Fault("exception"), Fault("memory"), None)
    )
    process = Profiler(study, "cpu")
    failed, fine, teacher = process.profile(
        [
            Workload("student", "plain", fails),
            Workload("student", "searched", works),
            Workload("", "teacher", None),
        ]
    )
    assert failed == "student / plain: ValueError: planted failure in epoch 1"
    assert isinstance(fine, TrialProfile)
    assert isinstance(teacher, TrialProfile)
    with pytest.raises(MemoryError):
        process.profile([Workload("student", "plain", full)])


def test_every_corner_of_a_search_space_is_profiled_and_a_fixed_loss_once() -> None:
    assert [len(list(resolve_corners(cell.space))) for cell in toy.toy().cells] == [1, 2]


def test_auto_means_no_gpu_on_a_machine_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.cluster.gpu_profiling.list_gpu_names", list)
    (tmp_path / "toy.py").write_text("from tests.study.toy import toy\nstudy = toy()\n")
    words = [
        str(tmp_path / "toy.py"),
        "--gpus-per-worker",
        "auto",
        "--dry-run",
        "--storage-path",
        str(tmp_path / "runs"),
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("--gpus-per-worker auto: there is no GPU here, trials run on CPUs: 0\n")
    assert "0 GPU hours" not in done.output


def test_auto_refuses_trials_of_several_workers() -> None:
    with pytest.raises(InputError, match="auto measures trials of one worker"):
        measure_gpu_share(toy.toy(workers_per_trial=2), Path(), toy, None, print)


def test_auto_neither_waits_for_a_gpu_still_to_be_added_nor_takes_cpus_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_profiling.connection, "connect", lambda address: None)
    monkeypatch.setattr(gpu_profiling.connection, "disconnect", lambda: None)
    monkeypatch.setattr(gpu_profiling.connection, "list_nodes", lambda: [Node(4, 0)])
    monkeypatch.setattr(gpu_profiling.connection, "list_pending_nodes", lambda: [Node(4, 1)])
    with pytest.raises(InputError, match="no machine with a GPU is up yet"):
        measure_gpu_share(toy.toy(), Path(), toy, "auto", print)
    monkeypatch.setattr(gpu_profiling.connection, "list_pending_nodes", lambda: [Node(4, 0)])
    assert measure_gpu_share(toy.toy(), Path(), toy, "auto", print) == 0.0


def test_help_lists_the_option_without_its_former_name() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert "--gpus-per-worker FLOAT|auto" in done.output
    assert "--gpus-per-trial" not in done.output


@pytest.mark.parametrize("option", ["--gpus-per-worker", "--gpus-per-trial"])
def test_a_share_is_a_number_or_auto_under_both_names(tmp_path: Path, option: str) -> None:
    done = CliRunner().invoke(main, [str(tmp_path), option, "all"])
    assert done.exit_code == 2
    assert "'all' is not a valid float" in done.output


@pytest.fixture
def ray_with_a_gpu() -> Iterator[None]:
    """A GPU that only Ray believes in; simulated trials do not use it."""
    gpu_profiling.ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    gpu_profiling.ray.shutdown()


def planned(fault: Fault | None) -> Study:
    arms = (toy.BASELINE, toy.Arm("other", SimulatedLoss(fault=fault)))
    return toy.toy(arms=arms, task=toy.Simulated(seconds_per_epoch=0.5))


@pytest.mark.slow
def test_profilers_run_concurrently_and_a_failing_arm_is_left_out(ray_with_a_gpu: None) -> None:
    lines: list[str] = []
    found = measure_packing(planned(Fault("exception")), True, toy, "cuda", Node(2, 1), lines.append)
    assert lines == ["not measured: student / other: ValueError: planted failure in epoch 1"]
    assert found.epoch_seconds == {1: 0.5, 2: 0.5}
    assert (found.need.peak_bytes, found.trials_per_gpu) == (4 * 2**20, 2)
    with pytest.raises(InputError, match=r"^--gpus-per-worker auto: planted failure in epoch 1$"):
        measure_packing(planned(Fault("memory")), False, toy, "cpu", Node(2, 0), lines.append)
