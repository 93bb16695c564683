"""Train h_p, a CycleGAN between plain and protected images (Sec. III-B2, eqs. (4)-(9)).

Departures: G_AB and G_BA have an Adam each (the same updates as one for both); gradients are
clipped; batches are pairs (x, x_p, y) of the same image, because eqs. (7) and (8) make no sense
otherwise (``pairing: unpaired`` draws x and x_p apart); after training, the statistics of batch
norm are taken anew over the images that each net will see, since both saw two kinds of images while
training. gamma_1 is negative, so L_p is maximised and could run away with the rest: the guard
below.
"""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import update_bn

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, sha256, write_bytes, write_json
from stages.common.losses import Adversarial
from stages.common.params import (
    Decay,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from stages.common.stage import run
from stages.common.training import batch_at, fit, for_each_seed, set_up
from stages.gan_transform.classifier import to_network
from stages.gan_transform.losses import (
    Reduction,
    features_apart,
    loss_classification,
    loss_discriminator,
    loss_gan,
    loss_perceptual,
    loss_reconstruction,
)
from stages.gan_transform.networks import (
    VGG13,
    PatchGAN,
    constant_normalisation,
    load_frozen,
    translator,
)
from stages.gan_transform.perceptual import Phi, PhiLayer, load_phi, root_mean_square
from stages.gan_transform.protection import BATCH, translate

PATHS = ("data", "target", "perturbed", "out")
LARGEST_SHARE = 10.0  # |gamma_1 L_p| against the rest of L_G, beyond which L_p is capped
CAP = 2.0  # times the features' distance of x and x_p


class Guard(nn.Module):
    """Caps L_p once it dominates: decided at the end of an epoch, kept until the end of the run.

    It dominates if h_theta does worse than guessing on x_hat_p (mean cross entropy above log of the
    classes) or if |gamma_1 L_p| is more than ten times the rest of L_G, both as means of an epoch.
    """

    state: Tensor
    sums: Tensor

    def __init__(self, classes: int, mode: Literal["auto", "on", "off"]):
        super().__init__()
        self.guess = math.log(classes)
        self.mode = mode
        self.register_buffer("state", torch.tensor([-1.0, 0, 0]))  # step of the cap, ce, share
        self.register_buffer("sums", torch.zeros(4))  # steps, ce, |weighted L_p|, rest

    @property
    def capped(self) -> bool:
        return self.mode == "on" or float(self.state[0]) >= 0

    def observe(self, ce: Tensor, weighted_lp: Tensor, rest: Tensor) -> None:
        """Note one step's cross entropy, gamma_1 L_p and the sum of L_G's other terms."""
        seen = torch.stack([torch.ones_like(ce), ce, weighted_lp.abs(), rest])
        self.sums += seen.detach()

    def decide(self, step: int) -> None:
        """End an epoch."""
        steps, ce, lp, rest = self.sums.tolist()
        self.sums.zero_()
        if self.mode == "auto" and not self.capped and steps:
            if ce / steps > self.guess or lp > LARGEST_SHARE * rest:
                self.state.copy_(torch.tensor([step, ce / steps, lp / max(rest, 1e-9)]))

    def record(self) -> dict[str, float | str | None]:
        """Return what happened, for the report."""
        step, ce, share = self.state.tolist()
        happened = step >= 0
        return {
            "mode": self.mode,
            "capped_at_step": int(step) if happened else None,
            "ce_then": ce if happened else None,
            "share_then": share if happened else None,
            "guess": self.guess,
        }


def transform_one(
    data: Path,
    target: Path,
    perturbed: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    target_width: int,
    unet_widths: list[int],
    ndf: int,
    phi: Phi,
    phi_layer: PhiLayer,
    phi_weights: str | None,
    adversarial: Adversarial,
    lambda_adv: NonNegativeFloat,
    gamma1: float | int,
    gamma2: NonNegativeFloat,
    gamma3: NonNegativeFloat,
    rec_reduction: Reduction,
    lp_second: bool,
    lp_cap: Literal["auto", "on", "off"],
    pairing: Literal["paired", "unpaired"],
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    grad_clip: PositiveFloat,
    batch_size: int,
    epochs: int,
    log_every: int,
) -> dict:
    """Train with one seed; writes both generators and the history."""
    params = {k: v for k, v in locals().items() if k not in (*PATHS, "position")}
    weights, images = target / f"htheta-s{seed}.safetensors", perturbed / f"P-s{seed}.npz"
    params["data_sha256"] = [sha256(data / "train.npz"), sha256(weights), sha256(images)]
    if phi_weights is not None:
        params["phi_sha256"] = sha256(Path(phi_weights))
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    device = fabric.device
    torch.manual_seed(seed)
    protected = read_npz(images)
    n = len(protected["images"])
    if batch_size > n:
        raise InputError(
            images,
            "has fewer images than a batch",
            expected=f"at least {batch_size}",
            found=n,
            remedy="lower transform.batch_size or raise perturb.n of this profile in params.yaml",
        )
    plain = torch.from_numpy(read_npz(data / "train.npz")["images"][:n]).to(device)
    P = torch.from_numpy(protected["images"]).to(device)
    labels = torch.from_numpy(protected["labels"]).to(device)
    classes = len(read_json(data / "meta.json")["classes"])
    h = VGG13(classes, constant_normalisation(), target_width)
    load_frozen(h, weights).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    perceptual = load_phi(phi, phi_layer, phi_weights, h, device)
    both = zip(plain.split(250), P.split(250), strict=True)
    batches = [(to_network(a), to_network(b)) for a, b in both]
    unit = root_mean_square(perceptual, [x for x, _ in batches])

    def features(images: Tensor) -> Float[Tensor, "n c h w"]:
        with fabric.autocast():
            return perceptual(images).float() / unit

    with torch.no_grad():
        apart = [features_apart(features(x), features(x_p)) for x, x_p in batches]
        cap = CAP * float(torch.cat(apart).mean())
    del batches

    def adam(net: nn.Module) -> Adam:
        return Adam(net.parameters(), lr, betas=(beta1, beta2), fused=True)

    plain_nets: dict[str, nn.Module] = {
        "G_AB": translator(unet_widths),
        "G_BA": translator(unet_widths),
        "F_A": PatchGAN(ndf),
        "F_B": PatchGAN(ndf),
    }
    nets: dict[str, Any] = {}
    optimizers: dict[str, Any] = {}
    for name, net in plain_nets.items():
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        nets[name], optimizers[name] = fabric.setup(net, adam(net))
    G_AB, G_BA, F_A, F_B = nets.values()
    guard = Guard(classes, lp_cap).to(device)
    steps_per_epoch = n // batch_size

    def update(names: list[str], loss: Tensor, clip: bool = False) -> None:
        for name in names:
            optimizers[name].zero_grad()
        fabric.backward(loss)
        for name in names:
            if clip:
                fabric.clip_gradients(
                    nets[name], optimizers[name], max_norm=grad_clip, error_if_nonfinite=False
                )  # fit says what diverged, and where
            optimizers[name].step()

    def step(i: int) -> dict[str, Any]:
        mine = slice(fabric.global_rank, None, fabric.world_size)
        index = batch_at(i, seed=seed, size=n, batch_size=batch_size)[mine].to(device)
        other = index
        if pairing == "unpaired":
            other = batch_at(i, seed=~seed, size=n, batch_size=batch_size)[mine].to(device)
        x, x_p = to_network(plain[index]), to_network(P[other])
        x_hat_p, x_hat = G_AB(x), G_BA(x_p)
        x_rec, xp_rec = G_BA(x_hat_p), G_AB(x_hat)
        for F in (F_A, F_B):
            F.requires_grad_(False)
        adv = lambda_adv * loss_gan(F_A(x_hat).float(), F_B(x_hat_p).float(), adversarial)
        for F in (F_A, F_B):
            F.requires_grad_(True)
        with torch.no_grad():
            phi_x = features(x)
        L_p = loss_perceptual(phi_x, features(x_hat_p), features(x_hat) if lp_second else None)
        with fabric.autocast():
            logits_p, logits = h(x_hat_p), h(x_hat)
        L_c = loss_classification(logits_p.float(), labels[index], logits.float(), labels[other])
        L_r = loss_reconstruction(x_rec.float(), x, xp_rec.float(), x_p, rec_reduction)
        lc, lr_ = gamma2 * L_c, gamma3 * L_r
        lp = gamma1 * (L_p.clamp(max=cap) if guard.capped else L_p)
        update(["G_AB", "G_BA"], adv + lp + lc + lr_, clip=True)
        loss_D = loss_discriminator(
            F_A(x).float(), F_A(x_hat.detach()).float(), adversarial
        ) + loss_discriminator(F_B(x_p).float(), F_B(x_hat_p.detach()).float(), adversarial)
        update(["F_A", "F_B"], loss_D)
        with torch.no_grad():
            ce = nn.functional.cross_entropy(logits_p.float(), labels[index])
            guard.observe(ce, gamma1 * L_p, adv + lc + lr_)
            right = 100 * (logits_p.argmax(1) == labels[index]).float().mean()
        if (i + 1) % steps_per_epoch == 0:
            guard.decide(i + 1)
        return {
            "adv": adv,
            "lp": lp,
            "lc": lc,
            "lr": lr_,
            "ce_xhatp": ce,
            "accuracy_xhatp": right,
            "d_loss": loss_D,
            "capped": float(guard.capped),
        }

    for net in nets.values():
        net.train()
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-s{seed}", params)
    first = fabric.is_global_zero
    with checkpoint.lock() if first else nullcontext():
        history = fit(
            step,
            state={
                **nets,
                **{f"opt_{name}": optimizer for name, optimizer in optimizers.items()},
                "guard": guard,
            },
            steps=epochs * steps_per_epoch,
            checkpoint=checkpoint,
            log_every=log_every,
            images_per_step=batch_size,
            label=f"{out.name} seed {seed}",
            check_every=log_every if device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    rate = history.pop("images_per_s")
    for entry in history["log"]:
        entry["pairs"] = entry["step"] * batch_size
    trained = {name: plain_nets[name].float() for name in ("G_AB", "G_BA")}
    update_bn([to_network(part) for part in plain.split(BATCH)], trained["G_AB"])
    sees = translate(trained["G_AB"].eval(), plain.cpu()).to(device)  # what G_BA has to invert
    update_bn([to_network(part) for part in sees.split(BATCH)], trained["G_BA"])
    if first:
        for name, file in (("G_AB", "generator"), ("G_BA", "inverse")):
            state = {
                k: v.detach().cpu().contiguous() for k, v in trained[name].state_dict().items()
            }
            write_bytes(out / f"{file}-s{seed}.safetensors", save(state))
        write_json(
            out / f"history-s{seed}.json",
            {
                **history,
                "guard": guard.record(),
                "cap": cap,
                "phi_unit": unit,
                "steps": epochs * steps_per_epoch,
                "batch_size": batch_size,
                "widths": unet_widths,
            },
        )
    return {"checkpoint": checkpoint, "images_per_s": rate}


def transform(
    data: Path,
    target: Path,
    perturbed: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    target_width: PositiveInt,
    unet_widths: list[PositiveInt],
    ndf: PositiveInt,
    phi: Phi,
    phi_layer: PhiLayer,
    phi_weights: str | None,
    adversarial: Adversarial,
    lambda_adv: NonNegativeFloat,
    gamma1: float | int,
    gamma2: NonNegativeFloat,
    gamma3: NonNegativeFloat,
    rec_reduction: Reduction,
    lp_second: bool,
    lp_cap: Literal["auto", "on", "off"],
    pairing: Literal["paired", "unpaired"],
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    grad_clip: PositiveFloat,
    batch_size: PositiveInt,
    epochs: PositiveInt,
    log_every: PositiveInt,
):
    """Train one variant of the CycleGAN with every seed; h_p is its G_AB."""
    settings = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads")}
    done = for_each_seed(
        transform_one,
        seeds,
        threads=threads,
        data=data,
        target=target,
        perturbed=perturbed,
        out=out,
        **settings,
    )
    for run_of_seed in done:
        run_of_seed["checkpoint"].discard()
    return {"images_per_s_of_each_seed": [r["images_per_s"] for r in done]}


if __name__ == "__main__":
    run(transform, "gan_transform.transform")
