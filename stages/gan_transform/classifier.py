"""Training of an image classifier, the same for h_theta and for ResNet-18 (Sec. IV-C).

Departures: ``one_cycle`` (a linear rise over 30 % of the steps, a linear fall to 0) where a profile
has too few epochs for the paper's steps; the batch size is not stated.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.params import Decay, NonNegativeFloat, PositiveFloat, PositiveInt
from stages.common.training import batch_at, fit

Schedule = Literal["steps", "one_cycle"]
RISE = 0.3  # share of the steps of one_cycle
DROP = 0.2  # factor at each milestone: "divided by 5"


def to_network(images: UInt8[Tensor, "n h w 3"]) -> Tensor:
    """Return floats in [0, 1], (n, 3, h, w), in the memory format of the convolutions."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def learning_rate(
    i: int, *, steps: int, lr: PositiveFloat, schedule: Schedule, milestones: list[float]
) -> float:
    """Return the rate of step ``i``; ``milestones`` are shares of all steps."""
    if schedule == "steps":
        return lr * DROP ** sum(i >= share * steps for share in milestones)
    rise = max(1, round(RISE * steps))
    return lr * min((i + 1) / rise, (steps - i) / max(1, steps - rise))


@torch.no_grad()
def predict(
    net: nn.Module, images: UInt8[Tensor, "n h w 3"], batch_size: int = 500
) -> Int64[Tensor, " n"]:
    """Return the most probable class of each image; leaves ``net`` in inference mode."""
    net.eval()
    return torch.cat([net(to_network(part)).argmax(1) for part in images.split(batch_size)])


def train_classifier(
    net: nn.Module,
    images_of_epoch: Callable[[int], UInt8[Tensor, "n h w 3"]],
    labels: Int64[Tensor, " n"],
    test_images: UInt8[Tensor, "m h w 3"],
    test_labels: Int64[Tensor, " m"],
    *,
    fabric: Fabric,
    checkpoint: Checkpoint,
    label: str,
    position: int,
    seed: int,
    epochs: PositiveInt,
    batch_size: PositiveInt,
    lr: PositiveFloat,
    momentum: Decay,
    weight_decay: NonNegativeFloat,
    schedule: Schedule,
    milestones: list[float],
    log_every: PositiveInt,
) -> tuple[dict[str, Tensor], Bool[Tensor, " m"], dict]:
    """Minimise the cross entropy by SGD.

    Parameters
    ----------
    images_of_epoch : epoch -> training images as the classifier sees them, augmented; on the
        device, in the order of ``labels``.

    Returns
    -------
    The weights, which test images the last weights classify rightly, and the history; its "epochs"
    hold the test accuracy in percent, which chooses nothing.

    Raises
    ------
    InputError
        If there are fewer images than a batch.
    """
    n = len(labels)
    if n < batch_size:
        raise InputError(
            label,
            "has fewer training images than a batch",
            expected=f"at least {batch_size}",
            found=n,
            remedy="lower batch_size or raise the number of images of this profile in params.yaml",
        )
    steps_per_epoch = n // batch_size
    steps = epochs * steps_per_epoch
    net.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = net.state_dict(keep_vars=True)
    optimizer = SGD(
        net.parameters(), lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    net, optimizer = fabric.setup(net, optimizer)
    epoch_now = -1
    images = test_images  # replaced before the first step

    def step(i: int) -> dict[str, Tensor]:
        nonlocal images, epoch_now
        if (epoch := i // steps_per_epoch) != epoch_now:
            images, epoch_now = images_of_epoch(epoch), epoch
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                i, steps=steps, lr=lr, schedule=schedule, milestones=milestones
            )
        batch = batch_at(i, seed=seed, size=n, batch_size=batch_size)
        batch = batch[fabric.global_rank :: fabric.world_size].to(fabric.device)
        logits = net(to_network(images[batch]))
        loss = cross_entropy(logits.float(), labels[batch])
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        right = (logits.detach().argmax(1) == labels[batch]).float().mean()
        return {"loss": loss.detach(), "train_accuracy": 100 * right}

    def validate() -> dict[str, float]:
        right = predict(net, test_images) == test_labels
        net.train()
        return {"test_accuracy": 100 * float(right.float().mean())}

    net.train()
    with checkpoint.lock() if fabric.is_global_zero else nullcontext():
        history = fit(
            step,
            state={"net": net, "optimizer": optimizer},
            steps=steps,
            checkpoint=checkpoint,
            log_every=log_every,
            images_per_step=batch_size,
            label=label,
            validate=validate,
            validate_every=steps_per_epoch,
            check_every=log_every if fabric.device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    right = predict(net, test_images) == test_labels
    state = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    return state, right.cpu(), history
