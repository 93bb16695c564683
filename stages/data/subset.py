"""A fixed choice of a few images a class, for sets that are too large to decode whole."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64


def per_class_subset(labels: Sequence[int], count: int) -> Int64[np.ndarray, " m"]:
    """Return the indices of ``count`` images of every class (all, if it has fewer), ascending.

    Which ones depends on the position in the set alone: those whose position's SHA-256 is least.
    """
    order = sorted(range(len(labels)), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    taken: dict[int, int] = {}
    chosen = []
    for i in order:
        taken[labels[i]] = taken.get(labels[i], 0) + 1
        if taken[labels[i]] <= count:
            chosen.append(i)
    return np.array(sorted(chosen), np.int64)
