"""G and D of Górriz Blanch et al. 2019, Sec. III and Fig. 2, from one plan.

G maps lightness x (n, 1, s, s) in [-1, 1] to colour y (n, 2, s, s) in [-1, 1]; D sees (x, y).

Where the paper and its released code differ, the code is followed (Table I can only come from it):
decoder blocks upsample and convolve with stride 1 (``up: transposed`` is pix2pix's way); skips are
taken after the activation and concatenated as [decoder, skip]; no dropout, no noise input; D has
four stride-2 blocks and so a receptive field of 94 pixels, not 70 (``rf: pix2pix70``); BatchNorm
has momentum 0.01 in torch's convention and eps 1e-3. Departure: ``norm: in`` is true instance
normalisation as the paper's text says; the code's layer norm is ``norm: ln``.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from stages.common.errors import InputError
from stages.common.networks.normalisation import Norm
from stages.common.networks.patchgan import PatchGAN, ReceptiveField, plan_patchgan
from stages.common.networks.plan import (
    Activation,
    Kind,
    LayerPlan,
    SpectralNorm,
    build_layer,
    check_instance_norm,
    has_spectral_norm,
)

NormPlan = Literal["bn", "in", "ln", "ibn", "ibn_fig", "ibn_a", "none"]
Up = Literal["nearest_conv", "transposed"]
SLOPE = 0.2  # of LeakyReLU in the encoder and in D; pix2pix's


def _inner(norm: NormPlan) -> Norm:
    """Return the normalisation of all layers that a mixed plan does not single out."""
    return "bn" if norm in ("ibn", "ibn_fig", "ibn_a") else norm


def generator_norms(norm: NormPlan, depth: int) -> tuple[list[Norm], list[Norm]]:
    """Return the normalisations of e1 .. e_depth and of d1 .. d_(depth-1).

    "IBN" is an assignment a layer (Fig. 2 and the code agree): BN, except IN in the last decoder
    block, the one of the finest maps. ``ibn_a`` puts IBN-Net's split layer into e2 - e4 and the
    last three decoder blocks instead. e1 is never normalised.
    """
    encoder: list[Norm] = [_inner(norm) for _ in range(depth)]
    decoder: list[Norm] = [_inner(norm) for _ in range(depth - 1)]
    encoder[0] = "none"
    if norm in ("ibn", "ibn_fig"):
        decoder[-1] = "in"
    if norm == "ibn_a":
        for i in range(1, min(4, depth)):
            encoder[i] = "ibn_a"
        for i in range(max(0, depth - 4), depth - 1):
            decoder[i] = "ibn_a"
    return encoder, decoder


def discriminator_norms(norm: NormPlan, depth: int) -> list[Norm]:
    """Return the normalisations of D's blocks c1 .. c_depth; c1 has none.

    ``ibn``: IN in c2, BN in the rest; ``ibn_fig``: as drawn in Fig. 2, none in the last block;
    ``ibn_a``: split layers in c2 and c3.
    """
    norms: list[Norm] = [_inner(norm) for _ in range(depth)]
    norms[0] = "none"
    if norm in ("ibn", "ibn_fig") and depth > 1:
        norms[1] = "in"
    if norm == "ibn_fig":
        norms[-1] = "none"
    if norm == "ibn_a":
        for i in range(1, min(3, depth)):
            norms[i] = "ibn_a"
    return norms


def plan_generator(
    *, widths: list[int], norm: NormPlan, sn: SpectralNorm, up: Up, size: int
) -> list[LayerPlan]:
    """Return G's table: encoder e1 .. eL of ``widths``, decoder d1 .. d(L-1) mirrored, out.

    Raises
    ------
    InputError
        If ``size`` (side of the image, pixels) does not halve L times to at least 2 pixels.
    """
    depth = len(widths)
    if depth < 2 or size % 2**depth or size // 2**depth < 2:
        raise InputError(
            "generator",
            f"cannot halve {size} x {size} images {depth} times",
            expected=f"a size that is a multiple of {2**depth} and at least {2 ** (depth + 1)}",
            found=size,
            remedy="change profiles.<profile>.colourisation: size or widths_g",
        )
    norms_e, norms_d = generator_norms(norm, depth)
    rows, c_in, side = [], 1, size

    def add(
        name: str, kind: Kind, width: int, norm: Norm, activation: Activation, skip: str | None
    ):
        nonlocal c_in, side
        out = side // 2 if kind == "conv" else 2 * side
        rows.append(
            LayerPlan(
                name=name,
                kind=kind,
                c_in=c_in,
                c_out=width,
                stride=1 if kind == "up_conv" else 2,
                same=kind == "up_conv",
                norm=norm,
                spectral_norm=has_spectral_norm(sn, "G", norm),
                activation=activation,
                skip=skip,
                size_in=side,
                size_out=out,
            )
        )
        c_in, side = width, out

    for i, width in enumerate(widths):
        add(f"e{i + 1}", "conv", width, norms_e[i], "leaky_relu", None)
    kind: Kind = "up_conv" if up == "nearest_conv" else "transposed"
    for i, width in enumerate(reversed(widths[:-1])):
        add(f"d{i + 1}", kind, width, norms_d[i], "relu", f"e{depth - 1 - i}")
        c_in += width  # the skip has the same width
    add("out", kind, 2, "none", "tanh", None)
    return check_instance_norm(rows)


def plan_discriminator(
    *, widths: list[int], norm: NormPlan, sn: SpectralNorm, rf: ReceptiveField, size: int
) -> list[LayerPlan]:
    """Return the table of D on ``size`` x ``size`` inputs of 3 channels (x, y)."""
    norms = discriminator_norms(norm, len(widths))
    return plan_patchgan(channels=3, widths=widths, norms=norms, sn=sn, rf=rf, size=size)


class Generator(nn.Module):
    """G: lightness -> colour, a U-Net built from :func:`plan_generator`'s table."""

    def __init__(self, plan: list[LayerPlan], *, momentum: int | float, eps: int | float):
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleDict(
            {row.name: build_layer(row, momentum=momentum, eps=eps, slope=SLOPE) for row in plan}
        )

    def forward(self, x: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n 2 s s"]:
        maps: dict[str, Tensor] = {}
        for row in self.plan:
            x = self.layers[row.name](x)
            maps[row.name] = x
            if row.skip is not None:
                x = torch.cat([x, maps[row.skip]], dim=1)
        return x


class Discriminators(nn.Module):
    """K independent discriminators; the k-th sees the input average-pooled k times (Sec. III-D).

    The paper only says "downsampling by 2 and 4"; the code pools with AvgPool2d(2), lightness too.
    """

    def __init__(self, plans: list[list[LayerPlan]], *, momentum: int | float, eps: int | float):
        super().__init__()
        self.scales = nn.ModuleList(
            PatchGAN(plan, momentum=momentum, eps=eps, slope=SLOPE) for plan in plans
        )

    def forward(
        self, x: Float[Tensor, "n 1 s s"], y: Float[Tensor, "n 2 s s"]
    ) -> list[Float[Tensor, "n 1 _ _"]]:
        """Return the logits of every scale, finest first."""
        pair = torch.cat([x, y], dim=1)
        logits = []
        for k, D in enumerate(self.scales):
            pair = avg_pool2d(pair, 2) if k else pair
            logits.append(D(pair))
        return logits


def build(
    *,
    widths_g: list[int],
    widths_d: list[int],
    norm: NormPlan,
    sn: SpectralNorm,
    scales: int,
    rf: ReceptiveField,
    up: Up,
    bn_momentum: int | float,
    bn_eps: int | float,
    size: int,
) -> tuple[Generator, Discriminators]:
    """Build a variant; ``scales`` is the number K of discriminators, 0 for a plain regression."""
    plan_g = plan_generator(widths=widths_g, norm=norm, sn=sn, up=up, size=size)
    plans_d = [
        plan_discriminator(widths=widths_d, norm=norm, sn=sn, rf=rf, size=size // 2**k)
        for k in range(scales)
    ]
    G = Generator(plan_g, momentum=bn_momentum, eps=bn_eps)
    return G, Discriminators(plans_d, momentum=bn_momentum, eps=bn_eps)
