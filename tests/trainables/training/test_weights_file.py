"""Teacher files as trainers save them: wrappers, prefixes, missing counters, other objects, other shapes."""

from __future__ import annotations

import copy
import os
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from study.errors import InputError
from trainables.models.resnet_cifar import ResNet
from trainables.teacher.weights import load_weights


def build(width: int = 4, classes: int = 10, depth: int = 8) -> nn.Module:
    return ResNet(depth, width=width).build(3, classes)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(3)
    net = build()
    for name, tensor in net.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 2)
    return net.eval()


def outputs(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(torch.linspace(-1, 1, 3072).view(1, 3, 32, 32))


def prefixed(state, *prefixes):
    return {f"{prefix}{name}": tensor for prefix in prefixes for name, tensor in state.items()}


def without(state, end="num_batches_tracked"):
    return {name: tensor for name, tensor in state.items() if not name.endswith(end)}


def halved(state):
    return {name: tensor / 2 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


PREFIXES = ["", "module.", "_orig_mod.", "model.", "net.", "ema.", "network.", "my_net.", "module._orig_mod.",
            "_orig_mod.module.", "model.net.", "model._orig_mod.module.", "ema.module.model."]  # fmt: skip

FILES = {
    "wrapped twice": lambda s: {"checkpoint": {"state_dict": prefixed(s, "module.")}},
    "lightning": lambda s: {"epoch": 3, "state_dict": prefixed(s, "model.") | {"criterion.weight": torch.ones(10)},
                            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}]},
    "optimizer": lambda s: {"net": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(4)}}}, "acc": 95.1},
    "twice the same": lambda s: {"model": s, "state_dict": prefixed(s, "module.")},
    "plain and EMA": lambda s: {"state_dict": s, "state_dict_ema": halved(s)},
    "plain and EMA, timm": lambda s: {"model": s, "model_ema": halved(s)},
    "online and EMA": lambda s: prefixed(s, "online_model.") | prefixed(halved(s), "ema_model.")
    | {"initted": torch.tensor(True), "step": torch.tensor(7)},
    "EMA alone": lambda s: {"args": None, "ema": prefixed(s, "module.")},
    "no counters": lambda s: without(s),
    "no counters, compiled": lambda s: {"weights": prefixed(without(s), "_orig_mod.")},
    "compiled within": lambda s: {n.replace("layer1.", "layer1._orig_mod.", 1): t for n, t in s.items()},
    "double precision": lambda s: {n: t.double() if t.is_floating_point() else t for n, t in s.items()},
    "ordered": lambda s: OrderedDict(s),
    "NumPy numbers": lambda s: {"model": s, "best_acc": np.float64(73.1), "epoch": np.int64(9),
                                "loss": np.float32(1), "best": np.bool_(True), "gpu": np.uint8(3), "run": np.str_("a")},
    "NumPy arrays": lambda s: {"model": s, "history": np.arange(4.0), "classes": np.array(["a", "b"]),
                               "generator": np.random.RandomState(0).get_state()},
    "arrays of NumPy": lambda s: {n: t.numpy() for n, t in s.items()},
    "in a list": lambda s: [s, {"acc": 1}],
    "numbers as keys": lambda s: {0: {"model": s}},
}  # fmt: skip


@pytest.mark.parametrize("key", ["", "state_dict", "model", "net", "weights", "ema", "model_state_dict", "params"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_and_wrappers_are_recognized_in_any_combination(net, tmp_path, prefix, key):
    state = prefixed(net.state_dict(), prefix)
    torch.save({key: state, "epoch": 240} if key else state, tmp_path / "t.pth")
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.pth")), outputs(net))


@pytest.mark.parametrize("name", FILES)
def test_file_as_a_trainer_saves_it_gives_the_net(net, tmp_path, name):
    torch.save(FILES[name](net.state_dict()), tmp_path / "t.pth")
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.pth")), outputs(net))


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, torch.compile])
def test_torchs_own_wrappers_are_unwrapped(net, tmp_path, wrap):
    torch.save(wrap(copy.deepcopy(net)).state_dict(), tmp_path / "t.ckpt")
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.ckpt")), outputs(net))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_older_torch_and_numpy_are_read(net, tmp_path, legacy):
    content = {"model": net.state_dict(), "best": np.float64(0.5)}
    torch.save(content, tmp_path / "t.pth.tar", _use_new_zipfile_serialization=not legacy)
    if legacy:  # the name in files written with NumPy 1
        path = tmp_path / "t.pth.tar"
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.pth.tar")), outputs(net))


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_safetensors_files_are_treated_alike(net, tmp_path, prefix):
    safetensors.torch.save_file(prefixed(without(net.state_dict()), prefix), tmp_path / "t.safetensors")
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.safetensors")), outputs(net))


def test_suffix_of_safetensors_files_has_any_case(net, tmp_path):
    safetensors.torch.save_file(net.state_dict(), tmp_path / "t.SAFETENSORS")
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.SAFETENSORS")), outputs(net))


