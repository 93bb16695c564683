"""Networks of the trained attacks: GA's generators and discriminator, UWA's unshared layers.

GA (Sec. IV-B of the paper, Figs. 3 and 4): the figures' contents are taken from later code of the
same laboratory, so that they equal the paper's is a reconstruction, as are G ``local`` and UWA's
networks. Images are (n, 3, s, s); GA's are floats in [-1, 1], UWA's in [0, 1].

Departures: D ends in logits, its sigmoid is inside the loss; ``divisor`` divides the widths for
small budgets. G ``local`` follows SIA-GAN's plan (Madono et al., IEEE Access 2021): a sub-network
for every location, then a convolutional decoder.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.common.errors import InputError
from stages.common.networks.spectral_norm import spectral_norm
from stages.common.networks.unet import UNet

Generator = Literal["blockwise", "shared", "local", "unet"]
UnsharedNetwork = Literal["lin", "mlp"]
BLOCK = 4  # side of Tanaka's blocks, pixels
SLOPE = 0.2  # of every LeakyReLU
D_SIDE = 24  # least side on which D gives a logit


class LocallyConnected(nn.Module):
    """An unshared 1 x 1 convolution: y_hw = W_hw x_hw + b_hw, for squares of a fixed size.

    ``weight`` is (size^2, c_out, c_in), ``bias`` (size^2, c_out, 1); locations in raster order.
    """

    def __init__(self, c_in: int, c_out: int, size: int):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(size * size, c_out, c_in))
        self.bias = nn.Parameter(torch.empty(size * size, c_out, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, 0, 0.02)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "n c s s"]) -> Float[Tensor, "n d s s"]:
        at_location = x.flatten(2).permute(2, 1, 0).contiguous()  # (s s, c, n)
        y = torch.baddbmm(self.bias, self.weight, at_location)  # (s s, d, n)
        if y.requires_grad:
            y.register_hook(Tensor.contiguous)  # else backward copies matrix by matrix
        return y.permute(2, 1, 0).unflatten(2, (self.size, self.size))


class Unshared(nn.Module):
    """UWA's network (Chang & Li 2020 [16]): pixels, or blocks, each with weights of its own.

    Parameters
    ----------
    widths : values of a location at each layer; ReLU between two layers.
    size : side of the image, pixels.
    block : side of what is one location, pixels; a block enters as 3 block^2 values, divided by
        the block's side. Of images in [0, 1] the summed squares are then at most 3, a pixel's, and
        a linear map is stable at the paper's rate: the curvature of its squared error is at most
        2 (3 + 1) = 8, momentum 0.9 allows 3.8 / lr = 38.
    """

    def __init__(self, widths: list[int], size: int, block: int = 1):
        super().__init__()
        self.block = block
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.ReLU()] if layers else []
            layers.append(LocallyConnected(c_in, c_out, size // block))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        if self.block == 1:
            return self.layers(x)
        at_block = nn.functional.pixel_unshuffle(x, self.block) / self.block
        return nn.functional.pixel_shuffle(self.layers(at_block), self.block)


def uwa_network(kind: UnsharedNetwork, size: int) -> Unshared:
    """Return ``lin``, 3 -> 3 at every pixel, or ``mlp``, 3 -> 64 -> 3."""
    return Unshared({"lin": [3, 3], "mlp": [3, 64, 3]}[kind], size)


def uwa_block_network(size: int) -> Unshared:
    """Return an unshared linear map 48 -> 48 of every 4 x 4 block.

    Raises
    ------
    InputError
        If the blocks do not tile the image.
    """
    _check_blocks(size)
    values = 3 * BLOCK * BLOCK
    return Unshared([values, values], size, BLOCK)


def _check_blocks(size: int) -> None:
    if size % BLOCK:
        raise InputError(
            "attack on blocks",
            f"the image is not tiled by {BLOCK} x {BLOCK} blocks",
            expected=f"a side that is a multiple of {BLOCK}",
            found=size,
            remedy="change profiles.<profile>.gan_transform.prepare.attack_size",
        )


def blockwise(divisor: int = 1) -> nn.Sequential:
    """G of Fig. 4(a), for block-wise ciphers: 31,107 parameters."""
    a, b = 48 // divisor, 512 // divisor
    b -= b % BLOCK**2  # PixelShuffle takes BLOCK^2 maps to one
    return nn.Sequential(
        *_layer(nn.Conv2d(3, a, BLOCK, BLOCK)),  # (n, 48, s/4, s/4)
        *_layer(nn.Conv2d(a, a, 1)),
        *_layer(nn.Conv2d(a, b, 1)),  # (n, 512, s/4, s/4)
        nn.PixelShuffle(BLOCK),  # (n, 32, s, s)
        nn.Conv2d(b // BLOCK**2, 3, 1),
        nn.Tanh(),
    )


def shared(divisor: int = 1) -> nn.Sequential:
    """G of Fig. 4(b), for pixel-based ciphers, one map for all pixels: 43,267 parameters."""
    a, b, c = 64 // divisor, 128 // divisor, 256 // divisor
    return nn.Sequential(
        *_layer(nn.Conv2d(3, a, 1)),
        *_layer(nn.Conv2d(a, b, 1)),
        *_layer(nn.Conv2d(b, c, 1)),
        nn.Conv2d(c, 3, 1),
        nn.Tanh(),
    )


def _layer(conv: nn.Conv2d) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]


class _Residual(nn.Module):
    """X + Conv3-BN-LeakyReLU-Conv3-BN of x."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.layers(x)


