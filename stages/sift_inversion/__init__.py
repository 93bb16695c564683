"""Paper B: images back from SIFT descriptors by a coarse network and a conditional GAN.

H. Wu, J. Zhou, Y. Li, "Image Reconstruction from Local Descriptors Using Conditional Adversarial
Networks", APSIPA ASC 2019. The code the authors released later (github.com/HighwayWu/
SIFT-Reconstruction) is of another, later model; none of it is used.

The paper prints no number; its figures are one to eight pictures each. Replicated, every figure as
a grid of fixed images and as a score over the whole test set: Figs. 2 and 3 (``networks``: the
architectures as tables), Fig. 1 (``reconstruct``: keypoints, baseline, ours), Fig. 4 (``train``:
L2 against the joint loss), Fig. 5 (``train``, ``refine``: baseline against ours), Fig. 6
(``refine``: one scale against two), Fig. 7 (``reconstruct``: a region's keypoints removed), Fig. 8
(``refine``: eight categories). Keypoints come from ``extract``, measures from ``evaluate``,
pictures and tables from ``report``, the claims of the text from ``claims`` and ``paper.yaml``.
Beyond the paper: the baseline retrained on the same images, controls for ensembling and for
capacity, floors, and a statistical verdict for every claim.
"""
