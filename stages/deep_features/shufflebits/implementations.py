"""The ways to permute the bits of words, the same answer by each; for tests and the benchmark.

``words`` is a NumPy array of unsigned or a torch tensor of signed integers, of the key's width, for
only shifts, "and", "or", "xor" and indexing are used. Shifts to the right may copy the sign, so
what they bring in is masked off. For use there are ``arrays`` and ``module``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from stages.deep_features.shufflebits.benes import shifts
from stages.deep_features.shufflebits.keys import BitKey


def naive(words: Any, key: BitKey) -> Any:
    """Move bit after bit: OR of ((x >> i) & 1) << perm[i], the formula of Sec. II-B."""
    out = words & 0
    for i, j in enumerate(key.perm.tolist()):
        out = out | (((words >> i) & 1) << j)
    return out


def rot(words: Any, key: BitKey) -> Any:
    """Move all bits that go equally far at once: some 20 rotations for a key of 32 bits.

    A rotation is a shift to the left and one to the right, and a mask for what each brings.
    """
    perm, width = key.perm.astype(int), key.width
    far = (perm - np.arange(width)) % width
    out = words & 0
    for left in np.unique(far).tolist():
        there = perm[far == left].tolist()
        up = sum(1 << j for j in there if j >= left)
        down = sum(1 << j for j in there if j < left)
        if up:
            out = out | ((words << left) & constant(up, words))
        if down:
            out = out | ((words >> (width - left)) & constant(down, words))
    return out


def benes(words: Any, key: BitKey) -> Any:
    """Swap bits at nine distances, 16, 8, 4, 2, 1, 2, 4, 8, 16, the whole array at each step."""
    for shift, mask in zip(shifts(key.width), key.masks, strict=True):
        swap = ((words >> shift) ^ words) & mask
        words = words ^ swap ^ (swap << shift)
    return words


def lut8(words: Any, key: BitKey) -> Any:
    """Look up each byte in a table of 256 words. The time tells of the data: shared caches leak."""
    return lookup(words, key, [8] * (key.width // 8))


def lut11(words: Any, key: BitKey) -> Any:
    """Look up pieces of 11 bits, the last of what is left: 11, 11, 10 of 32. See :func:`lut8`."""
    full, rest = divmod(key.width, 11)
    return lookup(words, key, [11] * full + [rest] * (rest > 0))


def lookup(words: Any, key: BitKey, pieces: list[int]) -> Any:
    """Return the OR of tables[k][piece k of the word]; pieces of given bits, the lowest first."""
    out, start = words & 0, 0
    for table, bits in zip(tables(key, pieces), pieces, strict=True):
        here = like(table, words)
        out = out | here[index_like((words >> start) & ((1 << bits) - 1), words)]
        start += bits
    return out


def tables(key: BitKey, pieces: list[int]) -> list[np.ndarray]:
    """Return for each piece the words that its values become, unsigned."""
    found, start = [], 0
    for bits in pieces:
        values = np.arange(1 << bits, dtype=np.uint64)
        table = np.zeros_like(values)
        for i in range(bits):
            table |= ((values >> np.uint64(i)) & np.uint64(1)) << np.uint64(key.perm[start + i])
        found.append(table.astype(f"u{key.width // 8}"))
        start += bits
    return found


def constant(value: int, words: Any) -> int:
    """Return the integer with the same bits that the type of ``words`` can hold."""
    bits = 8 * words.itemsize
    signed = not isinstance(words, np.ndarray)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def like(table: np.ndarray, words: Any) -> Any:
    """Return the table as an array of the kind of ``words``, its bits unchanged."""
    if isinstance(words, np.ndarray):
        return table
    import torch

    return torch.from_numpy(table.view(f"i{table.itemsize}")).to(words.device)


def index_like(piece: Any, words: Any) -> Any:
    """Return a piece as an index: torch wants 64 bits (a byte would be a mask)."""
    return piece if isinstance(words, np.ndarray) else piece.long()


IMPLEMENTATIONS: dict[str, Callable[[Any, BitKey], Any]] = {
    "naive": naive, "rot": rot, "benes": benes, "lut8": lut8, "lut11": lut11,
}  # fmt: skip
