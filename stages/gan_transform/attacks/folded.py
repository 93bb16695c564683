"""FR: feature reconstruction, which needs neither a key nor a second image.

A. H. Chang, B. M. Case, "Attacks on image encryption schemes for privacy-preserving deep neural
networks", 2020, arXiv:2004.13263; released code: github.com/ahchang98/
image-encryption-scheme-attacks. Reversing a value leaves min(v, 255 - v) as it is.

Departure: the advanced attack there begins with a colour typed in by hand; here with the mean
colour that public images have in that corner.
"""

import numpy as np
from jaxtyping import Float, UInt8

from stages.gan_transform.ciphers.pixel_based import ORDERS

Images = UInt8[np.ndarray, "n h w 3"]


def fold(cipher: Images) -> Images:
    """Return min(v, 255 - v), the basic attack: 0..127, the same for a value and its reverse."""
    return np.minimum(cipher, 255 - cipher)


def follow_neighbours(
    cipher: Images, start: UInt8[np.ndarray, "3"] | Float[np.ndarray, "3"]
) -> Images:
    """Undo reversal and order pixel by pixel, the advanced attack.

    Of the 6 orders and 8 reversals of a pixel the one is taken that is closest (L1) to the pixel
    decoded before it: the left one in the first row, else the upper one. Of equals the first.

    Parameters
    ----------
    start : colour that the first pixel is compared with, 0..255.
    """
    out = np.empty_like(cipher, order="C")
    n, h, w, _ = cipher.shape
    before = np.broadcast_to(np.asarray(start, np.float32), (n, 1, 3))
    for column in range(w):
        before = _closest(cipher[:, 0, column : column + 1], before)
        out[:, 0, column] = before[:, 0]
    for row in range(1, h):  # the pixels of a row do not depend on each other
        out[:, row] = _closest(cipher[:, row], out[:, row - 1])
    return out


def _closest(pixels: UInt8[np.ndarray, "n m 3"], before: np.ndarray) -> UInt8[np.ndarray, "n m 3"]:
    """Choose for each pixel among its 48 decodings; ``before`` are the colours to be close to."""
    value = pixels[..., :, None].astype(np.float32)  # channel of the cipher, then of the result
    wanted = before[..., None, :].astype(np.float32)
    plain, reverse = np.abs(value - wanted), np.abs(255 - value - wanted)
    distance = np.minimum(plain, reverse)
    best = ORDERS[distance[..., ORDERS, np.arange(3)].sum(-1).argmin(-1)]
    chosen = np.take_along_axis(pixels, best, -1)
    reversed_ = np.take_along_axis(reverse < plain, best[..., None, :], -2)[..., 0, :]
    return np.where(reversed_, 255 - chosen, chosen)
