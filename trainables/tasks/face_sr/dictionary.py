"""Dictionaries of face components, by k-means over training images, cached on disk part by part.

For a net with a trainable encoder the atoms are image patches: the crops of a component nearest to the cluster centres.
For a net with a frozen VGG-19 they are the cluster centres of its features. An interrupted build resumes with the first
part that is not cached.
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
"""Images that a part is built from, at most: their features at 1/2 of 256 pixels take 0.8 GB for the mouth."""

_METHOD = "mini-batch k-means, 3 starts"
"""Enters the key of cached dictionaries: change it with the computation."""

_BATCH_SIZE = 32

Vectors = npt.NDArray[np.float32]


def build_dictionary(
    net: nn.Module, images: Tensor, boxes: Tensor, seed: int, device: str = "cpu"
) -> dict[str, Tensor]:
    """Return the atoms (K, C, s, s) of each part of the net's dictionary, by name, for `fill_dictionary`.

    `images` is (N, 3, H, W) uint8, of training; `boxes` (N, 4, 4), in their pixels. At most 2,048 images are used,
    drawn by `seed`. VGG-19 runs on `device`, once for each part: hours on a CPU. Warns with a TrialNote if a part
    cannot be cached.
    Raises InputError for a net without a dictionary, or fewer images than it has atoms.
    """
    parts = get_dictionary(net).parts
    atoms = parts[0].shape[0]
    if len(images) < atoms:
        raise InputError(f"dictionary of {atoms} atoms from {len(images)} images; allowed is at most one atom an image")
    drawn = np.random.default_rng(seed).permutation(len(images))[:LARGEST_SAMPLE]
    chosen = torch.from_numpy(np.sort(drawn))
    images, boxes = images[chosen], boxes[chosen]
    # a copy, so that the net itself stays on its device
    encoder = copy.deepcopy(net.get_submodule("vgg")).to(device) if hasattr(net, "vgg") else nn.Identity()
    folder = get_cache_folder("dictionaries") / _compute_key(encoder, images, boxes, seed)
    return {part.name: _load_or_build(folder, encoder, images, boxes[:, part.component], part, seed) for part in parts}


def _load_or_build(
    folder: Path, encoder: nn.Module, images: Tensor, boxes: Tensor, part: DictionaryPart, seed: int
) -> Tensor:
    """Return the atoms of one part (K, C, s, s), from the cache if they are there."""
    path = folder / f"{part.name}-{part.shape[0]}-{part.shape[2]}.safetensors"
    cached = _read_cached(path, part)
    if cached is not None:
        return cached
    crops = _encode_crops(encoder, images, boxes, part)  # (N, C, s, s)
    vectors = crops.flatten(1).numpy()
    centres = _cluster(vectors, part.shape[0], seed)
    atoms = crops[_find_nearest(vectors, centres)] if part.tap is None else torch.from_numpy(centres).view(part.shape)
    _write_cached(path, atoms)
    return atoms


def _cluster(vectors: Vectors, count: int, seed: int) -> Vectors:
    """Return the centres of `count` clusters: (N, D) → (K, D)."""
    # imported late: it takes a second, which processes that find their dictionary need not wait for
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=seed, n_init=3).fit(vectors)
    return np.asarray(means.cluster_centers_, dtype=np.float32)


def _find_nearest(vectors: Vectors, centres: Vectors) -> Tensor:
    """Return the position of the vector (N, D) nearest to each centre (K, D): (K,) int64."""
    return torch.tensor([int(np.square(vectors - centre).sum(axis=1).argmin()) for centre in centres])


@torch.no_grad()
def _encode_crops(encoder: nn.Module, images: Tensor, boxes: Tensor, part: DictionaryPart) -> Tensor:
    """Return the encoder's activations in a box (N, 4) of each image (N, 3, H, W): (N, C, s, s) float32 on the CPU."""
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    crops = []
    for pixels, box in zip(images.split(_BATCH_SIZE), boxes.split(_BATCH_SIZE), strict=True):
        features = encoder(pixels.to(device).float() / 255)
        features = features if part.tap is None else features[part.tap]
        crops.append(crop_boxes(features, scale_boxes(box.to(features), part.stride), part.shape[2]).cpu())
    return torch.cat(crops)


def _write_cached(path: Path, atoms: Tensor) -> None:
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(safetensors.torch.save({"atoms": atoms.contiguous()}))
    except OSError as error:
        note = f"dictionaries cannot be cached in {path.parent} ({error.strerror}); XDG_CACHE_HOME names another folder"
        warnings.warn(note, TrialNote, stacklevel=2)


def _read_cached(path: Path, part: DictionaryPart) -> Tensor | None:
    """Return the atoms in a file; None if it is missing or damaged, whereupon they are built again."""
    try:
        atoms = safetensors.torch.load_file(path)["atoms"]
    except (SafetensorError, OSError, KeyError):
        return None
    return atoms if tuple(atoms.shape) == part.shape and bool(torch.isfinite(atoms).all()) else None


def _compute_key(encoder: nn.Module, images: Tensor, boxes: Tensor, seed: int) -> str:
    """Return a digest of all that decides a dictionary: images, boxes, seed, and the weights of a frozen encoder."""
    digest = hashlib.sha256(to_canonical_json([_METHOD, seed, list(images.shape)]).encode())
    for tensor in (images, boxes.double(), *encoder.state_dict().values()):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
