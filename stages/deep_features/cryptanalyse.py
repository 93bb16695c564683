"""Attack ShuffleBits on the features of every black box: the extension that Sec. IV names.

An attack is given a ciphertext and features of the adversary's own, never a key, never a plain
feature of the request. Writes <model>-<set>.npz (k seeds, m measures of
:func:`stages.deep_features.cryptanalysis.measures.measure`):

co-<ref>-img<n>-<m> (k, requests)   ciphertext only: n test vectors under one key, fresh for every
    request. References: same_domain (training features of the same set), n20 and n100 (20 and 100
    of them), other_dataset (training features of another set), none (no feature of the black box:
    simulated batch-normalised features, nothing known of single dimensions)
hungarian-<m>, profile-<m>          simpler attacks on the requests of one vector, same_domain
kpa-K<floats>-<m>                   one vector of which so many floats are known
control-<name>-<m>                  same attack where it must fail: aes_gcm (AES-256-GCM over
    ShuffleBits), xor (a ChaCha20 stream instead of it), iid (independent normal features)
control-mean-cos, control-mean-centred   no attack: the mean of same_domain for an answer, which
    needs no ciphertext; ``centred`` of all cosines is less this mean
ll_true (k,), ll_random (k, keys)   log-likelihood of the leading bits a float, nats, under the true
    key and under random ones
attacked_index (r,)                 test images attacked one by one, each under its own key, and
    attacked_features (k, r, D), attacked_predictions (k, r, T), attacked_cos and
    attacked_centred (k, r)
attacked_distance, plain_distance (k, r)   cosine distance of what fr_adv's generator draws of the
    recovered and of the plain features; panel_original, panel_plain, panel_wrong_key,
    panel_attacked (p, h, w, 3) uint8, drawn of the first seed's; for cells that have a generator

and synthetic.npz: synthetic-<kind>-D<dims>-cos and -centred (requests,), the attack on one vector
of synthetic features, whose reference is of another domain.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt32
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import die_with_parent, run
from stages.data.pool import processes
from stages.deep_features.cryptanalysis import known_plaintext, likelihood, synthetic
from stages.deep_features.cryptanalysis.calibration import fit_by_trial
from stages.deep_features.cryptanalysis.measures import (
    centred_cosines,
    cosines,
    measure,
    similarity,
)
from stages.deep_features.cryptanalysis.reference import Reference, fit, forget_dimensions
from stages.deep_features.cryptanalysis.search import Method, attack, decode
from stages.deep_features.features import find_models, read_features, read_sets
from stages.deep_features.requests import Requests
from stages.deep_features.shufflebits.arrays import encrypt_numpy

FEW = {"n20": 20, "n100": 100}  # vectors of the small references
SIMULATED_DIMS = 256  # of the reference of who has no feature at all
NETWORK, DOMAIN = 0, 1  # of synthetic features
SYNTHETIC_REFERENCE = 2000  # vectors of the domain that batch normalisation was fitted to

Features = Float32[np.ndarray, "_n d"]  # two splits need not be as large
Mean = Float32[np.ndarray, " d"]
Cipher = UInt32[np.ndarray, "n d"]
Arrays = dict[str, np.ndarray]


class Plan(NamedTuple):
    """How much is attacked; see :func:`cryptanalyse`."""

    key_seed: int
    n_reference: int
    requests: int
    scopes: list[int]
    known_floats: list[int]
    n_attacked: int
    random_keys: int


class Task(NamedTuple):
    """One black box of one seed on one local set. ``sizes``: images of each set's splits."""

    model: str
    name: str
    other: str
    seed: int
    panel: list[int]
    sizes: dict[tuple[str, str], int]


