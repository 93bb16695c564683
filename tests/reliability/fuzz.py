"""Feed every reader and parser with damaged and odd input for a while; not run by pytest.

    python tests/reliability/fuzz.py --minutes 10 --seed 0

Each target is a function that may return or raise InputError in one line; any other exception, an
unclear sentence, or more than ``SLOW`` seconds of work is a failure, which is printed with its
smallest input. Inputs are drawn by hypothesis: valid files with bytes changed, and values of odd
types and sizes. Writes reports/reliability/fuzz.json: executions, failures and seconds of each
target.
"""

import argparse
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from scipy.io import savemat

from stages.colourisation.histories import read_history
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json
from stages.common.networks.weight_files import load_state, read_state
from stages.common.params import (
    Decay,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    load_params,
    stage_params,
)
from stages.common.render import _check as check_notebook
from stages.data import fingerprint
from stages.data.embedded import read_split
from stages.data.folder import cluster_numbers, list_images, quick_summary, select
from stages.data.photo import read_photo
from stages.data.reid import ReidFolder, read_csv, read_mat
from stages.deep_features.break_shufflebits import read_ciphertext, read_reference
from stages.deep_features.shufflebits.keys import BitKey, RequestRegister
from stages.gan_transform.schemes import KINDS, SPLITS, parse_scheme, read_keys
from stages.scoreboard.verdicts import judgements
from stages.sift_inversion import keypoints
from stages.sift_inversion.models import read_meta

OUT = Path("reports/reliability/fuzz.json")
SLOW = 20.0  # seconds of the processor, for one execution
STUCK = 600.0  # seconds of the clock
ROUND = 50  # executions between two looks at the clock
MEMORY_BYTES = 16 * 2**30  # address space; more is a MemoryError
SENTENCE = re.compile(r"[^\n]+: [^\n]+: expected [^\n]+, found [^\n]+; [^\n]+")


class TooSlowError(BaseException):
    """One execution took longer than ``SLOW`` or ``STUCK``; no reader catches it."""


# ---------------------------------------------------------------- what is drawn

NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, 10**30, 1e308, -0.0, 0.5, float("nan"), float("inf")]
WORDS = [
    "",
    "a",
    "\n",
    "\x00",
    "\ud800",
    "é",
    "x" * 5000,
    "../x",
    "(",
    "None",
    "1e400",
    "ONE\r\nTWO",
]
scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw, whole: list[bytes]) -> bytes:
    """Draw one of ``whole`` with some of its bytes cut, changed, added, removed or repeated."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        size = len(content)
        at = draw(st.integers(0, size))
        kind = draw(st.sampled_from(["cut", "flip", "write", "add", "remove", "repeat"]))
        if kind == "cut":
            del content[at:]
        elif kind == "flip" and at < size:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            content[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "add":
            content[at:at] = draw(st.binary(max_size=16))
        elif kind == "remove":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "repeat":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
    return bytes(content)


@st.composite
def edited(draw, whole: list[dict]) -> dict:
    """Draw one of ``whole`` with some values, at any depth, replaced, removed or added."""
    content = json.loads(json.dumps(draw(st.sampled_from(whole))))
    for _ in range(draw(st.integers(1, 3))):
        here: Any = content
        while isinstance(here, dict) and here:
            key = draw(st.sampled_from(sorted(here)))
            deeper = isinstance(here[key], dict) and here[key] and draw(st.booleans())
            if deeper:
                here = here[key]
                continue
            action = draw(st.sampled_from(["replace", "remove", "rename", "add"]))
            if action == "replace":
                here[key] = draw(values)
            elif action == "add":
                here[draw(st.text(max_size=8))] = draw(values)
            else:
                value = here.pop(key)
                if action == "rename":
                    here[draw(st.text(max_size=8))] = value
            break
    return content


def dumped(value: Any) -> str:
    """Write any value as JSON; lone surrogates as escapes."""
    return json.dumps(value)


# ---------------------------------------------------------------- targets

Target = tuple[st.SearchStrategy, Callable[[Path, Any], object]]
TARGETS: dict[str, Target] = {}


def target(strategy: st.SearchStrategy):
    """Put a function of (working folder, what was drawn) into the table."""

    def add(function):
        TARGETS[function.__name__] = strategy, function
        return function

    return add


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    path.write_bytes(data)
    return path


def demo(
    *,
    size: PositiveInt,
    lr: PositiveFloat,
    beta: Decay,
    share: Fraction,
    seeds: list[NonNegativeInt],
    cells: list[list[str]],
    name: str | None,
    flip: bool,
    schemes: dict,
):
    """Stand in for a stage with a parameter of every type."""


DEMO = {
    "profile": "small",
    "profiles": {"small": {"demo": {"shared": {"seeds": [0, 1]}, "train": {"size": 32}}}},
    "demo": {
        "shared": {"share": 0.5},
        "train": {"lr": 1e-3, "beta": 0.5, "cells": [["a", "b"]], "flip": False, "schemes": {}},
        "variants": {"one": {"name": "x"}, "two": {"name": None}},
    },
}
YAML_WORDS = [
    "&a ", "*a", "<<: *a", "!!int ", "!!python/object:os.system ", "? ", "- ", ": ", "#", "|\n",
    ">\n", "\t", "{", "}", "[", "]", "'", '"', "---\n", "...\n", "%YAML 1.1\n", "0x" + "F" * 5000,
    "9" * 5000, "2020-13-45", "1:2:3", ".nan", "0o9", "\ufeff", "\x85", "~", "@", "`",
]  # fmt: skip


@target(
    st.text()
    | st.binary()
    | st.lists(st.sampled_from(YAML_WORDS) | st.text(max_size=4), max_size=12).map("".join)
)
def params_file(folder: Path, content: str | bytes) -> None:
    load_params(write(folder / "params.yaml", content))


@target(st.tuples(edited([DEMO]).map(dumped), st.sampled_from(["one", "two", "", "a.b", "\n"])))
def params_values(folder: Path, drawn: tuple[str, str]) -> None:
    path = write(folder / "params.yaml", drawn[0])
    stage_params(demo, "demo.train", profile="small", variant=drawn[1], path=path)


@target(damaged([dumped(DEMO).encode(), dumped(DEMO).replace(", ", ",\n ").encode()]))
def params_bytes(folder: Path, content: bytes) -> None:
    path = write(folder / "params.yaml", content)
    stage_params(demo, "demo.train", profile="small", variant="one", path=path)


HASH = "0" * 64
PRINTS = [
    {"kind": "embedded", "seed": 0, "splits": {"train": {"arrays": {"images": HASH}}}},
    {
        "kind": "folder", "group": "^a", "attribution": "", "count": 1, "bytes": 2,
        "listing_sha256": HASH, "sha256": HASH,
        "splits": {"all": {"sha256": HASH, "classes": {"all": 1}, "count": 1, "bytes": 2}},
    },
]  # fmt: skip


@target(edited(PRINTS).map(dumped) | values.map(dumped))
def fingerprints(folder: Path, content: str) -> None:
    path = write(folder / "odd.json", content)
    before, fingerprint.FINGERPRINTS = fingerprint.FINGERPRINTS, folder
    try:
        found = fingerprint.read_fingerprint(path.stem)
        if found["kind"] == "folder":
            select("odd", folder, [], "all", found)
            cluster_numbers([], found["group"])
    finally:
        fingerprint.FINGERPRINTS = before


odd_arrays = st.tuples(
    st.sampled_from(["u1", "i8", "f4", "?", "<U2", "c16", ">u2", "i4"]),
    st.lists(st.integers(0, 4), max_size=4).map(tuple)
    | st.sampled_from([(96,), (16,), (1,), (1, 4, 4, 3)]),
    st.integers(0, 255),
).map(lambda drawn: np.full(drawn[1], drawn[2]).astype(drawn[0]))
EMBEDDED = ("encoded", "ends", "labels", "groups", "classes")


@target(st.dictionaries(st.sampled_from(EMBEDDED), odd_arrays, min_size=4))
def embedded_sets(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    hashes = {"arrays": dict.fromkeys(("images", "labels", "groups"), HASH)}
    (folder / "odd").mkdir(exist_ok=True)
    np.savez(folder / "odd/train.npz", **arrays)
    read_split("odd", "train", {"splits": {"train": hashes}}, size=8, root=folder)


@target(st.binary() | st.text() | values.map(dumped) | damaged([dumped(DEMO).encode()]))
def json_files(folder: Path, content: str | bytes) -> None:
    read_json(write(folder / "a.json", content))["key"]


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    stored = io.BytesIO()
    np.savez(stored, **arrays)
    return file.getvalue() if len(arrays) > 1 else stored.getvalue()


def _npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


NPZ = [
    _npz(images=np.zeros((2, 4, 4, 3), np.uint8)),
    _npz(images=np.zeros((1, 4, 4, 3), np.uint8), labels=np.arange(1)),
]
NPY = [
    _npy(np.zeros((3, 128), np.uint8)),
    _npy(np.arange(5)),
    _npy(np.ones((20, 8), np.float32)),
    _npy(np.ones((2, 8), np.uint32)),
    _npy(np.array([{}], object), pickled=True),
]


@target(damaged(NPZ) | st.binary())
def npz_files(folder: Path, content: bytes) -> None:
    read_npz(write(folder / "a.npz", content))["images"]


@target(st.tuples(damaged(NPY) | st.binary(), st.sampled_from(sorted(keypoints.ARRAYS))))
def keypoint_arrays(folder: Path, drawn: tuple[bytes, str]) -> None:
    write(folder / f"{drawn[1]}.npy", drawn[0])
    keypoints.read_array(folder, drawn[1])


@target(damaged(NPY) | st.binary())
def requests(folder: Path, content: bytes) -> None:
    path = write(folder / "a.npy", content)
    for read in (read_reference, read_ciphertext):
        try:
            read(path)
        except InputError as error:
            last = error
        else:
            return
    raise last


def _images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    image, made = Image.fromarray(pixels), []
    for mode, kind, how in (
        ("RGB", "PNG", {}), ("L", "PNG", {}), ("P", "PNG", {"transparency": 0}),
        ("RGBA", "PNG", {}), ("LA", "PNG", {}), ("1", "PNG", {}), ("I;16", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("L", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("RGB", "JPEG", {"quality": 5}),
    ):  # fmt: skip
        file = io.BytesIO()
        image.convert(mode).save(file, kind, **how)
        made.append(file.getvalue())
    return made


@target(st.tuples(damaged(_images()) | st.binary(), st.booleans(), st.sampled_from([1, 8, 33])))
def photographs(folder: Path, drawn: tuple[bytes, bool, int]) -> None:
    content, flag, size = drawn
    read_photo(write(folder / "a.png", content), size=size, crop=flag, cmyk=flag)


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder


odd_names = st.one_of(
    st.text(max_size=24),
    st.from_regex(r"-?\d{1,6}_c\d{1,3}s\d_\d+_\d+\.(jpg|PNG)?", fullmatch=True),
    st.from_regex(r"\d{4}_c\d_f\d+\.jpg", fullmatch=True),
    st.binary(max_size=24),
).map(lambda name: name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass"))


def _file(name: bytes) -> bytes:
    """Return a name that a file system takes."""
    return name.replace(b"/", b"_").replace(b"\0", b"_")[:250] + b".jpg"


@target(st.tuples(st.sampled_from(["market", "duke"]), st.lists(odd_names, min_size=1, max_size=4)))
def people_names(folder: Path, drawn: tuple[str, list[bytes]]) -> None:
    with emptied(folder / "people") as root:
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            (root / part).mkdir()
            for name in drawn[1]:
                with open(os.fsencode(root / part) + b"/" + _file(name), "wb"):
                    pass
        people = ReidFolder(drawn[0], root)
        for split in ("train", "test"):
            np.array([crop.pid for crop in people.crops(split)[0]], np.int64)


@target(
    st.lists(
        st.text(max_size=40) | st.from_regex(r"\d{4}/\d{4}_\d{3}_\d\d_x\.jpg \d+"), max_size=4
    ).map("\n".join)
    | st.binary(max_size=80)
)
def people_lists(folder: Path, content: str | bytes) -> None:
    with emptied(folder / "people") as root:
        (root / "train").mkdir()
        write(root / "list_train.txt", content)
        crops, _ = ReidFolder("msmt17", root).crops("train")
        np.array([crop.pid for crop in crops], np.int64)


@target(
    st.lists(st.tuples(odd_names, st.sampled_from(["file", "folder", "link", "loop"])), max_size=4)
)
def image_folders(folder: Path, drawn: list[tuple[bytes, str]]) -> None:
    with emptied(folder / "images") as root:
        for name, kind in drawn:
            path = os.fsencode(root) + b"/" + _file(name)
            if os.path.lexists(path):
                continue
            if kind == "folder":
                os.mkdir(path[:-4] or b"x") if not os.path.lexists(path[:-4]) else None
            elif kind == "link":
                os.symlink(b"absent", path)
            elif kind == "loop":
                os.symlink(path, path)
            else:
                write(Path(os.fsdecode(path)), b"x")
        quick_summary(list_images(root))


@target(st.text() | st.binary() | damaged([b"identity,hat,up\n1,2,yes\n2,1,no\n"]))
def attributes_csv(folder: Path, content: str | bytes) -> None:
    read_csv(write(folder / "a.csv", content), {"hat": ["no", "yes"]})


def _mat() -> bytes:
    file = io.BytesIO()
    part = {"image_index": np.array(["0001", "0002"], object), "hat": np.array([1, 2])}
    savemat(file, {"market_attribute": {"train": part, "test": part}})
    return file.getvalue()


@target(damaged([_mat()]))
def attributes_mat(folder: Path, content: bytes) -> None:
    read_mat(write(folder / "a.mat", content), {"hat": ["no", "yes"]})


@target(damaged([BitKey.identity(w).to_bytes() for w in (8, 16, 32, 64)]) | st.binary())
def key_files(_: Path, content: bytes) -> None:
    key = BitKey.from_bytes(content)
    assert key.to_bytes() == content


@target(st.tuples(st.binary(max_size=40), st.sampled_from([0, 8, 16, 32, 64, 7])))
def key_ranks(_: Path, drawn: tuple[bytes, int]) -> None:
    key = BitKey.from_lehmer(*drawn)
    assert key.to_lehmer() == drawn[0]


@target(st.lists(st.sampled_from(range(-1, 33)) | scalars, max_size=40) | st.permutations(range(8)))
def key_lists(_: Path, perm: list) -> None:
    assert sorted(BitKey(perm).perm.tolist()) == list(range(len(perm)))


@target(edited([{"register": "shufflebits-v1", "claimed": [HASH]}]).map(dumped) | st.binary())
def key_registers(folder: Path, content: str | bytes) -> None:
    RequestRegister(write(folder / "r.json", content)).claim("x")


SCHEMES = [
    {"cipher": "pe", "keys": "same", "shuffle": True, "augment": ["server", "none"]},
    {"cipher": "blur", "sigma": 3.0},
    {"cipher": "random_sign", "epsilon": 64},
    {"cipher": "transform", "variant": "proposed"},
]


@target(edited(SCHEMES) | values)
def cipher_schemes(_: Path, line: Any) -> None:
    parse_scheme("odd", line)


KEYS = st.sampled_from(["key", *(f"bits_{split}" for split in SPLITS)])


@target(st.tuples(st.sampled_from(KINDS), st.dictionaries(KEYS, odd_arrays)))
def cipher_keys(folder: Path, drawn: tuple[str, dict[str, np.ndarray]]) -> None:
    line = {"cipher": drawn[0], "keys": "same", "variant": "x", "sigma": 1, "epsilon": 1}
    np.savez(folder / "key.npz", **drawn[1])
    read_keys(folder / "key.npz", parse_scheme("s", line))


def _torch(kind: Callable[..., object]) -> bytes:
    file = io.BytesIO()
    kind(torch.nn.Linear(2, 2).state_dict(), file)
    return file.getvalue()


def _legacy(state: object, file: io.BytesIO) -> None:
    torch.save(state, file, _use_new_zipfile_serialization=False)


SAFE = save(torch.nn.Linear(2, 2).state_dict())
WEIGHTS = {".safetensors": [SAFE], ".pt": [_torch(torch.save), _torch(_legacy)]}


@target(
    st.sampled_from(sorted(WEIGHTS)).flatmap(
        lambda end: st.tuples(st.just(end), damaged(WEIGHTS[end]) | st.binary())
    )
)
def weights(folder: Path, drawn: tuple[str, bytes]) -> None:
    path = write(folder / f"w{drawn[0]}", drawn[1])
    load_state(torch.nn.Linear(2, 2), read_state(path), path)


META = [
    {"net": "R", "inputs": [4, 2], "size": 32, "width": 0.1, "channels": 128, "desc_norm": "unit"}
]


@target(edited(META).map(dumped))
def run_meta(folder: Path, content: str) -> None:
    write(folder / "meta.json", content)
    read_meta(folder)


HISTORY = [
    {
        "steps": 2,
        "log": [{"step": 1, "epoch": 0.5, "l1": 3.0}, {"step": 2, "epoch": 1.0, "l1": None}],
        "epochs": [{"epoch": 1.0, "l1_train": 2.0, "l1_val": 2.5}],
    }
]


@target(edited(HISTORY).map(dumped))
def histories(folder: Path, content: str) -> None:
    read_history(write(folder / "history-s0.json", content))


DETAILS = [
    {"details": [{"id": "C1", "verdict": "supported", "effect": 0.1, "lo": None, "hi": 1}]},
    {"details": {}, "verdicts": {"C1": "supported"}},
]


@target(edited(DETAILS).map(dumped) | values.map(dumped))
def results(folder: Path, content: str) -> None:
    judgements(write(folder / "claims.json", content))


def _notebook() -> dict:
    cell = nbformat.v4.new_code_cell('profile = "x"', id="given")
    cell.metadata["tags"] = ["parameters"]
    return json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))


@target(edited([_notebook()]).map(dumped) | damaged([dumped(_notebook()).encode()]))
def notebooks(folder: Path, content: str | bytes) -> None:
    check_notebook(write(folder / "n.ipynb", content), {"profile": "smoke"})


# ---------------------------------------------------------------- the run


def _stop(*_: object) -> None:
    raise TooSlowError(f"more than {SLOW:g} s of work, or {STUCK:g} s of waiting")


def _watch(work: float, clock: float) -> None:
    """Stop what runs after so many seconds; 0: let it run."""
    signal.setitimer(signal.ITIMER_PROF, work)
    signal.setitimer(signal.ITIMER_REAL, clock)


class Tally:
    """Counts one target's executions, and keeps the smallest input of each kind of failure."""

    def __init__(self, name: str, function: Callable[[Path, Any], object], folder: Path):
        self.name, self.function, self.folder = name, function, folder
        self.executions = 0
        self.failures = 0
        self.found: dict[str, str] = {}

    def __call__(self, drawn: Any) -> None:
        self.executions += 1
        _watch(SLOW, STUCK)
        try:
            self.function(self.folder, drawn)
            return
        except InputError as error:
            if SENTENCE.fullmatch(str(error)):
                return
            kind = f"unclear sentence: {error}"[:200]
        except (Exception, TooSlowError) as error:
            last = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in last if "/stages/" in frame.filename] or last
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            kind = f"{type(error).__name__} at {place}: {str(error)[:120]}"
        finally:
            _watch(0, 0)
        self.failures += 1
        key = kind.split(": ")[0]
        shown = repr(drawn)
        if key not in self.found or len(shown) < len(self.found[key].split("\n")[1]):
            if key not in self.found:
                print(f"FAILURE {self.name}: {kind}\n  {shown[:400]}", flush=True)
            self.found[key] = f"{kind}\n{shown}"


