"""Measure every reconstruction, every floor and the originals; one file each, no statistic formed.

A file is a task, and tasks run in processes of their own, on the CPU: the numbers do not depend on
how many run at once, or on a GPU. What each measure is: ``measures``; what is made of them:
``score``.
"""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_npz
from stages.common.networks.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite0
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import die_with_parent, run
from stages.data.pool import processes
from stages.sift_inversion.keypoints import read
from stages.sift_inversion.measures import (
    Real,
    distance_maps,
    load_real,
    look,
    measure,
    own_values,
    perceptual_distance,
)
from stages.sift_inversion.partial import parse_box
from stages.sift_inversion.sift import detector

FULL = "full"
PASTED = ("mean", "mean_colour")  # floors that are also put into the boxes alone
NO_SEED = -1  # of a floor

Images = UInt8[np.ndarray, "n s s 3"]


@dataclass(frozen=True)
class Task:
    """One file to write.

    files : reconstructions, one a seed; none: the originals themselves are measured.
    condition : of a run; None: the file is a floor, or the originals.
    """

    image_set: str
    out: Path
    files: tuple[Path, ...] = ()
    seeds: tuple[int, ...] = (NO_SEED,)
    condition: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a task reads, and how; equal for all tasks."""

    data: Path
    extracted: Path
    reconstructed: Path
    size: int
    batch_size: int
    pca: int


def evaluate(
    data: Path,
    extracted: Path,
    reconstructed: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    size: PositiveInt,
    batch_size: PositiveInt,
    pca: PositiveInt,
) -> dict[str, int | float]:
    """Write <run>/<condition>.npz, floors/<set>-<name>.npz and <set>-real.npz.

    Of reconstructions: seeds (k,) and the arrays of :func:`measures.measure`, (k, n) each; of a
    floor the same with k = 1 and seed -1. Of conditions without some keypoints also removed (n,),
    the share of keypoints removed; of boxes psnr, pd and log_sharp on the mask ``in`` and, outside
    of it, ``out``; pd_in_full and pd_out_full, the same run's with all keypoints; and pd_in_mean
    and pd_in_mean_colour, of the original with that floor pasted into the box. Of the originals:
    groups, labels and the arrays of :func:`measures.own_values`.

    Parameters
    ----------
    batch_size : images that phi_eval sees at once.
    pca : how many principal components of phi_eval's pooled features are kept.
    threads : of a task; as many tasks run at once as there are cores for.

    Raises
    ------
    InputError
        If a file is missing or damaged, of other images or another size, or there are no more test
        images than ``pca``.
    """
    start = time.perf_counter()
    sets = read_json(data / "meta.json")["sets"]
    for name, about in sets.items():
        if about["n_test"] <= pca:
            raise InputError(
                "pca",
                "is more than the test images span",
                expected=f"below {about['n_test']}, the test images of {name}",
                found=pca,
                remedy="lower pca, or raise n_test, of this profile in params.yaml",
            )
    todo = tasks(list(sets), reconstructed, out, seeds)
    source = Source(data, extracted, reconstructed, size, batch_size, pca)
    for task, line in zip(todo, _in_order(partial(work, source), todo, threads), strict=True):
        print(f"  {task.out.relative_to(out).with_suffix('')}: {line}", flush=True)
    shown = sum(len(task.files) * sets[task.image_set]["n_test"] for task in todo)
    return {"tasks": len(todo), "images_per_s": shown / (time.perf_counter() - start)}


def tasks(sets: Sequence[str], reconstructed: Path, out: Path, seeds: Sequence[int]) -> list[Task]:
    """Return all tasks, those of one set together.

    Raises
    ------
    InputError
        If there are no reconstructions, no floors, or reconstructions of an unknown set.
    """
    runs = read_json(reconstructed / "meta.json").get("runs", {})
    if not runs or any(about["set"] not in sets for about in runs.values()):
        raise InputError(
            reconstructed / "meta.json",
            "does not list what to measure",
            expected=f"runs of {' or '.join(sets)}",
            found=", ".join(f"{name} of {about['set']}" for name, about in runs.items()) or "none",
            remedy="run the stage that reconstructs (dvc repro)",
        )
    found = []
    for name in sets:
        found.append(Task(name, out / f"{name}-real.npz"))
        floors = sorted((reconstructed / "floors").glob(f"{name}-*.npz"))
        if not floors:
            raise InputError(
                reconstructed / "floors",
                f"holds no floors of {name}",
                expected=f"{name}-<name>.npz",
                found="none",
                remedy="run the stage that reconstructs (dvc repro)",
            )
        found += [Task(name, out / "floors" / file.name, (file,)) for file in floors]
        for folder, about in runs.items():
            if about["set"] != name:
                continue
            for condition in about["conditions"]:
                files = tuple(reconstructed / folder / f"{condition}-s{s}.npz" for s in seeds)
                target = out / folder / f"{condition}.npz"
                found.append(Task(name, target, files, tuple(seeds), condition))
    return found


def _in_order(function, items: Sequence[Task], threads: int) -> Iterator[str]:
    """Yield ``function`` of all items, in their order."""
    at_once = min(len(items), max(1, processes() // threads))
    bar = {"total": len(items), "unit": "file", "mininterval": 1}
    if at_once == 1:
        load.cache_clear()  # of an earlier call in this process: files may have changed since
        _full_distances.cache_clear()
        with threadpool_limits(threads):
            _single(threads)
            yield from tqdm(map(function, items), **bar)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_once, context, initializer=_start_worker, initargs=(threads,))
    try:
        yield from tqdm(pool.map(function, items), **bar)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    die_with_parent()
    threadpool_limits(threads)
    _single(threads)


def _single(threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)


def work(source: Source, task: Task) -> str:
    """Do one task; returns a line for the terminal.

    Raises
    ------
    InputError
        As :func:`evaluate`.
    """
    real = load(source, task.image_set)
    if not task.files:
        own = read_npz(source.data / f"{task.image_set}_test.npz", ["groups", "labels"])
        values = own_values(real)
        write_npz(task.out, **own, **values)
        return f"{len(real.images)} images, {values['n_keypoints'].mean():.4g} keypoints each"
    box = parse_box(task.condition) if task.condition else None
    regions, more = {}, {}
    if task.condition not in (None, FULL):
        more["removed"] = _partial(source, f"removed-{task.condition}")
    if box:
        inside = _partial(source, f"box-{box[1]}-{box[2]:g}")
        regions = {"in": inside, "out": ~inside}
        more |= around_box(source, task, real, inside)
    sift = detector(real.keypoints.meta["params"])
    rows = []
    for file in task.files:
        images = read_images(file, real)
        batch = {"regions": regions, "batch_size": source.batch_size}
        rows.append(measure(images, real, _network(), sift, **batch))
    measured = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    write_npz(task.out, seeds=np.asarray(task.seeds, np.int64), **measured, **more)
    names = ("psnr", "ssim", "pd", "log_sharp", "kpr", "id1")
    return ", ".join(f"{name} {np.nanmean(measured[name]):.4g}" for name in names)


@cache
def _network() -> EfficientNetLite0:
    return load_efficientnet_lite0()


@lru_cache(maxsize=1)  # tasks of one set follow each other
def load(source: Source, image_set: str) -> Real:
    """Read the originals of a set and look at them once in a process.

    Raises
    ------
    InputError
        If images or keypoints are missing, damaged, or do not belong together.
    """
    file, folder = source.data / f"{image_set}_test.npz", source.extracted / f"{image_set}_test"
    images, keypoints = read_npz(file, ["images"])["images"], read(folder)
    S = source.size
    if images.shape[1:3] != (S, S) or (len(keypoints), keypoints.size) != images.shape[:2]:
        raise InputError(
            folder,
            "does not belong to the prepared images",
            expected=f"keypoints of {len(images)} images of {images.shape[1]} pixels, size {S}",
            found=f"{len(keypoints)} images of {keypoints.size}",
            remedy="run the stages before this one again (dvc repro)",
        )
    return load_real(images, keypoints, _network(), batch_size=source.batch_size, pca=source.pca)


def read_images(file: Path, real: Real) -> Images:
    """Read images that are compared with the originals.

    Raises
    ------
    InputError
        If the file is missing or damaged, or its images do not fit.
    """
    images = read_npz(file, ["images"])["images"]
    if images.shape != real.images.shape or images.dtype != np.uint8:
        raise InputError(
            file,
            "does not belong to the test images",
            expected=f"uint8 {real.images.shape}",
            found=f"{images.dtype} {images.shape}",
            remedy="run the stage that reconstructs (dvc repro)",
        )
    return images


def _partial(source: Source, name: str) -> np.ndarray:
    return read_npz(source.reconstructed / "partial.npz", [name])[name]


def around_box(
    source: Source, task: Task, real: Real, inside: Bool[np.ndarray, "n s s"]
) -> dict[str, Float[np.ndarray, "k n"]]:
    """Return what a box's reconstruction is compared with: pd_in_full, pd_out_full, pd_in_<floor>.

    Those of the floors are of the original with the floor's pixels in the box, for every seed the
    same.
    """
    found: dict[str, list] = {"pd_in_full": [], "pd_out_full": []}
    for seed in task.seeds:
        distances = _full_distances(source, task.image_set, task.out.parent.name, seed)
        found["pd_in_full"].append(perceptual_distance(distances, inside))
        found["pd_out_full"].append(perceptual_distance(distances, ~inside))
    for name in PASTED:
        floor = read_images(source.reconstructed / "floors" / f"{task.image_set}-{name}.npz", real)
        pasted = np.where(inside[..., None], floor, real.images)
        distances = _distances(pasted, real, source.batch_size)
        found[f"pd_in_{name}"] = [perceptual_distance(distances, inside)] * len(task.seeds)
    return {name: np.stack(rows) for name, rows in found.items()}


@lru_cache(maxsize=8)  # a box's conditions follow each other, with the same seeds
def _full_distances(source: Source, image_set: str, name: str, seed: int) -> list[Tensor]:
    real = load(source, image_set)
    images = read_images(source.reconstructed / name / f"{FULL}-s{seed}.npz", real)
    return _distances(images, real, source.batch_size)


def _distances(images: Images, real: Real, batch_size: int) -> list[Float[Tensor, "n _h _w"]]:
    parts = []
    for start in range(0, len(images), batch_size):
        here = slice(start, start + batch_size)
        maps, _ = look(_network(), images[here])
        parts.append(distance_maps(maps, [whole[here] for whole in real.maps]))
    return [torch.cat(maps) for maps in zip(*parts, strict=True)]


if __name__ == "__main__":
    run(evaluate, "sift_inversion.evaluate")
