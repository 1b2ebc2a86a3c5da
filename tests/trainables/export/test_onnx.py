from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from study.errors import InputError
from study.identity import describe
from tests.trainables import small, small_crowds
from tests.trainables.export.test_cost import macs_by_hand
from tests.trainables.tasks.face_sr import test_task as test_face_sr
from tests.trainables.tasks.segmentation import test_face_parsing
from trainables.data.cifar import Cifar
from trainables.distill import distill
from trainables.evaluation import evaluate
from trainables.export import onnx as exporting
from trainables.export.onnx import ExportedModel, export_student
from trainables.export.restore import TrainedTrial, instantiate, restore_student
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.task import NO_TEACHER, Batch
from trainables.tasks.classification.task import Classification
from trainables.tasks.crowd_counting.task import CrowdCounting
from trainables.tasks.simulated import Simulated
from trainables.training import checkpoint

STUDENT = ResNet(8, width=4)


def config_of(task: Classification | CrowdCounting, student: Any) -> dict[str, Any]:
    inputs = {"data": task.data.load().fingerprint}
    return json.loads(json.dumps({"task": describe(task), "student": describe(student), "inputs": inputs}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedTrial:
    """A student of the small task after two epochs, and what its row would say."""
    folder = tmp_path_factory.mktemp("trial")
    job = small.job(small.TASK, folder, folder, phase="confirm", epochs=2, loss=NoDistillation(), train_on="train+val")
    rows = list(distill(small.TASK, job, lambda: small.TASK.build(STUDENT), small.RECIPE, NoDistillation(), NO_TEACHER))
    scores = {"test/accuracy": rows[-1]["metrics"]["test/accuracy"]}
    return TrainedTrial(config_of(small.TASK, STUDENT), folder, scores)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> TrainedTrial:
    """A crowd-counting student that was never trained."""
    folder = tmp_path_factory.mktemp("crowd")
    net = small_crowds.TASK.build(small_crowds.STUDENT)
    checkpoint.save(folder, {"net": net.state_dict(), "rows": [{"metrics": {}}]})
    return TrainedTrial(config_of(small_crowds.TASK, small_crowds.STUDENT), folder, {})


ABOUT = {"study": 'a "hostile" <name>', "cell": "数 / x"}


@pytest.fixture(scope="module")
def exported(trained: TrainedTrial, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportedModel]:
    """The student's files, and what was measured on it."""
    folder = tmp_path_factory.mktemp("exported")
    return folder, export_student(trained, None, folder, ABOUT)


def ran(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["prediction"], {"images": images.numpy()})[0])


# -- the net again -------------------------------------------------------------------------------------------------


def test_rebuilt_net_scores_what_the_trial_recorded(trained: TrainedTrial) -> None:
    student = restore_student(trained, None)
    assert evaluate(small.TASK, student.net.net, "test", "cpu") == trained.scores


def test_rebuilt_objects_are_those_that_were_described() -> None:
    for made in (small.TASK, small_crowds.TASK, STUDENT):
        assert instantiate(json.loads(json.dumps(describe(made))), None) == made


def test_rebuilt_data_lies_where_it_is_said_to(tmp_path: Path) -> None:
    assert instantiate(describe(Cifar(10, "/elsewhere")), tmp_path).root == tmp_path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"from": "space file"}, "comes from 'space file'"),
        ({"from": "os", "is": "system"}, "not from trainables/"),
        ({"is": "Gone"}, "no Gone"),
        ({"is": "CifarResNet"}, "no CifarResNet that studies are made of"),
        ({"is": "InputError"}, "no InputError that studies are made of"),
        ({"height": 3}, "has changed since the study ran"),
    ],
)
def test_rebuilding_anything_but_our_own_classes_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        instantiate(describe(STUDENT) | change, None)


def test_other_data_is_refused(trained: TrainedTrial) -> None:
    other = dataclasses.replace(trained, config=trained.config | {"inputs": {"data": "0" * 16}})
    with pytest.raises(InputError, match="0000000000000000"):
        restore_student(other, None)


def test_weights_of_another_run_are_refused(trained: TrainedTrial) -> None:
    with pytest.raises(InputError, match="not those that were tested"):
        restore_student(dataclasses.replace(trained, scores={"test/accuracy": 0.123}), None)


def test_weights_of_another_net_are_refused(trained: TrainedTrial) -> None:
    other = dataclasses.replace(trained, config=trained.config | {"student": describe(ResNet(14, width=4))})
    with pytest.raises(InputError, match="does not fit resnet14w4"):
        restore_student(other, None)


@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_missing_and_damaged_weights_are_refused_in_one_line(
    trained: TrainedTrial, tmp_path: Path, content: bytes | None, recwarn: pytest.WarningsRecorder
) -> None:
    if content is not None:
        (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match="no readable weights") as caught:
        restore_student(dataclasses.replace(trained, checkpoint=tmp_path), None)
    assert "\n" not in str(caught.value)
    assert not recwarn.list


