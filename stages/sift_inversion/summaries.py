"""The numbers of every run and floor, of partial inputs, of ablations and of the keypoints.

A *cell* below is {"value", "lo", "hi", "seeds": [one value each], "n": images that have a value}.
Intervals cover the images and, of runs, the luck of the seeds. What was not measured is not there.

<run>.json: flat, so that ``dvc metrics`` shows it. <metric> a number, <metric>_ci [lo, hi] and
<metric>_seeds lists; n and id1_chance (per cent).

table.json: {"level", "metrics": [{"name", "unit", "better": "lower" | "higher" | null}],
"apart": "size 64 instead of 256, ..." (where we differ from the paper, "" if nowhere),
"rows": [{"name", "kind": "run" | "floor", "set", "n", "id1_chance", "values": {metric: cell}}],
"missing": {run: why}}. A run's row also has "stage": "train" | "refine", "inputs": [4, 2], "loss",
"phi" (name or null), "images_seen", "trained_on", "collapsed": seeds whose discriminator won. Rows
are in the order of ``RUNS``, a set's floors behind its runs.

partial.json: {"run": name or null, "set", "level", "full": [{"condition", "values": {metric:
cell}}], "boxes": [{"condition", "mode", "place", "f", "removed", "values"}], "keeps":
[{"condition", "p", "removed", "values"}], "sigmas": [{"condition", "half": "above" | "below",
"removed", "values"}]}. ``full``, of all keypoints, is one or none: a list, which ``dvc metrics``
leaves out, as the run's own file shows the same. ``removed`` is the mean share of the keypoints,
or null. ``boxes`` are sorted by mode, place and f, ``keeps`` by p. A box's values have psnr, pd and
log_sharp each _in and _out, too; on the same pixels pd_in_full and pd_out_full of all keypoints,
pd_in_mean and pd_in_mean_colour of the floors pasted there.

ablation.json: {"level", "axes": [{"axis", "what", "rows": [{"first", "second", "change", "set",
"effects": {metric: {"first", "second", "difference": second - first, "lo", "hi", "better": true |
false | null (the interval reaches both sides, or no side is better)}}, "missing": why or null}]}]}.
The pairs are ``PAIRS``, the metrics ``COMPARED``.

keypoints.json: {set: {"n", "without": images that have none, "per_image": cell, "same_point": cell,
"occupancy": {"4": cell, "2": cell}, "collisions": {...}, "dropped": {...}}}: of the test images;
occupancy is a share of the cells, the others are shares of an image's keypoints.

claims.json: {"verdicts": {id: verdict}, "details": [{"id", "statement", "source", "verdict",
"reason", "effect", "lo", "hi", "unit", "n", "seeds", "parts": [{"name", "effect", "lo", "hi",
"verdict"}], "table1": null}]}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.common.claims import Estimate, MissingEvidenceError, Paper
from stages.sift_inversion.claims import Evidence
from stages.sift_inversion.evaluations import FULL, OF_BOXES, OF_REGIONS, REGIONS, Arrays
from stages.sift_inversion.keypoints import SCALES
from stages.sift_inversion.partial import parse_box

RUNS = (
    *("B5", "B5_128", "R4_L2", "R4_J", "R2_J", "R44_J", "R42_L2", "R42_J_nostyle", "R42_J_half"),
    *("R42_J", "R42_N", "R4_G", "R42_G", "M_R42_J", "M_R42_G"),
)
FLOORS = ("mean", "mean_colour", "other", "grey", "blur")
LOWER, HIGHER = "lower", "higher"
METRICS: dict[str, tuple[str, str | None]] = {  # metric -> unit, which side is better
    "psnr": ("dB", HIGHER),
    "ssim": ("", HIGHER),
    "mae": ("levels", LOWER),
    "nerr": ("", LOWER),
    "ssim_y": ("", HIGHER),
    "chroma_error": ("levels", LOWER),
    "pd": ("", LOWER),
    "log_sharp_abs": ("", LOWER),
    "log_sharp": ("", None),  # 0 is as sharp as the original, below it blurrier
    "dcos": ("", HIGHER),
    "dmatch": ("", HIGHER),
    "kpr": ("", HIGHER),
    "id1": ("%", HIGHER),
    "fd": ("", LOWER),
    "chk": ("", LOWER),
    "r_cb": ("", HIGHER),
    "r_cr": ("", HIGHER),
    **{
        f"{metric}_{region}": {"psnr": ("dB", HIGHER), "pd": ("", LOWER)}.get(metric, ("", None))
        for region in REGIONS
        for metric in OF_REGIONS
    },
    "pd_gap_equal": ("", None),  # pd(face) - pd(rest) at equal keypoints and gradients
}
COMPARED = ("pd", "log_sharp_abs", "psnr", "ssim_y", "dcos", "dmatch", "kpr", "id1", "fd", "chk")
CURVES = ("psnr", "ssim", "pd", "log_sharp_abs", "dcos", "dmatch", "kpr", "id1")
PAIRS = {  # axis -> what it is, and the runs compared: first, second, what the second changes
    "loss": (
        "the loss of R",
        [
            ("R4_L2", "R4_J", "perceptual and style terms, one scale"),
            ("R42_L2", "R42_J", "perceptual and style terms, two scales"),
            ("R42_J_nostyle", "R42_J", "style term"),
        ],
    ),
    "scales": (
        "the maps that R is fed with",
        [
            ("R4_J", "R2_J", "2 px in place of 4 px"),
            ("R4_J", "R44_J", "a second network on the same map"),
            ("R4_J", "R42_J", "a second network on the map of 2 px"),
            ("R44_J", "R42_J", "2 px in place of 4 px in the second network"),
            ("R4_G", "R42_G", "a second network on the map of 2 px, both refined"),
        ],
    ),
    "adversary": (
        "the second stage",
        [
            ("R42_J", "R42_N", "G without adversary"),
            ("R42_J", "R42_G", "G and adversary"),
            ("R42_N", "R42_G", "adversary"),
            ("R4_J", "R4_G", "G and adversary, one scale"),
            ("M_R42_J", "M_R42_G", "G and adversary, eight categories"),
        ],
    ),
    "input": (
        "what the baseline is told of a keypoint",
        [("B5_128", "B5", "scale, angle and offset in the cell")],
    ),
    "data": ("training images", [("R42_J_half", "R42_J", "twice the images")]),
    "method": (
        "the baseline's network and ours",
        [
            ("B5", "R4_L2", "R's network, the descriptor alone"),
            ("B5", "R42_J", "the coarse network of the paper"),
            ("B5", "R42_G", "the whole method"),
        ],
    ),
}
Counts = Mapping[str, int]  # metric -> images that have a value


def in_order(names: Sequence[str], order: Sequence[str]) -> list[str]:
    """Sort by the order, and what it does not name behind it by name."""
    rank = {name: i for i, name in enumerate(order)}
    return sorted(names, key=lambda name: (rank.get(name, len(order)), name))


def differences(paper: Paper, setting: Mapping[str, Any]) -> str:
    """Say in words where our setting is not the paper's; empty if it is the same."""
    apart = [
        f"{key} {setting.get(key)} instead of {value}"
        for key, value in paper.setting.items()
        if setting.get(key) != value
    ]
    return ", ".join(apart)