class Measured:
    """Collects measures by attack; an entry a request."""

    def __init__(self):
        self._lists: dict[str, list[float]] = {}
        self.seconds: dict[str, list[float]] = {}

    def add(self, name: str, values: Mapping[str, float], seconds: float | None = None) -> None:
        """Enter one request; the sizes' cosine of controls only."""
        for m, value in values.items():
            if m != "abs_cos" or name.startswith("control-"):
                self._lists.setdefault(f"{name}-{m}", []).append(value)
        if seconds is not None:
            self.seconds.setdefault(name, []).append(seconds)

    def arrays(self) -> Arrays:
        return {name: np.array(values, np.float64) for name, values in self._lists.items()}


def recover(
    reference: Reference, cipher: Cipher, method: Method = "full"
) -> tuple[np.ndarray, Features, float]:
    """Attack one request; returns the key, the features and the seconds it took."""
    begun = time.perf_counter()
    perm = attack(reference, cipher, method=method).perm
    features = decode(reference, cipher, perm)
    return perm, features, time.perf_counter() - begun


def references(own: Features, other: Features, n: int) -> dict[str, Reference]:
    """Fit what the adversaries know, by name; none has more than ``n`` vectors."""
    simulated = synthetic.draw("bn", n, SIMULATED_DIMS, network=NETWORK, domain=DOMAIN, seed=0)
    return {
        "same_domain": fit_by_trial(own),
        **{name: fit_by_trial(own[:count]) for name, count in FEW.items()},
        "other_dataset": fit_by_trial(other),
        "none": forget_dimensions(fit(simulated, rank=0), own.shape[1]),
    }


def attack_cell(task: Task, extracted: Path, plan: Plan) -> tuple[Arrays, dict[str, list[float]]]:
    """Run all attacks on one black box of one seed and one local set.

    Returns the arrays of the file without the axis of seeds, and the seconds of each request.
    """
    read = partial(read_features, extracted, task.model)
    train, test, other = (
        read(name, split, task.seed, n=task.sizes[name, split])
        for name, split in ((task.name, "train"), (task.name, "test"), (task.other, "train"))
    )
    cell = f"{task.model}-{task.name}"
    requests = Requests(plan.key_seed, f"cryptanalyse/{cell}/s{task.seed}")
    # the same images, in every cell of a set and for every seed
    draws = np.random.default_rng([plan.key_seed, len(test)])
    rng = np.random.default_rng(task.seed)
    own, other = (x[rng.permutation(len(x))[: plan.n_reference]] for x in (train, other))
    known = references(own, other, plan.n_reference)
    found, same, mean = Measured(), known["same_domain"], mean_of(own)

    single = []  # requests of one vector: plain, cipher
    for scope in plan.scopes:
        for i in range(plan.requests):
            plain = test[np.sort(draws.choice(len(test), scope, replace=False))]
            cipher = requests.shuffle(plain, f"img{scope}/{i}")
            for name, reference in known.items():
                perm, features, seconds = recover(reference, cipher)
                label = f"co-{name}-img{scope}"
                found.add(label, measure(plain, cipher, perm, features, mean), seconds)
            if scope == 1:
                single.append((plain, cipher))

    for i, (plain, cipher) in enumerate(single):
        for method in ("hungarian", "profile"):
            perm, features, seconds = recover(same, cipher, method)
            found.add(method, measure(plain, cipher, perm, features, mean), seconds)
        order = draws.permutation(plain.shape[1])
        for count in dict.fromkeys(min(count, len(order)) for count in plan.known_floats):
            here = order[:count]
            perm = known_plaintext.find_perm(cipher[:, here], plain[:, here])
            features = decode(same, cipher, perm)
            found.add(f"kpa-K{count}", measure(plain, cipher, perm, features, mean))
        found.add("control-mean", similarity(plain, mean[None], mean))
        _controls(found, same, mean, plain, requests, i)
    _without_structure(found, plan, train.shape[1], requests)

    return {
        **found.arrays(),
        **_likelihoods(same, np.concatenate([plain for plain, _ in single]), requests, plan),
        **_one_by_one(same, mean, test, chosen_images(len(test), plan, task.panel), requests),
    }, found.seconds


def mean_of(features: Features) -> Mean:
    """Return the mean vector: the best guess of who has no ciphertext."""
    return features.mean(0, dtype=np.float64).astype(np.float32)


