"""How cost grows: images, pixels, variants and seeds doubled twice, one stage of each kind.

``python tests/benchmarks/growth.py [--large] [--quick]`` writes reports/bench/growth.json and .md;
``make bench`` runs it too. A case is a stage's own function on files that are made here, in a child
process that is forked when everything is imported: seconds are the CPU's, of the child and of what
it starts, the least of three runs; memory is how far the resident memory of one process rises above
what the imports take. ``exponent`` is that of the last doubling, log(seconds) over log(work): 1 is
linear, less means that a constant part still shows. Training sees every image once.

``--large`` also reads a set of images of 256 px as ``train`` does, at three sizes up to a quarter
of the paper's 50,000, and says what the whole would take.
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from page import growth_page  # noqa: E402
from steps import pictures  # noqa: E402
from timing import cpu_seconds, peak_memory, settle, status  # noqa: E402

from stages.colourisation.evaluate import evaluate  # noqa: E402
from stages.colourisation.prepare import prepare  # noqa: E402
from stages.colourisation.train import Pairs, train  # noqa: E402
from stages.common.files import read_json, write_json, write_npz, write_text  # noqa: E402
from stages.common.params import stage_params  # noqa: E402
from stages.sift_inversion.extract import extract  # noqa: E402
from stages.sift_inversion.score import score  # noqa: E402

RUNS = 3
NEAR_LINEAR = 1.15
DATA = ROOT / "data"
COLOURISATION, SIFT = "colourisation", "sift_inversion"
Case = Callable[[Path], Callable[[], object]]  # an empty folder -> what is measured


def keys_of(function, paper, verb, **changes):
    keys = stage_params(
        function, f"{paper}.{verb}", profile="embedded", variant=changes.pop("variant", None),
        path=ROOT / "params.yaml",
    )  # fmt: skip
    return keys | changes


# ---------------------------------------------------------------- the cases


def prepare_case(*, n: int = 300, size: int = 32) -> Case:
    def build(here):
        keys = keys_of(prepare, COLOURISATION, "prepare")
        keys |= {"n_train": n, "n_val": 16, "n_test": 16, "size": size}
        return lambda: prepare(DATA, here / "out", **keys)

    return build


def extract_case(*, n: int = 100, size: int = 64) -> Case:
    def build(here):
        from sift import drawn

        images, place = drawn(n, size), np.arange(n, dtype=np.int64)
        for name in ("faces", "multi"):
            for split in ("train", "test"):
                part = slice(None) if (name, split) == ("faces", "train") else slice(2)
                write_npz(here / "data" / f"{name}_{split}.npz", images=images[part], groups=place)
        keys = keys_of(extract, SIFT, "extract", size=size)
        return lambda: extract(here / "data", here / "out", **keys)

    return build


def sets(here: Path, n: int, size: int, n_test: int = 16) -> None:
    for name, many in (("train", n), ("val", 16), ("test", n_test)):
        place = np.arange(many, dtype=np.int64)
        write_npz(
            here / "data" / f"{name}.npz", images=pictures(many, size), groups=place, labels=place
        )


def train_case(*, n: int = 160, size: int = 32, variants: int = 1, seeds: int = 1) -> Case:
    """One epoch: a step for 16 images."""

    def build(here):
        sets(here, n, size)
        keys = keys_of(train, COLOURISATION, "train", variant="bn")
        keys |= {"epochs": 1, "seeds": list(range(seeds)), "n_eval": 16}

        def call():
            for variant in range(variants):
                train(here / "data", here / "out" / str(variant), **keys)

        return call

    return build


def evaluate_case(*, n: int = 100, size: int = 32, variants: int = 1, seeds: int = 1) -> Case:
    def build(here):
        sets(here, 32, size, n)
        rng = np.random.default_rng(0)
        for seed in range(seeds):
            ab = {
                name: rng.normal(0, 20, (many, 2, size, size)).astype(np.float16)
                for name, many in (("train", 16), ("val", 16), ("test", n))
            }
            write_npz(here / "runs" / f"predictions-s{seed}.npz", **ab)
        keys = keys_of(evaluate, COLOURISATION, "evaluate", seeds=list(range(seeds)))

        def call():
            for variant in range(variants):
                evaluate(here / "data", here / "runs", here / f"{variant}.npz", **keys)

        return call

    return build


def score_case(*, n: int = 200, variants: int = 4, seeds: int = 2) -> Case:
    def build(here):
        spec = importlib.util.spec_from_file_location(
            "made_up", ROOT / "tests/sift_inversion/conftest.py"
        )
        assert spec is not None and spec.loader is not None
        made_up = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made_up)
        runs = list(made_up.COARSE)[:variants]
        made_up.write_artifacts(here, runs=runs, seeds=range(seeds), n=n, conditions=[])
        keys = keys_of(score, SIFT, "score", seeds=list(range(seeds)), variants=runs)
        names = ("prepare", "extract", "train", "refine", "evaluate")
        paths = [here / name for name in names]
        return lambda: score(*paths, here / "out", **keys)

    return build


SIDES = (32, 48, 64)  # pixels 1, 2.25 and 4 times
CASES: dict[str, dict[str, list[tuple[float, Case]]]] = {
    "prepare": {
        "images": [(n, prepare_case(n=n)) for n in (300, 600, 1200)],
        "pixels": [(s * s, prepare_case(size=s)) for s in SIDES],
    },
    "extract": {
        "images": [(n, extract_case(n=n)) for n in (100, 200, 400)],
        "pixels": [(s * s, extract_case(size=s)) for s in (64, 96, 128)],
    },
    "train": {
        "images": [(n, train_case(n=n)) for n in (160, 320, 640)],
        "pixels": [(s * s, train_case(size=s)) for s in SIDES],
        "variants": [(k, train_case(variants=k)) for k in (1, 2, 4)],
        "seeds": [(k, train_case(seeds=k)) for k in (1, 2, 4)],
    },
    "evaluate": {
        "images": [(n, evaluate_case(n=n)) for n in (100, 200, 400)],
        "pixels": [(s * s, evaluate_case(size=s)) for s in SIDES],
        "variants": [(k, evaluate_case(variants=k)) for k in (1, 2, 4)],
        "seeds": [(k, evaluate_case(seeds=k)) for k in (1, 2, 4)],
    },
    "score": {
        "images": [(n, score_case(n=n)) for n in (200, 400, 800)],
        "variants": [(k, score_case(variants=k)) for k in (2, 4, 8)],
        "seeds": [(k, score_case(seeds=k)) for k in (1, 2, 4)],
    },
}
WHAT = {
    "prepare": "colourisation.prepare, of emoji10",
    "extract": "sift_inversion.extract",
    "train": "colourisation.train, bn, one epoch",
    "evaluate": "colourisation.evaluate",
    "score": "sift_inversion.score, 10,000 resamples",
}


# ---------------------------------------------------------------- measuring


def in_child(case: Case) -> dict[str, float]:
    """Build and measure a case in a forked process."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child():
        with open(os.devnull, "w") as null, tempfile.TemporaryDirectory() as name:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
            os.environ |= {"CKPT_DIR": f"{name}/ckpt", "DVC_ROOT": name}
            torch.set_num_threads(1)
            try:
                send.send(measured(case(Path(name))))
            except Exception:
                send.send(traceback.format_exc())

    process = context.Process(target=child)
    process.start()
    found = receive.recv()
    process.join()
    if isinstance(found, str):
        raise RuntimeError(f"a case failed in its process:\n{found}")
    return found


