"""The headline numbers of one variant or baseline: what ``dvc metrics`` shows, with intervals.

Numbers stand as scalars; intervals, seeds and classes as lists, which ``dvc metrics`` leaves out.
What does not exist (a ratio to images without colour, a baseline's best epoch) is None.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.colourisation.evaluations import Arrays
from stages.colourisation.histories import History
from stages.common.bootstrap import bootstrap_weights
from stages.common.claims import Estimate, combine
from stages.common.histograms import (
    js_divergence,
    log_histogram_distance,
    overlap,
    wasserstein,
)
from stages.common.metrics import psnr_of

PEAK = 255.0  # of PSNR on a and b, as in the released code
PSNR_CAP = 60.0  # dB, as for single images


def distances(n: int) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Return the distances of histograms that are mean counts per image, over ``n`` images."""
    return {
        "dhist": partial(log_histogram_distance, floor=0.5 / n),
        "overlap": overlap,
        "js": js_divergence,
        "w1": partial(wasserstein, width=1.0),  # bins of one ab unit
    }


def pooled_psnr(mse: Float[np.ndarray, "..."]) -> float:
    """PSNR of the mean squared error over all images, dB.

    Near-grey images have a PSNR of 60 dB and more and inflate the mean; pooling weighs by error.
    """
    pooled = np.array([mse.mean(dtype=np.float64)])
    return float(psnr_of(pooled, data_range=PEAK, cap=PSNR_CAP)[0])


def ratio(estimate: Estimate, real: Estimate) -> Estimate | None:
    """Divide by the real images' mean; None if those (or a resample of them) have no colour."""
    return combine(np.divide, estimate, real) if min(real.samples.min(), real.value) > 0 else None


def _classes(
    evaluation: Arrays, real: Arrays, classes: Sequence[str]
) -> list[dict[str, float | str | None]]:
    rows = []
    for label, name in enumerate(classes):
        of = real["labels"] == label
        if of.any():
            chroma = float(real["chroma"][of].mean(dtype=np.float64))
            mean = {
                m: float(evaluation[m][:, of].mean(dtype=np.float64))
                for m in ("l1", "chroma", "m3")
            }
            rows.append(
                {
                    "class": name,
                    "l1": mean["l1"],
                    "chroma_ratio": mean["chroma"] / chroma if chroma > 0 else None,
                    "m3": mean["m3"],
                    "n": int(of.sum()),
                }
            )
    return rows


def _histograms(evaluation: Arrays, real: Arrays) -> dict[str, float]:
    """Distances of the test set's histograms to the real ones, averaged over seeds."""
    true = real["image_hist"].mean(axis=0, dtype=np.float64)  # (2, 219)
    fake = evaluation["image_hist"].mean(axis=1, dtype=np.float64)  # (seeds, 2, 219)
    found = {
        f"{name}_{c}": float(distance(fake[:, i], true[i]).mean())
        for name, distance in distances(len(real["groups"])).items()
        for i, c in enumerate("ab")
    }
    seeds = len(evaluation["seeds"])
    both = js_divergence(
        evaluation["hist2d"].reshape(seeds, -1),
        real["hist2d"].reshape(-1),
    )
    return {**found, "js_2d": float(both.mean())}


def histogram_estimates(
    evaluation: Arrays, real: Arrays, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Distances of the a and b histograms to the real ones, resampled over the images (C8)."""
    weights = bootstrap_weights(real["groups"], resamples, seed)  # (resamples, n)
    found = {}
    for i, c in enumerate("ab"):
        true = real["image_hist"][:, i].astype(np.float32)  # (n, 219)
        fakes = evaluation["image_hist"][:, :, i].astype(np.float32)  # (seeds, n, 219)
        resampled_true = weights @ true
        resampled = [weights @ fake for fake in fakes]
        for name, distance in distances(len(true)).items():
            each = distance(fakes.mean(axis=1), true.mean(axis=0))  # (seeds,)
            samples = [distance(fake, resampled_true) for fake in resampled]
            found[f"{name}_{c}"] = Estimate(
                float(np.mean(each)), np.mean(samples, axis=0), tuple(map(float, each))
            )
    return found


def summarise(
    evaluation: Arrays,
    real: Arrays,
    scores: Mapping[str, Estimate],
    real_scores: Mapping[str, Estimate],
    *,
    level: float,
    classes: Sequence[str],
    histories: Sequence[History] = (),
) -> dict[str, Any]:
    """Return the flat JSON of a variant or baseline.

    Parameters
    ----------
    scores : the means of ``evaluation`` with their resamples.
    real_scores : those of the ground truth's chroma, M3 and hf.
    histories : one a seed; none for a baseline.
    """
    found: dict[str, Any] = {
        "n": len(real["groups"]),
        "seeds": len(evaluation["seeds"]),
        **_histograms(evaluation, real),
        "psnr_median": float(np.median(evaluation["psnr"])),
        "psnr_pooled": pooled_psnr(evaluation["mse"]),
        "kid": float(evaluation["kid"].mean(dtype=np.float64)),
        "kid_se": float(evaluation["kid_se"].mean(dtype=np.float64)),
        "per_class": _classes(evaluation, real, classes),
    }
    for metric in (
        "l1",
        "psnr",
        "lperc",
        "lperc_unit",
        "chroma",
        "m3",
        "auc",
        "delta_e",
        "l1_train",
    ):
        found[metric] = scores[metric].value
    for metric in ("l1", "psnr", "lperc"):
        found[f"{metric}_ci"] = list(scores[metric].interval(level))
        found[f"{metric}_seeds"] = list(scores[metric].seeds)
    for metric in ("chroma", "m3", "hf"):
        relative = ratio(scores[metric], real_scores[metric])
        found[f"{metric}_ratio"] = relative.value if relative else None
        found[f"{metric}_ratio_ci"] = list(relative.interval(level)) if relative else None
        found[f"{metric}_ratio_seeds"] = list(relative.seeds) if relative else None
    best = [float(run.epochs[run.l1_val.argmin()]) for run in histories if len(run.epochs)]
    found["best_val_epoch"] = float(np.mean(best)) if best else None
    found["best_val_epoch_seeds"] = best
    return found
