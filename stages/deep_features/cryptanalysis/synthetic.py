"""Features without images: what a re-identification network's last layers make of random latents.

Ours. A latent of 128 numbers is mapped linearly to the mean of every channel's Gaussian map; the
pooled value of the rectified map has a closed form. Kinds: ``bn`` batch-normalised average pooling,
what a BNNeck emits; ``gem`` generalised-mean pooling, non-negative; ``sym`` the latent's linear map
and noise, a symmetric distribution; ``l2`` bn of unit length; ``iid`` independent normal numbers,
the control whose sign bit nothing tells from a mantissa bit.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64
from scipy.special import ndtr

KINDS = ("bn", "gem", "sym", "l2", "iid")
Kind = Literal["bn", "gem", "sym", "l2", "iid"]
LATENT = 128
OFFSET = -1.5  # of the channels' means, in sd of a map: most of a map is below 0, as after a ReLU
OFFSET_SPREAD = 0.5
NOISE = 0.3  # sd of what sym adds to the latent's map of sd 1
SHIFT = 0.3  # of the latent's means in another domain, in sd
SCALE = 0.2  # by how much its sd differ there, natural logarithm
CALIBRATION = 4000  # vectors that batch normalisation is fitted to
POWER = 3  # of gem; Radenovic et al., "Fine-tuning CNN image retrieval", TPAMI 2019


def draw(
    kind: Kind, n: int, dims: int, *, network: int, domain: int, seed: int
) -> Float32[np.ndarray, "n dims"]:
    """Return n feature vectors.

    Parameters
    ----------
    network : seed of the linear map and the offsets: another number, another black box.
    domain : 0 is the one that batch normalisation was fitted to; others differ in the latents'
        means and scales.
    seed : of the vectors.
    """
    if kind == "iid":
        return np.random.default_rng([seed, domain]).standard_normal((n, dims), np.float32)
    pooled = _pooled(kind, n, dims, network, domain, np.random.default_rng([1, seed]))
    if kind in ("bn", "l2"):
        before = _pooled(kind, CALIBRATION, dims, network, 0, np.random.default_rng([2, network]))
        pooled = (pooled - before.mean(0)) / before.std(0)
    if kind == "l2":
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    return pooled.astype(np.float32)


def _pooled(
    kind: Kind, n: int, dims: int, network: int, domain: int, rng: np.random.Generator
) -> Float64[np.ndarray, "n dims"]:
    fixed = np.random.default_rng([0, network])
    weight = fixed.standard_normal((LATENT, dims)) / np.sqrt(LATENT)
    offset = OFFSET + OFFSET_SPREAD * fixed.standard_normal(dims)
    z = rng.standard_normal((n, LATENT))
    if domain:
        other = np.random.default_rng([3, domain])
        z *= np.exp(SCALE * other.standard_normal(LATENT))
        z += SHIFT * other.standard_normal(LATENT)
    mean = z @ weight
    if kind == "sym":
        return mean + NOISE * rng.standard_normal((n, dims))
    mean += offset
    below = ndtr(mean)  # the share of a map of sd 1 that is above 0
    density = np.exp(-(mean**2) / 2) / np.sqrt(2 * np.pi)
    if kind == "gem":  # E max(0, mean + e)^3, e normal
        return ((mean**3 + 3 * mean) * below + (mean**2 + 2) * density) ** (1 / POWER)
    return mean * below + density  # E max(0, mean + e)