def local(size: int, divisor: int = 1) -> nn.Sequential:
    """G for another key at every pixel: 299,011 parameters at 32 pixels, 823,299 at 96."""
    a, b = 16 // divisor, 64 // divisor
    return nn.Sequential(
        LocallyConnected(3, a, size),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(a, b, 3, padding=1),  # (n, 64, s, s)
        nn.BatchNorm2d(b),
        nn.LeakyReLU(SLOPE),
        *(_Residual(b) for _ in range(3)),
        nn.Conv2d(b, 3, 3, padding=1),
        nn.Tanh(),
    )


def unet(widths: list[int], size: int, final: Callable[[], nn.Module]) -> nn.Sequential:
    """Return a U-Net with its last activation: GA's ends in tanh, ITN's in a sigmoid.

    Raises
    ------
    InputError
        If the side cannot be halved often enough.
    """
    net = UNet(widths)
    if size % net.multiple:
        raise InputError(
            "unet_widths",
            f"{len(widths)} levels do not fit the image",
            expected=f"a side that is a multiple of {net.multiple}",
            found=size,
            remedy="shorten unet_widths or change attack_size of this profile in params.yaml",
        )
    return nn.Sequential(net, final())


def build_generator(
    kind: Generator, *, size: int, divisor: int, unet_widths: list[int]
) -> nn.Sequential:
    """Return GA's generator ``kind`` with its initial weights; ``unet`` has widths of its own.

    Raises
    ------
    InputError
        If it does not fit the side of the image, or ``divisor`` leaves no width.
    """
    if 16 % divisor:
        raise InputError(
            "ga_width_divisor",
            "does not divide the generators' widths",
            expected="1, 2, 4, 8 or 16",
            found=divisor,
            remedy="correct it in params.yaml",
        )
    if kind == "unet":
        return init_weights(unet(unet_widths, size, nn.Tanh))
    if kind == "local":
        return init_weights(local(size, divisor))
    if kind == "shared":
        return init_weights(shared(divisor))
    _check_blocks(size)
    return init_weights(blockwise(divisor))


def discriminator(ndf: int = 64) -> nn.Sequential:
    """D of Fig. 3: logits, positive says plain; 136,192 parameters at ``ndf`` 64.

    One logit an image at 32 pixels, 7 x 7 at 96. Only the middle layer has spectral norm (the
    laboratory's code: batch norm was there before and was replaced "for stability").
    """
    return init_weights(
        nn.Sequential(
            nn.Conv2d(3, ndf, 4, 2, 1, bias=False),  # (n, 64, s/2, s/2)
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(ndf, 2 * ndf, 4, 2, 1, bias=False),  # (n, 128, s/4, s/4)
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * ndf, 1, 4, bias=False),  # (n, 1, s/4 - 3, s/4 - 3)
            nn.MaxPool2d(3),
        ),
        normalised=2,
    )


def init_weights(net: nn.Sequential, normalised: int | None = None) -> nn.Sequential:
    """Draw DCGAN's initial weights: N(0, 0.02) of convolutions, N(1, 0.02) of batch norm.

    Biases of convolutions keep torch's. The layer at ``normalised`` then gets spectral norm.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.02)
            nn.init.zeros_(layer.bias)
    if normalised is not None:
        spectral_norm(net[normalised])
    return net
