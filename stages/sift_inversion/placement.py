"""Place keypoints in the cells of the map F_d, one in a cell (Sec. III-A).

Cell (i, j) holds the keypoints whose y is in [d i, d (i + 1)) and x in [d j, d (j + 1)). Of several
in a cell the best keeps it, the others move to an adjacent empty one. What the paper leaves open:
the best is the one of the strongest response; every cell first gets its own keypoint, then the
displaced ones choose, best first, so that none takes another's cell. The answer depends on the set
of keypoints alone, not on their order.

Variants: ``order`` says who is best ("response", "size", or "random": a draw), ``collision`` what
the others do: move ("adjacent"), go ("drop"), or go after a draw of who stays ("random_pick").
"""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Int16, Int64, UInt8, UInt64

Order = Literal["response", "size", "random"]
Collision = Literal["adjacent", "drop", "random_pick"]
IMAGES_AT_ONCE = 256  # of place_many: bounds its grid of cells to some 30 MB


def draw(
    kp: Float32[np.ndarray, "n 5"], ids: Int64[np.ndarray, " n"], seed: int = 0
) -> UInt64[np.ndarray, " n"]:
    """Draw a number for each keypoint: a hash of (seed, image, x, y, size, angle).

    It stays the same when other keypoints are removed or listed in another order.

    Parameters
    ----------
    ids : number of the keypoint's image in its split.
    """

    def mix(z: np.ndarray) -> np.ndarray:  # splitmix64 (Steele et al. 2014)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    bits = np.ascontiguousarray(kp[:, :4]).view(np.uint32).astype(np.uint64)
    state = np.full(len(kp), seed, np.uint64)
    for word in (ids.astype(np.uint64), *bits.T):
        state = mix((state ^ word) + np.uint64(0x9E3779B97F4A7C15))
    return state


