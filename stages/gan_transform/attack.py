"""Attack one scheme by networks that learn plain images from its ciphers (Sec. IV-B, Fig. 7).

GA, the GAN attack, sees ciphers of the first half of the attacker's images and plain images of the
second. UWA and ITN see pairs of all of them: known plaintexts, although the paper files UWA under
ciphertext-only attacks. G_BA, the inverse that the CycleGAN trained beside h_p, is an insider's.
Every attack is run on every scheme, on the identity and on noise, which the paper does not do: what
an attack makes of these says what it is worth.

Departures: each generator attacks every scheme (the paper's choice is read off in ``table1``); the
result is the last iteration's, and the best of a few looks at the test images is kept beside it as
an oracle's. See ``reconstruction`` for those of the trainings.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, sha256, write_json, write_npz
from stages.common.metrics import ssim
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
from stages.gan_transform.attack_networks import Generator, UnsharedNetwork
from stages.gan_transform.protection import as_float, load_translator, to_uint8, translate
from stages.gan_transform.reconstruction import (
    Images,
    Reconstruct,
    Run,
    train_ga,
    train_itn,
    train_uwa,
)

PATHS = ("data", "encrypted", "out")
SPLITS = ("attack_train", "attack_test")
VALIDATION = 64  # test images that the oracle attacker looks at
DATA_RANGE = 255  # of 8-bit images


def read_pairs(
    data: Path, encrypted: Path, seed: int
) -> dict[str, tuple[UInt8[np.ndarray, "n s s 3"], UInt8[np.ndarray, "n s s 3"]]]:
    """Return ciphers and plain images of each of ``SPLITS``.

    Raises
    ------
    InputError
        If a file is missing or damaged, or ciphers and images do not belong together.
    """
    pairs = {}
    for split in SPLITS:
        path = encrypted / f"{split}-s{seed}.npz"
        cipher = read_npz(path, ["images"])["images"]
        plain = read_npz(data / f"{split}.npz", ["images"])["images"]
        if cipher.shape != plain.shape or cipher.dtype != np.uint8:
            raise InputError(
                path,
                "does not belong to the plain images",
                expected=f"uint8 {plain.shape}",
                found=f"{cipher.dtype} {cipher.shape}",
                remedy="run the stages before this one again (dvc repro)",
            )
        pairs[split] = cipher, plain
    return pairs


def insiders(
    encrypted: Path, seed: int, plain: Images, cipher: Images, device: torch.device
) -> dict[str, Images]:
    """Return what G_BA makes of h_p's output: rounded as it is sent, and as G_AB gives it.

    Empty for a scheme that is no network's.
    """
    meta = read_json(encrypted / "meta.json")
    if meta["cipher"] != "transform":
        return {}
    G_AB, G_BA = (
        load_translator(encrypted / f"{name}-s{seed}.safetensors", meta["widths"], device)
        for name in ("generator", "inverse")
    )
    protected = as_float(G_AB, torch.from_numpy(plain))
    with torch.no_grad():
        exact = torch.cat([G_BA(part) for part in protected.split(VALIDATION)])
    return {
        "g_ba": translate(G_BA, torch.from_numpy(cipher)).cpu().numpy(),
        "g_ba_float": to_uint8(exact).cpu().numpy(),
    }


def _of(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}


def attack_one(
    data: Path,
    encrypted: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    precision: str,
    generators: list[Generator],
    n_secondary: int,
    validations: int,
    log_every: int,
    unet_widths: list[int],
    panel: list[int],
    **settings,
) -> dict[str, Any]:
    """Run all attacks with one seed; ``settings`` are the ga_, uwa_ and itn_ ones.

    Returns the measurements, the panel's reconstructions, the checkpoints and the seconds.
    """
    fabric = set_up(threads=threads, precision=precision)
    pairs = read_pairs(data, encrypted, seed)
    (z, x), (z_test, x_test) = pairs["attack_train"], pairs["attack_test"]
    half = len(x) // 2
    files = [data / f"{split}.npz" for split in SPLITS]
    files += [encrypted / f"{split}-s{seed}.npz" for split in SPLITS]
    everything = {
        "seed": seed,
        "threads": threads,
        "precision": precision,
        "world_size": fabric.world_size,
        "log_every": log_every,
        "data_sha256": [sha256(file) for file in files],
    }
    arrays: dict[str, np.ndarray] = {}
    shown: dict[str, np.ndarray] = {}
    histories: dict[str, dict] = {}
    checkpoints: list[Checkpoint] = []
    seconds: dict[str, float] = {}

    def measure(name: str, images: Images) -> None:
        some = slice(min(n_secondary, len(x_test)))
        arrays[f"ssim_{name}"] = ssim(images, x_test, data_range=DATA_RANGE)
        arrays[f"gauss_{name}"] = ssim(
            images[some], x_test[some], data_range=DATA_RANGE, gaussian=True
        )
        shown[name] = images[panel]

    def train(name: str, how: Any, cipher: Images, plain: Images, **keys) -> None:
        begun = time.perf_counter()
        checkpoint = Checkpoint(
            f"{'-'.join(out.parts[-3:])}-{name}-s{seed}", everything | {"attack": name} | keys
        )
        label = f"{out.name} {name} seed {seed}"
        training = Run(fabric, checkpoint, label, seed, position, log_every)
        more = {"validation": (z_test[:VALIDATION], x_test[:VALIDATION])} if how is train_ga else {}
        reconstruct: Reconstruct
        reconstruct, histories[name] = how(cipher, plain, run=training, **more, **keys)
        checkpoints.append(checkpoint)
        measure(name, reconstruct(z_test))
        seconds[name] = time.perf_counter() - begun

    ga = _of(settings, "ga_") | {"unet_widths": unet_widths, "validations": validations}
    for generator in generators:
        name = f"ga_{generator}"
        train(name, train_ga, z[:half], x[half:], generator=generator, **ga)
        looks = [look["ssim"] for look in histories[name]["epochs"]]
        arrays[f"oracle_{name}"] = np.array(max(looks))
    uwa = _of(settings, "uwa_")
    network = uwa.pop("network")
    train("uwa_literal", train_uwa, z, x, network=network, reduce="mean", **uwa)
    train("uwa_strong", train_uwa, z, x, network=network, reduce="sum", **uwa)
    train("uwa_block", train_uwa, z, x, network="block", reduce="sum", **uwa)
    train("itn", train_itn, z, x, unet_widths=unet_widths, **_of(settings, "itn_"))
    for name, images in insiders(encrypted, seed, x_test, z_test, fabric.device).items():
        measure(name, images)
    if fabric.is_global_zero:
        write_json(out / f"history-s{seed}.json", histories)
    return {"arrays": arrays, "panel": shown, "checkpoints": checkpoints, "seconds": seconds}


def attack(
    data: Path,
    encrypted: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    precision: Literal["32-true", "bf16-mixed"],
    generators: list[Generator],
    n_secondary: PositiveInt,
    validations: PositiveInt,
    log_every: PositiveInt,
    ga_lr: PositiveFloat,
    ga_beta1: Decay,
    ga_beta2: Decay,
    ga_batch_size: PositiveInt,
    ga_iterations: PositiveInt,
    ga_width_divisor: PositiveInt,
    ga_ndf: PositiveInt,
    uwa_network: UnsharedNetwork,
    uwa_lr: PositiveFloat,
    uwa_momentum: Decay,
    uwa_weight_decay: NonNegativeFloat,
    uwa_batch_size: PositiveInt,
    uwa_epochs: PositiveInt,
    uwa_milestones: list[Fraction],
    itn_lr: PositiveFloat,
    itn_momentum: Decay,
    itn_weight_decay: NonNegativeFloat,
    itn_batch_size: PositiveInt,
    itn_epochs: PositiveInt,
    itn_milestones: list[Fraction],
    itn_hflip: bool,
    unet_widths: list[PositiveInt],
):
    """Attack the ciphers of one scheme with every seed.

    ``data`` holds the prepared images, ``encrypted`` the scheme's folder. Writes ``out``/
    evaluation.npz: seeds (S,), ssim_<attack> (S, n) with the uniform and gauss_<attack>
    (S, ``n_secondary``) with the Gaussian window, of GA oracle_<attack> (S,), the best of
    ``validations`` looks at the first 64 test images; reconstructions.npz: <attack> (the panel's
    images of the first seed, uint8); history-s<seed>.json. Checkpoints of all attacks are kept
    until everything is written, so that a stage that was killed repeats none that was finished.
    ``itn_hflip`` mirrors ITN's pairs, as the laboratory's code does: it suits schemes that do not
    depend on the position. Milestones are shares of the steps.

    Raises
    ------
    InputError
        If a file is missing or damaged, ciphers and images do not belong together, or the images
        do not suit a network.
    """
    settings = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads")}
    panel = [int(i) for i in read_json(data / "meta.json")["panel"]]
    done = for_each_seed(
        attack_one,
        seeds,
        threads=threads,
        data=data,
        encrypted=encrypted,
        out=out,
        panel=panel,
        **settings,
    )
    arrays = {name: np.stack([d["arrays"][name] for d in done]) for name in done[0]["arrays"]}
    write_npz(out / "evaluation.npz", seeds=np.array(seeds, np.int64), **arrays)
    write_npz(out / "reconstructions.npz", **done[0]["panel"])
    for run_of_seed in done:
        for checkpoint in run_of_seed["checkpoints"]:
            checkpoint.discard()
    return {"seconds_of_each_attack": done[0]["seconds"]}


if __name__ == "__main__":
    run(attack, "gan_transform.attack")
