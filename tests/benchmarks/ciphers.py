"""The ciphers of paper A on one core, against plain NumPy indexing, AES-CTR and a copy.

Plain: all images at once, nibbles by fancy indexing, masks by ``where``, orders by
``take_along_axis``; the same bytes. ``aes128_ctr`` is cryptography's, one call for all images,
``copy`` a copy into memory that exists: what a cipher costs where it costs nothing.
"""

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from timing import Settings, Way, compare

from stages.gan_transform.ciphers import aes_ctr, pixel_based, tanaka

N, SIZE = 10_000, 32


def plain_tanaka(images, key):
    n, h, w, _ = images.shape
    blocks = images.reshape(n, h // 4, 4, w // 4, 12).swapaxes(2, 3).reshape(-1, 48)
    nibbles = np.concatenate([blocks & 15, blocks >> 4], 1)[:, key]
    nibbles = np.where(tanaka.flips(key), 15 - nibbles, nibbles)
    blocks = (nibbles[:, 48:] << 4 | nibbles[:, :48]).reshape(n, h // 4, w // 4, 4, 12)
    return blocks.swapaxes(2, 3).reshape(images.shape)


def plain_pixel_based(images, bits, perm=None):
    cipher = np.where(bits == 1, 255 - images, images)
    if perm is None:
        return cipher
    order = np.broadcast_to(pixel_based.ORDERS[perm], images.shape)
    return np.take_along_axis(cipher, order, -1)


def plain_aes(images, key):
    stream = Cipher(AES(key.tobytes()), CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(images.tobytes()), np.uint8).reshape(images.shape)


def ciphers(settings: Settings, peak: Mapping) -> dict[str, dict]:
    """Encrypt N images of 32 px by every cipher."""
    n = settings.sized(N, 100)
    images = np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)
    same, different = (pixel_based.make_key(0, m, SIZE, SIZE) for m in (1, n))
    LE, PE = (tanaka.encrypt, plain_tanaka), (pixel_based.encrypt, plain_pixel_based)
    cases = {
        "tanaka": (*LE, (tanaka.make_key(0),)),
        "pe_same": (*PE, same[:1]),
        "pe_same_shuffle": (*PE, same),
        "pe_diff": (*PE, different[:1]),
        "pe_diff_shuffle": (*PE, different),
        "aes_ctr": (aes_ctr.encrypt, plain_aes, (aes_ctr.make_key(0),)),
    }
    plain_bytes, secret, out = images.reshape(-1).data, bytes(range(16)), np.empty_like(images)

    def aes() -> None:
        encryptor = Cipher(AES(secret), CTR(bytes(16))).encryptor()
        encryptor.update_into(plain_bytes, out.reshape(-1).data)

    references = {
        "aes128_ctr": Way(lambda: aes, "cryptography, into memory that exists"),
        "copy": Way(lambda: lambda: np.copyto(out, images), "into memory that exists"),
    }
    found = {}
    for name, (ours, plain, key) in cases.items():
        part = [k[:100] if len(k) == n else k for k in key]
        if plain is not plain_aes:  # which has one key stream for all images, not one an image
            np.testing.assert_array_equal(ours(images[:100], *part), plain(images[:100], *part))
        ways = {
            "ours": Way(lambda f=ours, key=key: lambda: f(images, *key), "the stage's"),
            "plain": Way(
                lambda f=plain, key=key: lambda: f(images, *key),
                "one key stream for all" if plain is plain_aes else "NumPy indexing",
            ),
            **{k: Way(way.build, way.what) for k, way in references.items()},
        }
        what = f"paper A: {name}, {n} images of {SIZE} px"
        how = {"images": n, "moved": 2 * images.nbytes, "peak": peak}
        found[f"cipher_{name}"] = compare(
            ways, settings, what=what, against=("plain", *references), **how
        )
    return found


ITEMS = {"ciphers": ciphers}
