"""VGG features at named layers: the convolutional part of Simonyan & Zisserman's networks.

"Very deep convolutional networks for large-scale image recognition", ICLR 2015, Table 1, columns
D (16) and E (19). Layers are called relu<block>_<conv>, both from 1. Images enter as floats in
[0, 1], RGB; what the weights were trained with (:class:`Preprocessing`) belongs to the weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from stages.common.errors import suggestion
from stages.common.networks.weight_files import load_state, read_keras_convs, read_state

WIDTHS = (64, 128, 256, 512, 512)
CONVS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions per block


class Preprocessing(NamedTuple):
    """(x * scale - mean) / std per channel, channels in the order of the weights."""

    bgr: bool
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


TORCHVISION = Preprocessing(False, 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Preprocessing(True, 255, (103.939, 116.779, 123.68), (1, 1, 1))  # as Keras has it


class VGG(nn.Module):
    """The 13 (VGG16) or 16 (VGG19) convolutions, frozen, randomly initialised until loaded.

    Parameters
    ----------
    depth : 16 or 19.
    preprocessing : what the weights expect.
    layers : what :meth:`features` returns unless told otherwise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int, preprocessing: Preprocessing, layers: Sequence[str]):
        super().__init__()
        self.bgr = preprocessing.bgr
        self.scale = preprocessing.scale
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)
        self.convs = nn.ModuleDict()
        c = 3
        for block, (count, width) in enumerate(zip(CONVS[depth], WIDTHS, strict=True), start=1):
            for i in range(1, count + 1):
                self.convs[f"conv{block}_{i}"] = nn.Conv2d(c, width, 3, padding=1)
                c = width
        self.layers = list(layers)
        self._check(self.layers)
        self.eval().requires_grad_(False)

    def _check(self, layers: Sequence[str]) -> None:
        known = [name.replace("conv", "relu") for name in self.convs]
        for layer in layers:
            if layer not in known:
                raise ValueError(f"VGG has no layer {layer!r}; {suggestion(layer, known)}")

    def features(
        self, rgb01: Float[Tensor, "n 3 h w"], layers: Sequence[str] | None = None
    ) -> list[Float[Tensor, "n _c _h _w"]]:
        """Return the activations after the ReLUs in ``layers``, in that order.

        Computes no further than the last of them. Gradients flow to the images.

        Raises
        ------
        ValueError
            If a layer is unknown; the nearest is suggested.
        """
        layers = self.layers if layers is None else layers
        self._check(layers)
        mean, std = (t.view(3, 1, 1) for t in (self.mean, self.std))
        x = ((rgb01.flip(1) if self.bgr else rgb01) * self.scale - mean) / std
        found = {}
        block = "1"
        for name, conv in self.convs.items():
            if name[4] != block:
                block, x = name[4], max_pool2d(x, 2)
            x = relu(conv(x))
            found[name.replace("conv", "relu")] = x
            if set(layers) <= set(found):
                break
        return [found[layer] for layer in layers]

    def load_keras(self, path: Path) -> None:
        """Take the weights of layers ``block<b>_conv<i>`` of a Keras file.

        Raises
        ------
        InputError
            If the file is missing, damaged or of another network.
        """
        names = {name: name.replace("conv", "block").replace("_", "_conv") for name in self.convs}
        arrays = read_keras_convs(path, list(names.values()))
        state = {}
        for name, keras in names.items():
            state[f"convs.{name}.weight"], state[f"convs.{name}.bias"] = arrays[keras]
        load_state(self, state, path)

    def load_torchvision(self, path: Path) -> None:
        """Take ``features.<k>.weight|bias`` of a torchvision state dict; its classifier is unused.

        Raises
        ------
        InputError
            If the file is missing, damaged or of another network.
        """
        state = {
            name: tensor
            for name, tensor in read_state(path).items()
            if not name.startswith("classifier.")
        }
        place, block, names = 0, "1", {}
        for name in self.convs:  # torchvision numbers conv, ReLU and pooling layers through
            if name[4] != block:
                block, place = name[4], place + 1
            for kind in ("weight", "bias"):
                names[f"features.{place}.{kind}"] = f"convs.{name}.{kind}"
            place += 2
        load_state(self, {names.get(k, k): v for k, v in state.items()}, path)
