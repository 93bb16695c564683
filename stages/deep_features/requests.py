"""The requests that ``encrypt`` and ``cryptanalyse`` encrypt: a key each, all from one number.

So that a run repeats, the master secret is made from a parameter; a real one is drawn at random.
"""

import hashlib

import numpy as np
from jaxtyping import Float32, UInt32

from stages.deep_features.shufflebits import aes
from stages.deep_features.shufflebits.arrays import NONCE_BYTES, encrypt_numpy, xor_numpy
from stages.deep_features.shufflebits.keys import BitKey, RequestRegister, hkdf

STREAM_SALT, AES_SALT = b"chacha20", b"aes-gcm"


class Requests:
    """Keys by request id; a second use of an id is refused.

    Parameters
    ----------
    seed : of the master secret.
    label : begins every id, such as the stage and the cell.
    """

    def __init__(self, seed: int, label: str):
        self._master = hashlib.sha256(f"deep_features|{seed}".encode()).digest()
        self._label = label
        self._register = RequestRegister()

    def key(self, name: str) -> BitKey:
        """Return the 32-bit key of a new request.

        Raises
        ------
        InputError
            If the request has one already.
        """
        return BitKey.derive(self._master, f"{self._label}/{name}", register=self._register)

    def shuffle(
        self, features: Float32[np.ndarray, "*shape"], name: str
    ) -> UInt32[np.ndarray, "*shape"]:
        """Encrypt one request by ShuffleBits under its own key."""
        return encrypt_numpy(features, self.key(name))

    def add_stream(
        self, features: Float32[np.ndarray, "*shape"], name: str
    ) -> UInt32[np.ndarray, "*shape"]:
        """Encrypt one request by a ChaCha20 key stream of its own."""
        return xor_numpy(features, self._secret(name, STREAM_SALT), bytes(NONCE_BYTES))

    def seal(self, words: UInt32[np.ndarray, "*shape"], name: str) -> UInt32[np.ndarray, "*shape"]:
        """Encrypt a request's words by AES-256-GCM; the tag, which tells nothing, is left off."""
        key = self._secret(name, AES_SALT)
        return aes.encrypt_numpy(words.view(np.float32), key, bytes(NONCE_BYTES))[0]

    def _secret(self, name: str, salt: bytes) -> bytes:
        return hkdf(self._master, f"{self._label}/{name}".encode(), salt=salt)