def _controls(
    found: Measured,
    reference: Reference,
    mean: Mean,
    plain: Features,
    requests: Requests,
    i: int,
) -> None:
    """Attack the same vector under conventional ciphers."""
    ciphers = {
        "aes_gcm": requests.seal(requests.shuffle(plain, f"aes_gcm/{i}"), f"aes_gcm/{i}"),
        "xor": requests.add_stream(plain, f"xor/{i}"),
    }
    for name, cipher in ciphers.items():
        perm, features, _ = recover(reference, cipher)
        found.add(f"control-{name}", measure(plain, cipher, perm, features, mean))


def _without_structure(found: Measured, plan: Plan, dims: int, requests: Requests) -> None:
    """Attack features that are independent normal numbers: the sign bit is like a mantissa bit."""
    about = {"network": NETWORK, "domain": DOMAIN}
    own = synthetic.draw("iid", plan.n_reference, dims, seed=0, **about)
    reference, mean = fit_by_trial(own), mean_of(own)
    for i, plain in enumerate(synthetic.draw("iid", plan.requests, dims, seed=1, **about)):
        cipher = requests.shuffle(plain[None], f"iid/{i}")
        perm, features, _ = recover(reference, cipher)
        found.add("control-iid", measure(plain[None], cipher, perm, features, mean))


def _likelihoods(reference: Reference, plain: Features, requests: Requests, plan: Plan) -> Arrays:
    """Return how likely the true key and random ones are, for vectors under one key."""
    key = requests.key("likelihood")
    keys = [key, *(requests.key(f"random/{i}") for i in range(plan.random_keys))]
    cipher = encrypt_numpy(plain, key)
    values = likelihood.per_float(reference, cipher, np.stack([k.perm for k in keys]))
    return {"ll_true": np.asarray(values[0]), "ll_random": values[1:]}


def _one_by_one(
    reference: Reference,
    mean: Mean,
    test: Features,
    chosen: Int64[np.ndarray, " r"],
    requests: Requests,
) -> Arrays:
    """Attack each chosen image under a key of its own."""
    features = np.empty((len(chosen), test.shape[1]), np.float32)
    for row, i in enumerate(chosen):
        cipher = requests.shuffle(test[i : i + 1], f"image/{i}")
        features[row] = recover(reference, cipher)[1][0]
    return {
        "attacked_features": features,
        "attacked_cos": cosines(test[chosen], features),
        "attacked_centred": centred_cosines(test[chosen], features, mean),
    }


def chosen_images(n: int, plan: Plan, panel: Sequence[int]) -> Int64[np.ndarray, " r"]:
    """Return the test images that are attacked one by one: the panel's, and others at random."""
    others = np.random.default_rng([plan.key_seed, n, 1]).permutation(n)
    others = others[~np.isin(others, panel)][: max(0, plan.n_attacked - len(panel))]
    return np.sort(np.concatenate([np.asarray(panel, np.int64), others]))


def attack_synthetic(kind: synthetic.Kind, dims: int, requests: int, key_seed: int) -> Arrays:
    """Attack single vectors of synthetic features of a domain other than the reference's."""
    about = {"network": NETWORK}
    own = synthetic.draw(kind, SYNTHETIC_REFERENCE, dims, domain=0, seed=0, **about)
    reference, mean = fit_by_trial(own), mean_of(own)
    ids = Requests(key_seed, f"cryptanalyse/synthetic/{kind}/{dims}")
    found = []
    for i, x in enumerate(synthetic.draw(kind, requests, dims, domain=DOMAIN, seed=1, **about)):
        recovered = recover(reference, ids.shuffle(x[None], str(i)))[1]
        found.append(similarity(x[None], recovered, mean))
    return {
        f"synthetic-{kind}-D{dims}-{m}": np.array([values[m] for values in found])
        for m in ("cos", "centred")
    }


