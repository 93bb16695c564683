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
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return (x * y).sum(1) / np.where(lengths > 0, lengths, 1)


def measure(
    plain: Features,
    cipher: UInt32[np.ndarray, "n dims"],
    perm: UInt8[np.ndarray, "32"],
    recovered: Features,
) -> dict[str, float]:
    """Compare what one request gave with the truth.

    Returns
    -------
    cos, cos_min : median and least cosine of the request's vectors. abs_cos : median cosine of
        the sizes alone. sign_ok, exponent_ok : share of floats whose sign, whose whole exponent is
        right. prefix_bits : mantissa bits that are right in every float, from the top to the first
        wrong one, 0 to 23.
    """
    cosine = cosines(plain, recovered)
    right = planes(words(plain)) == planes(arrange(cipher, perm))
    mantissa = right[MANTISSA].all(1)[::-1]
    return {
        "cos": float(np.median(cosine)),
        "cos_min": float(cosine.min()),
        "abs_cos": float(np.median(cosines(np.abs(plain), np.abs(recovered)))),
        "sign_ok": float(right[SIGN].mean()),
        "exponent_ok": float(right[EXPONENT].all(0).mean()),
        "prefix_bits": float(np.cumprod(mantissa).sum()),
    }
