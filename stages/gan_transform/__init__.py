"""Paper A: a GAN-based image transformation that protects images and keeps them classifiable.

W. Sirichotedumrong, H. Kiya, "A GAN-Based Image Transformation Scheme for Privacy-Preserving Deep
Neural Networks", EUSIPCO 2020, arXiv:2006.01342.

Replicated: the preliminary protection of eqs. (1)-(3) (``perturb``), the CycleGAN of eqs. (4)-(9)
and its transformation h_p (``transform``), the three ciphers it is compared with (``ciphers``,
``encrypt``), Table I: GAN attack and unshared-weight attack (``attack``), classification
(``classify``); Figs. 1 and 7 (``report``). Beyond the paper: every attack on every scheme and on
the identity, inversion networks, ciphertext-only and known-plaintext cryptanalysis without training
(``cryptanalyse``), floors, and a statistical verdict for every claim.
"""
