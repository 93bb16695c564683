"""PatchGAN: a convolutional discriminator that judges overlapping patches of an image.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
Sec. 3.2.2. Its receptive field is 1 + 3 sum_l prod_{m<l} s_m pixels for 4 x 4 kernels of strides s.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from stages.common.networks.normalisation import Norm
from stages.common.networks.plan import (
    LayerPlan,
    SpectralNorm,
    build_layer,
    check_instance_norm,
    has_spectral_norm,
)

ReceptiveField = Literal["code94", "pix2pix70"]


def plan_patchgan(
    *,
    channels: int,
    widths: list[int],
    norms: list[Norm],
    sn: SpectralNorm,
    rf: ReceptiveField,
    size: int,
) -> list[LayerPlan]:
    """Return the table of one discriminator: len(widths) blocks c1.. and the output layer.

    ``rf`` names what widths 64, 128, 256, 512 give: ``code94`` has stride 2 in all blocks and a
    'same'-padded output; ``pix2pix70`` has stride 1 in the last block and padding 1 in both.
    ``norms``: one a block, the output layer has none. ``size``: side of the input, pixels.
    """
    rows, c_in, side = [], channels, size
    for i, (width, norm) in enumerate(zip(widths, norms, strict=True)):
        stride = 1 if rf == "pix2pix70" and i == len(widths) - 1 else 2
        out = side // 2 if stride == 2 else side - 1
        rows.append(
            LayerPlan(
                name=f"c{i + 1}",
                kind="conv",
                c_in=c_in,
                c_out=width,
                stride=stride,
                same=False,
                norm=norm,
                spectral_norm=has_spectral_norm(sn, "D", norm),
                activation="leaky_relu",
                skip=None,
                size_in=side,
                size_out=out,
            )
        )
        c_in, side = width, out
    rows.append(
        LayerPlan(
            name="out",
            kind="conv",
            c_in=c_in,
            c_out=1,
            stride=1,
            same=rf == "code94",
            norm="none",
            spectral_norm=has_spectral_norm(sn, "D", "none"),
            activation="none",
            skip=None,
            size_in=side,
            size_out=side if rf == "code94" else side - 1,
        )
    )
    return check_instance_norm(rows)


def receptive_field(plan: list[LayerPlan]) -> int:
    """Return the side in pixels of the input that one output value sees."""
    field, jump = 1, 1
    for row in plan:
        field, jump = field + 3 * jump, jump * row.stride
    return field


class PatchGAN(nn.Module):
    """D: image and condition, concatenated -> one logit a patch."""

    def __init__(
        self,
        plan: list[LayerPlan],
        *,
        momentum: int | float = 0.1,
        eps: int | float = 1e-5,
        slope: float = 0.2,
    ):
        super().__init__()
        self.layers = nn.Sequential(
            *[build_layer(row, momentum=momentum, eps=eps, slope=slope) for row in plan]
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 hh ww"]:
        return self.layers(x)
