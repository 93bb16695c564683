"""A training that kills itself by SIGKILL at a step, in a process of its own, and is run again.

``python tests/killing.py REQUEST.json`` is that process; the tests of five trainings use it.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Killable:
    """A stage's function on these inputs, with these parameters.

    Parameters
    ----------
    folder : everything is written below it.
    stage : "paper.verb": the function ``verb`` of the module ``stages.paper.verb``.
    run : the name of the out's folder.
    steps_in : the module that calls ``fit``, if it is another one.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        inputs: Sequence[Path],
        run: str,
        keys: Mapping[str, object],
        steps_in: str | None = None,
    ):
        self.folder, self.stage, self.run = folder, stage, run
        self.inputs, self.keys, self.steps_in = inputs, keys, steps_in or stage

    def prepared(
        self, name: str, *, at: int | None = None, label: str = ""
    ) -> tuple[list[str], dict[str, str], Path]:
        """Return the command and environment of a run below ``folder / name``, and its out.

        It is killed before step ``at`` of what has ``label``. Checkpoints fall on every entry of
        the log and are found again by the next run of the same name.
        """
        out = self.folder / name / self.stage.partition(".")[2] / self.run
        request = self.folder / "request.json"
        words = {"stage": self.stage, "steps_in": self.steps_in, "at": at, "label": label}
        paths = [str(path) for path in (*self.inputs, out)]
        request.write_text(json.dumps({**words, "paths": paths, "keys": dict(self.keys)}))
        env = {
            **os.environ,
            "CKPT_DIR": str(self.folder / name / "ckpt"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        return [sys.executable, __file__, str(request)], env, out

    def go(self, name: str, **killed: object) -> tuple[subprocess.CompletedProcess[str], Path]:
        """Run what :meth:`prepared` gives; return the finished process and the out."""
        command, env, out = self.prepared(name, **killed)
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done, out

    def cut_and_whole(self, *, at: int, label: str = "") -> tuple[str, Path]:
        """Run it whole, killed, and again; the bytes must be those of the whole.

        Returns what the resumed run said, and its out.
        """
        first, whole = self.go("whole")
        assert first.returncode == 0, first.stderr[-3000:]
        killed, cut = self.go("cut", at=at, label=label)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        assert not cut.exists()
        resumed, _ = self.go("cut")
        assert resumed.returncode == 0, resumed.stderr[-3000:]
        names = sorted(file.name for file in whole.iterdir())
        assert names == sorted(file.name for file in cut.iterdir())
        for name in names:
            assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
        assert not list((self.folder / "cut" / "ckpt").iterdir())
        return resumed.stdout, cut


def main(request: Path) -> None:
    """Carry out a request."""
    asked = json.loads(request.read_text())
    home = importlib.import_module(f"stages.{asked['steps_in']}")
    whole = home.fit

    def fit(step, **kwargs):
        def counted(i):
            if i == asked["at"] and asked["label"] in kwargs["label"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(i)

        return whole(counted, **{**kwargs, "save_seconds": 0.0})

    home.fit = fit
    stage = importlib.import_module(f"stages.{asked['stage']}")
    verb = asked["stage"].partition(".")[2]
    getattr(stage, verb)(*map(Path, asked["paths"]), **asked["keys"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
