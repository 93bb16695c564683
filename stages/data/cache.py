"""Decode the files of a set once, into one memory-mapped uint8 array in ``.cache/``.

``.cache/<name>-<split>-<size>-<key>.npy``, beside it a .json of how many images have no
colour. Both are written under another name and renamed when whole, the array last: a killed run
leaves nothing that is later trusted. The folder can be deleted at any time.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stages.common.errors import InputError, cause
from stages.common.files import read_json, write_json
from stages.data.photo import read_photo
from stages.data.pool import ordered_map


def cache_folder() -> Path:
    """Return .cache at the top of the repository ($DVC_ROOT, which DVC sets), else here."""
    return Path(os.environ.get("DVC_ROOT", "")) / ".cache"


def decoded(
    title: str,
    files: Sequence[Path],
    *,
    size: int,
    key: str,
    crop: bool = False,
    cmyk: bool = False,
    check: Callable[[list[str]], None] | None = None,
    workers: int | None = None,
) -> tuple[UInt8[np.ndarray, "n s s 3"], int]:
    """Return the files' images as a read-only memory map, and how many have no colour.

    Parameters
    ----------
    title : "<name>-<split>"; part of the cache's name.
    key : what else decides the content: the fingerprint's hash.
    check : called with the SHA-256 of each file after decoding and before the array is kept;
        raises if they are not the expected ones.
    workers : processes, see :func:`stages.data.pool.ordered_map`.
    """
    shape = (len(files), size, size, 3)
    path = cache_folder() / f"{title}-{size}{'-crop' if crop else ''}-{key[:16]}.npy"
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        work = partial(read_photo, size=size, crop=crop, cmyk=cmyk)
        photos = ordered_map(work, files, title=f"decode {title}", workers=workers)
        grey, hashes = 0, []
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for photo in photos:
                    file.write(photo.pixels.data)
                    grey += photo.grey
                    hashes.append(photo.sha256)
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(hashes)
            write_json(path.with_suffix(".json"), {"grey_converted": grey})
            os.replace(new, path)
        except OSError as error:
            raise InputError(
                path,
                "cannot be written",
                expected=f"room for {np.prod(shape)} bytes in a writable folder",
                found=error.strerror or error,
                remedy="free space or fix the permissions and run again",
            ) from error
        finally:
            if new.is_file():
                new.unlink()
    return _mapped(path, shape), read_json(path.with_suffix(".json"))["grey_converted"]


def _mapped(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "n s s 3"]:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        found = f"{images.dtype} {images.shape}"
    except Exception as error:  # NumPy raises many kinds on damaged files
        images, found = None, cause(error)
    if images is None or images.shape != shape or images.dtype != np.uint8:
        raise InputError(
            path,
            "is damaged",
            expected=f"uint8 {shape}",
            found=found,
            remedy="delete the file, it will be made again",
        )
    return images
