"""Measure everything that should be fast; ``make bench`` runs it.

``python tests/benchmarks/bench.py [--device cuda] [--only NAME ...] [--repeats N] [--quick]``
writes reports/bench/<device>.json and .md, <device> being cpu or the GPU's name. Items run one
after the other, each in a process of its own, so that none is in another's memory and one that
cannot be imported does not stop the rest: it is listed with the reason. ``--only`` puts what it
measures into a file that exists. Needed are torch, torchvision, numpy, scipy, scikit-image, opencv,
pillow, cryptography, and small: lightning-fabric, jaxtyping, beartype, ruamel.yaml, safetensors,
tqdm; not DVC.
"""

import argparse
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

MODULES = ("steps", "ciphers", "shufflebits", "sift", "scoring", "pipeline")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "cryptography", "pillow")
LIMIT = 3600  # seconds of an item, on a machine that others keep busy, too


def names() -> dict[str, str]:
    """Return the items by name, each with its module; read from the text, which imports nothing."""
    found = {}
    for module in MODULES:
        text = (HERE / f"{module}.py").read_text(encoding="utf-8")
        block = text[text.index("\nITEMS = {") :].split("}", 1)[0]
        found |= {name: module for name in re.findall(r'"(\w+)": ', block)}
    return found


def measure(item: str, module: str, settings, peak: dict, out: Path) -> None:
    """Measure one item in this process and write what was found."""
    try:
        function = importlib.import_module(module).ITEMS[item]
        result = function(settings, peak)
        result = {"entries": {item: result} if "ways" in result else result}
    except ModuleNotFoundError as error:
        result = {"not_measured": f"{error.name} is not installed"}
    except Exception as error:
        name = type(error).__name__
        result = {"not_measured": str(error) if name == "NotMeasured" else f"{name}: {error}"}
        if name != "NotMeasured":
            traceback.print_exc()
    out.write_text(json.dumps(result))


def apart(item: str, module: str, arguments: argparse.Namespace, peak: dict) -> dict:
    """Measure one item in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        out, given = Path(folder, "out.json"), Path(folder, "peak.json")
        given.write_text(json.dumps(peak))
        command = [sys.executable, __file__, "--device", arguments.device]
        command += [
            "--repeats",
            str(arguments.repeats),
            "--one",
            item,
            module,
            str(given),
            str(out),
        ]
        command += ["--quick"] if arguments.quick else []
        path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, env=env, check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return {"not_measured": f"it took longer than {LIMIT} s"}
        if not out.exists():
            return {"not_measured": f"its process ended with status {done.returncode}"}
        return json.loads(out.read_text())


def machine(device: str) -> dict:
    """Describe where it runs."""
    import torch

    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    found = {
        "machine": platform.machine(),
        "processor": model.group(1) if model else "unknown",
        "cores": os.cpu_count(),
        "memory_GiB": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "packages": {},
        "gpu": "none used",
    }
    for package in PACKAGES:
        try:
            found["packages"][package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found["packages"][package] = "not installed"
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["driver_capability"] = list(torch.cuda.get_device_capability())
    return found


def slug(device: str, gpu: str) -> str:
    """Return the file's name."""
    return "cpu" if device == "cpu" else re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(names()))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny: does it run?")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.repeats < 5 and not arguments.quick:
        parser.error("--repeats: five rounds or more, or the medians say little")
    return arguments


def main() -> None:
    arguments = parse()
    from timing import Settings, peaks

    settings = Settings(
        device=arguments.device,
        repeats=arguments.repeats,
        seconds=0.01 if arguments.quick else 0.3,
        quick=arguments.quick,
    )
    if arguments.one:
        item, module, given, out = arguments.one
        measure(item, module, settings, json.loads(Path(given).read_text()), Path(out))
        return
    from page import write_page
    from pipeline import recorded

    from stages.common.files import read_json, write_json

    start, load = time.perf_counter(), os.getloadavg()
    facts = machine(arguments.device)
    path = arguments.out / f"{slug(arguments.device, facts['gpu'])}.json"
    peak = peaks(settings)
    results = {"items": {}, "not_measured": {}}
    if arguments.only and path.exists():
        results |= {key: read_json(path)[key] for key in results}
    run = {"load_before": list(load), "peak": peak, "repeats": arguments.repeats}
    run["quick"] = arguments.quick
    for item, module in names().items():
        if arguments.only and item not in arguments.only:
            continue
        print(f"{item} ...", flush=True)
        begun, before = time.perf_counter(), os.getloadavg()[0]
        found = apart(item, module, arguments, peak)
        took = time.perf_counter() - begun
        results["not_measured"].pop(item, None)
        if "not_measured" in found:
            results["not_measured"][item] = found["not_measured"]
            print(f"  not measured: {found['not_measured']}", flush=True)
        for name, entry in found.get("entries", {}).items():
            results["items"][name] = entry | {"item": item, "took_s": took, "load_before": before}
            say(name, entry)
    stages = recorded()
    run["stages"] = {
        "count": len(stages),
        "seconds": sum(s for s, _ in stages),
        "slowest": [{"stage": name, "seconds": s} for s, name in stages[:10]],
    }
    run |= {"load_after": list(os.getloadavg()), "seconds": time.perf_counter() - start}
    write_json(path, {"device": facts, "run": run, **results})
    write_page(path)
    print(f"{path} and {path.with_suffix('.md')}, {run['seconds']:.0f} s")


def say(name: str, entry: dict) -> None:
    ours = entry["ways"][entry["ours"]]
    for other, ratio in ours.get("times_as_fast_as", {}).items():
        print(
            f"  {name}: {ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}] times as"
            f" fast as {other}",
            flush=True,
        )


if __name__ == "__main__":
    main()
