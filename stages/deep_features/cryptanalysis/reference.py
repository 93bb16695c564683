"""What the adversary's own features tell about the 32 bits of a feature (fit)."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64

from stages.common.errors import InputError
from stages.deep_features.cryptanalysis.planes import SIGN, WIDTH, planes, words

LEAD = 12  # leading bits that are modelled together: sign, exponent, three of the mantissa
LOW = WIDTH - LEAD  # bits below them
CODES = 2**LEAD
LEAD_BITS = np.arange(CODES) >> np.arange(LEAD)[:, None] & 1  # (12, 4096)
PAIRS = [(a, b) for a in range(LEAD) for b in range(a)]

CLIP = 1e-4  # least probability of a bit
COUNT = 0.05  # what is added to the count of a code
RANK = 48  # directions of the signs' correlations
INFORMATIVE = 0.02  # dimensions whose sign is constant but for less than this tell nothing
HEADROOM = 1.5  # a feature is at most so many times larger than the largest of the reference
OVERSAMPLING, ITERATIONS = 16, 3  # of the randomised decomposition


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of the adversary's own features of D dimensions.

    dims : D.
    log_one, log_zero : (32, D) of each bit and dimension, log P(1) and log P(0), nats.
    pooled_one, pooled_zero : (32,) the same over all dimensions.
    table : (4096,) log P of the 12 leading bits together, over all dimensions; sign first.
    mean, kept : (D,) share of negative values; the dimensions where it is not nearly 0 or 1.
    axes, variances, noise : (kept, k), (k,) and the rest's variance: principal components of the
        standardised sign bits (PPCA; Tipping & Bishop, J. R. Statist. Soc. B 1999).
    largest : 1.5 times the largest size of a value.
    """

    dims: int
    log_one: Float64[np.ndarray, "32 dims"]
    log_zero: Float64[np.ndarray, "32 dims"]
    pooled_one: Float64[np.ndarray, "32"]
    pooled_zero: Float64[np.ndarray, "32"]
    table: Float64[np.ndarray, "4096"]
    mean: Float64[np.ndarray, " dims"]
    kept: Bool[np.ndarray, " dims"]
    axes: Float64[np.ndarray, "kept k"]
    variances: Float64[np.ndarray, " k"]
    noise: float
    largest: float

    @cached_property
    def flips(self) -> Float64[np.ndarray, "12 4096"]:
        """What a code gains when its bit a is inverted; less that where the bit is 1."""
        return _flips(self.table) * (1 - 2 * LEAD_BITS)

    @cached_property
    def exchanges(self) -> Float64[np.ndarray, "4096 78"]:
        """What a code gains when its bits a and b are exchanged, for all pairs b < a.

        The last 12 columns: what it gains when bit a is inverted, 0 where the bit is 0.
        """
        columns = []
        for a, b in PAIRS:
            differ = LEAD_BITS[a] ^ LEAD_BITS[b]
            columns.append(self.table[np.arange(CODES) ^ (differ << a | differ << b)] - self.table)
        return np.stack([*columns, *(_flips(self.table) * LEAD_BITS)], 1)


def fit(features: Float32[np.ndarray, "n dims"], *, rank: int = RANK) -> Reference:
    """Fit the model to features of the black box that the adversary extracted.

    Parameters
    ----------
    features : 20 vectors or more are of use, 2 are needed.
    rank : principal components of the signs, at most n / 4 are used; 0: signs are independent.

    Raises
    ------
    InputError
        If there are fewer than two vectors, or a value is NaN or infinite.
    """
    check_reference(features)
    n, dims = features.shape
    bits = planes(words(features)).reshape(WIDTH, n, dims)
    ones = bits.sum(1, dtype=np.int64)
    m = np.clip((ones + 0.5) / (n + 1), CLIP, 1 - CLIP)
    pooled = m.mean(1)  # smoothed alike: where dimensions tell nothing, both must agree
    counts = np.bincount((words(features) >> LOW).ravel(), minlength=CODES) + COUNT
    mean = m[SIGN]
    share = ones[SIGN] / n
    kept = (share > INFORMATIVE) & (share < 1 - INFORMATIVE)
    axes, variances, noise = _components(standardise(bits[SIGN], mean)[:, kept], rank)
    return Reference(
        dims=dims,
        log_one=np.log(m),
        log_zero=np.log1p(-m),
        pooled_one=np.log(pooled),
        pooled_zero=np.log1p(-pooled),
        table=np.log(counts / counts.sum()),
        mean=mean,
        kept=kept,
        axes=axes,
        variances=variances,
        noise=noise,
        largest=HEADROOM * float(np.abs(features).max()),
    )


