"""Nanoseconds a float and GB/s of ShuffleBits, one core and, if there is one, a GPU.

``make bench`` takes the shipped ways from here; ``python tests/benchmarks/shufflebits.py`` measures
all, in three minutes, and writes reports/bench/shufflebits.json. There all ways take turns in one
process; quote the median of the ratios: single times are noise on a shared machine. Of one core the
seconds are those the thread had it, so that other programs' turns do not count (what they do to the
caches does); of a GPU those of the clock. A float is 4 bytes read and 4 written: GB/s counts 8.
AES-CTR, ChaCha20 and "native" write into memory that exists already, as the copy does; "alloc"
makes the result's array anew, as a caller sees it. A key's set-up is inside the time of every way;
only its masks are routed once. Fused: what torch.compile makes. Native: ``native.c``.
"""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import cryptography
import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR
from timing import Settings, Way, compare

from stages.common.files import write_json
from stages.deep_features.shufflebits import native
from stages.deep_features.shufflebits.arrays import permute
from stages.deep_features.shufflebits.chacha20 import XorStream
from stages.deep_features.shufflebits.implementations import IMPLEMENTATIONS
from stages.deep_features.shufflebits.keys import BitKey
from stages.deep_features.shufflebits.module import ShuffleBits

ROUNDS, SLOW_ROUNDS = 41, 5
N, N_REQUEST, N_GPU = 1 << 20, 2048, 1 << 28  # floats; a request is one feature vector
FEW = 1 << 16  # floats for the first call and the check of equality
BYTES = 8  # moved for a float
SECRET = bytes(range(32))
REFERENCES = ("copy", "aes128_ctr")
NO_COMPILER = "no C++ compiler here: torch.compile has nothing to compile with"


def core_seconds(function):
    start = time.thread_time()
    function()
    return time.thread_time() - start


def gpu_seconds(function):
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(cases, n, *, rounds, seconds=core_seconds):
    """Run the cases in turn; times, rates, and ratios to the references of the same round."""
    times = {name: [] for name in cases}
    for _ in range(rounds):
        for name, function in cases.items():
            function()  # so that each finds the caches as it leaves them, not as the last one did
            times[name].append(seconds(function))
    results = {}
    for name, taken in times.items():
        middle = statistics.median(taken)
        results[name] = {
            "ns_per_float": middle / n * 1e9,
            "ns_per_float_range": [min(taken) / n * 1e9, max(taken) / n * 1e9],
            "GB_per_s": BYTES * n / middle / 1e9,
        }
        for reference in (r for r in REFERENCES if r in times and r != name):
            ratios = [b / a for a, b in zip(taken, times[reference], strict=True)]
            results[name][f"times_as_fast_as_{reference}"] = statistics.median(ratios)
            results[name][f"times_as_fast_as_{reference}_range"] = [min(ratios), max(ratios)]
        print(f"{name}: {results[name]['ns_per_float']:.3f} ns a float", flush=True)
    return results


def conventional(words, out):
    """The stream ciphers of cryptography, into ``out``, and as bytes made anew."""
    plain, target = words.view(np.uint8).data, out.view(np.uint8).data

    def aes(size):
        return Cipher(AES(SECRET[:size]), CTR(bytes(16))).encryptor()

    def chacha20():
        return Cipher(ChaCha20(SECRET, bytes(16)), mode=None).encryptor()

    return {
        "copy": lambda: np.copyto(out, words),
        "copy_alloc": lambda: words.copy(),
        "aes128_ctr": lambda: aes(16).update_into(plain, target),
        "aes256_ctr": lambda: aes(32).update_into(plain, target),
        "aes128_ctr_alloc": lambda: aes(16).update(plain),
        "chacha20": lambda: chacha20().update_into(plain, target),
    }


def on_numpy(words, out, key):
    cases = {f"numpy_{name}": (lambda f=f: f(words, key)) for name, f in IMPLEMENTATIONS.items()}
    cases["numpy_benes_blocked"] = lambda: permute(words, key)
    if native.compiler() is not None:
        np.testing.assert_array_equal(native.permute(words[:FEW], key), permute(words[:FEW], key))
        cases["native"] = lambda: native.permute(words, key, out=out)
        cases["native_alloc"] = lambda: native.permute(words, key)
    return cases


def on_torch(x, key, *, fuse):
    """Eager forms, XorStream, and what torch.compile makes of ShuffleBits; seconds to compile."""
    words, device = x.view(torch.int32), x.device
    module, stream = (m.to(device) for m in (ShuffleBits(key), XorStream(SECRET, bytes(12))))
    cases = {
        f"torch_{name}": (lambda f=f: f(words, key))
        for name, f in IMPLEMENTATIONS.items()
        if name != "benes"
    }
    cases |= {"torch_benes": lambda: module(x), "torch_xor_stream": lambda: stream(x)}
    compile_s = {}
    if fuse:
        modules = {"shufflebits": module} | ({"xor_stream": stream} if x.is_cuda else {})
        for name, plain in modules.items():
            start = time.perf_counter()
            fused = torch.compile(plain, fullgraph=True, dynamic=False)
            assert torch.equal(fused(x), plain(x))
            compile_s[name] = time.perf_counter() - start
            cases[f"torch_fused_{name}"] = lambda fused=fused: fused(x)
    return cases, compile_s


def in_blocks(x, key, size):
    """ShuffleBits, eager, on pieces that stay in a core's cache."""
    module = ShuffleBits(key)
    out = torch.empty_like(x, dtype=torch.int32)

    def blocked():
        for piece, target in zip(x.split(size), out.split(size), strict=True):
            target.copy_(module(piece))

    return blocked


