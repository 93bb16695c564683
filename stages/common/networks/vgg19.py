"""VGG19 features, the paper D's perceptual metric; the weights are always the user's.

``keras``: Keras' ``vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5`` (Oxford VGG, CC BY 4.0), on
which the paper's absolute numbers rest. ``torchvision``: VGG19_Weights.IMAGENET1K_V1 (.pth), other
weights and another scale of the input, so only for comparing variants. ``random``: unit tests.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stages.common.errors import InputError
from stages.common.networks.vgg import CAFFE, TORCHVISION, VGG

VGG19Weights = Literal["keras", "torchvision", "random"]


def load_vgg19(
    weights: VGG19Weights,
    path: Path | None,
    layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
) -> VGG:
    """Return VGG19 with the weights in the file ``path``; ``random`` takes torch's current seed.

    Raises
    ------
    InputError
        If the file is not given, missing, damaged or of another network.
    """
    net = VGG(19, CAFFE if weights == "keras" else TORCHVISION, layers)
    if weights == "random":
        return net
    if path is None:
        raise InputError(
            "vgg19",
            "lacks its weights",
            expected=f"the path of the {weights} file",
            found="none",
            remedy="set perc_weights to the file, or perc_backbone to efflite0",
        )
    if weights == "keras":
        net.load_keras(path)
    else:
        net.load_torchvision(path)
    return net
