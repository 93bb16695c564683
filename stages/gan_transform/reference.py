"""Measure floors and training-free attacks on real photographs, to check them from outside.

``python -m stages.gan_transform.reference OUT.json`` reads the mounted set ``cifar10-jpeg``
($CIFAR10_JPEG_ROOT or real/cifar10-jpeg), CIFAR-10 encoded as JPEG, by the same code as the
pipeline. Table I's SSIMs from 0.04 to 0.72 are to be read beside these. No stage depends on it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from threadpoolctl import threadpool_limits

from stages.common.files import write_json
from stages.common.metrics import ssim
from stages.common.stage import one_sentence
from stages.data.images import load_images
from stages.gan_transform.attacks import folded, nibble_matching, principal
from stages.gan_transform.ciphers import aes_ctr, pixel_based, tanaka
from stages.gan_transform.floors import floor_images

SET = "cifar10-jpeg"
SIZE = 32  # the files' own
SEED = 0
N_TEST = 600
N_PC1 = (100, 500)  # ciphers under one key
N_QAP = 50
N_PUBLIC = 200
PC1_KEYS = range(10)
QAP_KEYS = range(4)
FAQ_ITERATIONS = 30
# Measured before this code existed, with scikit-image, on 600 test images of the same set
EARLIER = {
    "blank": 0.119,
    "mean_colour": 0.127,
    "other_image": 0.041,
    "noise": 0.008,
    "pe_diff": 0.025,
    "pe_diff_shuffle": 0.020,
    "tanaka": 0.023,
    "fold": 0.292,
    "fold_remapped": 0.165,
    "negative": -0.645,
}
TOLERANCE = 0.02
ENOUGH = 0.95  # share of PE's mask, of LE's upper nibbles
PAPER_GA = {"pe_same": 0.2688, "tanaka": 0.7152}  # Table I, SSIM

Images = UInt8[np.ndarray, "_ h w 3"]  # two sets need not be as large


def reference(out: Path) -> None:
    """Write ``out``: floors, PC1 on same-key PE, QAP on Tanaka's cipher, both on AES and noise.

    The images are drawn from the test split: ``N_TEST`` to be reconstructed, others under the key
    that is attacked, and others again that are public.

    Raises
    ------
    InputError
        If the set is missing or not the registered one.
    """
    photos = load_images(SET, "test", SIZE)
    order = np.random.default_rng(SEED).permutation(len(photos.images))
    needed = np.cumsum([N_TEST, max(N_PC1), N_PUBLIC])
    test, secret, public = (
        np.array(photos.images[part]) for part in np.split(order[: needed[-1]], needed[:-1])
    )
    with threadpool_limits(1):
        content: dict[str, Any] = {
            "set": SET,
            "n": len(test),
            "floors": floors(test, secret),
            "tolerance": TOLERANCE,
            "pc1": {
                f"{count}_ciphers": {
                    "shuffle" if shuffle else "plain_order": pc1(
                        secret[:count], public, test, shuffle=shuffle
                    )
                    for shuffle in (False, True)
                }
                for count in N_PC1
            },
            "qap": qap(secret[:N_QAP], public, test),
            "null": null(secret, public, test),
            "paper_ga": PAPER_GA,
        }
    ceiling = content["floors"]["blank"]["ssim"] + TOLERANCE
    content["agrees"] = {
        "floors": all(row["agrees"] for row in content["floors"].values()),
        "pc1": min(content["pc1"][f"{max(N_PC1)}_ciphers"]["plain_order"]["bits"]) >= ENOUGH,
        "qap": min(content["qap"]["upper"]) >= ENOUGH,
        "null": all(
            row[f"{attack}_ssim"] <= ceiling
            for row in content["null"].values()
            for attack in ("pc1", "qap")
        ),
    }
    write_json(out, content)
    for name, row in content["floors"].items():
        print(f"{name}: {row['ssim']:.3f}, earlier {row['reference']:.3f}")
    for name in ("pc1", "qap", "null", "agrees"):
        print(f"{name}: {content[name]}")


def similarity(images: Images, plain: Images) -> float:
    """Return the mean SSIM."""
    return float(ssim(images, plain, data_range=255).mean())


def floors(plain: Images, others: Images) -> dict[str, dict[str, object]]:
    """Return the mean SSIM of images that no attack has seen, beside the values measured earlier.

    fold_remapped: each value of FR's fold replaced by the mean plain value it comes from in
    ``others``; no map of single folded values has a smaller squared error.
    """
    bits, perm = pixel_based.make_key(SEED, *plain.shape[:3])
    fold = folded.fold(plain)
    counts = np.bincount(folded.fold(others).ravel(), minlength=128)
    sums = np.bincount(folded.fold(others).ravel(), others.ravel().astype(np.float64), 128)
    remap = np.rint(sums / np.maximum(counts, 1)).astype(np.uint8)
    candidates = {
        **floor_images(plain, SEED),
        "pe_diff": pixel_based.encrypt(plain, bits),
        "pe_diff_shuffle": pixel_based.encrypt(plain, bits, perm),
        "tanaka": tanaka.encrypt(plain, tanaka.make_key(SEED)),
        "fold": fold,
        "fold_remapped": remap[fold],
        "negative": 255 - plain,
    }
    rows = {}
    for name, images in candidates.items():
        value, earlier = similarity(images, plain), EARLIER[name]
        rows[name] = {
            "ssim": value,
            "reference": earlier,
            "agrees": abs(value - earlier) <= TOLERANCE,
        }
    return rows


def pc1(secret: Images, public: Images, test: Images, *, shuffle: bool) -> dict[str, list[float]]:
    """Return the share of mask bits that PC1 finds, and the mean SSIM, for each key."""
    shares, values = [], []
    for seed in PC1_KEYS:
        bits, perm = pixel_based.make_key(seed, 1, *test.shape[1:3])
        order = perm if shuffle else None
        mask = principal.find_mask(pixel_based.encrypt(secret, bits, order), public)
        shares.append(float((mask == bits).mean()))
        guess = principal.reconstruct(pixel_based.encrypt(test, bits, order), mask)
        values.append(similarity(guess, test))
    return {"bits": shares, "ssim": values}


def qap(secret: Images, public: Images, test: Images) -> dict[str, list[float]]:
    """Return the share of (upper) nibbles that QAP-LE places, mean SSIM and seconds, a key each."""
    rows: dict[str, list[float]] = {"upper": [], "all": [], "ssim": [], "seconds": []}
    for seed in QAP_KEYS:
        key = tanaka.make_key(seed)
        ciphers = tanaka.encrypt(secret, key)
        start = time.perf_counter()
        found = nibble_matching.find_key(ciphers, public, iterations=FAQ_ITERATIONS)
        rows["seconds"].append(time.perf_counter() - start)
        hits = found[0] == key
        rows["upper"].append(float(hits[key >= tanaka.BYTES].mean()))
        rows["all"].append(float(hits.mean()))
        guess = nibble_matching.reconstruct(tanaka.encrypt(test, key), *found)
        rows["ssim"].append(similarity(guess, test))
    return rows


def null(secret: Images, public: Images, test: Images) -> dict[str, dict[str, float]]:
    """Return what both attacks make of ciphers without information.

    Mean SSIM, and the share found of keys that have nothing to do with the ciphers, the mean over
    ``PC1_KEYS``: 1/2 and 1/96 are chance.
    """
    rng = np.random.default_rng(SEED)
    aes = aes_ctr.make_key(SEED)
    sources: dict[str, Callable[[Images], Images]] = {
        "aes": lambda images: aes_ctr.encrypt(images, aes, first=0 if images is secret else N_TEST),
        "noise": lambda images: rng.integers(0, 256, images.shape, dtype=np.uint8),
    }
    masks = [pixel_based.make_key(seed, 1, *test.shape[1:3])[0] for seed in PC1_KEYS]
    keys = [tanaka.make_key(seed) for seed in PC1_KEYS]
    rows = {}
    for name, encrypt in sources.items():
        ciphers, targets = encrypt(secret), encrypt(test)
        mask = principal.find_mask(ciphers, public)
        found = nibble_matching.find_key(ciphers[:N_QAP], public, iterations=FAQ_ITERATIONS)
        rows[name] = {
            "pc1_ssim": similarity(principal.reconstruct(targets, mask), test),
            "pc1_bits": float(np.mean([mask == bits for bits in masks])),
            "qap_ssim": similarity(nibble_matching.reconstruct(targets, *found), test),
            "qap_upper": float(np.mean([(found[0] == key)[key >= tanaka.BYTES] for key in keys])),
        }
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; if it fails, one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.gan_transform.reference",
        description="Measure floors and training-free attacks on real photographs.",
    )
    parser.add_argument("out", type=Path, help="the JSON to write")
    given = parser.parse_args(argv)
    with one_sentence("reference"):
        reference(given.out)


if __name__ == "__main__":
    main()
