"""The ciphertext-only attack: which of the 32 columns of a request is which bit of a float.

All floats of a request are shuffled alike, so each column of the ciphertext is one bit of the
plain features, and columns differ: in how often they are 1, in which dimensions, and together. The
key with the largest log-likelihood under the adversary's reference is searched by exchanging two
bits at a time. With all 496 gains from tables, a step costs a few matrix products.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt32
from scipy.optimize import linear_sum_assignment
from scipy.special import stdtr

from stages.common.errors import InputError
from stages.deep_features.cryptanalysis.likelihood import codes, of_own_features
from stages.deep_features.cryptanalysis.planes import EXPONENT, SIGN, WIDTH, arrange, planes
from stages.deep_features.cryptanalysis.reference import (
    CODES,
    LEAD,
    LOW,
    PAIRS,
    Reference,
    standardise,
)

STARTS = 4  # local searches, the first two from the assignments, the others kicked
KICKS = 4  # random exchanges of a kick
FLOATS = 4096  # of a request, at most, for the joint model of the leading bits
LEAST_GAIN = 1e-6  # nats; below it two keys are equal
FEW = 1024  # floats; below, their rows are summed, above, a histogram is multiplied
RANDOM_KEYS = np.random.default_rng(1).permuted(np.tile(np.arange(WIDTH), (32, 1)), axis=1)

Method = Literal["hungarian", "profile", "full"]
Perm = UInt8[np.ndarray, "32"]
Cipher = UInt32[np.ndarray, "n dims"]
Matrix = Float64[np.ndarray, "32 32"]


@dataclass(frozen=True, eq=False)
class Recovery:
    """What an attack found.

    perm : place in the ciphertext of each bit of a float, as a BitKey's.
    likelihood : mean log-likelihood of a float's 12 leading bits, nats.
    fit : where it lies between random keys (0) and the reference's own features (1).
    sign : posterior probability that the sign's column is right, among exchanges with another.
    """

    perm: Perm
    likelihood: float
    fit: float
    sign: float

    @property
    def confidence(self) -> float:
        """``fit`` times ``sign``, from 0 to 1: what the adversary can say without the truth."""
        return self.fit * self.sign


def attack(
    reference: Reference, cipher: Cipher, *, method: Method = "full", starts: int = STARTS
) -> Recovery:
    """Find the key of one request from its ciphertext.

    The result does not depend on the order of the columns: under two keys the same floats come
    out.

    Parameters
    ----------
    reference : the adversary's own features, fitted.
    cipher : all vectors that were encrypted under one key; dimensions in their order.
    method : ``hungarian`` assigns columns by how often they are 1; ``profile`` by how often in
        each dimension; ``full`` adds how the leading bits go together and how signs correlate, and
        searches.
    starts : local searches of ``full``.

    Raises
    ------
    InputError
        If the request is empty or has other dimensions than the reference.
    """
    check_request(reference, cipher)
    bits = planes(cipher)
    order = np.array(sorted(range(WIDTH), key=lambda j: bits[j].tobytes()))  # forgets the key
    bits = bits[order]
    profile, pooled, signs = _columns(reference, bits.reshape(WIDTH, *cipher.shape))
    kept = bits[:, :: -(-cipher.size // FLOATS)]
    if method == "full":
        share = kept.shape[1] / cipher.size  # both parts of the likelihood of as many floats
        linear = share * _linear(profile, pooled, signs)
        first = profile + np.eye(WIDTH)[:, SIGN : SIGN + 1] * signs
        best, gains = _search(reference, linear, [_assign(first), _assign(pooled)], kept, starts)
        linear, gains = linear / share, gains / share
    else:
        linear = profile if method == "profile" else pooled
        best = _assign(linear)
        gains = _linear_gains(linear, best[None])[0]
    gains[SIGN, (bits[best] == bits[best[SIGN]]).all(1)] = -np.inf  # an exchange changes nothing
    keys = np.stack([best, *RANDOM_KEYS])
    likelihood, *random = reference.table[codes(kept, keys)].mean(1).tolist()
    above, own = likelihood - np.mean(random), of_own_features(reference) - np.mean(random)
    return Recovery(
        perm=order[best].astype(np.uint8),
        likelihood=likelihood,
        fit=float(np.clip(above / max(own, LEAST_GAIN), 0, 1)),
        sign=_sign_probability(linear, best, gains[SIGN]),
    )


def decode(
    reference: Reference, cipher: Cipher, perm: Perm, *, mantissa: int = 23
) -> Float32[np.ndarray, "n dims"]:
    """Return the features under a key, within what the reference allows.

    NaN and infinity, which only a wrong key gives, become 0; the rest is clipped to 1.5 times the
    reference's largest.

    Parameters
    ----------
    mantissa : bits of the mantissa to believe; those below become the middle of their range.
    """
    plain = arrange(cipher, perm)
    if mantissa < EXPONENT[0]:
        dropped = EXPONENT[0] - mantissa
        plain = plain >> dropped << dropped | np.uint32(1 << dropped - 1)
    values = np.nan_to_num(plain.view(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(values, -reference.largest, reference.largest, dtype=np.float32)


def check_request(reference: Reference, cipher: Cipher, where: str = "encrypted features") -> None:
    """Refuse a request that the reference says nothing about.

    Raises
    ------
    InputError
        If it is empty or has other dimensions than the reference.
    """
    if cipher.shape[0] == 0 or cipher.shape[1] != reference.dims:
        raise InputError(
            where, "do not fit the reference", expected=f"vectors of {reference.dims} dimensions",
            found=f"shape {cipher.shape}", remedy="take both from the same black box",
        )  # fmt: skip


def _columns(
    reference: Reference, bits: UInt8[np.ndarray, "32 n dims"]
) -> tuple[Matrix, Matrix, Float64[np.ndarray, "32"]]:
    """Return log-likelihoods that bit i is column j: by dimension, pooled; and of sign planes.

    The last, of each column: by how much its correlations are likelier under the reference's
    signs than under independent ones.
    """
    n = bits.shape[1]
    ones = bits.sum(1, dtype=np.float64)  # (32, D)
    profile = reference.log_one @ ones.T + reference.log_zero @ (n - ones).T
    total = ones.sum(1)
    pooled = np.outer(reference.pooled_one, total)
    pooled += np.outer(reference.pooled_zero, n * reference.dims - total)
    variances, noise = reference.variances, reference.noise
    if not len(variances):
        return profile, pooled, np.zeros(WIDTH)
    kept = reference.kept
    z = standardise(bits[:, :, kept], reference.mean[kept]) @ reference.axes  # (32, n, k)
    signs = (z**2).sum(1) @ (1 / noise - 1 / variances) / 2 - n / 2 * np.log(
        variances / noise
    ).sum()
    return profile, pooled, signs


def _assign(scores: Float64[np.ndarray, "w w"]) -> Int64[np.ndarray, " w"]:
    """Return the column of each bit with the largest sum."""
    return linear_sum_assignment(scores, maximize=True)[1]


def _linear(profile: Matrix, pooled: Matrix, signs: Float64[np.ndarray, "32"]) -> Matrix:
    """Return what of the log-likelihood is a sum over bits, beside the joint model."""
    linear = profile.copy()
    linear[LOW:] -= pooled[LOW:]  # the joint model has it already
    linear[SIGN] += signs
    return linear


def _search(
    reference: Reference,
    linear: Matrix,
    assigned: list[np.ndarray],
    bits: UInt8[np.ndarray, "32 floats"],
    starts: int,
) -> tuple[Int64[np.ndarray, "32"], Matrix]:
    """Return the best of several local optima and what an exchange of two bits would gain there.

    The searches start from ``assigned``, then from the same kicked.
    """
    rng = np.random.default_rng(0)
    perms = np.stack(assigned * -(-starts // len(assigned)))[:starts]
    for perm in perms[len(assigned) :]:
        for a, b in rng.integers(WIDTH, size=(KICKS, 2)):
            perm[[a, b]] = perm[[b, a]]
    perms, values = _climb(reference, linear, bits, perms)
    best = int(values.argmax())
    perm = perms[best]
    perm[:LOW] = perm[:LOW][_assign(linear[:LOW, perm[:LOW]])]
    return perm, _gains(
        reference, linear, bits.T.astype(np.float64), perm[None], codes(bits, perm[None])
    )[0]


def _climb(
    reference: Reference, linear: Matrix, bits: UInt8[np.ndarray, "32 floats"], perms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange, in each key, the two bits that gain most, until none does.

    Returns the keys and their log-likelihoods.
    """
    perms = perms.copy()
    plain = bits.astype(np.float64).T.copy()
    coded = codes(bits, perms)
    active = np.arange(len(perms))
    while len(active):
        now = _gains(reference, linear, plain, perms[active], coded[active])
        a, b = np.divmod(now.reshape(len(active), -1).argmax(1), WIDTH)
        better = now[np.arange(len(active)), a, b] > LEAST_GAIN
        active, a, b = active[better], a[better], b[better]
        perms[active, a], perms[active, b] = perms[active, b], perms[active, a]
        for r, *places in zip(active, a, b, strict=True):
            differ = (bits[perms[r, places[0]]] ^ bits[perms[r, places[1]]]).astype(np.int64)
            for place in places:  # only the two planes that changed
                if place >= LOW:
                    coded[r] ^= differ << (place - LOW)
    values = reference.table[coded].sum(1) + linear[np.arange(WIDTH), perms].sum(1)
    return perms, values


