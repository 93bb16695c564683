"""What ShuffleBits does to threat models, with the right key, a wrong one and none (Sec. III-D).

The paper reasons about it and runs nothing. Writes <model>-<set>.npz for every black box and local
set, n test images, T tasks, k seeds:

predictions_plain, predictions_right (k, n, T)   heads on features as they are, and after
    encryption and decryption; bits_wrong_right (1,)  bits that differ after it
wrong_predictions (k, keys, n, T), wrong_cos (k, keys)   heads on features decrypted by another
    random key, which is encryption under a third one; mean cosine with the plain features, of at
    most 2,000 test images, evenly spread
predictions_own (k, n, T)     heads trained and judged on features encrypted under one key, another
    for every seed; what they learn depends on which bits it puts into sign and exponent
predictions_popcount (k, n, T)   no key at all: the numbers of ones, every float under a key of its
    own (see ``cryptanalysis.popcount``)
rank1_plain, rank1_hamming (k,)   retrieval on the test split by the cosine of plain features, and
    by the Hamming distance of ciphertexts under one key
distance_plain, distance_right, distance_wrong (k, images)   cosine distance, in the black box's
    features, of what the generator of fr_adv draws; for cells that have one; recon_index (images,)
    says of which test images
nan_share (keys,)             share of the first seed's ciphertexts that are NaN as floats

Wherever a ciphertext is taken for floats, NaN and infinity are 0 and the rest is clipped to 1.5
times the largest size among the training features; an adversary would do no less.

With CUDA and a C compiler also graph.json: ``shufflebits.graph`` on the first black box, or on a
linear layer if that cannot be compiled as one graph.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64, UInt32
from torch import Tensor

from stages.common.device import evaluation_device
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed
from stages.deep_features.blackbox import load_blackbox
from stages.deep_features.cryptanalysis import hamming, popcount
from stages.deep_features.cryptanalysis.measures import cosines
from stages.deep_features.cryptanalysis.planes import words
from stages.deep_features.cryptanalysis.reference import HEADROOM
from stages.deep_features.features import find_models, read_features, read_sets
from stages.deep_features.head_training import train_heads
from stages.deep_features.heads import Heads, load_heads
from stages.deep_features.pixels import resize, to_floats
from stages.deep_features.reconstructions import load_redrawing
from stages.deep_features.reid_metrics import rank1_by, unit
from stages.deep_features.requests import Requests
from stages.deep_features.shufflebits.arrays import decrypt_numpy, encrypt_numpy
from stages.deep_features.shufflebits.benes import shifts
from stages.deep_features.shufflebits.graph import linear, look
from stages.deep_features.shufflebits.keys import BitKey
from stages.deep_features.shufflebits.module import delta_swaps, mask_table
from stages.deep_features.shufflebits.native import compiler

COSINES = 2000  # test images whose cosine is computed under each wrong key
SHOWN = 64  # images that the compiled black box is watched with
DIMS_AT_ONCE = 64  # numbers of a feature whose bits are unpacked at once on a GPU
RECIPE = ("epochs", "batch_size", "lr", "lr_late", "beta1", "beta2")  # of the headline heads

Features = Float32[np.ndarray, "_n d"]  # two splits need not be as large
Predictions = Int64[np.ndarray, "_n t"]


def as_features(cipher: UInt32[np.ndarray, "n d"], largest: float) -> Features:
    """Return ciphertexts as floats that a network can take."""
    values = np.nan_to_num(cipher.view(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(values, -largest, largest, out=values)


def seal(x: Float32[Tensor, "n d"], key: BitKey) -> Float32[Tensor, "n d"]:
    """Encrypt features where they are; ciphertexts viewed as floats.

    On a CPU by NumPy, whose blocks stay in the cache: five times as fast as torch there.
    """
    if x.device.type == "cpu":
        return torch.from_numpy(encrypt_numpy(x.numpy(), key).view(np.float32))
    return seal_by_torch(x, key)


def seal_by_torch(x: Float32[Tensor, "n d"], key: BitKey) -> Float32[Tensor, "n d"]:
    """Do what :func:`seal` does, on any device."""
    masks = mask_table(key, device=x.device)[0]
    return delta_swaps(x.view(torch.int32), masks).view(torch.float32)


def hamming_by_torch(a: Int32[Tensor, "q d"], b: Int32[Tensor, "g d"]) -> Int32[np.ndarray, "q g"]:
    """Do what ``cryptanalysis.hamming.distances`` does, on any device."""
    places = torch.arange(32, dtype=torch.int32, device=a.device)
    both = torch.zeros(len(a), len(b), device=a.device)  # whole numbers below 2^24: exact
    ones = [torch.zeros(len(x), device=a.device) for x in (a, b)]
    for d in range(0, a.shape[1], DIMS_AT_ONCE):
        some = [(x[:, d : d + DIMS_AT_ONCE, None] >> places & 1).flatten(1).float() for x in (a, b)]
        both += some[0] @ some[1].T
        ones = [count + bits.sum(1) for count, bits in zip(ones, some, strict=True)]
    return (ones[0][:, None] + ones[1] - 2 * both).int().cpu().numpy()


def fresh_keys(x: UInt32[np.ndarray, "n d"], seed: list[int]) -> UInt32[np.ndarray, "n d"]:
    """Permute the bits of every word by a key of its own: a Benes network with random switches.

    Every permutation can come up, not all as often; what follows looks at numbers of ones alone.
    """
    rng, out = np.random.default_rng(seed), x.copy()
    for shift in shifts(32):
        lower = sum(1 << i for i in range(32) if not i & shift)
        mask = rng.integers(2**32, size=x.shape, dtype=np.uint32) & np.uint32(lower)
        moved = (out >> np.uint32(shift) ^ out) & mask
        out ^= moved ^ moved << np.uint32(shift)
    return out


def train_own(
    train: Features,
    labels: Predictions,
    test: Features,
    meta: dict[str, Any],
    *,
    seed: int,
    device: torch.device,
) -> Predictions:
    """Train heads as ``attributes`` did, on these features, and return what they predict."""
    torch.manual_seed(seed)
    classes = [len(task["classes"]) for task in meta["tasks"]]
    momentum = {"bn_momentum": meta["bn_momentum"]} if "bn_momentum" in meta else {}
    heads = Heads(train.shape[1], classes, blocks=meta["blocks"], **momentum).to(device)
    recipe = {key: meta[key] for key in RECIPE}
    x, y = torch.from_numpy(train).to(device), torch.from_numpy(labels).to(device)
    for _ in train_heads(heads, [x], [y], weighted=[True], seed=seed, **recipe):
        pass
    return heads.predict(torch.from_numpy(test).to(device)[None])[0].cpu().numpy()


def encrypt_cell(
    features: dict[str, Features],
    arrays: dict[str, dict[str, np.ndarray]],
    heads: Callable[[Features | Tensor], Predictions],
    meta: dict[str, Any],
    redraw: Callable[[Features], Features] | None,
    requests: Requests,
    *,
    seed: int,
    wrong_keys: int,
    n_recon: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Measure one black box of one seed on one local set; see the module for what is returned.

    Parameters
    ----------
    features, arrays : of both splits, as ``extract`` and ``prepare`` wrote them.
    heads, meta : the cell's headline heads and their meta.json.
    redraw : features -> features of the images that the generator draws of them; None: no such
        generator.
    requests : where keys come from.
    """
    test, labels = features["test"], arrays["train"]["attributes"]
    known = (labels >= 0).all(1)
    largest = HEADROOM * float(np.abs(features["train"]).max())

    key = requests.key("right")
    back = decrypt_numpy(encrypt_numpy(test, key), key)
    found = {
        "predictions_plain": heads(test),
        "predictions_right": heads(back),
        "bits_wrong_right": np.asarray(np.bitwise_count(words(back) ^ words(test)).sum()),
    }

    own = requests.key("own")
    sealed = {split: as_features(encrypt_numpy(f, own), largest) for split, f in features.items()}
    found["predictions_own"] = train_own(
        sealed["train"][known], labels[known], sealed["test"], meta, seed=seed, device=device
    )

    classes = [len(task["classes"]) for task in meta["tasks"]]
    classifier = popcount.fit(features["train"][known], labels[known], classes)
    found["predictions_popcount"] = classifier.predict(fresh_keys(words(test), [seed]))

    wrong = [_wrong_key(requests, f"wrong{i}") for i in range(wrong_keys)]
    predictions, cosine, nan = [], [], []
    x, compared = torch.from_numpy(test).to(device), evenly(len(test), COSINES)
    for other in wrong:
        taken = seal(x, other)
        nan.append(int(taken.isnan().sum()) / taken.numel())
        taken = taken.nan_to_num(0.0, 0.0, 0.0).clamp_(-largest, largest)
        predictions.append(heads(taken).astype(np.int16))
        cosine.append(cosines(test[compared], taken[compared].cpu().numpy()).mean())
    found["wrong_predictions"] = np.stack(predictions)
    found["wrong_cos"], found["nan_share"] = np.array(cosine), np.array(nan)

    found |= rank1(test, requests.shuffle(test, "gallery"), arrays["test"], device)

    if redraw is not None:
        chosen = evenly(len(test), n_recon)
        found["recon_index"], plain = chosen, test[chosen]
        mixed = [encrypt_numpy(x, wrong[i % len(wrong)]) for i, x in enumerate(plain)]
        for name, given in (
            ("plain", plain),
            ("right", back[chosen]),
            ("wrong", as_features(np.stack(mixed), largest)),
        ):
            found[f"distance_{name}"] = 1 - cosines(plain, redraw(given))
    return found


