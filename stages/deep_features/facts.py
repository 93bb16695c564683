"""What is exactly so of ShuffleBits: counted on random and special words, with NumPy alone.

The tests of ``shufflebits`` compare all implementations and types; this is the part of them that a
claim rests on (C7 to C9, C11, C17), counted anew whenever the claims are judged.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt, UInt32

from stages.deep_features.shufflebits.arrays import decrypt_numpy, encrypt_numpy, permute
from stages.deep_features.shufflebits.keys import SECRET_BYTES, BitKey

BITS = 32
LEFT = 5  # places of the rotation that is shown; ours: the paper's figure has no number
VALUE = np.pi  # the float that is shown
# The key of the authors' code, default_rng(0) shuffled; character k of the result is of index[k].
RELEASED = (
    *(2, 11, 25, 21, 10, 4, 29, 16, 23, 6, 18, 26, 3, 30, 8, 0),
    *(19, 12, 20, 13, 7, 5, 17, 14, 27, 22, 9, 28, 24, 1, 15, 31),
)
# Zeros, infinities, the smallest and the largest denormal and normal, NaNs that are quiet or
# signalling, with payloads, of both signs, and alternating bits.
SPECIAL = np.array(
    [
        *(0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x00000001, 0x80000001, 0x007FFFFF),
        *(0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7FC00000, 0xFFC00000, 0x7FC12345, 0x7F800001),
        *(0xFF800001, 0x7FBFFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x55555555, 0xAAAAAAAA, 0x3F800000),
    ],
    np.uint32,
)


def wrong_bits(a: UInt[np.ndarray, "*shape"], b: UInt[np.ndarray, "*shape"]) -> int:
    """Count the bits in which words differ; NaNs count as any others."""
    return int(np.bitwise_count(a ^ b).sum(dtype=np.int64))


def by_definition(words: UInt32[np.ndarray, "*shape"], key: BitKey) -> UInt32[np.ndarray, "*shape"]:
    """Put bit i of every word at place perm[i], one bit after the other (Sec. II-B, f)."""
    found = np.zeros_like(words)
    for i, place in enumerate(key.perm.astype(np.uint32)):
        found |= (words >> np.uint32(i) & np.uint32(1)) << place
    return found


def check(*, words: int, keys: int, seed: int) -> dict[str, float]:
    """Encrypt and decrypt, and count what goes wrong.

    Parameters
    ----------
    words : random ones of 32 bits in all, and as many of 64 bits; at least one a key.
    keys : random ones.

    Returns
    -------
    ``words`` and ``keys`` as tried; wrong bits ``wrong16`` (all patterns), ``wrong32``,
    ``wrong64``, ``wrong_special``, ``wrong_rotations`` (to the left and back to the right),
    ``wrong_compositions`` (a key after another against the composed key), ``wrong_definition``
    (against one bit at a time), ``wrong_aes`` (AES-GCM of ciphertexts and back);
    ``wrong_inverses``, keys with inverse(perm)[perm] other than 0, 1, ...; ``changed_ones``, words
    whose number of ones changed; ``key_bits``, the bits of the secret that a key is drawn from.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    rng = np.random.default_rng(seed)
    every16 = np.arange(2**16, dtype=np.uint16)
    of_key = max(1, words // keys)
    found: dict[str, int] = dict.fromkeys(
        (
            *("wrong16", "wrong32", "wrong64", "wrong_special", "wrong_inverses"),
            *("wrong_compositions", "wrong_definition", "wrong_aes", "changed_ones"),
        ),
        0,
    )
    previous = BitKey.rotation(LEFT)
    for _ in range(keys):
        small, key, large = (BitKey.random(rng, width=w) for w in (16, BITS, 64))
        plain = rng.integers(2**32, size=of_key, dtype=np.uint32)
        wide = rng.integers(2**64, size=of_key, dtype=np.uint64)
        cipher = encrypt_numpy(plain.view(np.float32), key)
        special = encrypt_numpy(SPECIAL.view(np.float32), key)
        for name, words_, k in (("wrong16", every16, small), ("wrong64", wide, large)):
            found[name] += wrong_bits(permute(permute(words_, k), k, inverse=True), words_)
        found["wrong32"] += wrong_bits(decrypt_numpy(cipher, key).view(np.uint32), plain)
        found["wrong_special"] += wrong_bits(decrypt_numpy(special, key).view(np.uint32), SPECIAL)
        for k in (small, key, large):
            found["wrong_inverses"] += bool((k.inverse().perm[k.perm] != np.arange(k.width)).any())
        both = permute(permute(plain, previous), key)
        found["wrong_compositions"] += wrong_bits(both, permute(plain, key.after(previous)))
        found["wrong_definition"] += wrong_bits(special, by_definition(SPECIAL, key))
        changed = np.bitwise_count(cipher) != np.bitwise_count(plain)
        found["changed_ones"] += int(np.count_nonzero(changed))
        secret, nonce = rng.bytes(32), rng.bytes(12)
        sealed = AESGCM(secret).encrypt(nonce, cipher.tobytes(), None)
        opened = np.frombuffer(AESGCM(secret).decrypt(nonce, sealed, None), np.uint32)
        found["wrong_aes"] += wrong_bits(decrypt_numpy(opened, key).view(np.uint32), plain)
        previous = key
    turned = [permute(SPECIAL, BitKey.rotation(left)) for left in range(BITS)]
    back = [permute(t, BitKey.rotation(BITS - left)) for left, t in enumerate(turned) if left]
    counted = {
        **found,
        "wrong_rotations": sum(wrong_bits(SPECIAL, words) for words in back),
        "words": of_key * keys,
        "keys": keys,
        "key_bits": 8 * SECRET_BYTES,
    }
    return {name: float(count) for name, count in counted.items()}


def _bits(word: np.uint32) -> str:
    return f"{int(word):0{BITS}b}"


def example() -> dict[str, Any]:
    """Encrypt one float by a rotation, as Fig. 2, and by the key of the released code.

    Returns
    -------
    {"items": [{"name", "perm": where each bit goes, bit 0 the lowest, "value", "plain", "cipher",
    "decrypted": 32 digits, the highest bit first, "cipher_value": as a float, None if that is NaN
    or infinite}]}.
    """
    plain = np.array([VALUE], np.float32)
    keys = {
        f"rotation by {LEFT} to the left": BitKey.rotation(LEFT),
        "key of the released code": BitKey.from_index_array(RELEASED),
    }
    items = []
    for name, key in keys.items():
        cipher = encrypt_numpy(plain, key)
        seen = float(cipher.view(np.float32)[0])
        items.append(
            {
                "name": name,
                "perm": key.perm.tolist(),
                "value": float(plain[0]),
                "plain": _bits(plain.view(np.uint32)[0]),
                "cipher": _bits(cipher[0]),
                "decrypted": _bits(decrypt_numpy(cipher, key).view(np.uint32)[0]),
                "cipher_value": seen if np.isfinite(seen) else None,
            }
        )
    return {"items": items}
