"""Read what the stages measured, and refuse what cannot be scored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz

LOSSES = ("pixel", "fr", "fr_adv")
EQUAL = ("pixel_equal", "fr_equal")  # with as many updates of G as fr_adv makes
MADE = (*LOSSES, *EQUAL)
FLOORS = ("same", "floor", "other", "mean", "blank")
MEASURES = ("distance", "psnr", "ssim", "hf", "peak")
SETTINGS = ("headline", "blocks2", "blocks3", "unweighted", "permuted", "noise")
CROSS = "cross"  # trained on the other local set: shared attributes only
OF_REQUESTS = ("cos", "centred", "cos_min", "sign_ok", "exponent_ok", "prefix_bits")
NAMED = re.compile(rf"(?P<attack>.+)-(?P<measure>{'|'.join(OF_REQUESTS)}|abs_cos)")
CIPHERTEXT_ONLY = re.compile(r"co-(?P<ref>\w+)-(?P<scope>img\d+)")
KNOWN = re.compile(r"kpa-K(?P<floats>\d+)")
SYNTHETIC = re.compile(r"synthetic-(?P<kind>\w+)-D(?P<dims>\d+)-(?P<measure>cos|centred)")
REID = ("rank1", "ap", "inp")

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """One attribute: its name, and what its classes are called."""

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LocalSet:
    """A local set's test labels, and how its training images are divided.

    tasks : its attributes.
    pids : identity of each test image; a distractor, of whom nothing is known, is one of its own.
    labels : class of each test image in each task, -1 for none.
    real : it shows real people.
    smallest : task -> share of the smallest class among the labelled training images.
    n_train : training images.
    """

    name: str
    tasks: tuple[Task, ...]
    pids: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, "n T"]
    real: bool
    smallest: Mapping[str, float]
    n_train: int

    def present(self, task: int) -> Bool[np.ndarray, " classes"]:
        """Return which classes of a task occur among the test images."""
        return np.isin(np.arange(len(self.tasks[task].classes)), self.labels[:, task])


@dataclass(frozen=True, eq=False)
class Cell:
    """What was measured of one black box on one local set; what was not is empty.

    predictions : setting -> class of each test image by the last epoch, (seeds, n, T).
    best : the same by the epoch that was best on test.
    images : measures of images, (seeds, n) or (1, n), by "<measure>_<reconstruction>".
    encrypted : the arrays of stage encrypt.
    attacked : those of stage cryptanalyse.
    missing : stage -> why there is nothing of it.
    """

    model: str
    image_set: str
    predictions: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    images: Arrays = field(default_factory=dict)
    encrypted: Arrays = field(default_factory=dict)
    attacked: Arrays = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of its files, <model>-<set>."""
        return f"{self.model}-{self.image_set}"


# ---------------------------------------------------------------- checks


