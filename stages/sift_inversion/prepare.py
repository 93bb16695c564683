"""Choose the images of the two sets: faces, and images of eight classes (Sec. IV).

The paper trains on 8,000 faces of CelebA and tests on 1,000, cropped to the largest centred square;
its eight classes of ImageNet have 8,000 images in all. Faces are drawn one of each person (or
drawing) in turn, so that a set has as many different ones as can be; classes get equal shares. No
person, and no emoji in another drawing or skin tone, is on two sides.

The paper does not say which images of the eight classes it tests on; here they are of the set's
test split, or, if training uses the same split, whole groups kept out of training.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from stages.common.errors import InputError, suggestion
from stages.common.files import write_json, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.data.images import ImageSet, load_images
from stages.data.subset import balanced


def prepare(
    data: Path,
    out: Path,
    *,
    faces: str,
    multi: str,
    multi_classes: list[str] | None,
    size: PositiveInt,
    crop: bool,
    n_train: PositiveInt,
    n_test: PositiveInt,
    panel: PositiveInt,
    split_seed: NonNegativeInt,
    train_split: str,
    test_split: str,
    multi_train_split: str | None = None,
    multi_test_split: str | None = None,
    pool: PositiveInt | None = None,
):
    """Write {faces,multi}_{train,test}.npz: images uint8 (n, size, size, 3), labels, groups.

    And meta.json: size; of each set its source, classes and sizes; ``panel``, the test images that
    are shown. ``data`` holds the embedded sets and is read by name through ``load_images``; real
    sets are read from where the user mounted them (docs/data.md). Training images are in random
    order: stages that use a share of them take the first ones.

    Parameters
    ----------
    faces, multi : names of the sets.
    multi_classes : those of ``multi`` that are used; None: all.
    crop : cut out the largest centred square; else the aspect is not kept.
    n_train, n_test : images of each set.
    panel : test images shown, of different groups, the classes taking turns.
    train_split, test_split : of ``faces``, and of ``multi`` unless ``multi_train_split`` and
        ``multi_test_split`` are given. If both are the same, groups are divided between them.
    pool : read only so many images of each class, a fixed choice, for sets too large to decode
        whole (CelebA is one class); None: all.

    Raises
    ------
    InputError
        If a set, split or class is unknown, or there are too few images.
    """
    rng = np.random.default_rng(split_seed)
    splits = {
        "faces": (train_split, test_split),
        "multi": (multi_train_split or train_split, multi_test_split or test_split),
    }
    counts = {"train": n_train, "test": n_test}
    about: dict[str, dict] = {}
    shown: dict[str, list[int]] = {}
    for label, name in (("faces", faces), ("multi", multi)):
        read = {split: load_images(name, split, size, crop=crop, per_class=pool)
                for split in dict.fromkeys(splits[label])}  # fmt: skip
        if label == "multi" and multi_classes is not None:
            read = {split: of_classes(name, whole, multi_classes) for split, whole in read.items()}
        sides = dict(zip(counts, splits[label], strict=True))
        held_out = np.zeros(0, np.int64)  # groups of the test images, where train could have them
        chosen: dict[str, tuple[ImageSet, np.ndarray]] = {}
        for side in ("test", "train"):
            source = read[sides[side]]
            free = np.flatnonzero(~np.isin(source.groups, held_out))
            if label == "faces":
                index = free[in_turn(source.groups[free], counts[side], rng)]
            else:
                index = free[balanced(source.labels[free], source.groups[free], counts[side], rng)]
            if len(index) < counts[side]:
                raise InputError(
                    f"{name} as {label}_{side}",
                    "has too few images",
                    expected=f"at least {counts[side]}",
                    found=len(index),
                    remedy=f"lower n_{side} of this profile in params.yaml",
                )
            if sides["train"] == sides["test"]:
                held_out = source.groups[index]
            chosen[side] = source, rng.permutation(index) if side == "train" else index
        for side, (source, index) in chosen.items():
            write_npz(
                out / f"{label}_{side}.npz",
                images=np.asarray(source.images[index]),
                labels=source.labels[index],
                groups=source.groups[index],
            )
        test, index = chosen["test"]
        about[label] = {
            "dataset": name,
            "classes": list(test.classes),
            "attribution": test.attribution,
            "grey_converted": sum(whole.grey_converted for whole in read.values()),
            **{f"{side}_split": split for side, split in sides.items()},
            **{f"n_{side}": len(index) for side, (_, index) in chosen.items()},
        }
        shown[label] = shown_images(test.labels[index], test.groups[index], panel)
    write_json(out / "meta.json", {"size": size, "sets": about, "panel": shown})


def of_classes(name: str, whole: ImageSet, classes: list[str]) -> ImageSet:
    """Return the images of some classes, their labels numbered anew in the order of ``classes``.

    Raises
    ------
    InputError
        If a class is unknown or named twice.
    """
    unknown = [c for c in classes if c not in whole.classes]
    if unknown or len(set(classes)) < len(classes) or not classes:
        raise InputError(
            "multi_classes",
            f"are not classes of {name}",
            expected=f"different ones of {', '.join(whole.classes)}",
            found=", ".join(map(repr, unknown or classes)) or "none",
            remedy=suggestion(unknown[0], whole.classes) if unknown else "name each once",
        )
    number = np.full(len(whole.classes), -1)
    number[[whole.classes.index(c) for c in classes]] = np.arange(len(classes))
    index = np.flatnonzero(number[whole.labels] >= 0)
    return replace(
        whole,
        images=whole.images[index],
        labels=number[whole.labels[index]],
        groups=whole.groups[index],
        classes=list(classes),
    )


def in_turn(
    keys: Int64[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> Int64[np.ndarray, " m"]:
    """Return ``count`` indices, ascending: one of each key, then a second of each, and so on.

    All, if there are fewer. Which index of a key comes first, and which keys have one more at the
    end, is drawn.
    """
    order = rng.permutation(len(keys))
    return np.sort(order[np.argsort(_turns(keys[order]), kind="stable")[:count]])


def shown_images(
    labels: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"], count: int
) -> list[int]:
    """Return ``count`` images of different groups, the labels taking turns; fewer, if too few."""
    first = np.flatnonzero(_turns(groups) == 0)
    return first[np.lexsort((labels[first], _turns(labels[first])))[:count]].tolist()


def _turns(keys: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return how many equal keys stand before each."""
    seen: Counter[int] = Counter()
    turns = np.empty(len(keys), np.int64)
    for i, key in enumerate(keys.tolist()):
        turns[i] = seen[key]
        seen[key] += 1
    return turns


if __name__ == "__main__":
    run(prepare, "sift_inversion.prepare")
