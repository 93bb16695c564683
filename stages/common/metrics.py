"""How far an image is from another, and how colourful it is: one number an image, NumPy only.

The range of the values is always an argument, because a PSNR of 8-bit and of [0, 1] images differ
by 48 dB when it is guessed wrong.
"""

import numpy as np
from jaxtyping import Float, Float64, Num, UInt8


def mean_absolute_error(
    x: Num[np.ndarray, "*shape"], y: Num[np.ndarray, "*shape"]
) -> Float64[np.ndarray, " n"]:
    """Return mean |x - y| of each image, in the images' unit."""
    return np.abs(np.subtract(x, y, dtype=np.float64)).reshape(len(x), -1).mean(1)


def mean_squared_error(
    x: Num[np.ndarray, "*shape"], y: Num[np.ndarray, "*shape"]
) -> Float64[np.ndarray, " n"]:
    """Return mean (x - y)^2 of each image, in the images' unit squared."""
    return (np.subtract(x, y, dtype=np.float64) ** 2).reshape(len(x), -1).mean(1)


def psnr_of(
    mse: Float64[np.ndarray, "*shape"], *, data_range: int | float, cap: int | float | None = None
) -> Float64[np.ndarray, "*shape"]:
    """Return 10 log10(data_range^2 / mse) in dB, at most ``cap``; infinite for mse 0 without one.

    Raises
    ------
    ValueError
        If ``data_range`` is not positive.
    """
    if data_range <= 0:
        raise ValueError(f"data_range must be positive, is {data_range}")
    with np.errstate(divide="ignore"):
        dB = 20 * np.log10(data_range) - 10 * np.log10(mse)
    return dB if cap is None else np.minimum(dB, cap)


def psnr(
    x: Num[np.ndarray, "*shape"],
    y: Num[np.ndarray, "*shape"],
    *,
    data_range: int | float,
    cap: int | float | None = None,
) -> Float64[np.ndarray, " n"]:
    """Return the peak signal-to-noise ratio of each image in dB, see :func:`psnr_of`."""
    return psnr_of(mean_squared_error(x, y), data_range=data_range, cap=cap)


def ssim(
    x: Num[np.ndarray, "n h w c"],
    y: Num[np.ndarray, "n h w c"],
    *,
    data_range: int | float,
    gaussian: bool = False,
) -> Float64[np.ndarray, " n"]:
    """Return the structural similarity of each image, scikit-image's; 1 for identical images.

    Parameters
    ----------
    gaussian : False: 7 x 7 uniform window and sample covariance, scikit-image's default; True:
        the window of Wang et al., "Image quality assessment", IEEE TIP 2004 (sigma 1.5).
    """
    from skimage.metrics import structural_similarity  # 0.5 s, and not every stage needs it

    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options = window if gaussian else {}
    return np.array(
        [
            structural_similarity(a, b, data_range=data_range, channel_axis=-1, **options)
            for a, b in zip(x, y, strict=True)
        ],
        np.float64,
    )


def mean_chroma(ab: Float[np.ndarray, "*k 2 h w"]) -> Float64[np.ndarray, "*k"]:
    """Return the mean of sqrt(a^2 + b^2) of each image, CIELAB units; 0 for grey."""
    chroma = np.hypot(ab[..., 0, :, :], ab[..., 1, :, :])
    return np.asarray(chroma.mean((-2, -1), dtype=np.float64))


def colourfulness(images: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, " n"]:
    """Return the colourfulness M3 of each RGB image; 0 for grey, about 40 for photographs.

    Hasler & Suesstrunk, "Measuring colourfulness in natural images", SPIE 2003: with
    rg = R - G and yb = (R + G)/2 - B on 0..255,
    M3 = sqrt(var rg + var yb) + 0.3 sqrt((mean rg)^2 + (mean yb)^2).
    """
    R, G, B = np.moveaxis(images.reshape(len(images), -1, 3).astype(np.float32), 2, 0)
    rg, yb = R - G, (R + G) / 2 - B
    spread = np.sqrt(rg.var(1, dtype=np.float64) + yb.var(1, dtype=np.float64))
    return spread + 0.3 * np.hypot(rg.mean(1, dtype=np.float64), yb.mean(1, dtype=np.float64))
