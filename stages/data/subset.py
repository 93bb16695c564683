"""Choices of a few images a class: fixed, for sets too large to decode whole, or drawn."""

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


def balanced(
    labels: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ``count`` indices, whole groups at a time, class by class in turn.

    Groups are shuffled within their class and the classes take turns, so that every class has
    its share as long as its images last.
    """
    if not len(labels):
        return np.zeros(0, np.int64)
    order = np.lexsort((groups, labels))
    new = np.diff(groups[order], prepend=-1) != 0
    new |= np.diff(labels[order], prepend=-1) != 0
    queues: dict[int, list[np.ndarray]] = {}
    for members in np.split(order, np.flatnonzero(new)[1:]):
        queues.setdefault(int(labels[members[0]]), []).append(members)
    for queue in queues.values():
        rng.shuffle(queue)  # type: ignore[arg-type]
    chosen: list[int] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue:
                chosen.extend(queue.pop())
    return np.sort(np.array(chosen[:count]))