def can_fuse():
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def on_one_core(key):
    words = np.random.default_rng(0).standard_normal(N).astype(np.float32).view(np.uint32)
    out = np.zeros_like(words)
    x = torch.from_numpy(words.view(np.float32))
    torch_cases, compile_s = on_torch(x, key, fuse=can_fuse())
    torch_cases["torch_benes_blocked"] = in_blocks(x, key, 1 << 14)
    cases = conventional(words, out) | on_numpy(words, out, key) | torch_cases
    fast = [n for n in cases if n.startswith(("copy", "aes", "chacha", "native", "torch_fused"))]
    results = {
        "bulk": measure({n: cases[n] for n in fast}, N, rounds=ROUNDS),
        "bulk_slow": measure(
            {n: f for n, f in cases.items() if n in REFERENCES or n not in fast},
            N,
            rounds=SLOW_ROUNDS,
        ),
    }
    few, target = words[:N_REQUEST].copy(), out[:N_REQUEST].copy()
    small = conventional(few, target) | on_numpy(few, target, key)
    results["one_request"] = measure(small, N_REQUEST, rounds=5 * ROUNDS)
    return results, compile_s


def on_a_gpu(key):
    x = torch.randn(N_GPU, device="cuda")
    out = torch.empty_like(x)
    cases, compile_s = on_torch(x, key, fuse=True)
    quick = {
        n: cases[n] for n in ("torch_benes", "torch_fused_shufflebits", "torch_fused_xor_stream")
    }
    cases = {"copy": lambda: out.copy_(x), **quick}
    return measure(cases, N_GPU, rounds=ROUNDS, seconds=gpu_seconds), compile_s


def shufflebits(settings: Settings, peak: Mapping) -> dict[str, dict]:
    """Permute the bits of many floats, and of one request, by the ways that are used."""
    torch.set_num_threads(1)
    n, few = settings.sized(N, FEW), N_REQUEST
    key = BitKey.random(np.random.default_rng(0))
    words = np.random.default_rng(0).standard_normal(n).astype(np.float32).view(np.uint32)
    out, module = np.zeros_like(words), ShuffleBits(key)
    x = torch.from_numpy(words.view(np.float32))

    def entry(floats, what, *, module_too):
        part, target, tensor = words[:floats].copy(), out[:floats].copy(), x[:floats].clone()
        numpy = on_numpy(part, target, key)
        names = ["native"] if "native" in numpy else []
        calls = {name: numpy[name] for name in [*names, "numpy_benes_blocked", "numpy_naive"]}
        if module_too:
            calls["torch_benes"] = lambda: module(tensor)
        references = conventional(part, target)
        calls |= {name: references[name] for name in ("aes128_ctr", "chacha20", "copy")}
        ways = {name: Way(lambda f=f: f, WORDS.get(name, name)) for name, f in calls.items()}
        against = ("aes128_ctr", "copy", "numpy_naive")
        how = {"against": against, "moved": BYTES * floats, "peak": peak, "floats": floats}
        return compare(ways, settings, what=f"paper C: ShuffleBits, {what}", **how)

    found = {
        "shufflebits_bulk": entry(n, f"{n} floats on one core", module_too=True),
        "shufflebits_request": entry(few, f"one vector of {few} floats", module_too=False),
    }
    if settings.device == "cuda":
        found["shufflebits_gpu"] = on_the_gpu(key, settings, peak)
    return found


WORDS = {
    "native": "the shipped C, compiled here",
    "numpy_benes_blocked": "the shipped NumPy",
    "numpy_naive": "bit by bit, NumPy",
    "torch_benes": "the module, eager",
    "aes128_ctr": "cryptography",
    "chacha20": "cryptography",
    "copy": "into memory that exists",
}


def on_the_gpu(key, settings, peak):
    n = settings.sized(N_GPU, 1 << 20)
    x = torch.randn(n, device="cuda")
    out, module = torch.empty_like(x), ShuffleBits(key).to("cuda")
    fused = torch.compile(module, fullgraph=True, dynamic=False)
    assert torch.equal(fused(x), module(x))
    ways = {
        "torch_fused": Way(lambda: lambda: fused(x), "the module by torch.compile"),
        "torch_benes": Way(lambda: lambda: module(x), "the module, eager"),
        "copy": Way(lambda: lambda: out.copy_(x), "into memory that exists"),
    }
    what = f"paper C: ShuffleBits, {n} floats on the GPU"
    how = {"moved": BYTES * n, "peak": peak, "floats": n}
    return compare(ways, settings, what=what, against=("copy", "torch_benes"), **how)


ITEMS = {"shufflebits": shufflebits}


def main():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    key = BitKey.random(np.random.default_rng(0))
    core, compile_s = on_one_core(key)
    has_gpu = torch.cuda.is_available()
    gpu, gpu_compile_s = on_a_gpu(key) if has_gpu else (None, None)
    write_json(
        Path("reports/bench/shufflebits.json"),
        {
            "what": f"permute the bits of {N} floats on one core ({N_REQUEST}: one request)"
            f"{f', of {N_GPU} on the GPU' if has_gpu else ''}; {ROUNDS} rounds in turn, the slow "
            f"{SLOW_ROUNDS}, a request {5 * ROUNDS}",
            "machine": platform.machine(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "load_before": load,  # of other programs
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "cryptography": cryptography.__version__,
            "c_compiler": Path(native.compiler() or "none").name,
            "fused": "by Inductor" if can_fuse() else NO_COMPILER,
            "compile_s": compile_s,
            "one_core": core,
            "gpu": torch.cuda.get_device_name() if has_gpu else "none here: not measured",
            "on_gpu": gpu,
            "gpu_compile_s": gpu_compile_s,
        },
    )


if __name__ == "__main__":
    main()
