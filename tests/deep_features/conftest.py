"""A whole tree of artifacts, prepare to cryptanalyse, in small: made up, not computed by stages.

``write_artifacts`` writes a world in which the paper's threat models work, its cipher is exact, and
ShuffleBits is broken; its arguments change the world.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.common.files import write_json, write_npz

MODELS = ("bot", "agw", "sbs")
LOCALS = ("synth_a", "synth_b")
TASKS = {  # name -> classes
    "height": ["small", "low", "high", "tall"],
    "backpack": ["no", "yes"],
    "hat": ["no", "yes"],
    "up_colour": ["black", "white", "red", "blue"],
}
RARE = "hat"  # one identity in twelve wears one
SETTINGS = ("headline", "blocks2", "blocks3", "unweighted", "permuted", "noise", "cross")
LOSSES = ("pixel", "fr", "fr_adv")
EQUAL = ("pixel_equal", "fr_equal")
FLOORS = ("same", "floor", "other", "mean", "blank")
MEASURES = ("distance", "psnr", "ssim", "hf", "peak")
REFERENCES = ("same_domain", "n20", "n100", "other_dataset", "none")
SCOPES = ("img1", "img4")
OF_REQUESTS = ("cos", "centred", "cos_min", "sign_ok", "exponent_ok", "prefix_bits")

# Share of predictions that are right where nothing else is said; 0: guessed.
SKILL = {
    **{"headline": 0.9, "blocks2": 0.86, "blocks3": 0.85, "unweighted": 0.88, "cross": 0.7},
    **{"permuted": 0.0, "noise": 0.0, "own": 0.8, "popcount": 0.4, "wrong": 0.0},
}
# Means of what was measured; noise is relative to them.
WORLD: dict[tuple[str, str], float] = {
    **{("distance", r): v for r, v in {"pixel": 0.5, "fr": 0.4, "fr_adv": 0.3}.items()},
    **{("distance", r): v for r, v in {"pixel_equal": 0.55, "fr_equal": 0.45}.items()},
    **{("distance", r): v for r, v in {"floor": 0.01, "other": 0.9, "mean": 0.8}.items()},
    **{("distance", r): v for r, v in {"blank": 0.95, "wrong": 0.97}.items()},
    **{("hf", r): v for r, v in {"pixel": 0.02, "fr": 0.08, "fr_adv": 0.06, "mean": 0.01}.items()},
    **{("peak", r): v for r, v in {"pixel": 0.2, "fr": 1.2, "fr_adv": 0.4}.items()},
    **{("psnr", r): v for r, v in {"pixel": 20.0, "fr": 17.0, "fr_adv": 16.0}.items()},
    ("ssim", "pixel"): 0.6,
    ("hf", "original"): 0.09,
}
USUAL = {"distance": 0.5, "psnr": 15.0, "ssim": 0.5, "hf": 0.05, "peak": 0.3}
COSINE = {  # attack -> median cosine
    **{"co-same_domain-img1": 0.999, "co-same_domain-img4": 0.9995, "co-n20-img1": 0.97},
    **{"co-n100-img1": 0.99, "co-other_dataset-img1": 0.98, "co-none-img1": 0.4},
    **{"hungarian": 0.95, "profile": 0.98, "kpa-K4": 0.6, "kpa-K32": 0.9999},
    **{"control-aes_gcm": 0.0, "control-xor": 0.0, "control-iid": 0.0},
}
GUESS = 0.8  # cosine of the mean of the adversary's features


def write_artifacts(
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1),
    models: Iterable[str] = MODELS,
    local_sets: Iterable[str] = LOCALS,
    cells: Iterable[str] | None = None,
    skill: Mapping[str, float] | None = None,
    world: Mapping[tuple[str, str], float] | None = None,
    cosine: Mapping[str, float] | None = None,
    meta: Mapping[str, object] | None = None,
    real: bool = False,
    ids: int = 36,
    each: int = 4,
    dims: int = 16,
    height: int = 16,
    width: int = 8,
    keys: int = 100,
    requests: int = 12,
    noise: float = 0.02,
    ll: tuple[float, float] = (-4.0, -15.0),
    changed: int = 0,
    phi_factor: int = 1,
) -> Path:
    """Write artifacts of all stages before score and return their folder.

    The arguments change the world: ``skill`` {setting or condition: share of right predictions},
    ``world`` {(measure, reconstruction or floor): mean}, ``cosine`` {attack: median, plain and
    centred}; ``cells``
    that were reconstructed (None: all); ``ll``, the log-likelihood of the true and of random keys;
    ``changed`` predictions and bits after decryption; ``noise``, the spread over images, relative;
    ``phi_factor`` of the generators; ``meta`` (keys of prepare/meta.json); ``real``, the sets show
    real people; numbers and sizes.
    """
    rng = np.random.default_rng(0)
    models, local_sets = list(models), list(local_sets)
    made = {f"{m}-{s}" for m in models for s in local_sets} if cells is None else set(cells)
    skills, means = {**SKILL, **(skill or {})}, {**WORLD, **(world or {})}
    cosines = {**COSINE, **(cosine or {})}
    k, n = len(seeds), ids * each
    panel = [0, each, 2 * each]
    numbers = np.asarray(list(seeds), np.int64)

    def near(mean: float, shape: tuple[int, ...]) -> np.ndarray:
        return mean + (noise * abs(mean) + 1e-9) * rng.standard_normal(shape)

    # ---------------------------------------------------------------- prepare
    names = [len(classes) for classes in TASKS.values()]
    labels: dict[str, np.ndarray] = {}
    about: dict[str, dict] = {}
    for name in ("synth_p", *local_sets):
        local = name in local_sets
        for split in ("train", "test"):
            pids = np.repeat(np.arange(1, ids + 1) + (ids if split == "test" else 0), each)
            own = np.stack([rng.permutation(np.arange(ids) % c) for c in names], axis=1)
            own[:, list(TASKS).index(RARE)] = np.arange(ids) % 12 == 0
            attributes = own.repeat(each, axis=0) if local else np.zeros((n, 0), np.int64)
            if local and split == "test":
                attributes[:each] = -1  # an identity without labels
                labels[name] = attributes
            write_npz(
                folder / "prepare" / f"{name}_{split}.npz",
                images=rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8),
                pids=pids.astype(np.int64),
                camids=np.arange(n, dtype=np.int64) % 3,
                attributes=attributes.astype(np.int64),
                annotated=np.arange(n) >= (each if split == "test" else 0),
                query=(np.arange(n) % each == 0) & (split == "test"),
            )
        about[name] = {
            "attribution": "made up for a test",
            "real": real and local,
            "tasks": [{"name": t, "classes": c} for t, c in TASKS.items()] if local else [],
            **{"n_train": n, "n_test": n, "ids_train": ids, "ids_test": ids, "dropped": {}},
        }
    content = {
        **{"height": height, "width": width, "proprietary": "synth_p", "locals": local_sets},
        **{"sets": about, "panel": {name: panel for name in about}},
    }
    write_json(folder / "prepare" / "meta.json", {**content, **(meta or {})})
    pids = np.repeat(np.arange(1, ids + 1) + ids, each)

    def predicted(truth: np.ndarray, share: float, *lead: int) -> np.ndarray:
        """Predict the truth in a share of the images, and guess all the others."""
        guess = np.stack([rng.integers(c, size=(*lead, len(truth))) for c in names], axis=-1)
        right = rng.random(guess.shape) < share
        return np.where(right & (truth >= 0), truth, guess).astype(np.int64)

    for model in models:
        # ------------------------------------------------------------ train_reid, extract
        write_json(
            folder / "train_reid" / model / "meta.json",
            {
                **{"model": model, "net": "mini", "dims": dims, "input": [height, width]},
                **{"ids": ids, "non_local_width": 1, "parameters": 1000, "steps": 20},
            },
        )
        for seed in seeds:
            log = [{"step": s, "loss": 1 / s, "accuracy": s / 20} for s in (5, 10, 20)]
            write_json(folder / "train_reid" / model / f"history-s{seed}.json", {"log": log})
        features: dict[str, np.ndarray] = {}
        for name in ("synth_p", *local_sets):
            features[name] = rng.standard_normal((k, n, dims)).astype(np.float32)
            for i, seed in enumerate(seeds):
                for split in ("train", "test"):
                    path = folder / "extract" / model / f"{name}_{split}-s{seed}.npz"
                    write_npz(path, features=features[name][i])
                write_npz(
                    folder / "extract" / model / f"reid_{name}-s{seed}.npz",
                    ap=rng.uniform(0.4, 0.6, ids),
                    inp=rng.uniform(0.1, 0.3, ids),
                    rank1=(rng.random(ids) < 0.7).astype(np.float64),
                    pids=np.arange(1, ids + 1) + ids,
                )
        for name in local_sets:
            cell, truth = f"{model}-{name}", labels[name]
            generator = cell in made
            # -------------------------------------------------------- attributes
            predictions = {}
            for setting in SETTINGS if len(local_sets) > 1 else SETTINGS[:-1]:
                predictions[setting] = predicted(truth, skills[setting], k)
                if setting == "unweighted":
                    place = list(TASKS).index(RARE)
                    yes = truth[:, place] == 1
                    predictions[setting][:, yes, place] = 0  # the rare class is never found
                if setting == "cross":
                    predictions[setting][..., 0] = -1  # an attribute that is not shared
                write_npz(
                    folder / "attributes" / cell / f"{setting}.npz",
                    predictions=predictions[setting],
                    best=predictions[setting],
                    seeds=numbers,
                )
            plain = predictions["headline"]
            # -------------------------------------------------------- reconstruct, evaluate
            if generator:
                for loss in LOSSES:
                    write_json(
                        folder / "reconstruct" / loss / cell / "meta.json",
                        {
                            **{"loss": loss, "dims": dims, "phi": "hed", "phi_layer": "relu2_2"},
                            **{"w_adv": [0.06] * k, "updates_g": 30, "updates_d": 30},
                            "phi_factor": None if loss == "pixel" else phi_factor,
                        },
                    )
                arrays = {
                    f"{m}_{r}": near(means.get((m, r), USUAL[m]), (k, n))
                    for m in MEASURES
                    for r in (*LOSSES, *EQUAL, *FLOORS)
                }
                arrays["distance_same"] = np.full((k, n), means.get(("distance", "same"), 1e-8))
                arrays["psnr_same"] = np.full((k, n), np.inf)
                for m in ("hf", "peak"):
                    arrays[f"{m}_original"] = near(means.get((m, "original"), USUAL[m]), (1, n))
                write_npz(folder / "evaluate" / f"{cell}.npz", seeds=numbers, **arrays)
                shape = (len(panel), height, width, 3)
                pictures = {
                    kind: rng.integers(0, 256, shape, dtype=np.uint8)
                    for kind in ("original", *LOSSES)
                }
                write_npz(folder / "evaluate" / f"panel-{cell}.npz", **pictures)
            # -------------------------------------------------------- encrypt
            right = plain.copy()
            right.reshape(-1)[:changed] = (right.reshape(-1)[:changed] + 1) % 2
            left = rng.normal(0, 0.1, (k, keys))
            left[:, ::20] = 0.5  # weak keys
            arrays = {
                "predictions_right": right,
                "predictions_own": predicted(truth, skills["own"], k),
                "predictions_popcount": predicted(truth, skills["popcount"], k),
                "wrong_predictions": predicted(truth, skills["wrong"], k, keys).astype(np.int16),
                "bits_wrong_right": np.array(changed),
                "wrong_cos": left,
                "nan_share": rng.uniform(0, 0.03, keys),
                "rank1_plain": near(0.9, (k,)),
                "rank1_hamming": near(0.88, (k,)),
            }
            if generator:
                arrays["distance_plain"] = near(means["distance", "fr_adv"], (k, n // 2))
                arrays["distance_right"] = arrays["distance_plain"] + (changed > 0)
                arrays["distance_wrong"] = near(means["distance", "wrong"], (k, n // 2))
                arrays["recon_index"] = np.arange(0, n, 2)
            write_npz(folder / "encrypt" / f"{cell}.npz", **arrays)
            # -------------------------------------------------------- cryptanalyse
            arrays = {}
            for attack, centre in cosines.items():
                spread = 0.05 if attack.startswith("control") else 1e-3
                cos = np.clip(centre + spread * rng.standard_normal((k, requests)), -1, 1)
                of = {m: near(0.9, (k, requests)) for m in OF_REQUESTS} | {"cos": cos}
                if attack.startswith("control"):
                    of["abs_cos"] = np.abs(cos)
                of["centred"] = of["cos"]
                arrays |= {f"{attack}-{m}": values for m, values in of.items()}
            arrays["control-mean-cos"] = near(GUESS, (k, requests))
            arrays["control-mean-centred"] = np.zeros((k, requests))
            chosen = np.arange(0, n, max(1, n // 60))
            chosen = np.unique(np.concatenate([chosen, panel]))
            attacked = plain[:, chosen].copy()
            attacked[:, 0] = 0
            arrays |= {
                "attacked_index": chosen,
                "attacked_features": features[name][:, chosen],
                "attacked_predictions": attacked,
                **{
                    f"attacked_{m}": near(cosines["co-same_domain-img1"], (k, len(chosen)))
                    for m in ("cos", "centred")
                },
                "ll_true": near(ll[0], (k,)),
                "ll_random": near(ll[1], (k, keys)),
            }
            if generator:
                arrays["plain_distance"] = near(means["distance", "fr_adv"], (k, len(chosen)))
                arrays["attacked_distance"] = arrays["plain_distance"] + 0.001
                arrays |= {
                    f"panel_{kind}": rng.integers(0, 256, shape, dtype=np.uint8)
                    for kind in ("original", "plain", "wrong_key", "attacked")
                }
            write_npz(folder / "cryptanalyse" / f"{cell}.npz", **arrays)
    made_up = {
        f"synthetic-{kind}-D{d}-{m}": np.clip(near(value, (6,)), -1, 1)
        for kind, value in (("bn", 0.999), ("iid", 0.01))
        for d in (64, 512)
        for m in ("cos", "centred")
    }
    write_npz(folder / "cryptanalyse" / "synthetic.npz", **made_up)
    return folder


@pytest.fixture(scope="session")
def unchanged_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of artifacts that no test may change."""
    return write_artifacts(tmp_path_factory.mktemp("unchanged") / "artifacts")


@pytest.fixture
def artifacts_tree(tmp_path: Path, unchanged_artifacts: Path) -> Callable[..., Path]:
    """Return :func:`write_artifacts`, which writes to tmp_path / "artifacts" if not told."""

    def build(root: Path | None = None, **changes) -> Path:
        folder = root or tmp_path / "artifacts"
        if changes:
            return write_artifacts(folder, **changes)
        return shutil.copytree(unchanged_artifacts, folder, copy_function=shutil.copyfile)

    return build
