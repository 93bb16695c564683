"""A copy of this checkout in which a run may be killed and spoilt, and what is whole in it."""

import hashlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for `python tests/reliability/kill.py`

from stages.scoreboard.prefork import prefork  # noqa: E402
from stages.scoreboard.rehash import Entry, parse, rehash  # noqa: E402

RUNNING = re.compile(r"Running stage '([^']+)'")
SERVER = "stages.scoreboard.prefork"
FINISHED = re.compile(r"Updating lock file '([^']+)'")


class Checkout:
    """A copy of what git knows or would add, with ``profile`` active and nothing run.

    The copy has no locks: those of the other profiles only make DVC slower.
    """

    def __init__(self, here: Path, profile: str):
        self.here, self.profile = here, profile
        self.mark = uuid.uuid4().hex  # in the environment of every process that is started here
        self.launch = ""
        self._parsed: dict[Path, tuple[str, list[Entry]]] = {}
        for name in self._run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT):
            source = ROOT / name
            if source.is_file() and source.name != "dvc.lock":
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, here / name)
        for made in (here / "reports" / "results", here / "reports" / profile):
            shutil.rmtree(made, ignore_errors=True)
        params = here / "params.yaml"
        text = params.read_text(encoding="utf-8")
        params.write_text(re.sub(r"(?m)^profile: *\w+", f"profile: {profile}", text, count=1))
        self._configure()
        self._run("git", "init", "-q")
        self._run("dvc", "pull", "-q", "data.dvc")

    def copy(self, here: Path) -> "Checkout":
        """Return a copy of this copy, models and cache included."""
        shutil.copytree(self.here, here, symlinks=True, dirs_exist_ok=True)
        other = object.__new__(Checkout)
        other.here, other.profile = here, self.profile
        other.mark, other.launch, other._parsed = uuid.uuid4().hex, "", {}
        other._configure()
        return other

    def _configure(self) -> None:
        own = f"[core]\n    site_cache_dir = {self.here}/.dvc/site\n"
        (self.here / ".dvc" / "config.local").write_text(own)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of everything that runs here."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("LAUNCH", "CKPT_DIR")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return inherited | {
            "PATH": path,
            "PYTHONPATH": str(self.here),
            "PYTHONUNBUFFERED": "1",
            "RELIABILITY": self.mark,
            **more,
        }

    def _run(self, *command: str, cwd: Path | None = None) -> list[str]:
        done = subprocess.run(
            command,
            cwd=cwd or self.here,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.splitlines()

    @contextmanager
    def forking(self) -> Iterator[None]:
        """Let the stages fork from a process with its imports done, as ``make reproduce`` does."""
        before = Path.cwd()
        os.chdir(self.here)
        try:
            with prefork(self.environment()) as env:
                os.chdir(before)
                self.launch = env["LAUNCH"]
                yield
        finally:
            os.chdir(before)
            self.launch = ""

    def repro(self, targets: Sequence[str] = (), *more: str, **environment: str) -> "Session":
        """Start ``dvc repro``."""
        launch = {"LAUNCH": self.launch} if self.launch else {}
        return Session(["dvc", "repro", *targets, *more], self, launch | environment)

    def finish(self, targets: Sequence[str] = (), *more: str, **environment: str) -> "Session":
        """Run ``dvc repro`` to its end."""
        session = self.repro(targets, *more, **environment)
        session.wait()
        return session

    def processes(self) -> list[psutil.Process]:
        """Return the live processes that were started here, whoever is their parent now.

        The server of :meth:`forking`, a child of this process, is none of them.
        """
        found = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and _is_server(process):
                    continue
                if alive and process.environ().get("RELIABILITY") == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def orphans(self, patience: float) -> list[str]:
        """Return the commands of processes that live on after ``patience`` seconds, and end them.

        Only what was started here is ended, each by its id.
        """
        until = time.monotonic() + patience
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.2)
        told = []
        for process in left:
            try:
                told.append(" ".join(process.cmdline())[:200])
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return told

    def locks(self) -> list[Path]:
        """Return the locks that exist."""
        return sorted([*self.here.glob("dvc.lock"), *self.here.glob("stages/*/dvc.lock")])

    def entries(self) -> list[Entry]:
        """Return what the locks list.

        Raises
        ------
        InputError
            If one of them is half written.
        """
        found = []
        for path in self.locks():
            text = path.read_text(encoding="utf-8")
            known = self._parsed.get(path)
            if known is None or known[0] != text:  # parsing takes a second
                known = text, parse(text, str(path.relative_to(self.here)))
                self._parsed[path] = known
            found += known[1]
        return found

    def damage(self, but: Collection[str] = ()) -> list[str]:
        """Return a sentence for every out in a lock that is not whole or not there.

        Those of the stages in ``but`` may be: they were being made anew.
        """
        outs = [e for e in self.entries() if e.kind == "outs" and _spoken(e) not in but]
        done = rehash(outs, self.here)
        return [*done.wrong, *(f"{name} is gone" for name in done.absent)]

    def stages(self) -> set[str]:
        """Return the names of the stages that the locks list, as DVC says them."""
        return {_spoken(entry) for entry in self.entries()}

    def outs(self) -> dict[str, str]:
        """Return {stage: its first out}."""
        entries = [entry for entry in self.entries() if entry.kind == "outs"]
        return {_spoken(entry): entry.path for entry in reversed(entries)}

    def fingerprints(self) -> dict[str, str]:
        """Return {path: hash} of all outs in the locks, and of every file of results and pages."""
        found = {entry.path: entry.md5 for entry in self.entries() if entry.kind == "outs"}
        for folder in ("reports/results", f"reports/{self.profile}"):
            for file in sorted((self.here / folder).rglob("*")):
                if file.is_file():
                    name = str(file.relative_to(self.here))
                    found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def leftovers(self) -> list[str]:
        """Return the files that git would add, of those that no finished run leaves."""
        listed = self._run("git", "ls-files", "-o", "--exclude-standard")
        return [
            name
            for name in listed
            if any(part.startswith(".render-") for part in Path(name).parts)
            or name.endswith(".new")
        ]


