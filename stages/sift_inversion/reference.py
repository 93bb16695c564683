"""Measure SIFT, floors and one small network on generated photographs, to check from outside.

``python -m stages.sift_inversion.reference OUT.json`` reads the mounted set ``synthfaces256``
($SYNTHFACES256_ROOT or real/synthfaces256), faces of nobody at 256 px, by the same code as the
pipeline, and trains R42_J at half of the width on 64 px. No stage depends on it.
"""

import argparse
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from stages.common.bootstrap import mean_interval
from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_json, write_json, write_npz
from stages.common.networks.efficientnet_lite import load_efficientnet_lite0
from stages.common.params import load_params, section
from stages.common.stage import one_sentence
from stages.data.images import load_images
from stages.sift_inversion import sift
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.keypoints import SCALES, Descriptors, write
from stages.sift_inversion.measures import keypoint_agreement, load_real, measure
from stages.sift_inversion.models import load_run
from stages.sift_inversion.reconstruct import floor_images, images_of
from stages.sift_inversion.train import train

SET = "synthfaces256"
TEST, MORE = "main", "variants"  # splits; no face is in both
SIZE = 256  # the files' own
SMALL = 64  # of the network
FACES = 200  # of TEST, that are measured and that no network sees
LARGER = 72  # px; of it the copies are cut
COPIES = 6  # of every training face, cut, scaled and mirrored anew: 2,300 faces are learnt by heart
IMAGES = 44_000  # seen in training: some nine minutes on two idle cores
TRAIN_SECONDS = 600
THREADS = 2  # several times slower where another process wants a core
SEED = 0
RUN = "R42_J"
# Beside params.yaml's: half of the width, Adam's usual rate, which falls to 0, eq. (4) alone, which
# is twice as fast, for the first four fifths, and phi of images averaged to 32 px
NETWORK = {
    "width": 0.5,
    "phi_size": 32,
    "lr": 1e-3,
    "lr_end": 0,
    "l2_first": 0.8,
    "batch_size": 16,
    "n_val": 0,
    "log_every": 50,
}
FIRST_OF_MORE = 1_000_000  # added to the groups of MORE, so that none is one of TEST's
BATCH = 50  # images measured at once
LEVEL, RESAMPLES = 0.95, 10_000
# Measured before this code existed, on ten photographs of faces (CelebA-HQ, shrunk to each side)
EARLIER_SIFT = {"keypoints": 262, "collisions": {4: 0.164, 2: 0.141}, "owned": {4: 0.053, 2: 0.014}}
EARLIER_RANGE = (111, 630)  # keypoints of an image
ITSELF = {"dcos": 1.0, "dmatch": 1.0, "kpr": 1.0}
EARLIER_FLOORS: dict[int, dict[str, dict[str, float]]] = {
    SIZE: {
        "identity": ITSELF,
        "mean": {"dcos": 0.59, "dmatch": 0.22},
        "other": {"dcos": 0.40, "dmatch": 0.07, "kpr": 0.07},
        "blur": {"dcos": 0.775},
    },
    SMALL: {
        "identity": ITSELF,
        "mean": {"dcos": 0.63, "dmatch": 0.50},
        "other": {"dcos": 0.47, "dmatch": 0.28, "kpr": 0.11},
        "blur": {"dcos": 0.98},
    },
}
TOLERANCE = {"floors": 0.1, "collisions": 0.05}  # of other photographs; the identity is exact
# measure -> the side on which the network must be; 0: told only
MEASURES = {"pd": -1, "id1": 1, "psnr": 0, "ssim": 0, "log_sharp": 0}
VERDICTS = {"pd": "beats the mean face in PD", "id1": "beats the mean face in retrieval"}

Images = UInt8[np.ndarray, "_ s s 3"]  # two sets need not be as large


class Faces(NamedTuple):
    """The split ``TEST`` at one size: faces to measure, with their keypoints, and the others."""

    test: Images
    test_groups: Int64[np.ndarray, " n"]
    keypoints: Descriptors
    others: Images
    other_groups: Int64[np.ndarray, " r"]


