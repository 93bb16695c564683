"""Read what the stages measured, and refuse what cannot be scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz

# Images that were measured on -> the file of their clusters; those of P are in its evaluation.
SETS = {"attack": "attack_test", "test": "test", "transfer": "transfer_test"}
DATASETS = {"ten": "test", "transfer": "transfer"}  # of the classifiers -> images of the test
FLOORS = ("blank", "mean_colour", "other_image", "noise")
PERTURBED = ("correct_plain", "correct", "ssim", "ssim_blank")

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scheme:
    """One scheme, as its meta.json has it; ``keyed``: it keeps a key file for some seed.

    ``variant`` is the CycleGAN whose h_p it is, None for a cipher.
    """

    name: str
    variant: str | None
    keyed: bool


def read_schemes(folder: Path, variants: Sequence[str]) -> dict[str, Scheme]:
    """Read folder/<scheme>/meta.json of every scheme, but of no CycleGAN besides ``variants``.

    Raises
    ------
    InputError
        If a meta.json is damaged or is another scheme's.
    """
    found = {}
    for path in sorted(folder.glob("*/meta.json")):
        meta, name = read_json(path), path.parent.name
        if meta.get("scheme") != name:
            raise InputError(
                path,
                "is of another scheme than its folder",
                expected=f"scheme {name}",
                found=f"scheme {meta.get('scheme')}",
                remedy="run the stage that writes it (dvc repro)",
            )
        variant = meta.get("variant")
        if variant is None or variant in variants:
            keyed = any(path.parent.glob("key-s*.npz")) or meta.get("keys") is not None
            found[name] = Scheme(name, variant, keyed)
    return found


def read_groups(prepared: Path) -> dict[str, np.ndarray]:
    """Read the clusters of the test images of each of ``SETS``: int64 (n,)."""
    return {
        name: read_npz(prepared / f"{file}.npz", ["groups"])["groups"]
        for name, file in SETS.items()
    }


def _finite(path: Path, arrays: Arrays) -> Arrays:
    for name, array in arrays.items():
        bad = array.size
        if array.dtype.kind in "biuf":
            bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise InputError(
                path,
                f"{name} has values that are no numbers",
                expected=f"{array.size} finite numbers",
                found=f"{bad} NaN, infinite or of another type",
                remedy="delete the file and run its stage again (dvc repro)",
            )
    return arrays


def _shaped(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(
            path,
            f"{name} does not fit the seeds and images",
            expected=f"shape {expected}",
            found=f"shape {found}",
            remedy="run everything on the same images (dvc repro)",
        )


def _rows(path: Path, seeds: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
    """Read arrays of one row a seed; refuse NaN, and other seeds than ``seeds``."""
    arrays = read_npz(path, None if names is None else ("seeds", *names))
    if "seeds" not in arrays:
        read_npz(path, ["seeds"])  # says what is missing
    _finite(path, arrays)
    ran = arrays["seeds"].tolist()
    if ran != list(seeds):
        raise InputError(
            path,
            "was run with other seeds than the parameters say",
            expected=f"seeds {list(seeds)}",
            found=f"seeds {ran}",
            remedy="run all stages with the same seeds (dvc repro)",
        )
    return {name: array for name, array in arrays.items() if name != "seeds"}


def _per_image(path: Path, arrays: Arrays, names: Sequence[str], seeds: int, n: int) -> None:
    for name in names:
        _shaped(path, name, arrays[name].shape, (seeds, n))


def read_target(path: Path, seeds: Sequence[int], n: int) -> Arrays:
    """Read what h_theta makes of the ``n`` test images: ``correct``, bool (seeds, n).

    Raises
    ------
    InputError
        Like the readers below: if the file is missing or damaged, an array is missing, NaN or of
        another shape, or its seeds are not ``seeds``.
    """
    arrays = _rows(path, seeds, ["correct"])
    _per_image(path, arrays, ["correct"], len(seeds), n)
    return arrays


def read_perturbed(path: Path, seeds: Sequence[int]) -> Arrays:
    """Read what was measured of P: ``PERTURBED`` and ``groups``, all (seeds, n protected)."""
    arrays = _rows(path, seeds, [*PERTURBED, "groups"])
    n = arrays["correct"].shape[-1]
    _per_image(path, arrays, [*PERTURBED, "groups"], len(seeds), n)
    return arrays


def read_encrypted(
    path: Path, seeds: Sequence[int], n: Mapping[str, int], *, transform: bool
) -> Arrays:
    """Read what was measured of a scheme's ciphers.

    Parameters
    ----------
    n : images of each of ``SETS``.
    transform : whether the scheme is an h_p, of which its inverse and whether pixels depend on
        the batch were measured, too.
    """
    tested = ["ssim_test", "htheta_correct", *["ssim_g_ba_test"] * transform]
    counted = ["mismatches"] * transform
    arrays = _rows(path, seeds, ["ssim", *tested, *counted])
    _per_image(path, arrays, ["ssim"], len(seeds), n["attack"])
    _per_image(path, arrays, tested, len(seeds), n["test"])
    for name in counted:
        _shaped(path, name, arrays[name].shape, (len(seeds),))
    return arrays


def read_floors(path: Path, n: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Read the SSIMs of images that show nothing: ``<floor>_attack`` and ``_test``, (1, n)."""
    names = [f"{floor}_{where}" for floor in FLOORS for where in ("attack", "test")]
    arrays = _finite(path, read_npz(path, names))
    for name in names:
        _shaped(path, name, arrays[name].shape, (1, n[name.rpartition("_")[2]]))
    return dict(arrays)


def read_attacks(path: Path, seeds: Sequence[int], n: int) -> Arrays:
    """Read what attacks on one scheme reached on the ``n`` attack test images.

    Returns
    -------
    ``ssim_<attack>`` (seeds, n), ``gauss_<attack>`` (seeds, m <= n), ``oracle_<attack>`` and
    ``rate_<key>`` (seeds,), for the attacks that were run.
    """
    arrays = _rows(path, seeds)
    for name, array in arrays.items():
        kind = name.partition("_")[0]
        if kind == "gauss":
            many = min(max(array.shape[-1], 1), n) if array.ndim else n
            _shaped(path, name, array.shape, (len(seeds), many))
        elif kind == "ssim":
            _shaped(path, name, array.shape, (len(seeds), n))
        elif kind in ("oracle", "rate"):
            _shaped(path, name, array.shape, (len(seeds),))
    return arrays


def read_classified(path: Path, seeds: Sequence[int], n: Mapping[str, int]) -> Arrays:
    """Read the classifiers' answers: ``correct_<data set>_<arm>``, bool (seeds, n).

    Parameters
    ----------
    n : images of each of ``SETS``.
    """
    arrays = _rows(path, seeds)
    found = {}
    for dataset, where in DATASETS.items():
        for name in arrays:
            if name.startswith(f"correct_{dataset}_"):
                _per_image(path, arrays, [name], len(seeds), n[where])
                found[name] = arrays[name]
    return found
