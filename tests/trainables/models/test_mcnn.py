"""MCNN, and what it has in common with M-SFANet: parameters to the unit, shapes, names and refused settings."""

from __future__ import annotations

import pytest
import torch

from study.errors import InputError
from trainables.models.mcnn import MCNN
from trainables.models.msfanet import MSFANet
from trainables.task import count_parameters

# Golden counts: computed by hand from the layers of the two papers (0.512, 0.535 and 91.6 MB in float32).
EXACT = [(MCNN(), 1, 127_953), (MCNN(), 3, 133_705), (MSFANet(), 3, 22_904_388)]


@pytest.mark.parametrize(("model", "channels", "count"), EXACT)
def test_published_nets_have_their_parameters_to_the_unit(model, channels, count):
    assert count_parameters(model.build(channels)) == count


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