def reference(
    out: Path,
    *,
    images: int = IMAGES,
    faces: int = FACES,
    train_seconds: int = TRAIN_SECONDS,
    threads: int = THREADS,
) -> None:
    """Write ``out``: facts of SIFT, floors of its cosines, and a network against the mean face.

    Parameters
    ----------
    images : seen in training, to a multiple of the batch; always as many, however fast.
    faces : measured, of the split ``main``; the network is trained on the others and ``variants``.
    train_seconds : if training takes longer, nothing is written.
    threads : of torch; another count changes the last bits.

    Raises
    ------
    InputError
        If the set is missing or not the registered one, there are too few faces, or training takes
        too long.
    """
    start = time.perf_counter()
    rules = section(load_params(), "sift_inversion.extract")
    large, small = (read_faces(size, faces, rules) for size in (SIZE, SMALL))
    content: dict[str, Any] = {
        "set": SET,
        "n": faces,
        "tolerance": TOLERANCE,
        "sift": sift_facts(large.keypoints),
        "floors": {
            size: floors(of, rules, EARLIER_FLOORS[size])
            for size, of in ((SIZE, large), (SMALL, small))
        },
    }
    more = load_images(SET, MORE, SMALL)
    pool = np.concatenate([small.others, more.images])
    pool_groups = np.concatenate([small.other_groups, more.groups + FIRST_OF_MORE])
    wider = [read_faces(LARGER, faces, rules).others, load_images(SET, MORE, LARGER).images]
    drawn = np.concatenate([pool, copies(np.concatenate(wider), COPIES)])
    seconds = {"before_training": time.perf_counter() - start}
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        guesses, about = inverted(
            drawn,
            np.tile(pool_groups, 1 + COPIES),
            small.keypoints,
            rules,
            Path(folder),
            images=images,
            seconds=train_seconds,
            threads=threads,
        )
        seconds["training"] = time.perf_counter() - begun
    mean = floor_images(pool, small.test, small.test_groups)["mean"]
    content["network"] = compare({"mean": mean, RUN: guesses}, small, rules)
    content["verdicts"] = {
        words: verdict(content["network"]["difference"][name], MEASURES[name])
        for name, words in VERDICTS.items()
    }
    content["agrees"] = {
        "sift": all(row["agrees"] for row in content["sift"].values() if "agrees" in row),
        **{
            f"floors_{size}": all(
                value["agrees"] for row in rows.values() for value in row.values() if len(value) > 1
            )
            for size, rows in content["floors"].items()
        },
    }
    seconds["all"] = time.perf_counter() - start
    content["provenance"] = {
        "cv2": cv2.__version__,
        "torch": torch.__version__,
        "device": evaluation_device().type,
        "threads": threads,
        "seed": SEED,
        "seconds": seconds,
        "extract": rules,
        "train": about,
    }
    write_json(out, content)
    tell(content)


def read_faces(size: int, count: int, rules: Mapping[str, Any]) -> Faces:
    """Draw ``count`` faces to measure, the same at every size; no other image is of their groups.

    Raises
    ------
    InputError
        If the set is missing or not the registered one, ``count`` is below 2, or no face is left.
    """
    photos = load_images(SET, TEST, size)
    chosen = np.random.default_rng(SEED).permutation(len(photos.groups))[:count]
    rest = np.flatnonzero(~np.isin(photos.groups, photos.groups[chosen]))
    if count < 2 or not len(rest):
        raise InputError(
            "--faces",
            "does not suit the set",
            expected=f"2 or more, and some of the {len(photos.groups)} faces left for training",
            found=count,
            remedy="give another number",
        )
    test, others = (np.array(photos.images[index]) for index in (chosen, rest))
    keypoints = keypoints_of(test, rules)
    return Faces(test, photos.groups[chosen], keypoints, others, photos.groups[rest])


