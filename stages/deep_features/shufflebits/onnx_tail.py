"""ShuffleBits at the end of an exported network: ONNX operators on unsigned words.

``torch.onnx.export`` cannot lower a view as another type, so the delta swaps are appended to the
exported model: BitCast (operator set 26), BitShift, BitwiseXor, BitwiseAnd. Needs the packages onnx
from 1.21 and, to run it, an onnxruntime that has BitCast; both are optional. Elsewhere view the
output on the host: ``arrays.encrypt_numpy``.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt32

from stages.common.errors import InputError
from stages.deep_features.shufflebits.arrays import check_words
from stages.deep_features.shufflebits.benes import shifts
from stages.deep_features.shufflebits.keys import BitKey

if TYPE_CHECKING:
    import onnx  # pyright: ignore[reportMissingImports]

OPSET = 26  # the first with BitCast
MASKS = "shufflebits_masks"  # the input that is the key
CIPHER = "shufflebits_cipher"  # the output
WIDTH = 32


def masks_for(key: BitKey) -> UInt32[np.ndarray, " stages"]:
    """Return the key as the model's input ``shufflebits_masks``; as secret as the key.

    Raises
    ------
    InputError
        If it is not of 32 bits.
    """
    check_words(WIDTH, key)
    return np.array(key.masks, np.uint32)


def with_tail(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a copy of the model whose one float32 output is encrypted.

    The key is an input, ``shufflebits_masks`` uint32 (9,), and so no part of the file; the output
    is ``shufflebits_cipher``, uint32 in the shape of the old one, which is none any more.

    Raises
    ------
    InputError
        If onnx is missing or has no BitCast, or the model has not one float32 output.
    """
    onnx = _onnx()
    new = onnx.ModelProto()
    new.CopyFrom(model)
    new = _upgraded(onnx, new)
    outputs = new.graph.output
    if len(outputs) != 1 or outputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise InputError(
            "the ONNX model",
            "cannot be encrypted",
            expected="one output of float32 features",
            found=f"{len(outputs)} outputs",
            remedy="export the network with its features as the only output",
        )
    plain, cipher = outputs[0].name, onnx.ValueInfoProto()
    cipher.CopyFrom(outputs[0])
    cipher.name = CIPHER
    cipher.type.tensor_type.elem_type = onnx.TensorProto.UINT32
    stages = shifts(WIDTH)
    helper, uint32 = onnx.helper, onnx.TensorProto.UINT32
    nodes, constants = _tail(onnx, plain)
    new.graph.node.extend(nodes)
    new.graph.initializer.extend(constants)
    new.graph.input.append(helper.make_tensor_value_info(MASKS, uint32, [len(stages)]))
    del outputs[:]
    outputs.append(cipher)
    onnx.checker.check_model(new)
    return new


def _tail(onnx: Any, plain: str) -> tuple[list, list]:
    """Return nodes and constants that turn tensor ``plain`` into ``shufflebits_cipher``."""
    helper, tensor, name = onnx.helper, onnx.numpy_helper.from_array, "shufflebits"
    nodes = [helper.make_node("BitCast", [plain], [f"{name}_0"], to=onnx.TensorProto.UINT32)]
    constants = []
    stages = shifts(WIDTH)
    for distance in sorted(set(stages)):
        constants.append(tensor(np.array(distance, np.uint32), f"{name}_by_{distance}"))
    for k, distance in enumerate(stages):
        old, by = f"{name}_{k}", f"{name}_by_{distance}"
        new = CIPHER if k == len(stages) - 1 else f"{name}_{k + 1}"
        down, differ, mask, swap, up, half = (
            f"{name}_{k}_{part}" for part in ("down", "differ", "mask", "swap", "up", "half")
        )
        constants.append(tensor(np.array(k, np.int64), f"{name}_{k}_number"))
        nodes += [
            helper.make_node("BitShift", [old, by], [down], direction="RIGHT"),
            helper.make_node("BitwiseXor", [down, old], [differ]),
            helper.make_node("Gather", [MASKS, f"{name}_{k}_number"], [mask]),
            helper.make_node("BitwiseAnd", [differ, mask], [swap]),
            helper.make_node("BitShift", [swap, by], [up], direction="LEFT"),
            helper.make_node("BitwiseXor", [old, swap], [half]),
            helper.make_node("BitwiseXor", [half, up], [new]),
        ]
    return nodes, constants


def _onnx() -> Any:
    """Import onnx, which is optional."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        found, cause = "not installed", error
    else:
        if onnx.defs.onnx_opset_version() >= OPSET:
            return onnx
        found, cause = f"operator set {onnx.defs.onnx_opset_version()}", None
    raise InputError(
        "the package onnx",
        "is needed for the tail",
        expected=f"operator set {OPSET}, onnx 1.21 or later",
        found=found,
        remedy="pip install 'onnx>=1.21' onnxruntime, or use arrays.encrypt_numpy on the host",
    ) from cause


def _upgraded(onnx: Any, model: Any) -> Any:
    """Return the model in an operator set that has BitCast."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if versions and versions[0] >= OPSET:
        return model
    return onnx.version_converter.convert_version(model, OPSET)
