"""Objectives of G and D (Sec. III, eq. 2-5), in the form of the released code.

The paper prints log losses; the code minimises squared errors (LSGAN) and is the default, the log
loss is ``adversarial: bce``. eq. 5 prints ||Y - G(X, Y)||_1; a sum over pixels would be 131,072
times the code's mean at 256 px, so lambda weighs the mean.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import l1_loss

from stages.common.losses import Adversarial, adversarial_loss


def loss_G_adversarial(logits: list[Tensor], kind: Adversarial) -> list[Float[Tensor, ""]]:
    """Return, for each scale, how far G's fakes are from being called real (eq. 4)."""
    return [adversarial_loss(scale, True, kind) for scale in logits]


def loss_G(
    adversarial: list[Float[Tensor, ""]],
    fake: Float[Tensor, "n 2 s s"],
    y: Float[Tensor, "n 2 s s"],
    lambda_l1: int | float,
    reduce: Literal["sum", "mean"],
) -> Float[Tensor, ""]:
    """Eq. 2 and 5: sum over scales of the adversarial terms + lambda mean |y - fake|.

    The code adds the K scales' terms un-averaged (``sum``), which makes lambda weigh K times less.
    """
    l1 = lambda_l1 * l1_loss(fake, y)
    if not adversarial:
        return l1
    terms = torch.stack(adversarial)
    return (terms.sum() if reduce == "sum" else terms.mean()) + l1