def copies(images: Images, count: int) -> UInt8[np.ndarray, "_ t t 3"]:
    """Cut every image ``count`` times anew, at SMALL px: another place and scale, half mirrored.

    The descriptors of a copy are computed from it, as those of any other image. All the first
    copies come first.
    """
    rng = np.random.default_rng(SEED)
    large = images.shape[1]
    made = np.empty((count, len(images), SMALL, SMALL, 3), np.uint8)
    for copy in made:
        for out, image in zip(copy, images, strict=True):
            side = int(rng.integers(SMALL, large + 1))
            top, left = rng.integers(0, large - side + 1, 2)
            cut = image[top : top + side, left : left + side]
            out[:] = cv2.resize(cut, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
            if rng.integers(2):
                out[:] = out[:, ::-1].copy()
    return made.reshape(-1, SMALL, SMALL, 3)


def keypoints_of(images: Images, rules: Mapping[str, Any]) -> Descriptors:
    """Find and place keypoints as ``extract`` does, in this process."""
    size = images.shape[1]
    return arrange(find(images, rules, f"SIFT at {size} px", workers=1), size, rules)


def sift_facts(keypoints: Descriptors) -> dict[str, dict[str, Any]]:
    """Return keypoints an image and what becomes of them, beside the values measured earlier.

    owned: share of the cells that some keypoint lies in. occupancy: of those that hold one after
    the others have moved. collisions: share of the keypoints that lie in another's cell. dropped:
    keypoints that found no cell. All but the first by cell side d.
    """
    meta, counts = keypoints.meta, keypoints.counts
    shares = meta["collisions"]
    cells = {d: len(keypoints) * (-(-keypoints.size // d)) ** 2 for d in SCALES}
    owned = {d: (1 - (shares[d] or 0)) * len(keypoints.kp) / cells[d] for d in SCALES}
    mean, (low, high) = float(counts.mean()), EARLIER_RANGE
    return {
        "keypoints": {
            "mean": mean,
            "min": int(counts.min()),
            "max": int(counts.max()),
            "images_without": meta["images_without"],
            "reference": EARLIER_SIFT["keypoints"],
            "agrees": low <= mean <= high,
        },
        "collisions": {
            "share": shares,
            "reference": EARLIER_SIFT["collisions"],
            "agrees": all(
                shares[d] is not None and abs(shares[d] - earlier) <= TOLERANCE["collisions"]
                for d, earlier in EARLIER_SIFT["collisions"].items()
            ),
        },
        "owned": {"share": owned, "reference": EARLIER_SIFT["owned"]},
        "occupancy": {"share": meta["occupancy"]},
        "same_point": {"share": meta["same_point"]},
        "dropped": {"count": meta["dropped"], "reference": 0},
    }


def floors(
    faces: Faces, rules: Mapping[str, Any], earlier: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return DC, DM and KPR of images that no network made, the means over the faces.

    Parameters
    ----------
    earlier : values measured earlier, by name of the images (mean: of the other faces) and measure.
    """
    made = {
        "identity": faces.test,
        **floor_images(faces.others, faces.test, faces.test_groups),
    }
    detector = sift.detector(rules)
    rows = {}
    for name, references in earlier.items():
        found = keypoint_agreement(made[name], faces.keypoints, detector)
        tolerance = 0.0 if name == "identity" else TOLERANCE["floors"]
        rows[name] = row = {}
        for measure_name, values in found.items():
            known = values[~np.isnan(values)]  # an image without keypoints has none
            value = float(known.mean()) if len(known) else None
            row[measure_name] = {"value": value}
            if (old := references.get(measure_name)) is not None:
                agrees = value is not None and abs(value - old) <= tolerance
                row[measure_name] |= {"reference": old, "agrees": agrees}
    return rows


@contextmanager
def at_most(seconds: float | int) -> Iterator[None]:
    """Stop what runs below after so many seconds, by :class:`InputError`."""

    def stop(*_: object) -> None:
        raise InputError(
            "training",
            "takes too long",
            expected=f"at most {seconds} s (--train-seconds)",
            found="more on this machine",
            remedy="run again, it resumes; or raise --train-seconds, or lower --images",
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def inverted(
    pool: Images,
    groups: Int64[np.ndarray, " n"],
    keypoints: Descriptors,
    rules: Mapping[str, Any],
    folder: Path,
    *,
    images: int,
    seconds: int,
    threads: int,
) -> tuple[Images, dict[str, Any]]:
    """Train on ``pool`` by the stage and return what the network makes of ``keypoints``.

    And what the training was: its parameters, how many images it saw, and how fast. If it is
    stopped, the same call resumes at its last checkpoint.
    """
    params = load_params()
    settings = {
        **section(params, "sift_inversion.train"),
        **section(params, f"sift_inversion.variants.{RUN}"),
        **NETWORK,
        "images": images,
        "seeds": [SEED],
        "threads": threads,
        "size": pool.shape[1],
    }
    settings["log_every"] = max(1, min(settings["log_every"], images // settings["batch_size"]))
    data, extracted, out = folder / "data", folder / "extract", folder / "reference" / "train" / RUN
    write_npz(data / "faces_train.npz", images=pool, groups=groups, labels=np.zeros_like(groups))
    write(extracted / "faces_train", keypoints_of(pool, rules))
    out.parent.mkdir(parents=True)
    with at_most(seconds):
        facts = train(data, extracted, out, **settings)
    history = read_json(out / f"history-s{SEED}.json")
    guesses = images_of(load_run(out, SEED, evaluation_device()), keypoints, BATCH)
    return guesses, {
        **settings,
        "images_seen": history["steps"] * history["batch_size"],
        "images_per_s": facts["images_per_s_of_each_seed"][0],
        "trained_on": history["trained_on"],
        "parameters": history["parameters"],
        "last_log": history["log"][-1],
    }


def compare(made: Mapping[str, Images], faces: Faces, rules: Mapping[str, Any]) -> dict[str, Any]:
    """Measure both rows of ``made``, and the second less the first: mean, lo and hi of each.

    Intervals are of the bootstrap over faces, paired. Also ``chance``, of a retrieval.
    """
    net = load_efficientnet_lite0()
    real = load_real(faces.test, faces.keypoints, net, batch_size=BATCH, pca=1)
    detector = sift.detector(rules)
    rows = {
        name: measure(images, real, net, detector, regions={}, batch_size=BATCH)
        for name, images in made.items()
    }
    first, second = rows

    def told(values: Float[np.ndarray, " n"]) -> dict[str, float]:
        found = mean_interval(
            values, faces.test_groups, resamples=RESAMPLES, seed=SEED, level=LEVEL
        )
        return dict(zip(("mean", "lo", "hi"), found, strict=True))

    return {
        "size": faces.keypoints.size,
        "chance": 1 / len(faces.test),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "rows": {name: {m: told(row[m]) for m in MEASURES} for name, row in rows.items()},
        "difference": {m: told(rows[second][m] - rows[first][m]) for m in MEASURES},
    }


def verdict(difference: Mapping[str, float], side: int) -> str:
    """Say whether an interval lies below 0 (``side`` -1) or above it (1), where it should."""
    ends = sorted(side * difference[end] for end in ("lo", "hi"))
    if ends[0] > 0:
        return "supported"
    return "contradicted" if ends[1] < 0 else "inconclusive"


def tell(content: Mapping[str, Any]) -> None:
    """Print what was written, a line a row."""
    for name, row in content["sift"].items():
        print(f"{name}: {row}")
    for size, rows in content["floors"].items():
        for name, row in rows.items():
            told = (
                f"{m} {v['value']:.3f}" + (f" (earlier {v['reference']})" if len(v) > 1 else "")
                for m, v in row.items()
                if v["value"] is not None
            )
            print(f"{name} at {size} px: {', '.join(told)}")
    for name, row in [
        *content["network"]["rows"].items(),
        ("less", content["network"]["difference"]),
    ]:
        told = (f"{m} {v['mean']:.3f} [{v['lo']:.3f}, {v['hi']:.3f}]" for m, v in row.items())
        print(f"{name}: {', '.join(told)}")
    for name in ("agrees", "verdicts"):
        print(f"{name}: {content[name]}")


def positive(text: str) -> int:
    """Read a whole number from 1 on, for the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; if it fails, one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.sift_inversion.reference",
        description="Measure SIFT, floors and one small network on generated photographs.",
    )
    parser.add_argument("out", type=Path, help="the JSON to write")
    parser.add_argument("--images", type=positive, default=IMAGES, help="seen in training")
    parser.add_argument("--faces", type=positive, default=FACES, help="measured")
    parser.add_argument("--train-seconds", type=positive, default=TRAIN_SECONDS, help="at most")
    parser.add_argument("--threads", type=positive, default=THREADS, help="of torch")
    given = vars(parser.parse_args(argv))
    with one_sentence("reference"):
        reference(given.pop("out"), **given)


if __name__ == "__main__":
    main()
