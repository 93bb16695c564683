"""PE: pixel-based encryption, negative-positive transform and colour shuffle of single pixels.

W. Sirichotedumrong, T. Maekawa, Y. Kinoshita, H. Kiya, "Privacy-preserving deep neural networks
with pixel-based image encryption considering data augmentation in the encrypted domain", IEEE ICIP
2019 (the paper's ref. 14); W. Sirichotedumrong, Y. Kinoshita, H. Kiya, "Pixel-based image
encryption without key management for privacy-preserving deep neural networks", IEEE Access 2019
(ref. 15).

A bit for each value says whether it is reversed (v -> 255 - v); an order for each pixel, if given,
says how its three channels are exchanged after that. A key of one image serves all images ("same
key"), a key of n images serves n images ("different keys").
"""

import numpy as np
from jaxtyping import UInt8

from stages.common.errors import InputError

# Output channel c of order p is input channel ORDERS[p][c]
ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
CHUNK = 1 << 18  # bytes of plain images worked on at once: what is held then fits a core's cache

Images = UInt8[np.ndarray, "n h w 3"]
Bits = UInt8[np.ndarray, "k h w 3"]
Orders = UInt8[np.ndarray, "k h w"]


def make_key(seed: int, n: int, h: int, w: int) -> tuple[Bits, Orders]:
    """Draw the bits (0 or 1) and orders (0..5) of ``n`` images of ``h`` x ``w`` from one seed.

    Both are drawn always, the bits first: they do not depend on whether the orders are used.
    """
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (n, h, w, 3), dtype=np.uint8)
    return bits, rng.integers(0, 6, (n, h, w)).astype(np.uint8)


def encrypt(plain: Images, bits: Bits, perm: Orders | None = None) -> Images:
    """Reverse the values whose bit is set, then put each pixel's channels in its order.

    Parameters
    ----------
    plain : images, 0..255.
    bits : 0 or 1, for one image or for each.
    perm : index into ``ORDERS``, for one image or for each; None: the channels stay.

    Raises
    ------
    InputError
        If the key is for images of another size or number.
    """
    _check(plain, bits, perm)
    out = np.empty_like(plain, order="C")
    for here in _chunks(plain):
        np.bitwise_xor(plain[here], -_part(bits, here), out=out[here])
        if perm is not None:
            _exchange(out[here], _swaps(_part(perm, here)))
    return out


def decrypt(cipher: Images, bits: Bits, perm: Orders | None = None) -> Images:
    """Invert :func:`encrypt` exactly, the same arguments given.

    Raises
    ------
    InputError
        If the key is for images of another size or number.
    """
    _check(cipher, bits, perm)
    out = np.empty_like(cipher, order="C")
    for here in _chunks(cipher):
        out[here] = cipher[here]
        if perm is not None:
            _exchange(out[here], _swaps(_part(perm, here))[::-1])
        out[here] ^= -_part(bits, here)
    return out


def _check(images: Images, bits: Bits, perm: Orders | None) -> None:
    for name, key in (("bits", bits), ("orders", perm)):
        if key is None:
            continue
        if len(key) not in (1, len(images)) or key.shape[1:3] != images.shape[1:3]:
            raise InputError(
                f"the key's {name}",
                "do not fit the images",
                expected=f"1 or {len(images)} of {images.shape[1]} x {images.shape[2]} pixels",
                found=f"{len(key)} of {key.shape[1]} x {key.shape[2]}",
                remedy="draw the key for these images",
            )


def _chunks(images: Images) -> list[slice]:
    step = max(1, CHUNK // images[0].size) if len(images) else 1
    return [slice(start, start + step) for start in range(0, len(images), step)]


def _part(key: np.ndarray, here: slice) -> np.ndarray:
    return key if len(key) == 1 else key[here]


def _swaps(perm: Orders) -> list[tuple[int, int, UInt8[np.ndarray, "k h w"]]]:
    """Return an order as at most three exchanges of neighbours: (channel, channel, mask 0 or 255).

    First the left pair for 102, 120 and 210, then the right pair for all but 012 and 102, then the
    left pair again for 201 and 210.
    """
    first = (perm == 2) | (perm == 3) | (perm == 5)
    second = (perm == 1) | (perm >= 3)
    third = perm >= 4
    return [
        (a, b, -wanted.view(np.uint8))
        for a, b, wanted in ((0, 1, first), (1, 2, second), (0, 1, third))
    ]


def _exchange(images: Images, swaps: list[tuple[int, int, np.ndarray]]) -> None:
    """Exchange two channels where a mask says so, one pair after the other, in place."""
    channels = [np.ascontiguousarray(images[..., c]) for c in range(3)]
    for a, b, mask in swaps:
        difference = (channels[a] ^ channels[b]) & mask
        channels[a] ^= difference
        channels[b] ^= difference
    for c, channel in enumerate(channels):
        images[..., c] = channel
