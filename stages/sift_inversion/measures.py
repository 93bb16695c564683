"""What is measured of each reconstruction; the paper prints no number, so all of it is ours.

Images are 8-bit RGB; luma and chroma are JPEG's. The network that judges, phi_eval, is
EfficientNet-Lite0: another architecture, with other weights, than phi of the joint loss, which
would win its own metric. Everything runs on the CPU, so that no number depends on a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from stages.common.metrics import mean_absolute_error, mean_squared_error, psnr_of
from stages.common.networks.efficientnet_lite import STRIDE, EfficientNetLite0
from stages.sift_inversion.keypoints import Descriptors
from stages.sift_inversion.luma import luma_chroma
from stages.sift_inversion.masks import face_ellipse, far_from_keypoints
from stages.sift_inversion.sift import describe_at, to_grey

DATA_RANGE = 255  # of 8-bit images
PSNR_CAP = 60.0  # dB; that of the original is infinite and would carry a mean
SMALL = 64  # px; up to this side SSIM has the small window
WINDOWS = (7, 11)  # of SSIM, px; 11: the later code of the authors
TAPS = 3  # feature maps in PD: after the stem (1/2), block 2 (1/4) and block 4 (1/8)
LEAST_GRADIENT = 1.0  # mean of Sobel's norm that rounding to 8 bits alone makes
MATCH_PX = 2.0  # a match within so many pixels is right
REPEAT_PX = 2.5  # a keypoint is found again within so many pixels, ...
REPEAT_SCALE = 1.5  # ... its size changed by less than this factor
BLOCK = 2**14  # pixels at once of the distances between all images

Images = UInt8[np.ndarray, "n s s 3"]
Maps = list[Float[Tensor, "n _c _h _w"]]
Masks = Bool[np.ndarray, "n s s"]


@dataclass(frozen=True, eq=False)
class Real:
    """The originals of a test set and what comparisons with them need.

    maps, pooled : phi_eval's feature maps of unit length, and its pooled features.
    mean, axes : of the principal components of ``pooled``.
    keypoints : of the originals, none removed.
    regions : face, rest and far, see ``masks``.
    """

    images: Images
    maps: Maps
    pooled: Float[np.ndarray, "n 1280"]
    mean: Float64[np.ndarray, " 1280"]
    axes: Float64[np.ndarray, "1280 k"]
    keypoints: Descriptors
    regions: Mapping[str, Masks]


def ssim(
    x: Float[np.ndarray, "n s s"] | UInt8[np.ndarray, "n s s 3"],
    y: Float[np.ndarray, "n s s"] | UInt8[np.ndarray, "n s s 3"],
) -> Float64[np.ndarray, " n"]:
    """Return the structural similarity of each image, scikit-image's with a uniform window.

    The window has 11 px, up to 64 px images 7; the mean over the channels, if there are three.
    """
    window = WINDOWS[x.shape[1] > SMALL]
    axis = -1 if x.ndim == 4 else None
    options = {"win_size": window, "data_range": DATA_RANGE, "channel_axis": axis}
    values = [structural_similarity(a, b, **options) for a, b in zip(x, y, strict=True)]
    return np.array(values, np.float64)


def gradient(Y: Float[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n h w"]:
    """Return the norm of Sobel's gradient of luma at each pixel, its weights not divided by 8."""
    down, across = (
        correlate1d(correlate1d(Y, [-1, 0, 1], axis), [1, 2, 1], other)
        for axis, other in ((1, 2), (2, 1))
    )
    return np.hypot(down, across)


