"""A student's graph in lower precision, and what each precision costs and scores."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from study.trial import Split
from trainables.export.cost import Latency
from trainables.task import Batch, Outputs

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

Precision = Literal["fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")

CALIBRATION_IMAGES = 128
"""Training images that the ranges of int8 are taken from: more change them little, and take longer."""

Run = Callable[[Tensor], Tensor]
"""A graph as a function: images (B, C, H, W) → prediction (B, …)."""


@dataclass(frozen=True)
class GraphMeasures:
    """Size, test metrics and latency of a graph."""

    size: int
    """Bytes of the file."""
    scores: dict[str, float]
    """Test metrics by name, such as test/accuracy."""
    latency: Latency


def convert_graph(graph: bytes, precision: Precision, task: DistillationTask[Any]) -> bytes:
    """Return a float32 graph in another precision; inputs and outputs stay float32.

    int8 quantises weights by channel and activations by tensor, whose ranges are those of training images.
    """
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # about values that float16 rounds
        return _convert_to_fp16(graph) if precision == "fp16" else _convert_to_int8(graph, task, Path(folder))


def score_graph(run: Run, task: DistillationTask[Any]) -> dict[str, float]:
    """Return the test metrics of a graph, from all test images."""
    meters = task.meters("cpu", "test")
    for batch in _iterate_batches(task, "test", len(task.examples("test", "cpu")), task.evaluation_batch("cpu")):
        meters.update(Outputs(run(batch.inputs.contiguous())), batch)
    return {f"test/{name}": value for name, value in meters.compute().items()}


def _convert_to_fp16(graph: bytes) -> bytes:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: bytes = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True).SerializeToString()
    return converted


def _convert_to_int8(graph: bytes, task: DistillationTask[Any], folder: Path) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = _iterate_batches(task, "train", CALIBRATION_IMAGES, 1)

    class TrainingImages(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch.inputs.contiguous().numpy()}

    given, prepared, quantised = (folder / name for name in ("given.onnx", "prepared.onnx", "quantised.onnx"))
    given.write_bytes(graph)
    quant_pre_process(given, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, quantised, TrainingImages(), per_channel=True)
    model = onnx.load(quantised)
    about = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    onnx.helper.set_model_props(model, about)
    content: bytes = model.SerializeToString()
    return content


def _iterate_batches(task: DistillationTask[Any], split: Split, images: int, size: int) -> Iterator[Batch]:
    """Yield this number of a split's images, untouched and evenly spread: they may be sorted by class."""
    examples = task.examples(split, "cpu")
    count = min(images, len(examples))
    for samples in (torch.arange(count) * len(examples) // count).split(size):
        yield examples.batch(samples, torch.zeros_like(samples))
