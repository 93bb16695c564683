"""G and D of the reconstruction (Sec. III-C): a feature to an image, and whether the two fit.

The tables are those of the authors' code. At 384 x 128 pixels, features of 2048, the smallest map
12 x 4 with 128 channels, base 16 in G and 32 in D: 3,656,259 and 5,937,505 trained values. Images
are floats in [0, 1], (n, 3, h, w). Keras' constants: batch norm with epsilon 1e-3 and momentum 0.99
(torch's 0.01), weights Glorot uniform, biases 0.

Departure: in the shortcuts the 1 x 1 convolution is computed on the smaller map, before the nearest
upsampling and after the average pooling, which gives the same numbers.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_json
from stages.common.networks.weight_files import load_state, read_state

BN_EPS = 1e-3  # Keras' BatchNormalization
AT_ONCE = 64  # features that become images at once
SHAPE = ("dims", "height", "width", "min_map", "c0", "hidden", "base_g")  # G's keys of meta.json


def count_blocks(height: int, width: int, min_map: Sequence[int]) -> int:
    """Return how often ``min_map`` (h, w) is doubled to height x width.

    Raises
    ------
    InputError
        If it is not some whole number of times, the same for both sides.
    """
    doubled = height // min_map[0] if len(min_map) == 2 else 0
    blocks = doubled.bit_length() - 1
    if blocks < 1 or [side << blocks for side in min_map] != [height, width]:
        raise InputError(
            "min_map",
            "does not suit the images",
            expected=f"height and width which doubled some times are {height} x {width}",
            found=list(min_map),
            remedy="correct it in params.yaml",
        )
    return blocks


def initialise(net: nn.Module) -> None:
    """Draw weights Glorot uniform (Glorot & Bengio, AISTATS 2010), biases 0: Keras' defaults."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def parameters(net: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in net.parameters())


def up2(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Double the sides by repeating pixels."""
    return interpolate(x, scale_factor=2.0, mode="nearest")


class UpBlock(nn.Module):
    """BN - ReLU - up2 - conv3 - BN - ReLU - conv3, plus the shortcut up2 - conv1."""

    def __init__(self, c_in: int, c_out: int, bn_momentum: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in, BN_EPS, bn_momentum)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(c_out, BN_EPS, bn_momentum)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k 2*h 2*w"]:
        a = self.conv1(up2(relu(self.norm1(x))))
        return self.conv2(relu(self.norm2(a))) + up2(self.shortcut(x))


class Generator(nn.Module):
    """G: features (n, D) -> images (n, 3, h, w) in [0, 1].

    Parameters
    ----------
    height, width : of the images.
    min_map : height and width of the smallest map; it is doubled to the images' size.
    c0, hidden : channels of the smallest map; units of the first layer.
    base_g : channels of the last block; every block before it has twice as many.
    bn_momentum : share of the new batch in the running averages.

    Raises
    ------
    InputError
        If ``min_map`` does not suit the images.
    """

    def __init__(
        self,
        *,
        dims: int,
        height: int,
        width: int,
        min_map: Sequence[int],
        c0: int,
        hidden: int,
        base_g: int,
        bn_momentum: float = 0.01,
    ):
        super().__init__()
        n_blocks = count_blocks(height, width, min_map)
        self.smallest = (c0, *min_map)
        self.dense1 = nn.Linear(dims, hidden)
        self.dense2 = nn.Linear(hidden, c0 * min_map[0] * min_map[1])
        channels = [c0, *(base_g << i for i in reversed(range(n_blocks)))]
        self.blocks = nn.Sequential(*(UpBlock(a, b, bn_momentum) for a, b in pairwise(channels)))
        self.norm = nn.BatchNorm2d(base_g, BN_EPS, bn_momentum)
        self.conv = nn.Conv2d(base_g, 3, 3, padding=1)
        initialise(self)

    def forward(self, f: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 h w"]:
        x = relu(self.dense2(relu(self.dense1(f))))  # (n, c0 * 12 * 4)
        x = self.blocks(x.view(-1, *self.smallest))  # (n, base_g, h, w)
        return (torch.tanh(self.conv(relu(self.norm(x)))) + 1) / 2


class DownBlock(nn.Module):
    """ReLU - conv3 - ReLU - conv3 - average of 2 x 2, plus the shortcut conv1 - average."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h//2 w//2"]:
        a = avg_pool2d(self.conv2(relu(self.conv1(relu(x)))), 2)
        return a + self.shortcut(avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """D(image, feature): one real number (no sigmoid); 1 says that the pair is real.

    No batch norm and no spectral norm, as the authors' command has it; the first ReLU sees an image
    and does nothing.

    Parameters
    ----------
    n_blocks : as many as G has.
    base_d : channels of the first block; every block after it has twice as many.
    """

    def __init__(self, *, dims: int, n_blocks: int, base_d: int):
        super().__init__()
        channels = [3, *(base_d << i for i in range(n_blocks))]
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in pairwise(channels)))
        self.condition = nn.Linear(dims, channels[-1])
        self.dense = nn.Linear(2 * channels[-1], 1)
        initialise(self)

    def forward(
        self, image: Float[Tensor, "n 3 h w"], f: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n 1"]:
        x = self.blocks(image).mean((2, 3))  # (n, 512)
        return self.dense(torch.cat([x, self.condition(f)], 1))


class Reconstruction:
    """What one seed's G learned: features -> images.

    meta : the cell's meta.json.
    G : in inference mode, frozen.
    """

    def __init__(self, meta: dict[str, Any], G: Generator, device: torch.device):
        self.meta, self.G, self.device = meta, G, device

    def __call__(
        self, features: Float32[np.ndarray, "n d"] | Float32[Tensor, "n d"]
    ) -> Float32[Tensor, "n 3 h w"]:
        """Return the images in [0, 1], on the CPU."""
        return torch.cat([images.cpu() for images in self.draw(features)])

    @torch.no_grad()
    def draw(
        self, features: Float32[np.ndarray, "n d"] | Float32[Tensor, "n d"]
    ) -> Iterator[Float32[Tensor, "b 3 h w"]]:
        """Yield the images in [0, 1] in batches, where the network is."""
        for part in torch.as_tensor(features).split(AT_ONCE):
            yield self.G(part.to(self.device))


def load_generator(
    folder: Path, seed: int, device: torch.device | None = None, *, equal: bool = False
) -> Reconstruction:
    """Return the G that ``reconstruct`` trained with ``seed``.

    Parameters
    ----------
    folder : of a cell, .../reconstruct/<loss>/<model>-<set>.
    device : default: the GPU if there is one, in full precision.
    equal : G after as many updates as fr_adv makes, not after all.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the weights are of another network.
    """
    meta = read_json(folder / "meta.json")
    if missing := [key for key in SHAPE if key not in meta]:
        raise InputError(
            folder / "meta.json",
            "does not say what the network is",
            expected=f"the keys {', '.join(SHAPE)}",
            found=f"none of {', '.join(missing)}",
            remedy="run the stage that writes it (dvc repro)",
        )
    G = Generator(**{key: meta[key] for key in SHAPE})
    file = folder / f"generator{'-equal' if equal else ''}-s{seed}.safetensors"
    load_state(G, read_state(file), file)
    device = evaluation_device() if device is None else device
    G.eval().requires_grad_(False)
    G.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Reconstruction(meta, G, device)
