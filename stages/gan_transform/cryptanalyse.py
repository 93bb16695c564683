"""Attack every scheme without training: closed forms and searches that take seconds.

The paper (Sec. IV) attacks by networks only. Each attack here is run on each scheme, whether or not
it was made for it, so that the worst case of all schemes is over the same attacks. It sees the
ciphers of the first half of the attack's images, plain images of the second half, and, if it is one
with known plain images, a few plain images of the first half; never a key, never a test image.
"""

import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64, UInt8
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, sha256, write_npz
from stages.common.metrics import ssim
from stages.common.params import NonNegativeInt, PositiveFloat, PositiveInt
from stages.common.stage import die_with_parent, run
from stages.data.pool import processes
from stages.gan_transform.attacks import folded, known_plaintext, nibble_matching, principal
from stages.gan_transform.ciphers.tanaka import BYTES, NIBBLES, check_sides

SPLITS = ("attack_train", "attack_test")
DATA_RANGE = 255  # of 8-bit images

Images = UInt8[np.ndarray, "_ h w 3"]  # two sets need not be as large
Files = tuple[Path, ...]
K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


def cryptanalyse(
    data: Path,
    encrypted: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    n_cipher: PositiveInt,
    n_public: PositiveInt,
    n_pairs: PositiveInt,
    n_secondary: PositiveInt,
    faq_iterations: PositiveInt,
    faq_weight: PositiveFloat,
    threads: PositiveInt,
) -> None:
    """Run fr, fr_advanced, pc1, qap, kpa_le and kpa_pe on every scheme and key.

    ``data`` holds the prepared images, ``encrypted`` a folder a scheme, with a meta.json. Writes
    ``out``/<scheme>/evaluation.npz: seeds (S,), ssim_<attack> (S, n) with the uniform and
    gauss_<attack> (S, ``n_secondary``) with the Gaussian window, and what share of the true key was
    found: rate_pc1 and rate_kpa_pe (S,) of PE's mask; rate_qap_upper, rate_qap and rate_kpa_le (S,)
    of Tanaka's permutation, its upper nibbles and all; and reconstructions.npz: <attack> (the
    panel's images of the first seed, uint8).

    Parameters
    ----------
    n_cipher : ciphers under one key that pc1 and qap look at.
    n_public : plain images that they compare with.
    n_pairs : pairs that kpa_le and kpa_pe know.
    n_secondary : first test images that are measured by the second window too.
    faq_iterations, faq_weight : of :func:`stages.gan_transform.attacks.nibble_matching.find_key`.
    threads : of linear algebra; as many keys are attacked at once as there are cores for.

    Raises
    ------
    InputError
        If there is no scheme, a file is missing or does not fit the plain images, a number is
        larger than the images last, or sides are no multiples of 4.
    """
    schemes = sorted(path.parent.name for path in encrypted.glob("*/meta.json"))
    if not schemes:
        raise InputError(
            encrypted, "holds no encrypted images", expected="a folder a scheme, with meta.json",
            found="none", remedy="run the stage that encrypts (dvc repro)",
        )  # fmt: skip
    known = {"n_cipher": n_cipher, "n_public": n_public, "n_pairs": n_pairs}
    faq = {"faq_iterations": faq_iterations, "faq_weight": faq_weight}
    work = partial(measure, data, known=known, n_secondary=n_secondary, **faq)
    cells = {
        (scheme, seed): _files(encrypted / scheme, seed) for scheme in schemes for seed in seeds
    }
    results = _distinct(work, cells, threads)
    for scheme in schemes:
        rows = [results[scheme, seed] for seed in seeds]
        measured = {name: np.stack([row[0][name] for row in rows]) for name in rows[0][0]}
        write_npz(out / scheme / "evaluation.npz", seeds=np.asarray(seeds), **measured)
        write_npz(out / scheme / "reconstructions.npz", **rows[0][1])
        means = {k: float(v.mean()) for k, v in measured.items() if not k.startswith("gauss")}
        print(f"{scheme}:", ", ".join(f"{k} {v:.3f}" for k, v in means.items()), flush=True)


def _files(folder: Path, seed: int) -> Files:
    """Return the ciphers to learn from, those to reconstruct, and the key if there is one."""
    files = [folder / f"{name}-s{seed}.npz" for name in ("attack_train", "attack_test")]
    key = folder / f"key-s{seed}.npz"
    return (*files, key) if key.exists() else tuple(files)


def _distinct(work: Callable[[Files], R], cells: Mapping[K, Files], threads: int) -> dict[K, R]:
    """Return ``work`` of every cell, done once where the files are the same, byte for byte.

    A scheme without a key has the same ciphers for every seed.
    """
    content = {cell: tuple(map(sha256, files)) for cell, files in cells.items()}
    todo = {content[cell]: files for cell, files in cells.items()}
    done = dict(zip(todo, _in_order(work, list(todo.values()), threads), strict=True))
    return {cell: done[content[cell]] for cell in cells}