def _is_server(process: psutil.Process) -> bool:
    return process.ppid() == os.getpid() and SERVER in process.cmdline()


def _spoken(entry: Entry) -> str:
    """Return the name of a stage as DVC says it when it begins: those of dvc.yaml have no path."""
    return entry.stage if entry.lock == "dvc.lock" else entry.maker


class Session:
    """One ``dvc repro``: what it says, with the time, as it says it."""

    def __init__(self, command: list[str], checkout: Checkout, environment: dict[str, str]):
        self.process = subprocess.Popen(
            command,
            cwd=checkout.here,
            env=checkout.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.said: list[str] = []
        self.running: list[tuple[str, float]] = []  # the stages begun, and when
        self._lines: queue.Queue[tuple[float, str] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put((time.monotonic(), line.rstrip("\n")))
        self._lines.put(None)

    def listen(self, seconds: float) -> str | None:
        """Wait for a line for at most ``seconds``; return the stage that it says is begun."""
        try:
            item = self._lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            return None
        if item is None:
            self._lines.put(None)
            time.sleep(min(seconds, 0.05))
            return None
        at, line = item
        self.said.append(line)
        match = RUNNING.search(line)
        if match:
            self.running.append((match[1], at))
            return match[1]
        return None

    @property
    def over(self) -> bool:
        """Whether the process has ended and all that it said was heard."""
        return self.process.poll() is not None and self._heard()

    def _heard(self) -> bool:
        with self._lines.mutex:
            return not self._lines.queue or self._lines.queue[0] is None

    def wait(self) -> int:
        """Hear it to its end; return the status."""
        while not self.over:
            self.listen(0.5)
        return self.process.returncode

    def stage_process(self) -> psutil.Process | None:
        """Return the process of the stage that runs, if one does."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return None
        return children[0] if children else None

    def kill(self, how: str) -> str:
        """Kill by SIGKILL: "dvc" alone, the "stage" alone, or the "group"; return what was hit."""
        stage = self.stage_process()
        if how == "stage" and stage is not None:
            stage.kill()
            return "stage"
        if how == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
            return "group"
        self.process.kill()
        return "dvc"

    def text(self) -> str:
        """Return all that it said."""
        return "\n".join(self.said)
