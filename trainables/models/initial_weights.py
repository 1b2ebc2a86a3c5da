"""Initial weights of nets from other packages: from a file, all but the last layer where classes differ."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from study.errors import InputError
from trainables.training.weights_file import read_net


def digest_weights(path: Path) -> str:
    """Return "file " and the first digits of a file's SHA-256: the identity of weights, whatever their place."""
    with path.open("rb") as file:
        return f"file {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def read_weights(path: Path, net: nn.Module) -> Mapping[str, Tensor]:
    """Return the tensors of a file under the names of the net, whatever its number of classes.

    Raises InputError for a file that cannot be read without running its code, and for one of another net.
    """
    try:
        return read_net(path, net.state_dict(), any_shape=True)
    except InputError as error:
        raise InputError(str(error).replace("teacher file", "weights file")) from None


def fill_but_head(net: nn.Module, state: Mapping[str, Tensor], head: Collection[str], name: str) -> None:
    """Load weights into a net, all but those of its `head` that have another number of classes.

    Raises InputError, which calls the net `name`, for another shape of any other.
    """
    expected = net.state_dict()
    kept = {
        key: tensor
        for key, tensor in state.items()
        if key in expected and not (key in head and tensor.shape != expected[key].shape)
    }
    if unfit := [key for key, tensor in kept.items() if tensor.shape != expected[key].shape]:
        raise InputError(
            f"weights of {name} do not fit: {unfit[0]} is {tuple(kept[unfit[0]].shape)}, the net needs "
            f"{tuple(expected[unfit[0]].shape)}"
        )
    net.load_state_dict(kept, strict=False)
