"""Random crops and flips of a whole epoch at once (Sec. IV-C: padding 4, horizontal flips)."""

import torch
from jaxtyping import UInt8
from torch import Tensor


def crop_flip(
    images: UInt8[Tensor, "n s s 3"], *, seed: int, epoch: int, padding: int = 4
) -> UInt8[Tensor, "n s s 3"]:
    """Shift every image by up to ``padding`` pixels, black outside, and mirror half of them.

    A function of (seed, epoch) alone: a resumed run sees the same images.
    """
    n, size = images.shape[:2]
    draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shift = torch.randint(-padding, padding + 1, (n, 2), generator=draw)
    flip = torch.rand((n, 1), generator=draw) < 0.5
    place = torch.arange(size)
    rows, columns = place + shift[:, :1], place + shift[:, 1:]  # (n, s)
    columns = torch.where(flip, columns.flip(1), columns)
    inside = (rows[:, :, None] >= 0) & (rows[:, :, None] < size)
    inside = inside & (columns[:, None, :] >= 0) & (columns[:, None, :] < size)
    device = images.device
    rows, columns = (t.clamp(0, size - 1).to(device) for t in (rows, columns))
    each = torch.arange(n, device=device)[:, None, None]
    moved = images[each, rows[:, :, None], columns[:, None, :]]
    return moved * inside.to(device)[..., None]
