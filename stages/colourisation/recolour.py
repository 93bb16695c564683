"""Pictures of predictions for the report, with NumPy and scikit-image only.

The evaluation does the same on the GPU with ``colour.py``; a test holds them together.
"""

import warnings

import numpy as np
from jaxtyping import Float, UInt8
from skimage.color import lab2rgb, rgb2lab


def recolour(
    images: UInt8[np.ndarray, "n h w 3"], ab: Float[np.ndarray, "n 2 h w"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Keep the images' lightness and give them the colours ``ab`` (CIELAB units), rounded."""
    lab = np.concatenate([rgb2lab(images)[..., :1], np.moveaxis(ab, 1, 3)], 3)
    return _to_8_bit(lab)


def grey(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Return what the network sees: the lightness alone."""
    return recolour(images, np.zeros((len(images), 2, *images.shape[1:3]), np.float32))


def _to_8_bit(lab: np.ndarray) -> np.ndarray:
    # scikit-image clips colours outside sRGB, and warns where XYZ would be negative
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Conversion from CIE-LAB", category=UserWarning)
        return np.rint(lab2rgb(lab) * 255).astype(np.uint8)
