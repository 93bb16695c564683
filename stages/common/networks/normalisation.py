"""Normalisation layers of the papers, each made by one function from its name.

bn    BatchNorm2d (Ioffe & Szegedy 2015)
in    InstanceNorm2d with per-channel affine, no running statistics (Ulyanov et al. 2016)
ln    "instance norm" as keras-contrib computes it with axis=None: mean and standard deviation over
      (c, h, w) of each sample, one scalar gain and bias; a layer norm in truth
ibn_a first half of the channels IN, the rest BN, concatenated (Pan et al., IBN-Net, ECCV 2018)
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["none", "bn", "in", "ln", "ibn_a"]


class ScalarLayerNorm(nn.Module):
    """(x - m) / (s + eps) * gamma + beta: m, s over (c, h, w) per sample; gamma, beta scalars."""

    def __init__(self, eps: float = 1e-3):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        std = x.std(dim=(1, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (std + self.eps) * self.gamma + self.beta


class IBNa(nn.Module):
    """The first floor(c / 2) channels instance-normalised, the rest batch-normalised."""

    def __init__(self, channels: int, *, momentum: int | float, eps: int | float):
        super().__init__()
        self.instance_channels = channels // 2
        self.instance = nn.InstanceNorm2d(self.instance_channels, affine=True)
        self.batch = nn.BatchNorm2d(channels - self.instance_channels, eps=eps, momentum=momentum)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return torch.cat(
            [
                self.instance(x[:, : self.instance_channels]),
                self.batch(x[:, self.instance_channels :]),
            ],
            dim=1,
        )


def normalisation(
    kind: Norm, channels: int, *, momentum: int | float, eps: int | float
) -> nn.Module:
    """Return the layer ``kind`` for ``channels``; ``momentum`` and ``eps`` are BatchNorm's."""
    if kind == "bn":
        return nn.BatchNorm2d(channels, eps=eps, momentum=momentum)
    if kind == "in":
        return nn.InstanceNorm2d(channels, affine=True)
    if kind == "ln":
        return ScalarLayerNorm()
    if kind == "ibn_a":
        return IBNa(channels, momentum=momentum, eps=eps)
    return nn.Identity()
