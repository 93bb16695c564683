"""h_p as a client uses it: a fixed function of one uint8 image, giving one uint8 image.

G_AB in inference mode, in 32 bits, in batches of one fixed size that are padded with black, so that
the numbers of an image do not depend on what else is in its batch. The result is rounded, because
what is uploaded has 8 bits; ``as_float`` leaves that out, for the insider who attacks G_AB's own
output.
"""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from stages.gan_transform.classifier import to_network
from stages.gan_transform.networks import load_frozen, translator

BATCH = 64


def load_translator(file: Path, widths: list[int], device: torch.device) -> nn.Module:
    """Return G_AB or G_BA, frozen, on ``device``.

    Raises
    ------
    InputError
        If the file is missing, damaged or of other widths.
    """
    return load_frozen(translator(widths), file).to(device)


@torch.no_grad()
def as_float(G: nn.Module, images: UInt8[Tensor, "n h w 3"]) -> Tensor:
    """Return G's output in [0, 1], (n, 3, h, w), before rounding."""
    device = next(G.parameters()).device
    parts = []
    for part in images.split(BATCH):
        padded = torch.zeros((BATCH, *images.shape[1:]), dtype=torch.uint8)
        padded[: len(part)] = part
        parts.append(G(to_network(padded.to(device)))[: len(part)])
    return torch.cat(parts) if parts else torch.zeros((0, 3, *images.shape[1:3]))


def to_uint8(images: Tensor) -> UInt8[Tensor, "n h w 3"]:
    """Round images in [0, 1], (n, 3, h, w), on any device, to 8 bits on the CPU."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()


def translate(G: nn.Module, images: UInt8[Tensor, "n h w 3"]) -> UInt8[Tensor, "n h w 3"]:
    """Apply ``G`` and round: h_p if G is G_AB, the insider's inversion if it is G_BA."""
    return to_uint8(as_float(G, images))