def mean_over(
    values: Float[np.ndarray, "n h w"], mask: Bool[np.ndarray, "n h w"]
) -> Float64[np.ndarray, " n"]:
    """Return the mean of each image's pixels in the mask; NaN where it has none."""
    count = mask.sum((1, 2))
    total = np.where(mask, values, 0).sum((1, 2), dtype=np.float64)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def log_sharpness(
    fake: Float[np.ndarray, " n"], real: Float[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return ln SHARP, SHARP = sum |Sobel(Y fake)| / sum |Sobel(Y real)|; 0 is as sharp.

    Both are means over the same pixels. Below 1 a mean counts as 1, so that a flat image is not
    infinitely blurred.
    """
    return np.log(np.maximum(fake, LEAST_GRADIENT) / np.maximum(real, LEAST_GRADIENT))


def checkerboard(Y: Float[np.ndarray, "n h w"]) -> Float64[np.ndarray, " n"]:
    """Return the share of the energy of Y (its mean left out) that has period 2; flat: 0.

    That is: horizontal or vertical frequency within 1 bin of one half.
    """
    n, h, w = Y.shape
    energy = np.abs(np.fft.fft2(Y - Y.mean((1, 2), keepdims=True))) ** 2
    fine = [np.abs(np.fft.fftfreq(side, 1 / side)) >= side / 2 - 1 for side in (h, w)]
    total = energy.sum((1, 2))
    share = (energy * (fine[0][:, None] | fine[1])).sum((1, 2))
    return np.divide(share, total, out=np.zeros(n), where=total > 0)


@torch.inference_mode()
def look(
    net: EfficientNetLite0, images: UInt8[np.ndarray, "n s s 3"]
) -> tuple[Maps, Float[np.ndarray, "n 1280"]]:
    """Return phi_eval's first three feature maps, channels of unit length, and pooled features.

    Images whose side is no multiple of 32 are enlarged to one (bilinear).
    """
    rgb01 = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if (side := -(-images.shape[1] // STRIDE) * STRIDE) != images.shape[1]:
        rgb01 = interpolate(rgb01, (side, side), mode="bilinear")
    outputs = net(rgb01)
    maps = [normalize(tap, dim=1, eps=1e-10) for tap in outputs.taps[:TAPS]]
    return maps, outputs.pooled.numpy()


@torch.inference_mode()
def distance_maps(fake: Maps, real: Maps) -> list[Float[Tensor, "n _h _w"]]:
    """Return the squared distance of the unit feature vectors at each place of each map."""
    return [(a - b).square().sum(1) for a, b in zip(fake, real, strict=True)]


@torch.inference_mode()
def perceptual_distance(
    distances: list[Float[Tensor, "n _h _w"]], mask: Bool[np.ndarray, "n s s"] | None = None
) -> Float64[np.ndarray, " n"]:
    """Return PD: the mean over space, summed over the maps (Zhang et al. 2018 without weights).

    Parameters
    ----------
    mask : which pixels count; a place of a map counts by its share of pixels in the mask. NaN where
        there are none.
    """
    if mask is None:
        return sum(d.double().mean((1, 2)) for d in distances).numpy()  # type: ignore[union-attr]
    total = torch.zeros(len(mask), dtype=torch.double)
    inside = torch.from_numpy(mask).double()
    for d in distances:
        weight = adaptive_avg_pool2d(inside, (d.shape[1], d.shape[2]))
        total += (weight * d).sum((1, 2)) / weight.sum((1, 2))  # 0 / 0 is NaN
    return total.numpy()


def keypoint_agreement(
    images: UInt8[np.ndarray, "n s s 3"], keypoints: Descriptors, sift: cv2.SIFT
) -> dict[str, Float64[np.ndarray, " n"]]:
    """Compare the images' SIFT with the originals' ``keypoints``; NaN where there are none.

    Descriptors are computed anew at the original keypoints; those that OpenCV leaves out are not
    compared. A descriptor that is all zero (a flat place) has cosine 0 with any other.

    Returns
    -------
    dcos : DC, the mean cosine of each original descriptor and its own new one; 1 for the original.
    dmatch : DM, share of the original descriptors whose nearest new one, by cosine, lies within
        2 px. Of several nearest ones one such is enough (drawings repeat themselves).
    kpr : KPR, share of the original keypoints with a newly detected one within 2.5 px, whose size
        differs by a factor below 1.5.
    """
    rows = [_agreement(image, keypoints, i, sift) for i, image in enumerate(images)]
    columns = np.array(rows, np.float64).T
    return dict(zip(("dcos", "dmatch", "kpr"), columns, strict=True))


def _agreement(
    image: UInt8[np.ndarray, "s s 3"], keypoints: Descriptors, i: int, sift: cv2.SIFT
) -> tuple[float, float, float]:
    rows = slice(*keypoints.offsets[i : i + 2])
    kp = np.asarray(keypoints.kp[rows])
    if not len(kp):
        return np.nan, np.nan, np.nan
    found, done = describe_at(image, kp, np.asarray(keypoints.octave[rows]), sift)
    dcos = dmatch = np.nan
    if done.any():
        cosine = _cosines(keypoints.desc[rows][done], found[done])
        dcos = np.diagonal(cosine).mean()
        nearest = cosine.max(1, keepdims=True)
        hits = (cosine == nearest) & (nearest > 0) & (_distances(kp[done], kp[done]) <= MATCH_PX)
        dmatch = hits.any(1).mean()
    again = sift.detect(to_grey(image), None)
    new = np.array([(*p.pt, p.size) for p in again], np.float32).reshape(-1, 3)
    scale = np.abs(np.log(kp[:, None, 2] / new[None, :, 2])) < np.log(REPEAT_SCALE)
    kpr = ((_distances(kp, new) <= REPEAT_PX) & scale).any(1).mean()
    return float(dcos), float(dmatch), float(kpr)


def _cosines(
    x: UInt8[np.ndarray, "k d"], y: UInt8[np.ndarray, "m d"]
) -> Float64[np.ndarray, "k m"]:
    """Return all cosines: exactly 1 for equal vectors, for all sums are of whole numbers."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    norms = np.sqrt((x**2).sum(1)[:, None] * (y**2).sum(1))
    return np.divide(x @ y.T, norms, out=np.zeros_like(norms), where=norms > 0)


def _distances(
    x: Float[np.ndarray, "k _a"], y: Float[np.ndarray, "m _b"]
) -> Float[np.ndarray, "k m"]:
    return np.hypot(x[:, None, 0] - y[None, :, 0], x[:, None, 1] - y[None, :, 1])


def rank_one(
    fake: Float[np.ndarray, "n d"], real: Float[np.ndarray, "n d"]
) -> Float64[np.ndarray, " n"]:
    """Return 1 where, of all originals, its own is nearest to a reconstruction (cosine), else 0.

    Features that are all 0, as a flat image may have, are near to none.
    """
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for x in (fake.astype(np.float64), real.astype(np.float64))
    ]
    cosine = unit[0] @ unit[1].T
    nearest = cosine.max(1)
    return ((np.diagonal(cosine) == nearest) & (nearest > 0)).astype(np.float64)


def principal_axes(
    pooled: Float[np.ndarray, "n d"], k: int
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d k"]]:
    """Return the mean and the first k principal axes, each with its largest entry positive.

    Raises
    ------
    ValueError
        If n images do not span k axes.
    """
    if k >= len(pooled):
        raise ValueError(f"{len(pooled)} images span fewer than {k} axes")
    mean = pooled.mean(0, dtype=np.float64)
    axes = np.linalg.svd(pooled - mean, full_matrices=False)[2][:k].T
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(k)])
    return mean, axes * signs


