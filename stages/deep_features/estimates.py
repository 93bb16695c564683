"""Bootstrap estimates of balanced accuracy, of means over images, and of medians over requests.

Attributes belong to persons, so images of one person are not independent: identities are drawn,
each with all of its images (Field & Welsh, J. R. Statist. Soc. B 2007). One draw serves all
attributes, heads and models of a set, so their differences and averages are paired. Departure from
our specification, which draws identities within each class: classes of one attribute are not
classes of another, so that no common draw could be made; a class that a draw lacks keeps its
recall, and with few identities it is lacking rarely (five: in 1 % of the draws).

Balanced accuracy is scikit-learn's: the mean recall of the classes that occur among the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer

from stages.common.bootstrap import bootstrap_weights
from stages.common.claims import Estimate, combine

UNKNOWN = -1  # label of an image that has none
AT_ONCE = 2**23  # entries of a block of permuted labels


@dataclass(frozen=True, eq=False)
class Draws:
    """Resamples of a set's identities.

    index : the place of each image's identity among the sorted ones.
    weights : of the identities in each resample; rows sum to 1.
    """

    index: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, "resamples ids"]

    def totals(self, rows: Float[np.ndarray, "m n"]) -> Float64[np.ndarray, "m ids"]:
        """Sum each row over the images of an identity."""
        ids = self.weights.shape[1]
        return np.stack([np.bincount(self.index, weights=row, minlength=ids) for row in rows])

    def sums(self, rows: Float[np.ndarray, "m n"]) -> Float64[np.ndarray, "resamples m"]:
        """Return each row's sum in each resample, up to a factor that all rows share."""
        return self.weights @ self.totals(rows).T


def draw_identities(pids: Int64[np.ndarray, " n"], *, resamples: int, seed: int) -> Draws:
    """Draw a set's identities with replacement.

    Raises
    ------
    ValueError
        If there is no image or no resample.
    """
    ids, index = np.unique(pids, return_inverse=True)
    weights = bootstrap_weights(np.arange(len(ids)), resamples, seed)
    return Draws(index.astype(np.int64), weights.astype(np.float64))


# ---------------------------------------------------------------- balanced accuracy


def identities_of_classes(
    labels: Int64[np.ndarray, " n"], pids: Int64[np.ndarray, " n"], classes: int
) -> Int64[np.ndarray, " classes"]:
    """Count the identities of each class; images labelled -1 do not count."""
    return np.array([len(np.unique(pids[labels == c])) for c in range(classes)], np.int64)


def balanced_accuracy(
    correct: Float[np.ndarray, "s n"],
    labels: Int64[np.ndarray, " n"],
    draws: Draws,
    *,
    counted: Bool[np.ndarray, " classes"],
) -> Estimate:
    """Mean recall over the counted classes, averaged over seeds.

    Parameters
    ----------
    correct : 1 where a prediction is right, one row a seed; in between, the share of several.
    labels : class of each image, -1 for none.
    counted : classes that count, each with an image.

    Raises
    ------
    ValueError
        If no class counts, or one that does has no image.
    """
    of_class = (labels == np.flatnonzero(counted)[:, None]).astype(np.float64)
    sizes = of_class.sum(axis=1)
    if not len(sizes) or sizes.min() == 0:
        raise ValueError(f"classes to count have {sizes.tolist()} images")
    hits = of_class[:, None] * correct[None]  # classes, seeds, images
    recall = hits.sum(axis=2) / sizes[:, None]
    both = draws.sums(np.concatenate([of_class, hits.reshape(-1, hits.shape[2])]))
    drawn = both[:, : len(sizes), None]
    of_draws = both[:, len(sizes) :].reshape(-1, *hits.shape[:2])
    whole = np.broadcast_to(recall, of_draws.shape)
    resampled = np.divide(of_draws, drawn, out=whole.copy(), where=drawn > 0)
    seeds = recall.mean(axis=0)
    return Estimate(float(seeds.mean()), resampled.mean(axis=(1, 2)), tuple(map(float, seeds)))


