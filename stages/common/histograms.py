"""Histograms of colours and how far two of them are apart, NumPy only.

A histogram is the last axis of an array; leading axes (channels, bootstrap resamples) broadcast.
Counts need not be whole numbers, so that resampled, weighted histograms can be compared too.
"""

import numpy as np
from jaxtyping import Float64, Int32, Int64, Num

LIMIT = 110  # |a| and |b| of sRGB colours stay below it (a -86.2..98.3, b -107.9..94.5)
BINS = 2 * LIMIT - 1  # edges -110, -109, .., 109, the authors' bins


def ab_histograms(ab: Num[np.ndarray, "n 2 h w"]) -> Int32[np.ndarray, "n 2 219"]:
    """Count the pixels of each image in 219 bins of one CIELAB unit, for a and for b.

    Raises
    ------
    ValueError
        If a value lies outside [-110, 109), where no sRGB colour lies.
    """
    bins = np.floor(ab).astype(np.int64) + LIMIT
    if bins.min() < 0 or bins.max() >= BINS:
        raise ValueError(f"ab lie in [-110, 109) for sRGB colours, is {ab.min()}..{ab.max()}")
    n = len(ab)
    rows = np.arange(2 * n)[:, None] * BINS + bins.reshape(2 * n, -1)
    counts = np.bincount(rows.ravel(), minlength=2 * n * BINS)
    return counts.reshape(n, 2, BINS).astype(np.int32)


def ab_histogram_2d(
    ab: Num[np.ndarray, "n 2 h w"], *, width: int = 10
) -> Int64[np.ndarray, "bins bins"]:
    """Count all pixels in square bins of ``width`` CIELAB units over [-110, 110]; a is axis 0.

    Raises
    ------
    ValueError
        If ``width`` does not divide 220, or a value lies outside.
    """
    side, rest = divmod(2 * LIMIT, width)
    if rest:
        raise ValueError(f"bins of {width} do not tile [-110, 110]")
    a, b = np.moveaxis(np.floor((ab + LIMIT) / width).astype(np.int64), 1, 0).reshape(2, -1)
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= side:
        raise ValueError(f"ab lie in [-110, 110) for sRGB colours, is {ab.min()}..{ab.max()}")
    return np.bincount(a * side + b, minlength=side * side).reshape(side, side)


def shares(counts: Num[np.ndarray, "*k bins"]) -> Float64[np.ndarray, "*k bins"]:
    """Divide each histogram by its sum.

    Raises
    ------
    ValueError
        If a histogram is empty.
    """
    total = counts.sum(-1, keepdims=True, dtype=np.float64)
    if (total <= 0).any():
        raise ValueError(f"{np.count_nonzero(total <= 0)} of {total.size} histograms are empty")
    return counts / total


def overlap(
    p: Num[np.ndarray, "*#k bins"], q: Num[np.ndarray, "*#k bins"]
) -> Float64[np.ndarray, "*k"]:
    """Return the common area of two histograms, sum of min(p, q): 1 if equal, 0 if disjoint."""
    return np.asarray(np.minimum(shares(p), shares(q)).sum(-1))


def js_divergence(
    p: Num[np.ndarray, "*#k bins"], q: Num[np.ndarray, "*#k bins"]
) -> Float64[np.ndarray, "*k"]:
    """Return the Jensen-Shannon divergence in bits: 0 if equal, 1 if disjoint.

    Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 1991; the
    square of what ``scipy.spatial.distance.jensenshannon(base=2)`` returns.
    """
    p, q = np.broadcast_arrays(shares(p), shares(q))
    m = (p + q) / 2

    def divergence(r: np.ndarray) -> np.ndarray:
        ratio = np.divide(r, m, out=np.ones_like(m), where=r > 0)
        return np.asarray((r * np.log2(ratio)).sum(-1))

    return np.asarray(np.maximum((divergence(p) + divergence(q)) / 2, 0))


def wasserstein(
    p: Num[np.ndarray, "*#k bins"], q: Num[np.ndarray, "*#k bins"], *, width: int | float
) -> Float64[np.ndarray, "*k"]:
    """Return the Wasserstein-1 distance of histograms with equal bins of ``width``.

    All of a bin's mass sits at its centre; in one dimension the distance is the area between
    the cumulative sums, in the unit of ``width``.
    """
    return np.asarray(np.abs(np.cumsum(shares(p) - shares(q), -1)).sum(-1) * width)


def log_histogram(per_image: Num[np.ndarray, "*k bins"]) -> Float64[np.ndarray, "*k bins"]:
    """Return ln of the mean counts per image; an empty bin gets the least finite value.

    Raises
    ------
    ValueError
        If a histogram is empty.
    """
    if (per_image.max(-1) <= 0).any():
        raise ValueError("a histogram is empty")
    filled = per_image > 0
    h = np.log(per_image, out=np.full(per_image.shape, np.inf), where=filled)
    return np.where(filled, h, h.min(-1, keepdims=True))


def log_histogram_distance(
    p: Num[np.ndarray, "*#k bins"], q: Num[np.ndarray, "*#k bins"], *, floor: int | float
) -> Float64[np.ndarray, "*k"]:
    """Return the area between two log histograms: the mean over bins of |ln p - ln q|.

    Departure: both are raised to one ``floor``. Filling each one's empty bins with its own least
    value, as the authors' figure does (:func:`log_histogram`), makes the whole area hang on its
    rarest pixel.

    Parameters
    ----------
    p, q : mean counts per image; the logarithm makes rare, saturated colours count.
    floor : what a bin has at least; half a pixel in all images together is 0.5 / n.
    """
    low, high = np.maximum(p, floor), np.maximum(q, floor)
    return np.asarray(np.abs(np.log(low) - np.log(high)).mean(-1), dtype=np.float64)
