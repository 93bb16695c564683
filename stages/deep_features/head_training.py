"""How the attribute heads are trained: class weights, their loss, Adam in two phases (Sec. III-B).

The authors' code asks Keras for class weights of several outputs, which the version it names does
not take; here is what it means to do. Departures: an epoch's incomplete last batch is dropped; the
last epoch is what counts, and the epoch that is best on the test images, which the authors keep, is
reported beside it.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot
from torch.optim import Adam

from stages.common.errors import InputError
from stages.common.params import Decay, PositiveFloat, PositiveInt
from stages.common.training import batch_at
from stages.deep_features.heads import Heads, membership

ADAM_EPS = 1e-7  # Keras' Adam


def class_weights(
    labels: Int64[Tensor, "n t"], classes: Sequence[int], *, balanced: bool = True
) -> Float[Tensor, " k"]:
    """Return w_t[c] = N / (K_t N_tc), all tasks' classes in a row; 1 if not ``balanced``.

    scikit-learn's ``compute_class_weight("balanced")``; a class without an image weighs 0.
    """
    if not balanced:
        return torch.ones(sum(classes))
    rows = []
    for column, K in zip(labels.T, classes, strict=True):
        counts = torch.bincount(column, minlength=K).float().cpu()
        rows.append(torch.where(counts > 0, len(labels) / (K * counts.clamp(min=1)), 0.0))
    return torch.cat(rows)


def targets(
    labels: Int64[Tensor, "n t"], classes: Sequence[int], weights: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    """Return w_t[y_t] at the true class of each task, 0 elsewhere."""
    hot = [one_hot(column, K) for column, K in zip(labels.T, classes, strict=True)]
    return torch.cat(hot, 1) * weights.to(labels.device)


def weighted_cross_entropy(
    logits: Float[Tensor, "s b k"], target: Float[Tensor, "s b k"], classes: Sequence[int]
) -> Float[Tensor, " s"]:
    """Return sum_t mean_b( w_t[y_bt] CE(logits_bt, y_bt) ) of each stack.

    The mean is over the batch, as Keras has it, not over the weights. With z the logits, CE is
    log sum_c exp z_c - z_y.

    Parameters
    ----------
    target : of :func:`targets`.
    classes : of each task; they follow each other in the logits.
    """
    member = membership(classes).to(logits.device)
    top = torch.stack([z.amax(-1) for z in logits.detach().split(list(classes), -1)], -1)
    log_sum = ((logits - top @ member.mT).exp() @ member).log() + top
    return ((target @ member * log_sum).sum(-1) - (target * logits).sum(-1)).mean(-1)


def train_heads(
    heads: Heads,
    features: Sequence[Float[Tensor, "n d"]],
    labels: Sequence[Int64[Tensor, "n t"]],
    *,
    weighted: Sequence[bool],
    seed: int,
    epochs: PositiveInt,
    batch_size: PositiveInt,
    lr: PositiveFloat,
    lr_late: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
) -> Iterator[dict[str, float]]:
    """Train every stack of ``heads`` on its own data; yields after each epoch, in inference mode.

    Parameters
    ----------
    heads : on the device of the data.
    features, labels, weighted : of each stack: features, classes (0 and above), class weights.
    lr, lr_late : of the first and of the second half of the epochs.

    Yields
    ------
    The epoch's number from 1 and the mean loss of the first stack.

    Raises
    ------
    InputError
        If there are fewer images than a batch.
    FloatingPointError
        If a loss is NaN or infinite.
    """
    n, device = len(labels[0]), labels[0].device
    if n < batch_size:
        raise InputError(
            "attributes",
            "have fewer annotated training images than a batch",
            expected=f"at least {batch_size}",
            found=n,
            remedy="lower batch_size or raise the number of images of this profile in params.yaml",
        )
    per_epoch = n // batch_size
    rows = [
        class_weights(y, heads.classes, balanced=balanced)
        for y, balanced in zip(labels, weighted, strict=True)
    ]
    goals = [targets(y, heads.classes, w) for y, w in zip(labels, rows, strict=True)]
    optimizer = Adam(heads.parameters(), lr, betas=(beta1, beta2), eps=ADAM_EPS, fused=True)
    for epoch in range(epochs):
        heads.train()
        for group in optimizer.param_groups:
            group["lr"] = lr if epoch < epochs / 2 else lr_late
        total = torch.zeros(len(labels), device=device)
        for i in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            batch = batch_at(i, seed=seed, size=n, batch_size=batch_size).to(device)
            x = torch.stack([f[batch] for f in features])
            target = torch.stack([goal[batch] for goal in goals])
            loss = weighted_cross_entropy(heads(x), target, heads.classes)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            total += loss.detach()
        if not torch.isfinite(total).all():
            raise FloatingPointError(
                f"attribute heads: the losses diverged in epoch {epoch}: {total.tolist()};"
                " nothing finished was overwritten; lower lr"
            )
        heads.eval()
        yield {"epoch": epoch + 1, "loss": float(total[0]) / per_epoch}