def measured(call: Callable[[], object]) -> dict[str, float]:
    """Call once; seconds, and the rise of memory of this process or of the largest it starts."""
    held = status("VmRSS")
    with peak_memory("cpu") as memory:
        wall, cpu = time.perf_counter(), cpu_seconds()
        call()
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 - held
    return {"cpu_s": cpu, "wall_s": wall, "peak_MiB": max(float(memory["MiB"]), started)}


def grow(name: str, factor: str, sizes: list[tuple[float, Case]], runs: int) -> dict:
    """Measure the sizes of one factor, in turn, ``runs`` times."""
    found = [[] for _ in sizes]
    for _ in range(runs):
        for i, (_, case) in enumerate(sizes):
            found[i].append(in_child(case))
    rows = [
        {
            "work": work,
            "cpu_s": min(run["cpu_s"] for run in of),
            "wall_s": min(run["wall_s"] for run in of),
            "peak_MiB": max(run["peak_MiB"] for run in of),
        }
        for (work, _), of in zip(sizes, found, strict=True)
    ]
    steps = [
        math.log(b["cpu_s"] / a["cpu_s"]) / math.log(b["work"] / a["work"])
        for a, b in zip(rows, rows[1:], strict=False)
    ]
    result = {"rows": rows, "exponent": steps[-1], "near_linear": steps[-1] <= NEAR_LINEAR}
    print(f"{name}, {factor}: exponent {steps[-1]:.2f}", flush=True)
    return result


