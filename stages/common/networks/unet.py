"""U-Net: an encoder and a decoder with skip connections between maps of equal size.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, Fig. 1. Departures, usual since: padded convolutions (output as large as the input),
batch normalisation, nearest upsampling and a 3 x 3 convolution instead of a transposed one.
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn.functional import max_pool2d


def conv(c_in: int, c_out: int) -> nn.Sequential:
    """3 x 3 convolution - batch norm - ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())


def double(c_in: int, c_out: int) -> nn.Sequential:
    """Two of :func:`conv`."""
    return nn.Sequential(conv(c_in, c_out), conv(c_out, c_out))


class UNet(nn.Module):
    """Image -> image of the same size, without a final activation.

    Parameters
    ----------
    widths : channels of each level, from the full resolution down; each level halves the side, so
        the side must be a multiple of 2 ** (len(widths) - 1) (see :attr:`multiple`).
    c_in, c_out : channels of the images.
    """

    def __init__(self, widths: list[int], c_in: int = 3, c_out: int = 3):
        super().__init__()
        self.down = nn.ModuleList(double(a, b) for a, b in pairwise([c_in, *widths]))
        levels = list(pairwise(widths))[::-1]  # (width above, width below), lowest level first
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), conv(below, above))
            for above, below in levels
        )
        self.merge = nn.ModuleList(double(2 * above, above) for above, _ in levels)
        self.head = nn.Conv2d(widths[0], c_out, 1)

    @property
    def multiple(self) -> int:
        """What the side of an image must be a multiple of."""
        return 2 ** len(self.up)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Return the image; a ValueError if the side cannot be halved often enough."""
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(
                f"sides must be multiples of {self.multiple}, the image is {tuple(x.shape[-2:])}"
            )
        skips = [x := self.down[0](x)]
        for block in self.down[1:]:  # type: ignore[index]
            skips.append(x := block(max_pool2d(x, 2)))
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(cat([skips.pop(), up(x)], dim=1))
        return self.head(x)
