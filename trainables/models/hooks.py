"""Inputs and inner features of nets that were written elsewhere, by hooks: the names in their state_dict stay.

A hook is called with the net, also when it is exported. Buffers that hooks read move with the net and are not saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from study.errors import InputError
from trainables.task import LAST, ModelSpec

SCALE, SHIFT = "_input_scale", "_input_shift"
"""Buffers of a net whose inputs are normalised again."""

NAMED = 12
"""Names of layers or nets that a message lists."""


class TappedOutput(NamedTuple):
    """The output of a net with taps."""

    prediction: Tensor
    features: Mapping[str, Tensor]
    """By the names of the layers, and the last one as LAST."""


def expand_grey(net: nn.Module) -> None:
    """Let a net for three channels take one: (B, 1, H, W) → (B, 3, H, W)."""
    net.register_forward_pre_hook(_expand_channels)


def _expand_channels(net: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].expand(-1, 3, -1, -1),)


Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""


def adapt_inputs(net: nn.Module, model: ModelSpec, given: Normalisation) -> nn.Module:
    """Let a net take inputs normalised as `given`, if the settings of its model name another normalisation."""
    if wanted := getattr(model, "input_normalisation", None):
        renormalise_inputs(net, given, wanted)
    return net


def renormalise_inputs(net: nn.Module, given: Normalisation, wanted: Normalisation) -> None:
    """Let a net take inputs normalised as `given` although it was trained on inputs normalised as `wanted`.

    (x·std_g + mean_g − mean_w) / std_w for each channel.
    """
    mean_g, std_g, mean_w, std_w = (torch.tensor(values) for values in (*given, *wanted))
    net.register_buffer(SCALE, (std_g / std_w)[:, None, None], persistent=False)  # (C, 1, 1)
    net.register_buffer(SHIFT, ((mean_g - mean_w) / std_w)[:, None, None], persistent=False)
    net.register_forward_pre_hook(_renormalise)


def _renormalise(net: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] * net.get_buffer(SCALE) + net.get_buffer(SHIFT),)


def tap_features(net: nn.Module, taps: Sequence[str]) -> None:
    """Let a net return a TappedOutput, with the outputs of the layers named `taps`.

    Raises InputError for a name that is no layer of the net.
    """
    layers = dict(net.named_modules())
    features: dict[str, Tensor] = {}
    for name in taps:
        if name not in layers or not name:
            known = [other for other in layers if other and other.count(".") == name.count(".")]
            raise InputError(f"tap {name!r} is no layer of the net; {list_names(known)}")
        layers[name].register_forward_hook(partial(_keep_features, name, features))
    net.register_forward_hook(partial(_add_features, tuple(taps), features))


def _keep_features(name: str, features: dict[str, Tensor], layer: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, Tensor):
        raise InputError(f"tap {name!r} returns {type(output).__name__}; allowed is a layer that returns a tensor")
    features[name] = output


def _add_features(
    taps: tuple[str, ...], features: dict[str, Tensor], net: nn.Module, inputs: Any, output: Tensor
) -> TappedOutput:
    found = {name: features[name] for name in taps}
    features.clear()  # nothing of a step is kept until the next one
    return TappedOutput(output, found | {LAST: found[taps[-1]]})


def list_names(names: Sequence[str]) -> str:
    """Return a clause on what there is, for messages: "it has a, b and 3 more"."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"it has {', '.join(names[:NAMED]) or 'none'}{more}"
