"""Trained attacks: learn plain images from ciphers, on data the attacker has.

GA, the GAN attack of Sec. IV-B: ciphers of some images, plain images of others. UWA, unshared
weights (Chang & Li 2020 [16]), and ITN, the inverse transformation network (Ito et al. 2020):
pairs of a cipher and its plain image. Each function trains on uint8 arrays and returns what
reconstructs uint8 images, and the history of the training.

Departures: the laboratory's GA code never leaves training mode, so that a reconstruction depends on
the images beside it; here G's batch norm uses its running statistics when it reconstructs.
UWA is always computed in 32 bits: its networks are small and their answer is finer than bfloat16.
[16] is known by its abstract and introduction; its networks and its loss are reconstructions.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Adam

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.losses import adversarial_loss, decision_threshold
from stages.common.metrics import ssim
from stages.common.training import batch_at, fit
from stages.gan_transform.attack_networks import (
    D_SIDE,
    Generator,
    UnsharedNetwork,
    build_generator,
    discriminator,
    unet,
    uwa_block_network,
    uwa_network,
)
from stages.gan_transform.classifier import to_network
from stages.gan_transform.protection import to_uint8

Images = UInt8[np.ndarray, "_ s s 3"]  # two sets need not be as large
Reconstruct = Callable[[Images], Images]
IMAGES_AT_ONCE = 128  # bounds the memory of a reconstruction


@dataclass(frozen=True, eq=False)
class Run:
    """What a training needs besides data and parameters.

    checkpoint : keeps the trained networks until the caller discards it.
    position : of the progress bar.
    """

    fabric: Fabric
    checkpoint: Checkpoint
    label: str
    seed: int
    position: int
    log_every: int

    def fit(self, step: Callable, state: dict, steps: int, images_per_step: int, **more) -> dict:
        """Call :func:`stages.common.training.fit` under the checkpoint's lock."""
        with self.checkpoint.lock() if self.fabric.is_global_zero else nullcontext():
            history = fit(
                step,
                state=state,
                steps=steps,
                checkpoint=self.checkpoint,
                log_every=self.log_every,
                images_per_step=images_per_step,
                label=self.label,
                check_every=self.log_every if self.fabric.device.type == "cuda" else 1,
                position=self.position,
                fabric=self.fabric,
                **more,
            )
        del history["images_per_s"]
        return history


def reconstruction_by(
    function: Callable[[Tensor], Tensor], net: nn.Module, device: torch.device
) -> Reconstruct:
    """Return uint8 cipher -> uint8 image by ``function``, with ``net`` in inference mode."""

    @torch.no_grad()
    def reconstruct(cipher: Images) -> Images:
        training = net.training
        net.eval()
        parts = torch.from_numpy(cipher).split(IMAGES_AT_ONCE)
        images = [
            to_uint8(function(to_network(part.to(device))).clamp(0, 1)).cpu() for part in parts
        ]
        net.train(training)
        return torch.cat(images).numpy()

    return reconstruct


def _check(size: int, batch_size: int, attack: str) -> None:
    if batch_size > size:
        raise InputError(
            f"attack {attack}",
            "has fewer images than a batch",
            expected=f"at least {batch_size}",
            found=size,
            remedy="lower its batch size or raise n_attack_train of this profile in params.yaml",
        )


