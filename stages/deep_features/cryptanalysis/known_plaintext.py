"""The key from floats whose plain values are known: an image that the adversary has, too (KPA).

All vectors of the request then decrypt. Bits that agree in every known float stay unknown among
themselves; of the low mantissa bits it does not matter.
"""

import numpy as np
from jaxtyping import Float32, UInt8, UInt32
from scipy.optimize import linear_sum_assignment

from stages.deep_features.cryptanalysis.planes import WIDTH, planes, words

PROBES = 5  # binary digits of a position among 32


def find_perm(
    cipher: UInt32[np.ndarray, "*shape"], plain: Float32[np.ndarray, "*shape"]
) -> UInt8[np.ndarray, "32"]:
    """Return the place in the ciphertext of each bit: the assignment that disagrees least."""
    a, b = (planes(w).astype(np.float32) for w in (words(plain), cipher))
    differ = a @ (1 - b).T + (1 - a) @ b.T
    return linear_sum_assignment(differ)[1].astype(np.uint8)


def probes() -> UInt32[np.ndarray, "5"]:
    """Return five words that tell all 32 bits apart: bit i of word t is binary digit t of i."""
    bits = np.arange(WIDTH, dtype=np.uint32)
    digits = bits >> np.arange(PROBES, dtype=np.uint32)[:, None] & np.uint32(1)
    return (digits << bits).sum(1, dtype=np.uint32)


def read_perm(cipher: UInt32[np.ndarray, "5"]) -> UInt8[np.ndarray, "32"]:
    """Return the key from what became of :func:`probes`: exactly, and by reading alone."""
    digits = planes(cipher).astype(np.int64)  # (32, 5)
    sources = (digits << np.arange(PROBES)).sum(1)
    return np.argsort(sources).astype(np.uint8)
