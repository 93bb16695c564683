"""Read what the stages measured, and refuse what cannot be scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz
from stages.sift_inversion.keypoints import DROPPED, SCALES, read
from stages.sift_inversion.placement import own_cells

SETS = ("faces", "multi")
FULL = "full"  # the condition in which every keypoint is kept
REGIONS = ("face", "rest", "far")
OF_REGIONS = ("psnr", "pd", "log_sharp")
OF_KEYPOINTS = ("dcos", "dmatch", "kpr")  # of images without keypoints they are NaN
WHOLE = (
    *("psnr", "ssim", "mae", "ssim_y", "chroma_error", "log_sharp", "pd", "dcos", "dmatch", "kpr"),
    *("id1", "chk", "rse", "mean_cb", "mean_cr"),
)
# On a box's masks: of the reconstruction without its keypoints, of the one with all of them, and of
# the floors that stand for knowing nothing of the region.
OF_BOXES = (
    *(f"{metric}_{side}" for side in ("in", "out") for metric in OF_REGIONS),
    *("pd_in_full", "pd_out_full", "pd_in_mean", "pd_in_mean_colour"),
)
OF_REAL = (
    *("mean_cb", "mean_cr", "n_keypoints"),
    *("density_face", "density_rest", "gradient_face", "gradient_rest"),
)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """One training run, as its meta.json has it.

    refined : it has the second network.
    inputs : the cells' sides, pixels, one a map.
    loss, phi : what it was trained with; ``phi`` None without perceptual terms.
    collapsed : seeds whose discriminator won outright.
    """

    name: str
    image_set: str
    refined: bool
    inputs: tuple[int, ...] = ()
    loss: str | None = None
    phi: str | None = None
    collapsed: tuple[int, ...] = ()


def read_runs(
    trained: Path, refined: Path, evaluated: Path, variants: Sequence[str]
) -> tuple[dict[str, Run], dict[str, str]]:
    """Read the meta.json of every run of ``variants`` that was evaluated; say why others were not.

    Raises
    ------
    InputError
        If a meta.json is missing, damaged, another run's, or of an unknown set.
    """
    found, missing = {}, {}
    for name in variants:
        if not (evaluated / name / f"{FULL}.npz").exists():
            missing[name] = f"{name} has no evaluation"
            continue
        second = (refined / name / "meta.json").exists()
        path = (refined if second else trained) / name / "meta.json"
        meta = read_json(path)
        for key, known in (("run", (name,)), ("set", SETS)):
            if meta.get(key) not in known:
                raise InputError(
                    path,
                    f"is of another {key}",
                    expected=f"{key} {' or '.join(known)}",
                    found=f"{key} {meta.get(key)}",
                    remedy="run the stage that writes it (dvc repro)",
                )
        won = meta.get("d_collapse") or {}
        found[name] = Run(
            name=name,
            image_set=str(meta["set"]),
            refined=second,
            inputs=tuple(int(d) for d in meta.get("inputs") or ()),
            loss=meta.get("loss"),
            phi=meta.get("phi"),
            collapsed=tuple(int(seed) for seed in won if won[seed]),
        )
    return found, missing


def conditions(evaluated: Path, run: str) -> list[str]:
    """Return the conditions besides "full" in which a run was evaluated."""
    return sorted(path.stem for path in (evaluated / run).glob("*.npz") if path.stem != FULL)


def _shaped(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(
            path,
            f"{name} does not fit the seeds and images",
            expected=f"shape {expected}",
            found=f"shape {found}",
            remedy="run everything on the same images (dvc repro)",
        )


def _finite(path: Path, name: str, array: np.ndarray, *, may_lack: np.ndarray | None) -> None:
    """Refuse values that are no numbers, but NaN where an image may lack one."""
    bad = np.ones(array.shape, bool)
    if array.dtype.kind in "biuf":
        bad = ~np.isfinite(array)
        if may_lack is not None:
            bad &= ~(np.isnan(array) & may_lack)
    if bad.any():
        raise InputError(
            path,
            f"{name} has values that are no numbers",
            expected=f"{array.size} finite numbers",
            found=f"{np.count_nonzero(bad)} NaN, infinite or of another type",
            remedy="delete the file and run its stage again (dvc repro)",
        )


def read_real(evaluated: Path, prepared: Path, image_set: str) -> Arrays:
    """Read what was measured of a set's test images themselves.

    Returns
    -------
    ``groups``, ``labels`` and ``OF_REAL``, (n,); ``features`` (n, d); ``pairwise`` (1,), the
    mean L2 distance of two test images.

    Raises
    ------
    InputError
        If the file is missing or damaged, holds NaN, or is of other images than ``prepared``.
    """
    path = evaluated / f"{image_set}-real.npz"
    arrays = read_npz(path, ["groups", "labels", "features", "pairwise", *OF_REAL])
    groups = read_npz(prepared / f"{image_set}_test.npz", ["groups"])["groups"]
    for name in ("groups", "labels", *OF_REAL):
        _shaped(path, name, arrays[name].shape, groups.shape)
    _shaped(path, "features", arrays["features"].shape[:1], groups.shape)
    for name in ("features", "pairwise", *OF_REAL):
        _finite(path, name, arrays[name], may_lack=None)
    if not np.array_equal(arrays["groups"], groups):
        raise InputError(
            path,
            "is of other test images than were prepared",
            expected=f"the groups of {image_set}_test.npz",
            found=f"{np.count_nonzero(arrays['groups'] != groups)} other ones",
            remedy="run evaluate again (dvc repro)",
        )
    if arrays["pairwise"].size != 1 or not arrays["pairwise"].item() > 0:
        raise InputError(
            path,
            "has no distance between test images",
            expected="pairwise, one number above 0",
            found=arrays["pairwise"].tolist(),
            remedy="test on images that differ",
        )
    return arrays


def _read_measured(
    path: Path, real: Arrays, names: Sequence[str], *, seeds: Sequence[int] | None
) -> dict[str, np.ndarray]:
    """Read per-image arrays (seeds, n) and the features; ``seeds`` None: one row, of any seed."""
    arrays = read_npz(path, ["seeds", "features", *names])
    ran = arrays.pop("seeds").tolist()
    if ran != list(seeds) if seeds is not None else len(ran) != 1:
        raise InputError(
            path,
            "was run with other seeds than the parameters say",
            expected="one row" if seeds is None else f"seeds {list(seeds)}",
            found=f"seeds {ran}",
            remedy="run all stages with the same seeds (dvc repro)",
        )
    n, d = real["features"].shape
    anywhere, without_keypoints = np.ones(n, bool), real["n_keypoints"] == 0
    for name, array in arrays.items():
        may_lack = None if name in WHOLE or name == "features" else anywhere
        if name in OF_KEYPOINTS:  # descriptors: also where OpenCV computes none
            may_lack = without_keypoints if name == "kpr" else anywhere
        _shaped(path, name, array.shape, (len(ran), n, d) if name == "features" else (len(ran), n))
        _finite(path, name, array, may_lack=may_lack)
    return arrays


def _of_regions() -> list[str]:
    return [f"{metric}_{region}" for region in REGIONS for metric in OF_REGIONS]


def read_measured(path: Path, real: Arrays, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Read what was measured of a run's reconstructions from all keypoints.

    Returns
    -------
    ``WHOLE`` and ``<metric>_<region>``, (seeds, n); ``features`` (seeds, n, d).

    Raises
    ------
    InputError
        Like the readers below: if the file is missing or damaged, an array is missing, of another
        shape, or NaN where it must not be, or its seeds are not ``seeds``.
    """
    return _read_measured(path, real, [*WHOLE, *_of_regions()], seeds=seeds)