def _linear_gains(linear: Matrix, perms: np.ndarray) -> Float64[np.ndarray, "starts 32 32"]:
    moved = linear[np.arange(WIDTH)[:, None], perms[:, None, :]]  # bit i to the column of bit j
    stay = np.einsum("rii->ri", moved)
    return moved + moved.swapaxes(1, 2) - stay[:, :, None] - stay[:, None, :]


def _gains(
    reference: Reference,
    linear: Matrix,
    plain: Float64[np.ndarray, "floats 32"],
    perms: np.ndarray,
    coded: Int64[np.ndarray, "starts floats"],
) -> Float64[np.ndarray, "starts 32 32"]:
    """Return what exchanging bits i and j gains, nats, for all pairs; symmetric.

    Two leading bits: a histogram of the codes times the table of exchanges. A leading bit a and a
    column x outside: a code's bit a is inverted where x differs, and the sum over floats of
    (a xor x) f_a = a f_a + x (1 - 2 a) f_a is a product of the columns with f_a, the flip's gain.
    """
    starts, floats = coded.shape
    gains = _linear_gains(linear, perms)
    tabled = _tabled(reference.exchanges, coded)
    inside, always = tabled[:, : len(PAIRS)], tabled[:, len(PAIRS) :]
    a, b = LOW + np.array(PAIRS).T
    gains[:, a, b] += inside
    gains[:, b, a] += inside
    products = reference.flips[:, coded].reshape(-1, floats) @ plain
    products = products.reshape(LEAD, starts, WIDTH).swapaxes(0, 1)
    low = np.take_along_axis(products, perms[:, None, :LOW], 2) + always[:, :, None]
    gains[:, LOW:, :LOW] += low
    gains[:, :LOW, LOW:] += low.swapaxes(1, 2)
    return gains


