"""Measure how far a training goes apart on a processor with a narrower instruction set.

``python tests/reliability/tolerance.py`` repeats embedded trainings whose models are here with the
vector instructions of torch, oneDNN and MKL switched off, which adds in another order as another
processor does, and writes how far what they logged differs: reports/reliability/tolerance.json.
``stages.scoreboard.verify`` allows ``rerun.TOLERANCE``.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stages.common.files import write_json  # noqa: E402
from stages.scoreboard import rerun  # noqa: E402

NARROW = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}
# of every paper; the ones that log accuracies of few images go apart most
TRAININGS = (
    "gan_transform/dvc.yaml:train_target@embedded",
    "gan_transform/dvc.yaml:attack@embedded-plain",
    "deep_features/dvc.yaml:train_reid@embedded-sbs",
    "sift_inversion/dvc.yaml:train@embedded-B5",
    "colourisation/dvc.yaml:train@embedded-l1_only",
)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python tests/reliability/tolerance.py")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/reliability/tolerance.json")
    out, found = parser.parse_args().out, {}
    with rerun.copy_of(ROOT, "embedded") as here:
        known = {rerun.name_of(stage): stage for stage in rerun.Pipeline(here).trainings()}
        for name in TRAININGS:
            stage = known[f"stages/{name}"]
            rerun.run(here, stage, CUDA_VISIBLE_DEVICES="", **NARROW)
            files, differ = rerun.differences(here, ROOT, rerun.outs_of(stage))
            median, largest, where = rerun.deviation(here, ROOT, rerun.outs_of(stage)[0])
            found[name] = {
                "files": files,
                "differ": len(differ),
                "median": median,
                "largest": largest,
                "where": where.split(" in ")[0],
            }
            print(f"{name}: {found[name]}", flush=True)
    how = ", ".join(f"{key}={value}" for key, value in NARROW.items())
    write_json(out, {"how": how, "trainings": found})


if __name__ == "__main__":
    main()
