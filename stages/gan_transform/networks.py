"""The networks of the scheme and of its classifiers. Images are (n, 3, s, s), floats in [0, 1].

h_theta     VGG13 with batch norm (Sec. III-B), with the 512 -> classes head usual at 32 px
F_A, F_B    PatchGAN of CycleGAN (Zhu et al., ICCV 2017, Sec. 7.2)
G_AB, G_BA  U-Net (Sec. III-B) and a sigmoid
ResNet-18   with a 3 x 3 stem and no first pooling (Sec. IV-C); before it, for block-wise encrypted
            images, Tanaka's adaptation network ("Learnable Image Encryption", ICCE-TW 2018)

``width`` is 64 in the papers; a narrower net has all its channels scaled by width / 64. Images are
normalised inside the networks, so that gradients and features refer to [0, 1].
"""

from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from stages.common.errors import InputError
from stages.common.networks.unet import UNet
from stages.common.networks.weight_files import load_state, read_state

FULL_WIDTH = 64
BLOCK = 4  # pixels: side of Tanaka's blocks
VGG13_ROWS = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))  # a pooling after each


class Normalise(nn.Module):
    """(x - mean) / std per channel, constants that are saved with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, "3"], std: Float[Tensor, "3"]):
        super().__init__()
        self.register_buffer("mean", mean.clone().view(3, 1, 1))
        self.register_buffer("std", std.clone().view(3, 1, 1))

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        return (x - self.mean) / self.std


def constant_normalisation() -> Normalise:
    """(x - 0.5) / 0.25, for ciphers: their statistics are not a photograph's."""
    return Normalise(torch.full((3,), 0.5), torch.full((3,), 0.25))


class VGG13(nn.Module):
    """h_theta: 9,416,010 parameters at width 64 and 10 classes."""

    def __init__(self, classes: int, normalise: Normalise, width: int = FULL_WIDTH):
        super().__init__()
        self.normalise = normalise
        layers: list[nn.Module] = []
        c_in = 3
        for row in VGG13_ROWS:
            for full in row:
                c_out = full * width // FULL_WIDTH
                layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
                c_in = c_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)  # (n, 8 width, 1, 1) of 32 x 32 images
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(self.normalise(x)).flatten(1))

    def relu1_2(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Return the map after the second ReLU, for h_theta as its own perceptual network."""
        second_relu = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.ReLU)][1]
        return self.features[: second_relu + 1](self.normalise(x))


def translator(widths: list[int]) -> nn.Sequential:
    """G_AB or G_BA: U-Net and sigmoid; widths 64, 128, ..., 1024 have 34,527,171 parameters."""
    return nn.Sequential(UNet(widths), nn.Sigmoid())


class PatchGAN(nn.Sequential):
    """F_A, F_B: C64-C128-C256-C512 and a logit a patch, 4 x 4 kernels, 2,764,737 parameters.

    Instance norm without affine parameters; weights from N(0, 0.02). On a 32 px image 2 x 2 logits,
    each of which sees the whole image (receptive field 70 px).
    """

    def __init__(self, width: int = FULL_WIDTH):
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]  # s / 2
        for a, b, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):  # s / 4, s / 8, s / 8 - 1
            layers += [
                nn.Conv2d(a * width, b * width, 4, stride, 1),
                nn.InstanceNorm2d(b * width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(8 * width, 1, 4, 1, 1))  # (n, 1, s / 8 - 2, s / 8 - 2)
        super().__init__(*layers)
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


class Adaptation(nn.Sequential):
    """Tanaka's network: undoes a block-wise cipher as far as 1 x 1 convolutions on blocks can.

    (n, 3, h, w) -> (n, 32, h, w); one column of three linear maps for all blocks, then the block's
    pixels are laid out again.
    """

    CHANNELS = 32

    def __init__(self):
        inner = 3 * BLOCK**2  # 48 bytes a block
        super().__init__(
            nn.BatchNorm2d(3),
            nn.Conv2d(3, inner, BLOCK, stride=BLOCK),  # (n, 48, h / 4, w / 4)
            nn.ReLU(),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, inner, 1),
            nn.ReLU(),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, self.CHANNELS * BLOCK**2, 1),  # (n, 512, h / 4, w / 4)
            nn.PixelShuffle(BLOCK),  # (n, 32, h, w)
        )


class ResNet18(nn.Module):
    """ResNet-18 with a 3 x 3 stem: 11,173,962 parameters at width 64, 10 classes, 3 channels.

    torchvision's basic blocks (He et al., CVPR 2016, Table 1); ``front`` comes before the stem.
    Raises InputError if ``width`` is no multiple of 8.
    """

    def __init__(
        self, classes: int, front: nn.Module, *, channels: int = 3, width: int = FULL_WIDTH
    ):
        if width % 8:
            raise InputError(
                "ResNet-18",
                "cannot have this width",
                expected="a multiple of 8: oneDNN's 1 x 1 stride-2 convolutions of fewer channels"
                " have been seen to corrupt memory",
                found=width,
                remedy="correct classify.width in params.yaml",
            )
        super().__init__()
        self.front = front
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        layers: list[nn.Module] = []
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for a, b in pairwise(widths):  # sides s, s / 2, s / 4, s / 8
            stride = 1 if a == b else 2
            shortcut = None
            if a != b:
                shortcut = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
            layers += [BasicBlock(a, b, stride, shortcut), BasicBlock(b, b)]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(8 * width, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.blocks(self.stem(self.front(x))).mean((2, 3)))


def load_frozen(net: nn.Module, file: Path) -> nn.Module:
    """Read ``net``'s weights and freeze it: inference mode, no gradients to its parameters.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another network.
    """
    load_state(net, read_state(file), file)
    return net.eval().requires_grad_(False)
