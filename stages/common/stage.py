"""The frame of every stage: command line, parameters, provenance, errors in one sentence."""

import argparse
import errno
import hashlib
import inspect
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import stages
from stages import die_with_parent
from stages.common.errors import InputError, shown
from stages.common.files import write_json
from stages.common.params import PARAMS, stage_params

PROVENANCE = Path("reports/provenance")
NO_MEMORY = r"(?i)(not enough|out of|allocate) memory"  # in the words of torch
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "opencv-contrib-python-headless",
    "lightning-fabric",
)


# what the machine refuses, not what the code does wrong
REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENOMEM,
}


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


def _sources() -> dict[Path, str]:
    """Return {file: SHA-256} of the code below ``stages``."""
    files = [file for folder in stages.__path__ for file in Path(folder).rglob("*.py")]
    return {file.resolve(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _edited(before: dict[Path, str]) -> list[Path]:
    """Return the files of loaded modules that are not what they were ``before``."""
    loaded = {
        Path(file).resolve()
        for name, module in list(sys.modules.items())
        if name == "__main__" or name.split(".")[0] == "stages"
        if (file := getattr(module, "__file__", None))
    }
    now = _sources()
    return sorted(file for file in loaded & before.keys() if now.get(file) != before[file])


def _stay(what: str | Path, how: str, before: object, now: object) -> InputError:
    return InputError(
        what,
        f"{how} while the stage ran, so DVC would note what did not make the result",
        expected=before,
        found=now,
        remedy="run dvc repro again; only this stage is repeated",
    )


def _refused(error: Exception) -> InputError | None:
    """Return what the machine refused (memory, disk, a process) in one sentence, or None."""
    said = " ".join(str(error).split())[:200]
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return InputError(
            error.filename or "this machine",
            "cannot be used",
            expected="room and permission",
            found=error.strerror,
            remedy="mend that and run dvc repro again; finished stages and checkpoints are kept",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return InputError(
            error.filename,
            "cannot be used",
            expected="a file or folder that can be read and written",
            found=error.strerror or error,
            remedy="correct the path or the permissions, or run the stage that writes it first",
        )
    if isinstance(error, BrokenProcessPool):
        return InputError(
            "a worker process",
            "was ended from outside",
            expected="it to finish its work",
            found=said,
            remedy="look for lack of memory, then run dvc repro again; finished stages and"
            " checkpoints are kept",
        )
    torch_lacks = isinstance(error, RuntimeError) and re.search(NO_MEMORY, said)
    if isinstance(error, MemoryError) or torch_lacks:
        return InputError(
            "this machine",
            "has too little memory for the stage",
            expected="room for the sizes in params.yaml",
            found=said or "none left",
            remedy="free some or lower batch_size or the number of images in the profile, then run"
            " dvc repro again; finished stages and checkpoints are kept",
        )
    return None


def provenance_file(name: str, profile: str, out: Path) -> Path:
    """Return where stage ``name`` records its run: ``<profile>/<paper>/<verb>[-<cell>].json``.

    Its ``out`` is ``.../<verb>/<cell>`` if the stage has cells, and something else if not.
    """
    paper, verb = name.split(".")
    cell = f"{verb}-{out.stem}" if out.parent.name == verb else verb
    return PROVENANCE / profile / paper / f"{cell}.json"


def _leaves(function: Callable) -> bool:
    """Tell whether this is one of ``torchrun``'s further processes, and the stage needs but one.

    A stage divides its work if its module takes ``stages.common.training.set_up``; any other would
    do everything once in each process and write the same files at the same time.
    """
    divides = hasattr(sys.modules[function.__module__], "set_up")
    return os.environ.get("RANK", "0") != "0" and not divides


def short(value: object) -> str:
    """Write a parameter for the terminal, long lists cut."""
    text = value if isinstance(value, str) else shown(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def one_sentence(label: str) -> Iterator[None]:
    """End the process, where its input is bad, by one sentence on stderr and a status.

    Bad input, files that cannot be read or written, and too little memory have status 2, a
    training that diverged has 3, Ctrl-C 130. Everything else is a defect and keeps its traceback.
    """
    try:
        yield
    except InputError as error:
        sys.exit(_fail(label, error, 2))
    except FloatingPointError as error:
        sys.exit(_fail(label, error, 3))
    except KeyboardInterrupt:
        sys.exit(_fail(label, "interrupted; run dvc repro to go on from the last checkpoint", 130))
    except Exception as error:
        refused = _refused(error)
        if refused is None:
            raise
        sys.exit(_fail(label, refused, 2))


def run(function: Callable, name: str, argv: list[str] | None = None) -> None:
    """Run stage ``name`` ("<paper>.<verb>"): paths, then ``--profile`` and ``--variant``.

    ``function(*paths, **params)`` may return a dict of facts (``images_per_s``, ...) for its
    provenance file (see :func:`provenance_file`), which lies outside DVC's outs, so that seconds
    and hardware never make the lock differ.

    Exits as :func:`one_sentence` says, with status 2 also when the stage's parameters or code were
    edited while it ran: DVC hashes them afterwards, and would note them as what made the result.

    Under ``torchrun`` a stage that trains runs in all processes, and the first writes provenance;
    of any other stage the first process does everything, the others leave at once.
    """
    die_with_parent()
    if _leaves(function):
        return
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

    def parameters() -> dict:
        return stage_params(
            function, name, profile=args.profile, variant=args.variant, path=args.params
        )

    with one_sentence(label):
        code, params = _sources(), parameters()
        written = args.params.read_bytes()
        print(f"{label}: {', '.join(f'{k} {v}' for k, v in files.items())}", flush=True)
        print(f"{label}: {', '.join(f'{k}={short(v)}' for k, v in params.items())}", flush=True)
        start = time.perf_counter()
        facts = function(*files.values(), **params) or {}
        seconds = time.perf_counter() - start
        now = params if args.params.read_bytes() == written else parameters()
        if now != params:
            key = next(k for k in {**params, **now} if params.get(k) != now.get(k))
            before, after = (f"{key}={of.get(key)!r}" for of in (params, now))
            raise _stay(args.params, "was edited", before, after)
        for file in _edited(code):
            raise _stay(file, "was edited", "the code that was loaded", "other code")
        out = files[paths[-1]]
        usage = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        provenance = {
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
        }
        if os.environ.get("RANK", "0") == "0":
            write_json(provenance_file(name, args.profile, out), provenance)
    print(f"{label}: wrote {out} in {seconds:.1f} s", flush=True)


def _fail(label: str, error: Exception | str, status: int) -> int:
    print(f"error: {label}: {error}", file=sys.stderr, flush=True)
    return status
