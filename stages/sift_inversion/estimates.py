"""Bootstrap estimates of what is no plain mean over images.

Means over the images that have a value (one without keypoints has no descriptors to compare),
Pearson's correlation, a difference at equal covariates, and the Frechet distance of features
(Heusel et al., NIPS 2017, Eq. 6; here on principal components of EfficientNet-Lite0's). All of them
resample the images' clusters; those of equal resamples and seed are paired.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from stages.common.bootstrap import bootstrap_means, bootstrap_weights
from stages.common.claims import Estimate

RESAMPLES_AT_ONCE = 64  # of the Frechet distance: bounds a block of covariances to some MB

Groups = Int64[np.ndarray, " n"]


def means_of_present(
    values: Mapping[Any, Float[np.ndarray, "_ n"]], groups: Groups, *, resamples: int, seed: int
) -> dict[Any, Estimate]:
    """Means over the images that have a value, averaged over seeds, on common resamples.

    A name is left out if it has no image, or so few that some resample has none of them.

    Parameters
    ----------
    values : name -> per-image values, one row a seed; NaN in all seeds where an image has none.
    groups : the cluster of each image.
    """
    present = {name: np.isfinite(v).all(axis=0) for name, v in values.items()}
    patterns = list({mask.tobytes(): mask for mask in present.values()}.values())
    row_of = {mask.tobytes(): i for i, mask in enumerate(patterns)}
    sums = [np.where(present[name], v.mean(axis=0), 0) for name, v in values.items()]
    rows = np.stack([*patterns, *sums]).astype(np.float64)
    means = bootstrap_means(rows, groups, resamples, seed)
    found = {}
    for i, (name, v) in enumerate(values.items()):
        share = means[:, row_of[present[name].tobytes()]]
        if share.min() > 0:
            seeds = v[:, present[name]].mean(axis=1, dtype=np.float64)
            samples = means[:, len(patterns) + i] / share
            found[name] = Estimate(float(seeds.mean()), samples, tuple(map(float, seeds)))
    return found


def _correlation(moments: Float64[np.ndarray, "5 ..."]) -> Float64[np.ndarray, "..."]:
    """Return Pearson's r of the means of x, y, x^2, y^2 and x y; 0 where x or y is constant."""
    x, y, xx, yy, xy = moments
    spread = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    r = np.divide(xy - x * y, np.sqrt(spread), out=np.zeros_like(xy), where=spread > 1e-18)
    return np.clip(r, -1, 1)


def correlation(
    x: Float[np.ndarray, "s n"],
    y: Float[np.ndarray, " n"],
    groups: Groups,
    *,
    resamples: int,
    seed: int,
) -> Estimate:
    """Pearson's r of x and y over the images, averaged over seeds."""
    centred = (x - x.mean(), y - y.mean())  # or the moments lose digits
    a, b = np.broadcast_arrays(*(v / (np.abs(v).max() or 1.0) for v in centred))
    rows = np.stack([a, b, a * a, b * b, a * b]).astype(np.float64)
    seeds = _correlation(rows.mean(axis=2))
    samples = _correlation(np.moveaxis(bootstrap_means(rows, groups, resamples, seed), 0, 2))
    return Estimate(float(seeds.mean()), samples.mean(axis=0), tuple(map(float, seeds)))


