"""Trained networks from a run's folder: what ``train`` or ``refine`` wrote, ready to use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.common.errors import InputError, shown
from stages.common.files import read_json
from stages.common.networks.weight_files import load_state, read_state
from stages.common.params import (
    Decay,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    describe,
    fits,
)
from stages.sift_inversion.keypoints import Descriptors
from stages.sift_inversion.networks import CoarseNet, Dosovitskiy, FineNet, Refined
from stages.sift_inversion.sparse import densify

COARSE = {  # keys of meta.json, and what they take
    "net": Literal["R", "dosovitskiy"],
    "inputs": list[Literal[4, 2]],
    "size": PositiveInt,
    "width": PositiveFloat,
    "channels": Literal[128, 133],
    "desc_norm": Literal["unit", "pm1"],
}
FINE = {"ngf": PositiveInt, "blocks": NonNegativeInt, "dropout": Decay}  # more, if it has a G


def build_coarse(meta: Mapping[str, Any]) -> nn.Module:
    """Return R, or the net of [5], with new weights, by the keys in ``COARSE``.

    Raises
    ------
    InputError
        If the network does not fit the images, or the net of [5] is given other inputs than [4].
    """
    shape = {"size": meta["size"], "width": meta["width"], "channels": meta["channels"]}
    if meta["net"] == "R":
        return CoarseNet(meta["inputs"], **shape)
    if list(meta["inputs"]) != list(Dosovitskiy.inputs):
        raise InputError(
            "net dosovitskiy",
            "has the wrong inputs",
            expected=list(Dosovitskiy.inputs),
            found=meta["inputs"],
            remedy="correct the run's line in params.yaml",
        )
    return Dosovitskiy(**shape)


def build_refined(meta: Mapping[str, Any]) -> Refined:
    """Return R and G with new weights, by the keys in ``COARSE`` and ``FINE``."""
    return Refined(build_coarse(meta), FineNet(**{key: meta[key] for key in FINE}))


def read_meta(folder: Path) -> dict[str, Any]:
    """Read a run's meta.json.

    Raises
    ------
    InputError
        If it is missing or damaged, lacks a key, or has a value that no network has.
    """
    meta = read_json(folder / "meta.json")
    wanted = COARSE | (FINE if "adversary" in meta else {})
    missing = [key for key in wanted if key not in meta]
    if missing:
        raise InputError(
            folder / "meta.json",
            "does not say what the networks are",
            expected=f"the keys {', '.join(wanted)}",
            found=f"none of {', '.join(missing)}",
            remedy="run the stage that writes it (dvc repro)",
        )
    for key, annotation in wanted.items():
        if not fits(meta[key], annotation):
            raise InputError(
                folder / "meta.json",
                f"{key} has the wrong value",
                expected=describe(annotation),
                found=shown(meta[key]),
                remedy="run the stage that writes it (dvc repro)",
            )
    return meta


class Model:
    """What one seed of a run learned: descriptors -> images.

    meta : the run's meta.json.
    net : the networks in inference mode, frozen.
    """

    def __init__(self, meta: dict[str, Any], net: nn.Module, device: torch.device):
        self.meta, self.net, self.device = meta, net, device

    @torch.no_grad()
    def __call__(self, descriptors: Descriptors) -> Float[Tensor, "n 3 s s"]:
        """Return an image in [-1, 1] for each of ``descriptors``, all in one batch.

        A run of ``refine`` gives G's image. The net of [5], whose output is linear, is clipped.
        """
        maps = densify(
            descriptors,
            range(len(descriptors)),
            scales=sorted(set(self.meta["inputs"])),
            channels=self.meta["channels"],
            desc_norm=self.meta["desc_norm"],
            device=self.device,
        )
        output = self.net(maps)
        return (output[1] if isinstance(output, tuple) else output).clamp(-1, 1)


def load_run(folder: Path, seed: int, device: torch.device) -> Model:
    """Return the networks that ``train`` or ``refine`` trained with ``seed``.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the weights are of other networks.
    """
    meta = read_meta(folder)
    net = build_refined(meta) if "adversary" in meta else build_coarse(meta)
    file = folder / f"weights-s{seed}.safetensors"
    load_state(net, read_state(file), file)
    net.eval().requires_grad_(False)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(meta, net, device)
