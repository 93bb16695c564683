"""Run every stage a second time, without DVC, and compare all that was written, byte for byte.

``python tests/reliability/twice.py FIRST SECOND`` takes FIRST, a checkout in which ``dvc repro``
has run, and SECOND, a copy of it in which nothing has. It reads from FIRST's DVC files which
commands there are and in which order, runs them in SECOND, each in a process of its own, and
compares the outs. The processes are forked from one that has imported the libraries: of a smoke run
most of the time is spent on imports. Status 1 if anything differs or a stage fails.
"""

import argparse
import hashlib
import importlib
import json
import os
import runpy
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx

LIBRARIES = (
    *("numpy", "pandas", "scipy.stats", "cv2", "skimage.metrics", "torch", "torch._dynamo"),
    *("torchvision", "lightning_fabric", "kornia"),
)


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: its name, its module, the module's arguments, its outs."""

    name: str
    module: str
    arguments: tuple[str, ...]
    outs: tuple[str, ...]


def stages_of(checkout: Path) -> list[Stage]:
    """Return all stages that ``dvc repro`` runs there, what is needed first first."""
    from dvc.repo import Repo  # the processes that are forked need none of it

    found = []
    with Repo(str(checkout)) as repo:
        graph = repo.index.graph
        for stage in reversed(list(networkx.topological_sort(graph))):
            if not stage.cmd:  # data.dvc
                continue
            words = shlex.split(stage.cmd)
            if words[:4] != ["exec", "$LAUNCH", "python", "-m"]:
                raise ValueError(f"{stage.addressing}: {stage.cmd} is no stage as they are here")
            outs = tuple(str(Path(o.fs_path).relative_to(checkout)) for o in stage.outs)
            found.append(Stage(stage.addressing, words[4], tuple(words[5:]), outs))
    return found


def run(stage: Stage, here: Path, log: Path) -> int:
    """Run a stage in ``here`` in a forked process; what it says goes to ``log``."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(here)
        sys.argv = [stage.module, *stage.arguments]
        runpy.run_module(stage.module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # the process ends here; the log has the reason
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fingerprints(here: Path, outs: Sequence[str]) -> dict[str, str]:
    """Return {file: SHA-256} of every file of the outs."""
    found = {}
    for out in outs:
        path = here / out
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                name = str(file.relative_to(here))
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the files that only one has, or that differ."""
    return sorted(f for f in first.keys() | second.keys() if first.get(f) != second.get(f))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return the status."""
    parser = argparse.ArgumentParser(prog="python tests/reliability/twice.py")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    given = parser.parse_args(argv)
    first, second = given.first.resolve(), given.second.resolve()
    begun = time.monotonic()
    stages = stages_of(first)
    outs = [out for stage in stages for out in stage.outs]
    there = [out for out in outs if out.startswith("artifacts/") and (second / out).exists()]
    if there:
        print(f"error: {second}: {there[0]} is there already; nothing may have run in it")
        return 2
    for lock in first.glob("**/dvc.lock"):  # the index tells from the locks what is out of date
        shutil.copy2(lock, second / lock.relative_to(first))
    sys.path.insert(0, str(second))
    os.environ |= {"PYTHONPATH": str(second), "CKPT_DIR": str(second / ".ckpt")}
    os.environ.pop("LAUNCH", None)
    for library in LIBRARIES:
        importlib.import_module(library)
    log = second / "twice.log"
    for stage in stages:
        if run(stage, second, log):
            print(f"error: {stage.name} failed\n{log.read_text(errors='replace')[-3000:]}")
            return 1
    made = fingerprints(first, outs)
    differ = differences(made, fingerprints(second, outs))
    print(
        json.dumps(
            {
                "stages": len(stages),
                "compared": len(made),
                "differences": differ,
                "seconds": time.monotonic() - begun,
            }
        )
    )
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
