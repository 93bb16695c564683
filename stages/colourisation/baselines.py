"""Trivial predictions: what a metric is worth shows in how well it scores these.

All take and give a and b in CIELAB units, float32 (n, 2, h, w).
"""

import numpy as np
from jaxtyping import Float, Int64

from stages.common.errors import InputError

AB = Float[np.ndarray, "n 2 h w"]


def grey(ab: AB) -> AB:
    """No colour at all."""
    return np.zeros_like(ab)


def constant(ab: AB, colour: Float[np.ndarray, "2"]) -> AB:
    """One colour everywhere; with the training set's mean ab the best constant in the mean."""
    return np.broadcast_to(colour.astype(ab.dtype)[:, None, None], ab.shape).copy()


def mean_colour(ab: AB) -> Float[np.ndarray, "2"]:
    """Return the mean a and b over all pixels of all images."""
    return np.mean([image.mean((1, 2), dtype=np.float64) for image in ab], axis=0)


def random_hue(ab: AB, seed: int) -> AB:
    """Turn the true colours of each image by one random angle: right chroma, wrong hue."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(ab))
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    a, b = ab[:, 0], ab[:, 1]
    return np.stack([cos * a - sin * b, sin * a + cos * b], 1).astype(ab.dtype)


def saturate(ab: AB, s: int | float) -> AB:
    """Multiply the chroma by ``s``, the hue stays."""
    return ab * np.asarray(s, ab.dtype)


def half_chroma(ab: AB) -> AB:
    """Return the true colours at half their chroma."""
    return saturate(ab, 0.5)


def donors(groups: Int64[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " n"]:
    """Choose for each image another one, of another group; each is chosen once.

    Raises
    ------
    ValueError
        If one group holds more than half of the images, so that this cannot be done.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    step = int(sizes.max())
    if 2 * step > len(groups):
        raise ValueError(f"one group has {step} of {len(groups)} images, half at most is possible")
    order = np.argsort(np.random.default_rng(seed).permutation(len(sizes))[index], kind="stable")
    donor = np.empty_like(order)
    donor[order] = np.roll(order, -step)  # groups lie together, so a step leaves the group
    return donor


def other_image(ab: AB, groups: Int64[np.ndarray, " n"], seed: int) -> AB:
    """Give each image the true colours of another one, see :func:`donors`."""
    return ab[donors(groups, seed)]


def matching_scale(ab: AB, real: AB) -> float:
    """Return s such that ``saturate(ab, s)`` has the mean chroma of ``real``.

    Raises
    ------
    InputError
        If ``ab`` is grey.
    """
    chroma = np.hypot(ab[:, 0], ab[:, 1]).mean(dtype=np.float64)
    if chroma == 0:
        raise InputError(
            "bn's predictions for the validation images",
            "are grey and cannot be made more colourful",
            expected="a mean chroma above 0",
            found=0,
            remedy="train variant bn longer or lower its lambda_l1 in params.yaml",
        )
    return float(np.hypot(real[:, 0], real[:, 1]).mean(dtype=np.float64) / chroma)
