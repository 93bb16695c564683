"""AES-128 in counter mode: the null control, a cipher that no attack here can say anything about.

NIST SP 800-38A, Sec. 6.5. The counter block of an image is its index (8 bytes, big-endian) and
then the number of the 16-byte block within it (8 bytes), so that no part of the stream is used
twice as long as indices differ.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from jaxtyping import UInt8

from stages.common.errors import InputError

KEY_BYTES = 16  # AES-128

Images = UInt8[np.ndarray, "n h w 3"]


def make_key(seed: int) -> UInt8[np.ndarray, "16"]:
    """Draw a key from a seed: repeatable, so no secret outside of experiments."""
    return np.random.default_rng(seed).integers(0, 256, KEY_BYTES, dtype=np.uint8)


def encrypt(plain: Images, key: UInt8[np.ndarray, " b"], *, first: int = 0) -> Images:
    """Add (xor) the key stream of its index to each image; applied twice it is the identity.

    Parameters
    ----------
    first : index of the first image. Sets under one key need ranges of their own, or they share
        their streams.

    Raises
    ------
    InputError
        If the key has no 16 bytes.
    """
    if len(key) != KEY_BYTES:
        raise InputError(
            "the AES key", "has another length", expected=f"{KEY_BYTES} bytes",
            found=len(key), remedy="draw it with make_key",
        )  # fmt: skip
    algorithm = AES(key.tobytes())
    out = np.empty_like(plain, order="C")
    for i, image in enumerate(plain):
        counter = (first + i).to_bytes(8, "big") + bytes(8)
        stream = Cipher(algorithm, CTR(counter)).encryptor()
        out[i] = np.frombuffer(stream.update(image.tobytes()), np.uint8).reshape(image.shape)
    return out


decrypt = encrypt