def own_cells(kp: Float32[np.ndarray, "n 5"], *, size: int, d: int) -> Int64[np.ndarray, "n 2"]:
    """Return (row, col) = (floor(y / d), floor(x / d)), clipped to the ceil(S / d) cells a side."""
    last = -(-size // d) - 1
    yx = kp[:, 1::-1].astype(np.float64)
    return np.clip(np.floor(yx / d), 0, last).astype(np.int64)


def place(
    kp: Float32[np.ndarray, "n 5"],
    desc: UInt8[np.ndarray, "n 128"],
    *,
    size: int,
    d: int,
    r_max: int = 1,
    order: Order = "response",
    collision: Collision = "adjacent",
    image: int = 0,
) -> Int16[np.ndarray, "n 2"]:
    """Return the cell (row, col) of each keypoint of one image, (-1, -1) if it is dropped.

    The reference: one keypoint after the other, as the paper tells it; :func:`place_many` equals
    it.

    Parameters
    ----------
    kp : x, y, size, angle, response.
    desc : descriptors; they decide between keypoints that agree in everything else.
    size, d : side of the image and of a cell, px.
    r_max : how many cells away a displaced keypoint may go; 1: "adjacent".
    image : the image's number, for what is random.
    """
    order = "random" if collision == "random_pick" else order
    side = -(-size // d)
    cells = np.full((len(kp), 2), -1, np.int16)
    own = [tuple(cell) for cell in own_cells(kp, size=size, d=d).tolist()]
    x, y, scale, angle, response = kp.astype(np.float64).T.tolist()
    chance = draw(kp, np.full(len(kp), image)).tolist()

    def priority(k: int) -> tuple:
        rest = (y[k], x[k], angle[k], desc[k].tobytes())
        if order == "size":
            return (-scale[k], -response[k], *rest)
        first = (chance[k],) if order == "random" else ()
        return (*first, -response[k], -scale[k], *rest)

    taken, displaced = set(), []
    for k in sorted(range(len(kp)), key=priority):
        if own[k] in taken:
            displaced.append(k)
        else:
            taken.add(own[k])
            cells[k] = own[k]
    for k in displaced if collision == "adjacent" else []:
        free = []
        for i in range(own[k][0] - r_max, own[k][0] + r_max + 1):
            for j in range(own[k][1] - r_max, own[k][1] + r_max + 1):
                if 0 <= i < side and 0 <= j < side and (i, j) not in taken:
                    ring = max(abs(i - own[k][0]), abs(j - own[k][1]))
                    dx, dy = x[k] - (j + 0.5) * d, y[k] - (i + 0.5) * d
                    free.append((ring, dx * dx + dy * dy, i, j))
        if free:
            cell = min(free)[2:]
            taken.add(cell)
            cells[k] = cell
    return cells


def _best_first(
    kp: np.ndarray, desc: np.ndarray, image: np.ndarray, ids: np.ndarray, *, order: Order
) -> np.ndarray:
    """Return the order by image, then by priority; descriptors are compared only in ties."""
    x, y, scale, angle, response = kp.T
    keys = [angle, x, y, -scale, -response, image]  # lexsort: the last is the first
    if order == "size":
        keys[3:5] = keys[4:2:-1]
    if order == "random":
        keys.insert(5, draw(kp, ids))
    best = np.lexsort(keys)
    same = np.ones(max(len(best) - 1, 0), bool)
    for key in keys:
        same &= key[best][1:] == key[best][:-1]
    for start in np.flatnonzero(same & ~np.r_[False, same][: len(same)]):
        stop = start + 1
        while stop < len(best) and same[stop - 1]:
            stop += 1
        best[start:stop] = sorted(best[start:stop], key=lambda k: desc[k].tobytes())
    return best


def _wishes(
    kp: np.ndarray, image: np.ndarray, own: np.ndarray, *, side: int, d: int, r_max: int
) -> Int64[np.ndarray, "n wishes"]:
    """Return the other cells each keypoint may go to, best first: flat index, -1 outside."""
    steps = np.arange(-r_max, r_max + 1)
    steps = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    steps = steps[steps.any(1)]
    row, col = (own[:, None, axis] + steps[:, axis] for axis in (0, 1))
    inside = (row >= 0) & (row < side) & (col >= 0) & (col < side)
    xy = kp[:, None, :2].astype(np.float64)
    dx, dy = xy[..., 0] - (col + 0.5) * d, xy[..., 1] - (row + 0.5) * d
    ring = np.broadcast_to(np.abs(steps).max(1), row.shape)
    order = np.lexsort((col, row, dx * dx + dy * dy, ring, ~inside))
    flat = np.where(inside, (image[:, None] * side + row) * side + col, -1)
    return np.take_along_axis(flat, order, 1)


def place_many(
    kp: Float32[np.ndarray, "N 5"],
    desc: UInt8[np.ndarray, "N 128"],
    offsets: Int64[np.ndarray, " n_plus_1"],
    ids: Int64[np.ndarray, " n"],
    *,
    size: int,
    d: int,
    r_max: int = 1,
    order: Order = "response",
    collision: Collision = "adjacent",
) -> Int16[np.ndarray, "N 2"]:
    """Return what :func:`place` does for each of n images, ``place(..., image=ids[i])``.

    All displaced keypoints at once propose to the cell they like best, each cell keeps its best
    proposer, the refused ones propose to their next. Because all cells rank the keypoints alike,
    this ends where one after the other does (Gale & Shapley 1962).

    Parameters
    ----------
    offsets : the keypoints of image i are the rows offsets[i]:offsets[i + 1].
    """
    cells = np.empty((len(kp), 2), np.int16)
    order = "random" if collision == "random_pick" else order
    for start in range(0, len(ids), IMAGES_AT_ONCE):
        part = offsets[start : start + IMAGES_AT_ONCE + 1]
        image = np.repeat(np.arange(len(part) - 1), np.diff(part))
        rows = slice(part[0], part[-1])
        some = np.asarray(kp[rows])
        best = _best_first(some, desc[rows], image, ids[start + image], order=order)
        reach = r_max if collision == "adjacent" else 0
        cells[rows][best] = _settle(some[best], image[best], size=size, d=d, r_max=reach)
    return cells


def _settle(
    kp: np.ndarray, image: np.ndarray, *, size: int, d: int, r_max: int
) -> Int16[np.ndarray, "n 2"]:
    """Place keypoints that come best first within an image; ``r_max`` 0: drop the displaced."""
    side, n = -(-size // d), len(kp)
    own = own_cells(kp, size=size, d=d)
    place_of = (image * side + own[:, 0]) * side + own[:, 1]
    owners = np.unique(place_of, return_index=True)[1]
    displaced = np.delete(np.arange(n), owners)
    holder = np.full((image[-1] + 1) * side**2 if n else 0, n)  # n: free
    holder[place_of[owners]] = -1  # better than any proposer
    place_of[displaced] = -1
    wishes = _wishes(kp[displaced], image[displaced], own[displaced], side=side, d=d, r_max=r_max)
    number = np.zeros(n, np.int64)  # of a displaced keypoint among them
    number[displaced] = np.arange(len(displaced))
    asked = np.zeros(len(displaced), np.int64)  # how many wishes were refused
    seeking = np.arange(len(displaced))
    while len(seeking := seeking[asked[seeking] < wishes.shape[1]]):
        target = wishes[seeking, asked[seeking]]
        seeking, target = seeking[target >= 0], target[target >= 0]
        before = holder[target]
        np.minimum.at(holder, target, displaced[seeking])
        won = holder[target] == displaced[seeking]
        place_of[displaced[seeking[won]]] = target[won]
        evicted = before[won & (before < n)]
        place_of[evicted] = -1
        seeking = np.concatenate([seeking[~won], number[evicted]])
        asked[seeking] += 1
    row, col = place_of // side % side, place_of % side
    return np.where(place_of >= 0, [row, col], -1).T.astype(np.int16)
