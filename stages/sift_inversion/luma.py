"""Luma and chroma: JPEG's Y, Cb and Cr (ITU-R BT.601, full range), not rounded."""

import numpy as np
from jaxtyping import Float64, UInt8


def luma_chroma(images: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, "3 n h w"]:
    """Return Y, Cb and Cr of RGB images, 0..255; grey has Cb = Cr = 128."""
    R, G, B = np.moveaxis(images.astype(np.float64), -1, 0)
    Y = 0.299 * R + 0.587 * G + 0.114 * B
    return np.stack([Y, 128 + (B - Y) / 1.772, 128 + (R - Y) / 1.402])
