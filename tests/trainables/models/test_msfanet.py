"""M-SFANet: parameters of its parts, context, attention, and the weights of its VGG-16."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from study.errors import InputError
from trainables.models import msfanet
from trainables.models.msfanet import Context, Decoder, MSFANet
from trainables.task import count_parameters


def test_parts_of_msfanet_have_their_parameters_to_the_unit():
    net = MSFANet().build(3)
    parts = {name: count_parameters(part) for name, part in net.named_children()}
    assert parts == {
        "vgg": 14_723_136,
        "context": 1_836_032,
        "aspp": 4_131_840,
        "density_path": 1_106_656,
        "attention_path": 1_106_656,
        "attention": 35,
        "density": 33,
    }


def test_context_of_an_even_image_is_that_image():
    # where x is the same everywhere, its means over any parts are equal, whatever their weights
    torch.manual_seed(0)
    context = Context(4)
    for conv in context.means[1:]:
        conv.load_state_dict(context.means[0].state_dict())
    x = torch.rand(1, 4, 1, 1)
    everywhere = context(x.expand(1, 4, 6, 9))
    mean = context.means[0](x)
    expected = torch.relu(context.join(torch.cat([mean, x], dim=1)))
    torch.testing.assert_close(everywhere, expected.expand_as(everywhere))


def test_contrast_is_between_the_image_and_its_means():
    context, seen = Context(4), []
    for conv in context.means:
        conv.weight.data = torch.eye(4)[:, :, None, None]
    context.contrast.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    context(torch.rand(1, 4, 1, 1).expand(1, 4, 6, 6))
    assert max(contrast.abs().max() for contrast in seen) < 1e-6, "there is none in an even image"
    image = torch.rand(1, 4, 6, 6)
    context(image)
    torch.testing.assert_close(seen[4], image - image.mean(dim=(2, 3), keepdim=True))


def test_density_is_nothing_where_attention_is_none():
    net = MSFANet(4).build(3).eval()
    net.attention[1].bias.data.fill_(-200.0)
    density, attention = net(torch.rand(1, 3, 32, 32))
    assert attention.max() == 0
    assert torch.equal(density, net.density.bias.view(1, 1, 1, 1).expand_as(density))


def test_decoder_joins_four_scales():
    decoder = Decoder(4).eval()
    shapes = [(8, 32), (16, 16), (32, 8), (16, 4)]
    assert decoder(*(torch.rand(1, channels, side, side) for channels, side in shapes)).shape == (1, 2, 32, 32)


def test_front_end_is_torchvisions_vgg16_with_batch_norm():
    theirs = make_layers(cfgs["D"], batch_norm=True)
    ours = MSFANet().build(3).vgg
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs[:43].eval()(x))


def list_authors_layers() -> set[str]:
    """The layers with weights of the authors' checkpoints, by their own names."""
    convs = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    front = [f"vgg.conv{stage}_{number}" for stage, count in convs.items() for number in range(1, count + 1)]
    decoders = [f"{path}.conv{number}" for path in ("amp", "dmp") for number in range(1, 8)]
    layers = {f"{block}.{part}" for block in (*front, *decoders, "conv_att", "conv_out") for part in ("conv", "bn")}
    layers |= {f"spm.can.scales.{number}.1" for number in range(4)} | {"spm.can.weight_net", "spm.can.bottleneck"}
    layers |= {f"spm.assp.aspp{number}.{part}" for number in range(1, 5) for part in ("atrous_conv", "bn")}
    return layers | {"spm.assp.global_avg_pool.1", "spm.assp.global_avg_pool.2", "spm.assp.conv1", "spm.assp.bn1"}


def test_names_map_one_to_one_to_those_of_the_authors_checkpoints():
    net = MSFANet().build(3)
    theirs = net.expect_authors_state()
    assert {name.rpartition(".")[0] for name in theirs} == list_authors_layers()
    counted = [tensor.numel() for name, tensor in theirs.items() if "running" not in name and "tracked" not in name]
    assert sum(counted) == 22_904_390, "with the batch norm that they do not use"
    assert theirs["spm.can.bottleneck.weight"].shape == (512, 1024, 1, 1)
    assert theirs["dmp.conv3.conv.weight"].shape == (128, 768, 1, 1)
    renamed = net.rename_authors_state(theirs)
    assert renamed.keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, renamed[name]) for name, tensor in net.state_dict().items())


def test_means_of_the_context_are_upsampled_between_the_centres_of_their_cells():
    """As the authors' code does, in contrast to everything else that is upsampled in this net."""
    context, seen = Context(1), []
    for conv in context.means:
        conv.weight.data.fill_(1.0)
    context.contrast.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 4)[None, None]
    context(image)
    means = image - seen[1]  # over 2 × 2 cells: centres at columns 0.5 and 2.5
    assert means[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


@pytest.fixture
def checkpoints(tmp_path, monkeypatch) -> Path:
    """torchvision's folder of weights, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    msfanet._load_imagenet_features.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    msfanet._load_imagenet_features.cache_clear()


def test_imagenet_weights_that_are_missing_are_named_with_their_folder(checkpoints):
    with pytest.raises(InputError, match=f"vgg16_bn-6c64b313.pth are not in {checkpoints}"):
        MSFANet(imagenet=True).build(3)


def test_imagenet_weights_that_are_damaged_are_refused(checkpoints):
    checkpoints.mkdir(parents=True)
    (checkpoints / msfanet.IMAGENET_FILE).write_bytes(b"no weights")
    with pytest.raises(InputError, match="not the one in its name"):
        MSFANet(imagenet=True).build(3)


def test_imagenet_weights_start_the_front_end(checkpoints, monkeypatch):
    checkpoints.mkdir(parents=True)
    features = make_layers(cfgs["D"], batch_norm=True).state_dict()
    state = {f"features.{name}": tensor for name, tensor in features.items()} | {"classifier.0.bias": torch.zeros(1)}
    torch.save(state, checkpoints / "aside")
    checksum = hashlib.sha256((checkpoints / "aside").read_bytes()).hexdigest()
    monkeypatch.setattr(msfanet, "IMAGENET_FILE", f"vgg16_bn-{checksum[:8]}.pth")
    (checkpoints / "aside").rename(checkpoints / msfanet.IMAGENET_FILE)
    net = MSFANet(imagenet=True).build(3)
    assert all(torch.equal(tensor, features[name]) for name, tensor in net.vgg.state_dict().items())
