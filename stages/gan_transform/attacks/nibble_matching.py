"""QAP-LE: the key of Tanaka's cipher by matching what its nibbles have in common to public images.

Ours. One permutation serves all blocks, so a pair of cipher nibbles is correlated as the pair of
plain nibbles that it hides, within a block and between neighbouring blocks; a reversed nibble
only turns the signs. Which permutation brings the correlations of a few ciphers closest to those
of any public images is a quadratic assignment problem, solved approximately by Frank-Wolfe steps
(FAQ: J. T. Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLoS
ONE 2015).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment

from stages.gan_transform.ciphers.tanaka import BLOCK, NIBBLES, nibbles, unpermute

CENTRE = 7.5  # of a nibble's 16 values
SPREAD = float(np.sqrt((16**2 - 1) / 12))  # their standard deviation, all equally frequent
TOLERANCE = 1e-9  # relative gain of a step below which the search has ended

Images = UInt8[np.ndarray, "_ h w 3"]  # two sets need not be as large
Square = Float64[np.ndarray, "96 96"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is compared: the same for all keys but for the order of the nibbles.

    correlations : of nibbles i and j in one block; of i and j one block to the right; one below.
        Rows and columns are multiplied by ``sign``.
    mean, sd : of each nibble, the mean from the centre and times ``sign``, in units of SPREAD.
    loading : size of its entry in the leading eigenvector, root mean square 1.
    sign : of that entry, so that reversed nibbles look like plain ones; all may be wrong.
    """

    correlations: list[Square]
    mean: Float64[np.ndarray, "96"]
    sd: Float64[np.ndarray, "96"]
    loading: Float64[np.ndarray, "96"]
    sign: Int64[np.ndarray, "96"]


def statistics(images: Images) -> Statistics:
    """Measure the nibbles of all 4 x 4 blocks of all images.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    n, h, w, _ = images.shape
    X = nibbles(images).astype(np.float32)
    mean, sd = X.mean(1, dtype=np.float64), X.std(1, dtype=np.float64)
    X -= mean[:, None].astype(np.float32)
    X /= np.where(sd > 0, sd, 1)[:, None].astype(np.float32)
    Z = X.reshape(NIBBLES, n, h // BLOCK, w // BLOCK)
    pairs = [
        (Z, Z),
        (Z[..., :-1], Z[..., 1:]),
        (Z[:, :, :-1], Z[:, :, 1:]),
    ]
    correlations = [_mean_product(a, b) for a, b in pairs]
    _, vectors = eigh(correlations[0], subset_by_index=[NIBBLES - 1, NIBBLES - 1])
    v = vectors[:, 0]
    sign = np.where(v < 0, -1, 1)
    return Statistics(
        [sign[:, None] * C * sign for C in correlations],
        sign * (mean - CENTRE) / SPREAD,
        sd / SPREAD,
        np.abs(v) * np.sqrt(NIBBLES),
        sign,
    )


def _mean_product(a: np.ndarray, b: np.ndarray) -> Square:
    count = max(1, a[0].size)
    return (a.reshape(NIBBLES, -1) @ b.reshape(NIBBLES, -1).T).astype(np.float64) / count


def find_key(
    ciphers: Images, public: Images, *, iterations: int, weight: int | float = 1
) -> tuple[Int64[np.ndarray, "96"], Bool[np.ndarray, "96"]]:
    """Return the permutation and which nibbles of the cipher are reversed.

    Upper nibbles of photographs are found; lower ones are nearly noise, and are so in part only.

    Parameters
    ----------
    ciphers : images under one key, 10 or more.
    public : any plain images of the same kind.
    iterations : Frank-Wolfe steps, at most.
    weight : of means, standard deviations and loadings against the correlations.

    Raises
    ------
    InputError
        If a side is no multiple of 4.
    """
    found, known = statistics(ciphers), statistics(public)
    best, key = -np.inf, np.arange(NIBBLES)
    for sign in (1, -1):  # the eigenvector's own sign tells nothing
        linear = -weight * (
            (sign * found.mean[:, None] - known.mean) ** 2
            + (found.sd[:, None] - known.sd) ** 2
            + (found.loading[:, None] - known.loading) ** 2
        )
        order = match(found.correlations, known.correlations, linear, iterations=iterations)
        value = agreement(found.correlations, known.correlations, linear, order)
        if value > best:
            best, key = value, order
    flip = found.sign != known.sign[key]
    brightness = unpermute(ciphers, key, flip).mean(dtype=np.float64)
    target = public.mean(dtype=np.float64)
    if abs(255 - brightness - target) < abs(brightness - target):
        flip = ~flip
    return key, flip


def agreement(
    A: list[Square], B: list[Square], linear: Square, order: Int64[np.ndarray, "96"]
) -> float:
    """Return sum_k sum_ij A_k[i, j] B_k[order i, order j] + sum_i linear[i, order i]."""
    quadratic = sum(float((a * b[np.ix_(order, order)]).sum()) for a, b in zip(A, B, strict=True))
    return quadratic + float(linear[np.arange(len(order)), order].sum())


def match(
    A: list[Square], B: list[Square], linear: Square, *, iterations: int
) -> Int64[np.ndarray, "96"]:
    """Search the order that makes :func:`agreement` large; FAQ, from the barycentre.

    The permutation matrix is relaxed to a doubly stochastic D. A step goes towards the vertex
    that the gradient points to, by the best length, which a quadratic has in closed form.
    """
    D = np.full_like(linear, 1 / len(linear))
    for _ in range(iterations):
        gradient = linear + sum(a @ D @ b.T + a.T @ D @ b for a, b in zip(A, B, strict=True))
        vertex = np.zeros_like(D)
        vertex[linear_sum_assignment(gradient, maximize=True)] = 1
        R = vertex - D
        slope = float((gradient * R).sum())
        curvature = sum(float((R * (a @ R @ b.T)).sum()) for a, b in zip(A, B, strict=True))
        if slope <= TOLERANCE * float(np.abs(gradient).sum()):
            break
        D += min(1, -slope / (2 * curvature)) * R if curvature < 0 else R
    return linear_sum_assignment(D, maximize=True)[1]


def reconstruct(
    ciphers: Images, key: Int64[np.ndarray, "96"], flip: Bool[np.ndarray, "96"]
) -> Images:
    """Put the nibbles back where the key says they come from."""
    return unpermute(ciphers, key, flip)
