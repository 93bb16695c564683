"""Train one coarse network R, or the baseline's, from descriptor maps to images (Sec. III-B).

Reads the training split of prepare and of extract. Writes meta.json, from which ``models`` builds
the network anew, and for every seed weights-s<seed>.safetensors, its state dict, and
history-s<seed>.json: "log", the mean over ``log_every`` steps of the loss, of its terms with their
weights (l2, p, s of eq. (7)) and their shares; "epochs", the same loss of the images held out.

Departures: a run's length is given in images seen, since "until convergence" names none; batch norm
has torch's constants; images are held out for a validation loss, which chooses nothing.
"""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor
from torch.optim import Adam

from stages.common.checkpoints import Checkpoint
from stages.common.files import write_bytes, write_json
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
from stages.sift_inversion.losses import loss_l2, total
from stages.sift_inversion.models import COARSE, build_coarse
from stages.sift_inversion.networks import parameters
from stages.sift_inversion.objective import TERMS, Joint, annotate, validate
from stages.sift_inversion.pairs import DescNorm, ImageSet, Pairs
from stages.sift_inversion.perceptual import Phi, PhiLayer

PATHS = ("data", "extracted", "out")
Loss = Literal["l2", "l2+p", "joint"]


def train_one(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    image_set: ImageSet,
    network: dict[str, Any],
    loss: dict[str, Any],
    share: Fraction,
    lr: PositiveFloat,
    lr_end: Fraction,
    l2_first: Fraction,
    beta1: Decay,
    beta2: Decay,
    batch_size: int,
    images: int,
    log_every: int,
    n_val: int,
) -> dict:
    """Train with one seed; returns the checkpoint and the speed in images/s.

    ``network`` has the keys of :data:`stages.sift_inversion.models.COARSE`, ``loss`` those of
    :class:`stages.sift_inversion.objective.Joint`.
    """
    params = {k: v for k, v in locals().items() if k not in (*PATHS, "position")}
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    torch.manual_seed(seed)
    pairs = Pairs(
        data,
        extracted,
        image_set,
        **{k: network[k] for k in ("size", "inputs", "channels", "desc_norm")},
        share=share,
        n_val=n_val,
        batch_size=batch_size,
        device=fabric.device,
    )
    params["data_sha256"] = pairs.sha256
    plain = build_coarse(network)
    plain.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = plain.state_dict(keep_vars=True)  # the tensors themselves, by their plain names
    adam = Adam(plain.parameters(), lr, betas=(beta1, beta2), fused=True)
    net: Any
    net, optimizer = fabric.setup(plain, adam)
    n = len(pairs.fit)
    steps, steps_per_epoch = max(1, images // batch_size), n // batch_size
    alone = round(l2_first * steps)  # steps of eq. (4)
    by_joint = (steps - alone) * batch_size
    joint = Joint(pairs.images, images_seen=by_joint, fabric=fabric, **loss)

    def step(i: int) -> dict[str, Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = lr * (lr_end + (1 - lr_end) * (1 + math.cos(math.pi * i / steps)) / 2)
        batch = batch_at(i, seed=seed, size=n, batch_size=batch_size)
        batch = batch[fabric.global_rank :: fabric.world_size]
        maps, y, place = pairs.at(pairs.fit[batch.numpy()])
        o = net(maps)
        terms = {"l2": loss_l2(o.float(), y)} if i < alone else joint.terms(o, y, place)
        whole = total(terms)
        optimizer.zero_grad()
        fabric.backward(whole)
        optimizer.step()
        return {"loss": whole, **terms}

    def look() -> dict[str, float]:
        return validate(net, lambda o: o, pairs, joint)

    net.train()
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-s{seed}", params)
    first = fabric.is_global_zero  # of a DDP group one process writes
    with checkpoint.lock() if first else nullcontext():
        history = fit(
            step,
            state={"net": net, "optimizer": optimizer},
            steps=steps,
            checkpoint=checkpoint,
            log_every=log_every,
            images_per_step=batch_size,
            label=f"{out.name} seed {seed}",
            validate=look if n_val else None,
            validate_every=steps_per_epoch,
            check_every=log_every if fabric.device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    rate = history.pop("images_per_s")
    if n_val and steps % steps_per_epoch:
        history["epochs"].append({"step": steps, **look()})
    annotate(history, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    if first:
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_bytes(out / f"weights-s{seed}.safetensors", save(tensors))
        write_json(
            out / f"history-s{seed}.json",
            {
                **history,
                "parameters": parameters(plain),
                "steps": steps,
                "batch_size": batch_size,
                "trained_on": n,
                "phi_unit": joint.unit,
            },
        )
    return {"checkpoint": checkpoint, "images_per_s": rate}


def train(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    size: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    image_set: ImageSet,
    inputs: list[Literal[4, 2]],
    net: Literal["R", "dosovitskiy"],
    loss: Loss,
    width: PositiveFloat,
    channels: Literal[128, 133],
    desc_norm: DescNorm,
    lambda_p: NonNegativeFloat,
    lambda_s: NonNegativeFloat,
    phi: Phi,
    phi_layer: PhiLayer,
    phi_weights: str | None,
    phi_size: PositiveInt | None,
    share: Fraction,
    lr: PositiveFloat,
    lr_end: Fraction,
    l2_first: Fraction,
    beta1: Decay,
    beta2: Decay,
    batch_size: PositiveInt,
    images: PositiveInt,
    log_every: PositiveInt,
    n_val: NonNegativeInt,
):
    """Train one run's network with every seed; checkpoints go when all seeds' files are written.

    ``loss``: "l2" is eq. (4), "joint" eq. (7), "l2+p" the same without the style term. ``share`` is
    that of the training images, ``images`` how many are seen in all. The rate falls by a cosine
    from ``lr`` to ``lr_end`` times that. In the first ``l2_first`` of the run eq. (4) alone is
    minimised, which costs half as much a step.

    Raises
    ------
    InputError
        If a file is missing or damaged, images and descriptors do not belong together, the network
        does not fit the images, or there are fewer images than a batch.
    """
    settings = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads", "loss")}
    network = {k: settings.pop(k) for k in COARSE}
    terms = {k: settings.pop(k) for k in TERMS}
    if loss == "l2":
        terms |= {"lambda_p": 0, "lambda_s": 0}
    if loss == "l2+p":
        terms["lambda_s"] = 0
    done = for_each_seed(
        train_one,
        seeds,
        threads=threads,
        data=data,
        extracted=extracted,
        out=out,
        network=network,
        loss=terms,
        **settings,
    )
    write_json(
        out / "meta.json",
        {
            "run": out.name,
            "set": image_set,
            **network,
            "loss": loss,
            **{k: None if loss == "l2" else v for k, v in terms.items()},
            "share": share,
            "n_val": n_val,
            "images": images,
        },
    )
    for run_of_seed in done:
        if run_of_seed["checkpoint"] is not None:
            run_of_seed["checkpoint"].discard()
    return {"images_per_s_of_each_seed": [r["images_per_s"] for r in done]}


if __name__ == "__main__":
    run(train, "sift_inversion.train")
