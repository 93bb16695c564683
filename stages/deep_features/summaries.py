"""The numbers of every black box on every set, of encryption, of the attacks and of the keys.

An *estimate* below is {"value", "lo", "hi", "seeds": [one value each]}. Intervals cover the test
identities (of attacks: the requests) and the luck of the seeds. What was not measured is not there.

<model>-<set>.json: flat, so that ``dvc metrics`` shows it. <name> a number, <name>_ci [lo, hi] and
<name>_seeds lists, names as ``FLAT`` says; ba_<attribute>; n, chance (mean of 1 / K).

table.json: {"level", "apart": where we differ from the paper, "" if nowhere, "models", "sets":
{set: {"n", "ids", "real", "attribution", "tasks": [{"name", "classes", "present": classes that
occur in test, "identities": of each class, "smallest": share in training, or null}]}}, "cells":
[{"name", "model", "set", "missing": {stage: why}, "tasks": {attribute: {"ba": estimate, "chance",
"null": {"mean", "lo", "hi"}, "ba5": estimate or null, "chance5", "best": estimate}}, "settings":
{setting: {"mean": estimate, "chance"}}, "reconstructions": {name: {measure: estimate}}, "original":
{"hf", "peak"}, "recipes": {loss: how its generators were trained}}], "reid": [{"model", "set", "n":
queries, "rank1", "mAP", "mINP": estimates in per cent}], "zoo": {model: {metric: FastReID's}},
"missing": [cells of which there is nothing]}. ``null`` is the middle band of identities with
permuted labels, as wide as the intervals.

iiid.json (Sec. III-D): {"level", "keys": random keys, "rows": [{"cell", "condition", "mean":
estimate, "chance", "tasks": {attribute: {"ba": estimate, "chance"}}, "distance": estimate or null,
"images": test images}], "retrieval": [{"cell", "plain", "hamming": estimates}], "ones": [{"cell",
"popcount", "leading", "mutual": bits}], "nan": [{"cell", "mean", "q95", "max"}], "weak": [{"cell",
"keys", "share", "limit", "median", "q95", "max", "sorted": |cosines| of single keys}]}.
Conditions: ``CONDITIONS``; attacked and unattacked are of the attacked images alone.

attacks.json: {"level", "synthetic": [{"kind", "dims", "n", "median": of
the cosine, "centred", "lowest", "highest": of the centred cosine}],
"cells": [{"cell", "attacks": {name: {"n": requests, "measures": {measure: estimate of the median},
"share_95": estimate, "q10", "lowest": of centred cosines}}, "ll": {"best", "mean": estimates or
null}, "attributes": null or {"n": images, "attacked", "plain", "difference": estimates, "same":
share of equal predictions, "returns": "yes" | "no" | "open"}, "distance": null or {"attacked",
"plain", "difference"}}]}. Names of attacks are those of stage cryptanalyse: co-<reference>-<scope>,
hungarian, profile, kpa-K<floats>, control-*.

keyspace.json: {"widths": [{"width", "keys": decimal digits, "log2"}], "effective": {"keys",
"log2"}, "example": ``facts.example``, "checks": ``facts.check`` or null}.

claims.json: as of the other papers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.common.claims import Estimate, Paper, Verdict, at_least, decide
from stages.deep_features.claims import GUESS, MAIN, Evidence
from stages.deep_features.estimates import identities_of_classes
from stages.deep_features.evaluations import (
    FLOORS,
    MADE,
    MEASURES,
    OF_REQUESTS,
    Cell,
    LocalSet,
    attacks_of,
)

MODELS = ("bot", "agw", "sbs")
PLAIN = "headline"
CONDITIONS = (PLAIN, "right", "wrong", "popcount", "own", "unattacked", "attacked")
OF_CONDITIONS = {  # condition -> its reconstruction's distance
    PLAIN: "distance/fr_adv",
    "right": "distance/right",
    "wrong": "distance/wrong",
    "attacked": "distance/attacked",
    "unattacked": "distance/unattacked",
}
FLAT = {  # name -> metric
    "ba_mean": "ba/headline",
    "ba_popcount": "ba/popcount",
    "ba_wrong_key": "ba/wrong",
    "ba_own_key": "ba/own",
    "ba_attacked": "ba/attacked",
    "ba_unattacked": "ba/unattacked",
    **{
        f"distance_{name}": f"distance/{name}"
        for name in (*MADE, "floor", "other", "mean", "wrong")
    },
    "attacked_cos_median": f"cos/{MAIN}",
    "attacked_centred_median": f"centred/{MAIN}",
    "guess_cos_median": f"cos/{GUESS}",
    "ll_gap": "ll/best",
    "rank1_hamming": "rank1/hamming",
}
WIDTHS = (8, 16, 32, 64)
BITS = 32
LEADING = 9  # sign and exponent of binary32
SHARE = (0.0, 1.0)
BOUNDS = {  # of a metric by its head: no interval goes beyond
    **dict.fromkeys(("ba", "ba5", "best", "imbalanced", "rank1", "share_95"), SHARE),
    **dict.fromkeys(("sign_ok", "exponent_ok", "hf"), SHARE),
    **dict.fromkeys(("cos", "cos_min", "abs_cos", "mean cos", "ssim"), (-1.0, 1.0)),
    **dict.fromkeys(("centred", "mean centred"), (-1.0, 1.0)),
    "reid": (0.0, 100.0),  # per cent
    "distance": (0.0, 2.0),
    "prefix_bits": (0.0, 23.0),
}
RETURNS = 0.02  # ours: a loss of balanced accuracy that does not matter
RETURNED: dict[Verdict, str] = {"supported": "yes", "contradicted": "no"}


def in_order(names: Sequence[str], order: Sequence[str]) -> list[str]:
    """Sort by the order, and what it does not name behind it by name."""
    rank = {name: i for i, name in enumerate(order)}
    return sorted(names, key=lambda name: (rank.get(name, len(order)), name))


def differences(paper: Paper, setting: Mapping[str, Any]) -> str:
    """Say in words where our setting is not the paper's; empty if it is the same."""

    def words(value: object) -> str:
        return " and ".join(map(str, value)) if isinstance(value, list) else str(value)

    apart = [
        f"{key} {words(setting.get(key))} instead of {words(value)}"
        for key, value in paper.setting.items()
        if setting.get(key) != value
    ]
    return ", ".join(apart)


