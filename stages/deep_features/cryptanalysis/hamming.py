"""Retrieval on ciphertexts: a permutation of bits keeps how many bits differ."""

import numpy as np
from jaxtyping import Int32, UInt32

from stages.deep_features.cryptanalysis.planes import WIDTH

AT_ONCE = 2**26  # bits unpacked at once, 4 bytes each; bounds the memory


def distances(
    a: UInt32[np.ndarray, "q dims"], b: UInt32[np.ndarray, "g dims"]
) -> Int32[np.ndarray, "q g"]:
    """Return in how many bits every row of ``a`` differs from every row of ``b``.

    Both under one key, or both plain: it is the same.
    """
    both = np.zeros((len(a), len(b)), np.float32)  # whole numbers below 2^24: exact
    step = max(1, AT_ONCE // (WIDTH * max(len(a), len(b), 1)))
    for d in range(0, a.shape[1], step):
        both += _bits(a[:, d : d + step]) @ _bits(b[:, d : d + step]).T
    ones = [np.bitwise_count(x).sum(1, dtype=np.int32) for x in (a, b)]
    return ones[0][:, None] + ones[1] - 2 * both.astype(np.int32)


def _bits(x: UInt32[np.ndarray, "n d"]) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(x).view(np.uint8), axis=1).astype(np.float32)
