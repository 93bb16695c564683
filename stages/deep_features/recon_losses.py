"""The losses of the reconstruction (Sec. III-C) as functions of tensors.

x an image and x' = G(f) its reconstruction, (n, 3, h, w) in [0, 1]; phi(x), phi(x') feature maps of
a fixed network; D's logits are real numbers. Weights are the README's of the authors' code: pixel
minimises L_pix, fr L_FR, fr_adv L_FR + w_adv L_Gadv. Their total variation has the weight 0 in all
of them and is left out.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from stages.common.losses import adversarial_loss

Loss = Literal["pixel", "fr", "fr_adv"]
Map = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


def loss_pixel(x_rec: Map, x: Map) -> Scalar:
    """L_pix = mean (x - x')^2 over images, channels and pixels."""
    return mse_loss(x_rec, x)


def loss_features(phi_x_rec: Map, phi_x: Map) -> Scalar:
    """L_FR = mean (phi(x) - phi(x'))^2 over images, channels and positions."""
    return mse_loss(phi_x_rec, phi_x)


def loss_D(real: Float[Tensor, "n 1"], fake: Float[Tensor, "n 1"]) -> Scalar:
    """L_D = 1/2 mean (D(x, f) - 1)^2 + 1/2 mean D(G(f), f)^2: one batch of both halves."""
    return (adversarial_loss(real, True) + adversarial_loss(fake, False)) / 2


def loss_G_adversarial(fake: Float[Tensor, "n 1"]) -> Scalar:
    """L_Gadv = mean (D(G(f), f) - 1)^2."""
    return adversarial_loss(fake, True)
