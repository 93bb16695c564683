"""How near a reconstruction is to its original: in the black box's eyes, and in the picture.

The paper judges by the cosine distance of features alone (Fig. 4); PSNR and SSIM are ours.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

WINDOW = 7  # px, scikit-image's default
C1, C2 = 0.01**2, 0.03**2  # Wang et al., IEEE TIP 2004, of the range 1
AT_ONCE = 64  # images


def cosine_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Return 1 - cos(a, b) of each pair of features, 0 to 2; 1 if one is 0, as scikit-learn."""
    a, b = a.double(), b.double()
    norms = a.norm(dim=1) * b.norm(dim=1)
    return 1 - (a * b).sum(1) / torch.where(norms > 0, norms, 1.0)


def psnr(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float64[Tensor, " n"]:
    """Return the peak signal-to-noise ratio in dB of images in [0, 1]; infinite if equal."""
    return -10 * (x.double() - y.double()).square().mean((1, 2, 3)).log10()


def box_mean(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
    """Return the mean over every window that lies inside the image."""
    for axis in (2, 3):
        count = x.shape[axis] - WINDOW + 1
        total = x.narrow(axis, 0, count).clone()
        for i in range(1, WINDOW):
            total += x.narrow(axis, i, count)
        x = total / WINDOW
    return x


def ssim(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float64[Tensor, " n"]:
    """Return the structural similarity of images in [0, 1], the mean over channels.

    scikit-image's with its defaults: a uniform window of 7 x 7 px, sample covariances, windows that
    lie inside the image. In batches, because the paper's test sets are large.
    """
    found = []
    for a, b in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
        a, b = a.double().contiguous(), b.double().contiguous()
        mean_a, mean_b, aa, bb, ab = map(box_mean, (a, b, a * a, b * b, a * b))
        sample = WINDOW**2 / (WINDOW**2 - 1)
        var_a, var_b = sample * (aa - mean_a**2), sample * (bb - mean_b**2)
        cov = sample * (ab - mean_a * mean_b)
        top = (2 * mean_a * mean_b + C1) * (2 * cov + C2)
        bottom = (mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)
        found.append((top / bottom).mean((1, 2, 3)))
    return torch.cat(found)
