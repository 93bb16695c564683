"""Re-extract the reconstructions and measure how near they are to the originals (Fig. 4).

For every cell that ``reconstruct`` trained, G draws all test images from their features, and the
same black box, of the same seed, sees what it drew. Writes <model>-<set>.npz: per test image,
float64 (k, n), distance_<r> (1 - cosine of the features), psnr_<r> (dB), ssim_<r>, hf_<r>
(:func:`spectrum.fine_share`) and peak_<r> (:func:`spectrum.peaks`) for each r in pixel, fr, fr_adv,
pixel_equal, fr_equal (after as many updates of G as fr_adv makes) and for the floors:

same     the image itself, seen again: 0
floor    the image as a JPEG of quality 95, which the authors' images pass through
other    the next test image of another person
mean     the mean training image
blank    mid-grey

also seeds (k,), hf_original and peak_original (1, n); panel-<model>-<set>.npz, the images of
prepare's panel, uint8 (p, h, w, 3): original, pixel, fr, fr_adv of the first seed; and meta.json.

Departure: reconstructions stay floats on their way into the black box; with ``jpeg`` they are cut
off to 8 bits and stored as JPEG as the authors do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed
from stages.deep_features.blackbox import load_blackbox
from stages.deep_features.features import REMEDY, read_features, read_sets
from stages.deep_features.generator import load_generator
from stages.deep_features.pixels import to_floats
from stages.deep_features.similarity import cosine_distance, psnr, ssim
from stages.deep_features.spectrum import fine_share, peaks

LOSSES = ("pixel", "fr", "fr_adv")
EQUAL = ("pixel", "fr")  # are also kept after as many updates of G as fr_adv makes
AT_ONCE = 1024  # images in memory as floats
QUALITY = 95  # of the authors' JPEG files, OpenCV's default
GREY = 0.5  # of the blank image
SPLIT = "test"
OF_RUN = ("phi", "phi_layer", "w_adv", "updates_g", "updates_d", "updates_equal")  # of meta.json

Images = UInt8[np.ndarray, "n h w 3"]


def find_cells(reconstructed: Path) -> dict[str, list[str]]:
    """Return the losses that were trained for each cell <model>-<set>, in the paper's order.

    Raises
    ------
    InputError
        If there is none.
    """
    found = [
        (file.parent.name, loss)
        for loss in LOSSES
        for file in sorted((reconstructed / loss).glob("*/meta.json"))
    ]
    if not found:
        raise InputError(
            reconstructed,
            "holds no reconstructions",
            expected="<loss>/<model>-<set>/meta.json",
            found="none",
            remedy="run the stage that reconstructs (dvc repro)",
        )
    return {
        cell: [loss for name, loss in found if name == cell]
        for cell in sorted({name for name, _ in found})
    }


def through_jpeg(images: Images) -> Images:
    """Return the images as OpenCV reads them back from JPEG files of quality 95."""
    back = []
    for image in images:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None
        back.append(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
    return np.stack(back).astype(np.uint8)


def truncated(images: Float[Tensor, "n 3 h w"]) -> Images:
    """Return the images in 8 bits as the authors do: cut off, not rounded."""
    return (images * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def rounded(images: Float[Tensor, "n 3 h w"]) -> Images:
    """Return the images in 8 bits, rounded: for the eye."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def next_person(pids: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return for each image the next one, in a circle, of another identity.

    Raises
    ------
    InputError
        If all images are of one.
    """
    if len(np.unique(pids)) < 2:
        raise InputError(
            "test images",
            "have no other image to compare with",
            expected="2 identities or more",
            found=f"{len(pids)} images of one",
            remedy="raise the number of identities of this profile in params.yaml",
        )
    found = np.empty(len(pids), np.int64)
    following = -1
    for i in range(2 * len(pids) - 1, -1, -1):  # from the second round back
        here, after = i % len(pids), (i + 1) % len(pids)
        following = after if pids[after] != pids[here] else following
        found[here] = following
    return found


@dataclass(frozen=True, eq=False)
class Scene:
    """The test images of a set.

    other : for each image the one that the floor shows.
    mean : of the training images, 0 to 255.
    panel : the images that may be shown.
    """

    images: Images
    other: Int64[np.ndarray, " n"]
    mean: Float64[np.ndarray, "h w 3"]
    panel: list[int]

    def parts(self) -> list[slice]:
        """Return the images in parts that fit into memory."""
        return [slice(i, i + AT_ONCE) for i in range(0, len(self.images), AT_ONCE)]

    def floats(self, part: slice, device: torch.device) -> Float[Tensor, "m 3 h w"]:
        """Return images in [0, 1]."""
        return to_floats(torch.from_numpy(self.images[part]).to(device))

    def floors(self, part: slice, device: torch.device) -> dict[str, Tensor]:
        """Return the floors of images, in [0, 1], by name; constant ones once."""
        x = self.floats(part, device)
        mean = torch.from_numpy(self.mean / 255).permute(2, 0, 1).float().to(device)
        seen = through_jpeg(self.images[part]), self.images[self.other[part]]
        floor, other = (to_floats(torch.from_numpy(images).to(device)) for images in seen)
        return {
            "same": x,
            "floor": floor,
            "other": other,
            "mean": mean[None].contiguous(memory_format=torch.channels_last),
            "blank": torch.full_like(x[:1], GREY),
        }


def read_scene(data: Path, name: str, panel: list[int]) -> Scene:
    """Read the images of a local set.

    Raises
    ------
    InputError
        If a file is missing or damaged, or all test images are of one person.
    """
    test = read_npz(data / f"{name}_{SPLIT}.npz", ["images", "pids"])
    train = read_npz(data / f"{name}_train.npz", ["images"])["images"]
    mean = np.asarray(train.mean(0, dtype=np.float64))
    return Scene(test["images"], next_person(test["pids"]), mean, panel)


def measured(
    r: str, x_rec: Float[Tensor, "m 3 h w"], x: Float[Tensor, "n 3 h w"]
) -> dict[str, Tensor]:
    """Return psnr, ssim, hf and peak of each image, by <measure>_<r>; ``x_rec`` may be one."""
    return {
        f"psnr_{r}": psnr(x_rec.expand_as(x), x),
        f"ssim_{r}": ssim(x_rec.expand_as(x), x),
        f"hf_{r}": fine_share(x_rec).expand(len(x)),
        f"peak_{r}": peaks(x_rec).expand(len(x)),
    }


def joined(parts: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """Return the parts' values one after the other, by name."""
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


