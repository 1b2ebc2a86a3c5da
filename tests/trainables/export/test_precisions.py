"""Graphs in lower precision: what they score, cost and contain."""

from __future__ import annotations

import json

import pytest
import torch

from study.identity import describe
from tests.trainables import small, small_crowds
from trainables.distill import distill
from trainables.export.onnx import export_student
from trainables.export.restore import TrainedTrial
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.task import NO_TEACHER

pytest.importorskip("onnxruntime")

STUDENT = ResNet(8, width=4)


def config_of(task, student):
    return {
        "task": describe(task), "student": describe(student), "inputs": {"data": task.data.load().fingerprint},
    }  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student after twelve epochs, in all precisions; with the folder and the test accuracy of its training."""
    folder, loss = tmp_path_factory.mktemp("precisions"), NoDistillation()
    job = small.job(small.TASK, folder, folder / "c", phase="confirm", epochs=12, loss=loss, train_on="train+val")
    rows = list(distill(small.TASK, job, lambda: small.TASK.build(STUDENT), small.RECIPE, loss, NO_TEACHER))
    trained = TrainedTrial(json.loads(json.dumps(config_of(small.TASK, STUDENT))), folder / "c", {})
    result = export_student(trained, None, folder / "out", {"study": "x"}, ("fp16", "int8"))
    return result, folder / "out", rows[-1]["metrics"]["test/accuracy"]


def test_scores_are_those_of_the_training_or_close_to_them(exported):
    result, _, accuracy = exported
    scores = {precision: graph.scores["test/accuracy"] for precision, graph in result.graphs.items()}
    assert accuracy > 0.2
    assert scores["float32"] == pytest.approx(accuracy, abs=0.003)
    assert scores["fp16"] == pytest.approx(accuracy, abs=0.005)
    assert scores["int8"] == pytest.approx(accuracy, abs=0.05)


def test_graphs_have_numbers_of_their_precision_and_the_same_metadata(exported):
    import onnx

    result, out, _ = exported
    models = {name: onnx.load(out / f"{name}.onnx") for name in ("model", "model.fp16", "model.int8")}
    kinds = {
        name: {initializer.data_type for initializer in model.graph.initializer if len(initializer.dims) > 1}
        for name, model in models.items()
    }
    types = onnx.TensorProto
    assert types.FLOAT in kinds["model"]
    assert types.FLOAT16 in kinds["model.fp16"]
    assert types.FLOAT not in kinds["model.fp16"]
    assert types.INT8 in kinds["model.int8"]
    abouts = [{entry.key: entry.value for entry in model.metadata_props} for model in models.values()]
    assert abouts[0]["study"] == "x"
    for about in abouts[1:]:
        assert about.items() >= abouts[0].items()
    assert {name for name in result.sha256 if name.endswith(".onnx")} == {f"{name}.onnx" for name in models}
    assert result.graphs["float32"].size == (out / "model.onnx").stat().st_size


def test_calibration_reads_no_test_image(monkeypatch, exported):
    from trainables.export import precisions

    seen = []
    examples = type(small.TASK).examples
    monkeypatch.setattr(
        type(small.TASK), "examples", lambda task, split, device: (seen.append(split), examples(task, split, device))[1]
    )
    graph = (exported[1] / "model.onnx").read_bytes()
    precisions.convert_graph(graph, "int8", small.TASK)
    assert set(seen) == {"train"}


def test_calibration_images_are_spread_over_the_split():
    from trainables.export.precisions import _iterate_batches

    samples = torch.cat([batch.samples for batch in _iterate_batches(small.TASK, "test", 128, 10)])
    size = len(small.TASK.examples("test", "cpu"))
    assert len(samples) == len(samples.unique()) == 128
    assert samples.max() > 0.98 * size
    whole = torch.cat([batch.samples for batch in _iterate_batches(small.TASK, "test", size, 64)])
    assert torch.equal(whole, torch.arange(size))


@pytest.mark.slow
def test_net_for_images_of_any_size_is_quantised(tmp_path):
    torch.manual_seed(0)
    loss = NoDistillation()
    job = small_crowds.job(small_crowds.TASK, tmp_path, tmp_path / "c", phase="confirm", epochs=1, loss=loss)
    list(small_crowds.TASK.train(job))
    trained = TrainedTrial(config_of(small_crowds.TASK, small_crowds.STUDENT), tmp_path / "c", {})
    result = export_student(trained, None, tmp_path / "out", {}, ("int8",))
    scores = {precision: graph.scores["test/mae"] for precision, graph in result.graphs.items()}
    assert scores["int8"] == pytest.approx(scores["float32"], rel=0.2)
