"""Dictionaries: prototypes are found, follow from the seed, are kept, and a half-written one is completed."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from study.errors import InputError
from study.task import TrialNote
from trainables.models.sr.common import COMPONENTS
from trainables.models.sr.component_transfer import Dictionary as Atoms
from trainables.models.sr.component_transfer import DictionaryPart, fill_dictionary
from trainables.models.sr.small_sr import SmallSR
from trainables.tasks.face_sr import dictionary as dictionaries
from trainables.tasks.face_sr.dictionary import build_dictionary

BOXES = torch.tensor([[0, 0, 16, 16], [40, 0, 56, 16], [20, 20, 36, 36], [16, 40, 40, 64]]).float()
MODEL = SmallSR(width=2, atoms=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kdstudy" / "dictionaries"


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """How many atoms each k-means was asked for."""
    counts, centres = [], dictionaries._cluster
    monkeypatch.setattr(dictionaries, "_cluster", lambda *given: counts.append(given[1]) or centres(*given))
    return counts


def faces(images: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose components are one of three prototypes, with a little noise; and which they are, (N, 4)."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(3, (images, 4), generator=generator)
    prototypes = torch.randint(20, 235, (4, 3, 3, 64, 64), generator=torch.Generator().manual_seed(7))
    pixels = torch.zeros(images, 3, 64, 64)
    for number, (x0, y0, x1, y1) in enumerate(BOXES.int().tolist()):
        pixels[:, :, y0:y1, x0:x1] = prototypes[number, kinds[:, number], :, y0:y1, x0:x1].float()
    noise = torch.randint(-5, 6, pixels.shape, generator=generator)
    return (pixels + noise).clamp(0, 255).to(torch.uint8), kinds


def boxes(images: int = 60) -> torch.Tensor:
    return BOXES.expand(images, 4, 4)


def dictionary(seed: int = 0, model: SmallSR = MODEL, images: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    images = faces()[0] if images is None else images
    return build_dictionary(model.build(8), images, boxes(len(images)), seed)


def test_atoms_are_patches_of_the_images_one_of_each_kind():
    images, kinds = faces()
    atoms = dictionary()
    assert list(atoms) == list(COMPONENTS)
    for number, (name, (x0, y0, x1, y1)) in enumerate(zip(COMPONENTS, BOXES.int().tolist(), strict=True)):
        patches = images[:, :, y0:y1, x0:x1].float() / 255
        differences = (atoms[name][:, None] - patches[None]).abs().amax(dim=(2, 3, 4))
        assert differences.amin(dim=1).max() < 1e-6, "a box of whole pixels is resampled to itself"
        assert set(kinds[differences.argmin(dim=1), number].tolist()) == {0, 1, 2}
    fill_dictionary(MODEL.build(8), atoms)


def test_medoid_is_nearer_to_its_centre_than_any_other_patch():
    vectors = torch.rand(40, 6).numpy()
    centres = dictionaries._cluster(vectors, 4, seed=0)
    nearest = dictionaries._find_nearest(vectors, centres)
    distances = torch.cdist(torch.from_numpy(centres), torch.from_numpy(vectors))
    assert torch.equal(nearest, distances.argmin(dim=1))


def test_dictionary_follows_from_its_seed(cache, made):
    noise = torch.randint(0, 256, (60, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    first = dictionary(seed=3, images=noise)
    for part in cache.glob("*/*"):
        part.unlink()
    again, other = dictionary(seed=3, images=noise), dictionary(seed=4, images=noise)
    assert all(torch.equal(first[name], again[name]) for name in COMPONENTS)
    assert not all(torch.equal(first[name], other[name]) for name in COMPONENTS)
    assert len(made) == 12


def test_dictionary_is_cached_by_its_content(made):
    first, again = dictionary(), dictionary()
    assert len(made) == 4
    assert all(torch.equal(first[name], again[name]) for name in COMPONENTS)
    changed = faces()[0]
    changed[0, 0, 0, 0] ^= 1
    dictionary(images=changed)
    assert len(made) == 8
    dictionary(model=SmallSR(width=2, atoms=2))
    assert len(made) == 12
    dictionary(model=SmallSR(width=4, atoms=3))
    assert len(made) == 12, "patches do not depend on the net's width"
    build_dictionary(MODEL.build(8), faces()[0], boxes() + 1, seed=0)
    assert len(made) == 16


def test_dictionary_that_was_interrupted_is_completed(cache, monkeypatch, made):
    whole = dictionary()
    files = {path.name.split("-")[0]: path for path in cache.glob("*/*")}
    assert set(files) == set(COMPONENTS)
    files["nose"].unlink()
    files["mouth"].write_bytes(files["mouth"].read_bytes()[:100])
    made.clear()
    assert all(torch.equal(atoms, whole[name]) for name, atoms in dictionary().items())
    assert len(made) == 2
    assert files["nose"].is_file()


def test_part_that_was_done_before_an_interruption_stays(cache, monkeypatch):
    centres, calls = dictionaries._cluster, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return centres(*given)

    monkeypatch.setattr(dictionaries, "_cluster", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dictionary()
    assert {path.name.split("-")[0] for path in cache.glob("*/*")} == {"left_eye", "right_eye"}
    dictionary()
    assert len(calls) == 5


def test_dictionary_that_cannot_be_cached_is_built_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(TrialNote, match="dictionaries cannot be cached"):
        atoms = dictionary()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(torch.equal(atoms[name], again) for name, again in dictionary().items())


def test_fewer_images_than_atoms_are_refused():
    with pytest.raises(InputError, match="3 atoms from 2 images"):
        dictionary(images=faces(2)[0])
    with pytest.raises(InputError, match="no dictionary"):
        dictionary(model=SmallSR(width=2))


class Encoder(nn.Module):
    """Stands for VGG-19: two taps, at 1/2 and 1/4, that are means of pixels times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        return [self.weight * nn.functional.avg_pool2d(images, stride) for stride in (2, 4)]


class EncoderNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vgg = Encoder()
        sizes = {f"{name}_{stride}": (number, stride) for number, name in enumerate(COMPONENTS) for stride in (2, 4)}
        self.dictionary = Atoms(
            [
                DictionaryPart(name, number, stride // 4, stride, (3, 3, 16 // stride, 16 // stride))
                for name, (number, stride) in sizes.items()
            ]
        )


def test_atoms_of_a_frozen_encoder_are_the_means_of_its_features_of_each_kind(made):
    images, kinds = faces()
    atoms = build_dictionary(EncoderNet(), images, boxes(), seed=0)
    assert len(made) == len(atoms) == 8
    x0, y0, x1, y1 = BOXES[1].int().tolist()
    for stride in (2, 4):
        features = 2 * nn.functional.avg_pool2d(images[:, :, y0:y1, x0:x1].float() / 255, stride)
        means = torch.stack([features[kinds[:, 1] == kind].mean(dim=0) for kind in range(3)])
        found = torch.cdist(atoms[f"right_eye_{stride}"].flatten(1), means.flatten(1))
        assert sorted(found.argmin(dim=1).tolist()) == [0, 1, 2]
        # the last mini-batches decide where a centre ends, within the noise of the images
        assert found.amin(dim=1).max() < 0.05


def test_dictionary_of_another_encoder_is_another(made):
    images, net = faces()[0], EncoderNet()
    build_dictionary(net, images, boxes(), seed=0)
    net.vgg.weight.data.fill_(3.0)
    build_dictionary(net, images, boxes(), seed=0)
    assert len(made) == 16


def test_large_sets_are_sampled_by_seed(monkeypatch):
    monkeypatch.setattr(dictionaries, "LARGEST_SAMPLE", 20)
    images, crops, seen = faces()[0], dictionaries._encode_crops, []
    monkeypatch.setattr(dictionaries, "_encode_crops", lambda *given: seen.append(given[1]) or crops(*given))
    for seed in (0, 1):
        dictionary(seed=seed, images=images)
    assert {len(given) for given in seen} == {20}
    assert torch.equal(seen[0], seen[3])
    assert not torch.equal(seen[0], seen[4])
