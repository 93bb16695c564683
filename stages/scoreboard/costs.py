"""Write what the authors' scale costs into docs/gpu_and_clusters.md.

``python -m stages.scoreboard.costs`` replaces what stands between the marks. The operations were
counted (reports/bench/flops.json, by tests/benchmarks/flops.py). Hours are these divided by the
speed that a device reached in the same paper's training step, of every device of which
``make bench`` wrote a file into reports/bench; no speed is assumed.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import read_json, write_text
from stages.scoreboard.blocks import filled

PAGE, BENCH = Path("docs/gpu_and_clusters.md"), Path("reports/bench")
COUNTED = "flops.json"
LETTERS = {"gan_transform": "A", "sift_inversion": "B", "deep_features": "C", "colourisation": "D"}
CLASSIFIER = ("resnet18_width64",)
STEPS = {  # of tests/benchmarks/steps.py, whose speed is taken; of several the range is given
    ("gan_transform", "train_target"): CLASSIFIER,  # the same loop, VGG13 in it
    ("gan_transform", "transform"): ("gan_transform",),
    ("gan_transform", "attack"): ("gan_attack_unet", "gan_attack_shared"),
    ("gan_transform", "classify"): CLASSIFIER,
    ("sift_inversion", "train"): ("sift_train",),
    ("sift_inversion", "refine"): ("sift_refine",),
    ("deep_features", "train_reid"): CLASSIFIER,  # not timed: the nearest that is
    ("deep_features", "reconstruct"): ("deep_reconstruct",),
    ("colourisation", "train"): (
        "colourisation_bn",
        "colourisation_bn_sn",
        "colourisation_bn_sn_md",
    ),
}
SECONDS, GIGA, PETA = 3600, 1e9, 1e15
COUNT = f"""\
Operations of the trainings of profile `paper`, [counted](../{BENCH / COUNTED}) by
`python tests/benchmarks/flops.py` with torch's FlopCounterMode on a few images (one multiply-add is
two operations) and multiplied by the images that they see, all variants and seeds together. Not
counted: what is no training, attribute heads, validation on the way."""
HOURS = """\
Hours are these operations divided by the operations a second that a device reached in training
steps of this repository, listed below, not at this scale but at that of profile `embedded` (a
processor) or `gpu` (a GPU); other sizes of images, networks and batches may be several times
faster or slower. The two stages that have no step of their own, `train_target` and `train_reid`,
take the speed of ResNet-18's."""
NO_GPU = """\
No GPU has been measured so far; `make bench ARGS="--device cuda"` on one, and then
`python -m stages.scoreboard.costs`, add its column."""


def number(value: float | int) -> str:
    """Write three digits, or a whole number with thousands separators."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def span(values: Sequence[float | int]) -> str:
    """Write the least and the largest, once if they read the same."""
    least, most = number(min(values)), number(max(values))
    return least if least == most else f"{least} to {most}"


def devices(folder: Path) -> list[Mapping[str, Any]]:
    """Return what ``make bench`` measured, processors first."""
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    found = [of for of in found if {"device", "run", "items"} <= set(of)]
    return sorted(found, key=lambda of: of["device"]["gpu"] != "none used")


def named(device: Mapping[str, Any]) -> str:
    """Return what computes: the GPU, or one core, since the steps are timed on one."""
    facts = device["device"]
    return f"one core of {facts['processor']}" if facts["gpu"] == "none used" else facts["gpu"]


def operations(runs: Mapping[str, Mapping[str, Any]]) -> float:
    """Return all operations of a stage's trainings."""
    return sum(run["flop_per_image"] * run["images"] * run["trainings"] for run in runs.values())


def step_speed(device: Mapping[str, Any], name: str) -> float | None:
    """Return the operations a second of our way of a step; None if it was not measured."""
    if name not in device["items"]:
        return None
    timed = device["items"][name]
    rate = timed["ways"][timed["ours"]].get("GFLOP_per_s")
    return None if rate is None else rate * GIGA


def hours(
    device: Mapping[str, Any], paper: str, stage: str, runs: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return a cell; "at least" where bfloat16 was timed and the profile asks for 32 bits."""
    names = [name for name in STEPS[paper, stage] if step_speed(device, name) is not None]
    if not names:
        return "not measured"
    found = [operations(runs) / (step_speed(device, name) or 1) / SECONDS for name in names]
    timed_bf16 = any("bf16" in device["items"][name]["what"] for name in names)
    wants_32 = any(run["precision"] == "32-true" for run in runs.values())
    return ("at least " if timed_bf16 and wants_32 else "") + span(found)


def row(paper: str, stage: str, runs: Mapping[str, Mapping[str, Any]], timed: list) -> str:
    """Return a stage's line."""
    cells = [
        f"{LETTERS[paper]} `{stage}`",
        f"{sum(run['trainings'] for run in runs.values()):,}",
        span([run["flop_per_image"] / GIGA for run in runs.values()]),
        span([run["images"] for run in runs.values()]),
        number(operations(runs) / PETA),
        *(hours(device, paper, stage, runs) for device in timed),
    ]
    return f"| {' | '.join(cells)} |"


def speeds(timed: list[Mapping[str, Any]]) -> list[str]:
    """Return the table of the steps whose speeds were taken."""
    lines = ["| device | step | GFLOP a second | of its measured peak |", "|---|---|---|---|"]
    for device in timed:
        for name in dict.fromkeys(name for names in STEPS.values() for name in names):
            rate = step_speed(device, name)
            if rate is None:
                lines.append(f"| {named(device)} | {name} | not measured | |")
                continue
            of = device["items"][name]
            share = of["ways"][of["ours"]]["share_of_peak"]
            cells = [named(device), of["what"], number(rate / GIGA), f"{100 * share:.0f} %"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(folder: Path = BENCH) -> str:
    """Return the text and the tables from the files in ``folder``.

    Raises
    ------
    InputError
        If a file is damaged, or lacks what is told of it.
    """
    papers, timed = read_json(folder / COUNTED)["papers"], devices(folder)
    head = ["stage", "trainings", "GFLOP an image", "images of a training", "PFLOP in all"]
    head += [f"hours on {named(device)}" for device in timed]
    parts = [
        COUNT,
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(row(paper, stage, papers[paper][stage], timed) for paper, stage in STEPS),
        "",
    ]
    if timed:
        parts += [HOURS, "", *speeds(timed), ""]
    if all(device["device"]["gpu"] == "none used" for device in timed):
        parts += [NO_GPU, ""]
    return "\n".join(parts)


if __name__ == "__main__":
    try:
        write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), "costs", table(), PAGE))
    except InputError as error:
        sys.exit(f"error: costs: {error}")
