"""Add the fine network G to a coarse run and train both, against D or without (Sec. III-C).

Reads the training split of prepare and of extract and a run of ``train``, whose R it goes on
training. Of each minibatch c = R(F) and o = G(c) are computed once; D takes ``n_critic`` steps on
them, then one step of R and G together follows (eqs. (1) and (8)). Without an adversary the same
networks minimise 100 L_j on the same images: the control for G's capacity.

Writes for every seed: weights-s<seed>.safetensors with the prefixes "R." and "G."; history-s<seed>.
json: "log", the mean of each term as it enters the sum (adv, l2, p, s; the last three with
``lambda_joint``), their shares of the joint part, loss_D, d_acc, and adv_share, the norm of the
adversarial gradient with respect to o over that of the joint part; "epochs", L_j without
``lambda_joint`` of the images held out, as ``train`` has it; and meta.json.

Departures: D takes all its steps on one minibatch, as in DeblurGAN's codes; its accuracy is taken
before the first of them, when the minibatch is new to it; D sees c without passing a gradient to R.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Adam

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import sha256, write_bytes, write_json
from stages.common.losses import Adversarial, decision_threshold
from stages.common.networks.weight_files import load_state, read_state
from stages.common.params import (
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from stages.common.stage import run
from stages.common.training import batch_at, fit, for_each_seed, set_up
from stages.sift_inversion.losses import loss_adversarial, loss_D, total
from stages.sift_inversion.models import COARSE, FINE, build_refined, read_meta
from stages.sift_inversion.networks import Discriminator, parameters
from stages.sift_inversion.objective import TERMS, Joint, annotate, validate
from stages.sift_inversion.pairs import Pairs
from stages.sift_inversion.perceptual import Phi, PhiLayer

PATHS = ("data", "extracted", "init", "out")
COLLAPSED = 0.98  # accuracy of D, mean of an epoch, beyond which it has won


class Collapse(nn.Module):
    """Marks a run in which D has won: right in more than 98 % of its patches, mean of an epoch."""

    state: Tensor
    sums: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("state", torch.tensor([-1.0, 0]))  # step of the mark, accuracy then
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))  # steps, accuracy

    def observe(self, accuracy: Tensor) -> None:
        """Note the accuracy of one minibatch."""
        self.sums += torch.stack([torch.ones_like(accuracy), accuracy])

    def decide(self, step: int) -> None:
        """End an epoch."""
        count, accuracy = self.sums.tolist()
        self.sums.zero_()
        if self.state[0] < 0 and count and accuracy / count > COLLAPSED:
            self.state.copy_(torch.tensor([step, accuracy / count]))

    def record(self) -> dict[str, Any]:
        """Return whether it happened, and when, for history and report."""
        step, accuracy = self.state.tolist()
        happened = step >= 0
        return {
            "d_collapse": happened,
            "step": int(step) if happened else None,
            "d_acc": accuracy if happened else None,
        }


def update_D(
    fabric: Fabric,
    D: Any,
    optimizer: Any,
    c: Float[Tensor, "b 3 s s"],
    y: Float[Tensor, "b 3 s s"],
    o: Float[Tensor, "b 3 s s"],
    *,
    n_critic: PositiveInt,
    adversarial: Adversarial,
    label_smooth: Fraction,
) -> dict[str, Tensor]:
    """Take ``n_critic`` steps of D by eq. (1) on one minibatch; c and o have no gradients.

    Returns the mean loss of the steps, and the accuracy before the first.
    """
    losses, accuracy = [], None
    for _ in range(n_critic):
        real, fake = D(c, y).float(), D(c, o).float()
        loss = loss_D(real, fake, adversarial, label_smooth)
        if accuracy is None:
            threshold = decision_threshold(adversarial)
            right = (real.detach() > threshold).float().mean()
            accuracy = (right + (fake.detach() <= threshold).float().mean()) / 2
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        losses.append(loss.detach())
    assert accuracy is not None
    return {"loss_D": torch.stack(losses).mean(), "d_acc": accuracy}


def gradient(fabric: Fabric, loss: Tensor, at: Tensor) -> Tensor:
    """Return the gradient of ``loss`` with respect to the leaf ``at``; no other is touched."""
    fabric.backward(loss, inputs=[at])
    found, at.grad = at.grad, None
    assert found is not None
    return found


def update_RG(
    fabric: Fabric,
    optimizer: Any,
    joint: Joint,
    D: Any,
    c: Float[Tensor, "b 3 s s"],
    o: Float[Tensor, "b 3 s s"],
    y: Float[Tensor, "b 3 s s"],
    place: Tensor,
    *,
    lambda_joint: NonNegativeFloat,
    lambda_R: NonNegativeFloat,
    adversarial: Adversarial,
) -> dict[str, Tensor]:
    """Take one step of R and G by eq. (8), from c = R(F) and o = G(c) with their gradients.

    Without ``D`` (None) the adversarial term is left out. The gradients of the two parts are taken
    at o, where they are compared, and only their sum goes back through G and R.
    """
    at_o = o.detach().requires_grad_()
    log: dict[str, Tensor] = {}
    terms = {k: lambda_joint * v for k, v in joint.terms(at_o, y, place).items()}
    pull = gradient(fabric, total(terms), at_o)
    if D is not None:
        D.requires_grad_(False)
        log["adv"] = loss_adversarial(D(c.detach(), at_o).float(), adversarial)
        push = gradient(fabric, log["adv"], at_o)
        D.requires_grad_(True)
        log["adv_share"] = push.norm() / pull.norm().clamp(min=torch.finfo(pull.dtype).tiny)
        pull = pull + push
    surrogate = (o * pull).sum()  # its gradient at o is the loss's
    if lambda_R:
        at_c = c.detach().requires_grad_()
        log["loss_R"] = lambda_R * total(joint.terms(at_c, y, place))
        surrogate = surrogate + (c * gradient(fabric, log["loss_R"], at_c)).sum()
    optimizer.zero_grad()
    fabric.backward(surrogate)
    optimizer.step()
    parts = {k: v for k, v in log.items() if k != "adv_share"} | terms
    return {"loss": total(parts), **log, **terms}


def refine_one(
    data: Path,
    extracted: Path,
    init: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    coarse: dict[str, Any],
    fine: dict[str, Any],
    loss: dict[str, Any],
    adversary: bool,
    conditional: bool,
    adversarial: Adversarial,
    n_critic: int,
    label_smooth: Fraction,
    lambda_joint: NonNegativeFloat,
    lambda_R: NonNegativeFloat,
    ndf: int,
    d_layers: int,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    batch_size: int,
    images: int,
    log_every: int,
) -> dict:
    """Train with one seed; ``coarse`` is the first run's meta.json, ``fine`` G's shape."""
    params = {k: v for k, v in locals().items() if k not in (*PATHS, "position")}
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    device = fabric.device
    torch.manual_seed(seed)
    pairs = Pairs(
        data,
        extracted,
        coarse["set"],
        **{k: coarse[k] for k in ("size", "inputs", "channels", "desc_norm", "share", "n_val")},
        batch_size=batch_size,
        device=device,
    )
    file = init / f"weights-s{seed}.safetensors"
    params["data_sha256"] = {**pairs.sha256, "init": sha256(file)}
    plain = build_refined({**coarse, **fine})
    load_state(plain.R, read_state(file), file)

    def set_up_net(net: nn.Module) -> tuple[Any, Any]:
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return fabric.setup(net, Adam(net.parameters(), lr, betas=(beta1, beta2), fused=True))

    nets, optimizer = set_up_net(plain)
    weights = plain.state_dict(keep_vars=True)  # after the move, which makes buffers anew
    state = {"nets": nets, "optimizer": optimizer}
    counts = {"R": parameters(plain.R), "G": parameters(plain.G)}
    D = opt_D = None
    collapse = Collapse().to(device)
    if adversary:
        D = Discriminator(ndf=ndf, layers=d_layers, conditional=conditional)
        counts["D"] = parameters(D)
        D, opt_D = set_up_net(D)
        state |= {"D": D, "opt_D": opt_D, "collapse": collapse}
    joint = Joint(pairs.images, images_seen=images, fabric=fabric, **loss)
    n = len(pairs.fit)
    steps, steps_per_epoch = max(1, images // batch_size), n // batch_size

    def step(i: int) -> dict[str, Tensor]:
        batch = batch_at(i, seed=seed, size=n, batch_size=batch_size)
        batch = batch[fabric.global_rank :: fabric.world_size]
        maps, y, place = pairs.at(pairs.fit[batch.numpy()])
        c, o = nets(maps)
        log = {}
        if D is not None:
            log = update_D(
                fabric,
                D,
                opt_D,
                c.detach(),
                y,
                o.detach(),
                n_critic=n_critic,
                adversarial=adversarial,
                label_smooth=label_smooth,
            )
            collapse.observe(log["d_acc"])
            if (i + 1) % steps_per_epoch == 0 or i + 1 == steps:
                collapse.decide(i + 1)
        of_RG = update_RG(
            fabric,
            optimizer,
            joint,
            D,
            c,
            o,
            y,
            place,
            lambda_joint=lambda_joint,
            lambda_R=lambda_R,
            adversarial=adversarial,
        )
        return {**of_RG, **log}

    def look() -> dict[str, float]:
        return validate(nets, lambda pair: pair[1], pairs, joint)

    nets.train()
    if D is not None:
        D.train()
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-s{seed}", params)
    first = fabric.is_global_zero
    with checkpoint.lock() if first else nullcontext():
        history = fit(
            step,
            state=state,
            steps=steps,
            checkpoint=checkpoint,
            log_every=log_every,
            images_per_step=batch_size,
            label=f"{out.name} seed {seed}",
            validate=look if len(pairs.val) else None,
            validate_every=steps_per_epoch,
            check_every=log_every if device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    rate = history.pop("images_per_s")
    if len(pairs.val) and steps % steps_per_epoch:
        history["epochs"].append({"step": steps, **look()})
    annotate(history, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    collapsed = collapse.record()
    if first:
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_bytes(out / f"weights-s{seed}.safetensors", save(tensors))
        write_json(
            out / f"history-s{seed}.json",
            {
                **history,
                "collapse": collapsed,
                "parameters": counts["R"] + counts["G"],
                "parameters_of": counts,
                "steps": steps,
                "batch_size": batch_size,
                "trained_on": n,
                "phi_unit": joint.unit,
            },
        )
    return {
        "checkpoint": checkpoint,
        "images_per_s": rate,
        "d_collapse": collapsed["d_collapse"],
    }


def refine(
    data: Path,
    extracted: Path,
    init: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    size: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    adversary: bool,
    conditional: bool,
    adversarial: Adversarial,
    n_critic: PositiveInt,
    label_smooth: Fraction,
    lambda_joint: PositiveFloat,
    lambda_R: NonNegativeFloat,
    lambda_p: NonNegativeFloat,
    lambda_s: NonNegativeFloat,
    phi: Phi,
    phi_layer: PhiLayer,
    phi_weights: str | None,
    phi_size: PositiveInt | None,
    ngf: PositiveInt,
    blocks: PositiveInt,
    dropout: Decay,
    ndf: PositiveInt,
    d_layers: PositiveInt,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    batch_size: PositiveInt,
    images: PositiveInt,
    log_every: PositiveInt,
):
    """Refine the coarse run in ``init`` with every seed; set, share and inputs are that run's.

    ``adversary`` false trains R and G without D. ``label_smooth`` is D's label of real images,
    ``lambda_R`` the weight of L_R, which the paper's second stage seems to drop.

    Raises
    ------
    InputError
        If a file is missing or damaged, the coarse run is of another size, images and descriptors
        do not belong together, or there are fewer images than a batch.
    """
    settings = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads")}
    coarse = read_meta(init)
    if settings.pop("size") != coarse["size"]:
        raise InputError(
            init / "meta.json",
            "is of another size",
            expected=size,
            found=coarse["size"],
            remedy="run the stages before this one again (dvc repro)",
        )
    fine = {k: settings.pop(k) for k in FINE}
    loss = {k: settings.pop(k) for k in TERMS}
    done = for_each_seed(
        refine_one,
        seeds,
        threads=threads,
        data=data,
        extracted=extracted,
        init=init,
        out=out,
        coarse=coarse,
        fine=fine,
        loss=loss,
        **settings,
    )
    write_json(
        out / "meta.json",
        {
            "run": out.name,
            "init": coarse["run"],
            **{k: coarse[k] for k in ("set", *COARSE, "share", "n_val")},
            **fine,
            **loss,
            "loss": "gan" if adversary else "joint",
            "adversary": adversary,
            "adversarial": adversarial if adversary else None,
            "conditional": conditional,
            "n_critic": n_critic,
            "lambda_joint": lambda_joint,
            "ndf": ndf,
            "d_layers": d_layers,
            "images": images,
            "d_collapse": {str(s): d["d_collapse"] for s, d in zip(seeds, done, strict=True)},
        },
    )
    for run_of_seed in done:
        run_of_seed["checkpoint"].discard()
    return {"images_per_s_of_each_seed": [r["images_per_s"] for r in done]}


if __name__ == "__main__":
    run(refine, "sift_inversion.refine")
