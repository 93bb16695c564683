"""Losses of adversarial networks on logits (real numbers, no sigmoid), as 0-d tensors.

LSGAN: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, with labels 1 (real)
and 0 (fake). Log loss: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, the
non-saturating form for the generator.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

Adversarial = Literal["lsgan", "bce"]


def adversarial_loss(
    logits: Float[Tensor, "..."], real: bool, kind: Adversarial = "lsgan"
) -> Float[Tensor, ""]:
    """Return how far D's ``logits`` are from "real" (or "fake"), the mean over patches.

    ``lsgan``: mean (D - t)^2; ``bce``: mean of -log s(D) or -log(1 - s(D)), s the sigmoid.
    """
    target = torch.full_like(logits, float(real))
    loss = mse_loss if kind == "lsgan" else binary_cross_entropy_with_logits
    return loss(logits, target)


def decision_threshold(kind: Adversarial) -> float:
    """Return the logit above which D says "real": 0.5 for LSGAN's labels 0 and 1, 0 for logits."""
    return 0.5 if kind == "lsgan" else 0.0
