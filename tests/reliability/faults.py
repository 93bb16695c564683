"""Spoil a run in every way that machines and people do, for real, and see what is said.

``python tests/reliability/faults.py`` makes a copy of this checkout, runs two cheap stages of the
smoke profile, and then, for each fault in a copy of that copy: brings the fault about, runs
``dvc repro``, notes what is said, looks whether what was finished is whole, takes the cause away,
runs again (as ``make reproduce`` does) and compares with the run that nobody disturbed. Status 1 if
a sentence is not the expected one, something was lost, or a run could not be finished.

``--only disk_full,clock_jump`` tries some. What a fault needs (root, a mount) and does not find it
replaces by something weaker, and says so under "how".
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from expendable import ROOT, Checkout, Session

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.scoreboard.mend import mend
from stages.scoreboard.rehash import damaged

DONE = "stages/gan_transform/dvc.yaml:prepare"  # finished before the fault
VICTIM = "stages/gan_transform/dvc.yaml:train_target"  # runs into it
OUT = "artifacts/smoke/gan_transform"
STARTED = "train_target [smoke]: threads="  # the stage has said its parameters and begins
PATIENCE = 300.0
TMPFS = "size=400m"

Told = dict[str, Any]


def attempt(checkout: Checkout, targets: Sequence[str] = (VICTIM,), **environment: str) -> Session:
    """Run ``dvc repro`` to its end."""
    return checkout.finish(targets, **environment)


def until(session: Session, words: str) -> None:
    """Hear a session until it says ``words``.

    Raises
    ------
    SystemExit
        If it ends before.
    """
    end = time.monotonic() + PATIENCE
    while not any(words in line for line in session.said):
        session.listen(0.02)
        if session.over or time.monotonic() > end:
            raise SystemExit(f"never said {words!r}: {session.text()[-2000:]}")


@contextmanager
def held(session: Session) -> Iterator[psutil.Process]:
    """Hold the stage of a session at the begin of its work, as long as the context lasts."""
    until(session, STARTED)
    stage = session.stage_process()
    if stage is None:
        raise SystemExit(f"the stage was over too soon: {session.text()[-2000:]}")
    stage.suspend()
    try:
        yield stage
    finally:
        stage.resume()


def sentence(text: str) -> str:
    """Return what is said of the error: our sentence, else DVC's."""
    ours = [line for line in text.splitlines() if line.startswith("error: ")]
    dvc = [x for x in text.splitlines() if x.startswith("ERROR: ") or x.endswith(" is invalid.")]
    return next(iter([*ours, *dvc]), "nothing")


def ours(text: str) -> bool:
    """Tell whether exactly one sentence is ours, and no traceback is shown."""
    return sum(line.startswith("error: ") for line in text.splitlines()) == 1 and (
        "Traceback" not in text
    )


@contextmanager
def on_a_small_disk(checkout: Checkout) -> Iterator[tuple[Checkout, str]]:
    """Move a copy to a file system of its own, which can be filled; else leave it where it is."""
    disk = checkout.here.with_name(f"{checkout.here.name}-disk")
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", TMPFS, "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        yield checkout, "no mount allowed: RLIMIT_FSIZE of the stage, 1000 bytes"
        return
    try:
        yield checkout.copy(disk), f"tmpfs ({TMPFS}), filled to the last block"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False)


def fill(disk: Path) -> Path:
    """Fill a file system and return the file that does."""
    filler = disk / "filler.new"
    with filler.open("wb", buffering=0) as file:
        for block in (b"\0" * 65536, b"\0"):
            try:
                while file.write(block):
                    pass
            except OSError:
                continue
    return filler


def disk_full(checkout: Checkout) -> Told:
    """The disk is full when a stage writes its checkpoint or its out."""
    with on_a_small_disk(checkout) as (here, how):
        session = here.repro([VICTIM])
        filler = None
        with held(session) as stage:
            if here is checkout:
                stage.rlimit(psutil.RLIMIT_FSIZE, (1000, 1000))
            else:
                filler = fill(here.here)
        session.wait()
        damage = here.damage()
        if filler is not None:
            filler.unlink()
        return _after(here, session.text(), how, damage)


