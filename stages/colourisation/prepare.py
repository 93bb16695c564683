"""Choose the train, validation and test images of a profile, balanced over classes.

The paper trains on ILSVRC's validation set and tests on 10 images a class of its training set
(Sec. IV-A); ``dataset: imagenet`` does so in the ``paper`` profile. Other sets use their own split;
validation images are taken from train, and no group (an emoji in two drawings) is on two sides.
"""

from pathlib import Path

import numpy as np

from stages.common.errors import InputError
from stages.common.files import write_json, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.data.images import load_images
from stages.data.subset import balanced


def prepare(
    data: Path,
    out: Path,
    *,
    dataset: str,
    train_split: str,
    test_split: str,
    size: PositiveInt,
    test_per_class: PositiveInt | None,
    n_train: PositiveInt,
    n_val: PositiveInt,
    n_test: PositiveInt,
    split_seed: NonNegativeInt,
):
    """Write {train,val,test}.npz (images uint8 (n, size, size, 3), labels, groups) and meta.json.

    ``data`` holds the embedded sets and is read by name through ``load_images``; real sets are read
    from where the user mounted them (docs/data.md).
    """
    train = load_images(dataset, train_split, size)
    test = load_images(dataset, test_split, size, per_class=test_per_class)
    rng = np.random.default_rng(split_seed)
    val = balanced(train.labels, train.groups, n_val, rng)
    rest = np.flatnonzero(~np.isin(train.groups, train.groups[val]))
    chosen = {
        "train": (train, rest[balanced(train.labels[rest], train.groups[rest], n_train, rng)]),
        "val": (train, val),
        "test": (test, balanced(test.labels, test.groups, n_test, rng)),
    }
    for split, (source, index) in chosen.items():
        if len(index) < (wanted := {"train": n_train, "val": n_val, "test": n_test}[split]):
            raise InputError(
                f"{dataset} as {split}",
                "has too few images",
                expected=f"at least {wanted}",
                found=len(index),
                remedy=f"lower n_{split} of this profile in params.yaml",
            )
        if split == "train":  # later stages look at the first images: let these be of all classes
            index = rng.permutation(index)
        write_npz(
            out / f"{split}.npz",
            images=np.asarray(source.images[index]),
            labels=source.labels[index],
            groups=source.groups[index],
        )
    write_json(
        out / "meta.json",
        {
            "dataset": dataset,
            "attribution": train.attribution,
            "classes": list(train.classes),
            "size": size,
            "grey_converted": train.grey_converted + test.grey_converted,
            **{f"n_{split}": len(index) for split, (_, index) in chosen.items()},
        },
    )


if __name__ == "__main__":
    run(prepare, "colourisation.prepare")
