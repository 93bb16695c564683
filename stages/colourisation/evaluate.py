"""Measure one variant's predictions on the test images (Sec. IV-B).

Reads the prepared images and the predictions of all seeds; writes per-image values, histograms
and KID as one .npz. No statistic is formed here: ``score`` does that.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from stages.colourisation.colour import AB_SCALE, Quant, encode
from stages.colourisation.measures import Judge, measure
from stages.colourisation.perceptual import PercBackbone, load_backbone
from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_npz, write_npz
from stages.common.networks.efficientnet_lite import (
    STRIDE,
    EfficientNetLite0,
    load_efficientnet_lite0,
)
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run

IMAGES_AT_ONCE = 64  # bounds the memory of a conversion to CIELAB


def evaluate(
    data: Path,
    runs: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    quant: Quant,
    perc_backbone: PercBackbone,
    perc_size: PositiveInt,
    perc_weights: str | None,
    batch_size: PositiveInt,
    threads: PositiveInt,
) -> dict[str, float]:
    """Measure the predictions of all seeds of one variant.

    Reads ``data``/test.npz and train.npz (RGB images) and ``runs``/predictions-s<seed>.npz (ab in
    CIELAB units of the test images and of the first training images). Writes ``out``: arrays
    (seeds, n) per image, (seeds, ...) over all images, and ``seeds``.

    Raises
    ------
    InputError
        If a file is missing or damaged, images and predictions do not belong together, a
        prediction is not finite, or the backbone's weights or size are wrong.
    """
    start = time.perf_counter()
    torch.set_num_threads(1)  # ``threads`` batches at once instead, see ``measure``
    device = evaluation_device()
    judge = load_judge(perc_backbone, perc_weights, perc_size, device)
    images = read_npz(data / "test.npz", ["images"])["images"]
    trained_on = read_npz(data / "train.npz", ["images"])["images"]
    predictions = [read_predictions(runs, seed, images, trained_on) for seed in seeds]
    results, _ = measure(
        images,
        [p["test"] for p in predictions],
        judge,
        quant=quant,
        batch_size=batch_size,
        threads=threads,
        device=device,
    )
    n_eval = len(predictions[0]["train"])
    results_train, _ = measure(
        trained_on[:n_eval],
        [p["train"] for p in predictions],
        None,
        quant=quant,
        batch_size=batch_size,
        threads=threads,
        device=device,
    )
    write_npz(out, **stacked(results, results_train), seeds=np.asarray(seeds, np.int64))
    seconds = time.perf_counter() - start
    shown = len(seeds) * (len(images) + n_eval)
    for seed, values in zip(seeds, results, strict=True):
        print(summary(f"seed {seed}", values), flush=True)
    return {"images_per_s": shown / seconds}


def load_judge(
    backbone: PercBackbone, weights: str | None, size: int, device: torch.device
) -> Judge:
    """Return the networks of the perceptual measures on ``device``.

    Raises
    ------
    InputError
        As :func:`stages.colourisation.perceptual.load_backbone`.
    """
    maps = load_backbone(backbone, weights, size)
    pooling = maps if isinstance(maps, EfficientNetLite0) else load_efficientnet_lite0()
    maps.to(device)
    pooling.to(device)
    return Judge(maps, pooling, size=size, pooling_size=-(-size // STRIDE) * STRIDE)


def read_predictions(
    runs: Path, seed: int, images: UInt8[np.ndarray, "n h w 3"], trained_on: np.ndarray
) -> dict[str, Float[np.ndarray, "k 2 h w"]]:
    """Read ``test``, ``val`` and ``train`` of one seed and check them against the images.

    Raises
    ------
    InputError
        If the file is missing or damaged, of other images, or holds values that are not finite.
    """
    path = runs / f"predictions-s{seed}.npz"
    predictions = read_npz(path, ["test", "val", "train"])
    side = images.shape[1:3]
    train = min(len(predictions["train"]), len(trained_on))
    for name, expected in (("test", (len(images), 2, *side)), ("train", (train, 2, *side))):
        found = predictions[name].shape
        if found != expected:
            raise InputError(
                path,
                f"{name!r} does not belong to the prepared images",
                expected=expected,
                found=found,
                remedy="run the training stage again (dvc repro)",
            )
    for name, ab in predictions.items():
        if not np.isfinite(ab).all():
            raise InputError(
                path,
                f"{name!r} cannot be measured",
                expected="finite numbers",
                found=f"{np.count_nonzero(~np.isfinite(ab))} NaN or infinite",
                remedy="the training diverged: lower lr or lambda_l1 and run it again",
            )
    return predictions


def ab_of(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 2 h w"]:
    """Return the true a and b of RGB images, CIELAB units, float32."""
    parts = [
        encode(torch.from_numpy(np.array(images[start : start + IMAGES_AT_ONCE])))[1].numpy()
        for start in range(0, len(images), IMAGES_AT_ONCE)
    ]
    return np.concatenate(parts) * np.float32(AB_SCALE)


def stacked(
    results: Sequence[Mapping[str, np.ndarray]], results_train: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Stack the seeds' arrays on a first axis and add ``l1_train``."""
    arrays = {name: np.stack([values[name] for values in results]) for name in results[0]}
    return arrays | {"l1_train": np.stack([values["l1"] for values in results_train])}


def summary(label: str, values: Mapping[str, np.ndarray]) -> str:
    """Return one line for the terminal."""
    names = ("l1", "psnr", "lperc", "chroma", "kid")
    return f"  {label}: " + ", ".join(f"{k} {values[k].mean():.4g}" for k in names)


if __name__ == "__main__":
    run(evaluate, "colourisation.evaluate")
