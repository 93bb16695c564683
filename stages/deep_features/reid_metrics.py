"""Rank-1, average precision and inverse negative penalty of a retrieval, NumPy only.

As FastReID v1.0.0 with Market-1501's protocol: of a query's gallery its own identity seen by its
own camera is left out. Identities no query has (distractors) only count as wrong.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Num

from stages.common.errors import InputError


class Ranking(NamedTuple):
    """One number for each valid query: one with an image of its identity by another camera.

    ap : average precision, 0 to 1; its mean is mAP.
    inp : number of right images by the rank of the last one (Ye et al. 2021); its mean is mINP.
    rank1 : 1 if the first one is right, else 0.
    pids : the queries' identities.
    """

    ap: Float64[np.ndarray, " q"]
    inp: Float64[np.ndarray, " q"]
    rank1: Float64[np.ndarray, " q"]
    pids: Int64[np.ndarray, " q"]

    def means(self) -> dict[str, float]:
        """Return {"rank1", "mAP", "mINP"}, 0 to 1."""
        return {
            "rank1": float(self.rank1.mean()),
            "mAP": float(self.ap.mean()),
            "mINP": float(self.inp.mean()),
        }


def cosine_distances(
    a: Float32[np.ndarray, "n d"], b: Float32[np.ndarray, "m d"]
) -> Float64[np.ndarray, "n m"]:
    """Return 1 - cosine of every feature of ``a`` and of ``b``, in 64 bits; 1 if one is 0."""
    x, y = (v.astype(np.float64) for v in (a, b))
    x, y = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (x, y))
    return 1 - x @ y.T


def rank(
    distances: Num[np.ndarray, "q g"],
    *,
    pids: Int64[np.ndarray, " q"],
    camids: Int64[np.ndarray, " q"],
    gallery_pids: Int64[np.ndarray, " g"],
    gallery_camids: Int64[np.ndarray, " g"],
) -> Ranking:
    """Rank the gallery for every query by any distance, equal ones in the gallery's order.

    Raises
    ------
    InputError
        If no query is valid.
    """
    order = np.argsort(distances, axis=1, kind="stable")
    same = gallery_pids[order] == pids[:, None]
    kept = ~(same & (gallery_camids[order] == camids[:, None]))
    right = same & kept
    valid = right.any(1)
    if not valid.any():
        raise InputError(
            "retrieval",
            "cannot be measured",
            expected="a query whose identity another camera saw in the gallery",
            found=f"none among {len(pids)} queries and {len(gallery_pids)} gallery images",
            remedy="raise the images of an identity, or mark queries in the prepared set",
        )
    right, kept, pids = right[valid], kept[valid], pids[valid]
    place = np.cumsum(kept, axis=1)  # rank of each image among those kept, from 1
    hits = np.cumsum(right, axis=1)
    number = hits[:, -1]
    ap = (right * hits / np.maximum(place, 1)).sum(1) / number
    last = np.where(right, place, 0).max(1)
    first = np.where(right, place, place.shape[1] + 1).min(1)
    return Ranking(ap, number / last, (first == 1).astype(np.float64), pids)


def retrieve(
    features: Float32[np.ndarray, "n d"],
    *,
    pids: Int64[np.ndarray, " n"],
    camids: Int64[np.ndarray, " n"],
    query: Bool[np.ndarray, " n"],
) -> Ranking:
    """Rank a test split by cosine distance: the images marked ``query`` against all others.

    Raises
    ------
    InputError
        If no query is valid.
    """
    return rank(
        cosine_distances(features[query], features[~query]),
        pids=pids[query],
        camids=camids[query],
        gallery_pids=pids[~query],
        gallery_camids=camids[~query],
    )
