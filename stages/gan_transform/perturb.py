"""Preliminary protection: images on which h_theta is surer than on the originals (eqs. (1)-(3)).

P = {x_p}: projected gradient *descent* on the loss of the true class, so that a strong perturbation
helps the classifier while it hides the image. Departures: epsilon and the step size have no value
in the paper; a random start (Madry et al., ICLR 2018) and clipping to [0, 1] are ours; where the
softmax is saturated the gradient of the cross entropy is exactly 0, so the margin of the logits
takes its place. Everything is computed in 32 bits.
"""

import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stages.common.checkpoints import Checkpoint
from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, sha256, write_json, write_npz
from stages.common.metrics import ssim
from stages.common.params import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed
from stages.gan_transform.classifier import predict, to_network
from stages.gan_transform.networks import VGG13, constant_normalisation, load_frozen

SAVE_SECONDS = 60.0  # between two checkpoints
SATURATED = 1 - 1e-6  # probability of the true class above which the margin guides


def guidance(logits: Float[Tensor, "n k"], y: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return what the perturbation lowers: CE, or the negative margin if softmax is saturated.

    The margin is z_y - log sum_{k != y} exp z_k; CE is softplus of its negative, so both have
    gradients of the same direction.
    """
    ce = cross_entropy(logits, y, reduction="none")
    true = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return torch.where(torch.exp(-ce) > SATURATED, others - true[:, 0], ce)


def protect(
    h: nn.Module,
    x: Float[Tensor, "n 3 h w"],
    y: Int64[Tensor, " n"],
    start: Float[Tensor, "n 3 h w"],
    *,
    epsilon: float,
    alpha: float,
    steps: int,
) -> tuple[Float[Tensor, "n 3 h w"], list[dict[str, float]]]:
    """Eqs. (1)-(3): x_p <- clip01(x + clip_eps(x_p - alpha sign grad - x)), ``steps`` times.

    Parameters
    ----------
    start : x_p^0; is clipped to the ball and to [0, 1].
    epsilon, alpha : radius in the maximum norm and step size, in units of [0, 1].

    Returns
    -------
    x_p in [0, 1], and for each step the mean cross entropy, the share of pixels whose gradient is
    exactly 0, and the share of images whose softmax is saturated.
    """
    log = []
    x_p = (x + (start - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    for _ in range(steps):
        x_p.requires_grad_(True)
        logits = h(x_p)
        (g,) = torch.autograd.grad(guidance(logits, y).sum(), x_p)
        ce = cross_entropy(logits.detach(), y, reduction="none")
        log.append(
            {
                "ce": float(ce.mean()),
                "zero_gradient": float((g == 0).float().mean()),
                "saturated": float((torch.exp(-ce) > SATURATED).float().mean()),
            }
        )
        delta = x_p.detach() - alpha * g.sign() - x
        x_p = (x + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
    return x_p.detach(), log


def perturb_one(
    data: Path,
    target: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    target_width: int,
    epsilon: float,
    steps: int,
    alpha_factor: float,
    n: int | None,
    batch_size: int,
) -> dict:
    """Protect the first ``n`` training images with one seed's h_theta; resumes after a kill."""
    params = {k: v for k, v in locals().items() if k not in ("data", "target", "out", "position")}
    weights = target / f"htheta-s{seed}.safetensors"
    params["data_sha256"] = [sha256(data / "train.npz"), sha256(weights)]
    torch.set_num_threads(threads)
    device = evaluation_device()
    train = read_npz(data / "train.npz")
    count = len(train["images"]) if n is None else n
    if count > len(train["images"]):
        raise InputError(
            data / "train.npz",
            "has fewer images than are to be protected",
            expected=f"at least {count}",
            found=len(train["images"]),
            remedy="lower perturb.n or raise n_train of this profile in params.yaml",
        )
    plain, labels = train["images"][:count], train["labels"][:count]
    classes = len(read_json(data / "meta.json")["classes"])
    h = load_frozen(VGG13(classes, constant_normalisation(), target_width), weights).to(device)
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-s{seed}", params)
    done: list[Tensor] = []
    logs: list[list[dict[str, float]]] = []
    saved_at = time.monotonic()
    draw = torch.Generator().manual_seed(seed)
    starts = torch.rand((count, 3, *plain.shape[1:3]), generator=draw)  # whatever the batches
    with checkpoint.lock():
        if saved := checkpoint.load():
            done, logs = saved["done"], saved["logs"]
            print(f"perturb seed {seed}: resuming at image {sum(map(len, done))}", flush=True)
        for k, start in enumerate(range(0, count, batch_size)):
            if k < len(done):
                continue
            x = to_network(torch.from_numpy(plain[start : start + batch_size]).to(device))
            y = torch.from_numpy(labels[start : start + batch_size]).to(device)
            noise = (2 * starts[start : start + batch_size] - 1).to(device)
            alpha = alpha_factor * epsilon / steps
            x_p, log = protect(
                h, x, y, x + epsilon * noise, epsilon=epsilon, alpha=alpha, steps=steps
            )
            done.append((x_p * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous())
            logs.append(log)
            if time.monotonic() - saved_at > SAVE_SECONDS:
                checkpoint.save({"done": done, "logs": logs})
                saved_at = time.monotonic()
    P = torch.cat(done)
    y = torch.from_numpy(labels)
    blank = np.broadcast_to(train["images"].mean((0, 1, 2)).round().astype(np.uint8), plain.shape)
    write_npz(out / f"P-s{seed}.npz", images=P.numpy(), labels=labels)
    sizes = np.array([len(part) for part in done])
    write_json(
        out / f"history-s{seed}.json",
        {
            "log": [
                {
                    "step": step + 1,
                    **{
                        name: float(np.average([log[step][name] for log in logs], weights=sizes))
                        for name in logs[0][step]
                    },
                }
                for step in range(steps)
            ]
        },
    )
    return {
        "checkpoint": checkpoint,
        "arrays": {
            "correct_plain": (predict(h, torch.from_numpy(plain).to(device)).cpu() == y).numpy(),
            "correct": (predict(h, P.to(device)).cpu() == y).numpy(),
            "ssim": ssim(P.numpy(), plain, data_range=255),
            "ssim_blank": ssim(blank, plain, data_range=255),
            "groups": train["groups"][:count],
        },
    }


def perturb(
    data: Path,
    target: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    target_width: PositiveInt,
    epsilon: Fraction,
    steps: PositiveInt,
    alpha_factor: PositiveFloat,
    n: PositiveInt | None,
    batch_size: PositiveInt,
):
    """Write P-s<seed>.npz (uint8), what h_theta makes of it, and how far it is from the plain."""
    settings = {
        k: v for k, v in locals().items() if k not in ("data", "target", "out", "seeds", "threads")
    }
    done = for_each_seed(
        perturb_one, seeds, threads=threads, data=data, target=target, out=out, **settings
    )
    names = done[0]["arrays"]
    arrays = {name: np.stack([d["arrays"][name] for d in done]) for name in names}
    write_npz(out / "evaluation.npz", seeds=np.array(seeds), **arrays)
    for run_of_seed in done:
        run_of_seed["checkpoint"].discard()
    return {"ssim": float(arrays["ssim"].mean()), "accuracy": float(100 * arrays["correct"].mean())}


if __name__ == "__main__":
    run(perturb, "gan_transform.perturb")
