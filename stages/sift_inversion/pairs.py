"""The training pairs of R and G: descriptor maps F_d and the image they come from.

The validation images are the same for every seed and every run of a set, and no image of their
group (a person, a motif) is trained on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from stages.common.errors import InputError
from stages.common.files import read_npz, sha256
from stages.sift_inversion.keypoints import read
from stages.sift_inversion.sparse import densify

ImageSet = Literal["faces", "multi"]
DescNorm = Literal["unit", "pm1"]
ORDER_SEED = 0  # of the order in which images are held out and a share is taken


def to_network(images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Return floats in [-1, 1], in the memory format of the convolutions."""
    floats = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return floats.contiguous(memory_format=torch.channels_last)


def to_uint8(images: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n h w 3"]:
    """Round images in [-1, 1] to 8 bits; what lies outside is clipped."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def split(
    groups: Int64[np.ndarray, " n"], *, n_val: int, share: float | int
) -> tuple[Int64[np.ndarray, " f"], Int64[np.ndarray, " v"]]:
    """Return the images to train on and the ``n_val`` held out, both as sorted indices.

    Groups are put in a random order; the first ``n_val`` images are held out, what is left of the
    last group that was touched is left out; of the others the first ``share`` is trained on, so
    that a smaller share is part of a larger one.
    """
    names, group = np.unique(groups, return_inverse=True)
    rank = np.random.RandomState(ORDER_SEED).permutation(len(names))
    order = np.argsort(rank[group], kind="stable")
    held, rest = order[:n_val], order[n_val:]
    rest = rest[~np.isin(groups[rest], groups[held])]
    return np.sort(rest[: round(share * len(rest))]), np.sort(held)


class Pairs:
    """Images of one set's training split on the device, with their descriptors.

    Parameters
    ----------
    data, extracted : folders of ``prepare`` and of ``extract``.
    size : side of the images, pixels.
    inputs, channels, desc_norm : of the maps, see :func:`stages.sift_inversion.sparse.densify`.

    Raises
    ------
    InputError
        If a file is missing or damaged, images and descriptors do not belong together, or there are
        fewer images to train on than ``batch_size``.
    """

    def __init__(
        self,
        data: Path,
        extracted: Path,
        image_set: ImageSet,
        *,
        size: int,
        inputs: Sequence[int],
        channels: Literal[128, 133],
        desc_norm: DescNorm,
        share: float | int,
        n_val: int,
        batch_size: int,
        device: torch.device,
    ):
        file, folder = data / f"{image_set}_train.npz", extracted / f"{image_set}_train"
        arrays = read_npz(file, ["images", "groups"])
        self.descriptors = read(folder)
        expected = (len(self.descriptors), self.descriptors.size, self.descriptors.size, 3)
        if arrays["images"].shape != expected or self.descriptors.size != size:
            raise InputError(
                folder,
                "does not belong to the images",
                expected=f"descriptors of {len(arrays['images'])} images of {size} pixels"
                f" ({file} holds {arrays['images'].shape})",
                found=f"{len(self.descriptors)} of {self.descriptors.size} pixels",
                remedy="run the stages before this one again (dvc repro)",
            )
        self.fit, self.val = split(arrays["groups"], n_val=n_val, share=share)
        if len(self.fit) < batch_size or len(self.val) < n_val:
            raise InputError(
                file,
                "has too few images",
                expected=f"{n_val} to hold out (n_val) and, of a share of {share}, a batch of"
                f" {batch_size}",
                found=f"{len(arrays['images'])}, of them {len(self.fit)} to train on",
                remedy="lower batch_size or n_val, or raise n_train of this profile in params.yaml",
            )
        self.images = torch.from_numpy(arrays["images"]).to(device)
        self._how = {"scales": sorted(set(inputs)), "channels": channels, "desc_norm": desc_norm}
        self.sha256 = {path.name: sha256(path) for path in (file, *sorted(folder.iterdir()))}

    def at(
        self, index: Int64[np.ndarray, " b"]
    ) -> tuple[dict[int, Tensor], Float[Tensor, "b 3 s s"], Int64[Tensor, " b"]]:
        """Return the maps {d: F_d}, the images y in [-1, 1], and ``index`` on the device."""
        device = self.images.device
        place = torch.from_numpy(index).to(device)
        maps = densify(self.descriptors, index, device=device, **self._how)
        return maps, to_network(self.images[place]), place
