"""Attributes without any key: the number of ones of a float survives every key.

Even a key of its own for every float leaves each dimension's number of ones, 0 to 32. Large sizes
have few (exponent 1000 0000), small ones many (0111 1110), so it tells something of the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt32

from stages.deep_features.cryptanalysis.planes import WIDTH, words

RIDGE = 1  # penalty of a weight, in units of the images
PRIOR = 20  # images that a number's mean over all dimensions counts for


def ones(words: UInt32[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Return the number of ones of each word; the same for a word and its encryption."""
    return np.bitwise_count(words)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier a task of what the numbers of ones make expect.

    expected : (33, D) mean value of a feature with so many ones, standardised.
    weights : of each task (D + 1, K), the last row the offsets.
    """

    expected: Float64[np.ndarray, "33 dims"]
    weights: list[np.ndarray]

    def predict(self, words: UInt32[np.ndarray, "n dims"]) -> Int64[np.ndarray, "n tasks"]:
        """Return the class of each task, from ciphertexts (or plain words) under any keys."""
        x = _inputs(self.expected, ones(words))
        return np.stack([(x @ w).argmax(1) for w in self.weights], 1).astype(np.int64)


def fit(
    features: Float32[np.ndarray, "n dims"],
    labels: Int64[np.ndarray, "n tasks"],
    classes: Sequence[int],
) -> Classifier:
    """Fit ridge regressions of the classes, balanced: each class weighs the same in sum.

    Parameters
    ----------
    features : the adversary's own, plain.
    labels : class of each task; none is unknown.
    classes : how many each task has.
    """
    counts = ones(words(features))
    sums, number = (np.zeros((WIDTH + 1, features.shape[1])) for _ in range(2))
    for level in range(WIDTH + 1):
        here = counts == level
        sums[level] = np.where(here, features, 0).sum(0, dtype=np.float64)
        number[level] = here.sum(0)
    pooled = sums.sum(1, keepdims=True) / np.maximum(number.sum(1, keepdims=True), 1)
    expected = (sums + PRIOR * pooled) / (number + PRIOR)
    share = number / len(features)
    mean = (share * expected).sum(0)
    variance = (share * (expected - mean) ** 2).sum(0)
    expected = (expected - mean) / np.sqrt(np.where(variance > 0, variance, 1))

    x = _inputs(expected, counts)
    penalty = np.diag([RIDGE * len(x)] * features.shape[1] + [0])
    weights = []
    for column, K in zip(labels.T, classes, strict=True):
        sizes = np.bincount(column, minlength=K)
        w = (len(column) / (np.count_nonzero(sizes) * np.maximum(sizes, 1)))[column]
        weighted = x.T * w
        B = np.linalg.solve(weighted @ x + penalty, weighted @ np.eye(K)[column])
        B[-1, sizes == 0] = -np.inf  # never predicted
        weights.append(B)
    return Classifier(expected, weights)


def _inputs(
    expected: Float64[np.ndarray, "33 dims"], counts: UInt8[np.ndarray, "n dims"]
) -> Float64[np.ndarray, "n dims_and_1"]:
    x = expected[counts, np.arange(counts.shape[1])]
    return np.concatenate([x, np.ones((len(x), 1))], 1)