def mean_distance(images: UInt8[np.ndarray, "n s s 3"]) -> float:
    """Return the mean Euclidean distance of two different images, values 0..1 (for NERR).

    Raises
    ------
    ValueError
        If there are fewer than two images.
    """
    n = len(images)
    if n < 2:
        raise ValueError(f"a distance needs two images, there are {n}")
    flat, products = images.reshape(n, -1), np.zeros((n, n))
    for start in range(0, flat.shape[1], BLOCK):
        part = flat[:, start : start + BLOCK].astype(np.float64)
        products += part @ part.T  # whole numbers below 2^53: exact
    lengths = np.diagonal(products)
    squares = lengths[:, None] + lengths - 2 * products
    return float(np.sqrt(squares).sum() / (n * (n - 1)) / DATA_RANGE)


def regions_of(keypoints: Descriptors) -> dict[str, Masks]:
    """Return the masks face, rest and far (from all keypoints) of each image."""
    face = np.repeat(face_ellipse(keypoints.size)[None], len(keypoints), 0)
    xy = np.split(keypoints.kp[:, :2], keypoints.offsets[1:-1])
    return {"face": face, "rest": ~face, "far": far_from_keypoints(xy, keypoints.size)}


def load_real(
    images: Images, keypoints: Descriptors, net: EfficientNetLite0, *, batch_size: int, pca: int
) -> Real:
    """Look at the originals once; see :class:`Real`."""
    looks = [look(net, images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    maps = [torch.cat(parts) for parts in zip(*(maps for maps, _ in looks), strict=True)]
    pooled = np.concatenate([pooled for _, pooled in looks])
    mean, axes = principal_axes(pooled, pca)
    return Real(images, maps, pooled, mean, axes, keypoints, regions_of(keypoints))


def own_values(real: Real) -> dict[str, np.ndarray]:
    """Return what is told of the originals themselves.

    features (n, k): principal components; mean_cb, mean_cr: of the face, 8-bit; n_keypoints;
    density_face, density_rest: keypoints in 1,000 pixels; gradient_face, gradient_rest: mean of
    Sobel's norm; pairwise: see :func:`mean_distance`.
    """
    Y, Cb, Cr = luma_chroma(real.images)
    face, steep = real.regions["face"], gradient(Y)
    found = real.keypoints
    column, row = np.clip(np.rint(found.kp[:, :2]), 0, found.size - 1).astype(np.int64).T
    in_face = np.bincount(found.image, face[found.image, row, column], len(found))
    values = {
        "features": _components(real, real.pooled),
        "mean_cb": mean_over(Cb, face),
        "mean_cr": mean_over(Cr, face),
        "n_keypoints": found.counts.astype(np.int64),
        "pairwise": np.array(mean_distance(real.images)),
    }
    for name, count in (("face", in_face), ("rest", found.counts - in_face)):
        mask = real.regions[name]
        values[f"density_{name}"] = 1000 * count / mask.sum((1, 2))
        values[f"gradient_{name}"] = mean_over(steep, mask)
    return values


def measure(
    images: Images,
    real: Real,
    net: EfficientNetLite0,
    sift: cv2.SIFT,
    *,
    regions: Mapping[str, Masks],
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Compare one set of reconstructions with the originals.

    Parameters
    ----------
    sift : with the settings that the originals' keypoints were found with.
    regions : masks that are measured beside face, rest and far.

    Returns
    -------
    float64 (n,) by name. psnr (dB, at most 60), ssim, mae (8-bit), ssim_y, chroma_error (mean
    absolute error of Cb and Cr), rse (squared Euclidean distance, values 0..1), log_sharp, chk
    (checkerboard share, minus the original's), pd, dcos, dmatch, kpr, id1 (rank 1 among the
    originals, 0 or 1), mean_cb and mean_cr of the face; psnr_<m>, pd_<m> and log_sharp_<m> of each
    region m. And ``features``, float32 (n, k): components on the originals' principal axes.
    """
    masks = {**real.regions, **regions}
    parts, pooled = [], []
    for start in range(0, len(images), batch_size):
        here = slice(start, start + batch_size)
        maps, features = look(net, images[here])
        pooled.append(features)
        distances = distance_maps(maps, [whole[here] for whole in real.maps])
        inside = {name: mask[here] for name, mask in masks.items()}
        parts.append(_compare(images[here], real.images[here], distances, inside))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    features = np.concatenate(pooled)
    return {
        **values,
        **keypoint_agreement(images, real.keypoints, sift),
        "id1": rank_one(features, real.pooled),
        "features": _components(real, features),
    }


def _compare(
    fake: UInt8[np.ndarray, "b s s 3"],
    real: UInt8[np.ndarray, "b s s 3"],
    distances: list[Float[Tensor, "b _h _w"]],
    masks: Mapping[str, Bool[np.ndarray, "b s s"]],
) -> dict[str, Float64[np.ndarray, " b"]]:
    Y, Cb, Cr = luma_chroma(fake)
    real_Y, real_Cb, real_Cr = luma_chroma(real)
    steep, real_steep = gradient(Y), gradient(real_Y)
    square = ((fake.astype(np.float64) - real) ** 2).mean(-1)
    mse = mean_squared_error(fake, real)
    values = {
        "psnr": psnr_of(mse, data_range=DATA_RANGE, cap=PSNR_CAP),
        "ssim": ssim(fake, real),
        "mae": mean_absolute_error(fake, real),
        "ssim_y": ssim(Y, real_Y),
        "chroma_error": (mean_absolute_error(Cb, real_Cb) + mean_absolute_error(Cr, real_Cr)) / 2,
        "rse": mse * real[0].size / DATA_RANGE**2,
        "log_sharp": log_sharpness(steep.mean((1, 2)), real_steep.mean((1, 2))),
        "chk": checkerboard(Y) - checkerboard(real_Y),
        "pd": perceptual_distance(distances),
        "mean_cb": mean_over(Cb, masks["face"]),
        "mean_cr": mean_over(Cr, masks["face"]),
    }
    for name, mask in masks.items():
        mse = mean_over(square, mask)
        sharp = log_sharpness(mean_over(steep, mask), mean_over(real_steep, mask))
        values[f"psnr_{name}"] = psnr_of(mse, data_range=DATA_RANGE, cap=PSNR_CAP)
        values[f"log_sharp_{name}"] = sharp
        values[f"pd_{name}"] = perceptual_distance(distances, mask)
    return values


def _components(real: Real, pooled: Float[np.ndarray, "n 1280"]) -> Float[np.ndarray, "n k"]:
    return ((pooled - real.mean) @ real.axes).astype(np.float32)
