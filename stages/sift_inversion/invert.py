"""Show what the SIFT descriptors of a photograph of your own give away.

``python -m stages.sift_inversion.invert IMAGE --weights FOLDER`` finds and places the photograph's
keypoints as ``extract`` does, gives them to a network of ``train`` or ``refine``, and writes the
photograph, its keypoints and the reconstruction side by side. FOLDER is that of a run, for example
artifacts/embedded/sift_inversion/refine/R42_G. The network knows the images that it was trained on:
of others it shows less. No stage depends on it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from jaxtyping import UInt8

from stages.common.device import evaluation_device
from stages.common.errors import InputError, shown
from stages.common.figures import image_grid, save_figure
from stages.common.files import read_json
from stages.common.metrics import psnr
from stages.common.params import PARAMS, describe, fits, load_params, section
from stages.common.stage import one_sentence
from stages.data.photo import read_photo
from stages.sift_inversion.extract import arrange, extract
from stages.sift_inversion.figures import keypoint_overlay
from stages.sift_inversion.keypoints import Descriptors, offsets_of
from stages.sift_inversion.measures import DATA_RANGE, PSNR_CAP, ssim
from stages.sift_inversion.models import load_run, read_meta
from stages.sift_inversion.reconstruct import images_of
from stages.sift_inversion.sift import SETTINGS, detect, detector

RULES = (*SETTINGS, "order", "collision", "r_max")  # of extract, that keypoints depend on
STAGES = ("refine", "train")  # that write weights
SHOWN_PX = 256  # smaller images are enlarged by whole pixels
ARTIFACTS = Path("artifacts")
WEIGHTS = "weights-s*.safetensors"
REMEDY = (
    "run dvc repro stages/sift_inversion/dvc.yaml:refine, then give, for example,"
    " artifacts/embedded/sift_inversion/refine/R42_G"
)


class Inverted(NamedTuple):
    """What came out: the file written, PSNR (dB, at most 60), SSIM, and how many keypoints."""

    out: Path
    psnr: float
    ssim: float
    keypoints: int


def invert(
    image: Path, weights: Path | None, out: Path | None = None, *, seed: int = 0
) -> Inverted:
    """Reconstruct one photograph from its keypoints and write all three pictures to ``out``.

    The largest centred square is cut out and brought to the size that the run was trained on.

    Parameters
    ----------
    image : an 8-bit JPEG or PNG.
    weights : folder of a run of ``train`` or ``refine``.
    out : a .png; None: <image>-<run>-s<seed>.png in the working directory.
    seed : which of the run's networks.

    Raises
    ------
    InputError
        If the image cannot be read or has no keypoints; the folder is missing, damaged or no
        run's, or has no such seed; or ``out`` is no .png, or is the image itself.
    """
    folder, meta = find_run(weights, seed)
    out = out or Path(f"{image.stem}-{folder.resolve().name}-s{seed}.png")
    _check_out(out, image)
    model, size = load_run(folder, seed, evaluation_device()), meta["size"]
    pixels = read_photo(image, size=size, crop=True, cmyk=True).pixels
    found = keypoints_of(pixels, sift_params(folder, meta))
    count = len(found.kp)
    if not count:
        raise InputError(
            image,
            "has no SIFT keypoints, so there is nothing to invert",
            expected=f"1 keypoint or more in its centred square at {size} x {size} pixels",
            found=0,
            remedy="give an image with more contrast",
        )
    made = images_of(model, found, 1)
    real = pixels[None]
    dB = float(psnr(made, real, data_range=DATA_RANGE, cap=PSNR_CAP)[0])
    result = Inverted(out, dB, float(ssim(made, real)[0]), count)
    side = max(SHOWN_PX, size)
    columns = {
        "original": [pixels],
        f"{count} {_plural('keypoint', count)}": [
            keypoint_overlay(pixels, np.asarray(found.kp), side=side)
        ],
        "reconstruction": [made[0]],
    }
    label = f"PSNR {result.psnr:.1f} SSIM {result.ssim:.2f}"
    save_figure(image_grid(columns, [label], side=side), out)
    return result


def keypoints_of(pixels: UInt8[np.ndarray, "s s 3"], params: dict[str, Any]) -> Descriptors:
    """Find and place the keypoints of one image; ``params`` are those of ``extract``."""
    found = detect(pixels, detector(params))
    arrays = {**found._asdict(), "offsets": offsets_of([len(found.kp)])}
    return arrange(arrays, len(pixels), params)


def sift_params(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of ``extract`` that a run's training keypoints were made with.

    They stand in the folder of ``extract`` beside the run's stage; where it is missing, those of
    params.yaml are taken.

    Raises
    ------
    InputError
        If they are damaged, or there are none.
    """
    beside = folder.resolve().parents[1] / "extract" / f"{meta.get('set')}_train" / "meta.json"
    if beside.is_file():
        where, params = beside, section(read_json(beside), "params", beside)
    else:
        where, params = PARAMS, section(load_params(), "sift_inversion.extract", PARAMS)
    for key, annotation in get_type_hints(extract, include_extras=True).items():
        if key in RULES and not fits(params.get(key), annotation):
            raise InputError(
                where,
                f"says no {key} of the keypoints",
                expected=describe(annotation),
                found=shown(params.get(key)),
                remedy="run dvc repro stages/sift_inversion/dvc.yaml:extract",
            )
    return params


