"""Paper D: colourisation of grey images by conditional GANs.

M. Górriz Blanch, M. Mrak, A. F. Smeaton, N. E. O'Connor, "End-to-End Conditional GAN-based
Architectures for Image Colourisation", IEEE MMSP 2019, arXiv:1908.09873. Released code:
github.com/bbc/ColorGAN.

Replicated: Table I (``score``), Fig. 2 (``networks``: the architecture as a table), Fig. 3
(``train``: learning curves), Fig. 4 (``evaluate``: histograms), Fig. 5 (``train``: image grid), and
the claims of the text (``claims``, ``paper.yaml``). Beyond the paper: trivial baselines, controls
and a statistical verdict for every claim.
"""