def _wrong_key(requests: Requests, name: str) -> BitKey:
    """Return the key that encryption by one key and decryption by another makes."""
    return requests.key(f"{name}/decrypt").inverse().after(requests.key(f"{name}/encrypt"))


def evenly(n: int, count: int) -> Int64[np.ndarray, " m"]:
    """Return places of at most ``count`` of ``n`` images, evenly spread."""
    return np.linspace(0, n - 1, min(count, n)).astype(np.int64)


def rank1(
    features: Features,
    cipher: UInt32[np.ndarray, "n d"],
    arrays: dict[str, np.ndarray],
    device: torch.device,
) -> dict[str, Float64[np.ndarray, ""]]:
    """Return rank1_plain and rank1_hamming: the share of queries whose nearest image is right."""
    query = arrays["query"]
    about: dict[str, Any] = {
        **{name: arrays[name][query] for name in ("pids", "camids")},
        **{f"gallery_{name}": arrays[name][~query] for name in ("pids", "camids")},
    }
    some, gallery = unit(features[query]), unit(features[~query])
    found = {"rank1_plain": rank1_by(lambda part: 1 - some[part] @ gallery.T, **about)}
    sealed = [cipher[query], cipher[~query]]
    if device.type == "cpu":
        found["rank1_hamming"] = rank1_by(
            lambda part: hamming.distances(sealed[0][part], sealed[1]), **about
        )
    else:
        bits = [torch.from_numpy(part.view(np.int32)).to(device) for part in sealed]
        found["rank1_hamming"] = rank1_by(
            lambda part: hamming_by_torch(bits[0][part], bits[1]), **about
        )
    return {name: np.asarray(values.mean()) for name, values in found.items()}


