"""Classify protected images: ResNet-18 trained on one scheme's ciphers (Sec. IV-C, Table I).

Both tasks, every augmentation that the scheme's line in params.yaml names, every seed. ``client``
encrypts anew in each epoch what was cropped and flipped, as the paper says of its scheme;
``server`` crops and flips the ciphers, which commutes with pixel-based encryption up to a shifted
key. Block-wise ciphers get Tanaka's adaptation network in front; the paper does not say whether it
did.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from stages.common.checkpoints import Checkpoint
from stages.common.files import read_npz, sha256, write_json, write_npz
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
from stages.gan_transform.networks import Adaptation, ResNet18, constant_normalisation
from stages.gan_transform.schemes import load_cipher, read_scheme
from stages.gan_transform.train_target import image_statistics

PATHS = ("data", "encrypted", "out")
TASKS = {"ten": ("train", "test"), "transfer": ("transfer_train", "transfer_test")}


def classify_one(
    data: Path,
    encrypted: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    width: int,
    epochs: int,
    transfer_epochs: int,
    **recipe,
) -> dict:
    """Train on both tasks and all augmentations with one seed."""
    params = {k: v for k, v in locals().items() if k not in (*PATHS, "position")}
    names = [split for task in TASKS.values() for split in task]
    files = sorted([*encrypted.glob(f"*-s{seed}.*"), encrypted / "meta.json"])
    params["data_sha256"] = [sha256(f) for f in [*(data / f"{n}.npz" for n in names), *files]]
    scheme = read_scheme(encrypted)
    fabric = set_up(threads=threads, precision=precision)
    params["world_size"] = fabric.world_size
    cipher = load_cipher(encrypted, seed)
    arrays, histories, checkpoints = {}, {}, []
    images_seen = seconds = 0.0
    for task, splits in TASKS.items():
        train, test = (read_npz(data / f"{split}.npz") for split in splits)
        plain = torch.from_numpy(train["images"])
        labels, test_labels = (
            torch.from_numpy(split["labels"]).to(fabric.device) for split in (train, test)
        )
        cipher_test = torch.from_numpy(cipher(test["images"], splits[1])).to(fabric.device)
        classes = int(max(train["labels"].max(), test["labels"].max())) + 1
        for arm in scheme.augment:
            once = None
            if arm != "client":
                once = torch.from_numpy(cipher(train["images"], splits[0])).to(fabric.device)

            def images_of_epoch(epoch: int, once=once, plain=plain, split=splits[0], arm=arm):
                if once is None:
                    augmented = crop_flip(plain, seed=seed, epoch=epoch).numpy()
                    return torch.from_numpy(cipher(augmented, split)).to(fabric.device)
                return once if arm == "none" else crop_flip(once, seed=seed, epoch=epoch)

            torch.manual_seed(seed)
            channels = 3
            if scheme.cipher == "tanaka":
                front: torch.nn.Module = Adaptation()
                channels = Adaptation.CHANNELS
            elif scheme.cipher == "identity":
                front = image_statistics(train["images"])
            else:
                front = constant_normalisation()
            net = ResNet18(classes, front, channels=channels, width=width)
            key = f"{task}_{arm}"
            cell = {**params, "task": task, "arm": arm}
            checkpoint = Checkpoint(f"{'-'.join(out.parts[-3:])}-{key}-s{seed}", cell)
            count = transfer_epochs if task == "transfer" else epochs
            _, right, history = train_classifier(
                net,
                images_of_epoch,
                labels,
                cipher_test,
                test_labels,
                fabric=fabric,
                checkpoint=checkpoint,
                label=f"{out.name} {task} {arm} seed {seed}",
                position=position,
                seed=seed,
                epochs=count,
                **recipe,
            )
            rate = history.pop("images_per_s")
            images_seen, seconds = images_seen + rate, seconds + 1
            arrays[f"correct_{key}"] = right.numpy()
            arrays[f"best_{key}"] = np.array(max(e["test_accuracy"] for e in history["epochs"]))
            histories[key] = history
            checkpoints.append(checkpoint)
    if fabric.is_global_zero:
        write_json(out / f"history-s{seed}.json", histories)
    return {"checkpoints": checkpoints, "arrays": arrays, "images_per_s": images_seen / seconds}


def classify(
    data: Path,
    encrypted: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    width: PositiveInt,
    epochs: PositiveInt,
    transfer_epochs: PositiveInt,
    batch_size: PositiveInt,
    lr: PositiveFloat,
    momentum: Decay,
    weight_decay: NonNegativeFloat,
    schedule: Schedule,
    milestones: list[Fraction],
    log_every: PositiveInt,
):
    """Write which test images are classified rightly, for each task and augmentation."""
    settings = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads")}
    done = for_each_seed(
        classify_one, seeds, threads=threads, data=data, encrypted=encrypted, out=out, **settings
    )
    arrays = {name: np.stack([d["arrays"][name] for d in done]) for name in done[0]["arrays"]}
    write_npz(out / "evaluation.npz", seeds=np.array(seeds), **arrays)
    for run_of_seed in done:
        for checkpoint in run_of_seed["checkpoints"]:
            checkpoint.discard()
    return {"images_per_s_of_each_seed": [d["images_per_s"] for d in done]}


if __name__ == "__main__":
    run(classify, "gan_transform.classify")
