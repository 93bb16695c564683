"""Cheap ways to hide an image, without a key: the baselines that a transformation has to beat."""

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

from stages.common.errors import InputError
from stages.common.params import Number

CHUNK = 256  # images worked on at once, as floats
LEVELS = 255  # of an 8-bit value

Images = UInt8[np.ndarray, "n h w 3"]


def blur(images: Images, sigma: Number) -> Images:
    """Blur by a Gaussian of ``sigma`` pixels, edges mirrored; 0 changes nothing.

    Raises
    ------
    InputError
        If ``sigma`` is negative.
    """
    if sigma < 0:
        raise InputError(
            "sigma of the blur", "is negative", expected="0 pixels or more", found=sigma,
            remedy="correct it in params.yaml",
        )  # fmt: skip
    out = np.empty_like(images, order="C")
    for start in range(0, len(images), CHUNK):
        here = slice(start, start + CHUNK)
        smooth = gaussian_filter(images[here].astype(np.float32), (0, sigma, sigma, 0))
        out[here] = np.clip(np.rint(smooth), 0, LEVELS)
    return out


def random_sign(images: Images, epsilon: int, seed: int) -> Images:
    """Add or subtract ``epsilon`` levels, by a coin for each value, and clip to 0..255.

    The strongest change that the protection of Eq. (3) may make, but blind.

    Raises
    ------
    InputError
        If ``epsilon`` is not within 0..255.
    """
    if not 0 <= epsilon <= LEVELS:
        raise InputError(
            "epsilon of the random signs", "is no change of an 8-bit value",
            expected="0..255 levels", found=epsilon, remedy="correct it in params.yaml",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    out = np.empty_like(images, order="C")
    for start in range(0, len(images), CHUNK):
        here = images[start : start + CHUNK]
        sign = rng.integers(0, 2, here.shape, dtype=np.int8).astype(np.int16) * 2 - 1
        out[start : start + CHUNK] = np.clip(here + sign * np.int16(epsilon), 0, LEVELS)
    return out
