"""Weights of a net in a file as trainers save it: in dictionaries, under prefixes, next to an optimizer's state.

The names of the net decide: any dictionary in the file, and any prefix of its names, that has all of them is the net.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.errors import InputError
from trainables.training.weights_content import read_content

COUNTER = "num_batches_tracked"
"""A buffer of batch norms that older torch and some trainers do not save, and that evaluation does not read."""

WRAPPERS = {"module", "model", "net", "network", "student", "teacher", "state_dict"}
WRAPPERS |= {"ema", "ema_model", "model_ema", "online_model"}
"""Attributes under which trainers hold a net; names outside them belong to the training, such as a loss's weights."""

INSERTED = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts that torch.compile and distributed wrappers insert anywhere in a name."""

LISTED_NAMES = 4
"""Names or layers that a message lists, so that it stays a line."""


@dataclass(frozen=True)
class _Candidate:
    """A dictionary of tensors in the file, whose names start with `prefix` where they are the net's."""

    place: str
    """The keys that lead to the dictionary, and the prefix."""
    prefix: str
    tensors: Mapping[str, Tensor]

    def select_net(self) -> dict[str, Tensor]:
        """Return the tensors below the prefix, without it."""
        return {
            name.removeprefix(self.prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(self.prefix)
        }

    def list_foreign(self) -> list[str]:
        """Return the names outside a prefix that is no known wrapper: they may belong to a larger net."""
        if self.prefix and set(self.prefix.rstrip(".").split(".")) <= WRAPPERS:
            return []
        return [name for name, t in self.tensors.items() if not name.startswith(self.prefix) and t.ndim > 0]


def read_net(path: Path, expected: Mapping[str, Tensor], any_shape: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a file under the names of a net's state_dict, and with its shapes unless any are allowed.

    A missing batch counter is the net's own. Of plain weights and their running average (EMA) the plain ones are read.
    Raises InputError if the file cannot be read without running its code, has no such net or several, other shapes, or
    weights that are no real numbers.
    """
    found = list(_list_candidates(read_content(path), expected))
    if not found:
        raise InputError(f"teacher file {path} contains no state_dict: save one with torch.save(net.state_dict(), …)")
    exact = [each for each in found if not any(_compare_names(each, expected))]
    if not exact:
        best = max(found, key=lambda each: len(each.select_net().keys() & expected.keys()))
        raise InputError(f"teacher file {path} is of another architecture: {_describe_names(best, expected)}")
    net = _choose(path, exact).select_net()
    net = {name: net.get(name, tensor) for name, tensor in expected.items()}
    for name, tensor in expected.items():
        _check_kind(path, name, net[name], tensor)
    if not any_shape and (problem := _describe_shapes(net, expected)):
        raise InputError(f"teacher file {path} does not fit: {problem}")
    return net


def _describe_shapes(net: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return which tensors have other shapes and what to do about it; empty if all have the expected ones."""
    pairs = {name: (tuple(net[name].shape), tuple(tensor.shape)) for name, tensor in expected.items()}
    unfit = {name: (given, needed) for name, (given, needed) in pairs.items() if given != needed}
    lines = [f"{name} is {given}, not {needed}" for name, (given, needed) in unfit.items()]
    if not lines:
        return ""
    layers = {name.rpartition(".")[0] for name in unfit}
    (given, needed), *_ = unfit.values()
    if len(layers) == 1 and given and needed and given[1:] == needed[1:]:  # the last layer of a classifier
        outputs = f"it has {given[0]} outputs, this study's data need {needed[0]}"
        return f"{outputs} ({_shorten(lines, '; ')}): give a teacher of the same classes, or leave weights out"
    return f"{_shorten(lines, '; ')}: name the net, with its width, and the class count that it was saved with"


def _check_kind(path: Path, name: str, given: Tensor, expected: Tensor) -> None:
    """Raise InputError for a tensor without values, of some of them alone, or of numbers that are not real."""
    if expected.is_floating_point() and not given.is_floating_point():
        kind = f"quantized or not real: {name} is {given.dtype}"
    elif given.is_meta or given.layout is not torch.strided:
        kind = f"sparse or without values: {name} is on {given.device} in the layout {given.layout}"
    else:
        return
    raise InputError(f"teacher file {path} is {kind}; save dense weights in float32")


def _list_candidates(content: Any, expected: Mapping[str, Tensor], place: str = "") -> Iterator[_Candidate]:
    """Yield each dictionary of tensors in the file, once for each prefix under which it may have the net."""
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return
    named = {str(key): _to_tensor(value) for key, value in content.items()}
    tensors = {_strip_inserted(key): value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        prefixes = {prefix for key in tensors for prefix, name in _split_name(key) if name in expected}
        for prefix in sorted(prefixes or {""}):
            yield _Candidate(".".join(filter(None, (place, prefix.rstrip(".")))), prefix, tensors)
    for key, value in named.items():
        yield from _list_candidates(value, expected, f"{place}.{key}".lstrip("."))


def _to_tensor(value: Any) -> Any:
    """Return an array of NumPy as a tensor, which some trainers save instead; anything else as it is."""
    is_number = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    return torch.tensor(value) if is_number else value


def _split_name(key: str) -> Iterator[tuple[str, str]]:
    """Return each way to divide a name into a prefix that ends in a dot, or is empty, and the rest."""
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
    return ((key[:start], key[start:]) for start in starts)


def _strip_inserted(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INSERTED)


def _compare_names(candidate: _Candidate, expected: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Return the names that the candidate lacks, and those it has in excess."""
    net = candidate.select_net()
    missing = [name for name in expected if name not in net and not name.endswith(COUNTER)]
    return missing, [name for name in net if name not in expected] + candidate.list_foreign()


def _choose(path: Path, candidates: list[_Candidate]) -> _Candidate:
    """Return the one net of the file, or its plain weights where it also has their average.

    Raises InputError for several nets.
    """
    plain = [each for each in candidates if "ema" not in re.split(r"[._]", each.place.lower())] or candidates
    first = plain[0].select_net()
    for other in plain[1:]:
        net = other.select_net()
        if not all(name in net and torch.equal(tensor, net[name]) for name, tensor in first.items()):
            places = ", ".join(each.place or "its top level" for each in plain)
            raise InputError(
                f"teacher file {path} contains several sets of weights ({places}): save one of them alone, "
                "torch.save(model.state_dict(), 'teacher.pth')"
            )
    return plain[0]


def _describe_names(candidate: _Candidate, expected: Mapping[str, Tensor]) -> str:
    missing, excess = _compare_names(candidate, expected)
    lacks = [f"lacks {_shorten([repr(name) for name in missing])}"] if missing else []
    has = [f"has {_shorten([repr(name) for name in excess])}"] if excess else []
    return f"it {' and '.join(lacks + has)}; name the net it was saved from"


def _shorten(items: list[str], separator: str = ", ") -> str:
    more = len(items) - LISTED_NAMES
    return separator.join(items[:LISTED_NAMES]) + (f"{separator}and {more} more" if more > 0 else "")
