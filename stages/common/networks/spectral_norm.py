"""Spectral normalisation of a convolution, safe under autocast.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018: W divided by
sigma(W), found by one power iteration per forward in training mode. torch's parametrisation does
it; under bf16 autocast its matrix-vector products would carry an error of about 1 % into sigma, so
it is run outside autocast.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class _OutsideAutocast(nn.Module):
    """A parametrisation that is computed in float32 whatever the precision around it."""

    def __init__(self, parametrization: nn.Module):
        super().__init__()
        self.parametrization = parametrization

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return self.parametrization(weight.float())


def spectral_norm(conv: nn.Module) -> nn.Module:
    """Parametrise ``conv.weight`` by its spectral norm; returns ``conv``.

    The weight (c_out, c_in, k, k) is seen as a (c_out, c_in k k) matrix (Sec. 2.1 of the paper).
    A transposed convolution's (c_in, c_out, k, k) likewise by its output channels.
    """
    dim = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    parametrizations.spectral_norm(conv, dim=dim)
    chain = conv.parametrizations.weight  # type: ignore[union-attr]
    chain[0] = _OutsideAutocast(chain[0])  # type: ignore[index]
    return conv
