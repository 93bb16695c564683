"""Train one black box, BoT, AGW or SBS, on the proprietary set (Sec. III-A; FastReID v1.0.0).

Reads the proprietary training split of prepare. Writes meta.json, from which ``blackbox`` builds
the network anew, and for every seed weights-s<seed>.safetensors, its state dict, and
history-s<seed>.json: the mean over ``log_every`` steps of the loss, of its two terms, and of the
share of images whose identity the classifier finds.

Departures: the rate changes with every step, not every epoch, and its milestones are shares of the
run, so that a run of few epochs has the same course; the circle loss's scale is halved for fewer
than 100 identities (ours; its logits saturate); random weights if the user gives none of ImageNet,
and then SBS's backbone is not frozen at the start, since there is nothing to protect: meta.json
says so.
"""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Adam

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, sha256, write_bytes, write_json
from stages.common.networks.weight_files import read_state
from stages.common.params import (
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from stages.common.stage import run
from stages.common.training import fit, for_each_seed, set_up
from stages.deep_features.augmentation import augment
from stages.deep_features.blackbox import NETWORK, build
from stages.deep_features.networks import (
    Classifier,
    Net,
    NonLocalWidth,
    Pool,
    initialise,
    parameters,
)
from stages.deep_features.pixels import resize_bytes
from stages.deep_features.reid_losses import Mining, circle_logits, cross_entropy, triplet
from stages.deep_features.sampler import Batches

Schedule = Literal["steps", "cosine"]
LEAST_IDS = 2  # in a process: the triplet loss compares with another one
FEW = 100  # identities under which the circle loss's scale is halved (ours)
COURSE = ("schedule", "warmup", "warmup_factor", "milestones", "drop", "flat", "lr_end")
CHANGES = ("flip", "padding", "erasing", "autoaugment")


def learning_rate(
    done: Fraction,
    *,
    lr: PositiveFloat,
    schedule: Schedule,
    warmup: Decay,
    warmup_factor: Fraction,
    milestones: list[Fraction],
    drop: Fraction,
    flat: Decay,
    lr_end: NonNegativeFloat,
) -> float:
    """Return the rate when the share ``done`` of the run is behind.

    It rises linearly from ``warmup_factor`` times ``lr`` over the share ``warmup``. "steps": times
    ``drop`` at each of ``milestones``; "cosine": constant up to the share ``flat``, then half a
    cosine down to ``lr_end``.
    """
    rate = lr
    if schedule == "steps":
        rate = lr * drop ** sum(done >= share for share in milestones)
    elif done > flat:
        rate = lr_end + (lr - lr_end) * (1 + math.cos(math.pi * (done - flat) / (1 - flat))) / 2
    if done < warmup:
        rate *= warmup_factor + (1 - warmup_factor) * done / warmup
    return rate


def parameter_groups(net: nn.Module, bias_lr: PositiveFloat) -> list[dict[str, Any]]:
    """Return what is learned as two groups, each with its factor of the rate: weights, biases."""
    learned = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    biases = [p for name, p in learned if name.endswith("bias")]
    others = [p for name, p in learned if not name.endswith("bias")]
    return [{"params": others, "factor": 1.0}, {"params": biases, "factor": float(bias_lr)}]


def train_one(
    data: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    size: tuple[int, int],
    network: dict[str, Any],
    course: dict[str, Any],
    changes: dict[str, Any],
    backbone_weights: str | None,
    freeze: float | int,
    smoothing: float | int,
    circle_scale: float | int,
    circle_margin: float | int,
    mining: Mining,
    margin: float | int,
    triplet_on: str,
    ids_per_batch: int,
    per_id: int,
    lr: float | int,
    bias_lr: float | int,
    weight_decay: float | int,
    epochs: float | int,
    log_every: int,
) -> dict:
    """Train with one seed; returns the checkpoint, the speed in images/s and facts for meta.json.

    ``network`` has the keys of :data:`stages.deep_features.blackbox.NETWORK` but ids, ``course``
    those in ``COURSE``, ``changes`` those in ``CHANGES``.
    """
    params = {k: v for k, v in locals().items() if k not in ("data", "out", "position")}
    file = data / f"{read_json(data / 'meta.json')['proprietary']}_train.npz"
    params["data_sha256"] = sha256(file)
    if backbone_weights is not None:
        params["weights_sha256"] = sha256(Path(backbone_weights))
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    if ids_per_batch < LEAST_IDS * fabric.world_size > LEAST_IDS:
        raise InputError(
            "ids_per_batch",
            "is too small for so many processes",
            expected=f"{LEAST_IDS} identities for each of {fabric.world_size}, or more",
            found=ids_per_batch,
            remedy="start fewer processes, or raise ids_per_batch in params.yaml",
        )
    torch.manual_seed(seed)
    split = read_npz(file, ("images", "pids"))
    names, labels = np.unique(split["pids"], return_inverse=True)
    n, batch_size = len(labels), ids_per_batch * per_id
    if n < batch_size:
        raise InputError(
            file,
            "has fewer images than a batch",
            expected=f"at least {batch_size}",
            found=n,
            remedy="lower ids_per_batch or raise the images of this profile in params.yaml",
        )
    batches = Batches(labels.astype(np.int64), P=ids_per_batch, K=per_id, seed=seed)
    images = resize_bytes(torch.from_numpy(split["images"]).to(fabric.device), size)
    y = torch.from_numpy(labels.astype(np.int64)).to(fabric.device)
    plain = build({**network, "ids": len(names)})
    if backbone_weights is not None:
        given = Path(backbone_weights)
        initialise(plain.backbone, read_state(given), given)
    plain.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = plain.state_dict(keep_vars=True)  # the tensors themselves, by their plain names
    learned = parameters(plain)
    groups = parameter_groups(plain, bias_lr)
    net: Any
    net, optimizer = fabric.setup(
        plain, Adam(groups, float(lr), weight_decay=float(weight_decay), fused=True)
    )
    steps = max(1, round(epochs * (n // batch_size)))
    frozen = round(freeze * steps) if backbone_weights is not None else 0
    scale = circle_scale if len(names) >= FEW else circle_scale / 2

    def step(i: int) -> dict[str, Tensor]:
        if i <= frozen:
            plain.freeze(i < frozen)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(i / steps, lr=lr, **course)
        batch = batches.at(i).reshape(ids_per_batch, per_id)  # a process takes whole identities
        batch = torch.from_numpy(batch[fabric.global_rank :: fabric.world_size].reshape(-1))
        batch = batch.to(fabric.device)
        own = y[batch]
        output = net(augment(images[batch], seed=seed, step=i, **changes))
        logits = output.scores
        if plain.cosine:
            logits = circle_logits(logits, own, scale=scale, margin=circle_margin)
        loss_id = cross_entropy(logits, own, smoothing=smoothing)
        features = output.before if triplet_on == "before" else output.after
        loss_triplet = triplet(features.float(), own, mining=mining, margin=margin)
        loss = loss_id + loss_triplet
        optimizer.zero_grad()
        fabric.backward(loss)
        if i < frozen:
            plain.drop_gradients()
        optimizer.step()
        right = (output.scores.detach().argmax(1) == own).float().mean()
        return {"loss": loss, "id": loss_id, "triplet": loss_triplet, "accuracy": right}

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
            check_every=log_every if fabric.device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    rate = history.pop("images_per_s")
    facts = {
        "ids": len(names),
        "dims": plain.dims,
        "parameters": learned,
        "steps": steps,
        "batch_size": batch_size,
        "images": n,
        "circle_scale": scale if plain.cosine else None,
        "freeze_steps": frozen,
    }
    if first:
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_bytes(out / f"weights-s{seed}.safetensors", save(tensors))
        write_json(out / f"history-s{seed}.json", {"log": history["log"], **facts})
    return {"checkpoint": checkpoint, "images_per_s": rate, "facts": facts}


def train_reid(
    data: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    amp: bool,
    net: Net,
    mini_width: PositiveInt,
    input_width: PositiveInt,
    aspect: PositiveFloat,
    backbone_weights: str | None,
    freeze: Decay,
    non_local: bool,
    non_local_width: NonLocalWidth,
    pool: Pool,
    classifier: Classifier,
    smoothing: Decay,
    circle_scale: PositiveFloat,
    circle_margin: NonNegativeFloat,
    mining: Mining,
    margin: NonNegativeFloat,
    triplet_on: Literal["before", "after"],
    ids_per_batch: PositiveInt,
    per_id: PositiveInt,
    lr: PositiveFloat,
    bias_lr: PositiveFloat,
    weight_decay: NonNegativeFloat,
    schedule: Schedule,
    warmup: Decay,
    warmup_factor: Fraction,
    milestones: list[Fraction],
    drop: Fraction,
    flat: Decay,
    lr_end: NonNegativeFloat,
    flip: Fraction,
    padding: NonNegativeInt,
    erasing: Fraction,
    autoaugment: Fraction,
    epochs: PositiveFloat,
    epochs_share: PositiveFloat,
    log_every: PositiveInt,
):
    """Train the black box ``out.name`` with every seed; it never sees a local set.

    ``amp`` false: 32 bits whatever ``precision`` says. The input is ``aspect`` times as high as it
    is wide; the run has ``epochs`` times ``epochs_share`` epochs of n // batch steps; ``freeze``
    is the share of them in which a given backbone does not learn.

    Raises
    ------
    InputError
        If a file is missing or damaged, the backbone's weights are of another network, there are
        fewer images or identities than in a batch, or more processes than a batch has identities
        for.
    """
    settings = {k: v for k, v in locals().items() if k not in ("data", "out", "seeds", "threads")}
    network = {k: settings.pop(k) for k in NETWORK if k != "ids"}
    course = {k: settings.pop(k) for k in COURSE}
    changes = {k: settings.pop(k) for k in CHANGES}
    size = (round(settings.pop("aspect") * input_width), settings.pop("input_width"))
    settings["precision"] = precision if settings.pop("amp") else "32-true"
    settings["epochs"] = epochs * settings.pop("epochs_share")
    done = for_each_seed(
        train_one,
        seeds,
        threads=threads,
        data=data,
        out=out,
        size=size,
        network=network,
        course=course,
        changes=changes,
        **settings,
    )
    facts = done[0]["facts"]
    said = None
    if freeze and backbone_weights is None:
        said = "skipped: the backbone starts at random, there is nothing to protect"
    write_json(
        out / "meta.json",
        {
            "model": out.name,
            **network,
            **facts,
            "input": list(size),
            "initialised": backbone_weights is not None,
            "freeze": freeze,
            "freeze_note": said,
            "precision": settings["precision"],
            "epochs": settings["epochs"],
            "seeds": seeds,
        },
    )
    for run_of_seed in done:
        run_of_seed["checkpoint"].discard()
    return {"images_per_s_of_each_seed": [r["images_per_s"] for r in done]}


if __name__ == "__main__":
    run(train_reid, "deep_features.train_reid")
