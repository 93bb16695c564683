"""What ``dvc repro`` costs when there is nothing to do, and how much of it is DVC's own."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from timing import Settings, Way, compare

from stages.common.files import read_json

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
    places = sorted(Path("reports/provenance/embedded").glob("*/*.json"))
    records = [read_json(path) for path in places]
    stages = [r["seconds"] for r in records if isinstance(r.get("seconds"), float)]
    ways = {
        "repro": Way(lambda: lambda: dvc("repro"), "dvc repro, all stages up to date", apart=True),
        "start": Way(lambda: lambda: dvc("--version"), "the start of DVC alone", apart=True),
        "python": Way(
            lambda: lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            "the start of Python alone",
            apart=True,
        ),
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


ITEMS = {"pipeline": pipeline}
