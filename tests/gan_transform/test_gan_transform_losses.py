import math

import pytest
import torch

from stages.gan_transform.losses import (
    features_apart,
    loss_classification,
    loss_discriminator,
    loss_gan,
    loss_perceptual,
    loss_reconstruction,
)
from stages.gan_transform.transform import Guard


def pixels(*values):
    """One image of one channel and two pixels."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, 2)


def test_equation_7_on_two_pixels():
    # (0.1^2 + 0.2^2) / 2 + (0.3^2 + 0.4^2) / 2
    x, x_hat_p, x_hat = pixels(0.5, 0.5), pixels(0.6, 0.7), pixels(0.2, 0.1)
    assert float(loss_perceptual(x, x_hat_p, x_hat)) == pytest.approx(0.025 + 0.125)
    assert float(loss_perceptual(x, x_hat_p, None)) == pytest.approx(0.025)
    assert float(features_apart(x, x)) == 0


def test_equation_8_is_the_sum_of_both_cross_entropies():
    even, sure = torch.zeros(1, 4), torch.tensor([[100.0, 0, 0, 0]])
    y = torch.tensor([0])
    assert float(loss_classification(even, y, sure, y)) == pytest.approx(math.log(4))


def test_equation_9_sum_is_the_mean_times_the_pixels():
    draw = torch.Generator().manual_seed(0)
    x, a, x_p, b = torch.rand((4, 2, 3, 8, 8), generator=draw)
    mean = loss_reconstruction(a, x, b, x_p, "mean")
    assert float(loss_reconstruction(a, x, b, x_p, "sum") / mean) == pytest.approx(3 * 8 * 8)
    two = loss_reconstruction(pixels(1, 0), pixels(0, 0), pixels(0, 0), pixels(0, 0.5), "sum")
    assert float(two) == pytest.approx(1.25)


def test_adversarial_terms_on_ones_and_zeros():
    ones, zeros = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    assert float(loss_gan(ones, ones)) == 0
    assert float(loss_gan(zeros, ones)) == 1
    assert float(loss_discriminator(ones, zeros)) == 0
    assert float(loss_discriminator(zeros, ones)) == 1


def test_raising_gamma_1_times_the_distance_lowers_the_loss():
    near = loss_perceptual(pixels(0, 0), pixels(0.1, 0.1), pixels(0, 0))
    far = loss_perceptual(pixels(0, 0), pixels(0.9, 0.9), pixels(0, 0))
    assert -1 * far < -1 * near


def values(*numbers):
    return [torch.tensor(float(n)) for n in numbers]


def test_the_guard_caps_when_the_target_guesses():
    guard = Guard(10, "auto")
    guard.observe(*values(2.0, -1, 1))
    guard.decide(5)
    assert not guard.capped
    guard.observe(*values(2.4, -1, 1))  # above log 10 = 2.303
    guard.decide(10)
    assert guard.capped
    assert guard.record()["capped_at_step"] == 10


def test_the_guard_caps_when_the_perceptual_term_dominates_and_stays_so():
    guard = Guard(10, "auto")
    guard.observe(*values(0.1, -11, 1))
    guard.decide(3)
    assert guard.record()["share_then"] == pytest.approx(11)
    guard.observe(*values(0.1, -1, 1))
    guard.decide(6)
    assert guard.capped and guard.record()["capped_at_step"] == 3


def test_the_guard_can_be_off_or_on_from_the_start():
    off, on = Guard(10, "off"), Guard(10, "on")
    off.observe(*values(9, -99, 1))
    off.decide(1)
    assert not off.capped and on.capped
