"""Losses against loops in NumPy over what FastReID's formulas say."""

import math

import numpy as np
import pytest
import torch

from stages.deep_features.reid_losses import circle_logits, cross_entropy, distances, triplet

Y = [0, 0, 0, 1, 1, 2, 2, 2]


def features(d=5, seed=0, scale=1.0):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((len(Y), d)).astype(np.float32) * scale


def softmax(values):
    e = np.exp(values - np.max(values))
    return e / e.sum()


def by_hand(f, mining, margin):
    f = f.astype(np.float64)
    losses = []
    for a in range(len(Y)):
        d = np.array([np.sqrt(max(((f[a] - g) ** 2).sum(), 1e-12)) for g in f])
        positive = d[[y == Y[a] for y in Y]]  # the anchor itself is among them
        negative = d[[y != Y[a] for y in Y]]
        if mining == "hard":
            d_ap, d_an = positive.max(), negative.min()
        else:
            d_ap = (softmax(positive) * positive).sum()
            d_an = (softmax(-negative) * negative).sum()
        gap = d_ap - d_an
        losses.append(max(0, gap + margin) if margin > 0 else math.log1p(math.exp(gap)))
    return np.mean(losses)


@pytest.mark.parametrize("mining", ["hard", "weighted"])
@pytest.mark.parametrize("margin", [0, 0.3])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_triplet_loss_equals_brute_force(mining, margin, scale):
    f = features(scale=scale)
    loss = triplet(torch.from_numpy(f), torch.tensor(Y), mining=mining, margin=margin)
    assert float(loss) == pytest.approx(by_hand(f, mining, margin), rel=1e-4)


def test_triplet_loss_of_four_points_on_a_line():
    # identities {0, 1} and {10, 13}: d_ap = 1, 1, 3, 3; d_an = 10, 9, 9, 12
    f = torch.tensor([[0.0], [1.0], [10.0], [13.0]])
    y = torch.tensor([0, 0, 1, 1])
    assert float(triplet(f, y, mining="hard", margin=7)) == pytest.approx((0 + 0 + 1 + 0) / 4)
    soft = np.mean([math.log1p(math.exp(-gap)) for gap in (9, 8, 6, 9)])
    assert float(triplet(f, y, mining="hard", margin=0)) == pytest.approx(soft, rel=1e-4)


@pytest.mark.parametrize("mining", ["hard", "weighted"])
def test_triplet_loss_has_a_finite_gradient_where_images_coincide(mining):
    f = torch.from_numpy(features()).clone()
    f[1] = f[0]
    f.requires_grad_()
    triplet(f, torch.tensor(Y), mining=mining, margin=0).backward()
    assert f.grad is not None and torch.isfinite(f.grad).all() and f.grad.abs().max() > 0


def test_distances_are_euclidean():
    f = features(3)
    want = np.sqrt(((f[:, None] - f[None]) ** 2).sum(2))
    assert np.allclose(distances(torch.from_numpy(f)).numpy(), want, atol=2e-3)


def test_smoothing_spares_the_own_class():
    logits = torch.from_numpy(features(4))
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    want = []
    for row, own in zip(logits.double().numpy(), y.tolist(), strict=True):
        log_p = np.log(softmax(row))
        target = [0.9 if c == own else 0.1 / 3 for c in range(4)]
        want.append(-(target * log_p).sum())
    assert float(cross_entropy(logits, y, smoothing=0.1)) == pytest.approx(np.mean(want), rel=1e-5)
    plain = torch.nn.functional.cross_entropy(logits, y)
    assert float(cross_entropy(logits, y, smoothing=0)) == pytest.approx(float(plain), rel=1e-6)
    theirs = torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.1)
    assert float(cross_entropy(logits, y, smoothing=0.1)) != pytest.approx(float(theirs), rel=1e-4)


def test_circle_logits_equal_the_scalar_formula():
    cosine = torch.tensor([[0.9, -0.5, 0.2], [-0.99, 0.6, 0.35]])
    y, s, m = torch.tensor([0, 2]), 64, 0.35
    logits = circle_logits(cosine, y, scale=s, margin=m)
    for n in range(2):
        for c in range(3):
            x = float(cosine[n, c])
            if c == int(y[n]):
                want = s * max(0, 1 + m - x) * (x - (1 - m))
            else:
                want = s * max(0, x + m) * (x - m)
            assert float(logits[n, c]) == pytest.approx(want, abs=1e-4)


def test_no_gradient_flows_through_the_circles_weights():
    cosine = torch.tensor([[0.3, 0.1]], requires_grad=True)
    circle_logits(cosine, torch.tensor([0]), scale=2, margin=0.25).sum().backward()
    assert cosine.grad is not None
    want = [2 * (1 + 0.25 - 0.3), 2 * (0.1 + 0.25)]
    assert cosine.grad[0].tolist() == pytest.approx(want)
