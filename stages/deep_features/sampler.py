"""Batches of P identities with K images each (FastReID's NaiveIdentitySampler)."""

import numpy as np
from jaxtyping import Int64

from stages.common.errors import InputError


class Batches:
    """Batches of identities in an order that is a function of (seed, number of the batch) alone.

    A pass shuffles every identity's images and cuts them into groups of K (identities with fewer
    than K repeat some); a batch takes a group of each of P identities drawn from those with groups
    left; it ends when fewer than P are. Passes differ in length, which is why this is an object:
    it remembers their lengths, and a resumed run goes through them again.
    """

    def __init__(self, pids: Int64[np.ndarray, " n"], *, P: int, K: int, seed: int):
        """Raise InputError if there are fewer than P identities."""
        self.P, self.K, self.seed = P, K, seed
        order = np.argsort(pids, kind="stable")
        starts = np.flatnonzero(np.diff(pids[order], prepend=pids[order][:1] - 1))
        self.images = np.split(order, starts[1:])  # of each identity
        if len(self.images) < P:
            raise InputError(
                "training set of the black box",
                "has fewer identities than a batch",
                expected=f"at least {P}",
                found=len(self.images),
                remedy="lower ids_per_batch or raise the identities of this profile in params.yaml",
            )
        self.number, self.first = -1, 0  # of the pass held, and of its first batch
        self.held: list[np.ndarray] = []

    def _pass(self, number: int) -> list[np.ndarray]:
        draw = np.random.default_rng([self.seed, number])
        left = []
        for images in self.images:
            if len(images) < self.K:
                images = draw.choice(images, self.K)
            whole = len(images) // self.K * self.K
            left.append(list(draw.permutation(images)[:whole].reshape(-1, self.K)))
        batches, alive = [], list(range(len(left)))
        while len(alive) >= self.P:
            chosen = draw.choice(len(alive), self.P, replace=False)
            ids = [alive[i] for i in chosen]
            batches.append(np.concatenate([left[i].pop() for i in ids]))
            alive = [i for i in alive if left[i]]
        return batches

    def at(self, i: int) -> Int64[np.ndarray, " n"]:
        """Return the image numbers of batch ``i``: P groups of K, one identity after the other."""
        if i < self.first:
            self.number, self.first, self.held = -1, 0, []
        while i >= self.first + len(self.held):
            self.first += len(self.held)
            self.number += 1
            self.held = self._pass(self.number)
        return self.held[i - self.first]
