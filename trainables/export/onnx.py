"""A confirmed student for use elsewhere: safetensors and ONNX, checked against the net that was trained, and measured.

Which student it is, and the model card, are reports/export.py's. Left out: quantisation, and normalisation inside the
graph: both files take inputs as the net was trained on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from study.atomic import atomic_write
from study.errors import InputError
from trainables.export.cost import Latency, latency, macs, one_thread
from trainables.export.restore import Student, Trained, rebuild

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference allowed between ONNX Runtime and torch, as a share of the largest output."""


@dataclass(frozen=True)
class Exported:
    """What was written, and what was measured on it."""

    parameters: int
    macs: int
    """Multiply-accumulates of convolutions and matrix products, for one image."""
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    any_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    worst_difference: float
    """Between ONNX Runtime and torch, on random inputs."""
    latencies: Mapping[str, Latency]
    """By runtime."""
    sha256: Mapping[str, str]
    """By file name."""
    versions: Mapping[str, str]


def export(trained: Trained, data_dir: Path | None, out: Path, about: dict[str, str]) -> Exported:
    """Write model.safetensors and model.onnx to `out`; `about` goes into their metadata.

    Raises InputError if a package is missing, or if data, code or weights are not what the trial had.
    """
    _require_packages()
    student = rebuild(trained, data_dir)
    about = about | {"mean": str(list(student.mean)), "std": str(list(student.std))}
    about |= {"input": "(pixels / 255 - mean) / std, float32, batch x channels x height x width"}
    graph = _onnx(student, about)
    run = _runtime(graph)
    worst = _checked(student, run)
    tensors = {name: tensor.contiguous() for name, tensor in student.net.net.state_dict().items()}
    files = {"model.safetensors": safetensors.torch.save(tensors, about), "model.onnx": graph}
    for name, content in files.items():
        with atomic_write(out / name) as aside:
            aside.write_bytes(content)
    with torch.inference_mode(), one_thread():
        return Exported(
            parameters=student.size,
            macs=macs(lambda: student.net(student.image)),
            input_shape=tuple(student.image.shape),
            output_shape=tuple(student.net(student.image).shape),
            any_size=student.any_size,
            mean=student.mean,
            std=student.std,
            worst_difference=worst,
            latencies={
                "torch": latency(lambda: student.net(student.image)),
                "ONNX Runtime": latency(lambda: run(student.image)),
            },
            sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            versions={name: importlib.metadata.version(name) for name in ("torch", "safetensors", *NEEDED)},
        )


def _require_packages() -> None:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"export needs {', '.join(missing)}: pip install -e '.[export]'")


def _onnx(student: Student, about: dict[str, str]) -> bytes:
    """The graph, of any batch size, without traces of the machine that it was made on."""
    import onnx

    free = dict.fromkeys((0, 2, 3) if student.any_size else (0,), torch.export.Dim.DYNAMIC)
    images = torch.cat([student.image, student.image])  # a size of 1 would be taken for a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        program = torch.onnx.export(
            student.net,
            (images,),
            dynamo=True,
            dynamic_shapes=(free,),
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


def _runtime(graph: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@torch.inference_mode()
def _checked(student: Student, run: Callable[[Tensor], Tensor]) -> float:
    """The largest difference between ONNX Runtime and torch on random inputs.

    Raises RuntimeError if it is too large.
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