def encrypt_of_seed(
    data: Path,
    trained: Path,
    extracted: Path,
    attributes: Path,
    reconstructed: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    key_seed: int,
    wrong_keys: int,
    n_recon: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Measure all cells of one seed."""
    torch.set_num_threads(threads)
    device = evaluation_device()
    found = {}
    for name in read_sets(data)["locals"]:
        arrays = {split: read_npz(data / f"{name}_{split}.npz") for split in ("train", "test")}
        for model in find_models(extracted):
            cell = f"{model}-{name}"
            features = {
                split: read_features(extracted, model, name, split, seed, n=len(of["pids"]))
                for split, of in arrays.items()
            }
            found[cell] = encrypt_cell(
                features,
                arrays,
                load_heads(attributes / cell, seed, device),
                read_json(attributes / cell / "meta.json"),
                load_redrawing(trained / model, reconstructed / "fr_adv" / cell, seed, device),
                Requests(key_seed, f"encrypt/{cell}/s{seed}"),
                seed=seed,
                wrong_keys=wrong_keys,
                n_recon=n_recon,
                device=device,
            )
            print(f"  {cell}, seed {seed}: done", flush=True)
    return found


def encrypt(
    data: Path,
    trained: Path,
    extracted: Path,
    attributes: Path,
    reconstructed: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    key_seed: NonNegativeInt,
    wrong_keys: PositiveInt,
    n_recon: PositiveInt,
) -> None:
    """Measure all cells with all seeds.

    Parameters
    ----------
    key_seed : of the master secret that all keys are derived from.
    wrong_keys : random keys a cell and seed.
    n_recon : test images, evenly spread, that are drawn of plain and of wrongly decrypted features.

    Raises
    ------
    InputError
        If a file is missing or damaged, or files do not belong together.
    """
    done = for_each_seed(
        encrypt_of_seed,
        seeds,
        threads=threads,
        data=data,
        trained=trained,
        extracted=extracted,
        attributes=attributes,
        reconstructed=reconstructed,
        key_seed=key_seed,
        wrong_keys=wrong_keys,
        n_recon=n_recon,
    )
    for cell in done[0]:
        rows = [of_seed[cell] for of_seed in done]
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        arrays["bits_wrong_right"] = arrays["bits_wrong_right"].sum(keepdims=True).astype(np.int64)
        for name in {"nan_share", "recon_index"} & set(arrays):
            arrays[name] = arrays[name][0]
        write_npz(out / f"{cell}.npz", seeds=np.asarray(seeds, np.int64), **arrays)
    look_at_graph(data, trained / find_models(extracted)[0], out, seed=seeds[0], key_seed=key_seed)


def look_at_graph(data: Path, trained: Path, out: Path, *, seed: int, key_seed: int) -> None:
    """Write graph.json if there are CUDA and a compiler and all can be seen; else say why not."""
    device, file = evaluation_device(), out / "graph.json"
    file.unlink(missing_ok=True)
    if device.type != "cuda":
        return
    if compiler() is None:
        print("  no C compiler: not shown that the cipher stays on the device", flush=True)
        return
    black_box = load_blackbox(trained, seed, device)
    name = read_sets(data)["locals"][0]
    images = read_npz(data / f"{name}_test.npz", ["images"])["images"][:SHOWN]
    shown = resize(to_floats(torch.from_numpy(images).to(device)), black_box.size)
    key = Requests(key_seed, "encrypt/graph").key("graph")
    found = look([(trained.name, black_box.net, shown), linear(device)], key, device)
    if found is not None:
        write_json(file, found)


if __name__ == "__main__":
    run(encrypt, "deep_features.encrypt")