def _in_order(work: Callable[[Files], R], items: Sequence[Files], threads: int) -> Iterator[R]:
    """Yield ``work`` of all items, in their order."""
    at_once = min(len(items), max(1, processes() // threads))
    if at_once == 1:
        with threadpool_limits(threads):
            yield from map(work, tqdm(items, unit="key"))
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_once, context, initializer=_start_worker, initargs=(threads,))
    try:
        yield from tqdm(pool.map(work, items), total=len(items), unit="key")
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    die_with_parent()
    threadpool_limits(threads)


def measure(
    data: Path,
    files: Files,
    *,
    known: Mapping[str, int],
    n_secondary: int,
    faq_iterations: int,
    faq_weight: int | float,
) -> tuple[dict[str, np.ndarray], dict[str, Images]]:
    """Return what is measured for one key, by name, and the panel's reconstructions, by attack.

    Parameters
    ----------
    files : ciphers of the attack's training and test images, and maybe the key.
    known : n_cipher, n_public, n_pairs.
    n_secondary, faq_iterations, faq_weight : see :func:`cryptanalyse`.

    Raises
    ------
    InputError
        As :func:`cryptanalyse`.
    """
    plain = {s: read_npz(data / f"{s}.npz", ["images"])["images"] for s in SPLITS}
    cipher = {s: read_npz(f, ["images"])["images"] for s, f in zip(SPLITS, files[:2], strict=True)}
    for split, file in zip(SPLITS, files[:2], strict=True):
        if plain[split].shape != cipher[split].shape:
            raise InputError(
                file,
                "does not fit the plain images",
                expected=f"shape {plain[split].shape}",
                found=f"shape {cipher[split].shape}",
                remedy="encrypt the images anew (dvc repro)",
            )
    train, test = SPLITS
    check_sides(*plain[test].shape[1:3])
    half = len(plain[train]) // 2
    t1, t2 = plain[train][:half], plain[train][half:]
    for (name, count), available in zip(known.items(), (t1, t2, t1), strict=True):
        if count > len(available):
            raise InputError(
                data / "attack_train.npz",
                f"has too few images for {name}",
                expected=f"{count} in a half",
                found=len(available),
                remedy=f"lower {name} of this profile in params.yaml",
            )
    keys, reconstructions = attack(
        cipher[train][: known["n_cipher"]],
        t2[: known["n_public"]],
        t1[: known["n_pairs"]],
        cipher[train][: known["n_pairs"]],
        cipher[test],
        faq_iterations=faq_iterations,
        faq_weight=faq_weight,
    )
    result: dict[str, np.ndarray] = {}
    for name, images in reconstructions.items():
        result[f"ssim_{name}"] = _ssim(images, plain[test])
        result[f"gauss_{name}"] = _ssim(
            images[:n_secondary], plain[test][:n_secondary], gaussian=True
        )
    panel = read_json(data / "meta.json")["panel"]  # all of them would not fit in memory
    shown = {name: images[panel] for name, images in reconstructions.items()}
    return result | (found(keys, files[2]) if len(files) == 3 else {}), shown


def attack(
    ciphers: Images,
    public: Images,
    pairs_plain: Images,
    pairs_cipher: Images,
    test: Images,
    *,
    faq_iterations: int,
    faq_weight: int | float,
) -> tuple[dict[str, tuple[np.ndarray, ...]], dict[str, Images]]:
    """Return the keys that the attacks find and what they make of ``test``, by attack.

    Parameters
    ----------
    ciphers : images under one key, for pc1 and qap.
    public : plain images, others than those of ``ciphers``.
    pairs_plain, pairs_cipher : the same images, for kpa_le and kpa_pe.
    test : ciphers to be reconstructed.
    faq_iterations, faq_weight : of ``nibble_matching.find_key``.
    """
    corner = public[:, 0, 0].mean(0, dtype=np.float64)
    keys = {
        "pc1": (principal.find_mask(ciphers, public),),
        "qap": nibble_matching.find_key(
            ciphers, public, iterations=faq_iterations, weight=faq_weight
        ),
        "kpa_le": known_plaintext.find_permutation(pairs_cipher, pairs_plain),
        "kpa_pe": known_plaintext.find_mask_and_order(pairs_cipher, pairs_plain),
    }
    reconstructions = {
        "fr": folded.fold(test),
        "fr_advanced": folded.follow_neighbours(test, corner),
        "pc1": principal.reconstruct(test, *keys["pc1"]),
        "qap": nibble_matching.reconstruct(test, *keys["qap"]),
        "kpa_le": known_plaintext.reconstruct_permutation(test, *keys["kpa_le"]),
        "kpa_pe": known_plaintext.reconstruct_mask_and_order(test, *keys["kpa_pe"]),
    }
    return keys, reconstructions


def found(keys: Mapping[str, tuple[np.ndarray, ...]], file: Path) -> dict[str, np.ndarray]:
    """Return what share of the true key the attacks found, by name; nothing for other ciphers.

    PE: of the mask of the test images, all of them if each has its own. Tanaka: of the
    permutation, and of the places in the cipher that an upper nibble went to.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    true = read_npz(file)
    if "bits_attack_test" in true:
        return {
            f"rate_{name}": np.asarray(np.mean(keys[name][0] == true["bits_attack_test"]))
            for name in ("pc1", "kpa_pe")
        }
    if true.get("key", np.zeros(0)).shape == (NIBBLES,):
        hits = {name: keys[name][0] == true["key"] for name in ("qap", "kpa_le")}
        hits["qap_upper"] = hits["qap"][true["key"] >= BYTES]
        return {f"rate_{name}": np.asarray(np.mean(hit)) for name, hit in hits.items()}
    return {}


def _ssim(images: Images, plain: Images, *, gaussian: bool = False) -> Float64[np.ndarray, " n"]:
    """Return the SSIM of each image; of an exact reconstruction 1, without computing it."""
    values = np.ones(len(plain))
    differs = (images != plain).any((1, 2, 3))
    values[differs] = ssim(
        images[differs], plain[differs], data_range=DATA_RANGE, gaussian=gaussian
    )
    return values


if __name__ == "__main__":
    run(cryptanalyse, "gan_transform.cryptanalyse")
