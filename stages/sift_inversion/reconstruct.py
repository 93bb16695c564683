"""Reconstruct the test images from their descriptors, all of them and some (Sec. IV, Fig. 7).

Every run sees all keypoints; one run also sees what is left after a region's, or any, keypoints are
removed, though it was trained on all. Beside the reconstructions stand floors, images that an
attacker has without any descriptor, or the original with something missing: what a number of a
reconstruction must be read against.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Int64, UInt8

from stages.common.device import evaluation_device
from stages.common.errors import InputError, suggestion
from stages.common.files import read_npz, write_json, write_npz
from stages.common.params import Fraction, NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed
from stages.sift_inversion import partial
from stages.sift_inversion.keypoints import Descriptors, read
from stages.sift_inversion.luma import luma_chroma
from stages.sift_inversion.models import Model, load_run, read_meta
from stages.sift_inversion.pairs import to_uint8

SETS = ("faces", "multi")
FULL = "full"
BLUR = 0.016  # sigma of the floor "blur", in sides of the image; ours

Images = UInt8[np.ndarray, "n s s 3"]


def reconstruct(
    data: Path,
    extracted: Path,
    trained: Path,
    refined: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    variants: list[str],
    threads: PositiveInt,
    size: PositiveInt,
    batch_size: PositiveInt,
    partial_run: str,
    boxes: list[Fraction],
    places: list[str],
    modes: list[str],
    keeps: list[Fraction],
    split_seed: NonNegativeInt,
):
    """Write <run>/<condition>-s<seed>.npz: images uint8 (n, size, size, 3), as the test images lie.

    ``trained`` and ``refined`` hold a folder a run. Also writes meta.json: the set and the
    conditions of each run; floors/<set>-<name>.npz: images; and partial.npz: masks bool
    (n, size, size) box-<place>-<f>, and removed-<condition> (n,), the share of an image's keypoints
    that is removed (0 if it has none).

    Parameters
    ----------
    variants : the runs; other folders, of runs that were removed, are left alone.
    batch_size : images reconstructed at once.
    partial_run : the run that sees some of the keypoints only, beside all.
    boxes, places, modes, keeps : what it sees, see :func:`partial.condition_names`.
    split_seed : of boxes at random places and of keypoints kept at random.

    Raises
    ------
    InputError
        If there is no run, ``partial_run`` is not among them, a place or mode is unknown, a file is
        missing or damaged, or descriptors, networks and images do not belong together.
    """
    folders = find_runs(trained, refined, variants)
    if partial_run not in folders:
        raise InputError(
            "partial_run",
            "is no trained run",
            expected=f"one of {', '.join(folders)}",
            found=repr(partial_run),
            remedy=suggestion(partial_run, list(folders)),
        )
    for key, values, known in (("places", places, partial.PLACES), ("modes", modes, partial.MODES)):
        if unknown := [value for value in values if value not in known]:
            raise InputError(
                key, "has an unknown value", expected=f"of {', '.join(known)}",
                found=repr(unknown[0]), remedy=suggestion(unknown[0], list(known)),
            )  # fmt: skip
    conditions = partial.condition_names(boxes, places, modes, keeps)
    runs = {
        name: {
            "set": read_meta(folder)["set"],
            "conditions": [FULL, *(conditions if name == partial_run else ())],
        }
        for name, folder in folders.items()
    }
    images = {name: read_npz(data / f"{name}_test.npz")["images"] for name in SETS}
    descriptors = {name: read_test(extracted, name, images[name], size) for name in SETS}
    for name, about in runs.items():
        meta = read_meta(folders[name])
        if meta["size"] != size or about["set"] not in SETS:
            raise InputError(
                folders[name] / "meta.json",
                "is of other images",
                expected=f"size {size}, set {' or '.join(SETS)}",
                found=f"size {meta['size']}, set {about['set']}",
                remedy="train the run again (dvc repro)",
            )
    for_each_seed(
        reconstruct_one,
        seeds,
        threads=threads,
        extracted=extracted,
        folders=folders,
        out=out,
        runs=runs,
        batch_size=batch_size,
        split_seed=split_seed,
    )
    own = descriptors[runs[partial_run]["set"]]
    masks = {
        f"box-{place}-{f:g}": partial.box_masks(partial.boxes(own, place, f, seed=split_seed), size)
        for place in places
        for f in boxes
    }
    removed = {f"removed-{name}": removed_share(own, name, split_seed) for name in conditions}
    write_npz(out / "partial.npz", **masks, **removed)
    for name in SETS:
        train = read_npz(data / f"{name}_train.npz", ["images"])["images"]
        groups = read_npz(data / f"{name}_test.npz", ["groups"])["groups"]
        for floor, shown in floor_images(train, images[name], groups).items():
            write_npz(out / "floors" / f"{name}-{floor}.npz", images=shown)
    write_json(out / "meta.json", {"runs": runs, "partial_run": partial_run, "seeds": seeds})
    return {"runs": len(runs), "conditions": sum(len(r["conditions"]) for r in runs.values())}


def find_runs(trained: Path, refined: Path, variants: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each run of ``variants``, by name: a removed run leaves its folder.

    Raises
    ------
    InputError
        If there is none, or two have one name.
    """
    paths = [path for root in (trained, refined) for path in root.glob("*/meta.json")]
    found = [path.parent for path in paths if path.parent.name in variants]
    folders = {folder.name: folder for folder in sorted(found)}
    if not folders or len(folders) < len(found):
        raise InputError(
            trained,
            "and the folder of refined runs do not hold what to reconstruct with",
            expected="a folder a run, with meta.json, each name once",
            found=", ".join(sorted(folder.name for folder in found)) or "none",
            remedy="run the stages that train (dvc repro)",
        )
    return folders


