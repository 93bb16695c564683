"""Training images as FastReID v1.0.0 shows them: AutoAugment, flip, pad and crop, random erasing.

Departures: AutoAugment (torchvision's, ImageNet policy) sees the image after its resize, not
before. Everything is a function of (seed, step): a resumed run sees the same images.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchvision.transforms import AutoAugment, InterpolationMode

from stages.deep_features.networks import IMAGENET_MEAN
from stages.deep_features.pixels import to_floats

AREA = (0.02, 0.33)  # of the image that is erased (torchvision's RandomErasing, as FastReID)
ASPECT = (0.3, 3.3)  # height by width of what is erased (the same)
ATTEMPTS = 10  # draws until a rectangle fits the image (the same)


def shift_flip(
    images: UInt8[Tensor, "n h w 3"], draw: torch.Generator, *, padding: int, flip: float | int
) -> UInt8[Tensor, "n h w 3"]:
    """Mirror with probability ``flip`` and shift by up to ``padding`` px, black outside.

    Padding on all sides and cutting out the image's size at random is such a shift.
    """
    n, h, w = images.shape[:3]
    shift = torch.randint(-padding, padding + 1, (n, 2), generator=draw)
    mirrored = torch.rand((n, 1), generator=draw) < flip
    rows, columns = torch.arange(h) + shift[:, :1], torch.arange(w) + shift[:, 1:]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    columns = torch.where(mirrored, w - 1 - columns, columns)  # of the mirrored image
    device = images.device
    rows, columns = rows.clamp(0, h - 1).to(device), columns.clamp(0, w - 1).to(device)
    each = torch.arange(n, device=device)[:, None, None]
    return images[each, rows[:, :, None], columns[:, None, :]] * inside.to(device)[..., None]


def erased(
    n: int, size: tuple[int, int], draw: torch.Generator, *, p: float | int
) -> Bool[Tensor, "n h w"]:
    """Return which pixels random erasing takes: with probability ``p`` one rectangle an image.

    Its area is 2 to 33 % of the image's, uniform, its aspect 0.3 to 3.3, uniform in the logarithm,
    drawn again until it is lower and narrower than the image (none after 10 attempts).
    """
    h, w = size
    chosen = torch.rand(n, generator=draw) < p
    area, aspect, y, x = torch.rand((4, n, ATTEMPTS), generator=draw, dtype=torch.float64)
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * h * w
    aspect = ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** aspect
    high, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (high < h) & (wide < w)
    first = fits.int().argmax(1, keepdim=True)
    taken = [(y * (h - high + 1)).floor(), high, (x * (w - wide + 1)).floor(), wide]
    top, high, left, wide = (value.gather(1, first) for value in taken)
    rows, columns = torch.arange(h), torch.arange(w)
    in_rows = (rows >= top) & (rows < top + high)
    in_columns = (columns >= left) & (columns < left + wide)
    some = chosen & fits.any(1)
    return in_rows[:, :, None] & in_columns[:, None, :] & some[:, None, None]


def auto_augment(
    images: UInt8[Tensor, "n h w 3"], draw: torch.Generator, *, p: float | int
) -> UInt8[Tensor, "n h w 3"]:
    """Change each image with probability ``p`` by the ImageNet policy of AutoAugment."""
    chosen = torch.nonzero(torch.rand(len(images), generator=draw) < p)[:, 0].tolist()
    seed = int(torch.randint(2**31, (1,), generator=draw))
    if not chosen:
        return images
    fill = [255 * value for value in IMAGENET_MEAN]
    policy = AutoAugment(interpolation=InterpolationMode.BILINEAR, fill=fill)
    images = images.clone()
    with torch.random.fork_rng(devices=[]):  # the policy draws from torch's own generator
        torch.manual_seed(seed)
        for i in chosen:
            images[i] = policy(images[i].permute(2, 0, 1)).permute(1, 2, 0)
    return images


def augment(
    images: UInt8[Tensor, "n h w 3"],
    *,
    seed: int,
    step: int,
    flip: float | int,
    padding: int,
    erasing: float | int,
    autoaugment: float | int,
) -> Float[Tensor, "n 3 h w"]:
    """Return a batch as the network sees it, floats in [0, 1].

    Parameters
    ----------
    images : of the network's input size.
    flip, erasing, autoaugment : probabilities for each image; what is erased takes ImageNet's mean.
    padding : largest shift in px.
    """
    draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
    if autoaugment:
        images = auto_augment(images, draw, p=autoaugment)
    if flip or padding:
        images = shift_flip(images, draw, padding=padding, flip=flip)
    shown = to_floats(images)
    if erasing:
        n, _, h, w = shown.shape
        gone = erased(n, (h, w), draw, p=erasing).to(shown.device)
        mean = torch.tensor(IMAGENET_MEAN, device=shown.device)[:, None, None]
        shown = torch.where(gone[:, None], mean, shown)
    return shown
