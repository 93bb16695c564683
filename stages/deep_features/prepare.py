"""Draw or read the sets: the black boxes' own, and the local ones (Sec. III-A).

The paper trains its black boxes on MSMT17 and looks at Market-1501 and DukeMTMC-reID. By default
drawn pedestrians stand for all three (``synthped``), so that no result needs images of people; a
user who has a set of people may name it instead (``stages.data.reid``).
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from stages.common.errors import InputError, suggestion
from stages.common.files import write_json, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.data.reid import ReidFolder, layouts
from stages.deep_features.labels import label, of_images
from stages.deep_features.synthped import ATTRIBUTION, check_sides, synthped, tasks
from stages.deep_features.synthped_camera import DOMAINS

SPLITS = ("train", "test")


def prepare(
    out: Path,
    *,
    proprietary: str,
    local_sets: list[str],
    height: PositiveInt,
    width: PositiveInt,
    proprietary_train: list[PositiveInt],
    proprietary_test: list[PositiveInt],
    local_train: list[PositiveInt],
    local_test: list[PositiveInt],
    panel: PositiveInt,
    set_seed: NonNegativeInt,
):
    """Write <set>_{train,test}.npz and meta.json.

    Arrays: images uint8 (n, height, width, 3); pids int64 (n,), 0 for distractors; camids int64
    (n,); attributes int64 (n, tasks), the class of each task, -1 where there is none, no columns
    in the proprietary set; annotated bool (n,), which rows have classes; query bool (n,), the
    queries of the test split. Junk images are left out; distractors and identities without
    attributes, or with other than one colour of each group, stay without classes.

    meta.json: height, width; proprietary, locals: names; sets: of each its attribution, whether it
    shows real people, tasks (name, classes), identities and images of each split, how many images
    were dropped or stay without classes, by reason; panel: indices of the test images that grids
    show.

    Parameters
    ----------
    proprietary : name of the set that the black boxes are trained on.
    local_sets : names of the others: synth_p, synth_a, synth_b, or keys of reid_layouts.yaml.
    height, width : of all images, pixels.
    proprietary_train, proprietary_test, local_train, local_test : identities, and images of each,
        of drawn sets; real sets are read whole.
    panel : test images shown of each set, each of another identity; fewer, if there are fewer.
    set_seed : of the drawn sets.

    Raises
    ------
    InputError
        If a set is unknown or named twice, the sides are not those of a person, a size is not two
        numbers, there are too few identities or images, or a real set cannot be read.
    """
    check_sides(height, width)
    _check_names(proprietary, local_sets)
    sizes = {
        True: {"train": proprietary_train, "test": proprietary_test},
        False: {"train": local_train, "test": local_test},
    }
    for owner, of_splits in (("proprietary", sizes[True]), ("local", sizes[False])):
        for split, size in of_splits.items():
            if len(size) != 2:
                raise InputError(
                    f"{owner}_{split}",
                    "is not the size of a set",
                    expected="two numbers, identities and images of each",
                    found=size,
                    remedy="correct it in params.yaml, as in [150, 8]",
                )
    about: dict[str, dict] = {}
    shown: dict[str, list[int]] = {}
    for name in (proprietary, *local_sets):
        local = name != proprietary
        if name in DOMAINS:
            arrays, facts = _drawn(name, sizes[not local], local, height, width, set_seed)
        else:
            arrays, facts = _read(name, local, height, width)
        pids = {split: np.unique(arrays[split]["pids"]) for split in SPLITS}
        _check_identities(name, pids["train"], pids["test"])
        for split in SPLITS:
            write_npz(out / f"{name}_{split}.npz", **arrays[split])
        about[name] = {
            **facts,
            **{f"n_{split}": len(arrays[split]["pids"]) for split in SPLITS},
            **{f"ids_{split}": int((pids[split] > 0).sum()) for split in SPLITS},
        }
        test = arrays["test"]
        good = test["pids"] > 0 if not local else test["annotated"]
        shown[name] = shown_images(test["pids"], test["camids"], good, panel)
    write_json(
        out / "meta.json",
        {
            "height": height,
            "width": width,
            "proprietary": proprietary,
            "locals": local_sets,
            "sets": about,
            "panel": shown,
        },
    )


def _drawn(
    name: str, sizes: dict[str, list[int]], local: bool, height: int, width: int, seed: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict]:
    arrays: dict[str, dict[str, np.ndarray]] = {}
    first_pid = 1
    for split in SPLITS:
        ids, images = sizes[split]
        drawn = synthped(
            name, split, ids=ids, images=images, height=height, width=width, seed=seed,
            first_pid=first_pid,
        )  # fmt: skip
        first_pid += ids
        n = len(drawn.pids)
        arrays[split] = {
            "images": drawn.images,
            "pids": drawn.pids,
            "camids": drawn.camids,
            "attributes": drawn.attributes if local else np.zeros((n, 0), np.int64),
            "annotated": np.full(n, local),
            "query": drawn.query,
        }
    facts = {"attribution": ATTRIBUTION, "real": False, "tasks": tasks() if local else []}
    return arrays, {**facts, "constant_tasks": [], "dropped": {}}


def _read(
    name: str, local: bool, height: int, width: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict]:
    folder = ReidFolder(name)
    rows = folder.annotations() if local else {}  # before the images: it may be missing
    parts = {split: folder.read(split, height=height, width=width) for split in SPLITS}
    facts = {"attribution": folder.layout["title"], "real": True}
    dropped = {"junk": sum(part.junk for part in parts.values())}
    labels = None
    if local:
        of_split = {
            split: {pid: rows[pid] for pid in np.unique(part.pids).tolist() if pid in rows}
            for split, part in parts.items()
        }
        labels = label(of_split["train"], of_split["test"])
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for split, part in parts.items():
        n = len(part.pids)
        attributes: np.ndarray = np.zeros((n, 0), np.int64)
        annotated: np.ndarray = np.zeros(n, bool)
        if labels is not None:
            attributes = of_images(part.pids, labels.classes[split])
            annotated = np.min(attributes, axis=1) >= 0
            for pid in part.pids[~annotated].tolist():
                reason = "distractor" if pid == 0 else "no_annotation"
                reason = labels.dropped[split].get(pid, reason)
                dropped[reason] = dropped.get(reason, 0) + 1
        arrays[split] = {
            "images": part.images,
            "pids": part.pids,
            "camids": part.camids,
            "attributes": attributes,
            "annotated": annotated,
            "query": part.query,
        }
    facts |= {"tasks": labels.tasks if labels else [], "dropped": dropped}
    return arrays, {**facts, "constant_tasks": labels.constant if labels else []}


def _check_names(proprietary: str, local_sets: list[str]) -> None:
    known = [*DOMAINS, *layouts()]
    names = [proprietary, *local_sets]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            unknown[0],
            "is not a known set of pedestrians",
            expected=f"one of {', '.join(known)}",
            found=repr(unknown[0]),
            remedy=suggestion(unknown[0], known),
        )
    if not local_sets or len(set(names)) < len(names):
        raise InputError(
            "proprietary and local_sets",
            "do not name different sets",
            expected="one set, and one local set or more, each once",
            found=f"{proprietary}; {', '.join(local_sets) or 'none'}",
            remedy="correct them in params.yaml",
        )


def _check_identities(
    name: str, train: Int64[np.ndarray, " n"], test: Int64[np.ndarray, " m"]
) -> None:
    both = set(train[train > 0].tolist()) & set(test.tolist())
    if both:
        raise InputError(
            name,
            "has the same identities in both splits",
            expected="different people in train and test",
            found=f"{len(both)} in both, such as {min(both)}",
            remedy="restore the folder, see docs/data.md",
        )
    for split, pids in (("train", train), ("test", test)):
        if (pids > 0).sum() < 2:
            raise InputError(
                f"{name}_{split}",
                "has too few identities",
                expected="at least 2",
                found=int((pids > 0).sum()),
                remedy="restore the folder, see docs/data.md",
            )


def shown_images(
    pids: Int64[np.ndarray, " n"],
    camids: Int64[np.ndarray, " n"],
    good: Bool[np.ndarray, " n"],
    count: int,
) -> list[int]:
    """Return ``count`` of the good images: one an identity, the cameras taking turns."""
    chosen: list[int] = []
    used: dict[int, int] = {}
    for pid in np.unique(pids[good]).tolist():
        index = np.flatnonzero(good & (pids == pid)).tolist()
        best = min(index, key=lambda i: (used.get(int(camids[i]), 0), i))
        used[int(camids[best])] = used.get(int(camids[best]), 0) + 1
        chosen.append(best)
        if len(chosen) == count:
            break
    return chosen


if __name__ == "__main__":
    run(prepare, "deep_features.prepare")