def _interval(estimate: Estimate, level: float, metric: str) -> list[float]:
    """Return the interval, within the metric's bounds: the seeds' spread does not know them."""
    low, high = BOUNDS.get(metric.partition("/")[0], (-math.inf, math.inf))
    return [min(max(end, low), high) for end in estimate.interval(level)]


def record(estimate: Estimate, level: float, metric: str = "") -> dict[str, Any]:
    """Return an estimate as JSON; ``metric`` names its bounds."""
    lo, hi = _interval(estimate, level, metric)
    return {"value": estimate.value, "lo": lo, "hi": hi, "seeds": list(estimate.seeds)}


def _found(e: Evidence, cell: str, metric: str) -> dict[str, Any] | None:
    if metric not in e.scores.get(cell, {}):
        return None
    return record(e(cell, metric), e.level, metric)


def summarise(e: Evidence, cell: str) -> dict[str, Any]:
    """Return the flat JSON of a cell."""
    own = e.scores[cell]
    names = {name: metric for name, metric in FLAT.items() if metric in own}
    names |= {f"ba_{m.rpartition('/')[2]}": m for m in own if m.startswith(f"ba/{PLAIN}/")}
    found: dict[str, Any] = {"n": e.n[cell]}
    if "ba/headline" in e.chance.get(cell, {}):
        found["chance"] = e.chance[cell]["ba/headline"]
    for name, metric in names.items():
        estimate = e(cell, metric)
        found[name] = estimate.value
        found[f"{name}_ci"] = _interval(estimate, e.level, metric)
        found[f"{name}_seeds"] = list(estimate.seeds)
    return found


# ---------------------------------------------------------------- table


def _set(of: LocalSet, attribution: object) -> dict[str, Any]:
    tasks = []
    for i, task in enumerate(of.tasks):
        counts = identities_of_classes(of.labels[:, i], of.pids, len(task.classes))
        tasks.append(
            {
                "name": task.name,
                "classes": list(task.classes),
                "present": int(of.present(i).sum()),
                "identities": counts.tolist(),
                "smallest": of.smallest.get(task.name),
            }
        )
    return {
        "n": len(of.pids),
        "ids": len(np.unique(of.pids)),
        "real": of.real,
        "attribution": str(attribution or ""),
        "tasks": tasks,
    }


