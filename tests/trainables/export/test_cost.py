"""What a net takes to run: counted by hand, timed by a clock that is wound by hand."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from study.engine.model_costs import add_model_costs
from study.errors import InputError
from study.task import COSTS, INT8_LATENCY, LATENCY, MACS, PARAMETERS
from tests.study import toy
from tests.trainables import small, small_crowds
from tests.trainables.tasks.face_sr import test_task as test_face_sr
from tests.trainables.tasks.segmentation import test_face_parsing
from trainables.export import cost as costing
from trainables.export import onnx as export
from trainables.export.cost import (
    MAX_RUNS,
    count_macs,
    measure_cost,
    measure_latency,
    measure_student_costs,
    single_thread,
)
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.simulated import Simulated, SimulatedStudent


def macs_by_hand() -> int:
    """ResNet-8 of width 4 on 8 × 8 grey images, layer by layer: output pixels · kernel · channels in · channels out."""
    stages = [(8, 4, 4, False), (4, 4, 8, True), (2, 8, 16, True)]
    total = 64 * 9 * 1 * 4 + 16 * 10
    for side, channels_in, channels, shortcut in stages:
        total += side**2 * 9 * (channels_in * channels + channels * channels)
        total += side**2 * channels_in * channels * shortcut
    return total


def test_cost_of_a_net_on_an_image_of_its_task() -> None:
    net = ResNet(8, width=4).build(1, 10)
    found = measure_cost(small.TASK, net)
    assert (found["macs"], found["input"]) == (macs_by_hand(), [1, 8, 8])
    assert found["parameters"] == sum(parameter.numel() for parameter in net.parameters())
    fastest, slowest = found["latency_range_seconds"]
    assert 0 < fastest <= found["latency_seconds"] <= slowest
    assert 1 <= found["latency_runs"] <= MAX_RUNS


@pytest.mark.parametrize(("height", "width"), [(224, 224), (32, 64)])
def test_macs_of_a_convolution_are_those_of_its_formula(height: int, width: int) -> None:
    """H·W·k²·c_in·c_out, halved by a stride of 2 in either direction."""
    net = nn.Conv2d(3, 16, 3, stride=2, padding=1)
    assert count_macs(lambda: net(torch.zeros(1, 3, height, width))) == height * width // 4 * 9 * 3 * 16


@pytest.mark.parametrize("task", [small_crowds, test_face_parsing, test_face_sr], ids=["crowds", "parsing", "sr"])
def test_students_of_every_task_have_a_cost_and_a_teacher_that_is_not_there_has_none(task, tmp_path: Path) -> None:
    assert task.TASK.measure_cost(task.STUDENT, tmp_path)["macs"] > 0
    assert task.TASK.measure_cost(None, tmp_path) == {}


def test_teacher_that_is_kept_has_a_cost(storage: Path) -> None:
    assert small.TASK.measure_cost(None, storage)["macs"] > small.TASK.measure_cost(ResNet(8, width=4), storage)["macs"]


def test_dictionary_of_a_teacher_is_counted_without_being_built() -> None:
    task = test_face_sr.TASK
    teacher = measure_cost(task, task.build_for_checks(task.teacher.model))
    assert teacher["macs"] > task.measure_cost(test_face_sr.STUDENT, Path())["macs"]


def test_measuring_leaves_the_number_of_threads_as_it_was() -> None:
    torch.set_num_threads(2)
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_latency_is_the_median_of_what_it_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(value for took in (3, 1, 2, 5, 100) for value in (0.0, float(took)))
    monkeypatch.setattr(costing.time, "perf_counter", lambda: next(times))
    calls: list[int] = []
    found = measure_latency(lambda: calls.append(1))
    assert (found.median_seconds, found.fastest_seconds, found.slowest_seconds, found.runs) == (3, 1, 100, 5)
    assert len(calls) == costing.WARM_UP + 5


@pytest.mark.parametrize(("once", "passes", "most_seconds"), [(1e-4, 100, 1), (0.02, 48, 1), (0.3, 32, 10),
                         (3.0, 2, 10), (4.9, 1, 10), (6.0, 0, 6), (30.0, 0, 30)])  # fmt: skip
def test_a_net_is_passed_as_often_as_its_time_allows(
    once: float, passes: int, most_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(costing.time, "perf_counter", lambda: clock[0])

    def run() -> None:
        clock[0] += once
        calls.append(once)

    found = costing._measure_one_of_many(run)
    assert found.median_seconds == pytest.approx(once)
    timed = len(calls) - 1
    assert timed == pytest.approx(passes, abs=1 if 1 < passes < 100 else 0)
    assert found.runs == max(1, timed)
    assert clock[0] <= most_seconds


def test_time_to_count_macs_is_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, now = [0.0], costing.time.perf_counter

    def count(run: object) -> int:
        ahead[0] += 20.0  # seconds in which a busy machine imports what counts
        return 7

    monkeypatch.setattr(costing, "count_macs", count)
    monkeypatch.setattr(costing.time, "perf_counter", lambda: now() + ahead[0])
    found = measure_cost(small.TASK, ResNet(8, width=4).build(1, 10))
    assert found["latency_runs"] > 1
    assert found["latency_seconds"] < 20.0


# -- as a search asks for them

STUDENT = ResNet(8, width=4)


def test_costs_are_those_that_are_asked_for() -> None:
    assert small.TASK.measure_student(STUDENT, ()) == {}
    found = small.TASK.measure_student(STUDENT, (PARAMETERS, MACS))
    assert found == {PARAMETERS: 5142, MACS: macs_by_hand()}


def test_int8_latency_is_that_of_the_int8_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph that is timed has weights of eight bits, and runs once before the passes that count."""
    graphs, passes, start = list[bytes](), list[int](), export.start_runtime

    def start_and_count(graph: bytes) -> object:
        graphs.append(graph)
        run = start(graph)
        return lambda images: (passes.append(len(images)), run(images))[1]

    monkeypatch.setattr(export, "start_runtime", start_and_count)
    found = small.TASK.measure_student(STUDENT, COSTS)
    assert found.keys() == COSTS.keys()
    assert min(found[LATENCY], found[INT8_LATENCY]) > 0
    (graph,) = graphs
    kinds = {tensor.data_type for tensor in onnx.load_from_string(graph).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert set(passes) == {1}
    assert len(passes) > 2


def test_package_that_int8_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "REQUIRED_PACKAGES", ("onnx", "absent_package"))
    with pytest.raises(InputError, match=r"student/int8_latency_ms needs absent_package: pip install -e '.\[export\]'"):
        measure_student_costs(small.TASK, small.TASK.build(STUDENT), (INT8_LATENCY,))


