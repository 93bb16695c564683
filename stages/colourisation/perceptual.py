"""L_perc (Sec. IV-B, Eq. 7): how far two images are apart for a network trained on ImageNet.

Departures: Eq. 7 prints the square of an L1 norm, but only the mean absolute difference gives
values of the paper's size (57 to 64), and the authors' code computes that; so do we. The authors
resize 8-bit images, we resize floats by the same bicubic kernel and clip to [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from stages.common.errors import InputError
from stages.common.networks.efficientnet_lite import STRIDE, load_efficientnet_lite0
from stages.common.networks.vgg19 import load_vgg19

PercBackbone = Literal["efflite0", "vgg19_keras", "vgg19_tv", "vgg19_random"]
LAYERS = tuple(f"relu{i}_1" for i in range(1, 6))  # block1_conv1 .. block5_conv1


@runtime_checkable
class PerceptualBackbone(Protocol):
    """A frozen network that gives five feature maps of images in [0, 1]."""

    def features(self, rgb01: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _c _h _w"]]: ...

    def to(self, device: torch.device) -> nn.Module: ...


def load_backbone(name: PercBackbone, weights: str | None, size: int) -> PerceptualBackbone:
    """Return the backbone that L_perc is measured with.

    Parameters
    ----------
    name : ``vgg19_keras`` is the paper's; ``efflite0`` needs no file; ``vgg19_tv`` is
        torchvision's; ``vgg19_random`` is for unit tests.
    weights : path of the user's file for ``vgg19_keras`` and ``vgg19_tv``, else None.
    size : the side that images will be resized to.

    Raises
    ------
    InputError
        If the weights are missing or wrong, not wanted by the backbone, or ``size`` is no
        multiple of 32 for ``efflite0``.
    """
    kinds = {"vgg19_keras": "keras", "vgg19_tv": "torchvision", "vgg19_random": "random"}
    if weights is not None and name not in ("vgg19_keras", "vgg19_tv"):
        raise InputError(
            "perc_weights",
            "is not used",
            expected=f"null with perc_backbone {name}",
            found=weights,
            remedy="set it to null, or perc_backbone to vgg19_keras or vgg19_tv",
        )
    if name == "efflite0":
        if size % STRIDE:
            raise InputError(
                "perc_size",
                "does not fit the backbone efflite0",
                expected=f"a multiple of {STRIDE}",
                found=size,
                remedy=f"take {-(-size // STRIDE) * STRIDE}",
            )
        return load_efficientnet_lite0()
    return load_vgg19(kinds[name], Path(weights) if weights else None, LAYERS)  # type: ignore[arg-type]


def resized(rgb01: Float[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 size size"]:
    """Resize bicubically (a = -0.75, no smoothing, as cv2.INTER_CUBIC) and clip to [0, 1]."""
    if rgb01.shape[-2:] == (size, size):
        return rgb01
    return interpolate(rgb01, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)


def l_perc(
    real: Sequence[Float[Tensor, "n ..."]], fake: Sequence[Float[Tensor, "n ..."]]
) -> Float[Tensor, " n"]:
    """Eq. 7 as computed by the authors: mean |F_l(real) - F_l(fake)|, averaged over the layers."""
    return torch.stack(
        [(r - f).abs().flatten(1).mean(1) for r, f in zip(real, fake, strict=True)]
    ).mean(0)


def l_perc_unit(
    real: Sequence[Float[Tensor, "n _c _h _w"]], fake: Sequence[Float[Tensor, "n _c _h _w"]]
) -> Float[Tensor, " n"]:
    """Return the distance of Zhang et al., CVPR 2018 (LPIPS), without its learned weights.

    Feature vectors are normalised to unit length at each place, squared differences summed over
    channels and averaged over places and layers: 0 to 4, and no layer outweighs the others.
    """
    return torch.stack(
        [
            (normalize(r, dim=1) - normalize(f, dim=1)).square().sum(1).mean((1, 2))
            for r, f in zip(real, fake, strict=True)
        ]
    ).mean(0)
