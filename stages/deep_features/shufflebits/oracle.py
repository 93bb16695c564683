"""The plainest possible ShuffleBits: unpack the bits, pick them by index, pack them again.

32 bytes of memory a bit and slow; the other implementations are tested against it.
"""

import numpy as np
from jaxtyping import UInt

from stages.deep_features.shufflebits.keys import BitKey


def encrypt(words: UInt[np.ndarray, "*shape"], key: BitKey) -> UInt[np.ndarray, "*shape"]:
    """Return the words with bit i at place perm[i], as the authors' code: highest bit first.

    Parameters
    ----------
    words : unsigned, of the key's width.
    """
    width = key.width
    index = np.empty(width, np.int64)  # character k of the result is character index[k]
    index[width - 1 - key.perm.astype(np.int64)] = width - 1 - np.arange(width)
    big = words.astype(words.dtype.newbyteorder(">")).reshape(-1)
    bits = np.unpackbits(big.view(np.uint8)).reshape(-1, width)[:, index]
    packed = np.ascontiguousarray(np.packbits(bits, axis=1)).view(big.dtype)
    return packed.astype(words.dtype).reshape(words.shape)
