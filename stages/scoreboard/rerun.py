"""Runs stages again in a temporary copy of the checkout, and compares with what is there.

The copy has the code and the results as files of its own; models and data are links to the
checkout's, one a file, which a stage replaces and never writes through. Nothing is written to the
checkout, to its DVC cache or to its checkpoints.
"""

import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import read_json
from stages.common.stage import provenance_file
from stages.scoreboard.rehash import files_below, ignored

LINKED = ("artifacts", "data")  # what git does not hold: made by stages, or pulled
CHEAP_SECONDS = 60  # ours: a training that may be drawn to be repeated took at most so long
TOLERANCE = 0.05  # ours, of the median loss, relative; docs/reliability.md has the measurement
PATIENCE_SECONDS = 1800  # for one stage; the slowest of the embedded profile takes 2 minutes


@contextmanager
def copy_of(root: Path, profile: str) -> Iterator[Path]:
    """Make a copy of the checkout with ``profile`` active, for as long as the context lasts.

    Raises
    ------
    InputError
        If git does not know the checkout.
    """
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        here = Path(folder).resolve()
        for name in tracked(root):
            if (root / name).is_file() and not name.startswith("dvcstore/"):
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, here / name)
        for name in LINKED:
            for file in files_below(root / name, ignored(root)):
                link = here / file.relative_to(root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
        params = here / "params.yaml"
        text = params.read_text(encoding="utf-8")
        params.write_text(re.sub(r"(?m)^profile: *\w+", f"profile: {profile}", text, count=1))
        own = f"[core]\n    no_scm = true\n    site_cache_dir = {here}/.dvc/site\n"
        (here / ".dvc" / "config.local").write_text(own)
        yield here


def tracked(root: Path) -> list[str]:
    """Return the names of all files that git knows or would add.

    Raises
    ------
    InputError
        If ``root`` is no git checkout.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        raise InputError(
            root,
            "cannot be compared with git",
            expected="a git checkout",
            found=listed.stderr.strip(),
            remedy="clone the repository and run there",
        )
    return listed.stdout.splitlines()


class Pipeline:
    """DVC's view of a copy: its stages, in the order in which they run."""

    def __init__(self, here: Path):
        import networkx
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        self.here = here
        try:
            self.repo = Repo(str(here))
            order = networkx.topological_sort(self.repo.index.graph)
        except DvcException as error:
            cause = error.__cause__ or error
            raise InputError(
                "dvc.yaml",
                "cannot be read by DVC",
                expected="a pipeline",
                found=" ".join(f"{error} ({cause})".split()),
                remedy="mend what it names (git diff shows what changed)",
            ) from error
        self.stages = [stage for stage in reversed(list(order)) if stage.cmd]

    def changed(self) -> dict[str, list[str]]:
        """Return {stage: what differs from its lock}, as ``dvc status`` says it.

        Left out: outs and deps that do not exist (what locks list is hashed elsewhere), and outs
        that lie in no cache, since the copy has none.
        """
        found = {}
        with self.repo.lock:
            for stage in self.stages:
                parts = [part for said in stage.status().values() for part in said]
                told = [text for part in parts for text in _told(part)]
                if told:
                    found[name_of(stage)] = told
        return found

    def reruns(self) -> list:
        """Return the stages whose outs are in git: score, report, verdicts and the like."""
        return [s for s in self.stages if not any(out.use_cache for out in s.outs)]

    def trainings(self) -> list:
        """Return the stages that can be repeated: they logged losses, on a CPU, in little time."""
        found = []
        for stage in self.stages:
            out = self.here / stage.outs[0].def_path
            facts = self.here / provenance(stage)
            if len(stage.outs) == 1 and list(out.rglob("history*.json")) and facts.exists():
                ran = read_json(facts)
                seconds = ran.get("seconds")
                cheap = isinstance(seconds, (int, float)) and seconds <= CHEAP_SECONDS
                if cheap and "gpu" not in ran and not absent(self.here, stage):
                    found.append(stage)
        return sorted(found, key=name_of)


def name_of(stage) -> str:
    """Return the name by which ``dvc repro`` knows a stage from the top folder."""
    return f"{stage.path_in_repo}:{stage.name}"


def _told(part: Any) -> list[str]:
    """Return one element of DVC's status as sentences."""
    if isinstance(part, str):
        return [] if part == "always changed" else [part]
    told = []
    for head, changes in part.items():
        for path, state in changes.items():
            if isinstance(state, Mapping):
                told += [f"{key} in {path} is {how}" for key, how in state.items()]
            elif state not in ("deleted", "not in cache"):
                told.append(f"{path} is {state} ({head})")
    return told


def provenance(stage) -> Path:
    """Return the path of a stage's provenance file, below the top folder."""
    words = [*stage.cmd.split(), "", ""]
    module, profile = (
        words[words.index(flag) + 1] if flag in words else "" for flag in ("-m", "--profile")
    )
    name = module.removeprefix("stages.")
    if name.count(".") != 1:
        return Path("none")
    return provenance_file(name, profile, Path(stage.outs[0].def_path))


def absent(here: Path, stage) -> list[str]:
    """Return the deps of a stage that do not exist below ``here``."""
    return [dep.def_path for dep in stage.deps if not (here / dep.def_path.split(":")[0]).exists()]


def outs_of(stage) -> list[str]:
    """Return the paths of a stage's outs."""
    return [out.def_path for out in stage.outs]


def run(here: Path, stage, **environment: str) -> None:
    """Run a stage's command in a copy, its outs removed first as DVC does.

    Raises
    ------
    InputError
        If it fails; the message ends with the last line that it wrote.
    """
    for name in outs_of(stage):
        path = here / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    try:
        done = subprocess.run(
            stage.cmd,
            shell=True,
            cwd=here,
            env={
                **inherited,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                "PYTHONPATH": str(here),
                "CKPT_DIR": str(here / ".ckpt"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        status, said = done.returncode, (done.stderr + done.stdout).strip().splitlines()
    except subprocess.TimeoutExpired:
        status, said = 1, [f"nothing after {PATIENCE_SECONDS} s"]
    if status:
        errors = [line for line in said if line.startswith("error: ")] or said or ["nothing"]
        raise InputError(
            name_of(stage),
            "cannot be run again",
            expected="status 0",
            found=f"status {status}: {errors[-1]}",
            remedy="mend the cause named there",
        )


def differences(here: Path, root: Path, names: list[str]) -> tuple[int, list[str]]:
    """Compare files and folders byte for byte; return how many files, and what differs how."""
    files: set[Path] = set()
    for base in (here, root):
        for name in names:
            path = base / name
            below = [path] if path.is_file() else files_below(path, ignored(root))
            files |= {file.relative_to(base) for file in below}
    told = []
    for file in sorted(files):
        new, old = here / file, root / file
        if not old.is_file():
            told.append(f"{file} is missing")
        elif not new.is_file():
            told.append(f"{file} is not made by the stage")
        elif new.read_bytes() != old.read_bytes():
            told.append(f"{file} differs{_where(new, old)}")
    return len(files), told


def _where(new: Path, old: Path) -> str:
    """Say where two versions of a file differ: the first key of JSON, the first byte of others."""
    if new.suffix == ".json":
        try:
            a, b = (dict(_leaves(json.loads(p.read_text(encoding="utf-8")))) for p in (new, old))
        except ValueError:
            return " (it is not JSON)"
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                return f" at {key}: {b.get(key, 'nothing')!r}, computed {a.get(key, 'nothing')!r}"
    pairs = zip(new.read_bytes(), old.read_bytes(), strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    return " in length" if same is None else f" from byte {same}"


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        yield key, value
    else:
        for name, item in items:
            yield from _leaves(item, f"{key}.{name}" if key else str(name))


def deviation(here: Path, root: Path, out: str) -> tuple[float, float, str]:
    """Return how far the numbers that a training logged lie from those of the committed one.

    Counts (steps, images) are left out unless they differ. On another processor sums are added in
    another order; a network in training magnifies that, an accuracy of few images most of all, and
    so the median is what is judged.

    Returns
    -------
    The median of the relative differences, their largest, and where that is; infinite where a
    number is missing.
    """
    apart = [(0.0, "nowhere")]
    for old in sorted((root / out).rglob("history*.json")):
        name = old.relative_to(root)
        new = here / name
        a, b = (dict(_leaves(read_json(p))) if p.is_file() else {} for p in (new, old))
        for key in sorted(a.keys() | b.keys()):
            far = _apart(a.get(key), b.get(key))
            if far or isinstance(b.get(key), float):
                apart.append((far, f"{key} in {name}"))
    return statistics.median(far for far, _ in apart), *max(apart)


def _apart(a: object, b: object) -> float:
    numbers = [v for v in (a, b) if isinstance(v, (int, float)) and math.isfinite(v)]
    if a == b:
        return 0.0
    if len(numbers) < 2:
        return math.inf
    return abs(numbers[0] - numbers[1]) / max(map(abs, numbers))


def draw(trainings: list, seed: int):
    """Return the training that ``seed`` chooses: uniformly, from the list in its order."""
    return random.Random(seed).choice(trainings)
