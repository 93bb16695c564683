"""Keypoints of many images as they lie on disk: a row each, 132 bytes and 24 of where it came from.

Nothing here needs torch, so that the processes that search for keypoints start fast.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64, UInt8

from stages.common.errors import InputError, cause, shown
from stages.common.files import read_json, write_bytes, write_json
from stages.sift_inversion.placement import place_many

SCALES = (4, 2)  # cell sides d, px, in the order of the columns of cells.npy
DROPPED = 255  # in cells: the keypoint found no cell
LARGEST = 508  # px: the rows of the finest map are below 255
ARRAYS = {
    "desc": (np.uint8, 128),
    "cells": (np.uint8, 4),
    "kp": (np.float32, 5),
    "octave": (np.int32, None),
    "offsets": (np.int64, None),
}


@dataclass(frozen=True, eq=False)
class Descriptors:
    """The keypoints of n images, N in all; those of image i are rows offsets[i]:offsets[i + 1].

    Read from disk the arrays are read-only memory maps.

    desc : SIFT descriptors, 0..255.
    cells : (row, col) in the map of d = 4, then of d = 2; 255: dropped.
    kp : x, y, size (2 sigma), angle (degrees), response; pixels.
    octave : OpenCV's packed octave, layer and offset.
    ids : number of each image in its split; what is random is drawn by it.
    meta : size, cv2, params, as in meta.json.
    """

    desc: UInt8[np.ndarray, "N 128"]
    cells: UInt8[np.ndarray, "N 4"]
    kp: Float32[np.ndarray, "N 5"]
    octave: Int32[np.ndarray, " N"]
    offsets: Int64[np.ndarray, " n_plus_1"]
    ids: Int64[np.ndarray, " n"]
    meta: dict

    def __len__(self) -> int:
        """Return n, the number of images."""
        return len(self.ids)

    @property
    def size(self) -> int:
        """Side S of the images, px."""
        return self.meta["size"]

    @property
    def counts(self) -> Int64[np.ndarray, " n"]:
        """How many keypoints each image has."""
        return np.diff(self.offsets)

    @property
    def image(self) -> Int64[np.ndarray, " N"]:
        """Position 0..n-1 of each keypoint's image."""
        return np.repeat(np.arange(len(self)), self.counts)

    def rows(
        self, index: Int64[np.ndarray, " b"]
    ) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """Return the rows of the keypoints of the images ``index``, and whose they are, 0..b-1."""
        start, count = self.offsets[index], self.counts[index]
        slot = np.repeat(np.arange(len(index)), count)
        first = np.cumsum(count) - count  # of each image, in the answer
        return np.arange(len(slot)) + (start - first)[slot], slot

    def take(self, index: Sequence[int] | Int[np.ndarray, " b"]) -> "Descriptors":
        """Return the images ``index`` in that order; they keep their ``ids``."""
        index = np.asarray(index, np.int64)
        rows, _ = self.rows(index)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ("desc", "cells", "kp", "octave")},
            offsets=offsets_of(self.counts[index]),
            ids=self.ids[index],
        )


def offsets_of(counts: Int[np.ndarray, " n"] | Sequence[int]) -> Int64[np.ndarray, " n_plus_1"]:
    """Return where each image's keypoints start, and where the last image's end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def placed(
    kp: Float32[np.ndarray, "N 5"],
    desc: UInt8[np.ndarray, "N 128"],
    offsets: Int64[np.ndarray, " n_plus_1"],
    ids: Int64[np.ndarray, " n"],
    meta: Mapping,
) -> UInt8[np.ndarray, "N 4"]:
    """Return the column ``cells``, placed by the rules in ``meta``: size, params.

    Raises
    ------
    InputError
        If the images are too large for cells of one byte.
    """
    if not 0 < meta["size"] <= LARGEST:
        raise InputError(
            "size",
            "does not fit the map of keypoints",
            expected=f"at most {LARGEST} px: a cell's row and column are a byte each",
            found=meta["size"],
            remedy="take a smaller size in params.yaml",
        )
    rules = {key: meta["params"][key] for key in ("r_max", "order", "collision")}
    cells = [place_many(kp, desc, offsets, ids, size=meta["size"], d=d, **rules) for d in SCALES]
    return np.concatenate(cells, 1).astype(np.uint8)  # -1 becomes DROPPED


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write <name>.npy of each array; the same bytes every time."""
    for name, array in arrays.items():
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(array), allow_pickle=False)
        write_bytes(folder / f"{name}.npy", content.getvalue())