def find_run(weights: Path | None, seed: int) -> tuple[Path, dict[str, Any]]:
    """Return the run's folder and its meta.json, if it holds the network of ``seed``.

    Raises
    ------
    InputError
        If it is not given, not there, another kind of folder, or has no such seed.
    """
    if weights is None:
        trained = trained_runs()
        raise InputError(
            "--weights",
            "is missing",
            expected="the folder of a trained run",
            found="none given",
            remedy=f"give {' or '.join(map(str, trained[:3]))}" if trained else REMEDY,
        )
    if not (weights / "meta.json").is_file():
        inside = sorted({path.parent.name for path in weights.glob(f"*/{WEIGHTS}")})
        what = "a file" if weights.is_file() else "nothing"
        raise InputError(
            weights,
            "is not the folder of a trained run",
            expected="a folder with meta.json and weights-s<seed>.safetensors",
            found=f"a folder with {', '.join(inside) or 'neither'}" if weights.is_dir() else what,
            remedy="give one of these" if inside else REMEDY,
        )
    meta = read_meta(weights)
    seeds = sorted(
        int(number)
        for path in weights.glob(WEIGHTS)
        if (number := path.stem.rpartition("-s")[2]).isdecimal()
    )
    if seed not in seeds:
        raise InputError(
            weights,
            f"has no network of seed {seed}",
            expected=f"one of the seeds {', '.join(map(str, seeds))}" if seeds else "weights",
            found=f"seed {seed}" if seeds else "meta.json without weights",
            remedy="give --seed one of these" if seeds else REMEDY,
        )
    return weights, meta


def trained_runs() -> list[Path]:
    """Return the folders of the runs trained here, refined ones first."""
    found = (ARTIFACTS.glob(f"*/sift_inversion/{stage}/*/meta.json") for stage in STAGES)
    return [path.parent for paths in found for path in sorted(paths)]


def _check_out(out: Path, image: Path) -> None:
    own = out.exists() and image.exists() and out.samefile(image)
    if own or out.suffix != ".png":
        raise InputError(
            out,
            "is the photograph itself" if own else "cannot hold the pictures",
            expected="another file" if own else "a name that ends in .png",
            found=f"the same file as {image}" if own else out.suffix or "no ending",
            remedy="give --out another name",
        )


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; if it fails, one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.sift_inversion.invert",
        description="Reconstruct a photograph from its SIFT descriptors.",
    )
    parser.add_argument("image", type=Path, help="an 8-bit JPEG or PNG")
    parser.add_argument("--weights", type=Path, help="folder of a run of stage train or refine")
    parser.add_argument("--seed", type=int, default=0, help="of the run's networks; default: 0")
    parser.add_argument("--out", type=Path, help="default: <image>-<run>-s<seed>.png, here")
    given = parser.parse_args(argv)
    with one_sentence("invert"):
        found = invert(given.image, given.weights, given.out, seed=given.seed)
    count = f"{found.keypoints} {_plural('keypoint', found.keypoints)}"
    print(f"{count}, PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.3f}")
    print(f"wrote {found.out}")


if __name__ == "__main__":
    main()
