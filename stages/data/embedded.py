"""Read and write the embedded sets: ``data/<set>/<split>.npz``.

Each picture is stored once, at its set's largest side, as lossless WebP (1.9 KB instead of 27 KB
at 96 px); an .npz holds ``encoded`` (uint8, all pictures' bytes one after the other), ``ends``
(int64 (n,), where each one ends), ``labels``, ``groups`` (int64 (n,)) and ``classes``.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from stages.common.errors import InputError, cause, suggestion
from stages.common.files import read_npz, write_npz
from stages.data.fingerprint import HELP, array_hash
from stages.data.pool import processes
from stages.data.resize import resize

SPLITS = ("train", "test")
DATA = Path("data")  # stages run at the top of the repository


def encode(image: UInt8[np.ndarray, "s s 3"]) -> bytes:
    """Return lossless WebP; :func:`decode` gives the same pixels back."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True, method=6, exact=True)
    return file.getvalue()


def decode(encoded: UInt8[np.ndarray, " bytes"]) -> UInt8[np.ndarray, "s s 3"]:
    """Return the pixels, red first."""
    pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
    if pixels is None:
        raise ValueError(f"{len(encoded)} bytes are no picture")
    return np.asarray(pixels, np.uint8)


def write_split(
    path: Path,
    classes: Sequence[str],
    *,
    images: UInt8[np.ndarray, "n s s 3"],
    labels: Int64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
) -> None:
    """Write one split of a set."""
    with ThreadPoolExecutor(processes()) as pool:  # the encoder releases Python's lock
        encoded = list(pool.map(encode, images))
    write_npz(
        path,
        encoded=np.frombuffer(b"".join(encoded), np.uint8),
        ends=np.cumsum([len(one) for one in encoded], dtype=np.int64),
        labels=labels,
        groups=groups,
        classes=np.array(classes),
    )


def read_split(
    name: str, split: str, fingerprint: dict, *, size: int, crop: bool = False, root: Path = DATA
) -> tuple[UInt8[np.ndarray, "n s s 3"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], list]:
    """Return images, labels, groups and classes of a split, checked against the fingerprint.

    Raises
    ------
    InputError
        If the files are missing or damaged, or their arrays are not the fingerprint's.
    """
    path = root / name / f"{split}.npz"
    if split not in fingerprint["splits"]:
        raise InputError(
            f"{name}/{split}",
            "is not a split of this set",
            expected=" or ".join(fingerprint["splits"]),
            found=f"{split!r} ({suggestion(split, list(fingerprint['splits']))})",
            remedy=HELP,
        )
    if not path.is_file():
        raise InputError(
            path,
            "is missing",
            expected="the embedded image set",
            found="no file" if path.parent.is_dir() else "no folder",
            remedy=f"get it by `dvc pull data.dvc`, or build it: {HELP}",
        )
    stored = read_npz(path, ["encoded", "ends", "labels", "groups", "classes"])
    try:
        pieces = np.split(stored["encoded"], stored["ends"][:-1])
        with ThreadPoolExecutor(processes()) as pool:
            images = np.stack(list(pool.map(decode, pieces)))
    except Exception as error:  # NumPy and OpenCV raise many kinds
        raise _wrong(path, "pictures that can be decoded", cause(error)) from error
    for array, content in (("images", images), *((k, stored[k]) for k in ("labels", "groups"))):
        expected, found = fingerprint["splits"][split]["arrays"][array], array_hash(array, content)
        if found != expected:
            raise _wrong(path, f"{array} with SHA-256 {expected[:12]}...", f"{found[:12]}...")
    if images.shape[1] != size:
        images = np.stack([resize(image, size, crop=crop) for image in images])
    return images, stored["labels"], stored["groups"], stored["classes"].tolist()


def _wrong(path: Path, expected: str, found: object) -> InputError:
    return InputError(
        path,
        "is not the embedded set of this version",
        expected=expected,
        found=found,
        remedy=f"restore it by `dvc checkout data.dvc --force`, or rebuild it: {HELP}",
    )
