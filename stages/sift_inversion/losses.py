"""Eqs. (1) and (4)-(8) as functions of tensors: what R, G and D minimise.

o is an output image and y the original, (n, 3, s, s) in [-1, 1]; phi(o), phi(y) are feature maps,
c the coarse image R(F); D's logits are real numbers. Departures: eqs. (7) and (8) have one weight
ratio, (1, 1, 1e-4) and a hundred times that, so (8) is written as BCE + 100 L_j; (8) is printed as
one loss of G and D, here it is the usual two, non-saturating for G.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from stages.common.losses import Adversarial, adversarial_loss
from stages.common.params import Fraction, NonNegativeFloat

GRID = 64 * 64  # positions of relu3_3 at the paper's 256 pixels
Map = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


def loss_l2(o: Map, y: Map) -> Scalar:
    """Eq. (4): the mean of (o - y)^2 over images, channels and pixels."""
    return mse_loss(o, y)


def loss_perceptual(phi_o: Map, phi_y: Map) -> Scalar:
    """Eq. (5): the mean of (phi(o) - phi(y))^2 over images, channels and positions."""
    return mse_loss(phi_o, phi_y)


def gram(f: Map) -> Float[Tensor, "n c c"]:
    """Return M(f) = f f^T 4096 / (h w): the sum over positions, referred to a 64 x 64 grid.

    The paper's weight 1e-4 fixes the normalisation: divided by c h w, as is usual, the style loss
    would be a millionth of the sum.
    """
    f = f.flatten(2)
    return f @ f.mT * (GRID / f.shape[2])


def loss_style(phi_o: Map, phi_y: Map) -> Scalar:
    """Eq. (6): the mean of |M(phi(o)) - M(phi(y))| over images and the c x c entries."""
    return (gram(phi_o) - gram(phi_y)).abs().mean()


def joint_terms(
    o: Map,
    y: Map,
    phi_o: Float[Tensor, "n k p q"] | None = None,
    phi_y: Float[Tensor, "n k p q"] | None = None,
    *,
    lambda_p: NonNegativeFloat,
    lambda_s: NonNegativeFloat,
) -> dict[str, Scalar]:
    """Return the terms of eq. (7) with their weights: l2, p (if lambda_p), s (if lambda_s).

    L_j is their sum. phi(o) and phi(y) may be None if both weights are 0.
    """
    terms = {"l2": loss_l2(o, y)}
    if lambda_p or lambda_s:
        assert phi_o is not None and phi_y is not None
        if lambda_p:
            terms["p"] = lambda_p * loss_perceptual(phi_o, phi_y)
        if lambda_s:
            terms["s"] = lambda_s * loss_style(phi_o, phi_y)
    return terms


def total(terms: Mapping[str, Scalar]) -> Scalar:
    """Return the sum of weighted terms."""
    return torch.stack(list(terms.values())).sum()


def loss_adversarial(logits: Tensor, kind: Adversarial = "bce") -> Scalar:
    """Eq. (8), first term: how far D(c, G(c)) is from "real", the mean over patches."""
    return adversarial_loss(logits, True, kind)


def loss_D(
    real: Tensor, fake: Tensor, kind: Adversarial = "bce", label_smooth: Fraction = 1
) -> Scalar:
    """Eq. (1), D's part: half the sum of its errors on D(c, y) and on D(c, G(c)).

    ``label_smooth`` is the label of real images (1 in the paper).
    """
    label = torch.full_like(real, label_smooth)
    error = mse_loss if kind == "lsgan" else binary_cross_entropy_with_logits
    return (error(real, label) + adversarial_loss(fake, False, kind)) / 2
