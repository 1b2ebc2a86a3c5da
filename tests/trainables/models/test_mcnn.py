"""MCNN and M-SFANet: parameters to the unit, shapes, and the parts that torchvision has too."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from study.errors import InputError
from trainables.models import msfanet
from trainables.models.mcnn import MCNN
from trainables.models.msfanet import Context, Decoder, MSFANet
from trainables.task import count_parameters

# Golden counts: computed by hand from the layers of the two papers (0.512, 0.535 and 91.6 MB in float32).
EXACT = [(MCNN(), 1, 127_953), (MCNN(), 3, 133_705), (MSFANet(), 3, 22_904_388)]


@pytest.mark.parametrize(("model", "channels", "count"), EXACT)
def test_published_nets_have_their_parameters_to_the_unit(model, channels, count):
    assert count_parameters(model.build(channels)) == count


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


@pytest.mark.parametrize(("model", "stride"), [(MCNN(), 4), (MCNN(0.2), 4), (MSFANet(4), 2)])
@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
def test_maps_are_a_fixed_share_of_the_image(model, stride, size):
    returned = model.build(3).eval()(torch.rand(2, 3, *size))
    for density in (returned,) if isinstance(returned, torch.Tensor) else returned:
        assert density.shape == (2, 1, size[0] // stride, size[1] // stride)


def test_density_is_linear_and_attention_a_share():
    torch.manual_seed(0)
    density, attention = MSFANet(4).build(3).eval()(100 * torch.randn(2, 3, 32, 32))
    assert ((attention > 0) & (attention < 1)).all()
    assert (density < 0).any(), "a final ReLU would have clipped it"
    assert (MCNN(0.2).build(3)(torch.randn(4, 3, 32, 32)) < 0).any()


def test_widths_make_names_and_narrower_nets():
    assert [MCNN().name, MCNN(0.35).name] == ["mcnn", "mcnn-0.35"]
    assert [MSFANet().name, MSFANet(8).name] == ["m_sfanet", "m_sfanet-8"]
    assert count_parameters(MCNN(0.35).build(3)) == 18_880
    assert count_parameters(MSFANet(8).build(3)) == 360_524


@pytest.mark.parametrize(
    "make",
    [lambda: MCNN(0), lambda: MCNN(5), lambda: MSFANet(3), lambda: MSFANet(0), lambda: MSFANet(8, imagenet=True)],
)
def test_impossible_nets_are_refused(make):
    with pytest.raises(InputError, match="width"):
        make()


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