def permutation_p(
    x: Float[np.ndarray, "s n"],
    y: Float[np.ndarray, " n"],
    groups: Groups,
    *,
    permutations: int,
    seed: int,
) -> float:
    """Return p of Pearson's r > 0 if clusters of x and of y belonged together by chance.

    x and y are averaged in each cluster, and r over seeds; p counts the data as one permutation.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)

    def by_cluster(row: np.ndarray) -> np.ndarray:
        mean = np.bincount(index, weights=row) / sizes
        return mean - mean.mean()

    rows, truth = np.stack([by_cluster(row) for row in x]), by_cluster(y)
    norms = np.linalg.norm(rows, axis=1)
    # a constant row correlates with nothing; y's norm is the same in every permutation
    rows = np.divide(rows, norms[:, None], out=np.zeros_like(rows), where=norms[:, None] > 1e-9)
    score = rows.mean(axis=0)
    rng = np.random.default_rng(seed)
    real = score @ truth
    reached = sum(score @ rng.permutation(truth) >= real - 1e-12 for _ in range(permutations))
    return (1 + reached) / (1 + permutations)


def at_equal(
    difference: Float[np.ndarray, "s n"],
    covariates: Float[np.ndarray, "c n"],
    groups: Groups,
    *,
    resamples: int,
    seed: int,
) -> Estimate:
    """Return what is left of a mean difference where the covariates do not differ.

    The intercept of the least-squares regression of an image's difference (of two regions) on the
    differences of its covariates, averaged over seeds. Covariates that are constant or depend on
    others are ignored (the solution of least norm).
    """
    scale = np.sqrt((covariates**2).mean(axis=1, keepdims=True))
    scaled = np.divide(covariates, scale, out=np.zeros_like(covariates), where=scale > 0)
    X = np.concatenate([np.ones((1, scaled.shape[1])), scaled]).astype(np.float64)
    k = len(X)
    products = (X[:, None] * X[None]).reshape(k * k, -1)
    towards = (X[:, None] * difference[None]).reshape(k * len(difference), -1)

    def intercepts(means: np.ndarray) -> np.ndarray:
        XX = means[..., : k * k].reshape(*means.shape[:-1], k, k)
        Xy = means[..., k * k :].reshape(*means.shape[:-1], k, len(difference))
        return (np.linalg.pinv(XX, rcond=1e-9, hermitian=True) @ Xy)[..., 0, :]

    rows = np.concatenate([products, towards])
    seeds = intercepts(rows.mean(axis=1))
    samples = intercepts(bootstrap_means(rows, groups, resamples, seed)).mean(axis=1)
    return Estimate(float(seeds.mean()), samples, tuple(map(float, seeds)))


def _moments(
    weights: Float[np.ndarray, "b n"], features: Float64[np.ndarray, "n d"]
) -> tuple[Float64[np.ndarray, "b d"], Float64[np.ndarray, "b d d"]]:
    w = weights.astype(np.float64)
    mean = w @ features
    second = np.stack([(features * row[:, None]).T @ features for row in w])
    return mean, second - mean[:, :, None] * mean[:, None, :]


def _root(matrices: Float64[np.ndarray, "b d d"]) -> Float64[np.ndarray, "b d d"]:
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.sqrt(np.maximum(values, 0))[:, None, :]) @ vectors.swapaxes(1, 2)


def frechet(
    fake: Mapping[Any, Float[np.ndarray, "_ n d"]],
    real: Float[np.ndarray, "n d"],
    groups: Groups,
    *,
    resamples: int,
    seed: int,
) -> dict[Any, Estimate]:
    """Frechet distances |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of features, paired.

    All names are resampled alike, real and reconstructed images together. An image drawn twice
    makes both sets smaller and every distance larger; so a name's resamples are moved to its value.

    Parameters
    ----------
    fake : name -> features of the reconstructions, one row a seed.
    real : features of the originals.
    """
    n = len(real)
    truth = real.astype(np.float64)
    weights = np.concatenate(
        [np.full((1, n), 1 / n, np.float32), bootstrap_weights(groups, resamples, seed)]
    )
    distances = {name: np.empty((len(rows), len(weights))) for name, rows in fake.items()}
    for start in range(0, len(weights), RESAMPLES_AT_ONCE):
        block = weights[start : start + RESAMPLES_AT_ONCE]
        m1, C1 = _moments(block, truth)
        root = _root(C1)
        traces = np.trace(C1, axis1=1, axis2=2)
        for name, rows in fake.items():
            for s, features in enumerate(rows):
                m2, C2 = _moments(block, features.astype(np.float64))
                cross = np.linalg.eigvalsh(root @ C2 @ root)
                overlap = np.sqrt(np.maximum(cross, 0)).sum(axis=1)
                apart = ((m1 - m2) ** 2).sum(axis=1)
                found = apart + traces + np.trace(C2, axis1=1, axis2=2) - 2 * overlap
                distances[name][s, start : start + len(block)] = np.maximum(found, 0)
    found_estimates = {}
    for name, rows in distances.items():
        value, samples = float(rows[:, 0].mean()), rows[:, 1:].mean(axis=0)
        found_estimates[name] = Estimate(
            value, samples - samples.mean() + value, tuple(map(float, rows[:, 0]))
        )
    return found_estimates
