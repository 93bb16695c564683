import sys

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.deep_features.shufflebits import onnx_tail
from stages.deep_features.shufflebits.arrays import encrypt_numpy
from stages.deep_features.shufflebits.keys import BitKey

KEY = BitKey.random(np.random.default_rng(0))
X = np.random.default_rng(1).standard_normal((7, 4)).astype(np.float32)


def negation(onnx, *, opset, outputs=("y",)):
    """A network that negates its float32 input of 4 columns."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shape = ["n", 4]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], [name]) for name in outputs],
        "negation",
        [helper.make_tensor_value_info("x", float32, shape)],
        [helper.make_tensor_value_info(name, float32, shape) for name in outputs],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.fixture
def onnx():
    package = pytest.importorskip("onnx", reason="onnx is not installed (optional)")
    if package.defs.onnx_opset_version() < onnx_tail.OPSET:
        pytest.skip(f"onnx has no operator set {onnx_tail.OPSET} (BitCast)")
    return package


@pytest.mark.parametrize("opset", [18, 26])
@pytest.mark.parametrize("key", [KEY, BitKey.rotation(5), BitKey.identity()], ids=repr)
def test_the_networks_output_is_the_cipher(onnx, opset, key):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (optional)")
    model = onnx_tail.with_tail(negation(onnx, opset=opset))
    try:
        session = ort.InferenceSession(model.SerializeToString())
    except Exception as error:
        if "BitCast" not in str(error):
            raise
        pytest.skip("this onnxruntime has no BitCast")
    x = np.concatenate([X, np.array([[np.inf, -0.0, np.nan, 1e-42]], np.float32)])
    (cipher,) = session.run(None, {"x": x, onnx_tail.MASKS: onnx_tail.masks_for(key)})
    np.testing.assert_array_equal(cipher, encrypt_numpy(-x, key))


def test_the_key_is_an_input_and_the_plain_features_no_output(onnx):
    before = negation(onnx, opset=26)
    model = onnx_tail.with_tail(before)
    assert [value.name for value in model.graph.output] == [onnx_tail.CIPHER]
    assert {value.name for value in model.graph.input} == {"x", onnx_tail.MASKS}
    assert [value.name for value in before.graph.output] == ["y"]


def test_two_outputs_are_refused(onnx):
    with pytest.raises(InputError, match="one output of float32 features, found 2"):
        onnx_tail.with_tail(negation(onnx, opset=26, outputs=("y", "z")))


def test_without_onnx_the_tail_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="onnx: is needed for the tail.*not installed"):
        onnx_tail.with_tail(object())


def test_keys_of_other_widths_are_refused():
    with pytest.raises(InputError, match="does not fit"):
        onnx_tail.masks_for(BitKey.identity(64))
    assert onnx_tail.masks_for(KEY).dtype == np.uint32
