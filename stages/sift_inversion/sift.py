"""SIFT keypoints and descriptors of grey images, by OpenCV (Lowe 2004; Sec. III-A).

The paper's grey image is not luma: the mean of the three gamma-corrected channels. OpenCV writes
descriptors as whole numbers 0..255 of length about 512, so that uint8 loses nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

GAMMA = 2.2  # of T, as printed: 1 / 2.2 on values from 0 to 1
CHANNEL = (np.arange(256) / 255) ** (1 / GAMMA)
SETTINGS = ("contrast_threshold", "edge_threshold", "sigma", "octave_layers")
FINEST = 1 << 8 | 255  # OpenCV's packed octave: layer 1 of octave -1


class Keypoints(NamedTuple):
    """The keypoints of one image.

    kp : x, y, size (2 sigma), angle (degrees), response; x, y, size in pixels.
    octave : OpenCV's packed octave.
    desc : descriptors.
    """

    kp: Float32[np.ndarray, "n 5"]
    octave: Int32[np.ndarray, " n"]
    desc: UInt8[np.ndarray, "n 128"]


def to_grey(images: UInt8[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape"]:
    """T: the mean over R, G, B of (value / 255)^(1 / 2.2), as 0..255."""
    return np.rint(255 * CHANNEL[images].mean(-1)).astype(np.uint8)


def detector(params: Mapping) -> cv2.SIFT:
    """Return OpenCV's SIFT with the ``SETTINGS`` in ``params`` (of a stage, or of its meta.json).

    The defaults of Lowe and of OpenCV: 0.04, 10, 1.6 and 3.
    """
    return cv2.SIFT.create(
        nfeatures=0,
        nOctaveLayers=params["octave_layers"],
        contrastThreshold=params["contrast_threshold"],
        edgeThreshold=params["edge_threshold"],
        sigma=params["sigma"],
    )


def detect(image: UInt8[np.ndarray, "h w 3"], sift: cv2.SIFT) -> Keypoints:
    """Find and describe the keypoints of an RGB image; there may be none."""
    found, desc = sift.detectAndCompute(to_grey(image), None)
    kp = [(p.pt[0], p.pt[1], p.size, p.angle, p.response) for p in found]
    return Keypoints(
        np.array(kp, np.float32).reshape(-1, 5),
        np.array([p.octave for p in found], np.int32),
        np.zeros((0, 128), np.uint8) if desc is None else desc.astype(np.uint8),
    )


def describe_at(
    image: UInt8[np.ndarray, "h w 3"],
    kp: Float32[np.ndarray, "n 5"],
    octave: Int32[np.ndarray, " n"],
    sift: cv2.SIFT,
) -> tuple[UInt8[np.ndarray, "n 128"], Bool[np.ndarray, " n"]]:
    """Describe an RGB image at given keypoints, those of another image.

    Returns the descriptors, in the order of ``kp``, and which of them OpenCV computed; it may
    leave some out, whose descriptors are 0. At an image's own keypoints they are those of
    :func:`detect`, exactly.
    """
    desc, done = np.zeros((len(kp), 128), np.uint8), np.zeros(len(kp), bool)
    if not len(kp):
        return desc, done
    points = [
        cv2.KeyPoint(x, y, size, angle, response, o, i)
        for i, ((x, y, size, angle, response), o) in enumerate(
            zip(kp.tolist(), octave.tolist(), strict=True)
        )
    ]
    # OpenCV doubles the image only if a keypoint is of octave -1 (opencv_contrib issue 171)
    x, y = image.shape[1] / 2, image.shape[0] / 2
    points.append(cv2.KeyPoint(x, y, 2, 0, 1, FINEST, len(kp)))
    found, computed = sift.compute(to_grey(image), points)
    for point, row in zip(found, computed, strict=True):
        if point.class_id < len(kp):
            desc[point.class_id] = row
            done[point.class_id] = True
    return desc, done