def read_test(extracted: Path, name: str, images: Images, size: int) -> Descriptors:
    """Read the keypoints of a set's test images.

    Raises
    ------
    InputError
        If they are missing or damaged, or of other images.
    """
    folder = extracted / f"{name}_test"
    descriptors = read(folder)
    found = (len(descriptors), descriptors.size, size)
    if found != images.shape[:3]:
        raise InputError(
            folder,
            "does not belong to the prepared images",
            expected=f"{len(images)} images of {images.shape[1]} pixels, as size says",
            found=f"{found[0]} of {found[1]}, size {size}",
            remedy="run the stages before this one again (dvc repro)",
        )
    return descriptors


def reconstruct_one(
    extracted: Path,
    folders: Mapping[str, Path],
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    runs: Mapping[str, dict],
    batch_size: int,
    split_seed: int,
) -> dict[str, int]:
    """Reconstruct with all runs of one seed; returns how many conditions each has."""
    torch.set_num_threads(threads)
    device = evaluation_device()
    for name, about in runs.items():
        model = load_run(folders[name], seed, device)
        descriptors = read(extracted / f"{about['set']}_test")
        for condition in about["conditions"]:
            left = descriptors
            if condition != FULL:
                left = partial.select(
                    descriptors, partial.kept(descriptors, condition, seed=split_seed)
                )
            images = images_of(model, left, batch_size)
            write_npz(out / name / f"{condition}-s{seed}.npz", images=images)
        print(f"  {name}, seed {seed}: {len(about['conditions'])} conditions", flush=True)
    return {name: len(about["conditions"]) for name, about in runs.items()}


def images_of(model: Model, descriptors: Descriptors, batch_size: int) -> Images:
    """Return what ``model`` makes of each image's descriptors, 8-bit RGB."""
    n = len(descriptors)
    parts = [
        to_uint8(model(descriptors.take(np.arange(start, min(start + batch_size, n))))).cpu()
        for start in range(0, n, batch_size)
    ]
    return torch.cat(parts).numpy()


def removed_share(descriptors: Descriptors, condition: str, seed: int) -> np.ndarray:
    """Return the share of each image's keypoints that ``condition`` removes; 0 if it has none."""
    gone = ~partial.kept(descriptors, condition, seed=seed)
    count = np.bincount(descriptors.image, gone, len(descriptors))
    return count / np.maximum(descriptors.counts, 1)


def floor_images(
    train: UInt8[np.ndarray, "_m s s 3"], test: Images, groups: Int64[np.ndarray, " n"]
) -> dict[str, Images]:
    """Return the floors of a test set, by name.

    mean, mean_colour: the mean of the training images, and of all their pixels. other: the next
    test image of another group. grey, blur: the original without its chroma, and blurred.

    Raises
    ------
    InputError
        If all test images are of one group.
    """
    if len(np.unique(groups)) < 2:
        raise InputError(
            "test images",
            "have no other image to compare with",
            expected="2 groups or more",
            found=f"{len(test)} images of one group",
            remedy="raise n_test of this profile in params.yaml",
        )
    n, S = len(test), test.shape[1]
    mean = train.mean(0, dtype=np.float64)
    following = (np.arange(n)[:, None] + np.arange(1, n)) % n  # the others, nearest first
    other = following[np.arange(n), (groups[following] != groups[:, None]).argmax(1)]
    Y = np.rint(luma_chroma(test)[0]).astype(np.uint8)
    blurred = [
        cv2.GaussianBlur(image, (0, 0), BLUR * S, borderType=cv2.BORDER_REFLECT) for image in test
    ]
    constant = {"mean": mean, "mean_colour": np.broadcast_to(mean.mean((0, 1)), (S, S, 3))}
    return {
        **{
            name: np.repeat(np.rint(image)[None].astype(np.uint8), n, 0)
            for name, image in constant.items()
        },
        "other": test[other],
        "grey": np.repeat(Y[..., None], 3, -1),
        "blur": np.stack(blurred),
    }


if __name__ == "__main__":
    run(reconstruct, "sift_inversion.reconstruct")
