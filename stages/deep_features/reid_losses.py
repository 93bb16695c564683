"""Losses of person re-identification as FastReID v1.0.0 computes them, all in 32 bits.

Functions of tensors: ``y`` are identities as class numbers, int64 (n,).
"""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot, relu, softplus

Mining = Literal["hard", "weighted"]
LEAST = 1e-12  # squared distance under which the root's gradient is cut (FastReID)


def cross_entropy(
    logits: Float[Tensor, "n k"], y: Int64[Tensor, " n"], *, smoothing: float | int
) -> Float[Tensor, ""]:
    """Return the mean cross entropy against 1 - e for the own class and e / (k - 1) for others.

    torch's label smoothing would give e / k to every class.
    """
    k = logits.shape[1]
    target = torch.full_like(logits, smoothing / max(1, k - 1))
    target = target.scatter(1, y[:, None], 1 - smoothing)
    return -(target * log_softmax(logits, 1)).sum(1).mean()


def circle_logits(
    cosine: Float[Tensor, "n k"], y: Int64[Tensor, " n"], *, scale: float | int, margin: float | int
) -> Float[Tensor, "n k"]:
    """Return the logits of the circle loss (Sun et al. 2020, eq. 6, as a softmax).

    For the own class a (s - (1 - m)) with a = [1 + m - s]+, for others a (s - m) with a = [s + m]+,
    times ``scale``; no gradient flows through a.
    """
    a_p = relu(1 + margin - cosine.detach())
    a_n = relu(cosine.detach() + margin)
    own = one_hot(y, cosine.shape[1]).bool()
    return scale * torch.where(own, a_p * (cosine - (1 - margin)), a_n * (cosine - margin))


def distances(f: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Return the Euclidean distances between all pairs of features, which are not normalised."""
    squares = f.square().sum(1)
    return (squares[:, None] + squares - 2 * f @ f.T).clamp(min=LEAST).sqrt()


def triplet(
    f: Float[Tensor, "n d"], y: Int64[Tensor, " n"], *, mining: Mining, margin: float | int
) -> Float[Tensor, ""]:
    """Return the triplet loss, every image an anchor; it is its own positive too, as in FastReID.

    Parameters
    ----------
    mining : "hard": d_ap is the farthest positive, d_an the nearest negative (Hermans et al. 2017);
        "weighted": means weighted by softmax(d) and softmax(-d) (Ye et al. 2021, AGW).
    margin : above 0: [d_ap - d_an + margin]+; 0: softplus(d_ap - d_an), the soft margin.
    """
    d = distances(f)
    positive = y[:, None] == y
    outside = torch.tensor(torch.inf, device=d.device)
    if mining == "hard":
        d_ap = torch.where(positive, d, -outside).amax(1)
        d_an = torch.where(positive, outside, d).amin(1)
    else:
        d_ap = (torch.where(positive, d, -outside).softmax(1) * d).sum(1)
        d_an = (torch.where(positive, -outside, -d).softmax(1) * d).sum(1)
    gap = d_ap - d_an
    return (relu(gap + margin) if margin > 0 else softplus(gap)).mean()
