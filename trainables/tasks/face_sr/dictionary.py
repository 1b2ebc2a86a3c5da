"""Dictionaries of face components, by k-means over training images; kept, part by part.

A net that learns its encoder gets patches of images: of the crops of a component those nearest to the centres. A net
with a frozen VGG-19 gets centres of its features. What was made before an interruption is not made again.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from study.atomic import atomic_write
from study.errors import InputError
from study.identity import to_canonical_json
from study.task import TrialNote
from trainables.data.arrays.cache import get_cache_folder
from trainables.models.sr.component_transfer import DictionaryPart, crop_boxes, get_dictionary, scale_boxes

LARGEST_SAMPLE = 2048
"""From so many images at most a part is made: their features at 1/2 of 256 pixels are 0.8 GB for the mouth."""

_METHOD = "mini-batch k-means, 3 starts"
"""Part of what identifies kept dictionaries: to be changed with the computation."""

_AT_ONCE = 32

Vectors = npt.NDArray[np.float32]


def build_dictionary(
    net: nn.Module, images: Tensor, boxes: Tensor, seed: int, device: str = "cpu"
) -> dict[str, Tensor]:
    """Atoms for each part of the net's dictionary, by name, for `fill_dictionary`.

    Images (N, 3, H, W) uint8 of training, boxes (N, 4, 4) in their pixels. Of more than 2,048 images as many are drawn.
    VGG-19 sees them on `device`, once for each part: hours on a CPU. Where a part cannot be kept, a TrialNote says so.
    Raises InputError for a net without a dictionary, or fewer images than it has atoms.
    """
    parts = get_dictionary(net).parts
    atoms = parts[0].shape[0]
    if len(images) < atoms:
        raise InputError(f"dictionary of {atoms} atoms from {len(images)} images; allowed are as many or fewer atoms")
    drawn = np.random.default_rng(seed).permutation(len(images))[:LARGEST_SAMPLE]
    chosen = torch.from_numpy(np.sort(drawn))
    images, boxes = images[chosen], boxes[chosen]
    # a copy: the net stays on the device where it is
    encoder = copy.deepcopy(net.get_submodule("vgg")).to(device) if hasattr(net, "vgg") else nn.Identity()
    folder = get_cache_folder("dictionaries") / _key(encoder, images, boxes, seed)
    return {part.name: _atoms(folder, encoder, images, boxes[:, part.component], part, seed) for part in parts}


def _atoms(folder: Path, encoder: nn.Module, images: Tensor, boxes: Tensor, part: DictionaryPart, seed: int) -> Tensor:
    """One part, found or made: (K, C, s, s)."""
    path = folder / f"{part.name}-{part.shape[0]}-{part.shape[2]}.safetensors"
    kept = _kept(path, part)
    if kept is not None:
        return kept
    crops = _crops(encoder, images, boxes, part)
    vectors = crops.flatten(1).numpy()
    centres = _centres(vectors, part.shape[0], seed)
    made = crops[_nearest(vectors, centres)] if part.tap is None else torch.from_numpy(centres).view(part.shape)
    _keep(path, made)
    return made


def _centres(vectors: Vectors, count: int, seed: int) -> Vectors:
    """(N, D) → (K, D)."""
    # imported late: it takes a second, which processes that find their dictionary need not wait for
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=seed, n_init=3).fit(vectors)
    return np.asarray(means.cluster_centers_, dtype=np.float32)


def _nearest(vectors: Vectors, centres: Vectors) -> Tensor:
    """Which vector (N, D) is nearest to each centre (K, D): (K,)."""
    return torch.tensor([int(np.square(vectors - centre).sum(axis=1).argmin()) for centre in centres])


@torch.no_grad()
def _crops(encoder: nn.Module, images: Tensor, boxes: Tensor, part: DictionaryPart) -> Tensor:
    """What the encoder sees of a box (N, 4) in each image (N, 3, H, W), float32 on the CPU: (N, C, s, s)."""
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    crops = []
    for pixels, box in zip(images.split(_AT_ONCE), boxes.split(_AT_ONCE), strict=True):
        seen = encoder(pixels.to(device).float() / 255)
        seen = seen if part.tap is None else seen[part.tap]
        crops.append(crop_boxes(seen, scale_boxes(box.to(seen), part.stride), part.shape[2]).cpu())
    return torch.cat(crops)


def _keep(path: Path, atoms: Tensor) -> None:
    try:
        with atomic_write(path) as aside:
            aside.write_bytes(safetensors.torch.save({"atoms": atoms.contiguous()}))
    except OSError as error:
        note = f"dictionaries cannot be kept in {path.parent} ({error.strerror}); XDG_CACHE_HOME names another place"
        warnings.warn(note, TrialNote, stacklevel=2)


def _kept(path: Path, part: DictionaryPart) -> Tensor | None:
    """The atoms in a file; None if there are none, or if they are not what they must be: they are then made again."""
    try:
        atoms = safetensors.torch.load_file(path)["atoms"]
    except (SafetensorError, OSError, KeyError):
        return None
    return atoms if tuple(atoms.shape) == part.shape and bool(torch.isfinite(atoms).all()) else None


def _key(encoder: nn.Module, images: Tensor, boxes: Tensor, seed: int) -> str:
    """What a dictionary is made of: images, their boxes, the seed, and the weights of the encoder, if one is frozen."""
    digest = hashlib.sha256(to_canonical_json([_METHOD, seed, list(images.shape)]).encode())
    for tensor in (images, boxes.double(), *encoder.state_dict().values()):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
