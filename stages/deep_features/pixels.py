"""Stored images as the networks take them, and the one resize that all stages share."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate


def resize(images: Float[Tensor, "n 3 h w"], size: tuple[int, int]) -> Float[Tensor, "n 3 a b"]:
    """Resize floats in [0, 1] to (height, width), bicubic with antialias as PIL, and clip."""
    if tuple(images.shape[2:]) == size:
        return images
    return interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def to_floats(images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Return floats in [0, 1], in the memory format of the convolutions."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def resize_bytes(
    images: UInt8[Tensor, "n h w 3"], size: tuple[int, int], *, part: int = 1024
) -> UInt8[Tensor, "n a b 3"]:
    """Resize stored images by :func:`resize`, rounded to whole numbers as PIL's are."""
    if tuple(images.shape[1:3]) == size:
        return images
    done = [resize(to_floats(some), size).mul(255).round().byte() for some in images.split(part)]
    return torch.cat(done).permute(0, 2, 3, 1).contiguous()
