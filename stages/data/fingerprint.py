"""What identifies an image set: hashes and counts, in ``fingerprints/<set>.json``, in git.

An embedded set is identified by its arrays, not by its files: encoders (zlib, WebP) differ
between machines, pixels do not. A folder of the user is identified by its files; its fingerprint
has no path of a machine and no content.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.common.errors import InputError, suggestion
from stages.common.files import read_json

FINGERPRINTS = Path(__file__).parent / "fingerprints"
TORCHVISION = ("celeba", "cifar10", "cifar100", "imagenet", "stl10")
HELP = "see docs/data.md"


def array_hash(name: str, array: np.ndarray) -> str:
    """Return the SHA-256 over an array's name, dtype, shape and bytes (C order, little-endian)."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(array.data.cast("B"))
    return digest.hexdigest()


def listing_hash(files: Iterable[tuple[object, ...]]) -> str:
    """Return the SHA-256 over one tab-separated line a file, in sorted order."""
    lines = sorted("\t".join(map(str, file)) for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def known_sets() -> list[str]:
    """Return the names that ``load_images`` takes: embedded, registered, and torchvision's."""
    return sorted({*TORCHVISION, *(path.stem for path in FINGERPRINTS.glob("*.json"))})


def read_fingerprint(name: str) -> dict:
    """Read the committed fingerprint of an embedded or registered set.

    Raises
    ------
    InputError
        If there is none; the sentence says how to register a folder.
    """
    path = FINGERPRINTS / f"{name}.json"
    if name in known_sets() and path.is_file():
        return read_json(path)
    raise InputError(
        name,
        "is not a known image set",
        expected="an embedded, registered or torchvision set",
        found=f"no fingerprint of that name ({suggestion(name, known_sets())})",
        remedy=f"register a folder by `python -m stages.data.register {name} FOLDER`, {HELP}",
    )
