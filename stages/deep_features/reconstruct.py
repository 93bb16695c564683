"""Train G to turn features into images with one loss: the second threat model (Sec. III-C).

Reads the training split of prepare and its features. For every cell, a black box and a local set,
and every seed, writes in <model>-<set>/: generator-s<seed>.safetensors; of pixel and fr also
generator-equal-s<seed>.safetensors, G after as many updates as fr_adv makes; history-s<seed>.json,
whose "log" holds means over ``log_every`` batches; and meta.json, from which ``generator`` builds G
anew.

By the authors' schedule pixel and fr update G on every batch, fr_adv updates D and G in turn, each
on batches of its own, so that its G makes half as many updates; D's fakes come from G in inference
mode. w_adv was tuned by the authors to their phi. ``auto`` makes the norm of the adversarial
gradient at x' ``rho`` times that of L_FR's, by the mean log ratio of the norms over the first
``auto_updates`` updates of G; then it is fixed.

Departures: the last weights count for every loss, where the authors keep pixel's and fr's best on
test images; an epoch's incomplete last batch is dropped; torch's Adam, whose epsilon is added after
the correction of the bias.
"""

from contextlib import nullcontext
from copy import deepcopy
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
from stages.common.files import read_npz, sha256, write_bytes, write_json
from stages.common.params import Decay, NonNegativeInt, PositiveFloat, PositiveInt
from stages.common.stage import run
from stages.common.training import batch_at, fit, for_each_seed, set_up
from stages.deep_features.features import (
    check_cells,
    feature_file,
    find_models,
    read_features,
    read_sets,
)
from stages.deep_features.generator import (
    Discriminator,
    Generator,
    count_blocks,
    parameters,
)
from stages.deep_features.perceptual import (
    Perceptual,
    Phi,
    PhiLayer,
    PhiPreprocessing,
    load_phi,
)
from stages.deep_features.pixels import to_floats
from stages.deep_features.recon_losses import (
    Loss,
    loss_D,
    loss_features,
    loss_G_adversarial,
    loss_pixel,
)

PATHS = ("data", "extracted", "out")
PHI = ("phi", "phi_layer", "phi_weights", "phi_preprocessing", "phi_factor")
ADAM_EPS = 1e-7  # Keras' Adam
SPLIT = "train"
BnMode = Literal["eval", "train"]


def updates_of(loss: Loss, steps: int) -> tuple[int, int, int]:
    """Return the updates of G and of D in ``steps`` batches, and those of fr_adv's G."""
    adversarial = steps // 2  # D on the first of every two batches
    if loss == "fr_adv":
        return adversarial, steps - adversarial, adversarial
    return steps, 0, adversarial


class AdversarialWeight(nn.Module):
    """w_adv: a number, or found from the ratio of the gradients' norms (``auto``).

    Parameters
    ----------
    rho : the ratio that ``auto`` aims at.
    updates : of G, over which it looks.
    """

    sums: Tensor

    def __init__(self, w_adv: float | int | Literal["auto"], rho: float | int, updates: int):
        super().__init__()
        self.fixed = None if w_adv == "auto" else float(w_adv)
        self.rho, self.updates = rho, updates
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))  # updates, sum of logs

    def observe(self, adversarial: Tensor, features: Tensor) -> None:
        """Note the norms of the two gradients at x', before weighting; zeros are passed over."""
        seen = (self.sums[0] < self.updates) & (adversarial > 0) & (features > 0)
        ratio = torch.where(seen, adversarial / features, 1.0).double()
        self.sums += torch.stack([seen.double(), ratio.log()])

    def value(self) -> Tensor:
        """Return w_adv as it is now."""
        if self.fixed is not None:
            return self.sums.new_tensor(self.fixed)
        return self.rho * (-self.sums[1] / self.sums[0].clamp(min=1)).exp()


def update_D(
    fabric: Fabric,
    D: Any,
    optimizer: Any,
    G: nn.Module,
    x: Float[Tensor, "b 3 h w"],
    f: Float[Tensor, "b d"],
    *,
    d_fake_bn: BnMode,
) -> dict[str, Tensor]:
    """Take one step of D by L_D; G makes the fakes without gradients, and is not changed.

    In ``train`` mode the fakes are normalised by their own batch; the running averages stay.
    """
    G.train(d_fake_bn == "train")
    kept = {name: value.clone() for name, value in G.named_buffers()} if G.training else {}
    with torch.no_grad():
        fake = G(f)
        for name, value in G.named_buffers():
            value.copy_(kept.get(name, value))
    G.train()
    logits = D(torch.cat([x, fake.to(x.dtype)]), torch.cat([f, f])).float()
    real_logits, fake_logits = logits.chunk(2)
    loss = loss_D(real_logits, fake_logits)
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return {
        "loss_D": loss.detach(),
        "d_real": real_logits.detach().mean(),
        "d_fake": fake_logits.detach().mean(),
    }


def gradient(fabric: Fabric, loss: Tensor, at: Tensor) -> Tensor:
    """Return the gradient of ``loss`` with respect to the leaf ``at``; no other is touched."""
    fabric.backward(loss, inputs=[at])
    found, at.grad = at.grad, None
    assert found is not None
    return found