def look(
    found: Arrays,
    test: Features,
    task: Task,
    *,
    trained: Path,
    attributes: Path,
    reconstructed: Path,
    key_seed: int,
    grids: bool,
) -> Arrays:
    """Return what heads and generator make of the recovered features.

    Parameters
    ----------
    found : what :func:`attack_cell` returned.
    grids : whether to draw the panel.
    """
    from stages.common.device import evaluation_device  # the attacks need no torch
    from stages.deep_features.heads import load_heads
    from stages.deep_features.reconstructions import draw, load_redrawing

    device, cell = evaluation_device(), f"{task.model}-{task.name}"
    generator = reconstructed / "fr_adv" / cell
    features, index = found["attacked_features"], found["attacked_index"]
    plain = test[index]
    seen: Arrays = {
        "attacked_predictions": load_heads(attributes / cell, task.seed, device)(features)
    }
    redraw = load_redrawing(trained / task.model, generator, task.seed, device)
    if redraw is not None:
        seen["attacked_distance"] = 1 - cosines(plain, redraw(features))
        seen["plain_distance"] = 1 - cosines(plain, redraw(plain))
        if grids and task.panel:
            rows = np.searchsorted(index, task.panel)
            key = Requests(key_seed, f"cryptanalyse/{cell}/panel").key("wrong")
            wrong = encrypt_numpy(plain[rows], key).view(np.float32)
            largest = np.abs(plain).max()
            wrong = np.clip(np.nan_to_num(wrong, posinf=0, neginf=0), -largest, largest)
            for name, of in (
                ("plain", plain[rows]),
                ("wrong_key", wrong),
                ("attacked", features[rows]),
            ):
                seen[f"panel_{name}"] = draw(generator, task.seed, of)
    return seen


def cryptanalyse(
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
    n_reference: PositiveInt,
    requests: PositiveInt,
    scopes: list[PositiveInt],
    known_floats: list[PositiveInt],
    n_attacked: PositiveInt,
    random_keys: PositiveInt,
    synthetic_dims: list[PositiveInt],
    synthetic_requests: PositiveInt,
    allow_real_grids: bool,
) -> dict[str, dict[str, float]]:
    """Attack all cells with all seeds, and synthetic features.

    Parameters
    ----------
    threads : of linear algebra; as many cells are attacked at once as there are cores for.
    key_seed : of the master secret that all keys are derived from, and of which images are taken.
    n_reference : the adversary's own vectors, at most.
    requests : of each scope.
    scopes : vectors under one key; 1 is needed.
    known_floats : of the attack that knows some; more than D are D, once.
    n_attacked : test images attacked one by one, those of the panel among them.
    random_keys : that the true key's likelihood is compared with.
    synthetic_dims, synthetic_requests : sizes of synthetic features, requests of each kind.
    allow_real_grids : write pictures of sets that show real people, too.

    Returns
    -------
    {"seconds": median of an attack on one request, by attack}: for the provenance.

    Raises
    ------
    InputError
        If a file is missing or damaged, files do not belong together, or there are too few test
        images.
    """
    plan = Plan(key_seed, n_reference, requests, scopes, known_floats, n_attacked, random_keys)
    tasks = read_tasks(data, extracted, seeds, plan)
    for task in tasks:  # before the minutes of work
        read_json(attributes / f"{task.model}-{task.name}" / "meta.json")
    work: list[Callable[[], Any]] = [partial(attack_cell, t, extracted, plan) for t in tasks]
    work += [
        partial(attack_synthetic, kind, dims, synthetic_requests, key_seed)
        for dims in synthetic_dims
        for kind in synthetic.KINDS
    ]
    results = list(_in_order(work, threads))
    measured, others = results[: len(tasks)], results[len(tasks) :]
    sets = read_sets(data)["sets"]
    rows: dict[str, list[Arrays]] = {}
    for task, (arrays, _) in zip(tasks, measured, strict=True):
        images = read_npz(data / f"{task.name}_test.npz", ["images"])["images"]
        test = read_features(extracted, task.model, task.name, "test", task.seed, n=len(images))
        index = chosen_images(len(images), plan, task.panel)
        arrays = arrays | {"attacked_index": index}
        cell = rows.setdefault(f"{task.model}-{task.name}", [])
        grids = not cell and (allow_real_grids or not sets[task.name].get("real", False))
        arrays |= look(
            arrays,
            test,
            task,
            trained=trained,
            attributes=attributes,
            reconstructed=reconstructed,
            key_seed=key_seed,
            grids=grids,
        )
        if "panel_plain" in arrays:
            arrays["panel_original"] = images[task.panel]
        cell.append(arrays)
    for name, of_seeds in rows.items():
        write_npz(out / f"{name}.npz", seeds=np.asarray(seeds, np.int64), **_stacked(of_seeds))
        cosine = np.median([of_seed["co-same_domain-img1-centred"] for of_seed in of_seeds])
        print(f"  {name}: median centred cosine {cosine:.4f} from one vector", flush=True)
    write_npz(out / "synthetic.npz", **{k: v for arrays in others for k, v in arrays.items()})
    seconds: dict[str, list[float]] = {}
    for _, of_task in measured:
        for name, values in of_task.items():
            seconds.setdefault(name, []).extend(values)
    return {"seconds": {name: float(np.median(values)) for name, values in seconds.items()}}


