"""Kill ``dvc repro`` again and again, and see that nothing is lost and nothing differs.

``python tests/reliability/kill.py --kills 100 --seed 1`` runs the pipeline of a profile in a copy
of this checkout once as it is, then in a second copy with SIGKILL at random moments of random
stages: to DVC alone, to the stage's process alone, or to the whole process group. A kill falls
after a random part of the time that the stage took, or at the moment when its checkpoint, its out
or a lock is being written. After each it looks for processes that live on, for locks that are half
written, and for finished outs that are not whole; then it goes on as ``make reproduce`` does
(stages.scoreboard.mend, dvc repro). At the end everything is compared, byte for byte, with the run
that nobody disturbed. Status 1 if anything was wrong.

``--stages gan_transform:prepare,gan_transform:train_target`` runs only these and what they need.
With ``--forked`` stages fork from a process with its imports done, as under ``make reproduce``; the
process that is killed as "the stage" is then the one that DVC started and waits for.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from expendable import ROOT, Checkout, Session

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.scoreboard.mend import freed, mend

HOW = ("dvc", "stage", "group")
# share of the kills -> when; a file that does not come is given up after the expected time
MOMENTS = {"time": 0.55, "checkpoint": 0.2, "out": 0.15, "lock": 0.1}
LATEST = 1.15  # of the expected time: some kills fall into what DVC does after the stage
PATIENCE = 10.0  # seconds that a process may live on after the kill
POLL = 0.0005  # seconds between two looks for a file
ATTEMPTS = 3  # to go on after a kill, before it counts as blocked
SESSIONS = 6  # of dvc repro for each kill: more, and it goes round without getting on


@dataclass
class Kill:
    """A kill that is planned for a stage."""

    stage: str
    how: str
    moment: str
    after: float  # seconds; the latest moment if it waits for a file


def plan(seconds: dict[str, float], kills: int, seed: int, moments: dict[str, float]) -> list[Kill]:
    """Spread ``kills`` evenly over the stages, in random order."""
    draw = random.Random(seed)
    stages = sorted(seconds)
    victims = [
        stage for _ in range(-(-kills // len(stages))) for stage in draw.sample(stages, len(stages))
    ]
    planned = []
    for stage in victims[:kills]:
        moment = draw.choices(list(moments), list(moments.values()))[0]
        part = draw.uniform(0, LATEST) if moment == "time" else LATEST
        planned.append(Kill(stage, draw.choice(HOW), moment, part * seconds[stage]))
    return planned


def durations(session: Session) -> dict[str, float]:
    """Return the seconds from the begin of each stage to that of the next."""
    begun = [*session.running, ("", time.monotonic())]
    return {
        stage: following - at for (stage, at), (_, following) in zip(begun, begun[1:], strict=False)
    }


def watcher(moment: str, checkout: Checkout, out: str | None) -> Callable[[], bool]:
    """Return a function that tells whether the file that a kill waits for is being written."""
    here = checkout.here
    if moment == "checkpoint":
        before = set((here / ".ckpt").rglob("*state.pt*"))
        return lambda: any(p not in before for p in (here / ".ckpt").rglob("*state.pt*"))
    if moment == "out" and out is not None:
        path = here / out
        return lambda: path.is_file() or (path.is_dir() and any(path.iterdir()))
    if moment == "lock":
        paths = [
            here / "dvc.lock",
            *(p.with_name("dvc.lock") for p in here.glob("stages/*/dvc.yaml")),
        ]

        def state() -> list[tuple[int, int]]:
            return [(s.st_mtime_ns, s.st_size) for p in paths if p.exists() for s in [p.stat()]]

        begin = state()
        return lambda: state() != begin
    return lambda: False


@dataclass
class Found:
    """What one kill did."""

    stage: str
    how: str
    moment: str
    inside: str
    seconds: float


def attend(
    session: Session, checkout: Checkout, todo: list[Kill], outs: dict[str, str]
) -> Found | None:
    """Hear a session until a planned kill of one of its stages is due, and carry it out."""
    while not session.over:
        stage = session.listen(0.2)
        kill = next((k for k in todo if k.stage == stage), None)
        if kill is None:
            continue
        todo.remove(kill)
        begun = time.monotonic()
        due, seen = begun + kill.after, watcher(kill.moment, checkout, outs.get(kill.stage))
        while time.monotonic() < due and not seen() and session.process.poll() is None:
            session.listen(0)
            time.sleep(POLL)
        if session.process.poll() is not None:
            kill.after /= 2  # it was too late, and comes earlier the next time
            todo.append(kill)
            continue
        inside = "stage" if session.stage_process() is not None else "dvc"
        met = kill.moment if time.monotonic() < due else "time"
        at = time.monotonic() - begun
        current = session.running[-1][0]
        how = session.kill(kill.how)
        session.process.wait()  # not for the end of what it says: an orphan would keep that open
        return Found(current, how, met, inside, at)
    return None


def disturb(
    checkout: Checkout,
    targets: Sequence[str],
    todo: list[Kill],
    outs: dict[str, str],
    until: float = float("inf"),
) -> dict:
    """Run the pipeline to its end although it is killed; return what was found.

    ``until`` is the time (of time.monotonic) after which no kill is begun.
    """
    log: list[Found] = []
    orphans, damaged, lost, repeated, blocked, leftovers = [], [], [], [], [], set()
    rwlocks = half = repaired = stale = resumed = restored = sessions = failures = 0
    cut: set[str] = set()  # finished stages whose lock a kill cut off
    forced: set[str] = set()  # finished stages that were begun again, to be killed
    most, complete = SESSIONS * (len(todo) + 1), False
    while True:
        # only when all is there: what a killed stage was making anew, the others would miss
        again = todo[0].stage if complete else None
        more = ("--force", "--single-item") if again else ()
        forced |= {again} if again else set()
        finished = checkout.stages() - forced
        session = checkout.repro([again] if again else targets, *more)
        sessions += 1
        complete = False
        found = attend(session, checkout, todo, outs)
        if found is not None:
            orphans += [f"{found.stage}: {command}" for command in checkout.orphans(PATIENCE)]
        session.wait()
        said = session.text()
        stale += said.count("had been killed. Auto removed")
        restored += said.count("is cached - skipping run")
        resumed += said.count(": resuming ")
        names = {name for name, _ in session.running}
        repeated += sorted(names & (finished - forced))
        lost += sorted(name for name in names & cut if outs[name].startswith("artifacts/"))
        cut -= names
        if time.monotonic() > until:
            todo.clear()
        if sessions >= most and todo:
            blocked.append(f"{len(todo)} kills were never carried out: {todo}"[:500])
            todo.clear()
        if found is None:
            complete = session.process.returncode == 0
            if complete:
                cut.clear()  # what did not run was in the run cache
            if complete and not todo:
                break
            if not complete:
                failures += 1
                blocked.append(said[-500:])
                repaired += _mend(checkout)
                if failures > ATTEMPTS:
                    break
            continue
        failures = 0
        log.append(found)
        print(f"{len(log)}: {found}", flush=True)
        leftovers |= set(checkout.leftovers())
        rwlocks += len(freed(checkout.here))
        try:
            left = checkout.stages()
        except InputError as error:
            print(error, flush=True)
            repaired += _mend(checkout)
            left = checkout.stages()
        half += bool(finished - left)
        cut |= finished - left
        damaged += checkout.damage(forced | {found.stage})
    return {
        "kills": len(log),
        "hits": dict(sorted(Counter(found.stage for found in log).items())),
        "how": dict(Counter(found.how for found in log)),
        "moments": dict(Counter(found.moment for found in log)),
        "inside": dict(Counter(found.inside for found in log)),
        "log": [[f.stage, f.how, f.moment, f.inside, f.seconds] for f in log],
        "sessions": sessions,
        "resumed_from_a_checkpoint": resumed,
        "restored_from_the_run_cache": restored,
        "orphans": orphans,
        "damaged": damaged,
        "lost": lost,
        "repeated": repeated,
        "blocked": blocked,
        "locks_that_lost_entries": half,
        "repaired_locks": repaired,
        "removed_rwlocks": rwlocks,
        "stale_locks_that_dvc_removed": stale,
        "leftovers": sorted(leftovers),
    }


def _mend(checkout: Checkout) -> int:
    """Do what ``make reproduce`` does first; return how many locks were mended."""
    told = mend(checkout.here)
    print("\n".join(told), end="\n" * bool(told), flush=True)
    return len(told)


def target(name: str) -> str:
    """Return what DVC calls ``paper:stage``."""
    paper, _, stage = name.partition(":")
    return f"stages/{paper}/dvc.yaml:{stage}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return the status."""
    parser = argparse.ArgumentParser(prog="python tests/reliability/kill.py")
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no kill after these")
    parser.add_argument("--stages", help="paper:stage,... (default: the whole pipeline)")
    parser.add_argument("--forked", action="store_true", help="as make reproduce starts stages")
    parser.add_argument("--moments", help=f"some of {','.join(MOMENTS)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/reliability/kill.json")
    given = parser.parse_args(argv)
    targets = [target(name) for name in given.stages.split(",")] if given.stages else []
    wanted = given.moments.split(",") if given.moments else list(MOMENTS)
    moments = {name: MOMENTS[name] for name in wanted}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        whole = Checkout(Path(folder).resolve() / "whole", given.profile)
        killed = whole.copy(Path(folder).resolve() / "killed")
        with whole.forking() if given.forked else nullcontext():
            undisturbed = whole.finish(targets)
        if undisturbed.process.returncode:
            raise SystemExit(undisturbed.text()[-3000:])
        seconds = durations(undisturbed)
        took = time.monotonic() - begun
        print(f"undisturbed: {len(seconds)} stages in {took:.0f} s", flush=True)
        outs = whole.outs()
        todo = plan(seconds, given.kills, given.seed, moments)
        with killed.forking() if given.forked else nullcontext():
            facts = disturb(killed, targets, todo, outs, begun + 60 * given.minutes)
        a, b = whole.fingerprints(), killed.fingerprints()
        differences = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    wrong = [key for key in ("orphans", "damaged", "lost", "repeated", "blocked") if facts[key]] + [
        "differences"
    ] * bool(differences)
    write_json(
        given.out,
        {
            **facts,
            "profile": given.profile,
            "forked": given.forked,
            "seed": given.seed,
            "stages": len(seconds),
            "compared": len(a),
            "differences": differences,
            "seconds": time.monotonic() - begun,
            "seconds_undisturbed": took,
            "cpus": os.cpu_count(),
        },
    )
    print(f"{facts['kills']} kills: {', '.join(wrong) or 'nothing lost'}; wrote {given.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