def update_G(
    fabric: Fabric,
    G: Any,
    optimizer: Any,
    x: Float[Tensor, "b 3 h w"],
    f: Float[Tensor, "b d"],
    place: Tensor,
    *,
    perceptual: Perceptual | None,
    D: Any = None,
    weight: AdversarialWeight | None = None,
) -> dict[str, Tensor]:
    """Take one step of G by L_pix (no ``perceptual``), L_FR, or L_FR + w_adv L_Gadv (with ``D``).

    The gradients of the two parts are taken at x', where they are compared, and only their sum goes
    back through G.
    """
    x_rec = G(f)
    at = x_rec.detach().float().requires_grad_()
    if perceptual is None:
        loss = loss_pixel(at, x)
        log = {"pixel": loss.detach()}
    else:
        loss = loss_features(perceptual(at), perceptual.of(place, x))
        log = {"fr": loss.detach()}
    pull = gradient(fabric, loss, at)
    if D is not None:
        assert weight is not None
        D.requires_grad_(False)
        adversarial = loss_G_adversarial(D(at, f).float())
        push = gradient(fabric, adversarial, at)
        D.requires_grad_(True)
        weight.observe(push.norm(), pull.norm())
        w_adv = weight.value().to(pull.dtype)
        tiny = torch.finfo(pull.dtype).tiny
        log["adv"] = adversarial.detach()
        log["w_adv"] = w_adv
        log["rho"] = w_adv * push.norm() / pull.norm().clamp(min=tiny)
        pull = pull + w_adv * push
    optimizer.zero_grad()
    fabric.backward((x_rec * pull.to(x_rec.dtype)).sum())  # its gradient at x' is the loss's
    optimizer.step()
    return log


def reconstruct_cell(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    model: str,
    name: str,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    loss: Loss,
    min_map: list[int],
    c0: int,
    hidden: int,
    base_g: int,
    base_d: int,
    w_adv: float | int | Literal["auto"],
    rho: float | int,
    auto_updates: int,
    d_fake_bn: BnMode,
    bn_momentum: float | int,
    phi: dict[str, Any],
    lr: float | int,
    beta1: float | int,
    beta2: float | int,
    batch_size: int,
    steps: int,
    log_every: int,
) -> dict[str, Any]:
    """Train one cell with one seed; ``out`` is the cell's folder, ``phi`` has the keys in PHI.

    Returns the checkpoint, the speed in images/s, the last w_adv and the keys of meta.json.
    """
    params = {k: v for k, v in locals().items() if k not in (*PATHS, "position")}
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    device = fabric.device
    file = data / f"{name}_{SPLIT}.npz"
    arrays = read_npz(file, ["images"])["images"]
    n = len(arrays)
    if n < batch_size:
        raise InputError(
            file,
            "has too few images",
            expected=f"a batch of {batch_size}",
            found=n,
            remedy="lower batch_size or raise the number of images of this profile in params.yaml",
        )
    features = torch.from_numpy(read_features(extracted, model, name, SPLIT, seed, n=n)).to(device)
    images = torch.from_numpy(arrays).to(device)
    params["data_sha256"] = [
        sha256(part) for part in (file, feature_file(extracted, model, name, SPLIT, seed))
    ]
    height, width, dims = images.shape[1], images.shape[2], features.shape[1]
    shape = {"dims": dims, "height": height, "width": width, "min_map": min_map}
    shape |= {"c0": c0, "hidden": hidden, "base_g": base_g}

    def set_up_net(net: nn.Module) -> tuple[Any, Any]:
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        adam = Adam(net.parameters(), lr, betas=(beta1, beta2), eps=ADAM_EPS, fused=True)
        return fabric.setup(net, adam)

    torch.manual_seed(seed)
    plain = Generator(**shape, bn_momentum=bn_momentum)
    equal = deepcopy(plain).to(device)
    G, opt_G = set_up_net(plain)
    state = {"G": G, "opt_G": opt_G}
    counts = {"G": parameters(plain)}
    n_blocks = count_blocks(height, width, min_map)
    updates_g, updates_d, updates_equal = updates_of(loss, steps)
    D = opt_D = weight = None
    if loss == "fr_adv":
        D = Discriminator(dims=dims, n_blocks=n_blocks, base_d=base_d)
        counts["D"] = parameters(D)
        D, opt_D = set_up_net(D)
        weight = AdversarialWeight(w_adv, rho, auto_updates).to(device)
        state |= {"D": D, "opt_D": opt_D, "weight": weight}
    else:
        state["equal"] = equal
    perceptual = None
    if loss != "pixel":
        if height % phi["phi_factor"] or width % phi["phi_factor"]:
            raise InputError(
                "phi_factor",
                "does not suit the images",
                expected=f"a divisor of {height} and {width}",
                found=phi["phi_factor"],
                remedy="correct it in params.yaml",
            )
        net = load_phi(
            *(phi[key] for key in ("phi", "phi_layer", "phi_weights", "phi_preprocessing")),
            factor=phi["phi_factor"],
            device=device,
        )
        perceptual = Perceptual(
            net,
            lambda index: to_floats(images[index]),
            n,
            autocast=fabric.autocast,
            device=device,
        )

    def step(i: int) -> dict[str, Tensor]:
        batch = batch_at(i, seed=seed, size=n, batch_size=batch_size)
        place = batch[fabric.global_rank :: fabric.world_size].to(device)
        x, f = to_floats(images[place]), features[place]
        if D is not None and i % 2 == 0:
            return update_D(fabric, D, opt_D, G, x, f, d_fake_bn=d_fake_bn)
        log = update_G(fabric, G, opt_G, x, f, place, perceptual=perceptual, D=D, weight=weight)
        if D is None and i + 1 == updates_equal:
            equal.load_state_dict(plain.state_dict())
        return log

    G.train()
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-4:])}-s{seed}", params)
    first = fabric.is_global_zero
    with checkpoint.lock() if first else nullcontext():
        history = fit(
            step,
            state=state,
            steps=steps,
            checkpoint=checkpoint,
            log_every=log_every,
            images_per_step=batch_size,
            label=f"{loss} {out.name} seed {seed}",
            check_every=log_every if device.type == "cuda" else 1,
            position=position,
            fabric=fabric,
        )
    rate = history.pop("images_per_s")
    if first:
        nets = {"generator": plain} | ({"generator-equal": equal} if D is None else {})
        for kind, net in nets.items():
            tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
            write_bytes(out / f"{kind}-s{seed}.safetensors", save(tensors))
        write_json(
            out / f"history-s{seed}.json",
            {
                **history,
                "parameters": counts,
                "steps": steps,
                "batch_size": batch_size,
                "trained_on": n,
            },
        )
    meta = {"model": model, "set": name, "loss": loss, **shape, "n_blocks": n_blocks}
    meta |= {"updates_g": updates_g, "updates_d": updates_d, "updates_equal": updates_equal}
    meta |= {"parameters": counts, "steps": steps, "batch_size": batch_size, "n_train": n}
    meta |= {k: None if loss == "pixel" else v for k, v in phi.items() if k != "phi_weights"}
    if D is not None:
        meta |= {"base_d": base_d, "d_fake_bn": d_fake_bn, "w_adv_chosen": w_adv}
        meta["rho"] = rho if w_adv == "auto" else None
    last = None if weight is None else float(weight.value())
    return {"checkpoint": checkpoint, "images_per_s": rate, "w_adv": last, "meta": meta}