# -- in a study's record -------------------------------------------------------------------------------------------


class Nets(Simulated):
    """A task of which one student's net cannot be measured."""

    def measure_cost(self, student: SimulatedStudent | None, storage: Path) -> dict[str, int]:
        if student is not None and student.name == "broken":
            raise RuntimeError("no such kernel\nmore")
        return {"macs": 7}


def test_cost_that_cannot_be_measured_is_told_and_left_out(tmp_path: Path) -> None:
    students = (SimulatedStudent("fine"), SimulatedStudent("broken"))
    said: list[str] = []
    summary = {"teacher": {"name": "t"}, "students": {"fine": {"parameters": 1}, "broken": {"parameters": 2}}}
    study = toy.toy(task=Nets(), students=students)
    found = add_model_costs(study, {each.name: each for each in students}, summary, tmp_path, said.append)
    assert said == ["MACs and latency of broken are not measured: RuntimeError: no such kernel"]
    assert found["students"]["broken"] == {"parameters": 2}
    assert found["students"]["fine"].items() > {"parameters": 1, "macs": 7}.items()
    assert found["teacher"].items() > {"name": "t", "macs": 7}.items()
    assert summary["teacher"] == {"name": "t"}


def test_docs_name_everything_that_is_recorded(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "records.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text.split("\n## The cost of a net\n")[1].split("\n## ")[0], flags=re.M)
    summary = {"teacher": None, "students": {"resnet8w4": {"parameters": 1}}}
    study = toy.toy(
        task=small.TASK, students=(ResNet(8, width=4),), arms=(toy.Arm("n", NoDistillation(), baseline=True),)
    )
    students = {"resnet8w4": study.students[0]}
    recorded = add_model_costs(study, students, summary, tmp_path, print)["students"]["resnet8w4"]
    assert ["parameters", *named] == list(recorded)


def test_study_without_nets_has_no_costs(tmp_path: Path) -> None:
    study, summary = toy.toy(), {"teacher": None, "students": {}}
    assert add_model_costs(study, {"student": study.students[0]}, summary, tmp_path, print) == summary
