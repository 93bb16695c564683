"""Blur and checkerboards in numbers: what the text of Sec. III-C says of Fig. 4's pictures.

Both from the spectrum of luma (ITU-R BT.601). Repeating pixels in G's upsampling leaves patterns of
period 2, 4 and 8 px (Odena et al., "Deconvolution and checkerboard artifacts", Distill 2016), that
is peaks at 1/2, 1/4 and 1/8 cycles a pixel. These measures are ours; the paper shows pictures.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
FINE = 0.25  # cycles a pixel, half of what pixels can show
PERIODS = (2, 4, 8)  # px
RING = (2, 3)  # bins from a peak to its background: a Hann window widens a peak by one
LEAST = 1e-12  # of a power: rounding


def luma(images: Float[Tensor, "n 3 h w"]) -> Float64[Tensor, "n h w"]:
    """Return luma of RGB images, in their unit."""
    weights = torch.tensor(LUMA, dtype=torch.float64, device=images.device)
    return torch.einsum("c,nchw->nhw", weights, images.double())


def fine_share(images: Float[Tensor, "n 3 h w"]) -> Float64[Tensor, " n"]:
    """Return the share of luma's energy (its mean left out) above 0.25 cycles a pixel; flat: 0.

    The frequency is radial. White noise has 1 - pi/16 = 0.80.
    """
    Y = luma(images)
    energy = torch.fft.fft2(Y - Y.mean((1, 2), keepdim=True)).abs().square()
    v, u = (torch.fft.fftfreq(side, device=Y.device) for side in Y.shape[1:])
    fine = (v[:, None].square() + u.square()).sqrt() > FINE
    total, share = energy.sum((1, 2)), (energy * fine).sum((1, 2))
    flat = total <= LEAST * Y[0].numel() ** 2
    return torch.where(flat, 0.0, share / torch.where(flat, 1.0, total))


def lattice(height: int, width: int) -> Bool[Tensor, "h w"]:
    """Return the bins of patterns with a period of 2, 4 or 8 px in both directions, not the mean.

    In one direction the pattern may be constant.
    """
    found = []
    for side in (height, width):
        line = torch.zeros(side, dtype=torch.bool)
        line[0] = True
        for period in PERIODS:
            line[side // period] = line[-(side // period)] = True
        found.append(line)
    bins = found[0][:, None] & found[1]
    bins[0, 0] = False
    return bins


def peaks(images: Float[Tensor, "n 3 h w"]) -> Float64[Tensor, " n"]:
    """Return log10 of the mean over the ``lattice`` of the power of a bin over its background.

    The background of a bin is the median of the bins 2 and 3 away (the larger of the two
    distances along the axes), those of the lattice and of the mean left out. About 0.2 without a
    pattern; flat: 0.

    Raises
    ------
    ValueError
        If a side is no multiple of 8, or below 16.
    """
    h, w = images.shape[2:]
    if h % max(PERIODS) or w % max(PERIODS) or min(h, w) < 2 * max(PERIODS):
        raise ValueError(f"sides must be multiples of 8 from 16 on, are {h} x {w}")
    Y = luma(images)
    Y = Y - Y.mean((1, 2), keepdim=True)
    flat = Y.square().mean((1, 2)) <= LEAST
    vertical, horizontal = (
        torch.hann_window(side, dtype=torch.float64, device=Y.device) for side in (h, w)
    )
    power = torch.fft.fft2(Y * vertical[:, None] * horizontal).abs().square() + LEAST
    known = lattice(h, w)
    known[0, 0] = True
    ratios = []
    reach = range(-RING[1], RING[1] + 1)
    for v, u in lattice(h, w).nonzero().tolist():
        around = {
            ((v + dv) % h, (u + du) % w)
            for dv in reach
            for du in reach
            if max(abs(dv), abs(du)) >= RING[0]
        }
        rows, columns = zip(*sorted(at for at in around if not known[at]), strict=True)
        background = power[:, list(rows), list(columns)].median(1).values
        ratios.append(power[:, v, u] / background)
    return torch.where(flat, 0.0, torch.stack(ratios).mean(0).log10())
