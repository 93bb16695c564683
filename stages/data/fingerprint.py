"""What identifies an image set: hashes and counts, in ``fingerprints/<set>.json``, in git.

An embedded set is identified by its arrays, not by its files: encoders (zlib, WebP) differ
between machines, pixels do not. A folder of the user is identified by its files; its fingerprint
has no path of a machine and no content.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.errors import InputError, suggestion
from stages.common.files import read_json

FINGERPRINTS = Path(__file__).parent / "fingerprints"
TORCHVISION = ("celeba", "cifar10", "cifar100", "imagenet", "stl10")
HELP = "see docs/data.md"
# keys of a fingerprint and their types, by its kind; of a split, by its set's kind
KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "embedded": {"splits": dict},
    "folder": {
        "group": (str, type(None)),
        "attribution": str,
        "splits": dict,
        "count": int,
        "bytes": int,
        "listing_sha256": str,
        "sha256": str,
    },
}
OF_SPLIT: dict[str, dict[str, type]] = {
    "embedded": {"arrays": dict},
    "folder": {"sha256": str, "classes": dict},
}


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


def check_group(group: str | None, where: str | Path) -> None:
    """Refuse a pattern of ``cluster_numbers`` that is no regular expression.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        re.compile(group or "")
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            where, "is no regular expression", expected="one such as ^[^_]+", found=error,
            remedy=HELP,
        ) from error  # fmt: skip


def known_sets() -> list[str]:
    """Return the names that ``load_images`` takes: embedded, registered, and torchvision's."""
    return sorted({*TORCHVISION, *(path.stem for path in FINGERPRINTS.glob("*.json"))})


def read_fingerprint(name: str) -> dict:
    """Read the committed fingerprint of an embedded or registered set.

    Raises
    ------
    InputError
        If there is none, or it has another layout; the sentence says how to register a folder.
    """
    path = FINGERPRINTS / f"{name}.json"
    if name in known_sets() and path.is_file():
        return _checked(path, read_json(path))
    raise InputError(
        name,
        "is not a known image set",
        expected="an embedded, registered or torchvision set",
        found=f"no fingerprint of that name ({suggestion(name, known_sets())})",
        remedy=f"register a folder by `python -m stages.data.register {name} FOLDER`, {HELP}",
    )


def _checked(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return a fingerprint if it has the keys of its kind, all of the right type."""
    kind = content.get("kind")
    if kind not in list(KEYS):
        raise _other(path, f"a kind, {' or '.join(KEYS)}", repr(kind))
    _typed(path, content, KEYS[kind])
    if not content["splits"]:
        raise _other(path, "a split or more", "none")
    for split, part in content["splits"].items():
        if not split.strip():
            raise _other(path, "a name for every split", repr(split))
        if not isinstance(part, dict):
            raise _other(path, f"a map as split {split!r}", type(part).__name__)
        _typed(path, part, OF_SPLIT[kind])
    if kind == "folder":
        check_group(content["group"], f"{path}, group")
    return content


def _typed(path: Path, content: dict[str, Any], keys: dict) -> None:
    for key, kind in keys.items():
        if key not in content or not isinstance(content[key], kind):
            found = type(content[key]).__name__ if key in content else "no such key"
            kinds = kind if isinstance(kind, tuple) else (kind,)
            raise _other(path, f"{key!r}, {' or '.join(k.__name__ for k in kinds)}", found)


def _other(path: Path, expected: str, found: str) -> InputError:
    return InputError(
        path,
        "is not a fingerprint of this version",
        expected=expected,
        found=found,
        remedy=f"restore it from git, or register the folder anew, {HELP}",
    )
