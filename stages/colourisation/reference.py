"""Measure the trivial baselines on real photographs, to check the evaluation from outside.

``python -m stages.colourisation.reference SET OUT.json`` reads a mounted set of one photograph a
class (``imagenet1k-samples256``: $IMAGENET1K_SAMPLES256_ROOT or real/imagenet1k-samples256), by
the same code as the evaluation of the variants. Table I's best row is L1 9.83 and 26.77 dB; grey
and one constant colour score about that. No stage of the pipeline depends on it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from tqdm import tqdm

from stages.colourisation import baselines
from stages.colourisation.colour import AB_SCALE, encode
from stages.colourisation.evaluate import ab_of
from stages.colourisation.measures import PEAK, PSNR_CAP, measure, picture
from stages.colourisation.perceptual import l_perc, l_perc_unit, resized
from stages.common.device import evaluation_device
from stages.common.files import write_json
from stages.common.metrics import psnr_of
from stages.common.networks.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite0
from stages.common.stage import one_sentence
from stages.data.images import load_images

SIZE = 256  # the files' own
NETWORK_SIZE = 224  # EfficientNet-Lite0's
SEED = 0
BATCH = 20
# Measured before this code existed, with scikit-image, on the same photographs; PSNR not capped
EARLIER = {"grey": {"l1": 10.2, "psnr": 27.0}, "mean_ab": {"l1": 9.95, "psnr": 26.8}}
TOLERANCE = {"l1": 0.3, "psnr": 0.5}


def reference(name: str, out: Path, *, n: int | None = None) -> None:
    """Measure grey, mean_ab, random_hue, half_chroma and other_image on ``n`` (all) photographs.

    Writes ``out``: for each baseline l1, psnr (dB, not capped, over the images that differ from
    the truth at all), psnr_capped (60 dB, all images), psnr_median, psnr_pooled, chroma, m3,
    lperc and lperc_unit (EfficientNet-Lite0), and the top-1 accuracy of that network.

    Raises
    ------
    InputError
        If the set is missing or not the registered one.
    """
    photos = load_images(name, "test", SIZE)
    images = np.array(photos.images[:n])
    labels = np.arange(len(images))  # one a class, in the order of the WordNet ids
    device = evaluation_device()
    net = load_efficientnet_lite0().to(device)
    colour, rows = baselines.mean_colour(ab_of(images)), {"real": _Sums(), **_sums()}
    donors = baselines.donors(labels, SEED)
    hues = np.random.default_rng(SEED).integers(2**31, size=len(images))
    for start in tqdm(range(0, len(images), BATCH), desc=name, unit="batch"):
        here = slice(start, start + BATCH)
        ab = ab_of(images[here])
        candidates = {
            "grey": baselines.grey(ab),
            "mean_ab": baselines.constant(ab, colour),
            "random_hue": baselines.random_hue(ab, int(hues[start])),
            "half_chroma": baselines.half_chroma(ab),
            "other_image": ab_of(images[donors[here]]),
        }
        results, real = measure(
            images[here],
            list(candidates.values()),
            None,
            quant="trunc8",
            batch_size=BATCH,
            threads=1,
            device=device,
        )
        rows["real"].add(real)
        for key, values in zip(candidates, results, strict=True):
            rows[key].add(values)
        _judge(net, images[here], labels[here], candidates, rows, device)
    summaries = {key: row.summary() for key, row in rows.items()}
    write_json(
        out,
        {
            "set": name,
            "n": len(images),
            "mean_colour": colour,
            "baselines": summaries,
            "earlier": EARLIER,
            "tolerance": TOLERANCE,
            "agrees": {
                key: all(abs(summaries[key][m] - v) <= TOLERANCE[m] for m, v in values.items())
                for key, values in EARLIER.items()
            },
        },
    )
    for key, row in summaries.items():
        print(key, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))


class _Sums:
    """Per-image values of one baseline, batch after batch."""

    def __init__(self):
        self.values: dict[str, list[np.ndarray]] = {}

    def add(self, values: dict[str, np.ndarray]) -> None:
        for name, array in values.items():
            if name not in ("image_hist", "hist2d"):
                self.values.setdefault(name, []).append(array)

    def summary(self) -> dict[str, float]:
        arrays = {k: np.concatenate(v).astype(np.float64) for k, v in self.values.items()}
        result = {k: float(v.mean()) for k, v in arrays.items() if k not in ("psnr", "mse")}
        if "mse" in arrays:
            mse = arrays["mse"]
            dB = psnr_of(mse, data_range=PEAK)
            capped = np.minimum(dB, PSNR_CAP)
            result["psnr"] = float(dB[np.isfinite(dB)].mean())
            result["psnr_capped"] = float(capped.mean())
            result["psnr_median"] = float(np.median(capped))
            result["psnr_pooled"] = float(psnr_of(mse.mean(), data_range=PEAK))
            result["identical_images"] = int(np.isinf(dB).sum())
        return result


def _sums() -> dict[str, _Sums]:
    return {k: _Sums() for k in ("grey", "mean_ab", "random_hue", "half_chroma", "other_image")}


@torch.inference_mode()
def _judge(
    net: EfficientNetLite0,
    images: UInt8[np.ndarray, "n h w 3"],
    labels: Int64[np.ndarray, " n"],
    candidates: dict[str, Float[np.ndarray, "n 2 h w"]],
    rows: dict[str, _Sums],
    device: torch.device,
) -> None:
    """Add L_perc and whether the network names the class, for the photographs and each baseline."""
    x, y = encode(torch.from_numpy(images).to(device))
    truth = torch.from_numpy(labels).to(device)

    def look(ab: torch.Tensor):
        return net(resized(picture(x, ab, "trunc8").rgb.float() / 255, NETWORK_SIZE))

    real = look(y * AB_SCALE)
    rows["real"].add({"top1": (real.logits.argmax(1) == truth).cpu().numpy()})
    for key, ab in candidates.items():
        seen = look(torch.from_numpy(ab).to(device))
        rows[key].add(
            {
                "top1": (seen.logits.argmax(1) == truth).cpu().numpy(),
                "lperc": l_perc(real.taps, seen.taps).cpu().numpy(),
                "lperc_unit": l_perc_unit(real.taps, seen.taps).cpu().numpy(),
            }
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; if it fails, one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.colourisation.reference",
        description="Measure the trivial baselines on real photographs.",
    )
    parser.add_argument("name", help="a mounted set of one photograph a class")
    parser.add_argument("out", type=Path, help="the JSON to write")
    given = parser.parse_args(argv)
    with one_sentence("reference"):
        reference(given.name, given.out)


if __name__ == "__main__":
    main()
