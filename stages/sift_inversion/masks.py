"""Regions of an image that are measured by themselves: the face, the rest, far from keypoints.

The face is a fixed ellipse, because the sets come without outlines: where aligned photographs have
it, and roughly where drawn faces have theirs (turned, scaled and shifted at random, so that the
ellipse cuts some of them). Of the eight classes it is no more than the middle of the image.
Coordinates are OpenCV's: pixel (row i, column j) has its centre at x = j, y = i.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

CENTRE = (0.5, 0.52)  # of the ellipse, x and y, in sides of the image; ours
SEMI_AXES = (0.27, 0.36)  # likewise
SMALL = 64  # px; up to this side "far" is S/8: S/16 is less than the finest descriptor covers


def face_ellipse(size: int) -> Bool[np.ndarray, "s s"]:
    """Return which pixels of an image have their centre in the ellipse of the face."""
    offset = (np.arange(size) + 0.5) / size
    x, y = ((offset - c) / a for c, a in zip(CENTRE, SEMI_AXES, strict=True))
    return x[None] ** 2 + y[:, None] ** 2 <= 1


def far_distance(size: int) -> float:
    """Return how far is far from a keypoint: S/16, up to 64 px S/8; pixels (claim C6)."""
    return size / (8 if size <= SMALL else 16)


def far_from_keypoints(
    keypoints: Iterable[Float[np.ndarray, "_k 2"]], size: int
) -> Bool[np.ndarray, "n s s"]:
    """Return which pixels are farther than :func:`far_distance` from every keypoint.

    Parameters
    ----------
    keypoints : x and y of each image's keypoints, pixels; of an image without any, all is far.
    """
    radius = far_distance(size)
    reach = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 2)
    masks = []
    for xy in keypoints:
        x, y = np.floor(xy).astype(np.int64).T[:, :, None] + reach  # what may be near, (k, reach)
        near = (x[:, None] - xy[:, 0, None, None]) ** 2 + (
            y[:, :, None] - xy[:, 1, None, None]
        ) ** 2 <= radius**2  # (k, rows, columns)
        far = np.ones((size, size), bool)
        _, row, column = np.nonzero(near)
        k = np.nonzero(near)[0]
        i, j = y[k, row], x[k, column]
        inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
        far[i[inside], j[inside]] = False
        masks.append(far)
    return np.stack(masks)