def test_a_pickle_is_not_opened(trained: TrainedTrial, tmp_path: Path) -> None:
    torch.save({"net": nn.Linear(1, 1)}, tmp_path / "state.pt")  # a whole module: would run its code
    with pytest.raises(InputError, match="no readable weights"):
        restore_student(dataclasses.replace(trained, checkpoint=tmp_path), None)


def test_a_task_without_a_net_is_refused(trained: TrainedTrial) -> None:
    other = dataclasses.replace(trained, config=trained.config | {"task": describe(Simulated())})
    with pytest.raises(InputError, match="nothing to export"):
        restore_student(other, None)


# -- files and figures ---------------------------------------------------------------------------------------------


def test_files_say_what_the_trained_net_says(trained: TrainedTrial, exported: tuple[Path, ExportedModel]) -> None:
    folder, written = exported
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.onnx"}
    expected = restore_student(trained, None).net.net
    images = torch.randn(5, 1, 8, 8)
    bare = STUDENT.build(channels=1, classes=10)
    bare.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(bare.eval()(images), expected(images), rtol=0, atol=0)
        torch.testing.assert_close(ran(folder / "model.onnx", images), expected(images), rtol=1e-4, atol=1e-5)
    assert written.worst_difference < 1e-4
    assert written.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_files_say_how_the_net_is_fed(trained: TrainedTrial, exported: tuple[Path, ExportedModel]) -> None:
    folder, about = exported[0], ABOUT | restore_student(trained, None).metadata
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    props = {prop.key: prop.value for prop in onnx.load(folder / "model.onnx").metadata_props}
    images_set = small.TASK.data.load()
    for found in (metadata, props):
        assert found | about == found
        assert json.loads(found["mean"]) == pytest.approx(images_set.mean, abs=1e-5)
        assert json.loads(found["std"]) == pytest.approx(images_set.std, abs=1e-5)


def test_figures_of_the_net(exported: tuple[Path, ExportedModel]) -> None:
    _, written = exported
    assert (written.input_shape, written.output_shape, written.any_size) == ((1, 1, 8, 8), (1, 10), False)
    assert written.parameters == sum(parameter.numel() for parameter in STUDENT.build(1, 10).parameters())
    assert written.macs == macs_by_hand()
    for measured in written.latencies.values():
        assert 0 < measured.fastest_seconds <= measured.median_seconds <= measured.slowest_seconds


def test_exported_files_hold_no_paths_of_this_machine(exported: tuple[Path, ExportedModel]) -> None:
    content = (exported[0] / "model.onnx").read_bytes()
    assert str(Path(exporting.__file__).parent.parent).encode() not in content
    assert str(Path(torch.__file__).parent.parent).encode() not in content


def test_crowd_net_takes_images_of_any_size(crowd: TrainedTrial, tmp_path: Path) -> None:
    written = export_student(crowd, None, tmp_path, {})
    assert written.any_size
    net = restore_student(crowd, None).net
    for size in ((1, 3, 48, 64), (2, 3, 96, 160)):
        images = torch.randn(size)
        with torch.no_grad():
            torch.testing.assert_close(ran(tmp_path / "model.onnx", images), net(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", [test_face_parsing, test_face_sr], ids=["parsing", "super-resolution"])
def test_students_of_faces_are_exported(task: Any, tmp_path: Path) -> None:
    net = task.TASK.build(task.STUDENT)
    checkpoint.save(tmp_path, {"net": net.state_dict(), "rows": [{"metrics": {}}]})
    student = TrainedTrial(config_of(task.TASK, task.STUDENT), tmp_path, {})
    export_student(student, None, tmp_path / "files", ABOUT)
    images = restore_student(student, None).image
    with torch.no_grad():
        said = task.TASK.outputs(net.eval(), Batch(images, None, images, images)).prediction
    torch.testing.assert_close(ran(tmp_path / "files" / "model.onnx", images), said, rtol=1e-3, atol=1e-4)


def test_a_graph_that_says_something_else_is_not_written(
    trained: TrainedTrial, exported: tuple[Path, ExportedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, graph = exporting.start_runtime, (exported[0] / "model.onnx").read_bytes()
    monkeypatch.setattr(exporting, "build_graph", lambda *_: graph)
    monkeypatch.setattr(exporting, "start_runtime", lambda graph: lambda images: right(graph)(images) * 1.01)
    with pytest.raises(RuntimeError, match="differs from torch"):
        export_student(trained, None, tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named_with_their_remedy(
    trained: TrainedTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "REQUIRED_PACKAGES", ("onnx", "onnx_that_is_not_there"))
    with pytest.raises(InputError, match=r"needs onnx_that_is_not_there: pip install -e '\.\[export\]'"):
        export_student(trained, None, tmp_path, {})
