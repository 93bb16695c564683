import pytest
import torch
from torch import nn

from stages.common.errors import InputError
from stages.common.losses import adversarial_loss, decision_threshold
from stages.common.networks.normalisation import IBNa, ScalarLayerNorm, normalisation
from stages.common.networks.patchgan import PatchGAN, plan_patchgan, receptive_field
from stages.common.networks.spectral_norm import spectral_norm
from stages.common.networks.up_conv import UpConv


def upsample_then_convolve(layer, x):
    big = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    return nn.functional.conv2d(nn.functional.pad(big, (1, 2, 1, 2)), layer.weight, layer.bias)


@pytest.mark.parametrize("shape", [(2, 5, 6, 6), (1, 1, 1, 1), (3, 2, 4, 7)])
def test_up_conv_equals_nearest_upsampling_and_a_same_convolution(shape):
    torch.manual_seed(0)
    layer = UpConv(shape[1], 3)
    x = torch.randn(shape)
    assert torch.allclose(layer(x), upsample_then_convolve(layer, x), atol=1e-5)


def test_up_conv_has_the_same_gradients_and_parameters():
    torch.manual_seed(0)
    layer, x = UpConv(3, 4), torch.randn(2, 3, 5, 5)
    weigh = torch.randn(2, 4, 10, 10)
    ours = torch.autograd.grad((layer(x) * weigh).sum(), layer.weight)[0]
    naive = torch.autograd.grad((upsample_then_convolve(layer, x) * weigh).sum(), layer.weight)[0]
    assert torch.allclose(ours, naive, atol=1e-4)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "weight": (4, 3, 4, 4),
        "bias": (4,),
    }


def test_same_padding_impulse_response_spans_rows_minus_1_to_plus_2():
    layer = UpConv(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 1  # repeated to rows 8 and 9
    rows = layer(x)[0, 0].sum(1).nonzero().flatten()
    # row r sums upsampled rows r-1 .. r+2, so rows 8-2 .. 9+1 see the pixel
    assert rows.tolist() == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(("rf", "pixels"), [("code94", 94), ("pix2pix70", 70)])
def test_receptive_field_is_what_a_gradient_reaches(rf, pixels):
    norms = ["none"] * 4
    plan = plan_patchgan(channels=1, widths=[2, 2, 2, 2], norms=norms, sn="none", rf=rf, size=256)
    assert receptive_field(plan) == pixels
    D = PatchGAN(plan)
    for parameter in D.parameters():
        nn.init.constant_(parameter, 0.1)
    x = torch.zeros(1, 1, 256, 256, requires_grad=True)
    maps = D(x)
    assert maps.shape[-1] == {"code94": 16, "pix2pix70": 30}[rf]
    middle = maps.shape[-1] // 2
    maps[0, 0, middle, middle].backward()
    touched = x.grad[0, 0].nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [pixels, pixels]


def test_the_small_discriminator_of_the_gpu_profile_sees_34_pixels():
    plan = plan_patchgan(
        channels=3, widths=[8, 8, 8], norms=["none"] * 3, sn="none", rf="pix2pix70", size=96
    )
    assert receptive_field(plan) == 34


def test_spectral_norm_is_one_and_eval_mode_leaves_it_alone():
    torch.manual_seed(0)
    conv = spectral_norm(nn.Conv2d(8, 16, 4))
    x = torch.randn(1, 8, 8, 8)
    for _ in range(20):
        conv(x)
    sigma = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
    assert 0.99 <= sigma <= 1.03
    conv.eval()
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    conv(x)
    assert all(torch.equal(before[name], value) for name, value in conv.state_dict().items())


def test_spectral_norm_is_float32_under_bfloat16_autocast():
    torch.manual_seed(0)
    conv = spectral_norm(nn.Conv2d(8, 16, 4))
    x = torch.randn(1, 8, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(20):
            conv(x)
        weight = conv.weight
    assert weight.dtype == torch.float32
    assert 0.99 <= torch.linalg.matrix_norm(weight.flatten(1), 2) <= 1.03


@pytest.mark.parametrize("kind", ["bn", "in", "ln", "none"])
def test_a_scale_before_a_normalisation_is_cancelled(kind):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 4, bias=False), normalisation(kind, 8, momentum=0.1, eps=1e-5)
    x = torch.randn(4, 3, 16, 16) * 10
    before = norm(conv(x))
    with torch.no_grad():
        conv.weight *= 7
    change = (norm(conv(x)) - before).norm() / before.norm()
    assert (change <= 1e-3) if kind != "none" else (change > 1)


def test_scalar_layer_norm_is_group_norm_with_one_group_and_two_parameters():
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5, 5) * 3 + 1
    layer = ScalarLayerNorm(eps=0.0)
    assert torch.allclose(layer(x), nn.GroupNorm(1, 6, affine=False, eps=0)(x), atol=1e-5)
    assert sum(p.numel() for p in layer.parameters()) == 2


def test_ibn_a_normalises_each_sample_in_the_first_half_of_the_channels_only():
    torch.manual_seed(0)
    x = torch.randn(4, 7, 6, 6) + torch.arange(4.0)[:, None, None, None]
    means = IBNa(7, momentum=0.1, eps=1e-5)(x).mean(dim=(2, 3))
    assert means[:, :3].abs().max() < 1e-5
    assert means[:, 3:].abs().max() > 0.1


def test_instance_norm_of_a_single_pixel_is_refused():
    with pytest.raises(InputError, match="c3.*1 x 1"):
        plan_patchgan(
            channels=3, widths=[4, 4, 4], norms=["none", "bn", "in"], sn="none", rf="code94", size=8
        )


def test_adversarial_loss_by_hand():
    logits = torch.tensor([[0.5, 0.5]])
    d_loss = (adversarial_loss(logits, True) + adversarial_loss(logits, False)) / 2
    assert d_loss == 0.25  # a blind LSGAN discriminator
    assert adversarial_loss(torch.tensor([1.0, 3.0]), True) == 2.0
    zero = adversarial_loss(torch.zeros(3), True, "bce")
    assert torch.isclose(zero, torch.log(torch.tensor(2.0)))
    assert decision_threshold("lsgan") == 0.5 and decision_threshold("bce") == 0