def reconstruct_seed(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    seed: int,
    cells: list[list[str]],
    **settings: Any,
) -> dict[str, dict[str, Any]]:
    """Train all cells with one seed; returns what :func:`reconstruct_cell` does, by cell."""
    return {
        f"{model}-{name}": reconstruct_cell(
            data,
            extracted,
            out / f"{model}-{name}",
            model=model,
            name=name,
            seed=seed,
            **settings,
        )
        for model, name in cells
    }


def reconstruct(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    loss: Loss,
    cells: list[list[str]],
    min_map: list[PositiveInt],
    c0: PositiveInt,
    hidden: PositiveInt,
    base_g: PositiveInt,
    base_d: PositiveInt,
    w_adv: PositiveFloat | Literal["auto"],
    rho: PositiveFloat,
    auto_updates: PositiveInt,
    d_fake_bn: BnMode,
    bn_momentum: Decay,
    phi: Phi,
    phi_layer: PhiLayer,
    phi_weights: str | None,
    phi_preprocessing: PhiPreprocessing,
    phi_factor: PositiveInt,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    batch_size: PositiveInt,
    steps: PositiveInt,
    log_every: PositiveInt,
):
    """Train one loss for all ``cells`` ([model, local set]) and seeds.

    Parameters
    ----------
    min_map : height and width of G's smallest map; c0, hidden, base_g, base_d: see ``generator``.
    steps : batches, which G and D of fr_adv share.

    Raises
    ------
    InputError
        If a file is missing or damaged, images and features do not belong together, a cell is
        unknown, a map does not suit the images, phi is not completely said, ``phi_factor`` does not
        divide the images, or there are fewer images than a batch.
    """
    settings = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads")}
    check_cells(cells, find_models(extracted), read_sets(data)["locals"])
    if steps < 2:
        raise InputError(
            "steps",
            "are too few",
            expected="2, one for D and one for G",
            found=steps,
            remedy="raise them in params.yaml",
        )
    settings["phi"] = {key: settings.pop(key) for key in PHI}
    done = for_each_seed(
        reconstruct_seed,
        seeds,
        threads=threads,
        data=data,
        extracted=extracted,
        out=out,
        **settings,
    )
    for cell, of_cell in done[0].items():
        weights = {str(s): d[cell]["w_adv"] for s, d in zip(seeds, done, strict=True)}
        write_json(out / cell / "meta.json", {**of_cell["meta"], "w_adv": weights})
    for of_seed in done:
        for trained in of_seed.values():
            trained["checkpoint"].discard()
    return {"images_per_s_of_each_seed": [[c["images_per_s"] for c in d.values()] for d in done]}


if __name__ == "__main__":
    run(reconstruct, "deep_features.reconstruct")