def write(folder: Path, descriptors: Descriptors) -> None:
    """Write the ``ARRAYS``, then meta.json. For whole splits: ``ids`` are not kept."""
    write_arrays(folder, {name: getattr(descriptors, name) for name in ARRAYS})
    write_json(folder / "meta.json", descriptors.meta)


def read_array(folder: Path, name: str) -> np.ndarray:
    """Read ``name``.npy of ``ARRAYS`` as a memory map.

    Raises
    ------
    InputError
        If it is missing or damaged, or has another type or shape.
    """
    path, (dtype, columns) = folder / f"{name}.npy", ARRAYS[name]
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found, reason = f"{array.dtype} {array.shape}", None
        if array.dtype == dtype and array.shape[1:] == ((columns,) if columns else ()):
            return array
    except Exception as error:  # NumPy raises many kinds on damaged files
        found, reason = cause(error), error
    raise InputError(
        path,
        "is not a readable array of keypoints",
        expected=f"{np.dtype(dtype)} (N{f', {columns}' if columns else ','})",
        found=found,
        remedy="delete its folder and run sift_inversion.extract (dvc repro)",
    ) from reason


def read(folder: Path) -> Descriptors:
    """Read a folder of ``extract``: all images of a split, the arrays as memory maps.

    Raises
    ------
    InputError
        If a file is missing or damaged, the arrays do not belong together, or a keypoint has no
        place in the maps.
    """
    meta = read_json(folder / "meta.json")
    size = meta["size"]
    if not isinstance(size, int) or not 0 < size <= LARGEST:
        raise InputError(
            folder / "meta.json",
            "has no size of images",
            expected=f"size, a whole number from 1 to {LARGEST}",
            found=shown(size),
            remedy="delete the folder and run sift_inversion.extract (dvc repro)",
        )
    arrays = {name: read_array(folder, name) for name in ARRAYS}
    offsets = arrays["offsets"] = np.array(arrays["offsets"])
    lengths = {len(arrays[name]) for name in ("desc", "cells", "kp", "octave")}
    whole = len(offsets) > 0 and offsets[0] == 0 and (np.diff(offsets) >= 0).all()
    if not whole or lengths != {int(offsets[-1])}:
        raise InputError(
            folder,
            "holds arrays that do not belong together",
            expected="offsets from 0, never falling, to the number of keypoints in every array",
            found=f"arrays of {sorted(lengths)}, offsets to {offsets[-1:].tolist()}",
            remedy="delete the folder and run sift_inversion.extract (dvc repro)",
        )
    cells = arrays["cells"]
    sides = np.repeat([-(-size // d) for d in SCALES], 2)  # rows and columns of each map
    outside = int(np.count_nonzero((cells >= sides) & (cells != DROPPED)))
    lost = int(np.count_nonzero(~np.isfinite(arrays["kp"])))
    if outside or lost:
        raise InputError(
            folder,
            "holds keypoints that lie nowhere",
            expected=f"numbers, and cells of maps of {sides[0]} and {sides[2]} cells a side",
            found=f"{lost} numbers NaN or infinite, {outside} cells beside the maps",
            remedy="delete the folder and run sift_inversion.extract (dvc repro)",
        )
    return Descriptors(**arrays, ids=np.arange(len(offsets) - 1), meta=meta)