def measure_floors(scene: Scene) -> dict[str, np.ndarray]:
    """Return what does not depend on a seed: <measure>_<floor> and <measure>_original, (n,)."""
    found, device = [], evaluation_device()
    for part in scene.parts():
        x = scene.floats(part, device)
        values = {"hf_original": fine_share(x), "peak_original": peaks(x)}
        for name, images in scene.floors(part, device).items():
            values |= measured(name, images, x)
        found.append(values)
    return joined(found)


def evaluate_cell(
    trained: Path,
    extracted: Path,
    reconstructed: Path,
    cell: str,
    losses: list[str],
    scene: Scene,
    *,
    seed: int,
    batch_size: int,
    jpeg: bool,
) -> tuple[dict[str, np.ndarray], dict[str, Images]]:
    """Measure the reconstructions of one seed.

    Returns
    -------
    <measure>_<r> of the reconstructions and distance_<r> of the floors, (n,); and the panel's
    images by loss.
    """
    model, _, name = cell.partition("-")
    device = evaluation_device()
    black_box = load_blackbox(trained / model, seed, device)
    stored = read_features(extracted, model, name, SPLIT, seed, n=len(scene.images))
    generators = {}
    for loss in losses:
        folder = reconstructed / loss / cell
        generators[loss] = load_generator(folder, seed, device)
        check(folder, generators[loss].meta, stored, scene.images)
        if loss in EQUAL:
            generators[f"{loss}_equal"] = load_generator(folder, seed, device, equal=True)
    found = []
    for part in scene.parts():
        x, f = scene.floats(part, device), torch.from_numpy(stored[part]).to(device)
        shown, values = scene.floors(part, device), {}
        for r, G in generators.items():
            shown[r] = torch.cat(list(G.draw(f)))
            if jpeg:
                seen = through_jpeg(truncated(shown[r]))
                shown[r] = to_floats(torch.from_numpy(seen).to(device))
            values |= measured(r, shown[r], x)
        for r, images in shown.items():
            seen = black_box(images, batch_size)
            values[f"distance_{r}"] = cosine_distance(seen.expand_as(f), f)
        found.append(values)
    pictures = {}
    if scene.panel:
        some = torch.from_numpy(stored[scene.panel])
        pictures = {loss: rounded(generators[loss](some)) for loss in losses}
    return joined(found), pictures


