"""A permutation of bits as delta swaps: Benes' network.

V. E. Benes, "Optimal rearrangeable multistage connecting networks", Bell Syst. Tech. J. 1964; the
loops of A. Waksman, "A permutation network", J. ACM 1968. A delta swap by s exchanges bit i + s
with bit i where bit i of the mask is 1. With n = 2^L bits, 2 L - 1 of them, by n/2 .. 2, 1, 2 ..
n/2, make any permutation. Shifts are the same for all keys and only masks differ: one kernel, the
same instructions and the same addresses for every key. A delta swap is its own inverse, so
decryption is the same masks in reverse order.
"""

from collections.abc import Sequence


def shifts(width: int) -> tuple[int, ...]:
    """Return how far each stage swaps: 16, 8, 4, 2, 1, 2, 4, 8, 16 for 32 bits."""
    down = [width >> k for k in range(1, width.bit_length())]
    return (*down, *down[-2::-1])


def route(perm: Sequence[int]) -> tuple[int, ...]:
    """Return the masks of the stages that send bit i to bit perm[i].

    Mask k has no bit at or above width - shifts(width)[k]: an arithmetic shift to the right does no
    harm, and the highest bit is never set. There are several valid routings; this is one.

    Parameters
    ----------
    perm : a permutation of 0 .. w - 1, w a power of 2 from 2.
    """
    masks = [0] * len(shifts(len(perm)))
    _route(list(perm), list(range(len(perm))), 0, masks)
    return tuple(masks)


def _route(perm: list[int], places: list[int], depth: int, masks: list[int]) -> None:
    """Set outer masks ``depth`` and its mirror image for the bits at ``places``, then the inner."""
    size = len(perm)
    if size == 2:
        masks[depth] |= perm[0] << places[0]
        return
    half = size // 2
    source = [0] * size
    for i, j in enumerate(perm):
        source[j] = i
    side = [-1] * size  # which half of the inner network bit i passes
    for start in range(half):
        i = start
        while side[i] < 0:  # partners at the input and at the output take different halves
            partner = (i + half) % size
            side[i], side[partner] = 0, 1
            i = source[(perm[partner] + half) % size]
    inner = [0] * half, [0] * half
    for i in range(size):
        inner[side[i]][i % half] = perm[i] % half
    last = len(masks) - 1 - depth
    for i in range(half):
        masks[depth] |= side[i] << places[i]
        masks[last] |= side[source[i]] << places[i]
    _route(inner[0], places[:half], depth + 1, masks)
    _route(inner[1], places[half:], depth + 1, masks)
