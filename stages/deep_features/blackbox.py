"""A trained black box from its folder: images in, features out, nothing else.

The threat models may only ask it: no gradient leaves it, and its weights are not among what a
stage that attacks reads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_json
from stages.common.networks.weight_files import load_state, read_state
from stages.deep_features.networks import ReidNet, fuse
from stages.deep_features.pixels import resize, to_floats

NETWORK = ("net", "ids", "mini_width", "non_local", "non_local_width", "pool", "classifier")
META = (*NETWORK, "model", "dims", "input")  # keys of meta.json that are read


def build(meta: Mapping[str, Any]) -> ReidNet:
    """Return the network with new weights, by the keys in ``NETWORK``."""
    return ReidNet(**{key: meta[key] for key in NETWORK})


def read_meta(folder: Path) -> dict[str, Any]:
    """Read a black box's meta.json.

    Raises
    ------
    InputError
        If it is missing or damaged or lacks a key.
    """
    meta = read_json(folder / "meta.json")
    missing = [key for key in META if key not in meta]
    if missing:
        raise InputError(
            folder / "meta.json",
            "does not say what the black box is",
            expected=f"the keys {', '.join(META)}",
            found=f"none of {', '.join(missing)}",
            remedy="run the stage that writes it (dvc repro)",
        )
    return meta


class BlackBox:
    """What one seed of train_reid learned: images -> features, the BNNeck's output.

    meta : its meta.json.
    dims : D, numbers of a feature.
    size : (height, width) of its input; other images are resized (bicubic, floats, clipped).
    """

    def __init__(self, meta: Mapping[str, Any], net: ReidNet, device: torch.device):
        self.meta, self.net, self.device = meta, net, device
        self.dims: int = meta["dims"]
        height, width = meta["input"]
        self.size = (height, width)

    @torch.no_grad()
    def __call__(
        self, images: Shaped[Tensor, "n _ _ _"], batch_size: int = 64
    ) -> Float32[Tensor, "n d"]:
        """Return the features of images of any size, on the black box's device.

        Parameters
        ----------
        images : uint8 (n, h, w, 3), as stored; or floats in [0, 1], or uint8, (n, 3, h, w).

        Raises
        ------
        ValueError
            If neither the second nor the last axis has three entries.
        """
        stored = images.dtype == torch.uint8
        last = stored and images.shape[3] == 3
        if not last and images.shape[1] != 3:
            raise ValueError(f"images of 3 channels expected, found the shape {list(images.shape)}")
        features = []
        for part in images.split(batch_size):
            part = part.to(self.device)
            if stored:
                part = to_floats(part if last else part.permute(0, 2, 3, 1))
            part = resize(part.float(), self.size)
            features.append(self.net(part.contiguous(memory_format=torch.channels_last)))
        return torch.cat(features) if features else torch.empty((0, self.dims), device=self.device)


def load_blackbox(folder: Path, seed: int, device: torch.device | None = None) -> BlackBox:
    """Return the black box that train_reid trained with ``seed``; by default on a GPU if any.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the weights are of another network.
    """
    device = device or evaluation_device()
    meta = read_meta(folder)
    net = build(meta)
    file = folder / f"weights-s{seed}.safetensors"
    load_state(net, read_state(file), file)
    net.eval().requires_grad_(False)
    fuse(net.backbone)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return BlackBox(meta, net, device)