def disk_full_from_the_start(checkout: Checkout) -> Told:
    """The disk is full before DVC starts."""
    with on_a_small_disk(checkout) as (here, how):
        if here is checkout:
            return {"how": how, "not_tried": "it needs a file system of its own"}
        filler = fill(here.here)
        session = attempt(here)
        damage = here.damage()
        filler.unlink()
        return _after(here, session.text(), how, damage)


@contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """Make a folder read-only as long as the context lasts; permission bits do not bind root."""
    if os.geteuid():
        folder.chmod(0o555)
        try:
            yield "chmod 555"
        finally:
            folder.chmod(0o755)
        return
    commands = (
        (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]),
        (["chattr", "+i", folder],),
    )
    for steps, how in zip(commands, ("a read-only bind mount", "chattr +i"), strict=True):
        if not any(
            subprocess.run(step, capture_output=True, check=False).returncode for step in steps
        ):
            try:
                yield how
            finally:
                undo = ["umount", "--lazy"] if "mount" in how else ["chattr", "-i"]
                subprocess.run([*undo, folder], check=False)
            return
    raise SystemExit("root here can make no folder read-only: neither a bind mount nor chattr +i")


def read_only_out(checkout: Checkout) -> Told:
    """The folder of the stage's out cannot be written."""
    with read_only(checkout.here / OUT) as how:
        session = attempt(checkout)
    return _after(checkout, session.text(), how)


def read_only_checkpoints(checkout: Checkout) -> Told:
    """The folder of the checkpoints cannot be written."""
    folder = checkout.here / ".ckpt"
    folder.mkdir(exist_ok=True)
    with read_only(folder) as how:
        session = attempt(checkout)
    return _after(checkout, session.text(), how)


def deleted_cache(checkout: Checkout) -> Told:
    """DVC's cache is deleted; the workspace is as it was."""
    shutil.rmtree(checkout.here / ".dvc" / "cache")
    session = attempt(checkout)
    return _after(checkout, session.text(), "rm -r .dvc/cache")


def _train_npz(checkout: Checkout) -> tuple[Path, Path]:
    """Return a file of the finished stage and its object in the cache."""
    from stages.scoreboard.rehash import md5_file

    file = checkout.here / OUT / "prepare" / "train.npz"
    md5 = md5_file(file)
    return file, checkout.here / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def corrupted_cache(checkout: Checkout) -> Told:
    """One bit of a cached file flips, and the file has to come from the cache."""
    file, cached = _train_npz(checkout)
    _flip(cached)
    found = damaged(cached.parents[1], "delete it and run dvc repro")
    shutil.rmtree(file.parent)
    session = attempt(checkout)
    told = _after(checkout, session.text(), "one bit of the object; the out was deleted")
    return told | {"make_verify": " ".join(found).replace(str(checkout.here), ".")}


