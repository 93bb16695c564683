"""KPA: the keys of Tanaka's cipher and of same-key PE from a few pairs of plain and cipher image.

Ours; exact where the plain images tell the entries of the key apart.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from scipy.optimize import linear_sum_assignment

from stages.gan_transform.ciphers import pixel_based
from stages.gan_transform.ciphers.pixel_based import ORDERS
from stages.gan_transform.ciphers.tanaka import NIBBLES, nibbles, unpermute

VALUES = 16  # of a nibble

Images = UInt8[np.ndarray, "n h w 3"]


def find_permutation(
    ciphers: Images, plain: Images
) -> tuple[Int64[np.ndarray, "96"], Bool[np.ndarray, "96"]]:
    """Return the permutation of Tanaka's cipher and which nibbles of the cipher are reversed.

    Each cipher nibble is, from block to block, one plain nibble or its reverse: the permutation
    with the most agreements is taken.

    Parameters
    ----------
    ciphers, plain : the same images, in the same order.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    found, known = nibbles(ciphers), nibbles(plain)
    same, reverse = (np.zeros((NIBBLES, NIBBLES), np.float32) for _ in range(2))
    for value in range(VALUES):
        here = (known == value).astype(np.float32).T
        same += (found == value).astype(np.float32) @ here
        reverse += (found == VALUES - 1 - value).astype(np.float32) @ here
    rows, key = linear_sum_assignment(np.maximum(same, reverse), maximize=True)
    return key, (reverse > same)[rows, key]


def reconstruct_permutation(
    ciphers: Images, key: Int64[np.ndarray, "96"], flip: Bool[np.ndarray, "96"]
) -> Images:
    """Put the nibbles back where the key says they come from."""
    return unpermute(ciphers, key, flip)


def find_mask_and_order(
    ciphers: Images, plain: Images
) -> tuple[UInt8[np.ndarray, "1 h w 3"], UInt8[np.ndarray, "1 h w"]]:
    """Return bits and orders of PE under one key: at each pixel the closest of the 48 (L1).

    Of equally close ones the earliest order is taken: without a shuffle, none is found.

    Parameters
    ----------
    ciphers, plain : the same images, in the same order.
    """
    shape = ciphers.shape[1:3]
    costs = np.empty((2, 3, 3, *shape), np.int64)  # reversed?, output channel, input channel
    for c in range(3):
        for source in range(3):
            value = plain[..., source].astype(np.int16)
            for reverse, expected in enumerate((value, 255 - value)):
                costs[reverse, c, source] = np.abs(ciphers[..., c] - expected).sum(0)
    least, reverse = costs.min(0), costs.argmin(0).astype(np.uint8)
    totals = [sum(least[c, source] for c, source in enumerate(order)) for order in ORDERS]
    perm = np.argmin(totals, axis=0)
    bits = np.empty((*shape, 3), np.uint8)
    for p, order in enumerate(ORDERS):
        for c, source in enumerate(order):
            bits[perm == p, source] = reverse[c, source][perm == p]
    return bits[None], perm.astype(np.uint8)[None]


def reconstruct_mask_and_order(
    ciphers: Images, bits: UInt8[np.ndarray, "1 h w 3"], perm: UInt8[np.ndarray, "1 h w"]
) -> Images:
    """Undo order and reversal."""
    return pixel_based.decrypt(ciphers, bits, perm)
