import pytest
import torch
from torch import nn

from stages.colourisation.networks import build, plan_discriminator, plan_generator
from stages.common.errors import InputError
from stages.common.networks.normalisation import IBNa, ScalarLayerNorm
from stages.common.params import load_params

WIDTHS_G = [64, 128, 256, 512, 512, 512, 512]
WIDTHS_D = [64, 128, 256, 512]
VARIANTS = load_params()["colourisation"]["variants"]
LAYERS = {nn.BatchNorm2d: "bn", nn.InstanceNorm2d: "in", ScalarLayerNorm: "ln", IBNa: "ibn_a"}


def generator(norm="bn", sn="none", up="nearest_conv", widths=WIDTHS_G, size=256):
    return plan_generator(widths=widths, norm=norm, sn=sn, up=up, size=size)


def discriminator(norm="bn", sn="none", rf="code94", widths=WIDTHS_D, size=256):
    return plan_discriminator(widths=widths, norm=norm, sn=sn, rf=rf, size=size)


def networks(norm="bn", sn="none", scales=1, up="nearest_conv", rf="code94", **sizes):
    sizes = {"widths_g": WIDTHS_G, "widths_d": WIDTHS_D, "size": 256} | sizes
    with torch.device("meta") if sizes["size"] == 256 else torch.device("cpu"):
        return build(
            norm=norm, sn=sn, scales=scales, up=up, rf=rf, bn_momentum=0.01, bn_eps=1e-3, **sizes
        )


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_generator_is_the_table_of_the_paper():
    rows = [(r.name, r.c_in, r.size_in, r.c_out, r.size_out, r.skip) for r in generator()]
    assert rows == [
        ("e1", 1, 256, 64, 128, None),
        ("e2", 64, 128, 128, 64, None),
        ("e3", 128, 64, 256, 32, None),
        ("e4", 256, 32, 512, 16, None),
        ("e5", 512, 16, 512, 8, None),
        ("e6", 512, 8, 512, 4, None),
        ("e7", 512, 4, 512, 2, None),
        ("d1", 512, 2, 512, 4, "e6"),
        ("d2", 1024, 4, 512, 8, "e5"),
        ("d3", 1024, 8, 512, 16, "e4"),
        ("d4", 1024, 16, 256, 32, "e3"),
        ("d5", 512, 32, 128, 64, "e2"),
        ("d6", 256, 64, 64, 128, "e1"),
        ("out", 128, 128, 2, 256, None),
    ]


@pytest.mark.parametrize(
    ("norm", "e2", "e5", "d1", "d5", "d6", "c2", "c3", "c4"),
    [
        ("bn", "bn", "bn", "bn", "bn", "bn", "bn", "bn", "bn"),
        ("in", "in", "in", "in", "in", "in", "in", "in", "in"),
        ("ln", "ln", "ln", "ln", "ln", "ln", "ln", "ln", "ln"),
        ("ibn", "bn", "bn", "bn", "bn", "in", "in", "bn", "bn"),
        ("ibn_fig", "bn", "bn", "bn", "bn", "in", "in", "bn", "none"),
        ("ibn_a", "ibn_a", "bn", "bn", "ibn_a", "ibn_a", "ibn_a", "ibn_a", "bn"),
    ],
)
def test_normalisation_is_placed_as_in_figure_2(norm, e2, e5, d1, d5, d6, c2, c3, c4):
    g = {r.name: r.norm for r in generator(norm)}
    d = {r.name: r.norm for r in discriminator(norm)}
    assert (g["e2"], g["e5"], g["d1"], g["d5"], g["d6"]) == (e2, e5, d1, d5, d6)
    assert (d["c2"], d["c3"], d["c4"]) == (c2, c3, c4)
    assert g["e1"] == g["out"] == d["c1"] == d["out"] == "none"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_built_layers_are_those_of_the_plan(name):
    variant = VARIANTS[name]
    keys = {k: variant[k] for k in ("norm", "sn", "scales")}
    G, D = networks(**keys, widths_g=[8] * 7, widths_d=[8] * 4)

    def kinds(net):
        return [LAYERS[type(m)] for m in net.modules() if type(m) in LAYERS]

    norm, scales = variant["norm"], variant["scales"]
    assert len(kinds(G)) == 12
    assert len(kinds(D)) == 3 * scales
    if norm == "ibn":
        assert (kinds(G).count("bn"), kinds(G).count("in")) == (11, 1)
        assert (kinds(D).count("bn"), kinds(D).count("in")) == (2 * scales, scales)
    else:
        assert set(kinds(G)) == {norm}
    normed = [sum(hasattr(m, "parametrizations") for m in net.modules()) for net in (G, D)]
    expected = {"none": [0, 0], "all": [14, 5 * scales], "unnormed": [2, 2 * scales]}
    assert normed == expected[variant["sn"]]


@pytest.mark.parametrize(
    ("norm", "up", "parameters"),
    [
        ("bn", "nearest_conv", 41_830_402),
        ("in", "nearest_conv", 41_830_402),
        ("ln", "nearest_conv", 41_821_594),
        ("bn", "transposed", 41_830_402),
    ],
)
def test_generator_has_the_paper_sized_number_of_parameters(norm, up, parameters):
    G, _ = networks(norm, up=up)
    assert count(G) == parameters


@pytest.mark.parametrize(("scales", "parameters"), [(1, 2_766_529), (3, 8_299_587)])
def test_discriminators_have_the_paper_sized_number_of_parameters(scales, parameters):
    _, D = networks(scales=scales)
    assert count(D) == parameters


@pytest.mark.parametrize(("rf", "sides"), [("code94", [16, 8, 4]), ("pix2pix70", [30, 14, 6])])
def test_shapes_at_256_pixels(rf, sides):
    G, D = networks(scales=3, rf=rf)
    x, y = torch.empty(1, 1, 256, 256, device="meta"), torch.empty(1, 2, 256, 256, device="meta")
    assert G(x).shape == (1, 2, 256, 256)
    assert [k.shape[-1] for k in D(x, y)] == sides


@pytest.mark.parametrize(("size", "widths"), [(32, [4, 4, 4]), (64, [4] * 5), (96, [4] * 5)])
@pytest.mark.parametrize("up", ["nearest_conv", "transposed"])
def test_shapes_at_small_sizes(size, widths, up):
    G, D = networks(size=size, widths_g=widths, widths_d=[4, 4], up=up)
    x, y = torch.rand(2, 1, size, size), torch.rand(2, 2, size, size)
    assert G(x).shape == (2, 2, size, size)
    assert G(x).abs().max() <= 1
    assert D(x, y)[0].shape == (2, 1, size // 4, size // 4)


@pytest.mark.parametrize(("size", "depth"), [(32, 5), (48, 5), (33, 2), (1, 2)])
def test_a_size_that_does_not_halve_often_enough_is_refused(size, depth):
    with pytest.raises(InputError, match="cannot halve"):
        generator(widths=[4] * depth, size=size)


def test_the_second_scale_sees_the_pooled_pair():
    _, D = networks(size=32, widths_g=[4, 4], widths_d=[4], scales=2, norm="none")
    x, y = torch.rand(1, 1, 32, 32), torch.rand(1, 2, 32, 32)
    pooled = nn.functional.avg_pool2d(torch.cat([x, y], 1), 2)
    assert torch.equal(D(x, y)[1], D.scales[1](pooled))
