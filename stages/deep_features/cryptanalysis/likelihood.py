"""How plausible a key is: the likelihood of the features' 12 leading bits under it (claim C10).

No plain feature is needed, so an adversary tells the true key from others; the paper says that
decrypted values are "not straightforward to validate" (Sec. II-B).
"""

import numpy as np
from jaxtyping import Float64, Int64, Integer, UInt8, UInt32

from stages.deep_features.cryptanalysis.planes import WIDTH, planes
from stages.deep_features.cryptanalysis.reference import LEAD, LOW, Reference


def codes(
    bits: UInt8[np.ndarray, "32 floats"], perms: Integer[np.ndarray, "keys 32"]
) -> Int64[np.ndarray, "keys floats"]:
    """Return the 12 leading bits of every float under every key, as a number; the sign first.

    Parameters
    ----------
    perms : place in the ciphertext of each bit of a float, as a BitKey's.
    """
    weights = np.zeros((len(perms), WIDTH), np.float32)  # whole numbers below 4096: exact
    np.put_along_axis(weights, perms[:, LOW:].astype(np.int64), 2.0 ** np.arange(LEAD), 1)
    return (weights @ bits.astype(np.float32)).astype(np.int64)


def per_float(
    reference: Reference,
    cipher: UInt32[np.ndarray, "*shape"],
    perms: Integer[np.ndarray, "keys 32"],
) -> Float64[np.ndarray, " keys"]:
    """Return the mean log-likelihood of a float under each key, nats."""
    bits = planes(cipher)
    return np.stack([reference.table[codes(bits, perm[None])[0]].mean() for perm in perms])


def of_own_features(reference: Reference) -> float:
    """Return the mean log-likelihood of a float of the reference itself: minus its entropy."""
    return float(np.exp(reference.table) @ reference.table)