# ---------------------------------------------------------------- a set of 50,000 x 256^2


def large(quick: bool) -> dict:
    """Read sets of 256 px with ``train``'s reader; what 50,000 would take, by proportion."""
    side, whole = 256, 50_000
    parts = (64, 128, 256) if quick else (whole // 16, whole // 8, whole // 4)
    block = pictures(64, side)
    rows = []
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        for n in parts:
            file = Path(name, "train.npz")
            images = np.concatenate([block] * -(-n // 64))[:n]
            MiB = images.nbytes / 2**20

            def write(folder, images=images, file=file):
                return lambda: write_npz(file, images=images)

            def read(folder, file=file):
                return lambda: Pairs(file, torch.device("cpu"))

            written = in_child(write)
            settle()
            found = in_child(read)
            rows.append(
                {
                    "images": n,
                    "images_MiB": MiB,
                    "read_s": found["wall_s"],
                    "read_peak_MiB": found["peak_MiB"],
                    "beyond_MiB": found["peak_MiB"] - MiB,
                    "write_s": written["wall_s"],
                    "write_peak_MiB": written["peak_MiB"],
                    "file_MiB": file.stat().st_size / 2**20,
                }
            )
            print(rows[-1], flush=True)
            shutil.rmtree(name, ignore_errors=True)
            Path(name).mkdir(exist_ok=True)
    last = rows[-1]
    factor = whole / last["images"]
    return {
        "what": "colourisation.train's reader on a CPU, whose memory is the device's",
        "rows": rows,
        "extrapolated_to_50000": {
            "images_GB": last["images_MiB"] * factor / 1e3 * 1.048576,
            "read_peak_GB": last["read_peak_MiB"] * factor / 1e3 * 1.048576,
            "beyond_device_GB": last["beyond_MiB"] * factor / 1e3 * 1.048576,
            "write_peak_GB": last["write_peak_MiB"] * factor / 1e3 * 1.048576,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="and a large set: 3 GB of disk")
    parser.add_argument("--quick", action="store_true", help="one run of everything")
    parser.add_argument("--only", nargs="*", choices=list(CASES), help="nothing: no case")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    arguments = parser.parse_args()
    path = arguments.out / "growth.json"
    torch.set_num_threads(1)
    start, load = time.perf_counter(), os.getloadavg()
    results = {"stages": {}, "not_measured": {}}
    if path.exists():
        results |= json.loads(path.read_text())
    for name, factors in CASES.items():
        if arguments.only is not None and name not in arguments.only:
            continue
        results["not_measured"].pop(name, None)
        if name == "prepare" and not (DATA / "emoji10").is_dir():
            results["not_measured"][name] = "data/ is not there: dvc pull data.dvc"
            continue
        runs = 1 if arguments.quick else RUNS
        grown = {factor: grow(name, factor, sizes, runs) for factor, sizes in factors.items()}
        results["stages"][name] = {"what": WHAT[name], "factors": grown}
    if arguments.only == [] and not arguments.large:
        parser.error("--only without a case needs --large")
    if arguments.large:
        results["large"] = large(arguments.quick)
    elif "large" not in results:
        results["not_measured"]["large"] = "needs 3 GB of disk and minutes: growth.py --large"
    if "large" in results:
        results["not_measured"].pop("large", None)
    of = results["large"] if arguments.only == [] else results  # the cases keep what theirs was
    of["run"] = {
        "load_before": list(load),
        "load_after": list(os.getloadavg()),
        "cores": os.cpu_count(),
        "runs": 1 if arguments.quick else RUNS,
        "seconds": time.perf_counter() - start,
    }
    write_json(path, results)
    write_text(path.with_suffix(".md"), growth_page(read_json(path)))
    print(f"{path} and {path.with_suffix('.md')}, {of['run']['seconds']:.0f} s")


if __name__ == "__main__":
    main()
