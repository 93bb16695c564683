"""ShuffleBits broken without its key: the "natural extension" of Sec. IV, NumPy and SciPy only.

Every attack sees the ciphertext of a request and features of the adversary's own, nothing else.
"""
