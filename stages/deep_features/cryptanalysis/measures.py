"""How much an attack recovered. These see the plain features; the attacks do not."""

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt32

from stages.deep_features.cryptanalysis.planes import (
    EXPONENT,
    MANTISSA,
    SIGN,
    arrange,
    planes,
    words,
)

Features = Float32[np.ndarray, "n dims"]


def cosines(a: Features, b: Features) -> Float64[np.ndarray, " n"]:
    """Return the cosine of each row of ``a`` and of ``b``; 0 if one of them is 0."""
    return _cosines(a.astype(np.float64), b.astype(np.float64))


def _cosines(
    x: Float64[np.ndarray, "n dims"], y: Float64[np.ndarray, "n dims"]
) -> Float64[np.ndarray, " n"]:
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return (x * y).sum(1) / np.where(lengths > 0, lengths, 1)


def centred_cosines(
    a: Features, b: Features, mean: Float32[np.ndarray, " dims"]
) -> Float64[np.ndarray, " n"]:
    """Return the cosine of each row of ``a`` and of ``b`` less ``mean``; 0 for ``mean`` itself."""
    middle = mean.astype(np.float64)
    return _cosines(a.astype(np.float64) - middle, b.astype(np.float64) - middle)


def similarity(
    plain: Features, recovered: Features, mean: Float32[np.ndarray, " dims"]
) -> dict[str, float]:
    """Return ``cos`` and ``centred`` of :func:`measure` alone, for who has no key to compare."""
    return {
        "cos": float(np.median(cosines(plain, recovered))),
        "centred": float(np.median(centred_cosines(plain, recovered, mean))),
    }


def measure(
    plain: Features,
    cipher: UInt32[np.ndarray, "n dims"],
    perm: UInt8[np.ndarray, "32"],
    recovered: Features,
    mean: Float32[np.ndarray, " dims"],
) -> dict[str, float]:
    """Compare what one request gave with the truth.

    Parameters
    ----------
    mean : of the adversary's own features.

    Returns
    -------
    cos, cos_min : median and least cosine of the request's vectors.
    centred : median cosine after ``mean`` is taken off both: what the adversary knows without a
        ciphertext does not count.
    abs_cos : median cosine of the sizes alone.
    sign_ok, exponent_ok : share of floats whose sign, whose whole exponent is right.
    prefix_bits : mantissa bits that are right in every float, from the top to the first wrong one,
        0 to 23.
    """
    right = planes(words(plain)) == planes(arrange(cipher, perm))
    mantissa = right[MANTISSA].all(1)[::-1]
    return {
        **similarity(plain, recovered, mean),
        "cos_min": float(cosines(plain, recovered).min()),
        "abs_cos": float(np.median(cosines(np.abs(plain), np.abs(recovered)))),
        "sign_ok": float(right[SIGN].mean()),
        "exponent_ok": float(right[EXPONENT].all(0).mean()),
        "prefix_bits": float(np.cumprod(mantissa).sum()),
    }
