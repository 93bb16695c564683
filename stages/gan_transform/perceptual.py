"""phi of eq. (7): the map after a ReLU of a fixed network, in units of its own size.

The paper takes "the second ReLU" of VGG16: relu1_2 read literally, relu2_2 in the laboratory's
later code. ``hed`` and ``torchvision`` are VGG16 with other weights
(stages/common/networks/vgg16.py), ``htheta`` is h_theta's own first layers. Departure: every phi is
divided by its root mean square over the plain training images, since the weights at hand expect
other ranges and their features differ by a factor of a hundred, which gamma_1 would have to make
good.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stages.common.networks.vgg16 import load_vgg16
from stages.gan_transform.networks import VGG13

Phi = Literal["hed", "torchvision", "htheta", "random"]
PhiLayer = Literal["relu1_2", "relu2_2"]


def load_phi(
    kind: Phi, layer: PhiLayer, weights: str | None, h: VGG13, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return phi: (n, 3, h, w) in [0, 1] -> (n, c, h', w'); gradients flow to the images only.

    Raises
    ------
    InputError
        If the weights are missing or damaged.
    ValueError
        If ``htheta`` is asked for another layer than relu1_2.
    """
    if kind == "htheta":
        if layer != "relu1_2":
            raise ValueError(f"h_theta has no layer {layer!r} here, only 'relu1_2'")
        return h.relu1_2
    net = load_vgg16(kind, Path(weights) if weights else None, [layer]).to(device)
    return lambda x: net.features(x)[0]


@torch.no_grad()
def root_mean_square(phi: Callable[[Tensor], Tensor], images: list[Float[Tensor, "n 3 h w"]]):
    """Return the root mean square of phi over batches of images, a float."""
    squares = [float(phi(x).double().square().mean()) * len(x) for x in images]
    return (sum(squares) / sum(map(len, images))) ** 0.5
