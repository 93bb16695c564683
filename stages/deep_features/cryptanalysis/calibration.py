"""The adversary tries the attack on its own features first, and chooses by what works.

Correlations of the signs find the sign's column where dimensions tell nothing (symmetric features),
but they mislead where the reference's principal components do not hold for other people. Whether
they help is found out by encrypting some of the adversary's features under keys of its own.
"""

import numpy as np
from jaxtyping import Float32

from stages.deep_features.cryptanalysis.planes import SIGN, WIDTH, arrange, words
from stages.deep_features.cryptanalysis.reference import RANK, Reference, fit
from stages.deep_features.cryptanalysis.search import attack

TRIALS = 8  # requests of one vector


def signs_found(reference: Reference, features: Float32[np.ndarray, "n dims"]) -> int:
    """Return for how many vectors, each under a key of its own, the sign's bits are found."""
    rng = np.random.default_rng(0)
    right = 0
    for x in words(features)[:, None]:
        cipher = arrange(x, rng.permutation(WIDTH))
        found = arrange(cipher, attack(reference, cipher).perm)
        right += int((found >> SIGN == x >> SIGN).all())
    return right


def fit_by_trial(features: Float32[np.ndarray, "n dims"], *, trials: int = TRIALS) -> Reference:
    """Fit with the signs' correlations if that finds more signs than without, and else without.

    Tried on vectors of the second half, with models of the first; the model that is returned is
    of all.

    Parameters
    ----------
    features : the adversary's own; of fewer than four the correlations are not used.
    trials : at most.

    Raises
    ------
    InputError
        As :func:`stages.deep_features.cryptanalysis.reference.fit`.
    """
    half = len(features) // 2
    if half < 2:
        return fit(features, rank=0)
    first, tried = features[:half], features[half:]
    tried = tried[:: max(1, len(tried) // trials)][:trials]
    found = {rank: signs_found(fit(first, rank=rank), tried) for rank in (0, RANK)}
    return fit(features, rank=RANK if found[RANK] > found[0] else 0)
