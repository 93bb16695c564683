"""Protect the attacker's images with every scheme, and write what a client needs (Fig. 1).

A scheme's folder holds its key, or the weights of h_p, of each seed; a classifier and an attack
read nothing else of the scheme. Beside the ciphers: what h_theta makes of them, how similar they
are to the plain images, and the floors that any similarity must be read against.
"""

from pathlib import Path

import numpy as np
import torch

from stages.common.device import evaluation_device
from stages.common.errors import InputError, suggestion
from stages.common.files import read_json, read_npz, write_bytes, write_npz
from stages.common.metrics import ssim
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed
from stages.gan_transform.classifier import predict
from stages.gan_transform.floors import floor_images
from stages.gan_transform.networks import VGG13, constant_normalisation, load_frozen
from stages.gan_transform.protection import load_translator, translate
from stages.gan_transform.schemes import (
    SPLITS,
    Scheme,
    load_cipher,
    make_keys,
    parse_scheme,
    write_scheme,
)

ALONE = 8  # images that are also encrypted one by one
FLOOR_SEED = 0


def encrypt_one(
    data: Path,
    target: Path,
    transforms: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    target_width: int,
    schemes: list[Scheme],
) -> dict[str, dict[str, np.ndarray]]:
    """Encrypt with the keys (or the h_p) of one seed; returns the measurements by scheme."""
    torch.set_num_threads(threads)
    device = evaluation_device()
    split = {name: read_npz(data / f"{name}.npz") for name in SPLITS}
    plain = {name: arrays["images"] for name, arrays in split.items()}
    classes = len(read_json(data / "meta.json")["classes"])
    h = load_frozen(
        VGG13(classes, constant_normalisation(), target_width),
        target / f"htheta-s{seed}.safetensors",
    ).to(device)
    found = {}
    for scheme in schemes:
        folder = out / scheme.scheme
        shapes = {name: images.shape[:3] for name, images in plain.items()}
        if keys := make_keys(scheme, seed, shapes):
            write_npz(folder / f"key-s{seed}.npz", **keys)
        if scheme.cipher == "transform":
            assert scheme.variant is not None
            for file in (f"generator-s{seed}.safetensors", f"inverse-s{seed}.safetensors"):
                write_bytes(folder / file, (transforms / scheme.variant / file).read_bytes())
        cipher = load_cipher(folder, seed)
        encrypted = {
            name: cipher(plain[name], name) for name in ("test", "attack_train", "attack_test")
        }
        for name in ("attack_train", "attack_test"):
            write_npz(folder / f"{name}-s{seed}.npz", images=encrypted[name])
        right = predict(h, torch.from_numpy(encrypted["test"]).to(device)).cpu().numpy()
        measured = {
            "ssim": ssim(encrypted["attack_test"], plain["attack_test"], data_range=255),
            "ssim_test": ssim(encrypted["test"], plain["test"], data_range=255),
            "htheta_correct": right == split["test"]["labels"],
        }
        if scheme.cipher == "transform":
            alone = np.concatenate([cipher(x[None], "test") for x in plain["test"][:ALONE]])
            measured["mismatches"] = np.array(np.count_nonzero(alone != encrypted["test"][:ALONE]))
            widths = read_json(folder / "meta.json")["widths"]
            G_BA = load_translator(folder / f"inverse-s{seed}.safetensors", widths, device)
            back = translate(G_BA, torch.from_numpy(encrypted["test"])).numpy()
            measured["ssim_g_ba_test"] = ssim(back, plain["test"], data_range=255)
        found[scheme.scheme] = measured
    return found


def encrypt(
    data: Path,
    target: Path,
    transforms: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    target_width: PositiveInt,
    schemes: dict,
):
    """Write a folder for each scheme and the SSIM of the floors, floors.npz."""
    parsed = [parse_scheme(name, line) for name, line in schemes.items()]
    for scheme in parsed:
        more: dict[str, object] = {"seeds": seeds}
        if scheme.cipher == "transform":
            known = sorted(p.name for p in transforms.iterdir() if p.is_dir())
            if scheme.variant not in known:
                raise InputError(
                    "params.yaml",
                    f"scheme {scheme.scheme!r} names a variant that was not trained",
                    expected=f"of {', '.join(known)}",
                    found=repr(scheme.variant),
                    remedy=suggestion(str(scheme.variant), known),
                )
            history = transforms / str(scheme.variant) / f"history-s{seeds[0]}.json"
            more["widths"] = read_json(history)["widths"]
        write_scheme(out / scheme.scheme, scheme, **more)
    done = for_each_seed(
        encrypt_one,
        seeds,
        threads=threads,
        data=data,
        target=target,
        transforms=transforms,
        out=out,
        target_width=target_width,
        schemes=parsed,
    )
    for scheme in parsed:
        rows = [of_seed[scheme.scheme] for of_seed in done]
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        write_npz(out / scheme.scheme / "evaluation.npz", seeds=np.array(seeds), **arrays)
    floors = {}
    for where, name in (("attack", "attack_test"), ("test", "test")):
        plain = read_npz(data / f"{name}.npz")["images"]
        for floor, images in floor_images(plain, FLOOR_SEED).items():
            floors[f"{floor}_{where}"] = ssim(images, plain, data_range=255)[None]
    write_npz(out / "floors.npz", **floors)
    return {"schemes": len(parsed)}


if __name__ == "__main__":
    run(encrypt, "gan_transform.encrypt")
