"""The frame of every stage: command line, parameters, provenance, errors in one sentence."""

import argparse
import ctypes
import inspect
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.common.params import PARAMS, stage_params

PROVENANCE = Path("reports/provenance")
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "opencv-contrib-python-headless",
    "lightning-fabric",
)


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, so that a killed DVC leaves no orphan."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _commit() -> str:
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or "not a git checkout"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device() -> dict[str, object]:
    """Describe where the stage ran; torch is asked only if the stage itself imported it."""
    facts: dict[str, object] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        facts["instruction_set"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["cuda"] = torch.version.cuda
            facts["gpu_peak_MiB"] = torch.cuda.max_memory_allocated() / 2**20
    return facts


def short(value: object) -> str:
    """Write a parameter for the terminal, long lists cut."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def run(function: Callable, name: str, argv: list[str] | None = None) -> None:
    """Run stage ``name`` ("<paper>.<verb>"): paths, then ``--profile`` and ``--variant``.

    ``function(*paths, **params)`` may return a dict of facts (``images_per_s``, ...) for its
    provenance file ``reports/provenance/<profile>/<paper>/<verb>[-<cell>].json`` (a cell: an out
    ``<verb>/<cell>``), which lies outside DVC's outs, so that seconds and hardware never make the
    lock differ.

    Exits with status 2 and one sentence on bad input, 3 if training diverged.
    """
    die_with_parent()
    paths = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    doc = (inspect.getdoc(function) or name).splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=doc)
    for path in paths:
        parser.add_argument(path, type=Path)
    parser.add_argument("--profile", required=True, help="a key of profiles: in params.yaml")
    parser.add_argument("--variant", help="a key of <paper>.variants in params.yaml")
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    args = parser.parse_args(argv)
    label = f"{name} [{args.profile}{', ' + args.variant if args.variant else ''}]"
    files = {path: getattr(args, path) for path in paths}
    try:
        params = stage_params(
            function, name, profile=args.profile, variant=args.variant, path=args.params
        )
        print(f"{label}: {', '.join(f'{k} {v}' for k, v in files.items())}", flush=True)
        print(f"{label}: {', '.join(f'{k}={short(v)}' for k, v in params.items())}", flush=True)
        start = time.perf_counter()
        facts = function(*files.values(), **params) or {}
        seconds = time.perf_counter() - start
        paper, verb = name.split(".")
        out = files[paths[-1]]
        cell = f"{verb}-{out.stem}" if out.parent.name == verb else verb
        usage = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        write_json(
            PROVENANCE / args.profile / paper / f"{cell}.json",
            {
                "stage": name,
                "variant": args.variant,
                "params": json.loads(json.dumps(params, default=str)),
                "commit": _commit(),
                "seconds": seconds,
                "peak_memory_MiB": max(u.ru_maxrss for u in usage) / 1024,
                "python": platform.python_version(),
                "packages": {package: _version(package) for package in PACKAGES},
                **_device(),
                **facts,
            },
        )
    except InputError as error:
        sys.exit(_fail(label, error, 2))
    except FloatingPointError as error:
        sys.exit(_fail(label, error, 3))
    print(f"{label}: wrote {out} in {seconds:.1f} s", flush=True)


def _fail(label: str, error: Exception, status: int) -> int:
    print(f"error: {label}: {error}", file=sys.stderr, flush=True)
    return status
