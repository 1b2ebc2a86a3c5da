"""Export of a trained student to safetensors and ONNX, with a check against torch and measurements.

reports/export.py selects the student and writes the model card. The graphs do not normalise: inputs are
normalised, as in training.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from study.atomic import atomic_write
from study.errors import InputError
from trainables.export.cost import Latency, count_macs, measure_latency, single_thread
from trainables.export.precisions import GraphMeasures, Precision, convert_graph, score_graph
from trainables.export.restore import RestoredStudent, TrainedTrial, restore_student

REQUIRED_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Maximum difference between ONNX Runtime and torch, as a share of the largest output."""


@dataclass(frozen=True)
class ExportedModel:
    """Properties and measurements of the exported files."""

    parameters: int
    macs: int
    """Multiply-accumulates of convolutions and matrix products, for one image."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    any_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    worst_difference: float
    """Largest difference between ONNX Runtime and torch on random inputs."""
    latencies: Mapping[str, Latency]
    """By runtime."""
    sha256: Mapping[str, str]
    """By file name."""
    versions: Mapping[str, str]
    graphs: Mapping[str, GraphMeasures] = field(default_factory=dict)
    """By precision, float32 among them; empty where no further precision was asked for."""


def export_student(
    trained: TrainedTrial,
    data_dir: Path | None,
    out: Path,
    about: dict[str, str],
    precisions: Sequence[Precision] = (),
) -> ExportedModel:
    """Write model.safetensors and model.onnx to `out`, with `about` in their metadata.

    Further precisions are written as model.fp16.onnx and model.int8.onnx; the test metrics of all graphs are then
    measured.
    Raises InputError if a package is missing, or if data, code or weights differ from the trial's; RuntimeError if ONNX
    Runtime computes other outputs than torch.
    """
    check_packages("export")
    student = restore_student(trained, data_dir)
    about = about | student.metadata
    graph = build_graph(student, about)
    run = start_runtime(graph)
    worst = _compare_with_torch(student, run)
    tensors = {name: tensor.contiguous() for name, tensor in student.net.net.state_dict().items()}
    files = {"model.safetensors": safetensors.torch.save(tensors, about), "model.onnx": graph}
    converted: dict[str, bytes] = {precision: convert_graph(graph, precision, student.task) for precision in precisions}
    files |= {f"model.{precision}.onnx": content for precision, content in converted.items()}
    graphs = {"float32": graph, **converted} if precisions else {}
    for name, content in files.items():
        with atomic_write(out / name) as temporary:
            temporary.write_bytes(content)
    with torch.inference_mode(), single_thread():
        return ExportedModel(
            parameters=student.parameters,
            macs=count_macs(lambda: student.net(student.image)),
            input_shape=tuple(student.image.shape),
            output_shape=tuple(student.net(student.image).shape),
            any_size=student.any_size,
            mean=student.mean,
            std=student.std,
            worst_difference=worst,
            latencies={
                "torch": measure_latency(lambda: student.net(student.image)),
                "ONNX Runtime": measure_latency(lambda: run(student.image)),
            },
            sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            versions={name: importlib.metadata.version(name) for name in ("torch", "safetensors", *REQUIRED_PACKAGES)},
            graphs={name: _measure_graph(content, student) for name, content in graphs.items()},
        )


def check_packages(what: str) -> None:
    """Raise InputError if a package that `what` needs is missing."""
    if missing := [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install -e '.[export]'")


def _measure_graph(graph: bytes, student: RestoredStudent) -> GraphMeasures:
    run = start_runtime(graph)
    return GraphMeasures(len(graph), score_graph(run, student.task), measure_latency(lambda: run(student.image)))


def build_graph(student: RestoredStudent, about: dict[str, str]) -> bytes:
    """Return the serialised graph, of any batch size, without paths of the machine that made it."""
    import onnx

    dynamic = dict.fromkeys((0, 2, 3) if student.any_size else (0,), torch.export.Dim.DYNAMIC)
    images = torch.cat([student.image, student.image])  # torch.export takes a size of 1 for a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own code
        program = torch.onnx.export(
            student.net,
            (images,),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            input_names=["images"],
            output_names=["prediction"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # stack traces, with paths
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def start_runtime(graph: bytes) -> Callable[[Tensor], Tensor]:
    """Return the graph as a function in ONNX Runtime on one CPU thread: images (B, C, H, W) → prediction (B, …)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@torch.inference_mode()
def _compare_with_torch(student: RestoredStudent, run: Callable[[Tensor], Tensor]) -> float:
    """Return the largest difference between ONNX Runtime and torch on random inputs of several shapes.

    Raises RuntimeError if one exceeds `TOLERANCE`.
    """
    _, *shape = student.image.shape
    shapes = [(1, *shape), (3, *shape), *([(2, shape[0], 96, 128)] if student.any_size else [])]
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for size in shapes:
        images = torch.randn(size, generator=generator)
        expected = student.net(images)
        difference = float((run(images) - expected).abs().max())
        if not difference <= TOLERANCE * max(1e-6, float(expected.abs().max())):
            raise RuntimeError(f"ONNX Runtime differs from torch by {difference:.2g} on inputs {size}")
        worst = max(worst, difference)
    return worst
