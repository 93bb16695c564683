"""Train h_theta, the classifier that guides the protection (Sec. III-B1, experiment E1).

The paper does not say how; the recipe is that of its ResNet-18. The training images' own mean and
standard deviation stand for CIFAR-10's constants, with which they agree on CIFAR-10.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save

from stages.common.checkpoints import Checkpoint
from stages.common.files import read_json, read_npz, sha256, write_bytes, write_json, write_npz
from stages.common.params import (
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from stages.common.stage import run
from stages.common.training import for_each_seed, set_up
from stages.gan_transform.augmentation import crop_flip
from stages.gan_transform.classifier import Schedule, train_classifier
from stages.gan_transform.networks import VGG13, Normalise


def image_statistics(images: np.ndarray) -> Normalise:
    """Return the normalisation by the mean and standard deviation of each channel, in [0, 1]."""
    pixels = images.reshape(-1, 3)
    mean, std = pixels.mean(0, dtype=np.float64) / 255, pixels.std(0, dtype=np.float64) / 255
    return Normalise(torch.tensor(mean).float(), torch.tensor(std).float())


def train_one(
    data: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    target_width: int,
    **recipe,
) -> dict:
    """Train with one seed and write weights and history."""
    params = {k: v for k, v in locals().items() if k not in ("data", "out", "position")}
    params["data_sha256"] = [sha256(data / f"{split}.npz") for split in ("train", "test")]
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    torch.manual_seed(seed)
    split = {name: read_npz(data / f"{name}.npz") for name in ("train", "test")}
    images = {k: torch.from_numpy(v["images"]).to(fabric.device) for k, v in split.items()}
    labels = {k: torch.from_numpy(v["labels"]).to(fabric.device) for k, v in split.items()}
    classes = len(read_json(data / "meta.json")["classes"])
    net = VGG13(classes, image_statistics(split["train"]["images"]), target_width)
    checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-s{seed}", params)
    weights, right, history = train_classifier(
        net,
        lambda epoch: crop_flip(images["train"], seed=seed, epoch=epoch),
        labels["train"],
        images["test"],
        labels["test"],
        fabric=fabric,
        checkpoint=checkpoint,
        label=f"h_theta seed {seed}",
        position=position,
        seed=seed,
        **recipe,
    )
    rate = history.pop("images_per_s")
    if fabric.is_global_zero:
        write_bytes(out / f"htheta-s{seed}.safetensors", save(weights))
        write_json(out / f"history-s{seed}.json", history)
    return {"checkpoint": checkpoint, "images_per_s": rate, "right": right.numpy()}


def train_target(
    data: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    target_width: PositiveInt,
    epochs: PositiveInt,
    batch_size: PositiveInt,
    lr: PositiveFloat,
    momentum: Decay,
    weight_decay: NonNegativeFloat,
    schedule: Schedule,
    milestones: list[Fraction],
    log_every: PositiveInt,
):
    """Train VGG13 on plain images with every seed; writes weights and evaluation.npz."""
    settings = {k: v for k, v in locals().items() if k not in ("data", "out", "seeds", "threads")}
    done = for_each_seed(train_one, seeds, threads=threads, data=data, out=out, **settings)
    correct = np.stack([run_of_seed["right"] for run_of_seed in done])
    write_npz(out / "evaluation.npz", seeds=np.array(seeds), correct=correct)
    for run_of_seed in done:
        run_of_seed["checkpoint"].discard()
    return {
        "images_per_s_of_each_seed": [r["images_per_s"] for r in done],
        "test_accuracy": float(100 * correct.mean()),
    }


if __name__ == "__main__":
    run(train_target, "gan_transform.train_target")