def _cell(
    e: Evidence,
    cell: Cell,
    null: Mapping[str, np.ndarray],
    recipes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return a cell's row of table.json; ``null``: attribute -> accuracies of permuted labels."""
    name, chance = cell.name, e.chance.get(cell.name, {})
    own = e.scores.get(name, {})
    tasks = {}
    for metric in own:
        head, _, attribute = metric.partition(f"ba/{PLAIN}/")
        if head or not attribute:
            continue
        tail = (1 - e.level) / 2
        lo, hi = np.quantile(null[attribute], [tail, 1 - tail]).tolist()
        tasks[attribute] = {
            "ba": _found(e, name, metric),
            "chance": chance[metric],
            "null": {"mean": float(null[attribute].mean()), "lo": lo, "hi": hi},
            "ba5": _found(e, name, f"ba5/{PLAIN}/{attribute}"),
            "chance5": chance.get(f"ba5/{PLAIN}/{attribute}"),
            "best": _found(e, name, f"best/{PLAIN}/{attribute}"),
        }
    settings = {
        setting: {"mean": _found(e, name, f"ba/{setting}"), "chance": chance[f"ba/{setting}"]}
        for setting in cell.predictions
        if f"ba/{setting}" in own
    }
    made = {}
    for reconstruction in (*MADE, *FLOORS):
        found = {m: _found(e, name, f"{m}/{reconstruction}") for m in MEASURES}
        made[reconstruction] = {m: value for m, value in found.items() if value}
    original = {m: cell.images.get(f"{m}_original") for m in ("hf", "peak")}
    return {
        "name": name,
        "model": cell.model,
        "set": cell.image_set,
        "missing": dict(cell.missing),
        "tasks": tasks,
        "settings": settings,
        "reconstructions": {n: of for n, of in made.items() if of},
        "original": {m: float(v.mean()) for m, v in original.items() if v is not None},
        "recipes": {loss: dict(of) for loss, of in recipes.items()},
    }


def table(
    e: Evidence,
    cells: Sequence[Cell],
    sets: Sequence[LocalSet],
    null: Mapping[str, Mapping[str, np.ndarray]],
    reid: Sequence[Mapping[str, Any]],
    recipes: Mapping[str, Mapping[str, Mapping[str, Any]]],
    paper: Paper,
    meta: Mapping[str, Any],
    setting: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the attributes and reconstructions of all cells.

    Parameters
    ----------
    null : cell -> attribute -> balanced accuracy of each permutation of the labels.
    recipes : cell -> ``evaluations.read_recipes``.
    reid : rows {"model", "set", "n", "rank1", "mAP", "mINP": estimates} of all sets.
    meta : prepare/meta.json.
    setting : what ``paper.setting`` says of the paper, of ours.
    """
    zoo: dict[str, dict[str, float | None]] = {}
    for cell in paper.cells:
        if cell.id.startswith("reid/"):
            zoo.setdefault(cell.axes["model"], {})[cell.metric] = cell.paper
    about = meta.get("sets") or {}
    rows = [
        {
            k: record(v, e.level, f"reid/{k}") if isinstance(v, Estimate) else v
            for k, v in row.items()
        }
        for row in reid
    ]
    return {
        "level": e.level,
        "apart": differences(paper, setting),
        "models": in_order(list({cell.model for cell in cells}), MODELS),
        "sets": {of.name: _set(of, about[of.name].get("attribution")) for of in sets},
        "cells": [
            _cell(e, cell, null.get(cell.name, {}), recipes.get(cell.name, {})) for cell in cells
        ],
        "reid": rows,
        "zoo": zoo,
        "missing": [cell.name for cell in cells if not e.scores.get(cell.name)],
    }


# ---------------------------------------------------------------- Sec. III-D


def _spread(values: np.ndarray) -> dict[str, float]:
    q95 = float(np.quantile(values, 0.95))
    return {"mean": float(values.mean()), "q95": q95, "max": float(values.max())}


def iiid(
    e: Evidence,
    cells: Sequence[Cell],
    ones: Mapping[str, Mapping[str, float]],
    *,
    limit: float,
) -> dict[str, Any]:
    """Return what threat models do on encrypted features.

    Parameters
    ----------
    ones : cell -> ``estimates.kept_by_every_key`` of its features.
    limit : |cosine| that a weak key leaves.
    """
    rows, retrieval, nan, weak = [], [], [], []
    for cell in cells:
        name, own = cell.name, e.scores.get(cell.name, {})
        for condition in CONDITIONS:
            mean = f"ba/{condition}"
            if mean not in own:
                continue
            tasks = {
                m.removeprefix(f"{mean}/"): {"ba": _found(e, name, m), "chance": e.chance[name][m]}
                for m in own
                if m.startswith(f"{mean}/")
            }
            part = condition in ("attacked", "unattacked")
            n = len(cell.attacked["attacked_index"]) if part else e.n[name]
            rows.append(
                {
                    "cell": name,
                    "condition": condition,
                    "mean": _found(e, name, mean),
                    "chance": e.chance[name][mean],
                    "tasks": tasks,
                    "distance": _found(e, name, OF_CONDITIONS.get(condition, "")),
                    "images": n,
                }
            )
        if "rank1/hamming" in own:
            pair = {key: _found(e, name, f"rank1/{key}") for key in ("plain", "hamming")}
            retrieval.append({"cell": name, **pair})
        if cell.encrypted:
            nan.append({"cell": name, **_spread(cell.encrypted["nan_share"])})
            left = np.abs(cell.encrypted["wrong_cos"])
            weak.append(
                {
                    "cell": name,
                    "keys": left.shape[1],
                    "share": float((left >= limit).mean()),
                    "limit": limit,
                    "median": float(np.median(left)),
                    **{k: v for k, v in _spread(left).items() if k != "mean"},
                    "sorted": np.sort(left, axis=None)[::-1].tolist(),
                }
            )
    return {
        "level": e.level,
        "keys": max((of["keys"] for of in weak), default=0),
        "rows": rows,
        "retrieval": retrieval,
        "ones": [{"cell": cell, **of} for cell, of in ones.items()],
        "nan": nan,
        "weak": weak,
    }


# ---------------------------------------------------------------- attacks


def returned(difference: Estimate, level: float) -> str:
    """Say whether attacked features are as useful as plain ones: "yes", "no" or "open".

    By the rules of the claims: the interval of attacked - plain and every seed lie above
    -``RETURNS``, or below it; open otherwise, and if there is only one seed.
    """
    part = decide(at_least("attacked - plain", difference, "", margin=RETURNS), level=level)
    return RETURNED.get(part.verdict, "open")


def attacks(
    e: Evidence,
    cells: Sequence[Cell],
    same: Mapping[str, float],
    synthetic: Mapping[tuple[str, int], Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """Return what every attack recovers, and what it is worth.

    Parameters
    ----------
    same : cell -> share of the predictions from attacked features that are those from plain ones.
    synthetic : ``evaluations.read_synthetic``.
    """

    def pair(name: str, head: str) -> dict[str, Any] | None:
        first, second = f"{head}/attacked", f"{head}/unattacked"
        if not {first, second} <= set(e.scores[name]):
            return None
        return {
            "attacked": _found(e, name, first),
            "plain": _found(e, name, second),
            "difference": record(e.contrast(name, first, second), e.level),
        }

    rows = []
    for cell in cells:
        name = cell.name
        if not cell.attacked:
            continue
        done = {}
        for attack, measured in attacks_of(cell.attacked).items():
            medians = {m: _found(e, name, f"{m}/{attack}") for m in (*OF_REQUESTS, "abs_cos")}
            centred = measured.get("centred")
            done[attack] = {
                "n": next(iter(measured.values())).shape[1],
                "measures": {m: value for m, value in medians.items() if value},
            }
            if centred is not None:
                done[attack] |= {
                    "share_95": _found(e, name, f"share_95/{attack}"),
                    "q10": float(np.quantile(centred, 0.1)),
                    "lowest": float(centred.min()),
                }
        recognised = pair(name, "ba")
        if recognised is not None:
            recognised |= {
                "n": len(cell.attacked["attacked_index"]),
                "same": same[name],
                "returns": returned(e.contrast(name, "ba/attacked", "ba/unattacked"), e.level),
            }
        rows.append(
            {
                "cell": name,
                "attacks": done,
                "ll": {key: _found(e, name, f"ll/{key}") for key in ("best", "mean")},
                "attributes": recognised,
                "distance": pair(name, "distance"),
            }
        )
    made = [
        {
            "kind": kind,
            "dims": dims,
            "n": len(of["cos"]),
            "median": float(np.median(of["cos"])),
            "centred": float(np.median(of["centred"])),
            "lowest": float(of["centred"].min()),
            "highest": float(of["centred"].max()),
        }
        for (kind, dims), of in sorted(synthetic.items())
    ]
    return {"level": e.level, "cells": rows, "synthetic": made}


# ---------------------------------------------------------------- keys


def keyspace(
    example: Mapping[str, Any] | None, checks: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return how many keys there are: exact integers, and their logarithms."""
    return {
        "widths": [
            {"width": w, "keys": str(math.factorial(w)), "log2": math.log2(math.factorial(w))}
            for w in WIDTHS
        ],
        "effective": {
            "keys": str(math.perm(BITS, LEADING)),
            "log2": math.log2(math.perm(BITS, LEADING)),
        },
        "example": None if example is None else dict(example),
        "checks": None if checks is None else dict(checks),
    }
