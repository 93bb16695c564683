"""Eqs. (1) and (4)-(8) by hand, and phi."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from stages.common.errors import InputError
from stages.common.losses import adversarial_loss
from stages.sift_inversion.losses import (
    gram,
    joint_terms,
    loss_adversarial,
    loss_D,
    loss_l2,
    loss_perceptual,
    loss_style,
    total,
)
from stages.sift_inversion.pairs import to_network, to_uint8
from stages.sift_inversion.perceptual import Perceptual, load_phi

WEIGHTS = {"lambda_p": 1, "lambda_s": 1e-4}


def images(n=2, size=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.rand((n, 3, size, size), generator=draw) - 1


def test_equations_4_and_5_are_means():
    o, y = torch.zeros(1, 1, 1, 2), torch.tensor([0.1, 0.3]).reshape(1, 1, 1, 2)
    assert float(loss_l2(o, y)) == pytest.approx((0.01 + 0.09) / 2)
    assert float(loss_perceptual(o, y)) == pytest.approx((0.01 + 0.09) / 2)


def test_the_gram_matrix_of_the_specification():
    f = torch.tensor([[1.0, 2], [3, 4]]).reshape(1, 2, 1, 2)  # C = 2, HW = 2
    assert torch.equal(gram(f)[0], 2048 * torch.tensor([[5.0, 11], [11, 25]]))


def test_the_style_loss_does_not_depend_on_the_number_of_positions():
    phi = nn.Conv2d(3, 5, 1).requires_grad_(False)
    o, y = images(seed=1), images(seed=2)
    small = loss_style(phi(o), phi(y))
    tiled = loss_style(phi(o.tile(1, 1, 2, 2)), phi(y.tile(1, 1, 2, 2)))
    assert float(tiled) == pytest.approx(float(small), rel=1e-5)


def test_the_joint_loss_is_zero_at_its_target_and_pulls_the_output_only():
    phi = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()).requires_grad_(False)
    y = images()
    assert float(total(joint_terms(y, y, phi(y), phi(y), **WEIGHTS))) == 0
    o = images(seed=1).requires_grad_()
    total(joint_terms(o, y, phi(o), phi(y), **WEIGHTS)).backward()
    assert o.grad is not None and o.grad.abs().sum() > 0
    assert all(p.grad is None for p in phi.parameters())


def test_equation_7_by_hand():
    o, y = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    phi_o, phi_y = torch.zeros(1, 1, 1, 2), torch.tensor([1.0, 2]).reshape(1, 1, 1, 2)
    terms = joint_terms(o, y, phi_o, phi_y, lambda_p=2, lambda_s=1e-4)
    found = {name: float(term) for name, term in terms.items()}
    assert found == pytest.approx({"l2": 1, "p": 2 * 2.5, "s": 1e-4 * 2048 * 5})
    assert float(total(terms)) == pytest.approx(sum(found.values()))


def test_weights_of_zero_need_no_phi():
    y = images()
    assert set(joint_terms(y, y, lambda_p=0, lambda_s=0)) == {"l2"}
    assert set(joint_terms(y, y, y, y, lambda_p=1, lambda_s=0)) == {"l2", "p"}


def test_equation_8_is_the_adversarial_term_and_a_hundred_joint_losses():
    """The printed weights (100, 100, 0.01) are a hundred times those of eq. (7)."""
    o, y, logits = images(seed=1), images(), torch.randn(2, 1, 3, 3)
    printed = (
        100 * loss_l2(o, y) + 100 * loss_perceptual(o, y) + 0.01 * loss_style(o, y)
    ) + loss_adversarial(logits)
    ours = loss_adversarial(logits) + 100 * total(joint_terms(o, y, o, y, **WEIGHTS))
    assert float(ours) == pytest.approx(float(printed), rel=1e-5)


def test_equation_1_at_logits_of_zero_is_log_2():
    zeros = torch.zeros(2, 1, 3, 3)
    assert float(loss_D(zeros, zeros)) == pytest.approx(math.log(2))
    assert float(loss_D(zeros, zeros, label_smooth=0.9)) == pytest.approx(math.log(2))
    assert float(loss_adversarial(zeros)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", ["bce", "lsgan"])
def test_the_discriminators_loss_is_half_the_sum(kind):
    real, fake = torch.randn(2, 2, 1, 3, 3)
    expected = (adversarial_loss(real, True, kind) + adversarial_loss(fake, False, kind)) / 2
    assert torch.allclose(loss_D(real, fake, kind), expected)


def test_a_smooth_label_moves_the_least_loss_inward():
    sure = torch.full((1, 1, 2, 2), 9.0)
    even = torch.full((1, 1, 2, 2), math.log(9))  # sigmoid 0.9
    fake = torch.full((1, 1, 2, 2), -9.0)
    assert loss_D(even, fake, "bce", 0.9) < loss_D(sure, fake, "bce", 0.9)
    assert loss_D(even, fake, "bce", 1) > loss_D(sure, fake, "bce", 1)


def load(kind="random", layer="relu2_1", size=16, phi_size=None):
    return load_phi(kind, layer, None, size=size, phi_size=phi_size, device=torch.device("cpu"))


def test_phi_averages_images_first():
    phi = load(phi_size=8)
    x = images()
    assert phi(x).shape == (2, 128, 4, 4)
    blocks = x.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))
    assert torch.allclose(phi(x), load(size=8)(blocks), atol=1e-5)


def test_random_phi_is_the_same_whatever_was_drawn_before():
    torch.manual_seed(1)
    a = load()(images())
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(load()(images()), a)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("phi_size", [32, 5])
def test_a_phi_size_that_does_not_suit_is_one_sentence(phi_size):
    with pytest.raises(InputError, match="phi_size does not suit"):
        load(phi_size=phi_size)


def test_relu3_3_of_hed_has_256_channels_a_quarter_of_the_side():
    assert load("hed", "relu3_3", 32)(images(size=32)).shape == (2, 256, 8, 8)


@pytest.mark.parametrize("keep", [False, True])
def test_phi_has_unit_root_mean_square_on_the_training_images(keep):
    train = to_uint8(images(70))
    perceptual = Perceptual(load(), train, autocast=nullcontext, keep=keep)
    features = perceptual(to_network(train))
    assert float(features.square().mean()) == pytest.approx(1, rel=1e-4)
    assert perceptual.unit > 0


def test_kept_features_are_those_that_would_be_computed(monkeypatch):
    monkeypatch.setattr("stages.sift_inversion.perceptual.UNIT_IMAGES", 5)
    train = to_uint8(images(9))
    kept, fresh = (
        Perceptual(load(), train, autocast=nullcontext, keep=keep) for keep in (True, False)
    )
    assert kept.kept is not None and fresh.kept is None and kept.unit == fresh.unit
    index = torch.tensor([8, 0, 4])
    y = to_network(train[index])
    assert torch.allclose(kept.of(index, y), fresh.of(index, y), rtol=1e-4, atol=1e-5)
    assert not kept.of(index, y).requires_grad


def test_features_that_take_too_much_are_not_kept(monkeypatch):
    monkeypatch.setattr("stages.sift_inversion.perceptual.KEPT_BYTES", {"cpu": 1000})
    train = to_uint8(images(3))
    assert Perceptual(load(), train, autocast=nullcontext, keep=True).kept is None


def test_images_survive_the_way_to_the_network_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    x = to_network(levels)
    assert float(x.min()) == -1 and float(x.max()) == 1
    assert torch.equal(to_uint8(x), levels)
    assert torch.equal(to_uint8(3 * x), to_uint8((3 * x).clamp(-1, 1)))
