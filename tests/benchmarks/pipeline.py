"""What a stage's process costs before it works, and a ``dvc repro`` that has nothing to do.

A stage is a process of its own. What each imports is measured as the processor's seconds from the
start of Python: nothing, NumPy as most scores need it, torch, and all that a training needs up to
its first update. ``torch._dynamo``, half of what comes on top of torch, is imported by
lightning_fabric.wrappers, and by any optimizer of torch when it is made. What ``make reproduce``
makes of that, by forking stages from a process that has the imports done, is measured by the wall
clock, the command being what DVC calls.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from timing import Settings, Way, compare

from stages.common.files import read_json
from stages.scoreboard.prefork import prefork

NOTHING_TO_DO = "Data and pipelines are up to date."


class NotMeasured(Exception):  # noqa: N818
    """It cannot be measured here; the message says why."""


def dvc(*arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"dvc {' '.join(arguments)}: {done.stderr.strip()[-200:]}")
    return done.stdout + done.stderr


def pipeline(settings: Settings, peak: Mapping) -> dict[str, dict]:
    """Repeat a ``dvc repro`` that runs nothing."""
    if shutil.which("dvc") is None:
        raise NotMeasured("dvc is not installed")
    if not Path("artifacts").is_dir():
        raise NotMeasured("there are no artifacts: nothing has been run in this checkout")
    if NOTHING_TO_DO not in dvc("repro", "--dry"):
        raise NotMeasured("dvc repro would run stages: some are out of date in this checkout")
    stages = [seconds for seconds, _ in recorded()]
    ways = {
        "repro": Way(lambda: lambda: dvc("repro"), "dvc repro, all stages up to date", apart=True),
        "start": Way(lambda: lambda: dvc("--version"), "the start of DVC alone", apart=True),
    }
    found = compare(
        ways,
        settings,
        what=f"dvc repro with nothing to do; {len(stages)} stages took"
        f" {sum(stages):.0f} s when they ran, without their processes' start",
        against=("start",),
    )
    seconds = found["ways"]["repro"]["seconds"]["median"]
    return {"dvc_no_op": found | {"share_of_a_whole_run": seconds / (seconds + sum(stages))}}


def recorded(profile: str = "embedded") -> list[tuple[float, str]]:
    """Return the seconds of the stages that ran, without their processes' start, longest first."""
    places = sorted(Path("reports/provenance", profile).glob("*/*.json"))
    records = [(read_json(p).get("seconds"), f"{p.parent.name}.{p.stem}") for p in places]
    return sorted(((s, name) for s, name in records if isinstance(s, float)), reverse=True)


UPDATE = (
    "import torch\n"
    "p = torch.nn.Parameter(torch.zeros(3)); o = torch.optim.Adam([p])\n"
    "p.grad = torch.ones(3); o.step()\n"
)
STARTS = {
    "train": (f"import stages.colourisation.train\n{UPDATE}", "a training, to its first update"),
    "optimizer": (UPDATE, "torch, to the first update of any optimizer"),
    "torch": ("import torch", "torch alone"),
    "score": ("import stages.colourisation.score", "a score, without torch"),
    "python": ("pass", "Python"),
}


def start(settings: Settings, peak: Mapping) -> dict:
    """Start the processes of stages."""
    ways = {
        name: Way(
            lambda code=code: lambda: subprocess.run([sys.executable, "-c", code], check=True), what
        )
        for name, (code, what) in STARTS.items()
    }
    what = "all papers: the start of a stage's process"
    few = replace(settings, repeats=min(settings.repeats, 5))
    return compare(ways, few, what=what, against=("torch",))


def forked(settings: Settings, peak: Mapping) -> dict:
    """Start a training's process by itself, and from one that has the imports done."""
    if shutil.which("nvidia-smi"):
        raise NotMeasured("a GPU is visible, so that stages start by themselves")
    before = Path.cwd()
    env = {name: value for name, value in os.environ.items() if name != "LAUNCH"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "training.py").write_text(STARTS["train"][0])
        os.chdir(folder)
        try:
            with prefork(env) as ready:
                command = [*ready["LAUNCH"].split(), "python", "-m", "training"]

                def call(words: list[str]) -> None:
                    subprocess.run(words, env=ready, check=True)

                call(command)  # waits for the server's imports
                what = "a training, to its first update"
                ways = {
                    "forked": Way(lambda: lambda: call(command), f"{what}, forked", apart=True),
                    "itself": Way(lambda: lambda: call(command[-3:]), what, apart=True),
                }
                few = replace(settings, repeats=min(settings.repeats, 5))
                said = "all papers: the start of a stage's process under make reproduce"
                return compare(ways, few, what=said, against=("itself",))
        finally:
            os.chdir(before)


ITEMS = {"start": start, "forked": forked, "pipeline": pipeline}