class Settings:
    """An object of a class of the training script."""


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lambda net: {"model": net.state_dict(), "args": Namespace(lr=0.1)}, "argparse.Namespace"),
        (lambda net: {"model": net.state_dict(), "cfg": Settings()}, r"[\w.]+\.Settings"),
        (lambda net: {"model": net.state_dict(), "where": Path("/data")}, r"pathlib\.[\w.]+"),
        (lambda net: {"model": net.state_dict(), "span": slice(3)}, "slice"),
        (
            lambda net: {"model": net.state_dict(), "when": np.datetime64("2026-01-01")},
            r"numpy\.dtypes\.DateTime64DType",
        ),
        (lambda net: {"model": net.state_dict(), "all": np.array([{}])}, r"numpy\.dtypes\.ObjectDType"),
        (lambda net: net, r"trainables\.[\w.]+"),
        (lambda net: {"model": net}, r"trainables\.[\w.]+"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_object_is_named_with_the_line_that_saves_the_weights_alone(net, tmp_path, content, name, legacy):
    torch.save(content(net), tmp_path / "t.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=rf"contains {name}, .*torch\.save\(model\.state_dict\(\)") as raised:
        load_weights(build(), tmp_path / "t.pth")
    assert str(raised.value).isprintable()


def test_torchscript_program_is_refused_in_one_line(net, tmp_path):
    torch.jit.trace(net, torch.zeros(1, 3, 32, 32)).save(tmp_path / "t.pth")
    with pytest.raises(InputError, match=r"TorchScript.*torch\.save\(model\.state_dict") as raised:
        load_weights(build(), tmp_path / "t.pth")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: build(width=8).state_dict(),
         r"conv1\.weight is \(8, 3, 3, 3\), not \(4, 3, 3, 3\); .* and \d+ more: name the net, with its width"),
        (lambda s: build(classes=100).state_dict(),
         r"it has 100 outputs, this study's data need 10 \(fc\.weight is \(100, 16\), not .*\): give a"),
        (lambda s: s | {"fc.bias": torch.tensor(1.0)}, r"fc\.bias is \(\), not \(10,\): name the net"),
        (lambda s: build(depth=14).state_dict(), r"it has 'layer1\.1\..*', and \d+ more"),
        (lambda s: without(s, ".bias"), r"another architecture: it lacks 'bn1\.bias', .*and \d+ more"),
        (lambda s: s | {"head.weight": torch.ones(3)}, r"another architecture: it has 'head\.weight'"),
        (lambda s: prefixed(s, "encoder.") | {"head.weight": torch.ones(3)}, r"architecture: it has 'head\.weight'"),
        (lambda s: prefixed(s, "student.") | prefixed(halved(s), "teacher."),
         r"several sets of weights \(student, teacher\)"),
        (lambda s: {"model_a": s, "model_b": halved(s)}, r"several sets of weights \(model_a, model_b\)"),
        (lambda s: {"epoch": 3}, "no state_dict"),
        (lambda s: [1, 2], "no state_dict"),
        (lambda s: {}, "no state_dict"),
        (lambda s: s | {"fc.bias": torch.full((10,), torch.nan)}, "not finite, in fc.bias"),
        (lambda s: s | {"fc.weight": s["fc.weight"].to(torch.int8)}, r"fc\.weight is torch\.int8; save .* in float32"),
        (lambda s: s | {"fc.bias": s["fc.bias"].to("meta")}, r"without values: fc\.bias is on meta"),
        (lambda s: s | {"fc.weight": s["fc.weight"].to_sparse()}, "in the layout torch.sparse_coo"),
        (lambda s: s | {"fc.bias": s["fc.bias"].to(torch.complex64)}, r"fc\.bias is torch\.complex64; save"),
    ],
)  # fmt: skip
def test_file_that_does_not_fit_says_what_differs(net, tmp_path, change, message):
    torch.save(change(net.state_dict()), tmp_path / "t.pth")
    with pytest.raises(InputError, match=message):
        load_weights(build(), tmp_path / "t.pth")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short", b"\x80\x02\x1b[1m"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_file_is_refused_in_one_printable_line(tmp_path, content, suffix):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as raised:
        load_weights(build(), path)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404", "is a web page"),
        (b"\x1f\x8b\x08\x00", "packed by gzip"),
        (b"\x93NUMPY\x01\x00", "an array of NumPy"),
        (b'{"weight_map": {}}', "a JSON file"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_no_file_of_tensors_is_named(tmp_path, content, message, suffix):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_weights(build(), path)


def test_safetensors_file_has_any_suffix(net, tmp_path):
    safetensors.torch.save_file(net.state_dict(), tmp_path / "t.pth")
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.pth")), outputs(net))


@pytest.mark.parametrize("length", [0x80, 0x4B50])
def test_safetensors_file_is_known_whatever_the_length_of_its_header(net, tmp_path, length):
    content = safetensors.torch.save(net.state_dict())
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end]
    padded = header.ljust(-(-(len(header) - length) // 2**16) * 2**16 + length)  # its first bytes: a pickle's, a zip's
    (tmp_path / "t.pth").write_bytes(len(padded).to_bytes(8, "little") + padded + content[end:])
    assert torch.equal(outputs(load_weights(build(), tmp_path / "t.pth")), outputs(net))


def test_changed_byte_is_seen_where_the_file_has_checksums(net, tmp_path):
    path = tmp_path / "t.pth"
    torch.save(net.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.pth is damaged: .* does not fit its checksum"):
        load_weights(build(), path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(net.state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(outputs(load_weights(build(), path)), outputs(net))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "none"])
def test_file_that_cannot_exist_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(build(), tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir()], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_instead_of_waited_for(net, tmp_path, make):
    make(tmp_path / "t.pth")
    with pytest.raises(InputError, match=r"t\.pth is a folder, pipe or device"):
        load_weights(net, tmp_path / "t.pth")
