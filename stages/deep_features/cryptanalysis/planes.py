"""A float as 32 bits: the columns that ShuffleBits exchanges. Bit 0 is the least significant."""

import numpy as np
from jaxtyping import Float32, Integer, UInt8, UInt32

WIDTH = 32  # bits of a float
SIGN = 31
EXPONENT = range(23, 31)
MANTISSA = range(23)


def words(features: Float32[np.ndarray, "*shape"]) -> UInt32[np.ndarray, "*shape"]:
    """Return the bit patterns of floats; the bytes are the same."""
    return np.ascontiguousarray(features).view(np.uint32)


def planes(words: UInt32[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "32 n"]:
    """Return the bits of all words, 0 or 1; row i holds bit i of each."""
    octets = np.ascontiguousarray(words.reshape(-1), dtype="<u4").view(np.uint8)
    bits = np.unpackbits(octets.reshape(-1, WIDTH // 8), axis=1, bitorder="little")
    return np.ascontiguousarray(bits.T)


def arrange(
    words: UInt32[np.ndarray, "*shape"], perm: Integer[np.ndarray, "32"]
) -> UInt32[np.ndarray, "*shape"]:
    """Return words whose bit i is bit ``perm[i]`` of the given ones: decryption under ``perm``."""
    bits = planes(words)[perm].T
    octets = np.ascontiguousarray(np.packbits(bits, axis=1, bitorder="little"))
    return octets.view("<u4").astype(np.uint32).reshape(words.shape)
