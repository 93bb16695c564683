"""What a black box sees in the images that a generator draws of features."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from stages.deep_features.blackbox import load_blackbox
from stages.deep_features.generator import load_generator

Features = Float32[np.ndarray, "n d"]


def load_redrawing(
    trained: Path, generator: Path, seed: int, device: torch.device
) -> Callable[[Features], Features] | None:
    """Return features -> features of their reconstructions; None if there is no such generator.

    Parameters
    ----------
    trained, generator : folders of the black box and of a cell's generator.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    if not (generator / "meta.json").exists():
        return None
    G = load_generator(generator, seed, device)
    black_box = load_blackbox(trained, seed, device)

    def redraw(features: Features) -> Features:
        return black_box(G(features)).cpu().numpy()

    return redraw


def draw(generator: Path, seed: int, features: Features) -> UInt8[np.ndarray, "n h w 3"]:
    """Return what a cell's generator draws of features, as 8-bit images.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    levels = (load_generator(generator, seed)(features) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())
