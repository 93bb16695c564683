"""Files that stages hand to each other: whole or not at all, and the same bytes every time."""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.common.errors import InputError, cause

RGB = 3  # channels
HEADER_BYTES = 128  # of an array of few dimensions
SIGNIFICANT_DIGITS = 5  # of floats in JSON; instruction sets differ in the seventh


@contextmanager
def _replaced(path: Path, room: str) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of ``path`` once it is whole and on the disk."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        raise InputError(
            path,
            "cannot be written",
            expected=f"room for {room} in a writable folder",
            found=error.strerror or error,
            remedy="free space or fix the permissions and run again; finished work is kept",
        ) from error
    finally:
        if new.is_file():
            new.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a full disk leaves the old one or the new one, never half.

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full.
    """
    with _replaced(path, f"{len(content)} bytes") as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text by :func:`write_bytes`."""
    write_bytes(path, text.encode())


def _rounded(value: object, where: str) -> object:
    if isinstance(value, Mapping):
        return {str(k): _rounded(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        return _rounded(value.tolist(), where)
    if isinstance(value, np.generic):
        return _rounded(value.item(), where)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: write None for what does not exist")
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value


def write_json(path: Path, content: Mapping) -> None:
    """Write ``content`` with sorted keys and floats of 5 significant digits.

    Raises
    ------
    ValueError
        If a number is NaN or infinite; the message names its key.
    """
    text = json.dumps(_rounded(content, path.name), indent=1, sort_keys=True, ensure_ascii=False)
    write_text(path, text + "\n")


class Stored(dict):
    """What a file holds by name; who asks for what is not there is told the file and the name."""

    def __init__(self, path: Path, content: Mapping):
        super().__init__(content)
        self.path = path

    def __missing__(self, name: object) -> None:
        raise InputError(
            self.path,
            f"lacks {name!r}",
            expected="it among what the stage writes there",
            found=", ".join(map(str, sorted(self))) or "nothing",
            remedy="run the stage that writes it (dvc repro) or restore it from git",
        )


def _no_number(name: str) -> None:
    raise ValueError(f"{name}, which is no number")


def read_json(path: Path) -> dict:
    """Read a JSON object; a key that it, or an object in it, lacks is an InputError when asked for.

    Raises
    ------
    InputError
        If the file is missing, truncated, or holds something else, or NaN or infinity.
    """
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"),
            object_hook=lambda found: Stored(path, found),
            parse_constant=_no_number,
        )
    except OSError as error:
        found, reason = error.strerror or str(error), error
    except (ValueError, RecursionError) as error:
        found, reason = str(error), error
    else:
        if isinstance(content, dict):
            return content
        found, reason = f"a {type(content).__name__}", None
    raise InputError(
        path,
        "is not a readable JSON file",
        expected="a JSON object",
        found=found,
        remedy="run the stage that writes it (dvc repro) or restore it from git",
    ) from reason


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as a compressed .npz whose bytes depend on the arrays alone.

    Needs no memory beside the arrays but some 50 MB: 50,000 images of 256 px are 10 GB.

    Raises
    ------
    ValueError
        If an array would need pickle (dtype object).
    InputError
        As :func:`write_bytes`.
    """
    size = sum(array.nbytes for array in arrays.values())
    with _replaced(path, f"up to {size} bytes") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in sorted(arrays.items()):
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.file_size = array.nbytes + HEADER_BYTES  # whether it needs 64-bit sizes
                with archive.open(entry, "w") as item:
                    content = np.ascontiguousarray(array)
                    np.lib.format.write_array(item, content, allow_pickle=False)


def read_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz, or those in ``names``; never unpickles.

    Of all arrays, one that is asked for and not there is an InputError.

    Raises
    ------
    InputError
        If the file is missing, truncated, needs pickle, or lacks one of ``names``, or its
        ``images`` are not 8-bit colour images.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("one array, no archive of arrays")
            with archive:
                missing = sorted(set(names or ()) - set(archive.files))
                if not missing:
                    arrays = {name: archive[name] for name in names or archive.files}
                    return _with_images(path, Stored(path, arrays))
                found, reason = f"{sorted(archive.files)} without {missing}", None
    except InputError:
        raise
    except OSError as error:
        found, reason = error.strerror or str(error), error
    except Exception as error:  # NumPy and zipfile raise many kinds on damaged files
        found, reason = f"a damaged file ({cause(error)})", error
    raise InputError(
        path,
        "is not a readable array file",
        expected=f"an .npz with {sorted(names)}" if names else "an .npz",
        found=found,
        remedy="delete it and run the stage that writes it (dvc repro)",
    ) from reason


def _with_images(path: Path, arrays: Stored) -> Stored:
    """Refuse arrays whose ``images`` are not what all stages store: uint8 (n, h, w, 3)."""
    images = arrays.get("images")
    if images is None:
        return arrays
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == RGB:
        return arrays
    raise InputError(
        path,
        "holds images of another kind",
        expected="uint8 (n, height, width, 3), 0..255",
        found=f"{images.dtype} {images.shape}",
        remedy="delete it and run the stage that writes it (dvc repro)",
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            path,
            "cannot be read",
            expected="a readable file",
            found=error.strerror or error,
            remedy="restore it (dvc pull data.dvc for embedded data) and run again",
        ) from error
