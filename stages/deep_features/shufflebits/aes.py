"""AES-GCM of features: the conventional way, which conceals and detects any change.

NIST SP 800-38D, by the ``cryptography`` package. Also a control: no attack on ShuffleBits may say
anything about these ciphers.
"""

import struct

import numpy as np
from jaxtyping import Float32, UInt32

from stages.common.errors import InputError
from stages.deep_features.shufflebits.arrays import NONCE_BYTES, check_nonce

MAGIC = b"SBG1"  # of sealed features
TAG_BYTES = 16
KEY_BYTES = (16, 24, 32)  # AES-128, -192, -256


def encrypt_numpy(
    x: Float32[np.ndarray, "*shape"], key: bytes, nonce: bytes, associated: bytes = b""
) -> tuple[UInt32[np.ndarray, "*shape"], bytes]:
    """Return the cipher as words in the shape of x, and the tag of 16 bytes.

    Parameters
    ----------
    key : 16, 24 or 32 secret bytes.
    nonce : 12 bytes, never twice with a key.
    associated : what is not secret but must not change either, e.g. the request's id.

    Raises
    ------
    InputError
        If key or nonce have another length.
    """
    sealed = _cipher(key, nonce).encrypt(nonce, x.tobytes(), associated)
    words = np.frombuffer(sealed[:-TAG_BYTES], np.uint32).reshape(x.shape)
    return words.copy(), sealed[-TAG_BYTES:]


def decrypt_numpy(
    cipher: UInt32[np.ndarray, "*shape"],
    tag: bytes,
    key: bytes,
    nonce: bytes,
    associated: bytes = b"",
) -> Float32[np.ndarray, "*shape"]:
    """Invert :func:`encrypt_numpy`.

    Raises
    ------
    InputError
        If key or nonce have another length.
    cryptography.exceptions.InvalidTag
        If the key is another, or a bit of anything was changed.
    """
    plain = _cipher(key, nonce).decrypt(nonce, cipher.tobytes() + tag, associated)
    return np.frombuffer(plain, np.float32).reshape(cipher.shape).copy()


def seal(x: Float32[np.ndarray, "*shape"], key: bytes, nonce: bytes) -> bytes:
    """Return features as one message: header ("SBG1", shape), nonce, cipher, tag.

    Parameters
    ----------
    key, nonce : as of :func:`encrypt_numpy`; the header is associated data.

    Raises
    ------
    InputError
        If key or nonce have another length.
    """
    header = MAGIC + struct.pack(f"<B{x.ndim}Q", x.ndim, *x.shape)
    cipher, tag = encrypt_numpy(x, key, nonce, header)
    return header + nonce + cipher.tobytes() + tag


def unseal(message: bytes, key: bytes) -> Float32[np.ndarray, "..."]:
    """Invert :func:`seal`.

    Raises
    ------
    InputError
        If it is no such message, or the key has another length.
    cryptography.exceptions.InvalidTag
        If the key is another, or a bit of the message was changed.
    """
    ndim = message[len(MAGIC)] if len(message) > len(MAGIC) else 0
    size = len(MAGIC) + 1 + 8 * ndim
    least = size + NONCE_BYTES + TAG_BYTES
    if not message.startswith(MAGIC) or len(message) < least:
        raise InputError(
            "sealed features",
            "cannot be read",
            expected=f"a message that starts with {MAGIC.decode()}, of {least} bytes or more",
            found=f"{len(message)} bytes that start with {message[:4]!r}",
            remedy="copy it again",
        )
    header, nonce, rest = message[:size], message[size : size + 12], message[size + 12 :]
    plain = _cipher(key, nonce).decrypt(nonce, rest, header)
    shape = struct.unpack(f"<{ndim}Q", header[len(MAGIC) + 1 :])
    return np.frombuffer(plain, np.float32).reshape(shape).copy()


def _cipher(key: bytes, nonce: bytes):
    """Return AES-GCM under the key; refuse lengths that it has not."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(key) not in KEY_BYTES:
        raise InputError(
            "the AES key", "has another length", expected="16, 24 or 32 bytes",
            found=len(key), remedy="draw it by secrets.token_bytes(32)",
        )  # fmt: skip
    check_nonce(nonce)
    return AESGCM(key)
