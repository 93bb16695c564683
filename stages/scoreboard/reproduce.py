"""Run the pipeline, and say how far it is and about how long the rest takes.

``python -m stages.scoreboard.reproduce [--jobs N] [TARGET ...]`` is ``dvc repro [TARGET ...]``
with a line such as ``[12/58] colourisation train@bn_sn · about 9 min left`` before each stage that
runs. With N > 1 each stage is its own ``dvc repro --single-item``, started as soon as what it
reads is made, at most N at once; a stage that computes on a GPU gets one of its own. (A LAUNCH that
spreads one training over several GPUs, such as torchrun, goes with N = 1.)

What DVC makes of it is what it would make of ``dvc repro``: this only chooses when, and starts the
stages' processes quicker (:mod:`stages.scoreboard.prefork`), and first checks all parameters
(:mod:`stages.scoreboard.parameters`). A signal goes on to all that runs; the first failure starts
nothing new. The status is DVC's, of the first stage that failed; 128 + n if N > 1 and signal n
came.
"""

import argparse
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from stages.common.errors import InputError
from stages.common.stage import die_with_parent
from stages.scoreboard.parameters import with_parameters
from stages.scoreboard.plan import DvcException, Step, plan
from stages.scoreboard.prefork import prefork
from stages.scoreboard.progress import Progress, about

DVC = (sys.executable, "-m", "dvc")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.1  # seconds between two looks at what runs
GRACE = 20.0  # seconds from a signal until what still runs is killed


