"""Read what the evaluation measured, and refuse what cannot be scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.common.errors import InputError
from stages.common.files import read_npz

PER_IMAGE = ("l1", "psnr", "lperc", "lperc_unit", "chroma", "m3", "hf", "auc", "delta_e", "mse")
PER_RUN = ("kid", "kid_se")
REAL = ("chroma", "m3", "hf", "image_hist", "hist2d", "labels", "groups")
BASELINES = ("grey", "mean_ab", "random_hue", "half_chroma", "other_image")
SATURATED = "bn_saturated"  # bn's predictions at the chroma of real images

Arrays = Mapping[str, np.ndarray]


def _finite(path: Path, arrays: Arrays) -> Arrays:
    for name, array in arrays.items():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise InputError(
                path,
                f"{name} has values that are no numbers",
                expected=f"{array.size} finite numbers",
                found=f"{bad} NaN or infinite",
                remedy="delete the file and run the evaluation again (dvc repro)",
            )
    return arrays


def _shaped(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(
            path,
            f"{name} does not fit the other evaluations",
            expected=f"shape {expected}",
            found=f"shape {found}",
            remedy="evaluate everything on the same images (dvc repro)",
        )


def read_real(path: Path) -> Arrays:
    """Read the ground truth's own values, ``real.npz``.

    Raises
    ------
    InputError
        If the file is missing or damaged, an array is missing, NaN, or of another length.
    """
    real = _finite(path, read_npz(path, REAL))
    for name in ("chroma", "m3", "hf", "labels"):
        _shaped(path, name, real[name].shape, real["groups"].shape)
    _shaped(path, "image_hist", real["image_hist"].shape[:1], real["groups"].shape)
    return real


def read_evaluation(path: Path, real: Arrays) -> Arrays:
    """Read the evaluation of a variant or a baseline: arrays of one row a seed.

    Raises
    ------
    InputError
        If the file is missing or damaged, an array is missing, NaN, or of another shape than the
        seeds and the test images ask for.
    """
    arrays = _finite(
        path,
        read_npz(path, (*PER_IMAGE, *PER_RUN, "l1_train", "image_hist", "hist2d", "seeds")),
    )
    seeds, n = len(arrays["seeds"]), len(real["groups"])
    for name in PER_IMAGE:
        _shaped(path, name, arrays[name].shape, (seeds, n))
    for name in PER_RUN:
        _shaped(path, name, arrays[name].shape, (seeds,))
    _shaped(path, "image_hist", arrays["image_hist"].shape, (seeds, *real["image_hist"].shape))
    _shaped(path, "hist2d", arrays["hist2d"].shape, (seeds, *real["hist2d"].shape))
    return arrays


def same_seeds(folder: Path, evaluations: Mapping[str, Arrays]) -> None:
    """Refuse variants trained with other seeds than the rest, which could not be paired.

    Raises
    ------
    InputError
        If the seeds of two variants differ; the message names the file.
    """
    first: Sequence[int] | None = None
    for name, arrays in evaluations.items():
        seeds = arrays["seeds"].tolist()
        first = seeds if first is None else first
        if seeds != first:
            raise InputError(
                folder / f"{name}.npz",
                "has other seeds than the other variants",
                expected=f"seeds {first}",
                found=f"seeds {seeds}",
                remedy="train and evaluate all variants with the same seeds (dvc repro)",
            )
