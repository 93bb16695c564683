"""What ``dvc repro`` would have to run, asked of DVC before anything runs.

``dvc repro --dry`` cannot be asked: it stops at the first stage whose inputs are not made yet
(in a fresh clone the second one), and with ``--allow-missing`` it takes all that is missing for
unchanged. Hence DVC's own functions, in the order and with the test of ``dvc repro`` itself.
"""

import functools
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dvc.dependency import param
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc_objects.fs.local import localfs

from stages.common.errors import InputError
from stages.common.files import read_json
from stages.common.stage import provenance_file
from stages.scoreboard.parameters import COMMAND

START_UP = 4.0  # seconds of a stage beside those it records: Python, torch, DVC's hashing; measured
ON_A_GPU = "stages/common/device.py"  # what computes on a GPU imports it, and so depends on it

__all__ = ["DvcException", "Step", "plan"]


@dataclass(frozen=True)
class Step:
    """A stage that has to run, or may: not if those before it give the same bytes again.

    Attributes
    ----------
    address : what DVC calls it, "stages/colourisation/dvc.yaml:train@embedded-bn".
    label : what a person calls it, "colourisation train@bn".
    after : addresses of the steps whose outs it reads.
    seconds : that it will take on the machine that ran it before; None if no stage ever ran.
    gpu : whether it computes on a GPU if there is one.
    command : what DVC runs.
    """

    address: str
    label: str
    after: frozenset[str]
    seconds: float | None
    gpu: bool
    command: str = ""


def label(address: str, profile: str) -> str:
    """Write a stage's address for a person: the paper, the stage, its cell; not the profile."""
    file, _, name = address.rpartition(":")
    verb, _, cell = name.partition("@")
    cell = cell.removeprefix(profile).removeprefix("-") if profile else cell
    return " ".join(filter(None, [Path(file).parent.name, f"{verb}@{cell}" if cell else verb]))


def recorded_seconds(name: str, profile: str, out: Path) -> float | None:
    """Return how long stage ``name`` took when it last ran, from its provenance; None: unknown."""
    try:
        seconds = read_json(provenance_file(name, profile, out))["seconds"]
    except (OSError, InputError, KeyError):
        return None
    return float(seconds) if isinstance(seconds, int | float) else None


def plan(targets: Sequence[str] = ()) -> list[Step]:
    """Return what ``dvc repro [TARGET ...]`` has to run at most, what is needed first first.

    A stage of which nothing is recorded is given the median of the pipeline's other stages; one
    whose outs DVC will take from its cache, no time.

    Raises
    ------
    DvcException
        If the pipeline cannot be read; ``dvc repro`` stops with the same.
    """
    steps: dict[Any, Step] = {}
    cached: set[Any] = set()
    known = []
    with _params_read_once(), Repo() as repo, lock_repo(repo):
        graph = get_active_graph(repo.index.graph)
        for stage in plan_repro(graph, collect_stages(repo, targets or ["dvc.yaml"])):
            said = COMMAND.search(str(stage.cmd))
            seconds = None
            if said and stage.outs:
                out = Path(stage.outs[0].def_path)
                seconds = recorded_seconds(said["name"], said["profile"], out)
            if seconds is not None:
                seconds += START_UP
                known.append(seconds)
            before = [other for other in graph.successors(stage) if other in steps]
            if not before and not stage.changed():
                continue
            if set(before) <= cached and _in_cache(stage, before):
                cached.add(stage)
                seconds = 0.0
            steps[stage] = Step(
                stage.addressing,
                label(stage.addressing, said["profile"] if said else ""),
                frozenset(steps[other].address for other in before),
                seconds,
                ON_A_GPU in {dep.def_path for dep in stage.deps},
                str(stage.cmd),
            )
    usual = statistics.median(known) if known else None
    return [replace(s, seconds=usual) if s.seconds is None else s for s in steps.values()]


def _in_cache(stage: Any, before: Sequence[Any]) -> bool:
    """Whether DVC only has to take the stage's outs from its cache, or not even that.

    ``before`` are the steps before it, of which the same holds: what they make is not there yet.
    """
    made = [out.fs_path for other in before for out in other.outs]
    there = [d for d in stage.deps if not any(localfs.overlaps(d.fs_path, path) for path in made)]
    return (
        bool(stage.cmd and stage.outs)
        and not stage.changed_stage()
        and not any(dep.status() for dep in there)
        and all(out.hash_info for out in stage.outs)
        and stage.outs_cached()
    )


@contextmanager
def _params_read_once() -> Iterator[None]:
    """Let DVC parse params.yaml once, not once a stage: 7 s instead of 20 for 88 stages."""
    read = param.load_path
    param.load_path = functools.cache(read)
    try:
        yield
    finally:
        param.load_path = read
