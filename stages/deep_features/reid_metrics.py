"""Rank-1, average precision and inverse negative penalty of a retrieval, NumPy only.

As FastReID v1.0.0 with Market-1501's protocol: of a query's gallery its own identity seen by its
own camera is left out. Identities no query has (distractors) only count as wrong.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Num

from stages.common.errors import InputError

AT_ONCE = 512  # queries that are ranked at once; bounds the memory


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
    return 1 - unit(a) @ unit(b).T


def unit(features: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Return features of length 1, in 64 bits; 0 stays 0."""
    x = features.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)


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
    return rank_by(
        lambda part: distances[part],
        pids=pids,
        camids=camids,
        gallery_pids=gallery_pids,
        gallery_camids=gallery_camids,
    )


def rank_by(
    distances: Callable[[slice], Num[np.ndarray, "b g"]],
    *,
    pids: Int64[np.ndarray, " q"],
    camids: Int64[np.ndarray, " q"],
    gallery_pids: Int64[np.ndarray, " g"],
    gallery_camids: Int64[np.ndarray, " g"],
    at_once: int = AT_ONCE,
) -> Ranking:
    """Do what :func:`rank` does, ``at_once`` queries after the other.

    Parameters
    ----------
    distances : some of the queries -> their distances to the whole gallery.

    Raises
    ------
    InputError
        If no query is valid.
    """
    parts = [slice(i, i + at_once) for i in range(0, len(pids), at_once)]
    found = [
        _rank(distances(part), pids[part], camids[part], gallery_pids, gallery_camids)
        for part in parts
    ]
    if not any(len(ranking.pids) for ranking in found):
        raise _no_query(len(pids), len(gallery_pids))
    return Ranking(*map(np.concatenate, zip(*found, strict=True)))


def rank1_by(
    distances: Callable[[slice], Num[np.ndarray, "b g"]],
    *,
    pids: Int64[np.ndarray, " q"],
    camids: Int64[np.ndarray, " q"],
    gallery_pids: Int64[np.ndarray, " g"],
    gallery_camids: Int64[np.ndarray, " g"],
    at_once: int = AT_ONCE,
) -> Float64[np.ndarray, " v"]:
    """Return ``rank1`` of :func:`rank_by`, without sorting the gallery.

    Raises
    ------
    InputError
        If no query is valid.
    """
    found = []
    for i in range(0, len(pids), at_once):
        part = slice(i, i + at_once)
        same = gallery_pids == pids[part, None]
        own = same & (gallery_camids == camids[part, None])
        valid = (same & ~own).any(1)
        first = np.where(own, np.inf, distances(part)).argmin(1)
        found.append(same[np.arange(len(same)), first][valid].astype(np.float64))
    if not sum(map(len, found)):
        raise _no_query(len(pids), len(gallery_pids))
    return np.concatenate(found)


def _no_query(queries: int, images: int) -> InputError:
    return InputError(
        "retrieval",
        "cannot be measured",
        expected="a query whose identity another camera saw in the gallery",
        found=f"none among {queries} queries and {images} gallery images",
        remedy="raise the images of an identity, or mark queries in the prepared set",
    )


def _rank(
    distances: Num[np.ndarray, "b g"],
    pids: Int64[np.ndarray, " b"],
    camids: Int64[np.ndarray, " b"],
    gallery_pids: Int64[np.ndarray, " g"],
    gallery_camids: Int64[np.ndarray, " g"],
) -> Ranking:
    order = np.argsort(distances, axis=1, kind="stable")
    same = gallery_pids[order] == pids[:, None]
    kept = ~(same & (gallery_camids[order] == camids[:, None]))
    right = same & kept
    valid = right.any(1)
    right, kept, pids = right[valid], kept[valid], pids[valid]
    place = np.cumsum(kept, axis=1)  # rank of each image among those kept, from 1
    hits = np.cumsum(right, axis=1)
    number = hits[:, -1]
    ap = (right * hits / np.maximum(place, 1)).sum(1) / number
    last = np.where(right, place, 0).max(1, initial=0)
    first = np.where(right, place, place.shape[1] + 1).min(1, initial=place.shape[1] + 1)
    return Ranking(ap, number / last, (first == 1).astype(np.float64), pids)


def retrieve(
    features: Float32[np.ndarray, "n d"],
    *,
    pids: Int64[np.ndarray, " n"],
    camids: Int64[np.ndarray, " n"],
    query: Bool[np.ndarray, " n"],
    at_once: int = AT_ONCE,
) -> Ranking:
    """Rank a test split by cosine distance: the images marked ``query`` against all others.

    Raises
    ------
    InputError
        If no query is valid.
    """
    some, gallery = unit(features[query]), unit(features[~query])
    return rank_by(
        lambda part: 1 - some[part] @ gallery.T,
        pids=pids[query],
        camids=camids[query],
        gallery_pids=pids[~query],
        gallery_camids=camids[~query],
        at_once=at_once,
    )
