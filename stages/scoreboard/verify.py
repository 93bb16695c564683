"""Holds every committed number against what it was made from.

``python -m stages.scoreboard.verify [--quick] [--profile P] [--seed N]`` prints one line a check:
*ok*; *FAILED*, with where, what, expected, found and what to do; or *not checked*, with the reason.
The status is 1 if a check failed, 2 on a bad command line. Nothing is changed.

locks        every file and folder that a dvc.lock or .dvc file lists has the hash and size listed
stores       every object of dvcstore/ and of the DVC cache has the hash it is named by
current      DVC finds no parameter, code or command that differs from what made the results
recomputed   score, report and all other stages whose outs are in git, run again from the models
             and predictions that are here, give the same bytes
retrained    one cheap training, drawn by the seed, gives the same bytes; on another processor the
             same losses within a tolerance
pages        the tables of the pages in git are those of the results
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from stages.common.errors import InputError, suggestion
from stages.common.params import load_params
from stages.scoreboard import costs, findings, performance, readme, reliability, rerun
from stages.scoreboard.blocks import filled
from stages.scoreboard.rehash import Entry, damaged, lacking, locks, objects, read, rehash

OK, FAILED, NOT_CHECKED = "ok", "FAILED", "not checked"
SHOWN = 3  # of the things wrong in one check
RESULTS = Path("reports") / "results"
REPRO = "run dvc repro"
# page -> what its text should be, given what it is
PAGES: dict[str, Callable[[str], str]] = {
    "README.md": lambda text: filled(text, "results", readme.summary(), "README.md"),
    "docs/results.md": lambda text: filled(text, "results", readme.tables(), "docs/results.md"),
    "docs/performance.md": performance.rendered,
    "docs/gpu_and_clusters.md": lambda text: filled(text, "costs", costs.table(), costs.PAGE),
    "docs/reliability.md": reliability.rendered,
    "docs/findings.md": lambda _: findings.rendered(
        findings.TEMPLATE.read_text(encoding="utf-8"), findings.sources()
    ),
}


@dataclass(frozen=True)
class Line:
    """What one check found."""

    status: str
    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.status:<11}  {self.check}: {self.text}"


def _judged(check: str, wrong: Sequence[str], right: str) -> Line:
    """Return a line that is ok, or says the first few things that are wrong."""
    if not wrong:
        return Line(OK, check, right)
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Line(FAILED, check, "; ".join(wrong[:SHOWN]) + more)


def committed(root: Path) -> Line:
    """Say whether results, reports and locks are those of the last commit."""
    paths = ["reports", "README.md", "docs", "params.yaml", "*dvc.lock", "*.dvc", "dvcstore"]
    told = subprocess.run(
        ["git", "--no-optional-locks", "status", "--porcelain", "--", *paths],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        return Line(NOT_CHECKED, "git", f"git says: {told.stderr.strip()}")
    changed = [line[3:] for line in told.stdout.splitlines()]
    if changed:
        shown = ", ".join(changed[:SHOWN]) + (" ..." if len(changed) > SHOWN else "")
        text = f"{len(changed)} files are not as committed ({shown}); the files here are verified"
        return Line(NOT_CHECKED, "git", text)
    return Line(OK, "git", "results, reports and locks are those of the commit")


def _entries(root: Path) -> tuple[list[Entry], list[str]]:
    entries, wrong = [], []
    for path in locks(root):
        try:
            entries += read(path, root)
        except InputError as error:
            wrong.append(str(error))
    return entries, wrong


def listed(root: Path, entries: list[Entry], unreadable: list[str], known: set[str]) -> list[Line]:
    """Hash all that the locks list.

    Parameters
    ----------
    known : the stages of the verified profiles, "<dvc.yaml>:<name>"; of those profiles' stages a
        lock may still list some that dvc.yaml has no longer, and they are left out.
    """
    profiles = {_profile(name) for name in known}

    def left(entry: Entry) -> bool:
        return _profile(entry.maker) in profiles and entry.maker not in known

    old = sorted({entry.maker for entry in entries if left(entry)})
    found = rehash([entry for entry in entries if not left(entry)], root)
    right = f"{found.hashed} files and folders have the hashes that {len(locks(root))} locks list"
    lines = [_judged("locks", [*unreadable, *found.wrong], right)]
    if found.absent:
        text = f"artifacts of {_spoken(found.absent)} are not here, {REPRO}"
        lines.append(Line(NOT_CHECKED, "locks", text))
    if old:
        text = f"{_spoken(old)} in a lock, which no dvc.yaml has any more"
        lines.append(Line(NOT_CHECKED, "locks", text))
    return lines


def _profile(name: str) -> str:
    return name.partition("@")[2].partition("-")[0]


def _spoken(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def stores(root: Path, entries: list[Entry]) -> list[Line]:
    """Hash the objects of the store in git, and of the DVC cache."""
    store, cache = root / "dvcstore" / "files" / "md5", _cache(root)
    data = [entry for entry in entries if entry.lock.endswith(".dvc")]
    wrong = damaged(store, "restore it (git checkout dvcstore)") + lacking(store, data)
    lines = [_judged("dvcstore", wrong, f"{len(objects(store))} objects are whole, none lacks")]
    if not objects(cache):
        return [*lines, Line(NOT_CHECKED, "cache", f"{cache} is empty")]
    wrong = damaged(cache, f"delete it and {REPRO}")
    return [*lines, _judged("cache", wrong, f"{len(objects(cache))} objects are whole")]


def _cache(root: Path) -> Path:
    from dvc.config import Config

    folder = Config(str(root / ".dvc"), validate=False)["cache"].get("dir")
    return (root / ".dvc" / (folder or "cache")).resolve() / "files" / "md5"


def current(pipeline: rerun.Pipeline, profile: str) -> Line:
    """Ask DVC whether parameters, code and commands are those that made the results."""
    wrong = [
        str(
            InputError(
                stage,
                "is not what made the results",
                expected="the parameters, code and command of its lock",
                found=_spoken(told),
                remedy=f"{REPRO} with profile: {profile}, or undo the change",
            )
        )
        for stage, told in pipeline.changed().items()
    ]
    return _judged(
        f"current [{profile}]",
        wrong,
        f"{len(pipeline.stages)} stages have the parameters, code and commands of their locks",
    )


def recomputed(pipeline: rerun.Pipeline, root: Path) -> Iterator[Line]:
    """Run the stages whose outs are in git again, and compare bytes."""
    todo = pipeline.reruns()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while todo:
            waiting = {name for stage in todo for name in rerun.outs_of(stage)}
            ready = [s for s in todo if not waiting & {dep.def_path for dep in s.deps}]
            yield from pool.map(lambda stage: _recomputed(pipeline.here, root, stage), ready)
            todo = [stage for stage in todo if stage not in ready]


def _recomputed(here: Path, root: Path, stage) -> Line:
    check = f"recomputed {rerun.name_of(stage)}"
    absent = rerun.absent(here, stage)
    if absent:
        return Line(NOT_CHECKED, check, f"artifacts of {_spoken(absent)} are not here, {REPRO}")
    try:
        rerun.run(here, stage)
    except InputError as error:
        return Line(FAILED, check, str(error))
    n, differ = rerun.differences(here, root, rerun.outs_of(stage))
    wrong = [
        str(
            InputError(
                told,
                "is not what its stage computes",
                expected="the same bytes",
                found="others",
                remedy=f"run dvc repro --force --single-item {rerun.name_of(stage)}"
                " and see what git diff says",
            )
        )
        for told in differ
    ]
    return _judged(check, wrong, f"{n} files are the same, byte for byte")


def retrained(pipeline: rerun.Pipeline, root: Path, seed: int) -> Line:
    """Repeat one training, drawn by ``seed``, without checkpoints."""
    drawn_from = pipeline.trainings()
    check = f"retrained (--seed {seed})"
    if not drawn_from:
        return Line(NOT_CHECKED, check, f"no cheap training and its data are here, {REPRO}")
    stage = rerun.draw(drawn_from, seed)
    check = f"retrained {rerun.name_of(stage)} (--seed {seed}, of {len(drawn_from)})"
    try:
        rerun.run(pipeline.here, stage, CUDA_VISIBLE_DEVICES="")
        n, differ = rerun.differences(pipeline.here, root, rerun.outs_of(stage))
        median, far, where = rerun.deviation(pipeline.here, root, rerun.outs_of(stage)[0])
    except InputError as error:
        return Line(FAILED, check, str(error))
    if not differ:
        return Line(OK, check, f"{n} files are the same, byte for byte")
    said = (
        f"{len(differ)} of {n} files have other bytes; what was logged differs by {median:.2g} in"
        f" the median, at most {far:.2g} at {where}"
    )
    if median <= rerun.TOLERANCE:
        return Line(OK, check, f"{said}; {rerun.TOLERANCE} is allowed on another processor")
    wrong = InputError(
        rerun.outs_of(stage)[0],
        "is not what its stage trains",
        expected=f"the same bytes, or a median difference within {rerun.TOLERANCE}",
        found=said,
        remedy=f"run dvc repro --force --single-item {rerun.name_of(stage)}",
    )
    return Line(FAILED, check, str(wrong))


def pages(root: Path) -> Iterator[Line]:
    """Compare the pages that quote results with what the results are."""
    with contextlib.chdir(root):
        for name, expected in PAGES.items():
            try:
                text = Path(name).read_text(encoding="utf-8")
                wrong = [] if expected(text) == text else [_first(name, text, expected(text))]
            except (InputError, OSError) as error:
                wrong = [str(error)]
            yield _judged(f"page {name}", wrong, "its numbers are those of the results")


def _first(name: str, text: str, expected: str) -> str:
    """Return a sentence about the first line that differs."""
    pairs = enumerate(zip_longest(text.splitlines(), expected.splitlines(), fillvalue=""), 1)
    number, (old, new) = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    begin = max(0, at - 20)
    return str(
        InputError(
            f"{name} line {number}",
            "is not what the results say",
            expected=f"'...{new[begin : at + 30]}...'",
            found=f"'...{old[begin : at + 30]}...'",
            remedy=f"run python -m stages.scoreboard.{Path(name).stem.lower()}",
        )
    )


def verify(root: Path, profiles: Sequence[str], *, quick: bool, seed: int) -> Iterator[Line]:
    """Run every check, the cheap ones first; see the head of this file.

    Parameters
    ----------
    profiles : those whose results are verified.
    quick : repeat no training.
    seed : draws the training.
    """
    yield committed(root)
    entries, unreadable = _entries(root)
    with contextlib.ExitStack() as copies:
        pipelines: dict[str, rerun.Pipeline] = {}
        broken: list[str] = []
        for profile in profiles:
            here = copies.enter_context(rerun.copy_of(root, profile))
            try:
                pipelines[profile] = rerun.Pipeline(here)
            except InputError as error:
                broken.append(str(error))
        known = {rerun.name_of(stage) for of in pipelines.values() for stage in of.stages}
        yield from listed(root, entries, unreadable, known)
        yield from stores(root, entries)
        if broken:
            yield _judged("pipeline", broken, "")
        yield from pages(root)
        for profile, pipeline in pipelines.items():
            yield current(pipeline, profile)
            yield from recomputed(pipeline, root)
            if not quick:
                yield retrained(pipeline, root, seed)


def _chosen(root: Path, wanted: str | None) -> list[str]:
    """Return the profiles that have results, or the one that is wanted.

    Raises
    ------
    InputError
        If it has none, or there are none.
    """
    have = sorted(path.name for path in (root / RESULTS).glob("*") if path.is_dir())
    known = list(load_params(root / "params.yaml")["profiles"])
    if wanted is None and have:
        return have
    if wanted in have:
        return [wanted]
    raise InputError(
        root / RESULTS,
        f"has no results of profile {wanted}" if wanted else "has no results",
        expected="a folder a profile",
        found=", ".join(have) or "none",
        remedy=REPRO if wanted in (None, *known) else suggestion(wanted, known),
    )


def main(argv: Sequence[str] | None = None, root: Path = Path()) -> int:
    """Run from the command line; return the status."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.scoreboard.verify",
        description="Hold every committed number against what it was made from.",
    )
    parser.add_argument("--quick", action="store_true", help="repeat no training")
    parser.add_argument("--profile", help="only its results; default: of every profile with any")
    parser.add_argument("--seed", type=int, help="draws the training; default: any")
    given = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    counts: dict[str, int] = dict.fromkeys((OK, FAILED, NOT_CHECKED), 0)
    try:
        for line in verify(
            root.resolve(), _chosen(root, given.profile), quick=given.quick, seed=seed
        ):
            print(line, flush=True)
            counts[line.status] += 1
    except InputError as error:
        print(f"error: verify: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
