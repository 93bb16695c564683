"""ShuffleBits: one secret permutation of the bits of every float, Sec. II-B of the paper.

``keys`` makes keys, ``arrays`` encrypts NumPy arrays (no torch), ``module`` tensors inside a
network, ``onnx_tail`` the output of an exported one. ``chacha20`` and ``aes`` are conventional
ciphers with the same interface. ``implementations`` and ``oracle`` are for tests and the benchmark.

It keeps features secret from nobody who has features of the same kind: ``cryptanalysis``.
"""
