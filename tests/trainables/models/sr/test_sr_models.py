"""All super-resolution nets: parameters to the unit, names, shapes, and settings that are refused."""

from __future__ import annotations

import pytest
import torch

from study.errors import InputError
from tests.trainables.models.sr.nets import boxes, built
from trainables.models.sr.common import Bicubic
from trainables.models.sr.dictionary_sr import VggSR
from trainables.models.sr.rcan import RCAN
from trainables.models.sr.small_sr import SmallSR
from trainables.models.sr.srfbn import SRFBN
from trainables.task import count_parameters

# Golden counts: RCAN and SRFBN as in the public implementations (SRFBN's authors give 3,631 and 483 thousand at scale
# 4), the small nets as in the sketch that this repository's figures come from.
EXACT = [
    (RCAN(), 2, 15_444_643),
    (RCAN(), 4, 15_592_355),
    (RCAN(), 8, 15_740_067),
    (RCAN(groups=5, blocks=10), 8, 4_390_027),
    (SRFBN(), 4, 3_631_454),
    (SRFBN(), 8, 7_891_294),
    (SRFBN(width=32, groups=3), 4, 483_122),
    (SRFBN(width=32, groups=3), 8, 1_056_562),
    (SmallSR(8), 8, 36_915),
    (SmallSR(16), 8, 146_403),
    (SmallSR(16, atoms=8), 8, 238_947),
    (Bicubic(), 8, 0),
]
SMALL = [RCAN(groups=2, blocks=1, width=16), SRFBN(width=4, groups=2, steps=3), SmallSR(4), SmallSR(4, 3), Bicubic()]


@pytest.mark.parametrize(("model", "scale", "count"), EXACT, ids=lambda value: getattr(value, "name", value))
def test_nets_have_their_parameters_to_the_unit(model, scale, count):
    # nothing is computed, except in confidences, whose spectral norms begin with it
    with torch.device("cpu" if getattr(model, "atoms", 0) else "meta"):
        assert count_parameters(model.build(scale)) == count


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.name)
@pytest.mark.parametrize("scale", [2, 8])
@pytest.mark.parametrize("training", [True, False])
def test_images_and_features_are_enlarged(model, scale, training):
    made = built(model, scale).train(training)(torch.rand(2, 3, 8, 16), boxes(2).float())
    assert made.image.shape == (2, 3, 8 * scale, 16 * scale)
    assert made.features.shape == (2, getattr(model, "width", 3), 8 * scale, 16 * scale)
    assert torch.isfinite(made.image).all()


@pytest.mark.parametrize("model", SMALL[:-1], ids=lambda model: model.name)
def test_every_parameter_learns_from_the_image(model):
    net = built(model)
    made = net(torch.rand(2, 3, 8, 8), boxes(2).float())
    made.image.square().mean().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("model", [RCAN(groups=1, blocks=1, width=16), SRFBN(width=4, groups=1)])
def test_scales_that_a_net_does_not_have_are_refused(model):
    with pytest.raises(InputError, match="at scale 3"):
        model.build(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RCAN(groups=0),
        lambda: RCAN(width=20),
        lambda: SRFBN(steps=0),
        lambda: SmallSR(0),
        lambda: SmallSR(atoms=-1),
        lambda: SmallSR(sizes=(16, 16, 16, 20)),
        lambda: VggSR(sizes=(40, 40, 24)),
        lambda: VggSR(atoms=32, control=True),
        lambda: VggSR(sizes=(40, 40, 25, 56)),
    ],
)
def test_impossible_nets_are_refused(make):
    with pytest.raises(InputError, match="allowed"):
        make()


def test_settings_make_names():
    assert [RCAN().name, RCAN(5, 10).name] == ["rcan", "rcan-g5-b10"]
    assert [SRFBN().name, SRFBN(32, 3).name] == ["srfbn", "srfbn-w32-g3"]
    assert [SmallSR().name, SmallSR(8, atoms=4).name] == ["small_sr-16", "small_sr-8-4atoms"]
    names = [VggSR().name, VggSR(atoms=32).name, VggSR(control=True).name]
    assert names == ["vgg_sr", "vgg_sr-32atoms", "vgg_sr-control"]