def train_ga(
    cipher: Images,
    plain: Images,
    *,
    validation: tuple[Images, Images],
    run: Run,
    generator: Generator,
    unet_widths: list[int],
    width_divisor: int,
    ndf: int,
    lr: float,
    beta1: float,
    beta2: float,
    batch_size: int,
    iterations: int,
    validations: int,
) -> tuple[Reconstruct, dict[str, Any]]:
    """Train G and D on ciphers and plain images of different scenes, unpaired.

    L_D = BCE(D(plain), 1) + BCE(D(G(cipher)), 0); L_G = BCE(D(G(cipher)), 1); the mean over D's
    patches. Both see images in [-1, 1].

    Parameters
    ----------
    cipher, plain : enc(T1) and T2.
    validation : ciphers and plain images, for the SSIM in the history's "epochs" only.
    validations : how many times in the training, evenly; the last at its end if it divides
        ``iterations``.

    Raises
    ------
    InputError
        If the images are smaller than D needs, do not suit G, or are fewer than a batch.
    """
    size = cipher.shape[1]
    _check(min(len(cipher), len(plain)), batch_size, "GA")
    if size < D_SIDE:
        raise InputError(
            "attack GA",
            "the images are too small for D",
            expected=f"a side of at least {D_SIDE} pixels",
            found=size,
            remedy="raise attack_size of this profile in params.yaml",
        )
    fabric = run.fabric
    device = fabric.device
    torch.manual_seed(run.seed)
    G = build_generator(generator, size=size, divisor=width_divisor, unet_widths=unet_widths)
    D = discriminator(ndf)

    def set_up(net: nn.Module) -> tuple[Any, Any]:
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return fabric.setup(net, Adam(net.parameters(), lr, betas=(beta1, beta2), fused=True))

    def update(optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()

    G, opt_G = set_up(G)
    D, opt_D = set_up(D)
    z, x = (torch.from_numpy(images).to(device) for images in (cipher, plain))

    def batch(images: Tensor, i: int, side: int) -> Tensor:
        """Return batch i in [-1, 1]; the two sides are drawn independently."""
        index = batch_at(i, seed=2 * run.seed + side, size=len(images), batch_size=batch_size)
        return 2 * to_network(images[index.to(device)]) - 1

    def step(i: int) -> dict[str, Tensor]:
        fake = G(batch(z, i, 0))
        real_logits, fake_logits = D(batch(x, i, 1)), D(fake.detach())
        loss_D = adversarial_loss(real_logits, True, "bce")
        loss_D = loss_D + adversarial_loss(fake_logits, False, "bce")
        update(opt_D, loss_D)
        D.requires_grad_(False)
        loss_G = adversarial_loss(D(fake), True, "bce")
        D.requires_grad_(True)
        update(opt_G, loss_G)
        threshold = decision_threshold("bce")
        right = (real_logits > threshold).float().mean() + (fake_logits <= threshold).float().mean()
        return {"loss_D": loss_D, "loss_G": loss_G, "d_acc": right / 2}

    reconstruct = reconstruction_by(lambda z: (G(2 * z - 1) + 1) / 2, G, device)

    def validate() -> dict[str, float]:
        z, x = validation
        return {"ssim": float(ssim(reconstruct(z), x, data_range=255).mean())}

    history = run.fit(
        step,
        {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D},
        iterations,
        2 * batch_size,
        validate=validate,
        validate_every=max(1, iterations // validations),
    )
    return reconstruct, history


def decayed(i: int, *, steps: int, lr: float, milestones: Sequence[float], factor: float) -> float:
    """Return ``lr`` times ``factor`` for each milestone, a share of ``steps``, that is passed."""
    return lr * factor ** sum(i >= share * steps for share in milestones)


def flip_pairs(
    a: UInt8[Tensor, "n s s 3"], b: UInt8[Tensor, "n s s 3"], i: int, *, seed: int
) -> tuple[UInt8[Tensor, "n s s 3"], UInt8[Tensor, "n s s 3"]]:
    """Mirror both images of a pair left to right with probability 1/2; a function of (seed, i)."""
    generator = torch.Generator().manual_seed((seed + 1) * 2_000_003 + i)
    flip = (torch.rand((len(a), 1, 1, 1), generator=generator) < 0.5).to(a.device)
    return torch.where(flip, a.flip(2), a), torch.where(flip, b.flip(2), b)


def pair_loss(
    output: Float[Tensor, "n 3 s s"],
    plain: Float[Tensor, "n 3 s s"],
    reduce: Literal["mean", "sum"],
) -> Float[Tensor, ""]:
    """Return the squared error of a batch, the mean over images.

    ``mean``: over values too, as a framework's MSE does, which divides the gradient of an unshared
    weight by their number, 3 s^2; ``sum``: over values, each location then learns as if alone.
    """
    if reduce == "mean":
        return mse_loss(output, plain)
    return mse_loss(output, plain, reduction="sum") / len(output)


def _train_on_pairs(
    net: Any,
    optimizer: Any,
    cipher: Images,
    plain: Images,
    *,
    run: Run,
    reduce: Literal["mean", "sum"],
    lr: float,
    factor: float,
    batch_size: int,
    epochs: int,
    milestones: Sequence[float],
    hflip: bool,
) -> dict[str, Any]:
    device = run.fabric.device
    z, x = (torch.from_numpy(images).to(device) for images in (cipher, plain))
    steps = epochs * (len(z) // batch_size)

    def step(i: int) -> dict[str, Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = decayed(i, steps=steps, lr=lr, milestones=milestones, factor=factor)
        index = batch_at(i, seed=run.seed, size=len(z), batch_size=batch_size).to(device)
        pairs = z[index], x[index]
        if hflip:
            pairs = flip_pairs(*pairs, i, seed=run.seed)
        inputs, targets = map(to_network, pairs)
        outputs = net(inputs)
        loss = pair_loss(outputs, targets, reduce)
        optimizer.zero_grad()
        run.fabric.backward(loss)
        optimizer.step()
        return {"mse": mse_loss(outputs.detach(), targets)}

    net.train()
    state = {"net": net, "optimizer": optimizer}
    return run.fit(step, state, steps, batch_size)


def train_uwa(
    cipher: Images,
    plain: Images,
    *,
    run: Run,
    network: UnsharedNetwork | Literal["block"],
    reduce: Literal["mean", "sum"],
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    epochs: int,
    milestones: list[float],
) -> tuple[Reconstruct, dict[str, Any]]:
    """Train unshared weights on pairs; SGD, whose rate is divided by 10 at each milestone.

    Raises
    ------
    InputError
        If blocks do not tile the images, or there are fewer pairs than a batch.
    """
    _check(len(cipher), batch_size, "UWA")
    size, device = cipher.shape[1], run.fabric.device
    torch.manual_seed(run.seed)
    net = uwa_block_network(size) if network == "block" else uwa_network(network, size)
    net.to(device)
    optimizer = SGD(net.parameters(), lr, momentum=momentum, weight_decay=weight_decay)
    history = _train_on_pairs(
        net,
        optimizer,
        cipher,
        plain,
        run=run,
        reduce=reduce,
        lr=lr,
        factor=0.1,
        batch_size=batch_size,
        epochs=epochs,
        milestones=milestones,
        hflip=False,
    )
    return reconstruction_by(net, net, device), history


def train_itn(
    cipher: Images,
    plain: Images,
    *,
    run: Run,
    unet_widths: list[int],
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    epochs: int,
    milestones: list[float],
    hflip: bool,
) -> tuple[Reconstruct, dict[str, Any]]:
    """Train a U-Net with a sigmoid on pairs; SGD, whose rate is divided by 5 at each milestone.

    The loss is the mean squared error on [0, 1]. ``hflip`` mirrors pairs at random; under a key
    that depends on the position a mirrored pair is no pair of the cipher.

    Raises
    ------
    InputError
        If the U-Net does not fit the images, or there are fewer pairs than a batch.
    """
    _check(len(cipher), batch_size, "ITN")
    size, device = cipher.shape[1], run.fabric.device
    torch.manual_seed(run.seed)
    net = unet(unet_widths, size, nn.Sigmoid)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = SGD(net.parameters(), lr, momentum=momentum, weight_decay=weight_decay)
    net, optimizer = run.fabric.setup(net, optimizer)
    history = _train_on_pairs(
        net,
        optimizer,
        cipher,
        plain,
        run=run,
        reduce="mean",
        lr=lr,
        factor=0.2,
        batch_size=batch_size,
        epochs=epochs,
        milestones=milestones,
        hflip=hflip,
    )
    return reconstruction_by(net, net, device), history
