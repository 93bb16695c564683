"""Bring images to one square size."""

import cv2
import numpy as np
from jaxtyping import UInt8


def resize(
    image: UInt8[np.ndarray, "h w 3"], size: int, *, crop: bool = False
) -> UInt8[np.ndarray, "s s 3"]:
    """Resize to a square: area interpolation to shrink, cubic to enlarge.

    The aspect is not kept, unless ``crop`` cuts out the largest centred square first.
    """
    h, w, _ = image.shape
    if crop:
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        image = image[top : top + side, left : left + side]
        h = w = side
    if (h, w) == (size, size):
        return np.ascontiguousarray(image)
    method = cv2.INTER_AREA if size <= min(h, w) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)
