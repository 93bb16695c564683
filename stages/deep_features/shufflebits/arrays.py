"""ShuffleBits and the conventional stream cipher on NumPy arrays: float32 in, uint32 out.

The delta swaps of ``benes`` on blocks that stay in a core's cache: the fastest of the ways in NumPy
alone; ``native`` is some fifteen times as fast and needs a compiler. A cipher is unsigned integers:
as floats, up to 6 % of the words would be NaN, which a cast or a JSON file changes.
"""

import numpy as np
from jaxtyping import Float32, UInt, UInt32

from stages.common.errors import InputError
from stages.deep_features.shufflebits.benes import shifts
from stages.deep_features.shufflebits.keys import BitKey, check_secret

BLOCK = 1 << 16  # bytes worked on at once: with the scratch of the same size, of a core's cache
NONCE_BYTES = 12  # RFC 8439


def encrypt_numpy(x: Float32[np.ndarray, "*shape"], key: BitKey) -> UInt32[np.ndarray, "*shape"]:
    """Permute the bits of every float, Sec. II-B: bit i goes to bit perm[i].

    Parameters
    ----------
    x : any values, NaN and denormals too; any shape; it is not changed.
    key : of 32 bits.

    Raises
    ------
    InputError
        If the key has another width.
    """
    return permute(x.view(np.uint32), key)


def decrypt_numpy(
    cipher: UInt32[np.ndarray, "*shape"], key: BitKey
) -> Float32[np.ndarray, "*shape"]:
    """Invert :func:`encrypt_numpy` bit for bit; with another key the floats may be anything.

    Raises
    ------
    InputError
        If the key has another width.
    """
    return permute(cipher, key, inverse=True).view(np.float32)


def permute(
    words: UInt[np.ndarray, "*shape"], key: BitKey, *, inverse: bool = False
) -> UInt[np.ndarray, "*shape"]:
    """Permute the bits of unsigned words of the key's width; ``inverse``: back.

    Raises
    ------
    InputError
        If words and key differ in width.
    """
    check_words(8 * words.itemsize, key)
    swaps = list(zip(shifts(key.width), key.masks, strict=True))[:: -1 if inverse else 1]
    out = words.copy(order="C")
    flat = out.reshape(-1)
    step = BLOCK // words.itemsize
    scratch = np.empty(min(step, flat.size), words.dtype)
    for start in range(0, flat.size, step):
        v = flat[start : start + step]
        t = scratch[: v.size]
        for shift, mask in swaps:
            np.right_shift(v, shift, out=t)
            np.bitwise_xor(t, v, out=t)
            np.bitwise_and(t, mask, out=t)
            np.bitwise_xor(v, t, out=v)
            np.left_shift(t, shift, out=t)
            np.bitwise_xor(v, t, out=v)
    return out


def check_words(bits: int, key: BitKey) -> None:
    """Refuse a key for numbers of another width.

    Raises
    ------
    InputError
        If they differ.
    """
    if bits != key.width:
        raise InputError(
            f"the key {key.fingerprint}",
            "does not fit the numbers",
            expected=f"a key of {bits} bits",
            found=f"{key.width} bits",
            remedy="draw one with width=8 * itemsize of the numbers",
        )


def xor_numpy(
    x: Float32[np.ndarray, "*shape"], key: bytes, nonce: bytes
) -> UInt32[np.ndarray, "*shape"]:
    """Add (xor) the ChaCha20 key stream (RFC 8439, counter from 0) to the bits of every float.

    The conventional cipher that ShuffleBits is compared with; a nonce serves one message.
    ``xor_numpy(cipher.view(np.float32), key, nonce).view(np.float32)`` gives the floats back.

    Parameters
    ----------
    key, nonce : 32 and 12 bytes.

    Raises
    ------
    InputError
        If key or nonce have another length.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    check_secret(key, "the ChaCha20 key")
    check_nonce(nonce)
    plain = np.ascontiguousarray(x).reshape(x.shape)
    out = np.empty(x.shape, np.uint32)
    if x.size:
        stream = Cipher(ChaCha20(key, bytes(4) + nonce), mode=None).encryptor()
        stream.update_into(
            plain.reshape(-1).view(np.uint8).data, out.reshape(-1).view(np.uint8).data
        )
    return out


def check_nonce(nonce: bytes) -> None:
    """Refuse nonces of another length than RFC 8439's (and GCM's usual one).

    Raises
    ------
    InputError
        If there are not 12 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise InputError(
            "the nonce",
            "has another length",
            expected=f"{NONCE_BYTES} bytes",
            found=len(nonce),
            remedy="draw it by secrets.token_bytes(12), a new one for each message",
        )
