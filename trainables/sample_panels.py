"""Pictures of a few test examples under a trained net, written next to its weights for the report.

The examples are evenly spaced in the test split, whatever a net predicts for them. They are read when the test split is
read for its score, after the last epoch, and nothing is chosen by them. A task's `panels` draws them as arrays, the
report (reports/examples/panels.py) as pictures. The file is `exhibits.npz`: one array a panel, and `about`, a JSON text
that describes each. Nothing in it is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from study.atomic import atomic_write
from trainables.task import Panel, index_device

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

MAX_EXAMPLES = 4
"""Number of test examples, at most: as many as fit next to each other in the report."""

FILE = "exhibits.npz"


def write_panels(task: DistillationTask[Any], net: nn.Module, folder: Path, device: str) -> None:
    """Write the panels of `net` on the chosen test examples; no file for a task without panels."""
    count = len(task.examples("test", device))
    samples = sorted({round(position) for position in np.linspace(0, count - 1, min(MAX_EXAMPLES, count))})
    arrays: dict[str, NDArray[Any]] = {}
    about = []
    for example, sample in enumerate(samples):
        for position, panel in enumerate(_draw_panels(task, net, sample, device)):
            key = f"{example}/{position}"
            arrays[key] = _to_array(panel)
            described = {item.name: getattr(panel, item.name) for item in fields(panel) if item.name != "values"}
            about.append({"key": key, "example": example} | described)
    if not arrays:
        return
    with atomic_write(folder / FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), allow_pickle=False, **arrays)


@torch.no_grad()
def _draw_panels(task: DistillationTask[Any], net: nn.Module, sample: int, device: str) -> Sequence[Panel]:
    net.eval()
    examples = task.examples("test", device)
    samples = torch.tensor([sample], device=index_device(examples, device))
    batch = examples.batch(samples, torch.zeros_like(samples))
    return task.panels(task.outputs(net, batch), batch)


def _to_array(panel: Panel) -> NDArray[Any]:
    """Return the panel's values as float16 (H, W) for a map, uint8 (H, W, 3) for an image, uint8 (H, W) for labels."""
    values = panel.values.detach().cpu()
    if panel.kind == "map":  # half precision suffices for colours
        return values.float().numpy().astype(np.float16)
    array: NDArray[Any] = (values.permute(1, 2, 0) if panel.kind == "image" else values).to(torch.uint8).numpy()
    return array