def run_target(name: str, *, seconds: float, base: int, folder: Path) -> tuple[Tally, float]:
    """Execute one target until its time is over."""
    strategy, function = TARGETS[name]
    tally = Tally(name, function, folder)
    start, number = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        body = given(strategy)(lambda drawn: tally(drawn))
        body = settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )(body)
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seed(base * 1_000_003 + number)(body)()
        number += 1
    return tally, time.monotonic() - start


def main(argv: list[str] | None = None) -> int:
    """Run all targets, each for its share of the time; returns 1 if there was a failure."""
    parser = argparse.ArgumentParser(description="Fuzz the readers and parsers.")
    parser.add_argument("--minutes", type=float, default=10, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--out", type=Path, default=OUT)
    given_ = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given_.targets:
            share = 60 * given_.minutes / len(given_.targets)
            (place := Path(folder, name)).mkdir()
            tally, seconds = run_target(name, seconds=share, base=given_.seed, folder=place)
            rows[name] = {
                "executions": tally.executions,
                "failures": tally.failures,
                "seconds": seconds,
            }
            print(f"{name}: {tally.executions} executions, {tally.failures} failures", flush=True)
            for found in tally.found.values():
                print(f"  smallest: {found[:2000]}", flush=True)
    write_json(given_.out, {"targets": rows, "seed": given_.seed, "minutes": given_.minutes})
    return int(any(row["failures"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
