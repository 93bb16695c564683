"""A network as a table: one row a convolution block, from which the layers are built.

The table is data that a test compares with the paper's and a report prints; ``build_layer`` is the
only place that creates layers.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.init import xavier_uniform_, zeros_

from stages.common.errors import InputError
from stages.common.networks.normalisation import Norm, normalisation
from stages.common.networks.spectral_norm import spectral_norm
from stages.common.networks.up_conv import UpConv

Kind = Literal["conv", "up_conv", "transposed"]
Activation = Literal["none", "relu", "leaky_relu", "tanh"]
SpectralNorm = Literal["none", "all", "d_only", "unnormed"]
KERNEL = 4  # of every convolution of pix2pix and its heirs


@dataclass(frozen=True)
class LayerPlan:
    """One row: convolution - normalisation - activation - concatenation of ``skip``.

    ``kind``: ``conv`` (stride 2: padding 1; stride 1: ``padding``), ``up_conv`` (nearest upsampling
    by 2, then a stride-1 convolution of 'same' padding), ``transposed`` (stride 2, padding 1).
    ``size_in``, ``size_out``: side of the square map in pixels. ``c_out`` counts before ``skip``.
    """

    name: str
    kind: Kind
    c_in: int
    c_out: int
    stride: int
    same: bool
    norm: Norm
    spectral_norm: bool
    activation: Activation
    skip: str | None
    size_in: int
    size_out: int


def has_spectral_norm(placement: SpectralNorm, network: Literal["G", "D"], norm: Norm) -> bool:
    """Say whether a convolution followed by ``norm`` is spectrally normalised."""
    return {
        "none": False,
        "all": True,
        "d_only": network == "D",
        "unnormed": norm == "none",
    }[placement]


def check_instance_norm(plan: list[LayerPlan]) -> list[LayerPlan]:
    """Return ``plan`` if instance normalisation never sees a single pixel, whose variance is 0.

    Raises
    ------
    InputError
        Otherwise; names the layer.
    """
    for row in plan:
        if row.norm in ("in", "ibn_a") and row.size_out < 2:
            raise InputError(
                f"layer {row.name}",
                "instance normalisation of a 1 x 1 map is undefined",
                expected="a map of at least 2 x 2 pixels",
                found=f"{row.size_out} x {row.size_out}",
                remedy="use fewer widths (layers), a larger size, or fewer scales",
            )
    return plan


def build_layer(
    row: LayerPlan, *, momentum: int | float, eps: int | float, slope: float
) -> nn.Sequential:
    """Build one row; weights Glorot-uniform, biases 0; ``slope`` is LeakyReLU's."""
    parts: list[nn.Module] = []
    if row.kind == "transposed":
        conv: nn.Module = nn.ConvTranspose2d(row.c_in, row.c_out, KERNEL, stride=2, padding=1)
    elif row.kind == "up_conv":
        conv = UpConv(row.c_in, row.c_out)
    elif row.same:
        parts.append(nn.ZeroPad2d((1, 2, 1, 2)))  # 'same' for an even kernel: 1 before, 2 after
        conv = nn.Conv2d(row.c_in, row.c_out, KERNEL)
    else:
        conv = nn.Conv2d(row.c_in, row.c_out, KERNEL, stride=row.stride, padding=1)
    xavier_uniform_(conv.weight)  # type: ignore[arg-type]
    zeros_(conv.bias)  # type: ignore[arg-type]
    parts.append(spectral_norm(conv) if row.spectral_norm else conv)
    if row.norm != "none":
        parts.append(normalisation(row.norm, row.c_out, momentum=momentum, eps=eps))
    activations = {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(slope), "tanh": nn.Tanh()}
    if row.activation != "none":
        parts.append(activations[row.activation])
    return nn.Sequential(*parts)
