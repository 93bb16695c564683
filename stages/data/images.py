"""Read any image set by name: ``load_images(name, split, size)``. docs/data.md lists the sets."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64, UInt8

from stages.common.errors import InputError
from stages.data import torchvision_sets
from stages.data.cache import decoded
from stages.data.embedded import read_split
from stages.data.emoji_catalogue import ATTRIBUTION
from stages.data.fingerprint import HELP, TORCHVISION, read_fingerprint
from stages.data.folder import (
    Entry,
    cluster_numbers,
    content_hash,
    find_root,
    list_images,
    select,
)
from stages.data.subset import per_class_subset

LARGEST = 4096  # pixels, the side that images are brought to


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of an image set, in a fixed order.

    images : RGB, 0..255; of a large set a read-only memory map.
    labels : index into ``classes``.
    groups : bootstrap cluster of an image: equal for pictures of one emoji, one face.
    classes : names of the classes.
    attribution : source and licence, to be printed beside the images.
    grey_converted : how many of the images have no colour: grey files, converted, and RGB files
        whose three channels are equal.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    labels: Int64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    classes: list[str]
    attribution: str
    grey_converted: int


def load_images(
    name: str,
    split: str,
    size: int,
    *,
    crop: bool = False,
    per_class: int | None = None,
    download: bool = False,
) -> ImageSet:
    """Read a split of a set as ``size`` x ``size`` images.

    Shrinks by area interpolation, enlarges by cubic. The aspect is not kept unless ``crop`` cuts
    out the largest centred square first. Folders are found by $<NAME>_ROOT, else real/<name>,
    compared with their fingerprint, and decoded once into ``.cache/``.

    Parameters
    ----------
    name : embedded (emoji10, emoji100, emojifaces), torchvision's (cifar10, cifar100, stl10,
        celeba, imagenet) or registered by ``stages.data.register``.
    per_class : read only so many images of each class, a fixed choice; of imagenet only these are
        decoded.
    download : let torchvision fetch its set; nothing is ever fetched otherwise.

    Raises
    ------
    InputError
        If the set or split is unknown, the size is no side of an image, or the data is bad.
    """
    if per_class is not None and per_class < 1:
        raise InputError(
            f"{name}/{split}", "cannot be read", expected="1 image a class or more",
            found=f"per_class {per_class}", remedy="correct it in params.yaml, or leave it out",
        )  # fmt: skip
    if isinstance(size, bool) or not 1 <= size <= LARGEST:
        raise InputError(
            f"{name}/{split}", "has no such size", expected=f"a side of 1 to {LARGEST} pixels",
            found=size, remedy=f"give the side in pixels, {HELP}",
        )  # fmt: skip
    if name in TORCHVISION:
        got = torchvision_sets.read(
            name, split, size=size, crop=crop, download=download, per_class=per_class
        )
        attribution = torchvision_sets.ATTRIBUTION[name]
        return _image_set(got.images, got.labels, got.groups, got.classes, attribution, got.grey)
    fingerprint = read_fingerprint(name)
    if fingerprint["kind"] == "embedded":
        content = read_split(name, split, fingerprint, size=size, crop=crop)
        whole = _image_set(*content, ATTRIBUTION, 0)
    else:
        whole = _folder(name, split, size, crop, fingerprint)
    if per_class is None:
        return whole
    chosen = per_class_subset(whole.labels.tolist(), per_class)
    return replace(
        whole,
        images=whole.images[chosen],
        labels=whole.labels[chosen],
        groups=whole.groups[chosen],
    )


def _folder(name: str, split: str, size: int, crop: bool, fingerprint: dict) -> ImageSet:
    root = find_root(name)
    entries, expected = select(name, root, list_images(root), split, fingerprint)

    def check(hashes: list[str]) -> None:
        found = content_hash(entries, hashes)
        if found != expected["sha256"]:
            raise InputError(
                f"{root}/{split}",
                f"is not the registered {name}: a file has changed",
                expected=f"SHA-256 {expected['sha256'][:12]}...",
                found=f"{found[:12]}...",
                remedy=f"restore the folder or register it anew, {HELP}",
            )

    images, grey = decoded(
        f"{name}-{split}",
        [root / entry.path for entry in entries],
        size=size,
        key=expected["sha256"],
        crop=crop,
        check=check,
    )
    classes = list(expected["classes"])
    if odd := sorted({entry.label for entry in entries} - set(classes)):
        raise InputError(
            f"{root}/{split}", f"has classes that the fingerprint of {name} does not name",
            expected=f"of {', '.join(classes)}", found=", ".join(odd),
            remedy=f"register it anew, {HELP}",
        )  # fmt: skip
    groups = cluster_numbers(entries, fingerprint["group"])
    attribution = fingerprint["attribution"] or f"{name} (a registered folder)"
    return _image_set(images, _labels(entries, classes), groups, classes, attribution, grey)


def _labels(entries: list[Entry], classes: list[str]) -> list[int]:
    numbers = {label: number for number, label in enumerate(classes)}
    return [numbers[entry.label] for entry in entries]


def _image_set(images, labels, groups, classes, attribution, grey) -> ImageSet:
    labels, groups = np.asarray(labels, np.int64), np.asarray(groups, np.int64)
    return ImageSet(images, labels, groups, list(classes), attribution, grey)


def check_multiple(size: int, multiple: int, what: str) -> None:
    """Check that a network can take images of this size.

    Parameters
    ----------
    what : what needs it, as in "the generator's six halvings".

    Raises
    ------
    InputError
        If ``size`` is not a positive multiple of ``multiple``.
    """
    if size < 1 or size % multiple:
        below, above = size // multiple * multiple, (size // multiple + 1) * multiple
        raise InputError(
            "size",
            f"does not fit {what}",
            expected=f"a multiple of {multiple} pixels",
            found=size,
            remedy=f"take {f'{below} or ' if below > 0 else ''}{above} in params.yaml, {HELP}",
        )