def _tabled(
    table: Float64[np.ndarray, "4096 c"], coded: Int64[np.ndarray, "starts floats"]
) -> Float64[np.ndarray, "starts c"]:
    """Return the sum of the table's rows over the codes of each key."""
    starts, floats = coded.shape
    if floats < FEW:
        return table[coded].sum(1)
    offset = CODES * np.arange(starts)[:, None]
    counts = np.bincount((coded + offset).ravel(), minlength=starts * CODES)
    return counts.reshape(starts, CODES).astype(np.float64) @ table


def _sign_probability(
    linear: Matrix, perm: Int64[np.ndarray, "32"], gains: Float64[np.ndarray, "32"]
) -> float:
    """Return how surely the sign's column is the right one, from what its exchanges would gain.

    Among the bits above bit 20, the posterior. Among those below, where a column is as good as a
    coin, the gap to their columns must stand out from their spread: Student's t of an outlier,
    times the columns that could have been taken instead (Bonferroni). Features without structure,
    where the best of 21 like columns is taken, so get no confidence.
    """
    low = np.flatnonzero(np.isfinite(gains[:LOW]))
    if len(low) < 2:
        return 0.0
    moved = linear[low, perm[SIGN]] - linear[low, perm[low]]  # the low bit's own part
    gap = moved - gains[low]
    spread = max(float(gap.std(ddof=1)) * np.sqrt(1 + 1 / len(low)), LEAST_GAIN)
    chance = float(stdtr(len(low) - 1, -gap.mean() / spread))
    leading = 1 / (1 + np.exp(np.minimum(gains[LOW:SIGN], 0)).sum())
    return float(leading) * (1 - min(1.0, (len(low) + 1) * chance))
