"""R, G and D of Wu et al., Sec. III-B and III-C, and the net of Dosovitskiy & Brox 2016 [5].

F_d are maps (n, channels, s / d, s / d), images (n, 3, s, s) in [-1, 1]; s is 32, 64, 128 or 256.
The kernel counts of Fig. 3 cannot be read; its layer counts fix the topology (a 4 x 4 bottleneck),
the widths below are ours. A smaller image takes the first encoder and the last decoder widths.
``width`` multiplies all of them but the input's and the image's, to no fewer than 8.

Departures: R averages the tanh of its halves (not stated where the average is taken); G is
DeblurGAN's generator with instance norm and clamp, but its last convolution starts at zero, so that
the second stage starts from R's image; D ends in logits, its sigmoid is inside the loss.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, pad

from stages.common.errors import InputError

ENCODER = {4: (256, 512, 512, 512), 2: (128, 256, 512, 512, 512)}  # widths of R's halves, by d
DECODER = (512, 512, 256, 128, 64)
ENCODER_5 = (256, 512, 1024, 2048)  # [5]
DECODER_5 = (512, 256, 128, 64, 32)
BOTTLENECK = 4  # side of the smallest map
LEAST_WIDTH = 8
SLOPE = 0.2  # of every LeakyReLU
Maps = Mapping[int, Tensor]  # {d: F_d}


def scaled(full: int, width: float | int) -> int:
    """Return ``full`` channels times ``width``, at least 8."""
    return max(LEAST_WIDTH, round(full * width))


def widths_of(
    size: int, d: int, encoder: Sequence[int], decoder: Sequence[int], width: float | int
) -> tuple[list[int], list[int]]:
    """Return the widths that lead from s / d to 4 pixels, and from there to s; without the image.

    Raises
    ------
    InputError
        If halving s / d or doubling 4 does not fit, or needs more layers than there are widths.
    """
    downs, ups = ((size // k).bit_length() - 1 for k in (d * BOTTLENECK, BOTTLENECK))
    fits = BOTTLENECK * 2**ups == size and 1 <= downs <= len(encoder) and ups <= len(decoder) + 1
    if not fits:
        raise InputError(
            f"network for cells of {d} pixels",
            "does not fit the images",
            expected="a size of 32, 64, 128 or 256",
            found=size,
            remedy="change profiles.<profile>.sift_inversion.shared.size in params.yaml",
        )
    inner = decoder[len(decoder) + 1 - ups :]
    return [scaled(c, width) for c in encoder[:downs]], [scaled(c, width) for c in inner]


class NearestConv(nn.Conv2d):
    """Nearest upsampling by 2, zero padding and a 3 x 3 convolution, on the small map.

    Together they are a transposed convolution of stride 2 by the kernel blurred to 4 x 4: 4 instead
    of 9 products an output pixel and no large intermediate map. Exact up to rounding; the parameter
    is still the 3 x 3 kernel.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, kernel_size=3)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k 2*h 2*w"]:
        kernel = self.weight.flip(2, 3).transpose(0, 1)
        kernel = pad(kernel, (0, 1)) + pad(kernel, (1, 0))
        kernel = pad(kernel, (0, 0, 0, 1)) + pad(kernel, (0, 0, 1, 0))
        return conv_transpose2d(input, kernel, self.bias, stride=2, padding=1)


def down(c_in: int, c_out: int, kernel: int) -> list[nn.Module]:
    """Conv stride 2 - BatchNorm - LeakyReLU: halves the side."""
    conv = nn.Conv2d(c_in, c_out, kernel, 2, kernel // 2)
    return [conv, nn.BatchNorm2d(c_out), nn.LeakyReLU(SLOPE, inplace=True)]


def up(c_in: int, c_out: int) -> list[nn.Module]:
    """Nearest upsampling, conv 3 x 3 - BatchNorm - LeakyReLU: doubles the side."""
    return [NearestConv(c_in, c_out), nn.BatchNorm2d(c_out), nn.LeakyReLU(SLOPE, inplace=True)]


def half(d: int, *, size: int, width: float | int, channels: int) -> nn.Sequential:
    """One half of R (Fig. 3), left for d = 4 and right for d = 2, before its tanh.

    At s = 256 10 convolutions and 12,995,843 parameters, or 11 and 12,881,539.
    """
    encoder, decoder = widths_of(size, d, ENCODER[d], DECODER, width)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise([channels, *encoder])):
        layers += down(a, b, kernel=3 if i else 5)
    for a, b in pairwise([encoder[-1], *decoder]):
        layers += up(a, b)
    return nn.Sequential(*layers, NearestConv(decoder[-1], 3))