def _stacked(of_seeds: list[Arrays]) -> Arrays:
    """Return the arrays with an axis of seeds in front, but what the first seed says for all."""
    single = [name for name in of_seeds[0] if name.startswith("panel_") or name == "attacked_index"]
    first = {name: of_seeds[0][name] for name in single}
    shared = [name for name in of_seeds[0] if name not in first]
    return first | {name: np.stack([arrays[name] for arrays in of_seeds]) for name in shared}


def read_tasks(data: Path, extracted: Path, seeds: list[int], plan: Plan) -> list[Task]:
    """Return what is to be attacked: all models, local sets and seeds.

    The other set of a local one is the next local one; of a single one the proprietary set.

    Raises
    ------
    InputError
        If a file is missing or damaged, scope 1 is missing, or a scope has more vectors than a
        test split has images.
    """
    meta = read_sets(data)
    names = meta["locals"]
    if 1 not in plan.scopes:
        raise InputError(
            "scopes", "lack the request of one vector", expected="1 among them",
            found=plan.scopes, remedy="add it in params.yaml",
        )  # fmt: skip
    sizes = {
        (name, split): len(read_npz(data / f"{name}_{split}.npz", ["pids"])["pids"])
        for name in [*names, meta["proprietary"]]
        for split in ("train", "test")
    }
    tasks = []
    for i, name in enumerate(names):
        if max(plan.scopes) > sizes[name, "test"]:
            raise InputError(
                data / f"{name}_test.npz", "has too few images for a request",
                expected=f"at least {max(plan.scopes)}", found=sizes[name, "test"],
                remedy="lower scopes of this profile in params.yaml",
            )  # fmt: skip
        other = names[(i + 1) % len(names)] if len(names) > 1 else meta["proprietary"]
        panel = sorted(meta.get("panel", {}).get(name, []))
        tasks += [
            Task(model, name, other, seed, panel, sizes)
            for model in find_models(extracted)
            for seed in seeds
        ]
    return tasks


def _call(work: Callable[[], Any]) -> Any:
    return work()


def _in_order(work: Sequence[Callable[[], Any]], threads: int) -> Iterator[Any]:
    """Yield what each callable returns, in their order; as many run at once as cores allow."""
    at_once = min(len(work), max(1, processes() // threads))
    if at_once == 1:
        with threadpool_limits(threads):
            yield from map(_call, tqdm(work, unit="cell"))
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_once, context, initializer=_start_worker, initargs=(threads,))
    try:
        yield from tqdm(pool.map(_call, work), total=len(work), unit="cell")
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    die_with_parent()
    threadpool_limits(threads)


if __name__ == "__main__":
    run(cryptanalyse, "deep_features.cryptanalyse")