def _flips(table: Float64[np.ndarray, "4096"]) -> Float64[np.ndarray, "12 4096"]:
    return np.stack([table[np.arange(CODES) ^ 1 << a] - table for a in range(LEAD)])


def forget_dimensions(reference: Reference, dims: int) -> Reference:
    """Return what is left when nothing is known of single dimensions, for features of ``dims``."""
    pooled = {
        "log_one": np.repeat(reference.pooled_one[:, None], dims, 1),
        "log_zero": np.repeat(reference.pooled_zero[:, None], dims, 1),
    }
    return replace(
        reference,
        dims=dims,
        **pooled,
        mean=np.exp(pooled["log_one"][SIGN]),
        kept=np.zeros(dims, bool),
        axes=np.zeros((0, 0)),
        variances=np.zeros(0),
    )


def check_reference(features: np.ndarray, where: str = "reference features") -> None:
    """Refuse features that no model can be fitted to.

    Raises
    ------
    InputError
        If there are fewer than two vectors, no dimension, or a value is NaN or infinite.
    """
    if len(features) < 2 or features.shape[1] == 0:
        raise InputError(
            where, "are too few", expected="two vectors or more, of one dimension or more",
            found=f"shape {features.shape}", remedy="extract the features of more images",
        )  # fmt: skip
    if not np.isfinite(features).all():
        raise InputError(
            where, "are not finite", expected="numbers only",
            found=f"{np.count_nonzero(~np.isfinite(features))} values that are NaN or infinite",
            remedy="give plain features, not encrypted ones",
        )  # fmt: skip


def standardise(
    bits: np.ndarray, mean: Float64[np.ndarray, " dims"]
) -> Float64[np.ndarray, "*shape dims"]:
    """Return bits less their mean, in units of their standard deviation."""
    return (bits - mean) / np.sqrt(mean * (1 - mean))


def _components(
    z: Float64[np.ndarray, "n dims"], rank: int
) -> tuple[Float64[np.ndarray, "dims k"], Float64[np.ndarray, " k"], float]:
    """Return the leading axes of z, the variances along them, and the mean variance of the rest.

    Variances are those of vectors that the axes were not fitted to: of either half along the axes
    of the other. An axis along which they vary no more than elsewhere is dropped, so few vectors,
    or independent signs, leave few axes or none.
    """
    n, dims = z.shape
    k = min(rank, n // 4, dims - 1)
    if k < 1:
        return np.zeros((dims, 0)), np.zeros(0), 1.0
    halves = z[::2], z[1::2]
    unseen = [((b @ _axes(a, k)) ** 2).mean(0) for a, b in (halves, halves[::-1])]
    variances = np.mean(unseen, 0)
    noise = max(float(((z**2).sum() / n - variances.sum()) / (dims - k)), CLIP)
    above = variances > noise
    return _axes(z, k)[:, above], variances[above], noise


def _axes(z: Float64[np.ndarray, "n dims"], k: int) -> Float64[np.ndarray, "dims k"]:
    """Return the leading right singular vectors.

    By a randomised range finder with power iterations (Halko, Martinsson & Tropp, SIAM Review
    2011, Alg. 4.4), always of the same random start.
    """
    n, dims = z.shape
    start = np.random.default_rng(0).standard_normal((dims, min(k + OVERSAMPLING, n, dims)))
    q, _ = np.linalg.qr(z @ start)
    for _ in range(ITERATIONS):
        back, _ = np.linalg.qr(z.T @ q)
        q, _ = np.linalg.qr(z @ back)
    return np.linalg.svd(q.T @ z, full_matrices=False)[2][:k].T