class CoarseNet(nn.Module):
    """R: the mean over ``inputs`` of tanh(half(F_d)), Fig. 3; one half, two, or twice the same d.

    Parameters
    ----------
    inputs : d of each half, [4, 2] in the paper.
    size : side s of the images, pixels.
    channels : of F_d.
    """

    def __init__(self, inputs: Sequence[int], *, size: int, width: float | int, channels: int):
        super().__init__()
        self.inputs = list(inputs)
        self.halves = nn.ModuleList(
            half(d, size=size, width=width, channels=channels) for d in inputs
        )

    def forward(self, maps: Maps) -> Float[Tensor, "n 3 s s"]:
        images = [net(maps[d]).tanh() for d, net in zip(self.inputs, self.halves, strict=True)]
        return images[0] if len(images) == 1 else torch.stack(images).mean(0)


class Dosovitskiy(nn.Module):
    """The net of [5] for SIFT: F_4 of 133 channels -> image, no normalisation, linear output.

    An up-convolution puts each value into the corner of a 2 x 2 block of zeros and convolves by
    5 x 5: a transposed convolution. Weights as He et al. 2015, biases 0. At s = 256 56,197,443
    parameters.
    """

    inputs = (4,)

    def __init__(self, *, size: int, width: float | int, channels: int):
        super().__init__()
        encoder, decoder = widths_of(size, 4, ENCODER_5, DECODER_5, width)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise([channels, *encoder])):
            kernel = 3 if i else 5
            layers += [nn.Conv2d(a, b, kernel, 2, kernel // 2), nn.LeakyReLU(SLOPE, inplace=True)]
        for a, b in pairwise([encoder[-1], *decoder, 3]):
            layers += [nn.ConvTranspose2d(a, b, 5, 2, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])  # the image is not rectified
        for layer in self.layers:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                seen = layer.in_channels * layer.kernel_size[0] ** 2  # inputs of one output
                if isinstance(layer, nn.ConvTranspose2d):
                    seen /= 4  # of those, the ones that are not the up-convolution's zeros
                nn.init.normal_(layer.weight, 0, (2 / (1 + SLOPE**2) / seen) ** 0.5)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Maps) -> Float[Tensor, "n 3 s s"]:
        return self.layers(maps[4])


class ResidualBlock(nn.Module):
    """x + (conv - IN - ReLU - dropout - conv - IN), 3 x 3, reflected borders."""

    def __init__(self, channels: int, dropout: float | int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.layers(x)


class FineNet(nn.Module):
    """G: coarse image x -> clamp(x + h(x), -1, 1); Johnson et al.'s ResNet as in DeblurGAN.

    With ``ngf`` 64 and 9 ``blocks`` 11,378,179 parameters. Weights from N(0, 0.02), but for the
    last convolution, which starts at zero: at the start G(x) = x.
    """

    def __init__(self, *, ngf: int, blocks: int, dropout: float | int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, ngf, 7, padding=3, padding_mode="reflect"),  # (n, ngf, s, s)
            *norm_relu(ngf),
            nn.Conv2d(ngf, 2 * ngf, 3, 2, 1),  # (n, 2 ngf, s / 2, s / 2)
            *norm_relu(2 * ngf),
            nn.Conv2d(2 * ngf, 4 * ngf, 3, 2, 1),  # (n, 4 ngf, s / 4, s / 4)
            *norm_relu(4 * ngf),
            *[ResidualBlock(4 * ngf, dropout) for _ in range(blocks)],
            NearestConv(4 * ngf, 2 * ngf),  # (n, 2 ngf, s / 2, s / 2)
            *norm_relu(2 * ngf),
            NearestConv(2 * ngf, ngf),  # (n, ngf, s, s)
            *norm_relu(ngf),
            nn.Conv2d(ngf, 3, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        initialise(self)
        last = self.layers[-2]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        return (x + self.layers(x)).clamp(-1, 1)


def norm_relu(channels: int) -> list[nn.Module]:
    """Instance norm without affine parameters, then ReLU."""
    return [nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]


class Refined(nn.Module):
    """R and G in a row: F -> (c, o) = (R(F), G(R(F)))."""

    def __init__(self, R: nn.Module, G: FineNet):
        super().__init__()
        self.R, self.G = R, G

    def forward(self, maps: Maps) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 3 s s"]]:
        c = self.R(maps)
        return c, self.G(c)


class Discriminator(nn.Module):
    """D(c, image): pix2pix's PatchGAN, a grid of logits; positive says real.

    With ``ndf`` 64 and 3 ``layers`` of stride 2: 2,768,705 parameters, patches of 70 x 70 pixels,
    30 x 30 logits at s = 256; with 2 layers 34 x 34 pixels. Convolutions before BatchNorm have no
    bias; weights from N(0, 0.02), BatchNorm's from N(1, 0.02).

    Parameters
    ----------
    conditional : whether D sees the coarse image c beside the image.
    """

    def __init__(self, *, ndf: int, layers: int, conditional: bool):
        super().__init__()
        self.conditional = conditional
        widths = [ndf * min(2**i, 8) for i in range(layers + 1)]
        rows: list[nn.Module] = [
            nn.Conv2d(6 if conditional else 3, ndf, 4, 2, 1),  # (n, ndf, s / 2, s / 2)
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        for i, (a, b) in enumerate(pairwise(widths), start=1):
            rows += [
                nn.Conv2d(a, b, 4, 1 if i == layers else 2, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.layers = nn.Sequential(*rows, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        initialise(self)

    def forward(
        self, c: Float[Tensor, "n 3 s s"], image: Float[Tensor, "n 3 s s"]
    ) -> Float[Tensor, "n 1 _ _"]:
        return self.layers(torch.cat([c, image], 1) if self.conditional else image)


def initialise(net: nn.Module) -> None:
    """Draw weights from N(0, 0.02), BatchNorm's from N(1, 0.02), biases 0: pix2pix, DeblurGAN."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def parameters(net: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in net.parameters())


class Row(NamedTuple):
    """One convolution of a network's table; ``parameters`` counts the norm after it, too."""

    name: str
    kind: str  # "conv", "up" (nearest, then conv) or "transposed"
    kernel: int
    stride: float  # of the output against the input: 2 halves the side, 0.5 doubles it
    c_in: int
    c_out: int
    side: int  # of the output, pixels
    parameters: int


def table(net: nn.Module, *inputs) -> list[Row]:
    """Return the rows of a network's table in the order of one forward pass on ``inputs``.

    On ``torch.device("meta")`` it costs nothing. The network is left in inference mode.
    """
    rows: list[Row] = []
    hooks = []

    def note(name: str, layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            kind = "transposed" if isinstance(layer, nn.ConvTranspose2d) else "conv"
            rows.append(
                Row(
                    name=name,
                    kind="up" if isinstance(layer, NearestConv) else kind,
                    kernel=layer.kernel_size[0],
                    stride=round(2 * args[0].shape[-1] / output.shape[-1]) / 2,
                    c_in=layer.in_channels,
                    c_out=layer.out_channels,
                    side=output.shape[-1],
                    parameters=parameters(layer),
                )
            )
        elif rows and (more := parameters(layer)):
            rows[-1] = rows[-1]._replace(parameters=rows[-1].parameters + more)

    for name, layer in net.named_modules():
        if not list(layer.children()):
            hooks.append(
                layer.register_forward_hook(
                    lambda layer, args, output, name=name: note(name, layer, args, output)
                )
            )
    with torch.no_grad():
        net.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    return rows
