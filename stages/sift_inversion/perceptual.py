"""phi of eqs. (5) and (6): a layer of VGG16, in units of its own size.

The paper's "3-th layer" is read as relu3_3, as in the Keras port of DeblurGAN, whose recipe the
paper follows. Departures: every phi is divided by its root mean square over training images, since
the paper does not say in what range images enter it; images may be averaged to fewer pixels before
phi (``phi_size``), which takes most of the time on a CPU; the weights are VGG16 (HED) unless the
user gives torchvision's (stages/common/networks/vgg16.py).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from stages.common.errors import InputError
from stages.common.networks.vgg16 import load_vgg16
from stages.sift_inversion.pairs import to_network

Phi = Literal["hed", "torchvision", "random"]
PhiLayer = Literal["relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3"]
UNIT_IMAGES = 512  # over which the root mean square is taken
AT_ONCE = 64  # images in a pass over the training set
KEPT_BYTES = {"cpu": 2**30, "cuda": 2**34}  # at most, of features that are kept for a whole run


def load_phi(
    kind: Phi,
    layer: PhiLayer,
    weights: str | None,
    *,
    size: int,
    phi_size: int | None,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    """Return phi: (n, 3, s, s) in [-1, 1] -> (n, c, h, w); gradients flow to the images only.

    Parameters
    ----------
    weights : path, for ``torchvision``. ``random``, for tests only, is He's of seed 0.
    size : s.
    phi_size : side to which images are averaged first; None: s.

    Raises
    ------
    InputError
        If the weights are missing or damaged, or ``phi_size`` does not divide ``size``.
    """
    if phi_size is not None and (phi_size > size or size % phi_size):
        raise InputError(
            "params.yaml",
            "phi_size does not suit the images",
            expected=f"a divisor of their side, {size}",
            found=phi_size,
            remedy="correct it, or write ~ for no averaging",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = load_vgg16(kind, Path(weights) if weights else None, [layer])
        if kind == "random":
            for conv in net.convs.values():
                assert isinstance(conv, nn.Conv2d)
                nn.init.kaiming_normal_(conv.weight)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    factor = 1 if phi_size is None else size // phi_size

    def phi(images: Tensor) -> Tensor:
        if factor > 1:
            images = avg_pool2d(images, factor)
        return net.features((images + 1) / 2)[0]

    return phi


class Perceptual:
    """phi / unit, and its values on the training images; all in 32 bits.

    Parameters
    ----------
    phi : images in [-1, 1] -> features.
    images : the training images, on the device.
    autocast : ``fabric.autocast``.
    keep : whether the features of all ``images`` should be computed once and kept. They are if they
        take at most 1 GiB (16 GiB on a GPU), so that the result does not depend on what is free.
    """

    def __init__(
        self,
        phi: Callable[[Tensor], Tensor],
        images: UInt8[Tensor, "n s s 3"],
        *,
        autocast: Callable[[], AbstractContextManager],
        keep: bool,
    ):
        self._phi, self._images, self._autocast = phi, images, autocast
        self.unit = 1.0
        self.kept = None
        batches = images.split(AT_ONCE)
        with torch.no_grad():
            one = self(to_network(images[:1]))
            room = KEPT_BYTES[images.device.type]
            keep = keep and len(images) * one.numel() * one.element_size() <= room
            parts, squares, count = [], 0.0, 0
            for batch in batches if keep else batches[: -(-UNIT_IMAGES // AT_ONCE)]:
                features = self(to_network(batch))
                if count < UNIT_IMAGES:
                    some = features[: UNIT_IMAGES - count]
                    squares += float(some.double().square().sum())
                    count += len(some)
                if keep:
                    parts.append(features)
            self.unit = (squares / (count * one.numel())) ** 0.5
            if keep:
                self.kept = torch.cat(parts).div_(self.unit)

    def __call__(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        """Return phi(images) / unit, with gradients."""
        with self._autocast():
            features = self._phi(images)
        return features.float() / self.unit

    @torch.no_grad()
    def of(
        self, index: Int64[Tensor, " b"], y: Float[Tensor, "b 3 s s"]
    ) -> Float[Tensor, "b c h w"]:
        """Return phi(y) / unit of the training images ``index``, which are ``y``; no gradients."""
        return self(y) if self.kept is None else self.kept[index]
