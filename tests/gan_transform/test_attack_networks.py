import pytest
import torch

from stages.common.errors import InputError
from stages.gan_transform.attack_networks import (
    LocallyConnected,
    blockwise,
    build_generator,
    discriminator,
    local,
    shared,
    uwa_block_network,
    uwa_network,
)


def parameters(net):
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_parameter_counts_are_those_of_the_specification():
    assert parameters(blockwise()) == 31_107
    assert parameters(shared()) == 43_267
    assert parameters(local(32)) == 299_011
    assert parameters(local(96)) == 823_299
    assert parameters(discriminator()) == 136_192
    assert parameters(uwa_network("lin", 32)) == 12 * 32 * 32


@pytest.mark.parametrize(("size", "side"), [(32, 1), (96, 7)])
def test_the_discriminator_gives_one_logit_at_32_px_and_7_x_7_at_96(size, side):
    assert discriminator(8)(torch.rand(1, 3, size, size)).shape == (1, 1, side, side)


@pytest.mark.parametrize("kind", ["blockwise", "shared", "local", "unet"])
def test_every_generator_keeps_the_size_and_ends_in_tanh(kind):
    G = build_generator(kind, size=32, divisor=4, unet_widths=[4, 8])
    found = G(torch.randn(2, 3, 32, 32))
    assert found.shape == (2, 3, 32, 32) and found.abs().max() <= 1


def test_locally_connected_equals_a_loop_over_pixels():
    torch.manual_seed(0)
    layer = LocallyConnected(3, 5, 4)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 4, 4)
    y = layer(x)
    for h in range(4):
        for w in range(4):
            k = 4 * h + w
            expected = x[:, :, h, w] @ layer.weight[k].T + layer.bias[k, :, 0]
            assert torch.allclose(y[:, :, h, w], expected, atol=1e-6)


def test_tied_weights_are_a_1_x_1_convolution():
    torch.manual_seed(0)
    layer, conv = LocallyConnected(3, 5, 4), torch.nn.Conv2d(3, 5, 1)
    with torch.no_grad():
        layer.weight.copy_(conv.weight[:, :, 0, 0].expand(16, 5, 3))
        layer.bias.copy_(conv.bias[:, None].expand(16, 5, 1))
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(layer(x), conv(x), atol=1e-6)


def test_an_unshared_block_sees_no_other_block():
    net = uwa_block_network(8)
    a = torch.rand(1, 3, 8, 8)
    b = a.clone()
    b[..., :4, :4] = 0
    changed = (net(a) != net(b)).any(1)[0]
    assert changed[:4, :4].all() and not changed[4:].any() and not changed[:, 4:].any()


def test_a_wrong_divisor_and_a_side_without_blocks_are_one_sentence():
    with pytest.raises(InputError, match="ga_width_divisor"):
        build_generator("shared", size=32, divisor=3, unet_widths=[4])
    with pytest.raises(InputError, match="multiple of 4"):
        build_generator("blockwise", size=30, divisor=1, unet_widths=[4])