def check(folder: Path, meta: Mapping[str, Any], stored: np.ndarray, images: Images) -> None:
    """Refuse a G of other features or images.

    Raises
    ------
    InputError
        If it is.
    """
    found = (meta["dims"], meta["height"], meta["width"])
    expected = (stored.shape[1], *images.shape[1:3])
    if found != expected:
        raise InputError(
            folder / "meta.json",
            "is of other features or images",
            expected="{} numbers to {} x {} pixels".format(*expected),
            found="{} to {} x {}".format(*found),
            remedy=REMEDY,
        )


def evaluate_seed(
    trained: Path,
    extracted: Path,
    reconstructed: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    cells: Mapping[str, list[str]],
    scenes: Mapping[str, Scene],
    **settings: Any,
) -> dict[str, tuple]:
    """Measure all cells with one seed; returns what :func:`evaluate_cell` does, by cell."""
    torch.set_num_threads(threads)
    done = {}
    for cell, losses in cells.items():
        scene = scenes[cell.partition("-")[2]]
        done[cell] = evaluate_cell(
            trained, extracted, reconstructed, cell, losses, scene, seed=seed, **settings
        )
        means = {r: done[cell][0][f"distance_{r}"].mean() for r in (*losses, "floor", "other")}
        line = ", ".join(f"{r} {value:.3f}" for r, value in means.items())
        print(f"  {cell}, seed {seed}: mean cosine distance {line}", flush=True)
    return done


def evaluate(
    data: Path,
    trained: Path,
    extracted: Path,
    reconstructed: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    batch_size: PositiveInt,
    jpeg: bool,
    allow_real_grids: bool,
) -> dict[str, int]:
    """Measure the reconstructions of all cells, losses and seeds, and the floors.

    Parameters
    ----------
    batch_size : images that the black box sees at once.
    jpeg : store reconstructions as the authors do before they are seen.
    allow_real_grids : write panels of sets that show real people, too.

    Raises
    ------
    InputError
        If a file is missing or damaged, or images, features and networks do not belong together.
    """
    meta, cells = read_sets(data), find_cells(reconstructed)
    scenes: dict[str, Scene] = {}
    for name in sorted({cell.partition("-")[2] for cell in cells}):
        if name not in meta["sets"]:
            raise InputError(
                reconstructed,
                "has a cell of an unknown set",
                expected=f"sets of {', '.join(meta['sets'])}",
                found=name,
                remedy=REMEDY,
            )
        shown = allow_real_grids or not meta["sets"][name].get("real", True)
        panel = meta.get("panel", {}).get(name, []) if shown else []
        scenes[name] = read_scene(data, name, panel)
    done = for_each_seed(
        evaluate_seed,
        seeds,
        threads=threads,
        trained=trained,
        extracted=extracted,
        reconstructed=reconstructed,
        cells=cells,
        scenes=scenes,
        batch_size=batch_size,
        jpeg=jpeg,
    )
    torch.set_num_threads(threads)
    of_floors = {name: measure_floors(scene) for name, scene in scenes.items()}
    about = {}
    for cell, losses in cells.items():
        name = cell.partition("-")[2]
        rows = [of_seed[cell][0] for of_seed in done]
        arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        for key, values in of_floors[name].items():
            k = 1 if key.endswith("_original") else len(seeds)
            arrays[key] = np.repeat(values[None], k, 0)
        write_npz(out / f"{cell}.npz", seeds=np.asarray(seeds, np.int64), **arrays)
        if panel := scenes[name].panel:
            original = scenes[name].images[panel]
            write_npz(out / f"panel-{cell}.npz", original=original, **done[0][cell][1])
        about[cell] = {"panel": panel, "losses": {}}
        for loss in losses:
            trained_as = read_json(reconstructed / loss / cell / "meta.json")
            about[cell]["losses"][loss] = {k: trained_as[k] for k in OF_RUN if k in trained_as}
    write_json(out / "meta.json", {"cells": about, "seeds": seeds, "jpeg": jpeg})
    return {"cells": len(cells), "images": sum(len(s.images) for s in scenes.values())}


if __name__ == "__main__":
    run(evaluate, "deep_features.evaluate")