class Crew:
    """Processes side by side, each with its children a group; signals go on to all of them."""

    def __init__(self) -> None:
        self.members: dict[str, subprocess.Popen[bytes]] = {}
        self.signal = 0
        self._unfinished: dict[str, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._kill_at = float("inf")

    def __enter__(self):
        self._before = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.members.values():  # only if something was raised
            _send(process, signal.SIGKILL)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._selector.close()

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self._kill_at = min(self._kill_at, time.monotonic() + GRACE)
        for process in self.members.values():
            _send(process, number)

    def start(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        merge: bool = False,
        keep: Sequence[int] = (),
    ) -> None:
        """Start a process whose lines, with ``merge`` those of stderr too, come as events.

        It keeps the file descriptors ``keep`` open as long as it lives.
        """
        process = subprocess.Popen(
            command,
            env={**env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else None,
            process_group=0,
            preexec_fn=die_with_parent,
            pass_fds=keep,
        )
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        self.members[name], self._unfinished[name] = process, b""
        self._selector.register(process.stdout, selectors.EVENT_READ, name)
        if self.signal:  # it came in between
            _send(process, self.signal)

    def events(self) -> Iterator[tuple[str, str | int]]:
        """Wait a moment; yield (name, line) for what was written, (name, status) for each end."""
        for key, _ in self._selector.select(TICK):
            yield from self._lines(key.data)
        if time.monotonic() > self._kill_at:
            for process in self.members.values():
                _send(process, signal.SIGKILL)
        for name, process in list(self.members.items()):
            killed = time.monotonic() > self._kill_at
            if process.poll() is None or (self.signal and not killed and _send(process, 0)):
                continue
            yield from self._lines(name)
            if self._unfinished[name]:
                yield name, _text(self._unfinished[name])
            self._forget(process)
            del self.members[name], self._unfinished[name]
            yield name, process.returncode

    def _lines(self, name: str) -> Iterator[tuple[str, str]]:
        process = self.members[name]
        assert process.stdout
        while not process.stdout.closed:
            try:
                chunk = os.read(process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                self._forget(process)
                return
            *lines, self._unfinished[name] = (self._unfinished[name] + chunk).split(b"\n")
            for line in lines:
                yield name, _text(line)

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        if not process.stdout.closed:
            self._selector.unregister(process.stdout)
            process.stdout.close()


def _send(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal, or with 0 none, to a process's group; return whether anyone is there."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _text(line: bytes) -> str:
    return line.decode(errors="replace")


def _say(line: str) -> None:
    print(line, flush=True)


def _status(returncode: int) -> int:
    """Return a process's status as a shell does: 128 + n if signal n ended it."""
    return returncode if returncode >= 0 else 128 - returncode


def check(crew: Crew, steps: Sequence[Step], env: Mapping[str, str]) -> int:
    """Check the parameters of all steps; return 0, or the status to end with: nothing has run."""
    try:
        commands = with_parameters(step.command for step in steps) if steps else []
    except InputError as error:
        print(f"error: {error}\nnothing was started", file=sys.stderr, flush=True)
        return 2
    if not commands:
        return 0
    launch = [] if "LAUNCH" in os.environ else env.get("LAUNCH", "").split()  # ours alone
    python = "python" if launch else sys.executable
    crew.start("check", [*launch, python, "-m", "stages.scoreboard.parameters", *commands], env)
    status = 0
    while crew.members:
        for _, event in crew.events():
            if isinstance(event, int):
                status = _status(event)
            else:
                _say(event)
    if status:
        print("nothing was started", file=sys.stderr, flush=True)
    return status


def one_by_one(steps: Sequence[Step], targets: Sequence[str]) -> int:
    """Run ``dvc repro [TARGET ...]``, pass on what it says, and say how far it is."""
    progress = Progress(steps)
    returncode = 0
    with prefork(os.environ) as env, Crew() as crew:
        if status := check(crew, steps, env):
            return status
        crew.start("dvc", [*DVC, "repro", *targets], env)
        while crew.members:
            for _, event in crew.events():
                if isinstance(event, int):
                    returncode = event
                    continue
                if said := progress.hear(event):
                    _say(said)
                _say(event)
    if returncode and steps:
        _stopped(progress, progress.running)
    return _status(returncode)


def at_once(steps: Sequence[Step], jobs: int) -> int:
    """Run each step as soon as those before it are done, at most ``jobs`` at once."""
    progress = Progress(steps, jobs)
    waiting = {step.address: step for step in steps}
    labels = {step.address: step.label for step in steps}
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}
    gpus = visible_gpus()
    failed: dict[str, int] = {}
    with prefork({**threads, **os.environ}) as env, Crew() as crew:
        if status := check(crew, steps, env):
            return status
        while crew.members or (waiting and not failed and not crew.signal):
            for step in list(waiting.values()):
                if failed or crew.signal or len(crew.members) >= jobs:
                    break
                if step.after & progress.left.keys():
                    continue
                command = [*DVC, "--wait-for-lock", "repro", "--single-item", step.address]
                if not (gpus and step.gpu):
                    crew.start(step.address, command, env, merge=True)
                elif held := free_gpu(gpus):
                    gpu, lock = held
                    own = {**env, "CUDA_VISIBLE_DEVICES": gpu}
                    crew.start(step.address, command, own, merge=True, keep=[lock])
                    os.close(lock)  # DVC holds it now, until it ends
                else:
                    continue
                del waiting[step.address]
            for address, event in crew.events():
                if isinstance(event, str):
                    if said := progress.hear(event):
                        _say(said)
                    if shown := event.rpartition("\r")[2].rstrip():
                        _say(f"{labels[address]} | {shown}")
                elif event:
                    failed[address] = event
                else:
                    progress.finish(address)
    if failed or crew.signal:
        _stopped(progress, [labels[address] for address in failed])
        return _status(next(iter(failed.values()), 0)) if not crew.signal else 128 + crew.signal
    return 0


def _stopped(progress: Progress, labels: Sequence[str]) -> None:
    where = f" at {', '.join(labels)}" if labels else ""
    far = f"{progress.done} of {progress.total} stages done; the next run goes on from there"
    print(f"stopped{where}, {far}", file=sys.stderr, flush=True)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in map(str.strip, chosen.split(",")) if name not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.split() if found.returncode == 0 else []


def free_gpu(gpus: Sequence[str]) -> tuple[str, int] | None:
    """Take a GPU that no other stage of this user has; return it and the lock that holds it.

    The lock is a file descriptor; the GPU is free when every process that has it open has ended.
    """
    folder = Path(tempfile.gettempdir()) / f"gpu-locks-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for gpu in gpus:
        lock = os.open(folder / gpu.replace("/", "_"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return gpu, lock
    return None


def reproduce(targets: Sequence[str], jobs: int = 1) -> int:
    """Run what is missing or changed of the targets, default all; return the exit status."""
    try:
        steps = plan(targets)
    except DvcException:
        return one_by_one([], targets)  # stops with the same, and says it better
    if not steps:
        _say("Data and pipelines are up to date.")
        return 0
    seconds = Progress(steps, jobs).seconds_left()
    _say(
        f"stages to run, at most: {len(steps)}" + ("" if seconds is None else f", {about(seconds)}")
    )
    if jobs == 1:
        return one_by_one(steps, targets)
    if status := at_once(steps, jobs):
        return status
    if left := plan(targets):
        print(f"error: still not up to date: {', '.join(s.address for s in left)}", file=sys.stderr)
        return 1
    _say("Data and pipelines are up to date.")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.scoreboard.reproduce",
        description="dvc repro that says how far it is",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="as of dvc repro; default all")
    parser.add_argument("--jobs", type=_count, default=1, help="how many stages at once; default 1")
    given = parser.parse_args(argv)
    try:
        return reproduce(given.targets, given.jobs)
    except KeyboardInterrupt:  # before anything runs
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
