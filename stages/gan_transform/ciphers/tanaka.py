"""LE: the learnable encryption of Tanaka, one permutation of the 96 nibbles of a 4 x 4 block.

M. Tanaka, "Learnable image encryption", IEEE ICCE-TW 2018, arXiv:1804.00490; released code:
github.com/mastnk/ICCE-TW2018, whose output for one key is in the tests. A block is 4 x 4 pixels of
3 channels, its 48 bytes in the order (row, column, channel); nibbles 0..47 are their lower halves,
48..95 the upper ones. One key serves all blocks of all images.

Departure: sides must be multiples of 4; the released code repeats edge pixels.
"""

import numpy as np
from jaxtyping import Bool, Int, UInt8

from stages.common.errors import InputError

BLOCK = 4  # pixels, the side of a block
BYTES = 3 * BLOCK * BLOCK  # of a block
NIBBLES = 2 * BYTES  # of a block
CHUNK = 1 << 18  # bytes of plain images worked on at once: what is held then fits a core's cache

Images = UInt8[np.ndarray, "n h w 3"]
Key = Int[np.ndarray, "96"]


def make_key(seed: int) -> Key:
    """Draw the secret permutation of {0, ..., 95}, the way the released code does."""
    key = np.arange(NIBBLES, dtype=np.uint32)  # the type is part of the recipe: it sets the draws
    np.random.RandomState(seed).shuffle(key)  # RandomState: its stream is frozen
    return key.astype(np.int64)


def flips(key: Key) -> Bool[np.ndarray, "96"]:
    """Return which nibbles of a cipher block are reversed (v -> 15 - v).

    There is no second secret: nibble j is reversed before the permutation if key[j] > 48, and
    again after it, so that 47 values of j are marked and the identity reverses nothing.
    """
    reverse = key > BYTES
    return reverse[key] != reverse


def encrypt(plain: Images, key: Key) -> Images:
    """Put nibble key[j] of every block in place j, reversed if ``flips(key)[j]``.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    return permute(plain, key, flips(key))


def decrypt(cipher: Images, key: Key) -> Images:
    """Invert :func:`encrypt` exactly."""
    return unpermute(cipher, key, flips(key))


def unpermute(cipher: Images, source: Key, flip: Bool[np.ndarray, "96"]) -> Images:
    """Invert :func:`permute` exactly."""
    back = np.argsort(source)
    return permute(cipher, back, flip[back])


def permute(images: Images, source: Key, flip: Bool[np.ndarray, "96"]) -> Images:
    """Put nibble source[j] of every block in place j, reversed if flip[j].

    The blocks of a few images at a time are laid out byte by byte, so that one operation serves
    the same nibble of all blocks.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    out = np.empty_like(images, order="C")
    step = max(1, CHUNK // max(1, images[0].size)) if len(images) else 1
    mask = np.where(flip[:BYTES], 0x0F, 0) | np.where(flip[BYTES:], 0xF0, 0)
    for start in range(0, len(images), step):
        here = images[start : start + step]
        rows = to_blocks(here)
        halves = np.concatenate([rows & 0x0F, rows >> 4])
        new = np.left_shift(halves[source[BYTES:]], 4)
        new |= halves[source[:BYTES]]
        new ^= mask.astype(np.uint8)[:, None]
        from_blocks(new, out[start : start + step])
    return out


def to_blocks(images: Images) -> UInt8[np.ndarray, "48 m"]:
    """Return byte k of every block in row k; blocks in raster order, image after image.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    n, h, w, _ = images.shape
    check_sides(h, w)
    blocks = images.reshape(n, h // BLOCK, BLOCK, w // BLOCK, BLOCK * 3).swapaxes(2, 3)
    return np.ascontiguousarray(blocks.reshape(-1, BYTES).T)


def from_blocks(rows: UInt8[np.ndarray, "48 m"], out: Images) -> None:
    """Invert :func:`to_blocks` into ``out``."""
    n, h, w, _ = out.shape
    blocks = np.ascontiguousarray(rows.T).reshape(n, h // BLOCK, w // BLOCK, BLOCK, BLOCK * 3)
    out.reshape(n, h // BLOCK, BLOCK, w // BLOCK, BLOCK * 3)[:] = blocks.swapaxes(2, 3)


def nibbles(images: Images) -> UInt8[np.ndarray, "96 m"]:
    """Return nibble i of every block in row i, values 0..15; see :func:`to_blocks`.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    rows = to_blocks(images)
    return np.concatenate([rows & 0x0F, rows >> 4])


def check_sides(h: int, w: int) -> None:
    """Refuse images that 4 x 4 blocks do not tile.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    if h % BLOCK or w % BLOCK:
        raise InputError(
            "the images",
            "are not tiled by 4 x 4 blocks",
            expected="sides that are multiples of 4",
            found=f"{h} x {w}",
            remedy="choose such a size in params.yaml",
        )
