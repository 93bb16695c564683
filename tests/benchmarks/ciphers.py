"""Seconds to encrypt 50,000 images of 32 x 32 on one core, ours against plain NumPy indexing.

``python tests/benchmarks/ciphers.py`` writes reports/bench/ciphers.json. The two ways alternate in
one process; quote the median of the ratios: single times are noise on a shared machine. Plain: the
whole set at once, nibbles by fancy indexing, masks by ``where``, orders by ``take_along_axis``.
Both make the same bytes.
"""

import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from stages.common.files import write_json
from stages.gan_transform.ciphers import aes_ctr, pixel_based, tanaka

N, SIZE, PAIRS = 50_000, 32, 5


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


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    images = np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)
    same, different = (pixel_based.make_key(0, n, SIZE, SIZE) for n in (1, N))
    LE, PE = (tanaka.encrypt, plain_tanaka), (pixel_based.encrypt, plain_pixel_based)
    cases = {
        "tanaka": (*LE, (tanaka.make_key(0),)),
        "pe_same": (*PE, same[:1]),
        "pe_same_shuffle": (*PE, same),
        "pe_diff": (*PE, different[:1]),
        "pe_diff_shuffle": (*PE, different),
        "aes_ctr": (aes_ctr.encrypt, None, (aes_ctr.make_key(0),)),
    }
    results = {}
    for name, (ours, plain, key) in cases.items():
        few = images[:100]
        part = [k[:100] if len(k) == N else k for k in key]
        if plain is not None:
            np.testing.assert_array_equal(ours(few, *part), plain(few, *part))
        times = [
            (seconds(ours, images, *key), seconds(plain, images, *key) if plain else None)
            for _ in range(PAIRS)
        ]
        results[name] = {"ours_s": statistics.median(t for t, _ in times)}
        if plain is not None:
            ratios = [b / a for a, b in times]
            results[name] |= {
                "plain_s": statistics.median(b for _, b in times),
                "speedup_median": statistics.median(ratios),
                "speedup_range": [min(ratios), max(ratios)],
            }
        print(name, results[name], flush=True)
    write_json(
        Path("reports/bench/ciphers.json"),
        {
            "what": f"encrypt {N} images of {SIZE} px on one core, {PAIRS} pairs",
            "machine": platform.machine(),
            "numpy": np.__version__,
            "ciphers": results,
        },
    )


if __name__ == "__main__":
    main()
