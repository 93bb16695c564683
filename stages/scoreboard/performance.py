"""Fill docs/performance.md with what was measured; ``python -m stages.scoreboard.performance``.

The figures stand in reports/bench/cpu.json, written by ``make bench``, each way beside the others
in the same run. A block of the page lies between ``<!-- before_after:begin -->`` and
``<!-- before_after:end -->``; what has not been measured says so.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import read_json, write_text
from stages.scoreboard.blocks import filled

PAGE = Path("docs") / "performance.md"
MEASURED = Path("reports") / "bench" / "cpu.json"

# entry of the benchmark -> what was changed, and the commit that did it; what compares with other
# things than the same without our changes stands in reports/bench/cpu.md alone
A_BATCH = ("all images of a batch in one indexing", "4455551")
CLASSIFIER = ("images in memory, channels last", "4455551")
GAN = ("images in memory, fused Adam", "4455551")
COLOURS = ("upsampling and convolution in one, Lab once", "bbb8e42")
SPARSE = ("descriptors kept sparse, 132 bytes a keypoint", "2df0c59")
CORES = ("a process a core", "2df0c59")
CHANGES = {
    "forked": ("stages fork from a process whose imports are done", "d9c8a2b"),
    "resnet18": CLASSIFIER,
    "resnet18_width64": CLASSIFIER,
    "gan_transform": GAN,
    "gan_attack_unet": GAN,
    "gan_attack_shared": GAN,
    "cipher_tanaka": A_BATCH,
    "cipher_pe_same": A_BATCH,
    "cipher_pe_diff": A_BATCH,
    "cipher_pe_same_shuffle": A_BATCH,
    "cipher_pe_diff_shuffle": A_BATCH,
    "sift_extraction": CORES,
    "sift_extraction_and_placement": CORES,
    "sift_placement": ("placed in two phases, all cells at once", "2df0c59"),
    "sift_write": SPARSE,
    "sift_read": SPARSE,
    "sift_train": ("phi of the originals once", "2df0c59"),
    "sift_refine": ("phi of the originals once", "2df0c59"),
    "deep_reconstruct": ("shortcuts pooled before their convolution, fused Adam", "d709188"),
    "colourisation_bn": COLOURS,
    "colourisation_bn_sn": COLOURS,
    "colourisation_bn_sn_md": COLOURS,
    "bootstrap": ("resampled means as one product", "9d012ea"),
}


def seconds(value: float) -> str:
    """Write seconds in a unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def row(name: str, entry: Mapping[str, Any]) -> str:
    """Return an entry's line: before, after, how many times as fast, the target."""
    ours = entry["ways"][entry["ours"]]
    faster = ours["times_as_fast_as"]
    other = entry.get("baseline", next(iter(faster), None))
    if other is None or "not_measured" in entry["ways"][other]:
        return ""
    before, ratio = entry["ways"][other], faster[other]
    change, commit = CHANGES[name]
    wanted = "–"
    if "target" in entry:
        wanted = f"{entry['target']:g}, {'reached' if entry['reached'] else '**not** reached'}"
    return (
        f"| `{name}` | {change} | `{commit}` | {before['what']} |"
        f" {seconds(before['seconds']['median'])} | {seconds(ours['seconds']['median'])} |"
        f" {ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}] | {wanted} |"
    )


def table(found: Mapping[str, Any]) -> str:
    """Return what was measured, a line an entry."""
    device, run = found["device"], found["run"]
    quiet = max(run["load_before"][0], run["load_after"][0]) <= 0.5 + 0.5 * device["cores"]
    head = (
        f"{device['cores']} cores, {device['processor']}, {device['instruction_set']}; medians of"
        f" {run['repeats']} rounds, [least, largest] ratio; {'little' if quiet else 'something'}"
        " else ran on the machine."
    )
    lines = [row(name, found["items"][name]) for name in CHANGES if name in found["items"]]
    missing = [f"- not measured: `{name}`: {why}" for name, why in found["not_measured"].items()]
    return "\n".join(
        [
            head,
            "",
            "| entry | what was changed | commit | before | takes | now | times as fast | target |",
            "|---|---|---|---|---|---|---|---|",
            *filter(None, lines),
            *([""] if missing else []),
            *missing,
        ]
    )


def rendered(text: str, measured: Path = MEASURED) -> str:
    """Return the page's text with its table.

    Raises
    ------
    InputError
        If the page has no place for it, or the JSON lacks what it tells.
    """
    block = table(read_json(measured)) if measured.exists() else "Not yet measured."
    return filled(text, "before_after", block, PAGE)


if __name__ == "__main__":
    try:
        write_text(PAGE, rendered(PAGE.read_text(encoding="utf-8")))
    except InputError as error:
        sys.exit(f"error: performance: {error}")
