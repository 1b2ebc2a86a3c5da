"""Pictures of a few test examples: what a net makes of them, kept beside its weights for the report to show.

Which examples: evenly spaced in the test split, whatever a net says of them. They are looked at in the moment in which
the test split is read for its score, after the last epoch, and nothing is chosen by them. A task says by its `panels`
what there is to see; drawing is the report's (reports/examples/panels.py). The file is `exhibits.npz`: an array a
panel, and `about`, a JSON text with what is known of each. Nothing in it is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from study.atomic import atomic_write
from trainables.task import Panel, TrainableTask

EXHIBITED = 4
"""How many test examples are shown, at most."""

FILE = "exhibits.npz"


def write(task: TrainableTask, net: nn.Module, folder: Path, device: str) -> None:
    """Keep the panels of `net` on the test examples that are shown; no file for a task that has none."""
    shown = [_panels(task, net, sample, device) for sample in _chosen(len(task.examples("test", device)))]
    if not any(shown):
        return
    arrays: dict[str, NDArray[Any]] = {}
    about = []
    for example, panels in enumerate(shown):
        for position, panel in enumerate(panels):
            key = f"{example}/{position}"
            arrays[key] = _array(panel)
            about.append({"key": key, "example": example} | _described(panel))
    with atomic_write(folder / FILE) as aside, aside.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), allow_pickle=False, **arrays)


def _chosen(count: int) -> list[int]:
    """Positions from the first sample of a split to the last, evenly spaced."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(EXHIBITED, count))})


@torch.no_grad()
def _panels(task: TrainableTask, net: nn.Module, sample: int, device: str) -> Sequence[Panel]:
    net.eval()
    samples = torch.tensor([sample], device=device)
    batch = task.examples("test", device).batch(samples, torch.zeros_like(samples))
    return task.panels(task.outputs(net, batch), batch)


def _array(panel: Panel) -> NDArray[Any]:
    values = panel.values.detach().cpu()
    if panel.kind == "map":  # half precision does for colours
        return values.float().numpy().astype(np.float16)
    array: NDArray[Any] = (values.permute(1, 2, 0) if panel.kind == "image" else values).to(torch.uint8).numpy()
    return array


def _described(panel: Panel) -> dict[str, Any]:
    return {
        "name": panel.name,
        "kind": panel.kind,
        "caption": panel.caption,
        "given": panel.given,
        "scale": panel.scale,
        "classes": list(panel.classes),
    }
