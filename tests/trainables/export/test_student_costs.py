"""Costs of real nets as a search asks for them."""

from __future__ import annotations

import onnx
import pytest

from study.errors import InputError
from study.task import COSTS, INT8_LATENCY, LATENCY, MACS, PARAMETERS
from tests.trainables import small
from tests.trainables.export.test_cost import macs_by_hand
from trainables.export import onnx as export
from trainables.export.student_costs import measure_student_costs
from trainables.models.resnet_cifar import ResNet

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
