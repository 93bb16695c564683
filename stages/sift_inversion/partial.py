"""Keep some of the keypoints: regions removed, keypoints at random, coarse or fine ones (Fig. 7).

A condition is named "full", "box-<mode>-<place>-<f>", "keep-<p>", "sigma-above" or "sigma-below".
Removal comes before placement: what is left is placed anew, so that a removed keypoint's cell is
free. The paper removes a region's keypoints by their centres and leaves open whether descriptors
that overlap it stay; mode "support" removes those, too.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from stages.common.errors import InputError
from stages.common.params import Number
from stages.sift_inversion.keypoints import Descriptors, offsets_of, placed
from stages.sift_inversion.placement import draw

MODES = ("centre", "support")
PLACES = {  # x, y of the middle of a box, in sides of the image; random: one draw an image
    "centre": (0.5, 0.5),
    "eyes": (0.5, 0.46),  # eyes and mouth: of aligned faces, photographs and emoji
    "mouth": (0.5, 0.73),
    "random": None,
}
BINS = 4  # of a descriptor's histogram grid, a side (Lowe 2004, Sec. 6.1)
BIN_WIDTH = 3  # in sigma


def condition_names(
    boxes: Sequence[Number],
    places: Sequence[str],
    modes: Sequence[str],
    keeps: Sequence[Number],
) -> list[str]:
    """Return the names of all conditions but "full": "box-centre-eyes-0.1", ..., "keep-0.5"."""
    return [
        *(f"box-{mode}-{place}-{f:g}" for mode in modes for place in places for f in boxes),
        *(f"keep-{p:g}" for p in keeps),
        "sigma-above",
        "sigma-below",
    ]


def _no_condition(name: str) -> InputError:
    return InputError(
        name,
        "is no condition of reconstruct",
        expected=f"full, box-<{'|'.join(MODES)}>-<{'|'.join(PLACES)}>-<f>, keep-<p>, sigma-above "
        "or sigma-below, f and p from 0 to 1",
        found=repr(name),
        remedy="correct boxes, places, modes or keeps in params.yaml",
    )


def parse_box(condition: str) -> tuple[str, str, float] | None:
    """Return (mode, place, f) of a condition "box-<mode>-<place>-<f>", None of another one.

    Raises
    ------
    InputError
        If it begins with "box-" but is none.
    """
    if not condition.startswith("box-"):
        return None
    parts = condition.split("-", 3)
    if len(parts) == 4 and parts[1] in MODES and parts[2] in PLACES:
        return parts[1], parts[2], _share(condition, parts[3])
    raise _no_condition(condition)


def _share(condition: str, text: str) -> float:
    if re.fullmatch(r"[0-9.]+(e-[0-9]+)?", text):
        try:
            share = float(text)
        except ValueError:
            raise _no_condition(condition) from None
        if share <= 1:
            return share
    raise _no_condition(condition)


def boxes(
    descriptors: Descriptors, place: str, f: Number, *, seed: int = 0
) -> Float64[np.ndarray, "n 4"]:
    """Return a square of area f S^2 for each image: left, top, right, bottom, pixels.

    It is shifted to lie inside the image; that of a larger f contains that of a smaller one.

    Parameters
    ----------
    place : a key of ``PLACES``.
    f : share of the image's area, 0 to 1.
    seed : of a random place, with the image's id.
    """
    S = descriptors.size
    middle = PLACES[place]
    if middle is None:
        nothing = np.zeros((len(descriptors), 5), np.float32)
        words = np.stack([draw(nothing, descriptors.ids, 2 * seed + k) for k in (0, 1)], 1)
        at = (words >> np.uint64(11)) / 2.0**53
    else:
        at = np.tile(np.float64(middle), (len(descriptors), 1))
    side = S * np.sqrt(f)
    corner = np.clip(S * at - side / 2, 0, S - side)
    return np.concatenate([corner, corner + side], 1)


def box_masks(box: Float64[np.ndarray, "n 4"], size: int) -> Bool[np.ndarray, "n s s"]:
    """Return which pixels of images of ``size`` px have their middle in the box."""
    middle = np.arange(size) + 0.5
    left, top, right, bottom = box.T[..., None]
    across = (left <= middle) & (middle < right)
    down = (top <= middle) & (middle < bottom)
    return down[:, :, None] & across[:, None, :]


def support_radius(size: Float32[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """How far a descriptor looks, px: 3 sigma sqrt(2) (4 + 1) / 2 (Lowe 2004, Sec. 6.1)."""
    return BIN_WIDTH * (size.astype(np.float64) / 2) * np.sqrt(2) * (BINS + 1) / 2


def in_box(
    descriptors: Descriptors, box: Float64[np.ndarray, "n 4"], mode: str
) -> Bool[np.ndarray, " N"]:
    """Return which keypoints a box removes.

    Parameters
    ----------
    mode : "centre": those with (x, y) inside; "support": also those whose descriptor looks into the
        box, if it has an area: a circle of :func:`support_radius`.
    """
    S = descriptors.size
    xy = descriptors.kp[:, :2].astype(np.float64).clip(0, np.nextafter(S, 0))
    low, high = box[descriptors.image, :2], box[descriptors.image, 2:]
    if mode == "centre":
        inside = (low <= xy) & (xy < high)
        return inside[:, 0] & inside[:, 1]
    away = np.maximum(np.maximum(low - xy, xy - high), 0)
    near = np.hypot(*away.T) <= support_radius(descriptors.kp[:, 2])
    return near & (low[:, 0] < high[:, 0])


def kept(descriptors: Descriptors, condition: str, *, seed: int = 0) -> Bool[np.ndarray, " N"]:
    """Return which keypoints ``condition`` (a name as above) keeps.

    keep-p: round(p n) of the n keypoints of each image, drawn from (seed, the image's id), a subset
    of those of a larger p. sigma-above: those larger than the image's median; sigma-below: the
    others.

    Raises
    ------
    InputError
        If it is no name of a condition.
    """
    image, total = descriptors.image, len(descriptors.kp)
    if condition == "full":
        return np.ones(total, bool)
    if box := parse_box(condition):
        mode, place, f = box
        return ~in_box(descriptors, boxes(descriptors, place, f, seed=seed), mode)
    if condition.startswith("keep-"):
        share = _share(condition, condition.removeprefix("keep-"))
        order = np.lexsort((draw(descriptors.kp, descriptors.ids[image], seed), image))
        rank = np.empty(total, np.int64)
        rank[order] = np.arange(total) - descriptors.offsets[image]
        return rank < np.rint(share * descriptors.counts)[image]
    if condition in ("sigma-above", "sigma-below"):
        scale = descriptors.kp[:, 2]
        parts = np.split(scale, descriptors.offsets[1:-1])
        median = np.array([np.median(part) if len(part) else 0 for part in parts])
        above = scale > median[image]
        return above if condition == "sigma-above" else ~above
    raise _no_condition(condition)


def select(descriptors: Descriptors, keep: Bool[np.ndarray, " N"]) -> Descriptors:
    """Return the keypoints ``keep``, placed anew by the rules in ``descriptors.meta``."""
    offsets = offsets_of(np.bincount(descriptors.image[keep], minlength=len(descriptors)))
    kp, desc = descriptors.kp[keep], descriptors.desc[keep]
    return replace(
        descriptors,
        desc=desc,
        kp=kp,
        octave=descriptors.octave[keep],
        cells=placed(kp, desc, offsets, descriptors.ids, descriptors.meta),
        offsets=offsets,
    )
