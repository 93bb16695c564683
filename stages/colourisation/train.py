"""Train one variant of G and D and colour the images (Sec. III and IV-A).

Reads prepare/{train,val,test}.npz. Writes for every seed: generator-s<seed>.safetensors, the state
dict of G; predictions-s<seed>.npz, its ab (float16, CIELAB units) for test, val and the first
images of train; history-s<seed>.json, the learning curves of Fig. 3.

Order of updates as in the released code: each D_k takes one step on real and one on fake pairs,
then G takes one (``d_update: joint_half`` is pix2pix's single step on half the sum). Departures:
the K discriminators do not share Adam's step counter with one another; G's fakes for D come from
training mode and are reused for G's step (``fake_mode: eval`` is the code's second,
inference-mode forward).
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import l1_loss
from torch.optim import Adam

from stages.colourisation.colour import AB_SCALE, encode
from stages.colourisation.losses import loss_G, loss_G_adversarial
from stages.colourisation.networks import NormPlan, Up, build
from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import read_npz, sha256, write_bytes, write_json, write_npz
from stages.common.losses import Adversarial, adversarial_loss, decision_threshold
from stages.common.networks.patchgan import ReceptiveField
from stages.common.networks.plan import SpectralNorm
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

SPLITS = ("train", "val", "test")
ARCHITECTURE = [name for name in inspect.signature(build).parameters if name != "size"]


def augment(
    images: UInt8[Tensor, "n s s 3"], i: int, *, seed: int, hflip: bool, random_crop: int
) -> UInt8[Tensor, "n s s 3"]:
    """Flip each image with probability 1/2 and shift it by up to ``random_crop`` pixels.

    Borders are reflected. A function of (seed, i). The authors augment nothing.
    """
    if not (hflip or random_crop):
        return images
    generator = torch.Generator().manual_seed((seed + 1) * 2_000_003 + i)
    n, size = images.shape[:2]
    place = torch.arange(size).expand(n, size)
    rows, cols = place, place
    if random_crop:
        shift = torch.randint(-random_crop, random_crop + 1, (2, n, 1), generator=generator)
        rows, cols = place + shift[0], place + shift[1]
    if hflip:
        flipped = torch.rand((n, 1), generator=generator) < 0.5
        cols = torch.where(flipped, size - 1 - cols, cols)
    reflect = size - 1 - (size - 1 - torch.stack([rows, cols]).abs()).abs()
    rows, cols = reflect.to(images.device)
    each = torch.arange(n, device=images.device)[:, None, None]
    return images[each, rows[:, :, None], cols[:, None, :]]


class Pairs:
    """The images of one split on the device, as (x, y) pairs; uint8 (n, s, s, 3) in ``file``.

    Small images are converted to Lab once, large ones batch by batch: 50,000 at 256 px take 10 GB
    as uint8 and four times that as floats.
    """

    CONVERT_ONCE_PX = 64

    def __init__(self, file: Path, device: torch.device):
        self.images = torch.from_numpy(read_npz(file, ["images"])["images"]).to(device)
        self.size = self.images.shape[1]
        self.converted = None
        if self.size <= self.CONVERT_ONCE_PX:
            parts = [encode(part) for part in self.images.split(1000)]
            self.converted = [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Int[Tensor, " b"]) -> tuple[Tensor, Tensor]:
        """Return x (b, 1, s, s) and y (b, 2, s, s) of the images at ``index``."""
        if self.converted is None:
            return encode(self.images[index])
        x, y = self.converted
        return x[index], y[index]

    def augmented(self, index: Int[Tensor, " b"], i: int, **how) -> tuple[Tensor, Tensor]:
        """Return the pairs of :func:`augment`-ed images."""
        return encode(augment(self.images[index], i, **how))


def gradient_share(
    adversarial: list[Tensor],
    fake: Tensor,
    y: Tensor,
    lambda_l1: NonNegativeFloat,
    backward: Callable[..., None],
) -> Tensor:
    """Return |grad of the adversarial terms| / |grad of lambda L1|, both with respect to fake.

    ``backward`` is ``fabric.backward``: in mixed precision no other way through a network that
    Fabric has set up is allowed. Only ``fake.grad`` is touched, and given back empty.
    """
    fake.retain_grad()
    backward(torch.stack(adversarial).sum(), inputs=[fake], retain_graph=True)
    pull, fake.grad = fake.grad, None
    assert pull is not None
    with torch.no_grad():
        l1 = lambda_l1 * torch.sign(fake - y) / fake.numel()
    return pull.norm() / l1.norm()


def train_one(
    data: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    compile: bool,
    architecture: dict,
    adversarial: Adversarial,
    lambda_l1: NonNegativeFloat,
    md_reduce: Literal["sum", "mean"],
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    adam_eps: PositiveFloat,
    batch_size: int,
    epochs: int,
    d_update: Literal["two_step", "joint_half"],
    fake_mode: Literal["train", "eval"],
    hflip: bool,
    random_crop: int,
    log_every: int,
    n_eval: int,
) -> dict:
    """Train with one seed; returns the checkpoint and the speed in images/s.

    ``architecture`` goes to :func:`stages.colourisation.networks.build`.
    """
    params = dict(locals())
    params = {k: v for k, v in params.items() if k not in ("data", "out", "position")}
    params["data_sha256"] = [sha256(data / f"{split}.npz") for split in SPLITS]
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    torch.manual_seed(seed)
    pairs = {split: Pairs(data / f"{split}.npz", fabric.device) for split in SPLITS}
    n = len(pairs["train"])
    if batch_size > n:
        raise InputError(
            data / "train.npz",
            "has fewer images than a batch",
            expected=f"at least {batch_size}",
            found=n,
            remedy="lower batch_size or raise n_train of this profile in params.yaml",
        )
    G, D = build(size=pairs["train"].size, **architecture)
    if compile:
        G.compile()
        D.compile()

    def adam(net: torch.nn.Module) -> Adam:
        return Adam(net.parameters(), lr, betas=(beta1, beta2), eps=adam_eps, fused=True)

    def update(optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()

    G.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    D.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = G.state_dict(keep_vars=True)  # the tensors themselves, by their plain names
    G, opt_G = fabric.setup(G, adam(G))
    state: dict[str, Any] = {"G": G, "opt_G": opt_G}
    scales = architecture["scales"]
    if scales:
        D, opt_D = fabric.setup(D, adam(D))
        state |= {"D": D, "opt_D": opt_D}
    augmentation = {"seed": seed, "hflip": hflip, "random_crop": random_crop}

    def update_D(x: Tensor, y: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """One step of each D_k on the real pairs and one on the fakes (or one on half the sum)."""
        real_logits = D(x, y)
        loss_real = torch.stack([adversarial_loss(k, True, adversarial) for k in real_logits]).sum()
        if d_update == "two_step":
            update(opt_D, loss_real)
        fake_logits = D(x, fake)
        loss_fake = torch.stack(
            [adversarial_loss(k, False, adversarial) for k in fake_logits]
        ).sum()
        update(opt_D, loss_fake if d_update == "two_step" else (loss_real + loss_fake) / 2)
        threshold = decision_threshold(adversarial)
        right = [(k > threshold).float().mean() for k in real_logits]
        right += [(k <= threshold).float().mean() for k in fake_logits]
        d_loss = (loss_real.detach() + loss_fake.detach()) / (2 * scales)
        return {"d_loss": d_loss, "d_acc": torch.stack(right).mean()}

    def step(i: int) -> dict[str, Tensor]:
        batch = batch_at(i, seed=seed, size=n, batch_size=batch_size)
        batch = batch[fabric.global_rank :: fabric.world_size].to(fabric.device)
        if hflip or random_crop:
            x, y = pairs["train"].augmented(batch, i, **augmentation)
        else:
            x, y = pairs["train"].at(batch)
        log: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        if scales and fake_mode == "eval":
            G.eval()
            with torch.no_grad():
                shown = G(x)
            G.train()
            log |= update_D(x, y, shown)
        fake = G(x)
        if scales:
            if fake_mode == "train":
                log |= update_D(x, y, fake.detach())
            D.requires_grad_(False)
            terms = loss_G_adversarial(D(x, fake), adversarial)
            D.requires_grad_(True)
            log["g_adv"] = torch.stack(terms).detach().mean()
            log |= {f"g_adv_{k}": term.detach() for k, term in enumerate(terms)}
            if lambda_l1 and (i + 1) % log_every == 0:
                log["adv_share"] = gradient_share(terms, fake, y, lambda_l1, fabric.backward)
        update(opt_G, loss_G(terms, fake, y, lambda_l1, md_reduce))
        return {"l1": l1_loss(fake.detach(), y) * AB_SCALE, **log}

    @torch.no_grad()
    def predict(split: str, count: int) -> Float[Tensor, "n 2 s s"]:
        """Return ab in CIELAB units of the first ``count`` images, G in inference mode."""
        G.eval()
        index = torch.arange(min(count, len(pairs[split])), device=fabric.device)
        ab = [G(pairs[split].at(part)[0]) * AB_SCALE for part in index.split(64)]
        G.train()
        return torch.cat(ab)

    def validate() -> dict[str, float]:
        errors = {}
        for name, split in (("l1_train", "train"), ("l1_val", "val")):
            ab = predict(split, len(pairs["val"]))
            _, y = pairs[split].at(torch.arange(len(ab), device=fabric.device))
            errors[name] = float(l1_loss(ab, y * AB_SCALE))
        return errors

    G.train()
    steps_per_epoch = n // batch_size
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-s{seed}", params)
    first = fabric.is_global_zero  # of a DDP group one process writes
    with checkpoint.lock() if first else nullcontext():
        history = fit(
            step,
            state=state,
            steps=epochs * steps_per_epoch,
            checkpoint=checkpoint,
            log_every=log_every,
            images_per_step=batch_size,
            label=f"{out.name} seed {seed}",
            validate=validate,
            validate_every=steps_per_epoch,
            check_every=log_every if fabric.device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    rate = history.pop("images_per_s")
    for entry in [*history["log"], *history["epochs"]]:
        entry["epoch"] = entry["step"] / steps_per_epoch
    counts = {"train": n_eval, "val": len(pairs["val"]), "test": len(pairs["test"])}
    ab = {split: predict(split, count).half().cpu().numpy() for split, count in counts.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    if not first:
        return {"checkpoint": None, "images_per_s": rate}
    write_bytes(out / f"generator-s{seed}.safetensors", save(tensors))
    write_npz(out / f"predictions-s{seed}.npz", **ab)
    write_json(
        out / f"history-s{seed}.json",
        {"steps_per_epoch": steps_per_epoch, "steps": epochs * steps_per_epoch, **history},
    )
    return {"checkpoint": checkpoint, "images_per_s": rate}


def train(
    data: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    compile: bool,
    norm: NormPlan,
    sn: SpectralNorm,
    scales: NonNegativeInt,
    rf: ReceptiveField,
    up: Up,
    widths_g: list[PositiveInt],
    widths_d: list[PositiveInt],
    bn_momentum: Fraction,
    bn_eps: PositiveFloat,
    adversarial: Adversarial,
    lambda_l1: NonNegativeFloat,
    md_reduce: Literal["sum", "mean"],
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    adam_eps: PositiveFloat,
    batch_size: PositiveInt,
    epochs: PositiveInt,
    d_update: Literal["two_step", "joint_half"],
    fake_mode: Literal["train", "eval"],
    hflip: bool,
    random_crop: NonNegativeInt,
    log_every: PositiveInt,
    n_eval: PositiveInt,
):
    """Train one variant with every seed; checkpoints go only when all seeds' files are written."""
    settings = {k: v for k, v in locals().items() if k not in ("data", "out", "seeds", "threads")}
    architecture = {k: settings.pop(k) for k in ARCHITECTURE}
    done = for_each_seed(
        train_one,
        seeds,
        threads=threads,
        data=data,
        out=out,
        architecture=architecture,
        **settings,
    )
    for run_of_seed in done:
        if run_of_seed["checkpoint"] is not None:
            run_of_seed["checkpoint"].discard()
    return {"images_per_s_of_each_seed": [r["images_per_s"] for r in done]}


if __name__ == "__main__":
    run(train, "colourisation.train")
