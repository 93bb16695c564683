"""Images, labels and features of a set as the stages before wrote them, checked to belong together.

``prepare`` writes <set>_<split>.npz, ``extract`` <model>/<set>_<split>-s<seed>.npz: row i of the
one is row i of the other.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stages.common.errors import InputError, suggestion
from stages.common.files import read_json, read_npz

REMEDY = "run the stages before this one again (dvc repro)"


def feature_file(extracted: Path, model: str, name: str, split: str, seed: int) -> Path:
    """Return where ``extract`` writes the features of a split of set ``name``."""
    return extracted / model / f"{name}_{split}-s{seed}.npz"


def read_features(
    extracted: Path, model: str, name: str, split: str, seed: int, *, n: int
) -> Float32[np.ndarray, "n d"]:
    """Read what black box ``model`` of ``seed`` gave for a split of ``n`` images.

    Raises
    ------
    InputError
        If the file is missing or damaged, holds another number of rows, or a value that is not
        finite.
    """
    file = feature_file(extracted, model, name, split, seed)
    features = read_npz(file, ["features"])["features"]
    if features.ndim != 2 or features.dtype != np.float32 or len(features) != n:
        raise InputError(
            file,
            "does not belong to the prepared images",
            expected=f"float32 features of {n} images",
            found=f"{features.dtype} {features.shape}",
            remedy=REMEDY,
        )
    if not np.isfinite(features).all():
        raise InputError(
            file,
            "holds features that are not finite",
            expected="finite numbers",
            found=f"{np.count_nonzero(~np.isfinite(features))} NaN or infinite",
            remedy="train the black box again with a lower lr",
        )
    return features


def read_sets(data: Path) -> dict[str, Any]:
    """Read meta.json of ``prepare``.

    Raises
    ------
    InputError
        If it is missing or damaged, or does not describe the local sets.
    """
    meta = read_json(data / "meta.json")
    sets, names = meta.get("sets", {}), meta.get("locals", [])
    if not names or any(name not in sets for name in names):
        raise InputError(
            data / "meta.json",
            "does not describe the local sets",
            expected=f"locals among the sets {', '.join(sets) or '(none)'}",
            found=", ".join(names) or "none",
            remedy=REMEDY,
        )
    return meta


def find_models(extracted: Path) -> list[str]:
    """Return the names of the black boxes whose features are there, sorted.

    Raises
    ------
    InputError
        If there is none.
    """
    models = sorted({file.parent.name for file in extracted.glob("*/*_train-s*.npz")})
    if not models:
        raise InputError(
            extracted,
            "holds no features",
            expected="<model>/<set>_train-s<seed>.npz",
            found="none",
            remedy="run the stage that extracts them (dvc repro)",
        )
    return models


def check_cells(cells: list[list[str]], models: list[str], names: list[str]) -> None:
    """Refuse a cell that is not [model, local set].

    Raises
    ------
    InputError
        If it is not; the nearest name is suggested.
    """
    for cell in cells:
        known = [models, names]
        if len(cell) != len(known):
            raise InputError(
                "cells",
                "has a wrong item",
                expected="pairs [model, local set]",
                found=cell,
                remedy="correct it in params.yaml",
            )
        for word, choice in zip(cell, known, strict=True):
            if word not in choice:
                raise InputError(
                    "cells",
                    f"has the unknown {'model' if choice is models else 'local set'} {word!r}",
                    expected=f"of {', '.join(choice)}",
                    found=cell,
                    remedy=suggestion(word, choice),
                )
