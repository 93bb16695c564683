"""The sets that torchvision reads itself, with its own checksums: CIFAR, STL-10, CelebA, ImageNet.

The folder (``folder.find_root``) is torchvision's ``root``: the one that holds
``cifar-10-batches-py``, ``cifar-100-python``, ``stl10_binary``, ``celeba``, or ImageNet's archives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stages.common.errors import InputError, suggestion
from stages.data.cache import decoded
from stages.data.fingerprint import HELP, listing_hash
from stages.data.folder import find_root
from stages.data.resize import resize
from stages.data.subset import per_class_subset

SPLITS = {
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "stl10": ("train", "test"),
    "celeba": ("train", "valid", "test"),
    "imagenet": ("train", "val"),
}
ATTRIBUTION = {
    "cifar10": "CIFAR-10 (Krizhevsky 2009)",
    "cifar100": "CIFAR-100 (Krizhevsky 2009)",
    "stl10": "STL-10 (Coates, Ng and Lee 2011)",
    "celeba": "CelebA (Liu et al. 2015), for non-commercial research",
    "imagenet": "ImageNet ILSVRC 2012 (Russakovsky et al. 2015), for non-commercial research",
}


@dataclass(frozen=True)
class Read:
    """What one reader returns; ``labels`` and ``groups`` are lists of integers."""

    images: UInt8[np.ndarray, "n s s 3"]
    labels: list[int]
    groups: list[int]
    classes: list[str]
    grey: int


def read(
    name: str, split: str, *, size: int, crop: bool, download: bool, per_class: int | None = None
) -> Read:
    """Read a split of one of the five sets; fetch it first if, and only if, ``download``.

    ``per_class``: only so many images of each class.

    Raises
    ------
    InputError
        If the split is unknown, or torchvision finds files missing or with a wrong checksum.
    """
    if split not in SPLITS[name]:
        raise InputError(
            f"{name}/{split}",
            "is not a split of this set",
            expected=" or ".join(SPLITS[name]),
            found=f"{split!r} ({suggestion(split, SPLITS[name])})",
            remedy=HELP,
        )
    if name == "imagenet" and download:
        raise InputError(
            name,
            "cannot be downloaded",
            expected="the archives that ImageNet's site gives to registered users",
            found="download=True",
            remedy=f"put them into the folder yourself, {HELP}",
        )
    root = find_root(name, create=download)
    try:
        dataset = _open(name, split, root, download)
    except (RuntimeError, OSError) as error:
        raise InputError(
            root,
            f"does not hold {name}",
            expected="torchvision's files with their checksums",
            found=" ".join(str(error).split()),
            remedy=HELP,
        ) from error
    if name in ("celeba", "imagenet"):
        return _decode(name, split, dataset, root, size, crop, per_class)
    return _arrays(name, dataset, size, crop, per_class)


def _open(name: str, split: str, root: Path, download: bool):
    from torchvision import datasets  # takes seconds: only when one of its sets is asked for

    if name == "cifar10":
        return datasets.CIFAR10(root, split == "train", download=download)
    if name == "cifar100":
        return datasets.CIFAR100(root, split == "train", download=download)
    if name == "stl10":
        return datasets.STL10(root, split, download=download)
    if name == "celeba":
        return datasets.CelebA(root, split, target_type="identity", download=download)
    return datasets.ImageNet(root, split)


def _chosen(labels: Sequence[int], per_class: int | None) -> Sequence[int]:
    """Return the indices of the images to read."""
    if per_class is None:
        return range(len(labels))
    return per_class_subset(labels, per_class).tolist()


def _arrays(name: str, dataset, size: int, crop: bool, per_class: int | None) -> Read:
    images = dataset.data
    if name == "stl10":
        images = images.transpose(0, 2, 3, 1)  # n c h w on disk
    labels = [int(v) for v in (dataset.labels if name == "stl10" else dataset.targets)]
    chosen = _chosen(labels, per_class)
    resized = np.stack([resize(np.asarray(images[i]), size, crop=crop) for i in chosen])
    return Read(resized, [labels[i] for i in chosen], list(chosen), dataset.classes, 0)


def _decode(
    name: str, split: str, dataset, root: Path, size: int, crop: bool, per_class: int | None
) -> Read:
    if name == "celeba":
        folder = Path(dataset.root) / dataset.base_folder / "img_align_celeba"
        files = [folder / file for file in dataset.filename]
        labels, classes = [0] * len(files), ["face"]
        groups = [int(identity) for identity in dataset.identity.flatten()]
    else:
        files = [Path(path) for path, _ in dataset.samples]
        labels, groups = [label for _, label in dataset.samples], list(range(len(files)))
        classes = [", ".join(names) for names in dataset.classes]
    chosen = _chosen(labels, per_class)
    files = [files[i] for i in chosen]
    labels, groups = [labels[i] for i in chosen], [groups[i] for i in chosen]
    try:
        key = listing_hash((file.relative_to(root), file.stat().st_size) for file in files)
    except OSError as error:
        raise InputError(
            error.filename, f"is missing from {name}", expected=f"{len(files)} images",
            found=error.strerror, remedy=HELP,
        ) from error  # fmt: skip
    images, grey = decoded(
        f"{name}-{split}",
        files,
        size=size,
        key=key,
        crop=crop,
        cmyk=name == "imagenet",  # it has a few; torchvision's own loader converts them too
    )
    return Read(images, labels, groups, classes, grey)
