"""A whole tree of artifacts, prepare to evaluate, in small: made up, not computed by the stages.

``write_artifacts`` writes a world in which the paper is right; its arguments change the world.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.common.files import write_json, write_npz
from stages.sift_inversion import keypoints as stored
from stages.sift_inversion.extract import arrange
from stages.sift_inversion.masks import far_from_keypoints
from stages.sift_inversion.partial import condition_names

COARSE = {  # run -> maps, network, loss
    "B5": ([4], "dosovitskiy", "l2"),
    "B5_128": ([4], "dosovitskiy", "l2"),
    "R4_L2": ([4], "R", "l2"),
    "R4_J": ([4], "R", "joint"),
    "R2_J": ([2], "R", "joint"),
    "R44_J": ([4, 4], "R", "joint"),
    "R42_L2": ([4, 2], "R", "l2"),
    "R42_J": ([4, 2], "R", "joint"),
    "R42_J_nostyle": ([4, 2], "R", "l2+p"),
    "R42_J_half": ([4, 2], "R", "joint"),
    "M_R42_J": ([4, 2], "R", "joint"),
}
REFINED = {"R4_G": "R4_J", "R42_N": "R42_J", "R42_G": "R42_J", "M_R42_G": "M_R42_J"}
RUNS = (*COARSE, *REFINED)
FLOORS = ("mean", "other", "grey", "mean_colour", "blur")
MODES, PLACES, BOXES, KEEPS = ["centre", "support"], ["centre", "eyes"], [0.1, 0.4], [0.5, 0.1]
CONDITIONS = condition_names(BOXES, PLACES, MODES, KEEPS)
SIFT = {"order": "response", "collision": "adjacent", "r_max": 1, "contrast_threshold": 0.04}

# Means of what was measured where nothing else is said; and who differs in what. fd_shift moves
# the features, colour is the correlation of the face's mean colour with the original's.
USUAL = {
    **{"psnr": 20.0, "ssim": 0.6, "mae": 15.0, "ssim_y": 0.6, "chroma_error": 8.0},
    **{"log_sharp": -0.5, "pd": 0.5, "dcos": 0.7, "dmatch": 0.5, "kpr": 0.3, "id1": 0.7},
    **{"chk": 0.02, "rse": 4.0, "fd_shift": 0.5, "colour": 0.8},
}
WORLD: dict[tuple[str, str], float] = {
    **{("B5", m): v for m, v in {"pd": 0.9, "log_sharp": -1.2, "kpr": 0.1, "dmatch": 0.2}.items()},
    **{("B5", m): v for m, v in {"id1": 0.25, "fd_shift": 1.5, "psnr": 19.0}.items()},
    ("B5_128", "pd"): 0.95,
    **{(f"{r}_L2", "pd"): 0.8 for r in ("R4", "R42")},
    **{(f"{r}_L2", "log_sharp"): -1.0 for r in ("R4", "R42")},
    **{(f"{r}_L2", "kpr"): 0.2 for r in ("R4", "R42")},
    **{(f"{r}_L2", "psnr"): 21.0 for r in ("R4", "R42")},
    **{(r, "pd"): v for r, v in {"R4_J": 0.65, "R44_J": 0.63, "R42_J": 0.55, "R2_J": 0.7}.items()},
    **{(r, "ssim_y"): 0.5 for r in ("R4_J", "R44_J", "R4_G")},
    **{(r, "dcos"): 0.6 for r in ("R4_J", "R44_J", "R4_G")},
    **{("R42_J_nostyle", m): v for m, v in {"pd": 0.6, "chk": 0.08}.items()},
    ("R42_J_half", "pd"): 0.62,
    ("R4_G", "pd"): 0.5,
    **{("R42_N", m): v for m, v in {"pd": 0.5, "fd_shift": 0.5}.items()},
    **{("R42_G", m): v for m, v in {"pd": 0.4, "log_sharp": -0.2, "fd_shift": 0.2}.items()},
    **{("M_R42_J", m): v for m, v in {"pd": 0.8, "log_sharp": -0.9}.items()},
    **{("M_R42_G", m): v for m, v in {"pd": 0.75, "log_sharp": -0.8, "id1": 0.4}.items()},
    **{(f, "id1"): 0.0 for f in FLOORS},  # of the mean image: chance
    **{(f, "pd"): 1.0 for f in FLOORS},
    ("mean", "dcos"): 0.3,
    **{(f, "colour"): 0.0 for f in ("mean", "mean_colour", "grey")},
    **{("grey", m): v for m, v in {"chroma_error": 12.0, "id1": 1.0, "pd": 0.1}.items()},
    **{("mean_colour", m): v for m, v in {"chroma_error": 11.0, "log_sharp": -3.0}.items()},
    **{("blur", m): v for m, v in {"pd": 0.2, "id1": 1.0, "colour": 1.0}.items()},
    **{(c, "id1"): 0.6 for c in CONDITIONS},
    ("keep-0.1", "id1"): 0.1,
}
REGIONS = {  # a region's mean against the whole image's: added to psnr, multiplied to the others
    **{"face": (1.0, 0.8), "rest": (-1.0, 1.1), "far": (-0.5, 1.05)},
    **{"in": (-2.0, 1.3), "out": (0.0, 1.0)},
}
AROUND = {"pd_in_full": 0.4, "pd_out_full": 0.4, "pd_in_mean": 1.0, "pd_in_mean_colour": 1.2}


def write_artifacts(
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1),
    runs: Iterable[str] = RUNS,
    conditions: Iterable[str] = CONDITIONS,
    partial_run: str = "R42_G",
    world: Mapping[tuple[str, str], float] | None = None,
    losses: Mapping[str, Sequence[float]] | None = None,
    meta: Mapping[str, object] | None = None,
    n: int = 48,
    n_multi: int = 40,
    n_train: int = 64,
    size: int = 16,
    noise: float = 0.02,
) -> Path:
    """Write artifacts of all stages before score and return their folder.

    The arguments change the world: ``world`` {(run, floor or condition, measure): mean}, measures
    as in ``USUAL``, or a region's or a box's ("pd_far", "pd_in_mean"); ``losses`` {run: last
    validation loss of each seed}; ``noise``, the spread over images, relative; ``meta`` (keys of
    prepare/meta.json); ``runs``, ``conditions``, ``partial_run``, ``seeds``, and the numbers and
    sides of the images.
    """
    runs, conditions = list(runs), list(conditions)
    means = {**WORLD, **(world or {})}
    rng = np.random.default_rng(0)
    S = len(seeds)
    counts = {"faces": n, "multi": n_multi}
    d = 8  # components of the features

    def set_of(run: str) -> str:
        return "multi" if run.startswith("M_") else "faces"

    def pictures(many: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (many, size // 4, size // 4, 3), dtype=np.uint8)
        return coarse.repeat(4, axis=1).repeat(4, axis=2)

    # ---------------------------------------------------------------- prepare, extract
    images: dict[str, np.ndarray] = {}
    keypoints: dict[str, stored.Descriptors] = {}
    about: dict[str, dict] = {}
    for name, many in counts.items():
        classes = ["face"] if name == "faces" else ["w", "x", "y", "z"]
        for split, count in (("train", n_train), ("test", many)):
            images[f"{name}_{split}"] = pictures(count)
            write_npz(
                folder / "prepare" / f"{name}_{split}.npz",
                images=images[f"{name}_{split}"],
                labels=np.arange(count, dtype=np.int64) % len(classes),
                groups=np.arange(count, dtype=np.int64),
            )
            found = rng.integers(3, 9, count)
            found[min(3, count - 1)] = 0  # an image without keypoints
            N = int(found.sum())
            kp = np.column_stack(
                [
                    *(rng.uniform(0, size, N) for _ in "xy"),
                    *(rng.uniform(2, 6, N), rng.uniform(0, 360, N), rng.uniform(0.01, 0.1, N)),
                ]
            ).astype(np.float32)
            kp[1::6, :2] = kp[0 : N - 1 : 6, :2][: len(kp[1::6])]  # on another's very point
            keypoints[f"{name}_{split}"] = arrange(
                {
                    "desc": rng.integers(0, 100, (N, 128), dtype=np.uint8),
                    "kp": kp,
                    "octave": np.full(N, 511, np.int32),
                    "offsets": stored.offsets_of(found),
                },
                size,
                SIFT,
            )
            stored.write(folder / "extract" / f"{name}_{split}", keypoints[f"{name}_{split}"])
        about[name] = {
            "dataset": f"toy_{name}",
            "classes": classes,
            "attribution": "made up for a test",
            "grey_converted": 0,
            "train_split": "train",
            "test_split": "test",
            "n_train": n_train,
            "n_test": many,
        }
    content = {"size": size, "sets": about, "panel": {name: [0, 1, 2, 4] for name in counts}}
    write_json(folder / "prepare" / "meta.json", {**content, **(meta or {})})

    # ---------------------------------------------------------------- train, refine
    shape = {"size": size, "width": 0.125, "channels": 128, "desc_norm": "unit"}
    phi = {"phi": "hed", "phi_layer": "relu3_3", "phi_weights": None, "phi_size": 32}
    for run in runs:
        refined = run in REFINED
        base = folder / ("refine" if refined else "train") / run
        base.mkdir(parents=True, exist_ok=True)
        inputs, net, loss = COARSE[REFINED.get(run, run)]
        half = run.endswith("_half")
        whole = {
            **{"run": run, "set": set_of(run), "inputs": inputs, "net": net, **shape, **phi},
            **{"share": 0.5 if half else 1.0, "n_val": 4, "images": 96, "loss": loss},
            **{"lambda_p": 1.0, "lambda_s": 1e-4},
        }
        adversary = refined and run != "R42_N"
        if refined:
            whole |= {"init": REFINED[run], "loss": "gan" if adversary else "joint"}
            whole |= {"adversary": adversary, "adversarial": "bce" if adversary else None}
            whole |= {"ngf": 16, "blocks": 3, "dropout": 0.5, "ndf": 16, "d_layers": 2}
            whole |= {"conditional": True, "n_critic": 1, "lambda_joint": 100}
            whole["d_collapse"] = {str(s): False for s in seeds}
        if run == "B5":
            whole["channels"] = 133
        write_json(base / "meta.json", whole)
        of = n_train // (2 if half else 1) - 4
        last = (losses or {}).get(run, [0.5 + 0.01 * i for i in range(S)])
        for seed, val in zip(seeds, last, strict=True):
            save_file(
                {"weight": np.zeros((1, 3), np.float32)}, base / f"weights-s{seed}.safetensors"
            )
            log = []
            for step in (2, 4, 8, 12):
                terms = {"l2": 0.3 / step} if loss == "l2" else dict.fromkeys(("l2", "p", "s"), 0.1)
                if adversary:
                    terms |= {"adv": 0.7, "adv_share": 0.1, "loss_D": 0.6, "d_acc": 0.7}
                entry = {"step": step, "images": 8 * step, "epoch": 8 * step / of, "loss": 1 / step}
                log.append({**entry, **terms, **{f"share_{k}": 0.3 for k in terms if len(k) < 3}})
            epochs = [{"step": 6, "val_loss": 2 * val}, {"step": 12, "val_loss": val}]
            history = {"log": log, "epochs": epochs, "parameters": 1000, "phi_unit": 1.0}
            if refined:
                history |= {
                    "parameters_of": {"R": 700, "G": 300, **({"D": 100} if adversary else {})},
                    "collapse": {"d_collapse": False, "at_step": None},
                }
            write_json(
                base / f"history-s{seed}.json",
                {**history, "steps": 12, "batch_size": 8, "trained_on": of},
            )

    # ---------------------------------------------------------------- reconstruct
    made = {r: ["full", *(conditions if r == partial_run else [])] for r in runs}
    for run, of_run in made.items():
        for condition in of_run:
            for seed in seeds:
                path = folder / "reconstruct" / run / f"{condition}-s{seed}.npz"
                write_npz(path, images=pictures(counts[set_of(run)]))
    for name, many in counts.items():
        for floor in FLOORS:
            path = folder / "reconstruct" / "floors" / f"{name}-{floor}.npz"
            write_npz(path, images=pictures(many))
    boxed = [c.split("-") for c in conditions if c.startswith("box-")]
    many = counts[set_of(partial_run)]
    masks = {f"box-{place}-{f}": np.zeros((many, size, size), bool) for _, _, place, f in boxed}
    for name, mask in masks.items():
        side = round(size * float(name.rpartition("-")[2]) ** 0.5)
        start = (size - side) // 2
        mask[:, start : start + side, start : start + side] = True
    shares = {c: rng.uniform(0.1, 0.5, many) for c in conditions}
    write_npz(
        folder / "reconstruct" / "partial.npz",
        **masks,
        **{f"removed-{c}": share for c, share in shares.items()},
    )
    write_json(
        folder / "reconstruct" / "meta.json",
        {
            "runs": {r: {"set": set_of(r), "conditions": made[r]} for r in runs},
            "partial_run": partial_run,
            "seeds": list(seeds),
        },
    )

    # ---------------------------------------------------------------- evaluate
    real: dict[str, dict[str, np.ndarray]] = {}
    for name, many in counts.items():
        test = keypoints[f"{name}_test"]
        face, rest = rng.uniform(20, 30, (2, many)), rng.uniform(30, 50, (2, many))
        real[name] = {
            "groups": np.arange(many, dtype=np.int64),
            "labels": np.arange(many, dtype=np.int64) % len(about[name]["classes"]),
            "features": rng.standard_normal((many, d)).astype(np.float32),
            "mean_cb": rng.normal(110, 8, many),
            "mean_cr": rng.normal(140, 8, many),
            "n_keypoints": test.counts.astype(np.int64),
            "density_face": face[0],
            "density_rest": rest[0],
            "gradient_face": face[1],
            "gradient_rest": rest[1],
            "pairwise": np.array(8.0),
        }
        write_npz(folder / "evaluate" / f"{name}-real.npz", **real[name])
    masked = {
        name: far_from_keypoints(
            [kp[:, :2] for kp in np.split(test.kp, test.offsets[1:-1])], size
        ).any(axis=(1, 2))
        for name, test in ((k, keypoints[f"{k}_test"]) for k in counts)
    }

    def near(mean: float, rows: int, many: int) -> np.ndarray:
        spread = noise * abs(mean)
        return mean + spread * rng.standard_normal((rows, many))

    def measured(who: str, image_set: str, rows: int, base: str = "") -> dict[str, np.ndarray]:
        many, own = counts[image_set], real[image_set]

        def mean(measure: str) -> float | None:
            return means.get((who, measure), means.get((base, measure), USUAL.get(measure)))

        found = {}
        for measure in USUAL:
            if measure not in ("fd_shift", "colour", "id1"):
                found[measure] = near(float(mean(measure) or 0), rows, many)
        right = np.arange(many) < round(float(mean("id1") or 0) * many)
        right[0] |= who in FLOORS  # a constant image is nearest to one
        found["id1"] = np.stack([rng.permutation(right) for _ in range(rows)]).astype(np.float64)
        for measure in ("dcos", "dmatch", "kpr"):
            found[measure][:, own["n_keypoints"] == 0] = np.nan
        r = float(mean("colour") or 0)
        for c in ("mean_cb", "mean_cr"):
            centre = own[c].mean()
            other = rng.normal(0, 8, (rows, many)) * (who not in ("mean", "grey", "mean_colour"))
            found[c] = centre + r * (own[c] - centre) + (1 - r**2) ** 0.5 * other
        found["features"] = (
            own["features"]
            + float(mean("fd_shift") or 0)
            + 0.1 * rng.standard_normal((rows, many, d))
        ).astype(np.float32)
        inside = ("in", "out") if who.startswith("box-") else ()
        for region in ("face", "rest", "far", *inside):
            plus, times = REGIONS[region]
            for measure in ("psnr", "pd", "log_sharp"):
                of_whole = float(mean(measure) or 0)
                usual = of_whole + plus if measure == "psnr" else of_whole * times
                value = means.get((who, f"{measure}_{region}"), usual)
                found[f"{measure}_{region}"] = near(value, rows, many)
                if region == "far":
                    found[f"{measure}_{region}"][:, ~masked[image_set]] = np.nan
        if inside:
            for name, value in AROUND.items():
                found[name] = near(means.get((who, name), value), rows, many)
        return found

    numbers = np.array(seeds, np.int64)
    for run, of_run in made.items():
        for condition in of_run:
            who, base = (run, "") if condition == "full" else (condition, run)
            arrays = measured(who, set_of(run), S, base)
            if condition != "full":
                arrays["removed"] = shares[condition]
            write_npz(folder / "evaluate" / run / f"{condition}.npz", seeds=numbers, **arrays)
    for name in counts:
        for floor in FLOORS:
            path = folder / "evaluate" / "floors" / f"{name}-{floor}.npz"
            write_npz(path, seeds=np.array([-1]), **measured(floor, name, 1))
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
