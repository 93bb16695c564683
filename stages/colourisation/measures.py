"""What is measured of each recoloured test image (Sec. IV-B, and ours), in CIELAB units.

As in the authors' code, both the prediction and the ground truth pass through 8-bit RGB before
they are compared, and the "pixel" metrics are taken on a and b with a peak of 255.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from stages.colourisation.ciede2000 import ciede2000
from stages.colourisation.colour import AB_SCALE, Quant, decode, encode, quantise, to_lab
from stages.colourisation.kid import kid
from stages.colourisation.perceptual import PerceptualBackbone, l_perc, l_perc_unit, resized
from stages.common.histograms import ab_histogram_2d, ab_histograms
from stages.common.metrics import (
    colourfulness,
    mean_absolute_error,
    mean_chroma,
    mean_squared_error,
    psnr_of,
)
from stages.common.networks.efficientnet_lite import EfficientNetLite0

PEAK = 255  # of the PSNR on ab, the authors' code
PSNR_CAP = 60.0  # dB; grey photographs reach 95 or infinity and would carry the mean
AUC_LIMIT = 150  # Zhang et al., thresholds 0, 1, .., 150
CPU_PIXELS = 2**17  # that a network sees at once on a CPU: more spills the caches and malloc's pool
BLUR = 9  # side of the box that separates local detail (claim C10)


@dataclass(frozen=True)
class Picture:
    """Images after the passage through 8 bits: RGB 0..255 and the CIELAB of that RGB."""

    rgb: UInt8[Tensor, "n 3 h w"]
    lab: Float[Tensor, "n 3 h w"]

    @property
    def ab(self) -> Float[np.ndarray, "n 2 h w"]:
        return self.lab[:, 1:].cpu().numpy()

    @property
    def images(self) -> UInt8[np.ndarray, "n h w 3"]:
        return self.rgb.permute(0, 2, 3, 1).cpu().numpy()


def picture(x: Float[Tensor, "n 1 h w"], ab: Float[Tensor, "n 2 h w"], quant: Quant) -> Picture:
    """Join lightness (scaled, [-1, 1]) and ``ab`` (CIELAB units) to 8-bit images."""
    rgb = quantise(decode(x, ab.float() / AB_SCALE), quant)
    return Picture(rgb, to_lab(rgb))


def local_detail(ab: Float[Tensor, "n 2 h w"]) -> Float[Tensor, " n"]:
    """Return the standard deviation of ab minus its 9 x 9 box mean, root mean square of a and b.

    At the border the mean is over the part of the box inside the image.
    """
    smooth = avg_pool2d(ab, BLUR, 1, BLUR // 2, count_include_pad=False)
    return (ab - smooth).var((2, 3), correction=0).mean(1).sqrt()


def auc(
    ab: Float[np.ndarray, "n 2 h w"], real: Float[np.ndarray, "n 2 h w"]
) -> Float64[np.ndarray, " n"]:
    """Return the share of pixels with ||ab - real|| <= t, averaged over t = 0, 1, .., 150.

    Zhang et al., "Colorful image colorization", ECCV 2016, Sec. 3.1, not rebalanced.
    """
    distance = np.hypot(*np.moveaxis(ab - real, 1, 0)).reshape(len(ab), -1)
    passed = np.maximum(AUC_LIMIT + 1 - np.ceil(distance), 0)
    return passed.mean(1, dtype=np.float64) / (AUC_LIMIT + 1)


def own_values(
    seen: Picture,
) -> dict[str, Float64[np.ndarray, " n"] | Float[np.ndarray, " n"] | Int32[np.ndarray, "n 2 219"]]:
    """Return what needs no ground truth: chroma, m3, hf per image and the histograms of a and b."""
    return {
        "chroma": mean_chroma(seen.ab),
        "m3": colourfulness(seen.images),
        "hf": local_detail(seen.lab[:, 1:]).cpu().numpy(),
        "image_hist": ab_histograms(seen.ab),
    }


def against(fake: Picture, real: Picture) -> dict[str, Float[np.ndarray, " n"]]:
    """Return the distances of each image to its ground truth: l1, mse, psnr, auc, delta_e."""
    mse = mean_squared_error(fake.ab, real.ab)
    return {
        "l1": mean_absolute_error(fake.ab, real.ab),
        "mse": mse,
        "psnr": psnr_of(mse, data_range=PEAK, cap=PSNR_CAP),
        "auc": auc(fake.ab, real.ab),
        "delta_e": ciede2000(fake.lab, real.lab).mean((1, 2)).cpu().numpy(),
    }


class Judge:
    """The networks that compare pictures: the backbone of L_perc and EfficientNet-Lite0 for KID.

    Parameters
    ----------
    backbone : gives L_perc's feature maps; where it is EfficientNet-Lite0, one pass serves both.
    pooling : EfficientNet-Lite0.
    size, pooling_size : sides that the two networks see, pixels.
    """

    def __init__(
        self,
        backbone: PerceptualBackbone,
        pooling: EfficientNetLite0,
        *,
        size: int,
        pooling_size: int,
    ):
        self.backbone, self.pooling = backbone, pooling
        self.size, self.pooling_size = size, pooling_size

    def look(
        self, seen: Picture
    ) -> tuple[list[Float[Tensor, "n _c _h _w"]], Float[Tensor, "n 1280"]]:
        """Return the feature maps for L_perc and the pooled features for KID."""
        rgb01 = seen.rgb.float() / 255
        if self.backbone is self.pooling and self.size == self.pooling_size:
            outputs = self.pooling(resized(rgb01, self.size))
            return outputs.taps, outputs.pooled
        maps = self.backbone.features(resized(rgb01, self.size))
        return maps, self.pooling(resized(rgb01, self.pooling_size)).pooled


def measure(
    images: UInt8[np.ndarray, "n h w 3"],
    predictions: Sequence[Float[np.ndarray, "n 2 h w"]],
    judge: Judge | None,
    *,
    quant: Quant,
    batch_size: int,
    threads: int,
    device: torch.device,
) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Measure several sets of colours for the same images, the ground truth looked at once.

    Parameters
    ----------
    images : the ground truth.
    predictions : one array a seed (or baseline), ab in CIELAB units.
    judge : None leaves out lperc, lperc_unit, kid and kid_se.
    batch_size : images at once; on a CPU fewer where the networks see large ones.
    threads : batches at once, one CPU thread each: no batch waits for another thread, so that a
        busy machine costs no more than its share, and the numbers do not depend on ``threads``.

    Returns
    -------
    For each prediction, and for the ground truth itself, arrays by name: per image chroma, m3,
    hf, image_hist; for the predictions also l1, mse, psnr (dB, capped), auc, delta_e, lperc,
    lperc_unit; over all images hist2d, and for the predictions kid and kid_se.

    Raises
    ------
    ValueError
        If a prediction is NaN or infinite.
    """
    for ab in predictions:
        if not np.isfinite(ab).all():
            raise ValueError(
                f"{np.count_nonzero(~np.isfinite(ab))} predicted values are not finite"
            )
    if judge and device.type == "cpu":
        batch_size = min(batch_size, max(1, CPU_PIXELS // judge.size**2))

    @torch.inference_mode()
    def measure_batch(start: int) -> list[dict]:
        here = slice(start, start + batch_size)
        x, y = encode(torch.from_numpy(images[here]).to(device))
        real = picture(x, y * AB_SCALE, quant)
        real_maps, real_pooled = judge.look(real) if judge else ([], None)
        rows = [own_values(real) | _batch_totals(real, real_pooled)]
        for ab in predictions:
            fake = picture(x, torch.from_numpy(ab[here]).to(device), quant)
            values = own_values(fake) | against(fake, real)
            pooled = None
            if judge:
                maps, pooled = judge.look(fake)
                values["lperc"] = l_perc(real_maps, maps).cpu().numpy()
                values["lperc_unit"] = l_perc_unit(real_maps, maps).cpu().numpy()
            rows.append(values | _batch_totals(fake, pooled))
        return rows

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        batches = list(pool.map(measure_batch, range(0, len(images), batch_size)))
    truth, *parts = (list(rows) for rows in zip(*batches, strict=True))
    real_values = _joined(truth)
    real_pooled = real_values.pop("pooled", None)
    results = []
    for part in parts:
        values = _joined(part)
        if real_pooled is not None:
            values["kid"], values["kid_se"] = kid(real_pooled, values.pop("pooled"))
        results.append(_compact(values))
    return results, _compact(real_values)


def _batch_totals(seen: Picture, pooled: Tensor | None) -> dict:
    totals: dict = {"hist2d": ab_histogram_2d(seen.ab)}
    return totals if pooled is None else totals | {"pooled": pooled}


def _joined(parts: list[dict]) -> dict:
    whole: dict = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name == "hist2d":
            whole[name] = np.sum(values, axis=0)
        else:
            whole[name] = torch.cat(values) if name == "pooled" else np.concatenate(values)
    return whole


def _compact(values: dict) -> dict[str, np.ndarray]:
    """Store real numbers as float32; counts stay integers."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return {
        name: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }
