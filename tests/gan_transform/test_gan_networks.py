import pytest
import torch
from torch import nn

from stages.common.errors import InputError
from stages.common.networks.unet import UNet
from stages.gan_transform.networks import (
    VGG13,
    Adaptation,
    PatchGAN,
    ResNet18,
    constant_normalisation,
    load_frozen,
    translator,
)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts_are_those_of_the_specification():
    assert parameters(VGG13(10, constant_normalisation())) == 9_416_010
    assert parameters(ResNet18(10, constant_normalisation())) == 11_173_962
    assert parameters(translator([64, 128, 256, 512, 1024])) == 34_527_171
    assert parameters(PatchGAN()) == 2_764_737


def test_patchgan_gives_2_x_2_logits_at_32_px():
    assert PatchGAN(8)(torch.rand(1, 3, 32, 32)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize("size", [32, 96])
def test_unet_keeps_the_size(size):
    assert UNet([4, 8, 8, 8, 8])(torch.rand(1, 3, size, size)).shape == (1, 3, size, size)


def test_unet_refuses_a_side_it_cannot_halve():
    with pytest.raises(ValueError, match="multiples of 4"):
        UNet([4, 4, 4])(torch.rand(1, 3, 30, 30))


def test_the_translator_stays_inside_0_and_1():
    found = translator([4, 8])(100 * torch.randn(2, 3, 16, 16))
    assert found.min() >= 0 and found.max() <= 1


def test_adaptation_lays_a_block_out_where_it_was():
    """A change in one 4 x 4 block changes that block of the output and no other."""
    net = Adaptation().eval()
    a = torch.rand(1, 3, 16, 16)
    b = a.clone()
    b[..., 4:8, 8:12] = 0
    changed = (net(a) - net(b)).abs().sum((0, 1)) > 0
    assert changed[4:8, 8:12].any()
    changed[4:8, 8:12] = False
    assert not changed.any()
    assert net(a).shape == (1, Adaptation.CHANNELS, 16, 16)


def test_resnet_takes_what_the_adaptation_network_gives():
    net = ResNet18(5, Adaptation(), channels=Adaptation.CHANNELS, width=8)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_a_width_that_crashes_the_convolution_library_is_refused():
    with pytest.raises(InputError, match="multiple of 8"):
        ResNet18(10, constant_normalisation(), width=4)


def test_normalisation_is_inside_the_network_and_saved_with_it(tmp_path):
    from safetensors.torch import save_file

    net = VGG13(10, constant_normalisation(), 8)
    net.normalise.mean.fill_(0.25)
    save_file(net.state_dict(), tmp_path / "h.safetensors")
    other = load_frozen(VGG13(10, constant_normalisation(), 8), tmp_path / "h.safetensors")
    assert float(other.normalise.mean[0]) == 0.25
    assert not other.training
    assert not any(p.requires_grad for p in other.parameters())


def test_relu1_2_is_the_map_after_the_second_relu():
    h = VGG13(10, constant_normalisation(), 8).eval()
    x = torch.rand(1, 3, 32, 32)
    maps = []
    for layer in h.features:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda *args: maps.append(args[2]))
    h(x)
    assert torch.equal(h.relu1_2(x), maps[1])
