"""PC1: the mask of same-key PE from the leading principal component of its ciphers.

Ours. Bright images are bright nearly everywhere, so the values of plain photographs vary together:
the leading eigenvector of their covariance has one sign. Reversing a value turns the sign of its
entry, hence the signs of the ciphers' eigenvector are the mask, up to one common sign, which the
mean brightness of any public images settles.
"""

import numpy as np
from jaxtyping import UInt8
from scipy.linalg import eigh

from stages.gan_transform.ciphers import pixel_based

Images = UInt8[np.ndarray, "_ h w 3"]  # two sets need not be as large


def find_mask(ciphers: Images, public: Images) -> UInt8[np.ndarray, "1 h w 3"]:
    """Return which values the common key reverses, 0 or 1.

    Parameters
    ----------
    ciphers : images under one key, 100 or more.
    public : any plain images of the same kind, for their mean brightness.
    """
    X = ciphers.reshape(len(ciphers), -1).astype(np.float64)
    X -= X.mean(0)
    last = len(X) - 1
    _, u = eigh(X @ X.T, subset_by_index=[last, last])  # N x N: smaller than 3hw x 3hw
    bits = (X.T @ u[:, 0] < 0).reshape(1, *ciphers.shape[1:])
    mean = ciphers.mean(0, dtype=np.float64)
    brightness = np.where(bits, 255 - mean, mean).mean()
    target = public.mean(dtype=np.float64)
    if abs(255 - brightness - target) < abs(brightness - target):
        bits = ~bits
    return bits.astype(np.uint8)


def reconstruct(ciphers: Images, bits: UInt8[np.ndarray, "1 h w 3"]) -> Images:
    """Undo the reversal; a colour shuffle, if there was one, stays."""
    return pixel_based.decrypt(ciphers, bits)
