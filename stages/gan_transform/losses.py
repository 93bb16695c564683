"""Eqs. (4)-(9) of the paper as functions of tensors: what G_AB and G_BA minimise.

x plain, x_p its protected version, y the class. x_hat_p = G_AB(x), x_hat = G_BA(x_p), and the
reconstructions x_rec = G_BA(x_hat_p), xp_rec = G_AB(x_hat). All images are (n, 3, h, w) in [0, 1].
Departures: the adversarial terms are least squares as in CycleGAN's released code ("as [21]"); eq.
(8) prints h_theta(G(x), y) where it means the cross entropy of h_theta(G(x)) and y.
"""

from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.common.losses import Adversarial, adversarial_loss

Reduction = Literal["mean", "sum"]
Map = Float[Tensor, "n c h w"]


def loss_gan(
    logits_x_hat: Tensor, logits_x_hat_p: Tensor, kind: Adversarial = "lsgan"
) -> Float[Tensor, ""]:
    """Eqs. (4)-(6), the generators' part: F_A should take x_hat for plain, F_B x_hat_p for x_p."""
    return adversarial_loss(logits_x_hat, True, kind) + adversarial_loss(logits_x_hat_p, True, kind)


def loss_discriminator(real: Tensor, fake: Tensor, kind: Adversarial = "lsgan") -> Tensor:
    """Return F's loss: half the sum of its errors on real and on (detached) fake images."""
    return (adversarial_loss(real, True, kind) + adversarial_loss(fake, False, kind)) / 2


def features_apart(u: Map, v: Map) -> Float[Tensor, " n"]:
    """Eq. (7), one term: ||phi(v) - phi(u)||^2 / (C H W) of each image."""
    return (u - v).square().mean((1, 2, 3))


def loss_perceptual(phi_x: Map, phi_x_hat_p: Map, phi_x_hat: Map | None) -> Float[Tensor, ""]:
    """Eq. (7): the distance of x_hat_p and of x_hat from x; mean over images.

    gamma_1 is negative: it is maximised. ``phi_x_hat`` None leaves the second term out.
    """
    loss = features_apart(phi_x, phi_x_hat_p).mean()
    return loss if phi_x_hat is None else loss + features_apart(phi_x, phi_x_hat).mean()


def loss_classification(
    logits_x_hat_p: Float[Tensor, "n k"],
    y: Int64[Tensor, " n"],
    logits_x_hat: Float[Tensor, "n k"],
    y_p: Int64[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Eq. (8): cross entropy of h_theta on both generated images."""
    return cross_entropy(logits_x_hat_p, y) + cross_entropy(logits_x_hat, y_p)


def loss_reconstruction(
    x_rec: Map, x: Map, xp_rec: Map, x_p: Map, reduction: Reduction
) -> Float[Tensor, ""]:
    """Eq. (9): ||x_rec - x||^2 + ||xp_rec - x_p||^2, mean over images.

    ``sum`` over pixels and channels is what the equation prints; ``mean`` has eq. (7)'s 1/(C H W).
    """
    squares = (x_rec - x).square() + (xp_rec - x_p).square()
    return squares.mean() if reduction == "mean" else squares.sum((1, 2, 3)).mean()
