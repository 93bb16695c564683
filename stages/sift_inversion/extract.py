"""Find the SIFT keypoints of every image and place them in the cells of both maps (Sec. III-A).

What takes the time, the keypoints, is also kept in ``.cache/`` under a key of the images, OpenCV's
version, SIFT's parameters and the code: another rule of placement does not search again, another
OpenCV does.
"""

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from stages.common.errors import InputError
from stages.common.files import read_npz, write_json
from stages.common.params import PositiveFloat, PositiveInt
from stages.common.stage import run
from stages.data.cache import cache_folder
from stages.data.pool import ordered_map
from stages.sift_inversion import sift
from stages.sift_inversion.keypoints import (
    DROPPED,
    SCALES,
    Descriptors,
    offsets_of,
    placed,
    read_array,
    write,
    write_arrays,
)
from stages.sift_inversion.placement import Collision, Order, own_cells

SETS = ("faces", "multi")
SPLITS = ("train", "test")
FOUND = ("desc", "kp", "octave", "offsets")  # what SIFT says, before placement


def _detect(image: UInt8[np.ndarray, "h w 3"], params: dict) -> sift.Keypoints:
    return sift.detect(image, sift.detector(params))


def find(
    images: UInt8[np.ndarray, "n s s 3"], params: Mapping, title: str, *, workers: int | None = None
) -> dict[str, np.ndarray]:
    """Return desc, kp, octave and offsets of RGB images; OpenCV has one thread in each process.

    Parameters
    ----------
    params : holds ``sift.SETTINGS``.
    title : what the progress bar says.
    workers : processes, see :func:`stages.data.pool.ordered_map`.
    """
    settings = {key: params[key] for key in sift.SETTINGS}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # where ordered_map works in this process
    try:
        work = partial(_detect, params=settings)
        done = list(ordered_map(work, list(images), title=title, workers=workers))
    finally:
        cv2.setNumThreads(threads)
    return {
        "desc": np.concatenate([np.zeros((0, 128), np.uint8), *(each.desc for each in done)]),
        "kp": np.concatenate([np.zeros((0, 5), np.float32), *(each.kp for each in done)]),
        "octave": np.concatenate([np.zeros(0, np.int32), *(each.octave for each in done)]),
        "offsets": offsets_of([len(each.kp) for each in done]),
    }


def _found(
    images: UInt8[np.ndarray, "n s s 3"], params: Mapping, name: str
) -> dict[str, np.ndarray]:
    """Return what :func:`find` does, from ``.cache/`` if it is there."""
    code = Path(sift.__file__).read_bytes()
    settings = [cv2.__version__, images.shape, *(params[key] for key in sift.SETTINGS)]
    key = hashlib.sha256(code + repr(settings).encode())
    key.update(np.ascontiguousarray(images).data)
    folder = cache_folder() / f"sift-{name}-{key.hexdigest()[:16]}"
    if not (folder / "meta.json").is_file():  # written last
        write_arrays(folder, find(images, params, f"SIFT of {name}"))
        write_json(folder / "meta.json", {"key": key.hexdigest()})
    return {array: read_array(folder, array) for array in FOUND}


def arrange(found: Mapping[str, np.ndarray], size: int, params: Mapping) -> Descriptors:
    """Place what :func:`find` found in images of ``size`` px; ``meta`` says how it went.

    Its ``collisions``: share of the keypoints whose cell is another's; ``same_point``: share of
    these, in both maps, that lie on a better keypoint and differ in angle or size; ``occupancy``:
    share of the cells that hold a keypoint; ``dropped``: keypoints without a cell.
    """
    offsets = np.array(found["offsets"])
    n, N = len(offsets) - 1, len(found["kp"])
    meta = {
        "cv2": cv2.__version__,
        "params": dict(params),
        "size": size,
        "images": n,
        "keypoints": N,
        "images_without": int(np.count_nonzero(np.diff(offsets) == 0)),
    }
    kp, desc = np.asarray(found["kp"]), np.asarray(found["desc"])
    cells = placed(kp, desc, offsets, np.arange(n), meta)
    image = np.repeat(np.arange(n), np.diff(offsets))
    points = len(np.unique(np.column_stack([image, kp[:, :2].astype(np.float64)]), axis=0))
    displaced, dropped, occupancy = {}, {}, {}
    for place, d in enumerate(SCALES):
        own = np.column_stack([image, own_cells(kp, size=size, d=d)])
        displaced[d] = N - len(np.unique(own, axis=0))
        dropped[d] = int(np.count_nonzero(cells[:, 2 * place] == DROPPED))
        occupancy[d] = (N - dropped[d]) / (max(n, 1) * (-(-size // d)) ** 2)
    losers = sum(displaced.values())
    meta |= {
        "dropped": dropped,
        "collisions": {d: count / N if N else None for d, count in displaced.items()},
        "occupancy": occupancy,
        "same_point": len(SCALES) * (N - points) / losers if losers else None,
    }
    return Descriptors(
        desc, cells, kp, np.asarray(found["octave"]), offsets, ids=np.arange(n), meta=meta
    )


def extract(
    data: Path,
    out: Path,
    *,
    size: PositiveInt,
    contrast_threshold: PositiveFloat,
    edge_threshold: PositiveFloat,
    sigma: PositiveFloat,
    octave_layers: PositiveInt,
    order: Order,
    collision: Collision,
    r_max: PositiveInt,
):
    """Write a folder <set>_<split> of keypoints for each file of ``prepare``.

    desc.npy uint8 (N, 128), cells.npy uint8 (N, 4), kp.npy float32 (N, 5), octave.npy int32 (N,),
    offsets.npy int64 (n + 1,), meta.json: what ``keypoints`` reads.

    Parameters
    ----------
    contrast_threshold, edge_threshold, sigma, octave_layers : of ``sift.detector``.
    order, collision, r_max : of ``placement.place``.
    """
    params = {
        "contrast_threshold": contrast_threshold,
        "edge_threshold": edge_threshold,
        "sigma": sigma,
        "octave_layers": octave_layers,
        "order": order,
        "collision": collision,
        "r_max": r_max,
    }
    start, n, N = time.perf_counter(), 0, 0
    for name in (f"{image_set}_{split}" for image_set in SETS for split in SPLITS):
        path = data / f"{name}.npz"
        images = read_npz(path, ["images"])["images"]
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise InputError(
                path,
                "holds images of another kind",
                expected=f"uint8 (n, {size}, {size}, 3)",
                found=f"{images.dtype} {images.shape}",
                remedy="run sift_inversion.prepare with this size (dvc repro)",
            )
        descriptors = arrange(_found(images, params, name), size, params)
        write(out / name, descriptors)
        n, N = n + len(images), N + len(descriptors.kp)
    return {"images": n, "keypoints": N, "images_per_s": n / (time.perf_counter() - start)}


if __name__ == "__main__":
    run(extract, "sift_inversion.extract")
