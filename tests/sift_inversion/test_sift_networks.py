"""Shapes, layer and parameter counts of the specification; what each network can and cannot see."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate

from stages.common.errors import InputError
from stages.sift_inversion.models import build_coarse
from stages.sift_inversion.networks import (
    CoarseNet,
    Discriminator,
    Dosovitskiy,
    FineNet,
    NearestConv,
    Refined,
    half,
    parameters,
    table,
)

TINY = {"size": 32, "width": 0.0625, "channels": 128}


def maps(size, n=2, channels=128):
    return {d: torch.rand(n, channels, size // d, size // d) for d in (4, 2)}


def on_meta(make, *shapes):
    with torch.device("meta"):
        net = make()
        inputs = [torch.empty(shape) for shape in shapes]
        return net, table(net, *inputs)


@pytest.mark.parametrize(
    ("d", "size", "convs", "count"),
    [
        (4, 256, 10, 12_995_843),
        (2, 256, 11, 12_881_539),
        (4, 128, 8, None),
        (2, 128, 9, None),
        (4, 64, 6, None),
        (2, 64, 7, None),
    ],
)
def test_the_halves_of_R_have_the_layers_of_the_specification(d, size, convs, count):
    net, rows = on_meta(
        lambda: half(d, size=size, width=1, channels=128), (1, 128, size // d, size // d)
    )
    assert len(rows) == convs
    assert min(row.side for row in rows) == 4
    assert (rows[-1].side, rows[-1].c_out) == (size, 3)
    assert rows[0].kernel == 5 and {row.kernel for row in rows[1:]} == {3}
    assert sum(row.parameters for row in rows) == parameters(net)
    assert count is None or parameters(net) == count


def test_the_left_half_is_the_table_of_the_specification():
    _, rows = on_meta(lambda: half(4, size=256, width=1, channels=128), (1, 128, 64, 64))
    assert [(row.kind, row.c_out, row.side) for row in rows] == [
        ("conv", 256, 32),
        ("conv", 512, 16),
        ("conv", 512, 8),
        ("conv", 512, 4),
        ("up", 512, 8),
        ("up", 512, 16),
        ("up", 256, 32),
        ("up", 128, 64),
        ("up", 64, 128),
        ("up", 3, 256),
    ]


@pytest.mark.parametrize("size", [64, 128])
def test_smaller_images_take_the_first_and_the_last_widths(size):
    _, rows = on_meta(
        lambda: half(2, size=size, width=1, channels=128), (1, 128, size // 2, size // 2)
    )
    downs = {64: [128, 256, 512], 128: [128, 256, 512, 512]}[size]
    ups = {64: [256, 128, 64, 3], 128: [512, 256, 128, 64, 3]}[size]
    assert [row.c_out for row in rows] == downs + ups


@pytest.mark.parametrize(("size", "count"), [(256, 56_197_443), (128, 14_382_915), (64, 3_928_643)])
def test_the_baseline_has_the_parameters_of_the_specification(size, count):
    with torch.device("meta"):
        net = Dosovitskiy(size=size, width=1, channels=133)
    assert parameters(net) == count


def test_the_fine_network_has_the_parameters_of_the_specification():
    net, rows = on_meta(lambda: FineNet(ngf=64, blocks=9, dropout=0.5), (1, 3, 256, 256))
    assert parameters(net) == 11_378_179
    assert len(rows) == 2 + 1 + 2 * 9 + 2 + 1
    assert min(row.side for row in rows) == 64


@pytest.mark.parametrize(("size", "side"), [(256, 30), (128, 14), (64, 6)])
def test_the_discriminator_has_the_logits_of_the_specification(size, side):
    net, rows = on_meta(
        lambda: Discriminator(ndf=64, layers=3, conditional=True), *[(1, 3, size, size)] * 2
    )
    assert parameters(net) == 2_768_705
    assert [row.side for row in rows][-1] == side


def field(layers, size):
    """Side of the pixels that one inner logit depends on."""
    D = Discriminator(ndf=4, layers=layers, conditional=True).eval()
    torch.manual_seed(0)
    c, image = torch.rand(2, 1, 3, size, size)
    image.requires_grad_()
    logits = D(c, image)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    rows, cols = seen.any(1), seen.any(0)
    assert torch.equal(seen, rows[:, None] & cols)
    return int(rows.sum()), int(cols.sum())


def test_a_logit_sees_70_pixels_or_34_with_two_layers():
    assert field(3, 160) == (70, 70)
    assert field(2, 96) == (34, 34)


def test_an_unconditional_discriminator_does_not_see_the_coarse_image():
    D = Discriminator(ndf=4, layers=2, conditional=False).eval()
    c, other, image = torch.rand(3, 1, 3, 64, 64)
    assert torch.equal(D(c, image), D(other, image))
    seeing = Discriminator(ndf=4, layers=2, conditional=True).eval()
    assert not torch.equal(seeing(c, image), seeing(other, image))


def test_nearest_conv_is_upsampling_and_convolution():
    torch.manual_seed(0)
    net = NearestConv(5, 3).double()
    x = torch.rand(2, 5, 6, 8, dtype=torch.float64)
    assert net.bias is not None
    expected = conv2d(interpolate(x, scale_factor=2), net.weight, net.bias, padding=1)
    assert torch.allclose(net(x), expected, rtol=0, atol=1e-12)


def test_the_fine_network_starts_as_the_identity():
    G = FineNet(ngf=4, blocks=1, dropout=0.5)
    x = 4 * torch.rand(2, 3, 32, 32) - 2
    assert torch.equal(G(x), x.clamp(-1, 1))
    nn.init.normal_(G.layers[-2].weight)
    assert not torch.equal(G(x), x.clamp(-1, 1))
    assert G(x).abs().max() <= 1


def test_R_averages_the_tanh_of_its_halves():
    R = CoarseNet([4, 2], **TINY).eval()
    F = maps(32)
    expected = (R.halves[0](F[4]).tanh() + R.halves[1](F[2]).tanh()) / 2
    assert torch.allclose(R(F), expected, atol=1e-6)
    assert R(F).shape == (2, 3, 32, 32)


def test_the_ensemble_control_has_two_halves_of_one_scale():
    R = CoarseNet([4, 4], **TINY)
    assert parameters(R) == 2 * parameters(CoarseNet([4], **TINY))
    assert not torch.equal(R.halves[0][0].weight, R.halves[1][0].weight)
    assert R({4: maps(32)[4]}).shape == (2, 3, 32, 32)


def test_an_image_without_keypoints_gives_finite_images():
    F = {d: torch.zeros_like(F_d) for d, F_d in maps(32).items()}
    for net in (CoarseNet([4, 2], **TINY), Dosovitskiy(**TINY)):
        assert torch.isfinite(net.eval()(F)).all()


@pytest.mark.parametrize("make", [lambda: CoarseNet([4, 2], **TINY), lambda: Dosovitskiy(**TINY)])
def test_no_width_falls_below_eight(make):
    with torch.device("meta"):
        rows = table(make(), {d: torch.empty(1, 128, 32 // d, 32 // d) for d in (4, 2)})
    assert min(row.c_out for row in rows if row.c_out != 3) == 8


def test_the_baseline_keeps_the_size_of_its_signal():
    """He's scale, with the up-convolution's zeros not counted: no layer fades or explodes."""
    torch.manual_seed(0)
    net = Dosovitskiy(size=128, width=0.25, channels=133)
    out = net({4: torch.randn(4, 133, 32, 32)}).detach()
    assert 0.3 < float(out.std()) < 3


def test_R_and_G_together_give_both_images():
    nets = Refined(CoarseNet([4], **TINY), FineNet(ngf=4, blocks=1, dropout=0)).eval()
    c, o = nets(maps(32))
    assert torch.equal(o, c.clamp(-1, 1))
    assert {name.split(".")[0] for name in nets.state_dict()} == {"R", "G"}


@pytest.mark.parametrize("size", [16, 48, 250, 512])
def test_a_size_that_does_not_fit_is_one_sentence(size):
    with pytest.raises(InputError, match="does not fit the images"):
        CoarseNet([4, 2], size=size, width=1, channels=128)


def test_the_baseline_refuses_other_inputs():
    with pytest.raises(InputError, match="wrong inputs"):
        build_coarse({**TINY, "net": "dosovitskiy", "inputs": [4, 2]})