def _shaped(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(
            path,
            f"{name} does not fit the seeds and images",
            expected=f"shape {expected}",
            found=f"shape {found}",
            remedy="run everything on the same images and seeds (dvc repro)",
        )


def _finite(path: Path, name: str, array: np.ndarray) -> None:
    bad = np.ones(array.shape, bool)
    if array.dtype.kind in "biuf":
        bad = ~np.isfinite(array)
    if bad.any() or not array.size:
        raise InputError(
            path,
            f"{name} has values that are no numbers",
            expected=f"{array.size or 'some'} finite numbers",
            found=f"{np.count_nonzero(bad)} NaN, infinite or of another type",
            remedy="delete the file and run its stage again (dvc repro)",
        )


def _needed(path: Path, arrays: Mapping[str, Any], names: Sequence[str]) -> None:
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise InputError(
            path,
            "lacks arrays",
            expected=", ".join(names),
            found=f"no {', '.join(lacking)}",
            remedy="delete the file and run its stage again (dvc repro)",
        )


def _seeded(path: Path, found: np.ndarray, seeds: Sequence[int]) -> None:
    if found.tolist() != list(seeds):
        raise InputError(
            path,
            "was run with other seeds than the parameters say",
            expected=f"seeds {list(seeds)}",
            found=f"seeds {found.tolist()}",
            remedy="run all stages with the same seeds (dvc repro)",
        )


def _classes(path: Path, name: str, array: np.ndarray, of: LocalSet) -> None:
    """Refuse predictions that are no classes; -1 is none, as of a task of another set."""
    counts = np.array([len(task.classes) for task in of.tasks])
    if array.dtype.kind not in "iu" or (array < -1).any() or (array >= counts).any():
        raise InputError(
            path,
            f"{name} has values that are no classes",
            expected=f"whole numbers from 0 to below {counts.tolist()}",
            found=f"{array.dtype} from {array.min()} to {array.max()}",
            remedy="delete the file and run its stage again (dvc repro)",
        )


def _places(path: Path, name: str, index: np.ndarray, n: int) -> None:
    """Refuse what does not name test images, each once."""
    if index.min() < 0 or index.max() >= n or len(np.unique(index)) != len(index):
        raise InputError(
            path,
            f"{name} does not name test images",
            expected=f"different numbers from 0 to {n - 1}",
            found=f"{len(index)} from {index.min()} to {index.max()}",
            remedy="run the stage that writes it again (dvc repro)",
        )


# ---------------------------------------------------------------- sets


def read_local(data: Path, meta: Mapping[str, Any], name: str) -> LocalSet:
    """Read the labels of a local set.

    Raises
    ------
    InputError
        If meta.json does not have the set, a file is missing or damaged, or the labels do not fit.
    """
    about = (meta.get("sets") or {}).get(name)
    if not isinstance(about, Mapping) or not about.get("tasks"):
        raise InputError(
            data / "meta.json",
            f"does not describe the local set {name}",
            expected="its tasks and their classes",
            found=", ".join(meta.get("sets") or {}) or "no set",
            remedy="run prepare again (dvc repro)",
        )
    tasks = tuple(Task(str(t["name"]), tuple(map(str, t["classes"]))) for t in about["tasks"])
    arrays = {}
    for split in ("train", "test"):
        path = data / f"{name}_{split}.npz"
        arrays[split] = read_npz(path, ["pids", "attributes"])
        n = len(arrays[split]["pids"])
        _shaped(path, "attributes", arrays[split]["attributes"].shape, (n, len(tasks)))
        counts = np.array([len(task.classes) for task in tasks])
        if (arrays[split]["attributes"] >= counts).any():
            raise InputError(
                path,
                "has classes that meta.json does not name",
                expected=f"at most {(counts - 1).tolist()}",
                found=arrays[split]["attributes"].max(axis=0).tolist(),
                remedy="run prepare again (dvc repro)",
            )
    smallest = {}
    for i, task in enumerate(tasks):
        labels = arrays["train"]["attributes"][:, i]
        labels = labels[labels >= 0]
        if len(labels):
            counts = np.bincount(labels)
            smallest[task.name] = float(counts[counts > 0].min() / len(labels))
    pids = arrays["test"]["pids"].astype(np.int64)
    return LocalSet(
        name=name,
        tasks=tasks,
        pids=np.where(pids > 0, pids, -1 - np.arange(len(pids))),
        labels=arrays["test"]["attributes"].astype(np.int64),
        real=bool(about.get("real")),
        smallest=smallest,
        n_train=len(arrays["train"]["pids"]),
    )


def read_reid(
    extracted: Path, model: str, image_set: str, seeds: Sequence[int]
) -> tuple[dict[str, np.ndarray], Int64[np.ndarray, " q"]] | None:
    """Read how a black box re-identifies a test split; None if it was not measured.

    Returns
    -------
    ``REID`` (seeds, queries), and the queries' identities.

    Raises
    ------
    InputError
        If a seed is missing, or the seeds have different queries.
    """
    paths = [extracted / model / f"reid_{image_set}-s{seed}.npz" for seed in seeds]
    if not any(path.exists() for path in paths):
        return None
    rows = [read_npz(path, [*REID, "pids"]) for path in paths]
    pids = rows[0]["pids"]
    for path, row in zip(paths, rows, strict=True):
        for name in (*REID, "pids"):
            _shaped(path, name, row[name].shape, pids.shape)
            _finite(path, name, row[name])
    found = {name: np.stack([row[name] for row in rows]).astype(np.float64) for name in REID}
    return found, pids.astype(np.int64)


# ---------------------------------------------------------------- cells


def read_predictions(
    folder: Path, of: LocalSet, seeds: Sequence[int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read the predictions of a cell's heads by setting: of the last and of the best epoch.

    Raises
    ------
    InputError
        If a setting that has a file lacks an array, or it does not fit; or one but ``CROSS`` is
        missing.
    """
    shape = (len(seeds), len(of.pids), len(of.tasks))
    last, best = {}, {}
    names = [*SETTINGS, *([CROSS] if (folder / f"{CROSS}.npz").exists() else [])]
    for setting in names:
        path = folder / f"{setting}.npz"
        arrays = read_npz(path, ["predictions", "best", "seeds"])
        _seeded(path, arrays["seeds"], seeds)
        for name in ("predictions", "best"):
            _shaped(path, name, arrays[name].shape, shape)
            _classes(path, name, arrays[name], of)
        last[setting], best[setting] = arrays["predictions"], arrays["best"]
    return last, best


def read_images(path: Path, of: LocalSet, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Read what was measured of a cell's reconstructions and floors.

    Returns
    -------
    "<measure>_<name>" of ``MEASURES`` and of ``MADE`` and ``FLOORS``, (seeds, n), and
    ``hf_original``, ``peak_original``, (1, n). A reconstruction that was not made has none.

    Raises
    ------
    InputError
        If an array is missing, of another shape or not finite, or the seeds differ.
    """
    arrays = read_npz(path)
    _needed(path, arrays, ["seeds", "hf_original", "peak_original"])
    _seeded(path, arrays["seeds"], seeds)
    made = [name for name in MADE if any(f"{m}_{name}" in arrays for m in MEASURES)]
    wanted = [f"{m}_{name}" for name in (*made, *FLOORS) for m in MEASURES]
    _needed(path, arrays, wanted)
    found, n = {}, len(of.pids)
    for name in (*wanted, "hf_original", "peak_original"):
        rows = 1 if name.endswith("_original") else len(seeds)
        _shaped(path, name, arrays[name].shape, (rows, n))
        if not name.startswith("psnr_"):  # infinite for an image and itself
            _finite(path, name, arrays[name])
        found[name] = arrays[name]
    return found


def read_encrypted(path: Path, of: LocalSet, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Read what encryption does to a cell.

    Returns
    -------
    ``predictions_right``, ``_own`` and ``_popcount`` (seeds, n, T); ``wrong_predictions``
    (seeds, keys, n, T), ``wrong_cos`` (seeds, keys), ``nan_share`` (keys,), ``bits_wrong_right``
    (one number), ``rank1_plain`` and ``rank1_hamming`` (seeds,); of a cell that has a generator
    ``distance_plain``, ``_right`` and ``_wrong`` (seeds, images). If they are there,
    ``recon_index`` (images,) says which those are, and ``predictions_plain`` (seeds, n, T) what the
    same heads say of plain features.

    Raises
    ------
    InputError
        If an array is missing, does not fit, or is not finite.
    """
    arrays = read_npz(path)
    k, n, T = len(seeds), len(of.pids), len(of.tasks)
    predicted = [f"predictions_{name}" for name in ("right", "own", "popcount")]
    single = ["bits_wrong_right", "nan_share", "wrong_cos", "rank1_plain", "rank1_hamming"]
    _needed(path, arrays, [*predicted, "wrong_predictions", *single])
    keys = arrays["wrong_cos"].shape[-1] if arrays["wrong_cos"].ndim == 2 else 0
    if "predictions_plain" in arrays:
        predicted.append("predictions_plain")
    shapes = {
        **dict.fromkeys(predicted, (k, n, T)),
        "wrong_predictions": (k, keys, n, T),
        "wrong_cos": (k, keys),
        **dict.fromkeys(("rank1_plain", "rank1_hamming"), (k,)),
    }
    for name, shape in shapes.items():
        _shaped(path, name, arrays[name].shape, shape)
    for name in (*predicted, "wrong_predictions"):
        _classes(path, name, arrays[name], of)
    distances = [f"distance_{name}" for name in ("plain", "right", "wrong")]
    if any(name in arrays for name in distances):
        _needed(path, arrays, distances)
        for name in distances:
            _shaped(path, name, arrays[name].shape, (k, arrays[distances[0]].shape[-1]))
        if "recon_index" in arrays:
            chosen = arrays["recon_index"]
            _shaped(path, "recon_index", chosen.shape, arrays[distances[0]].shape[-1:])
            _places(path, "recon_index", chosen, n)
    for name in (*single, *(name for name in distances if name in arrays)):
        _finite(path, name, arrays[name])
    return arrays


def read_attacked(path: Path, of: LocalSet, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Read what was recovered from a cell's ciphertexts, without the features themselves.

    Returns
    -------
    "<attack>-<measure>" (seeds, requests); ``attacked_index`` (r,), ``attacked_predictions``
    (seeds, r, T), ``attacked_cos`` and ``attacked_centred`` (seeds, r); ``ll_true`` (seeds,),
    ``ll_random`` (seeds, keys); of a cell that has a generator ``attacked_distance`` and
    ``plain_distance`` (seeds, r).

    Raises
    ------
    InputError
        If an array is missing, does not fit, or is not finite.
    """
    arrays = read_npz(path)
    needed = ["attacked_index", "attacked_predictions", "attacked_cos", "attacked_centred"]
    needed += ["ll_true", "ll_random"]
    _needed(path, arrays, needed)
    k, n, r = len(seeds), len(of.pids), len(arrays["attacked_index"])
    shapes = {
        "attacked_predictions": (k, r, len(of.tasks)),
        **dict.fromkeys(("attacked_cos", "attacked_centred"), (k, r)),
        "ll_true": (k,),
        "ll_random": (k, arrays["ll_random"].shape[-1]),
    }
    distances = [name for name in ("attacked_distance", "plain_distance") if name in arrays]
    for name, shape in (shapes | dict.fromkeys(distances, (k, r))).items():
        _shaped(path, name, arrays[name].shape, shape)
        _finite(path, name, arrays[name])
    _classes(path, "attacked_predictions", arrays["attacked_predictions"], of)
    _places(path, "attacked_index", arrays["attacked_index"], n)
    measured = {name: array for name, array in arrays.items() if NAMED.fullmatch(name)}
    for name, array in measured.items():
        _shaped(path, name, array.shape, (k, array.shape[-1] if array.ndim else 0))
        _finite(path, name, array)
    return {name: arrays[name] for name in (*needed, *distances)} | measured


def read_cell(
    model: str,
    of: LocalSet,
    seeds: Sequence[int],
    *,
    attributes: Path,
    evaluated: Path,
    encrypted: Path,
    cryptanalysed: Path,
) -> Cell:
    """Read all that was measured of a black box on a local set; a file that is absent is named.

    Raises
    ------
    InputError
        As the readers above.
    """
    name = f"{model}-{of.name}"
    folder = attributes / name
    last, best, missing = {}, {}, {}
    if (folder / "headline.npz").exists():
        last, best = read_predictions(folder, of, seeds)
    else:
        missing["attributes"] = f"no heads were trained on {name}"
    files = {
        "evaluate": (evaluated / f"{name}.npz", read_images, f"{name} was not reconstructed"),
        "encrypt": (encrypted / f"{name}.npz", read_encrypted, f"{name} was not encrypted"),
        "cryptanalyse": (cryptanalysed / f"{name}.npz", read_attacked, f"{name} was not attacked"),
    }
    found = {}
    for stage, (path, read, why) in files.items():
        found[stage] = read(path, of, seeds) if path.exists() else {}
        if not path.exists():
            missing[stage] = why
    return Cell(
        model=model,
        image_set=of.name,
        predictions=last,
        best=best,
        images=found["evaluate"],
        encrypted=found["encrypt"],
        attacked=found["cryptanalyse"],
        missing=missing,
    )


def attacks_of(arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """Group the arrays of stage cryptanalyse: attack -> measure -> (seeds, requests)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        match = NAMED.fullmatch(name)
        if match:
            found.setdefault(match["attack"], {})[match["measure"]] = array
    return found


def read_synthetic(cryptanalysed: Path) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Read the attack on synthetic features.

    Returns
    -------
    (kind, dimensions) -> ``cos`` and ``centred`` -> that of each request.

    Raises
    ------
    InputError
        If the file is damaged, lacks one of the two, or a cosine is no number.
    """
    path = cryptanalysed / "synthetic.npz"
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name, array in (read_npz(path) if path.exists() else {}).items():
        match = SYNTHETIC.fullmatch(name)
        if match:
            _finite(path, name, array)
            of = found.setdefault((match["kind"], int(match["dims"])), {})
            of[match["measure"]] = array.ravel()
    for of in found.values():
        _needed(path, of, ["cos", "centred"])
    return found


def read_features(
    extracted: Path, model: str, image_set: str, seeds: Sequence[int]
) -> list[np.ndarray]:
    """Read a black box's features of a test split, one array (n, D) a seed; [] if there are none.

    Raises
    ------
    InputError
        If some seeds have features and others not, or one is not finite.
    """
    paths = [extracted / model / f"{image_set}_test-s{seed}.npz" for seed in seeds]
    if not any(path.exists() for path in paths):
        return []
    found = []
    for path in paths:
        features = read_npz(path, ["features"])["features"]
        _finite(path, "features", features)
        found.append(features)
    return found


def read_recipes(reconstructed: Path, cell: str) -> dict[str, dict[str, Any]]:
    """Read how a cell's generators were trained: loss -> perceptual network, weights, updates.

    Raises
    ------
    InputError
        If a meta.json is damaged.
    """
    wanted = ("phi", "phi_layer", "phi_factor", "w_adv", "updates_g", "updates_d")
    found = {}
    for loss in LOSSES:
        path = reconstructed / loss / cell / "meta.json"
        if path.exists():
            meta = read_json(path)
            found[loss] = {key: meta[key] for key in wanted if key in meta}
    return found


def read_graph(encrypted: Path) -> dict[str, Any] | None:
    """Read what was seen when ShuffleBits was compiled with a network on CUDA; None without CUDA.

    graph.json: {"device", "fullgraph": bool, "copies_to_host": before the output, "wrong_bits"}.

    Raises
    ------
    InputError
        If the file is damaged or lacks one of them.
    """
    path = encrypted / "graph.json"
    if not path.exists():
        return None
    found = read_json(path)
    _needed(path, found, ["device", "fullgraph", "copies_to_host", "wrong_bits"])
    return found