def _cell(estimate: Estimate, level: float, n: int) -> dict[str, Any]:
    lo, hi = estimate.interval(level)
    return {"value": estimate.value, "lo": lo, "hi": hi, "seeds": list(estimate.seeds), "n": n}


def _measured(evidence: Evidence, run: str) -> dict[str, Estimate]:
    return {m: evidence(run, m) for m in METRICS if m in evidence.scores[run]}


def summarise(evidence: Evidence, run: str) -> dict[str, Any]:
    """Return the flat JSON of a run."""
    n = evidence.images(run)
    found: dict[str, Any] = {"n": n, "id1_chance": 100 / n}
    for metric, estimate in _measured(evidence, run).items():
        found[metric] = estimate.value
        found[f"{metric}_ci"] = list(estimate.interval(evidence.level))
        found[f"{metric}_seeds"] = list(estimate.seeds)
    return found


def table(
    evidence: Evidence, counts: Mapping[str, Counts], paper: Paper, setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all runs and floors in all metrics.

    Parameters
    ----------
    counts : run, or "<set>-<floor>" -> metric -> images that have a value, where not all have.
    setting : what ``paper.setting`` says of the paper, of ours.
    """

    def row(name: str, image_set: str, values: Mapping[str, Estimate], of: Counts) -> dict:
        n = evidence.n[image_set]
        return {
            "name": name,
            "set": image_set,
            "n": n,
            "id1_chance": 100 / n,
            "values": {m: _cell(e, evidence.level, of.get(m, n)) for m, e in values.items()},
        }

    rows = []
    for image_set in evidence.n:
        of_set = [name for name, run in evidence.runs.items() if run.image_set == image_set]
        for name in in_order(of_set, RUNS):
            run = evidence.runs[name]
            rows.append(
                {
                    **row(name, image_set, _measured(evidence, name), counts.get(name, {})),
                    "kind": "run",
                    "stage": "refine" if run.refined else "train",
                    "inputs": list(run.inputs),
                    "loss": run.loss,
                    "phi": run.phi,
                    "images_seen": evidence.seen[name],
                    "trained_on": evidence.trained_on[name],
                    "collapsed": list(run.collapsed),
                }
            )
        for floor in in_order(list(evidence.floors.get(image_set, {})), FLOORS):
            found = evidence.floors[image_set][floor]
            values = {m: found[m] for m in METRICS if m in found}
            of = counts.get(f"{image_set}-{floor}", {})
            rows.append({**row(floor, image_set, values, of), "kind": "floor"})
    return {
        "level": evidence.level,
        "metrics": [{"name": m, "unit": u, "better": b} for m, (u, b) in METRICS.items()],
        "apart": differences(paper, setting),
        "rows": rows,
        "missing": dict(evidence.missing),
    }


def partial(
    evidence: Evidence, counts: Mapping[str, Counts], removed: Mapping[str, float]
) -> dict[str, Any]:
    """Return what a part of the keypoints gives.

    Parameters
    ----------
    counts : run or condition -> metric -> images that have a value, where not all have.
    removed : condition -> mean share of the keypoints that were removed, where known.
    """
    found: dict[str, Any] = {"run": evidence.partial_run, "level": evidence.level}
    kinds: dict[str, list[dict[str, Any]]] = {"boxes": [], "keeps": [], "sigmas": []}
    if evidence.partial_run is None:
        return {**found, "set": None, "full": [], **kinds}
    run = evidence.partial_run
    n = evidence.images(run)
    for condition, scores in evidence.partial.items():
        entry = {
            "condition": condition,
            "removed": removed.get(condition),
            "values": {
                m: _cell(
                    evidence.part(condition, m),
                    evidence.level,
                    counts.get(condition, {}).get(m, n),
                )
                for m in (*CURVES, *OF_BOXES)
                if m in scores
            },
        }
        kind, _, rest = condition.partition("-")
        box = parse_box(condition)
        if box is not None:
            kinds["boxes"].append({**entry, **dict(zip(("mode", "place", "f"), box, strict=True))})
        elif kind == "keep":
            kinds["keeps"].append({**entry, "p": float(rest)})
        else:
            kinds["sigmas"].append({**entry, "half": rest})
    kinds["boxes"].sort(key=lambda box: (box["mode"], box["place"], box["f"]))
    kinds["keeps"].sort(key=lambda keep: keep["p"])
    values = {
        m: _cell(e, evidence.level, counts.get(run, {}).get(m, n))
        for m, e in _measured(evidence, run).items()
    }
    full = [{"condition": FULL, "values": values}]
    return {**found, "set": evidence.runs[run].image_set, "full": full, **kinds}


def _effect(evidence: Evidence, first: str, second: str, metric: str) -> dict[str, Any]:
    a, b = evidence(first, metric), evidence(second, metric)
    lo, hi = (b - a).interval(evidence.level)
    side = METRICS[metric][1]
    luck = min(len(a.seeds), len(b.seeds)) < 2  # one seed: the interval does not know its luck
    better = None if luck or side is None or lo <= 0 <= hi else (hi < 0) == (side == LOWER)
    return {
        "first": a.value,
        "second": b.value,
        "difference": b.value - a.value,
        "lo": lo,
        "hi": hi,
        "better": better,
    }


def ablation(evidence: Evidence) -> dict[str, Any]:
    """Return the effect of each change of ``PAIRS`` in the metrics ``COMPARED``."""
    axes = []
    for axis, (what, pairs) in PAIRS.items():
        rows = []
        for first, second, change in pairs:
            row: dict[str, Any] = {"first": first, "second": second, "change": change}
            try:
                for name in (first, second):
                    evidence.raw(name, "pd")
                shared = [
                    m for m in COMPARED if all(m in evidence.scores[r] for r in (first, second))
                ]
                row |= {
                    "set": evidence.runs[second].image_set,
                    "effects": {m: _effect(evidence, first, second, m) for m in shared},
                    "missing": None,
                }
            except MissingEvidenceError as missing:
                row |= {"set": None, "effects": {}, "missing": str(missing)}
            rows.append(row)
        axes.append({"axis": axis, "what": what, "rows": rows})
    return {"level": evidence.level, "axes": axes}


def keypoints(
    estimates: Mapping[str, Estimate], crowding: Arrays, *, level: float
) -> dict[str, Any]:
    """Return how many keypoints a set's test images have, and how crowded the maps are.

    Parameters
    ----------
    estimates, crowding : the means, and the images, of what ``evaluations.read_crowding`` counts.
    """
    n = crowding["keypoints"].shape[1]

    def cell(name: str) -> dict[str, Any] | None:
        present = int(np.count_nonzero(np.isfinite(crowding[name])))
        return _cell(estimates[name], level, present) if name in estimates else None

    return {
        "n": n,
        "without": int(np.count_nonzero(crowding["keypoints"] == 0)),
        "per_image": cell("keypoints"),
        "same_point": cell("same_point"),
        **{
            what: {str(d): cell(f"{what}_{d}") for d in SCALES}
            for what in ("occupancy", "collisions", "dropped")
        },
    }
