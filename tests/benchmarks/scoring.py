"""Scoring on one core: bootstrap against a loop of resamples; SSIM, which is a loop, against none.

The stages call scikit-image for one pair after the other. ``batched`` is what could take its place:
the same filters over all images at once, the same bytes (asserted); it is not in use.
"""

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import uniform_filter1d
from timing import Settings, Way, compare

from stages.common.bootstrap import bootstrap_means
from stages.common.metrics import ssim

RESAMPLES, METRICS = 2000, 20


def looped_means(values, groups, resamples, seed):
    """The bootstrap of clusters as it is written first: draw, gather, average."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    means = np.empty((resamples, len(values)))
    for r in range(resamples):
        drawn = rng.integers(len(members), size=len(members))
        chosen = np.concatenate([members[k] for k in drawn])
        means[r] = values[:, chosen].mean(axis=1)
    return means


def batched_ssim(x, y, *, data_range, window=7, at_once=2**16):
    """scikit-image's SSIM with a uniform window, of all images; (n, h, w, c) -> (n,)."""
    step = max(1, at_once // x[0].size)
    parts = [
        _batched_ssim(x[i : i + step], y[i : i + step], data_range, window)
        for i in range(0, len(x), step)
    ]
    return np.concatenate(parts)


def _batched_ssim(x, y, data_range, window):
    # a channel is an image: that is the order in which scikit-image takes means
    x, y = (np.ascontiguousarray(np.moveaxis(a, -1, 1)).astype(np.float64) for a in (x, y))

    def smooth(a):
        for axis in (2, 3):
            a = uniform_filter1d(a, window, axis=axis)
        return a

    points = window**2
    ux, uy = smooth(x), smooth(y)
    sample = points / (points - 1)
    vx, vy = sample * (smooth(x * x) - ux * ux), sample * (smooth(y * y) - uy * uy)
    vxy = sample * (smooth(x * y) - ux * uy)
    C1, C2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    A1, A2 = 2 * ux * uy + C1, 2 * vxy + C2
    B1, B2 = ux**2 + uy**2 + C1, vx + vy + C2
    S = (A1 * A2) / (B1 * B2)
    edge = (window - 1) // 2
    inner = S[:, :, edge:-edge, edge:-edge]
    return inner.mean(axis=(2, 3), dtype=np.float64).mean(axis=1)


def scoring(settings: Settings, peak: Mapping) -> dict[str, dict]:
    """Measure the bootstrap of twenty metrics, and SSIM at two sizes."""
    rng = np.random.default_rng(0)
    n, resamples = settings.sized(400, 40), settings.sized(RESAMPLES, 50)
    values, groups = rng.normal(size=(METRICS, n)), np.arange(n) // 2
    ours, loop = (
        f(values, groups, resamples, 0).std(axis=0) for f in (bootstrap_means, looped_means)
    )
    np.testing.assert_allclose(ours, loop, rtol=0.3)  # other draws, the same spread
    found = {
        "bootstrap": compare(
            {
                "ours": Way(
                    lambda: lambda: bootstrap_means(values, groups, resamples, 0),
                    "counts of clusters times their sums",
                ),
                "loop": Way(
                    lambda: lambda: looped_means(values, groups, resamples, 0),
                    "a loop over resamples",
                ),
            },
            settings,
            what=f"all papers: {resamples} resamples of {METRICS} metrics of {n} images in pairs",
            against=("loop",),
            target=1.5,
        )
    }
    for size, many in ((32, 200), (256, 10)):
        n = settings.sized(many, 4)
        x = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        y = np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8)
        same = batched_ssim(x, y, data_range=255), ssim(x, y, data_range=255)
        np.testing.assert_allclose(*same, rtol=1e-12)
        found[f"ssim_{size}px"] = compare(
            {
                "ours": Way(
                    lambda x=x, y=y: lambda: ssim(x, y, data_range=255),
                    "scikit-image, one pair after the other: the loop itself",
                ),
                "batched": Way(
                    lambda x=x, y=y: lambda: batched_ssim(x, y, data_range=255),
                    "all pairs at once; not in use",
                ),
            },
            settings,
            what=f"all papers: SSIM of {n} pairs of {size} px",
            against=("batched",),
            images=n,
            equal_bytes=bool(np.array_equal(*same)),
        )
    return found


ITEMS = {"scoring": scoring}
