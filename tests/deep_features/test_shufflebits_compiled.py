"""torch.compile of the modules, in a process of its own: pytest's checks of types break graphs."""

import contextlib
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import torch

from stages.deep_features.blackbox import build
from stages.deep_features.shufflebits import chacha20, graph
from stages.deep_features.shufflebits.chacha20 import XorStream
from stages.deep_features.shufflebits.keys import BitKey
from stages.deep_features.shufflebits.module import (
    INTEGERS,
    ShuffleBits,
    UnshuffleBits,
    mask_table,
)

CPU, KEY = torch.device("cpu"), BitKey.random(np.random.default_rng(0))
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8]


def values_of(dtype, rows, columns=250):
    content = np.random.default_rng(0).integers(0, 256, rows * columns * dtype.itemsize, np.uint8)
    return torch.from_numpy(content).view(dtype).view(rows, columns)


def tables(dtype):
    keys = [BitKey.random(np.random.default_rng(i), width=8 * dtype.itemsize) for i in range(4)]
    return [mask_table(*keys), mask_table(keys[0])[0]]


def one_graph(module, **settings):
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, **settings)


def every_type_is_one_graph_that_equals_eager():
    for dtype in DTYPES:
        x = values_of(dtype, 4)
        for masks in tables(dtype):
            cipher = one_graph(ShuffleBits(), backend="eager")(x, masks)
            assert torch.equal(cipher, ShuffleBits()(x, masks)), dtype
            back = one_graph(UnshuffleBits(dtype=dtype), backend="eager")(cipher, masks)
            assert torch.equal(back.view(INTEGERS[8 * dtype.itemsize]), x.view(cipher.dtype)), dtype


def the_graph_serves_every_key():
    counter = torch._dynamo.testing.CompileCounter()
    module = one_graph(ShuffleBits(), backend=counter)
    x = values_of(torch.float32, 4)
    for seed in range(3):
        masks = mask_table(BitKey.random(np.random.default_rng(seed)))[0]
        assert torch.equal(module(x, masks), ShuffleBits()(x, masks))
    assert counter.frame_count == 1, counter.frame_count


def a_network_ends_in_the_cipher():
    key = BitKey.random(np.random.default_rng(0))
    network = torch.nn.Sequential(torch.nn.Linear(5, 3), ShuffleBits(key))
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(one_graph(network, backend="eager")(x), network(x))


def the_key_stream_is_one_graph():
    chacha20.ROUNDS = 2  # the graph of 20 takes ten times as long
    module, x = XorStream(bytes(32), bytes(12)), values_of(torch.float32, 3)
    assert torch.equal(one_graph(module, backend="eager")(x), module(x))


def inductors_kernel_equals_eager():
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        print("not checked: no C++ compiler for Inductor")
        return
    x = values_of(torch.float32, 4, 251)  # not a multiple of a vector
    with torch._inductor.config.patch(cpp_cache_precompile_headers=False):
        masks = tables(torch.float32)[1]
        assert torch.equal(one_graph(ShuffleBits())(x, masks), ShuffleBits()(x, masks))


class Broken(torch.nn.Linear):
    """No one graph: it branches on what it computes."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else -y


def looked_at(*networks, backend="eager", seen=((3, 0), (3, 1))):
    """What ``look`` finds with a profiler that sees these kernels and copies; what it prints."""
    turns = iter(seen)

    def watch(call, device):
        call()
        return next(turns)

    graph.watch, text = watch, io.StringIO()
    with contextlib.redirect_stdout(text):
        found = graph.look(list(networks), KEY, CPU, backend=backend)
    return found, text.getvalue()


def what_the_stage_looks_at_is_found():
    found, said = looked_at(graph.linear(CPU))
    expected = {"device": "cpu", "network": "linear layer", "fullgraph": True}
    assert found == expected | {"copies_to_host": 0, "wrong_bits": 0} and not said
    assert looked_at(graph.linear(CPU), seen=[(3, 2), (3, 3)])[0]["copies_to_host"] == 2


def a_black_box_is_looked_at_if_it_is_one_graph():
    whole = {
        "net": "mini", "ids": 3, "mini_width": 8, "non_local": True, "non_local_width": 1,
        "pool": "gem_p", "classifier": "circle",
    }  # fmt: skip
    net = build(whole).eval().requires_grad_(False)
    found, _ = looked_at(("sbs", net, torch.rand(2, 3, 32, 16)), graph.linear(CPU))
    assert found["network"] == "sbs" and found["fullgraph"] and found["wrong_bits"] == 0
    broken = ("broken", Broken(4, 5).requires_grad_(False), torch.randn(2, 4))
    found, _ = looked_at(broken, graph.linear(CPU))
    assert found["network"] == "linear layer" and found["fullgraph"]
    found, _ = looked_at(broken)
    assert found["network"] == "broken" and not found["fullgraph"] and found["wrong_bits"] == 0


def wrong_bits_are_counted_on_the_features_that_came_with_the_ciphertext():
    def flips_a_bit(model, example):
        def call(*inputs):
            features, cipher = model(*inputs)
            return features + 1, cipher  # as a compiled product's last bits may differ

        return call

    assert looked_at(graph.linear(CPU), backend=flips_a_bit)[0]["wrong_bits"] > 0


def a_blind_profiler_is_no_evidence():
    for seen in ([(0, 0), (0, 1)], [(3, 0), (3, 0)], [(0, 0), (0, 0)]):
        found, said = looked_at(graph.linear(CPU), seen=seen)
        assert found is None and said.count("\n") == 1 and "the profiler saw" in said, said


def a_broken_compiler_is_one_line():
    def no_compiler(model, example):
        raise RuntimeError("cannot find\nTriton")

    found, said = looked_at(graph.linear(CPU), backend=no_compiler)
    assert found is None and said.count("\n") == 1 and "a compiler failed on the linear" in said


CHECKS = [
    what_the_stage_looks_at_is_found,
    a_black_box_is_looked_at_if_it_is_one_graph,
    wrong_bits_are_counted_on_the_features_that_came_with_the_ciphertext,
    a_blind_profiler_is_no_evidence,
    a_broken_compiler_is_one_line,
    every_type_is_one_graph_that_equals_eager,
    the_graph_serves_every_key,
    a_network_ends_in_the_cipher,
    the_key_stream_is_one_graph,
    inductors_kernel_equals_eager,
]


def test_the_modules_compile_to_one_graph_that_equals_eager():
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("ok ")] == [
        f"ok {check.__name__}" for check in CHECKS
    ]


if __name__ == "__main__":
    for check in CHECKS:
        check()
        print("ok", check.__name__, flush=True)