def read_floors(evaluated: Path, real: Arrays, image_set: str) -> dict[str, Arrays]:
    """Read what was measured of images that show nothing: name -> arrays of one row."""
    names = [*WHOLE, *_of_regions()]
    return {
        path.stem.removeprefix(f"{image_set}-"): _read_measured(path, real, names, seeds=None)
        for path in sorted((evaluated / "floors").glob(f"{image_set}-*.npz"))
    }


def read_partial(path: Path, real: Arrays, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Read what was measured without some keypoints; of boxes also ``OF_BOXES``.

    ``removed`` (n,), the share of an image's keypoints that were removed, only if it is there.
    """
    boxes = OF_BOXES if path.stem.startswith("box-") else ()
    arrays = _read_measured(path, real, [*WHOLE, *boxes], seeds=seeds)
    everything = read_npz(path)
    if "removed" in everything:
        removed = everything["removed"]
        removed = removed.mean(axis=0) if removed.ndim == 2 else removed
        _shaped(path, "removed", removed.shape, real["groups"].shape)
        arrays["removed"] = removed
    return arrays


def read_crowding(folder: Path, n: int) -> dict[str, np.ndarray]:
    """Count keypoints and the cells that they share, image by image (claim C3b).

    Parameters
    ----------
    folder : a set's test split of stage extract.
    n : its images.

    Returns
    -------
    ``keypoints``; for cells of d px ``occupancy_<d>``, the share of cells that hold a descriptor,
    ``collisions_<d>``, the share of keypoints that lose their own cell to another, and
    ``dropped_<d>``, the share that got no cell; ``same_point``, the share of keypoints that lie on
    another's very point: they collide in every map. All (1, n) float64; the shares of keypoints are
    NaN in images that have none.

    Raises
    ------
    InputError
        If a file is missing, damaged, or does not fit the others.
    """
    descriptors = read(folder)
    _shaped(folder / "offsets.npy", "offsets", descriptors.offsets.shape, (n + 1,))
    kp, cells, size = descriptors.kp, descriptors.cells, descriptors.size
    image, count = descriptors.image, descriptors.counts.astype(np.float64)

    def share(of_keypoints: np.ndarray) -> np.ndarray:
        return np.divide(of_keypoints, count, out=np.full(n, np.nan), where=count > 0)[None]

    def distinct(places: np.ndarray) -> np.ndarray:
        rows = np.unique(np.column_stack([image, places.astype(np.float64)]), axis=0)
        return np.bincount(rows[:, 0].astype(np.int64), minlength=n)

    found = {"keypoints": count[None], "same_point": share(count - distinct(kp[:, :2]))}
    for i, d in enumerate(SCALES):
        held = cells[:, 2 * i] != DROPPED
        placed = np.bincount(image, weights=held, minlength=n)
        found[f"occupancy_{d}"] = placed[None] / (-(-size // d)) ** 2
        found[f"collisions_{d}"] = share(count - distinct(own_cells(kp, size=size, d=d)))
        found[f"dropped_{d}"] = share(count - placed)
    return found


def read_histories(folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Read a run's training histories, one a seed.

    Raises
    ------
    InputError
        If one is missing, damaged, or does not say how long it was.
    """
    found = []
    for seed in seeds:
        path = folder / f"history-s{seed}.json"
        found.append(read_json(path))
        lacking = {"steps", "batch_size", "trained_on"} - set(found[-1])
        if lacking:
            raise InputError(
                path,
                "does not say how long the training was",
                expected="steps, batch_size and trained_on",
                found=f"no {', '.join(sorted(lacking))}",
                remedy="run the stage that writes it (dvc repro)",
            )
    return found


def images_seen(histories: Sequence[Mapping[str, Any]]) -> int:
    """Return the images that the shortest of a run's trainings saw, one as often as it was seen."""
    return min(int(run["steps"]) * int(run["batch_size"]) for run in histories)


def trained_on(histories: Sequence[Mapping[str, Any]]) -> int:
    """Return how many training images a run had."""
    return min(int(run["trained_on"]) for run in histories)


def last_losses(histories: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """Return each run's last validation loss; none at all if one did not log it."""
    last = [run["epochs"][-1].get("val_loss") if run.get("epochs") else None for run in histories]
    return tuple(float(v) for v in last if v is not None) if None not in last else ()
