"""Measure the trivial baselines, the saturated bn and the ground truth itself, as the variants.

Reads the prepared images and bn's predictions; writes one .npz each into a folder. Table I does
not have them; without them its numbers cannot be judged.
"""

from pathlib import Path

import numpy as np
import torch

from stages.colourisation import baselines
from stages.colourisation.colour import Quant
from stages.colourisation.evaluate import ab_of, load_judge, read_predictions, stacked, summary
from stages.colourisation.measures import measure
from stages.colourisation.perceptual import PercBackbone
from stages.common.device import evaluation_device
from stages.common.files import read_npz, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run

NO_SEED = -1  # the ``seeds`` entry of what was not trained


def evaluate_baselines(
    data: Path,
    bn_runs: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    baseline_seed: NonNegativeInt,
    quant: Quant,
    perc_backbone: PercBackbone,
    perc_size: PositiveInt,
    perc_weights: str | None,
    batch_size: PositiveInt,
    threads: PositiveInt,
) -> None:
    """Measure grey, mean_ab, random_hue, half_chroma, other_image, bn_saturated and real.

    Writes ``out``/<name>.npz with the arrays of :mod:`stages.colourisation.evaluate` (one seed,
    called -1; bn_saturated: bn's seeds, and their ``scale`` that gives the validation images'
    mean chroma) and ``out``/real.npz: chroma, m3, hf (n,), image_hist, hist2d, labels, groups.

    Raises
    ------
    InputError
        As :func:`stages.colourisation.evaluate.evaluate`.
    """
    torch.set_num_threads(1)  # ``threads`` batches at once instead, see ``measure``
    device = evaluation_device()
    judge = load_judge(perc_backbone, perc_weights, perc_size, device)
    test = read_npz(data / "test.npz", ["images", "labels", "groups"])
    train = read_npz(data / "train.npz", ["images", "groups"])
    val = read_npz(data / "val.npz", ["images"])
    bn = [read_predictions(bn_runs, seed, test["images"], train["images"]) for seed in seeds]
    parts = np.array_split(train["images"], max(1, len(train["images"]) // 1000))
    by_part = [baselines.mean_colour(ab_of(part)) * len(part) for part in parts]  # fits in memory
    colour = np.sum(by_part, axis=0) / len(train["images"])
    scales = [
        baselines.matching_scale(p["val"].astype(np.float32), ab_of(val["images"])) for p in bn
    ]
    n_eval = len(bn[0]["train"])
    results, real = {}, {}
    for split, images, groups in (
        ("test", test["images"], test["groups"]),
        ("train", train["images"][:n_eval], train["groups"][:n_eval]),
    ):
        ab = ab_of(images)
        candidates = {
            "grey": [baselines.grey(ab)],
            "mean_ab": [baselines.constant(ab, colour)],
            "random_hue": [baselines.random_hue(ab, baseline_seed)],
            "half_chroma": [baselines.half_chroma(ab)],
            "other_image": [baselines.other_image(ab, groups, baseline_seed)],
            "bn_saturated": [
                baselines.saturate(p[split].astype(np.float32), s)
                for p, s in zip(bn, scales, strict=True)
            ],
        }
        flat, real[split] = measure(
            images,
            [prediction for group in candidates.values() for prediction in group],
            judge if split == "test" else None,
            quant=quant,
            batch_size=batch_size,
            threads=threads,
            device=device,
        )
        measured = iter(flat)
        results[split] = {k: [next(measured) for _ in v] for k, v in candidates.items()}
    for name, values in results["test"].items():
        arrays = stacked(values, results["train"][name])
        if name == "bn_saturated":
            arrays |= {"seeds": np.asarray(seeds), "scale": np.asarray(scales, np.float32)}
        else:
            arrays |= {"seeds": np.asarray([NO_SEED])}
        write_npz(out / f"{name}.npz", **arrays)
        print(summary(name, values[0]), flush=True)
    write_npz(out / "real.npz", **real["test"], labels=test["labels"], groups=test["groups"])


if __name__ == "__main__":
    run(evaluate_baselines, "colourisation.evaluate_baselines")