def permuted_accuracy(
    predictions: Integer[np.ndarray, "s n"],
    labels: Int64[np.ndarray, " n"],
    pids: Int64[np.ndarray, " n"],
    *,
    permutations: int,
    seed: int,
) -> Float64[np.ndarray, " permutations"]:
    """Balanced accuracy, averaged over seeds, if the identities' labels are permuted.

    All images of an identity keep one label, so that the band of these values is as wide as chance
    makes it for so few persons.

    Raises
    ------
    ValueError
        If images of one identity have different labels, or no image has one.
    """
    known = labels != UNKNOWN
    ids, first, index = np.unique(pids[known], return_index=True, return_inverse=True)
    own = labels[known][first]
    if not len(ids) or (own[index] != labels[known]).any():
        raise ValueError("labels are not one for each identity")
    present = np.unique(own)
    seen = predictions[:, known]
    sizes = np.bincount(index).astype(np.float64)
    votes = np.stack(  # classes, seeds, identities: images that are predicted to be of the class
        [
            [np.bincount(index, weights=row == c, minlength=len(ids)) for row in seen]
            for c in present
        ]
    )
    rng = np.random.default_rng(seed)
    found = np.empty(permutations)
    block = max(1, AT_ONCE // len(ids))
    for start in range(0, permutations, block):
        rows = min(block, permutations - start)
        shuffled = rng.permuted(np.broadcast_to(own, (rows, len(ids))), axis=1)
        recalls = []
        for c, of_class in zip(present, votes, strict=True):
            drawn = (shuffled == c).astype(np.float64)
            recalls.append((drawn @ of_class.T) / (drawn @ sizes)[:, None])
        found[start : start + rows] = np.stack(recalls).mean(axis=(0, 2))
    return found


# ---------------------------------------------------------------- means and medians


def mean_over_images(values: Float[np.ndarray, "s n"], draws: Draws) -> Estimate:
    """Mean over images, averaged over seeds, on a set's resamples."""
    ones = np.ones((1, values.shape[1]))
    rows = np.concatenate([values.mean(axis=0, keepdims=True), ones]).astype(np.float64)
    totals = draws.sums(rows)
    seeds = values.mean(axis=1, dtype=np.float64)
    samples = totals[:, 0] / totals[:, 1]
    return Estimate(float(seeds.mean()), samples, tuple(map(float, seeds)))


def median_over_requests(
    values: Float[np.ndarray, "s r"], *, resamples: int, seed: int
) -> Estimate:
    """Median over requests, averaged over seeds; requests are drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(values.shape[1], size=(resamples, values.shape[1]))
    samples = np.stack([np.median(row[drawn], axis=1) for row in values]).mean(axis=0)
    seeds = np.median(values, axis=1)
    return Estimate(float(seeds.mean()), samples, tuple(map(float, seeds)))


def without_draw(values: Float[np.ndarray, " s"], resamples: int) -> Estimate:
    """One number a seed, that no image or request was drawn for."""
    value = float(values.mean())
    return Estimate(value, np.full(resamples, value), tuple(map(float, values)))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of several estimates, paired where they share resamples.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not estimates:
        raise ValueError("no estimates to average")
    return combine(lambda *found: sum(found) / len(found), *estimates)


# ---------------------------------------------------------------- numbers of ones


def _entropy(counts: Integer[np.ndarray, "..."]) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def kept_by_every_key(features: Float[np.ndarray, "n d"]) -> dict[str, float]:
    """Say how much of a float its number of ones tells, which no shuffling of bits changes.

    Returns
    -------
    ``popcount``, the entropy of the number of ones, bits; ``leading``, that of sign and exponent;
    ``mutual``, what the former tells of the latter. Plug-in estimates over all floats.
    """
    words = np.ascontiguousarray(features, np.float32).view(np.uint32).ravel()
    ones, leading = np.bitwise_count(words).astype(np.int64), (words >> 23).astype(np.int64)
    joint = np.bincount(leading * 33 + ones)
    of_ones, of_leading = np.bincount(ones), np.bincount(leading)
    popcount, lead = _entropy(of_ones), _entropy(of_leading)
    return {"popcount": popcount, "leading": lead, "mutual": popcount + lead - _entropy(joint)}