def silently_edited_out(checkout: Checkout) -> Told:
    """One bit of a finished out flips, and size and time stay as they were."""
    attempt(checkout, [DONE])  # DVC notes the file's hash, size and time
    file, _ = _train_npz(checkout)
    before = file.stat()
    _flip(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = checkout.damage()
    session = attempt(checkout)
    said = session.text()
    shutil.rmtree(file.parent)  # the remedy: the whole file comes from the cache
    told = _after(checkout, said, "one bit, then os.utime to the old time", [])
    return told | {"make_verify": " ".join(found)}


def clock_jump(checkout: Checkout) -> Told:
    """The clock jumps: DVC runs ten years from now, then ten years ago."""
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"), None)
    said, seconds = [], 10 * 365 * 86400
    for sign in "+-":
        if library is not None:
            fake = {"LD_PRELOAD": str(library), "FAKETIME": f"{sign}{seconds}"}
        else:
            fake = {}
            then = time.time() + (seconds if sign == "+" else -seconds)
            for path in (*checkout.here.glob("stages/**/*.py"), *checkout.here.glob(f"{OUT}/**/*")):
                os.utime(path, (then, then))
        session = checkout.finish([VICTIM], **fake)
        said.append(session.text())
    how = "libfaketime, +10 and -10 years" if library else "os.utime of code and outs, +-10 years"
    again = [name for name, _ in RUNS.findall("\n".join(said))]
    return _after(checkout, said[-1], how) | {"runs": again}


RUNS = re.compile(r"Running stage '(?:[^':]*:)?(\w+)(@\w+)'")


def two_at_once(checkout: Checkout) -> Told:
    """A second ``dvc repro`` is started while the first runs a stage."""
    first = checkout.repro([VICTIM])
    until(first, "Running stage")
    second = attempt(checkout)
    first.wait()
    return _after(checkout, second.text(), "two processes") | {
        "status_of_the_first": first.process.returncode
    }


def the_same_training_twice(checkout: Checkout) -> Told:
    """A stage's command is run by hand while DVC runs the same."""
    first = checkout.repro([VICTIM])
    until(first, STARTED)
    stage = first.stage_process()
    while not [*checkout.here.glob(".ckpt/*/lock")]:  # it holds the run from its first step on
        first.listen(0.001)
        if stage is None or first.over:
            raise SystemExit(f"it never held its checkpoint: {first.text()[-2000:]}")
    stage.suspend()
    command = [sys.executable, "-m", "stages.gan_transform.train_target"]
    paths = [f"{OUT}/prepare", f"{OUT}/train_target", "--profile", "smoke"]
    second = subprocess.run(
        [*command, *paths],
        cwd=checkout.here,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    stage.resume()
    first.wait()
    return _after(checkout, second.stderr, "SIGSTOP holds the first at its first step") | {
        "status_of_the_first": first.process.returncode
    }


def low_memory(checkout: Checkout) -> Told:
    """The stage may take no more memory than it has when it begins."""
    session = checkout.repro([VICTIM])
    with held(session) as stage:
        limit = stage.memory_info().vms
        stage.rlimit(resource.RLIMIT_AS, (limit, limit))
    session.wait()
    return _after(checkout, session.text(), "RLIMIT_AS at what the process has")


def truncated_lock(checkout: Checkout) -> Told:
    """A dvc.lock ends in the middle of a line, as after a kill or a full disk."""
    lock = checkout.here / "stages" / "gan_transform" / "dvc.lock"
    whole = lock.read_text(encoding="utf-8")
    lock.write_text(whole[: int(len(whole) * 0.8)].rstrip() + "\n      md5: [")
    session = attempt(checkout)
    said = session.text()
    mended = mend(checkout.here)
    told = _after(checkout, said, "the last fifth cut off")
    return told | {"mend_says": " ".join(mended)}


def _edit(path: Path, old: str, new: str) -> Callable[[], None]:
    """Change a file and return what changes it back."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise SystemExit(f"{path} has no {old!r}")
    path.write_text(text.replace(old, new, 1))
    return lambda: path.write_text(text) and None


def params_edited(checkout: Checkout) -> Told:
    """Somebody edits the stage's parameters while it runs."""
    session = checkout.repro([VICTIM])
    old = "train_target: {epochs: 1,"
    with held(session):
        undo = _edit(checkout.here / "params.yaml", old, old.replace("1", "2"))
    session.wait()
    undo()
    return _after(checkout, session.text(), "another epoch in params.yaml")


def code_edited(checkout: Checkout) -> Told:
    """Somebody edits the stage's code while it runs."""
    session = checkout.repro([VICTIM])
    with held(session):
        path = checkout.here / "stages" / "gan_transform" / "classifier.py"
        undo = _edit(path, "import", "# edited\nimport")
    session.wait()
    undo()
    return _after(checkout, session.text(), "a comment in classifier.py")


def interrupted(checkout: Checkout) -> Told:
    """Somebody presses Ctrl-C."""
    session = checkout.repro([VICTIM])
    with held(session):
        os.killpg(session.process.pid, signal.SIGINT)
    session.wait()
    return _after(checkout, session.text(), "SIGINT to the process group")


def _after(here: Checkout, said: str, how: str, damage: list[str] | None = None) -> Told:
    """Look what is whole, finish without the cause, and say what came of it."""
    lost = here.damage() if damage is None else damage
    orphans = here.orphans(10)
    mended = mend(here.here)
    last = attempt(here)
    repeated = [name for name, _ in RUNS.findall(last.text()) if name == "prepare"]
    return {
        "how": how,
        "said": sentence(said).replace(str(here.here), "."),
        "ours": ours(said),
        "lost": lost,
        "orphans": orphans,
        "mended": mended,
        "finished_afterwards": last.process.returncode == 0,
        "finished_stages_that_ran_again": repeated,
        "fingerprints": here.fingerprints() if last.process.returncode == 0 else {},
    }


# name -> (what brings it about, what must be said, whether finished work may be damaged by it)
FAULTS: dict[str, tuple[Callable[[Checkout], Told], str, bool]] = {
    "disk_full": (disk_full, r"^error: .*(No space left|File too large)", False),
    "disk_full_from_the_start": (disk_full_from_the_start, r"No space left|disk is full", False),
    "read_only_out": (read_only_out, r"^error: .*(Read-only|not permitted|denied)", False),
    "read_only_checkpoints": (read_only_checkpoints, r"^error: .*set CKPT_DIR", False),
    "deleted_cache": (deleted_cache, r"", False),
    "corrupted_cache": (corrupted_cache, r"", True),
    "silently_edited_out": (silently_edited_out, r"^error: .*damaged file", True),
    "clock_jump": (clock_jump, r"", False),
    "two_at_once": (two_at_once, r"^ERROR: .*(busy|lock)", False),
    "the_same_training_twice": (the_same_training_twice, r"^error: .*is in use", False),
    "low_memory": (low_memory, r"^error: .*memory", False),
    "truncated_lock": (truncated_lock, r"dvc\.lock' is invalid", False),
    "params_edited": (params_edited, r"^error: .*was edited while the stage ran", False),
    "code_edited": (code_edited, r"^error: .*was edited while the stage ran", False),
    "interrupted": (interrupted, r"^error: .*interrupted", False),
}


def judge(told: Told, words: str, damages: bool, whole: dict[str, str]) -> list[str]:
    """Return what is wrong with how a fault went."""
    if "not_tried" in told:
        return []
    wrong = []
    if not re.search(words, told["said"]):
        wrong.append(f"it does not say {words!r}")
    if words.startswith("^error") and not told["ours"]:
        wrong.append("not one sentence of ours without a traceback")
    for key in ("lost", "finished_stages_that_ran_again"):
        if told[key] and not damages:
            wrong.append(f"{key}: {told[key]}")
    if told["orphans"] or not told["finished_afterwards"]:
        wrong.append("it could not be finished, or a process lived on")
    differs = [k for k in whole if told["fingerprints"].get(k) != whole[k]]
    if differs:
        wrong.append(f"differs: {', '.join(differs)}")
    if told.get("status_of_the_first", 0):
        wrong.append("the first run was disturbed")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return the status."""
    parser = argparse.ArgumentParser(prog="python tests/reliability/faults.py")
    parser.add_argument("--only", help=f"some of {', '.join(FAULTS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/reliability/faults.json")
    given = parser.parse_args(argv)
    names = given.only.split(",") if given.only else list(FAULTS)
    begun, results, failed = time.monotonic(), {}, []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        top = Path(folder).resolve()
        base = Checkout(top / "base", "smoke")
        first = base.finish([DONE])
        whole = base.copy(top / "whole")
        if first.process.returncode or whole.finish([VICTIM]).process.returncode:
            raise SystemExit(first.text()[-3000:])
        expected = whole.fingerprints()
        for name in names:
            bring, words, damages = FAULTS[name]
            try:
                told = bring(base.copy(top / name))
            except InputError as error:
                told = {"how": "", "not_tried": str(error)}
            wrong = judge(told, words, damages, expected)
            told.pop("fingerprints", None)
            results[name] = {
                "what": " ".join((bring.__doc__ or "").split()),
                **told,
                "wrong": wrong,
            }
            failed += [name] * bool(wrong)
            print(f"{name}: {'; '.join(wrong) or 'ok'}; {told.get('said', told)}", flush=True)
    write_json(
        given.out,
        {"faults": results, "failed": failed, "seconds": time.monotonic() - begun},
    )
    print(f"{len(results)} faults: {', '.join(failed) or 'none'} went wrong; wrote {given.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
