"""phi of the feature reconstruction loss L_FR: a layer of a network trained on other images.

The authors take ResNet50's conv2_block3_out, which is torchvision's ``layer1``, with Keras' weights
and their "caffe" preprocessing. ``resnet50`` is that, from a weights file of the user's;
``hed`` and ``torchvision`` are VGG16 (stages/common/networks/vgg16.py), by default at relu2_2.
Never the black box itself: the adversary does not have it. Images may be averaged to fewer pixels
before phi (``phi_factor``), which takes most of the time on a CPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torchvision.models import resnet50

from stages.common.errors import InputError
from stages.common.networks.vgg import CAFFE, TORCHVISION
from stages.common.networks.vgg16 import load_vgg16
from stages.common.networks.weight_files import load_state, read_state

Phi = Literal["hed", "torchvision", "resnet50", "random"]
PhiLayer = Literal["relu1_2", "relu2_1", "relu2_2", "layer1"]
PhiPreprocessing = Literal["caffe", "torchvision"]
PREPROCESSING = {"caffe": CAFFE, "torchvision": TORCHVISION}
KEPT_BYTES = {"cpu": 2**29, "cuda": 2**34}  # at most, of features kept for a whole run
AT_ONCE = 64  # images in a pass over the training set


class ResNet50Layer1(nn.Module):
    """ResNet50 up to ``layer1`` after its last ReLU, frozen: (n, 3, h, w) -> (n, 256, h/4, w/4).

    Parameters
    ----------
    weights : torchvision's state dict; what comes after layer1 is not read.
    preprocessing : what the weights were trained with: ``caffe`` is Keras', 0..255, BGR, minus
        (103.939, 116.779, 123.68), no division.

    Raises
    ------
    InputError
        If the weights are missing, damaged or of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path, preprocessing: PhiPreprocessing):
        super().__init__()
        how = PREPROCESSING[preprocessing]
        self.bgr, self.scale = how.bgr, how.scale
        self.register_buffer("mean", torch.tensor(how.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(how.std).view(3, 1, 1), persistent=False)
        whole = resnet50(weights=None)
        parts = ("conv1", "bn1", "relu", "maxpool", "layer1")
        self.net = nn.ModuleDict({name: getattr(whole, name) for name in parts})
        state = {k: v for k, v in read_state(weights).items() if k.split(".")[0] in parts}
        load_state(self.net, state, weights)
        self.eval().requires_grad_(False)

    def forward(self, rgb01: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 256 p q"]:
        x = ((rgb01.flip(1) if self.bgr else rgb01) * self.scale - self.mean) / self.std
        for part in self.net.values():
            x = part(x)
        return x


def load_phi(
    kind: Phi,
    layer: PhiLayer,
    weights: str | None,
    preprocessing: PhiPreprocessing,
    factor: int,
    device: torch.device,
) -> Callable[[Tensor], Tensor]:
    """Return phi: (n, 3, h, w) in [0, 1] -> (n, c, p, q); gradients flow to the images only.

    Parameters
    ----------
    weights : path, for ``torchvision`` and ``resnet50``. ``random``, for tests only, is VGG16 with
        He's weights of seed 0.
    preprocessing : of ``resnet50``; VGG16's belongs to its weights.
    factor : the images' sides are divided by it first.

    Raises
    ------
    InputError
        If the weights are missing or damaged, or the network has no such layer.
    """
    if (layer == "layer1") != (kind == "resnet50") or (kind == "resnet50" and weights is None):
        raise InputError(
            "phi",
            "is not completely said",
            expected="relu1_2, relu2_1 or relu2_2 of VGG16, or layer1 of resnet50 and the path of"
            " its weights",
            found=f"phi {kind}, phi_layer {layer}, phi_weights {weights}",
            remedy="correct phi, phi_layer and phi_weights in params.yaml",
        )
    if kind == "resnet50":
        assert weights is not None
        net: nn.Module = ResNet50Layer1(Path(weights), preprocessing)
        features = net
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vgg = load_vgg16(kind, Path(weights) if weights else None, [layer])
            if kind == "random":
                for conv in vgg.convs.values():
                    assert isinstance(conv, nn.Conv2d)
                    nn.init.kaiming_normal_(conv.weight)
        net, features = vgg, lambda x: vgg.features(x)[0]
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def phi(images: Tensor) -> Tensor:
        return features(avg_pool2d(images, factor) if factor > 1 else images)

    return phi


class Perceptual:
    """phi, and its values on the training images: computed under ``autocast``, given in 32 bits.

    Parameters
    ----------
    images_at : indices -> training images (b, 3, h, w) in [0, 1], on the device.
    n : the number of training images.
    autocast : ``fabric.autocast``.

    The values on all training images are computed once and kept if they take at most 0.5 GiB (16
    GiB on a GPU), so that the result does not depend on what is free.
    """

    def __init__(
        self,
        phi: Callable[[Tensor], Tensor],
        images_at: Callable[[Tensor], Tensor],
        n: int,
        *,
        autocast: Callable[[], AbstractContextManager],
        device: torch.device,
    ):
        self._phi, self._images_at, self._autocast = phi, images_at, autocast
        self.kept: Tensor | None = None
        everything = torch.arange(n, device=device)
        with torch.no_grad():
            one = self(images_at(everything[:1]))
            if n * one.numel() * one.element_size() <= KEPT_BYTES[device.type]:
                parts = [self(images_at(part)) for part in everything.split(AT_ONCE)]
                self.kept = torch.cat(parts)

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c p q"]:
        """Return phi(images), with gradients."""
        with self._autocast():
            features = self._phi(images)
        return features.float()

    @torch.no_grad()
    def of(
        self, index: Int64[Tensor, " b"], x: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b c p q"]:
        """Return phi(x) of the training images ``index``, which are ``x``; no gradients."""
        return self(x) if self.kept is None else self.kept[index]
