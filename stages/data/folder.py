"""Image folders of the user: find them, list them, compare them with their fingerprint.

Three layouts, told apart by where the images lie:
``<root>/<split>/<class>/*.jpg``; ``<root>/<split>/*.jpg`` (one class, "all");
``<root>/*.jpg`` (one split, "all", which also answers to "test").
Images are files ending in .jpg, .jpeg or .png in any case; hidden files and others are ignored.
"""

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import InputError, suggestion
from stages.data.fingerprint import HELP, listing_hash

SUFFIXES = (".jpg", ".jpeg", ".png")
ONLY = "all"  # the name of the one split or the one class of a layout that names none
UNLISTABLE = ("Cc", "Cs", "Zl", "Zp")  # controls, undecodable bytes, line and paragraph ends
DEEPEST = 2  # folders between the root and an image


@dataclass(frozen=True)
class Entry:
    """One image file: its path below the root with "/", its bytes' number, where it belongs."""

    path: str
    size: int
    split: str
    label: str


def find_root(name: str, *, create: bool = False) -> Path:
    """Return the folder of a set: $<NAME>_ROOT, else real/<name> (or with _ for -).

    Raises
    ------
    InputError
        If there is no such folder, and it is not to be created.
    """
    variable = re.sub(r"\W", "_", name).upper() + "_ROOT"
    given = os.environ.get(variable)
    real = Path(os.environ.get("DVC_ROOT", "")) / "real"
    roots = [Path(given)] if given else [real / name, real / name.replace("-", "_")]
    if create:
        roots[0].mkdir(parents=True, exist_ok=True)
    for root in roots:
        if root.is_dir():
            return root
    raise InputError(
        roots[0],
        f"is not there, so {name} cannot be read",
        expected=f"the folder of {name}",
        found=f"{variable}={given}" if given else f"no folder, and {variable} is not set",
        remedy=f"unpack the images there or set {variable} to their folder, {HELP}",
    )


def list_images(root: Path) -> list[Entry]:
    """Return the images of a folder sorted by path.

    Raises
    ------
    InputError
        If the folder is missing, empty, holds an empty folder, a name that is not printable, or a
        link that leads out of it or in a circle, or mixes layouts.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise _bad(root, "is not a folder", "a folder of images", found)
    files = sorted(_walk(root, "", root.resolve()))
    if not files:
        raise _bad(root, "holds no images", f"{', '.join(SUFFIXES)} files", "none")
    depths = Counter(path.count("/") for path, _ in files)
    if len(depths) > 1:
        found = ", ".join(f"{n} images {depth} folders deep" for depth, n in sorted(depths.items()))
        raise _bad(root, "mixes layouts", "all images equally deep", found)
    return [Entry(path, size, *_place(path)) for path, size in files]


def _place(path: str) -> tuple[str, str]:
    """Return split and class: the folders above the file, where the layout has them."""
    split, label, *_ = [*path.split("/")[:-1], ONLY, ONLY]
    return split, label


def _walk(folder: Path, prefix: str, root: Path) -> list[tuple[str, int]]:
    files, folders = [], []
    try:
        with os.scandir(folder) as items:
            for item in items:
                if item.name.startswith("."):
                    continue
                _check_name(item.path, item.name)
                if item.is_symlink():
                    _check_link(Path(item.path), root)
                if item.is_dir():
                    folders.append(item)
                elif item.name.lower().endswith(SUFFIXES):
                    if not item.is_file():  # a pipe would be waited for
                        raise _bad(item.path, "is no image", "a regular file", "a special one")
                    files.append((prefix + item.name, item.stat().st_size))
    except OSError as error:
        raise _bad(
            folder, "cannot be listed", "a readable folder", error.strerror or error
        ) from error
    for item in folders:
        if prefix.count("/") == DEEPEST:
            raise _bad(item.path, "lies too deep", "<split>/<class>/<image>", "a folder there")
        below = _walk(Path(item.path), f"{prefix}{item.name}/", root)
        if not below:
            raise _bad(item.path, "is an empty class", "images in every folder", "none")
        files += below
    return files


def _check_name(path: str, name: str) -> None:
    """Refuse names that no listing can hold: a line break, a tab, bytes that are no UTF-8."""
    if any(unicodedata.category(c) in UNLISTABLE for c in name):
        raise _bad(path, "has an unusable name", "UTF-8 without control characters", repr(name))


def _check_link(link: Path, root: Path) -> None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a dangling link; a circle of links
        found = "a link to nothing or in a circle"
        raise _bad(link, "is a broken link", "a file", found) from error
    if target.is_dir():
        raise _bad(link, "links to a folder", "folders and files themselves", "a symbolic link")
    if not target.is_relative_to(root):
        raise _bad(link, "leads out of the image folder", "files below the root", "a symbolic link")


def _bad(where: str | Path, what: str, expected: str, found: object) -> InputError:
    return InputError(where, what, expected=expected, found=found, remedy=HELP)


def quick_summary(entries: list[Entry]) -> dict:
    """Return count, bytes and the hash of the sorted listing of path and size, without reading."""
    return {
        "count": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "listing_sha256": listing_hash((entry.path, entry.size) for entry in entries),
    }


def content_hash(entries: list[Entry], hashes: list[str]) -> str:
    """Return the SHA-256 over sorted (path, size, SHA-256 of the file)."""
    lines = zip(entries, hashes, strict=True)
    return listing_hash((entry.path, entry.size, one) for entry, one in lines)


def select(
    name: str, root: Path, entries: list[Entry], split: str, fingerprint: dict
) -> tuple[list[Entry], dict]:
    """Return the entries of a split and its part of the fingerprint, after the quick check.

    Raises
    ------
    InputError
        If the split is unknown, or the folder's count, bytes or names are not the fingerprint's.
    """
    known = fingerprint["splits"]
    if split == "test" and list(known) == [ONLY]:
        split = ONLY
    if split not in known:
        raise InputError(
            f"{name}/{split}",
            "is not a split of this set",
            expected=" or ".join(known),
            found=f"{split!r} ({suggestion(split, list(known))})",
            remedy=HELP,
        )
    found = quick_summary(entries)
    for key in ("count", "bytes", "listing_sha256"):
        if found[key] != fingerprint[key]:
            raise InputError(
                root,
                f"is not the registered {name}",
                expected=f"{key} {fingerprint[key]}",
                found=found[key],
                remedy=f"restore the folder, or register it anew by "
                f"`python -m stages.data.register {name} {root}`, {HELP}",
            )
    return [entry for entry in entries if entry.split == split], known[split]


def cluster_numbers(entries: list[Entry], group: str | None) -> list[int]:
    """Return each image's bootstrap cluster: one for equal matches of ``group`` in the stem."""
    if group is None:
        return list(range(len(entries)))
    numbers: dict[str, int] = {}
    result = []
    for entry in entries:
        match = re.search(group, Path(entry.path).stem)
        result.append(numbers.setdefault(match[0] if match else entry.path, len(numbers)))
    return result
