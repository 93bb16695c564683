"""Choose the images of the target, of the transfer task, and of the attacker (Sec. IV-A).

The attacker's images are disjoint from those that h_theta and h_p are trained on (STL-10 against
CIFAR-10 in the paper). If both come from one set, they are different images of it, and no group (an
emoji in two drawings) is on two sides.
"""

from pathlib import Path

import numpy as np

from stages.common.errors import InputError
from stages.common.files import write_json, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.data.images import ImageSet, load_images
from stages.data.subset import balanced


def _enough(name: str, split: str, found: int, wanted: int) -> None:
    if found < wanted:
        raise InputError(
            f"{name} as {split}",
            "has too few images",
            expected=f"at least {wanted}",
            found=found,
            remedy=f"lower n_{split} of this profile in params.yaml",
        )


def _shuffled(index: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return the indices in random order; of a group, if any, one after the other."""
    index = rng.permutation(index)
    if groups is None:
        return index
    first = {int(group): place for place, group in reversed(list(enumerate(groups[index])))}
    return index[np.argsort([first[int(group)] for group in groups[index]], kind="stable")]


def _same_classes(
    train: tuple[ImageSet, np.ndarray], test: tuple[ImageSet, np.ndarray], task: str
) -> None:
    learned, asked = ({int(v) for v in part.labels[index]} for part, index in (train, test))
    if asked - learned:
        raise InputError(
            f"{task}test",
            "asks for classes of which no image is in training",
            expected=f"{len(asked)} classes in {task}train",
            found=f"{len(asked & learned)} of them",
            remedy=f"raise n_{task}train of this profile in params.yaml",
        )


def prepare(
    data: Path,
    out: Path,
    *,
    dataset: str,
    transfer_dataset: str,
    attack_dataset: str,
    size: PositiveInt,
    attack_size: PositiveInt,
    n_train: PositiveInt,
    n_test: PositiveInt,
    n_transfer_train: PositiveInt,
    n_transfer_test: PositiveInt,
    n_attack_train: PositiveInt,
    n_attack_test: PositiveInt,
    transfer_classes: PositiveInt | None,
    attack_from: str,
    split_seed: NonNegativeInt,
):
    """Write {,transfer_,attack_}{train,test}.npz: images uint8 (n, s, s, 3), labels, groups.

    ``data`` holds the embedded sets and is read by name through ``load_images``; real sets are read
    from where the user mounted them (docs/data.md). Training images, and the attacker's, are in
    random order, those of a group beside each other: the attacker's T1 is the first half, T2 the
    second, and at most one group is in both.

    Parameters
    ----------
    transfer_classes : how many classes of ``transfer_dataset`` are drawn; None: all.
    attack_from : split of ``attack_dataset`` that the attacker trains on; ``test`` halves the test
        split between training and testing the attack.
    """
    rng = np.random.default_rng(split_seed)
    sets: dict[tuple[str, str, int], ImageSet] = {}

    def read(name: str, split: str, side: int) -> ImageSet:
        if (name, split, side) not in sets:
            sets[name, split, side] = load_images(name, split, side)
        return sets[name, split, side]

    taken: dict[tuple[str, str], np.ndarray] = {}  # groups in use, by set and split

    def choose(
        label: str,
        name: str,
        split: str,
        side: int,
        count: int,
        *,
        apart: bool = False,
        whole: bool = True,
        classes: np.ndarray | None = None,
    ) -> None:
        source = read(name, split, side)
        free = np.arange(len(source.labels))
        if apart:
            free = free[~np.isin(source.groups, taken.get((name, split), []))]
        if classes is not None:
            free = free[np.isin(source.labels[free], classes)]
        together = source.groups[free] if whole else np.arange(len(free))
        index = free[balanced(source.labels[free], together, count, rng)]
        _enough(name, label, len(index), count)
        before = taken.get((name, split), np.zeros(0, np.int64))
        taken[name, split] = np.union1d(before, source.groups[index])
        if label.endswith("train"):
            index = _shuffled(index, source.groups if whole else None, rng)
        chosen[label] = (source, index)
        write_npz(
            out / f"{label}.npz",
            images=np.asarray(source.images[index]),
            labels=source.labels[index],
            groups=source.groups[index],
        )

    chosen: dict[str, tuple[ImageSet, np.ndarray]] = {}
    choose("train", dataset, "train", size, n_train)
    choose("attack_train", attack_dataset, attack_from, attack_size, n_attack_train, apart=True)
    choose(
        "attack_test", attack_dataset, "test", attack_size, n_attack_test,
        apart=attack_from == "test",
    )  # fmt: skip
    choose("test", dataset, "test", size, n_test)
    # of emoji100 a class is a group: whole groups would leave classes out
    known = np.unique(read(transfer_dataset, "train", size).labels)
    few = rng.permutation(known)[:transfer_classes]
    for label, split, count in (
        ("transfer_train", "train", n_transfer_train),
        ("transfer_test", "test", n_transfer_test),
    ):
        choose(label, transfer_dataset, split, size, count, whole=False, classes=few)
    for task in ("", "transfer_"):
        _same_classes(chosen[f"{task}train"], chosen[f"{task}test"], task)
    labels = chosen["attack_test"][0].labels[chosen["attack_test"][1]]
    write_json(
        out / "meta.json",
        {
            "dataset": dataset,
            "transfer_dataset": transfer_dataset,
            "attack_dataset": attack_dataset,
            "size": size,
            "attack_size": attack_size,
            "classes": list(chosen["train"][0].classes),
            "transfer_classes": len(few),
            "attribution": {
                name: read(name, split, side).attribution for name, split, side in list(sets)
            },
            "panel": [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)],
            **{f"n_{label}": len(index) for label, (_, index) in chosen.items()},
        },
    )


if __name__ == "__main__":
    run(prepare, "gan_transform.prepare")
