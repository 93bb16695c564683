"""The cells of the papers' tables as the scoreboard shows them: the paper's value beside ours.

A cell is {"id", "row", "metric", "kind", "paper", "ours", "lo", "hi", "n", "seeds", "deviation",
"verdict"}; None is what does not exist. ``kind`` is "paper" (a row of the paper's table), "ours" (a
row that we added) or "baseline" (images or predictions that know nothing, or everything).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stages.common.files import read_json

# paper -> metric -> head of its column, decimals
METRICS: dict[str, dict[str, tuple[str, int]]] = {
    "colourisation": {"l1": ("L1, ab units", 2), "psnr": ("PSNR, dB", 2), "lperc": ("L_perc", 2)},
    "gan_transform": {
        "uwa": ("UWA, SSIM", 3),
        "ga": ("GA, SSIM", 3),
        "c10": ("10 classes, %", 1),
        "c100": ("transfer, %", 1),
        "worst_unpaired": ("strongest attack without pairs, SSIM", 3),
        "worst": ("strongest attack, SSIM", 3),
    },
    "sift_inversion": {
        "id1": ("found again, %", 1),
        "pd": ("perceptual distance", 3),
        "dcos": ("descriptor cosine", 3),
        "psnr": ("PSNR, dB", 2),
        "ssim": ("SSIM", 3),
    },
    "deep_features": {
        "rank1": ("rank-1, %", 1),
        "mAP": ("mAP, %", 1),
        "mINP": ("mINP, %", 1),
        "ba_mean": ("attributes, balanced accuracy", 3),
        "ba_wrong_key": ("with a wrong key", 3),
        "ba_attacked": ("after the attack", 3),
        "attacked_centred_median": ("attack: centred cosine", 3),
    },
}


KEYS = ("paper", "ours", "lo", "hi", "n", "seeds", "deviation", "verdict")


def cell(name: str, row: str, metric: str, kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return one cell; what ``found`` lacks is None."""
    first = {"id": name, "row": row, "metric": metric, "kind": kind}
    return first | {key: found.get(key) for key in KEYS}


def _printed(folder: Path, row: str, column: str) -> list[dict[str, Any]]:
    """Return the rows of a table1.json."""
    found = []
    for r in read_json(folder / "table1.json")["rows"]:
        name = f"{r['id']}.{r['metric']}" if column == "metric" else r["id"]
        found.append(cell(name, r[row], r[column], "paper", r))
    return found


def _colourisation(folder: Path) -> list[dict[str, Any]]:
    found = _printed(folder, "variant", "metric")
    for row in read_json(folder / "table1.json")["baselines"]:
        for metric in METRICS["colourisation"]:
            if row.get(metric) is None:
                continue
            lo, hi = row[f"{metric}_ci"]
            name = f"baseline.{row['name']}.{metric}"
            values = {"ours": row[metric], "lo": lo, "hi": hi}
            found.append(cell(name, row["name"], metric, "baseline", values))
    return found


def _gan_transform(folder: Path) -> list[dict[str, Any]]:
    found = []
    rows = _printed(folder, "scheme", "column")
    for scheme in dict.fromkeys(r["row"] for r in rows):
        found += [r for r in rows if r["row"] == scheme]
        own = folder / f"{scheme}.json"
        strongest = read_json(own) if own.exists() else {}
        for metric in ("worst_unpaired", "worst"):
            value = strongest.get(f"{metric}_ssim")
            found.append(cell(f"{metric}.{scheme}", scheme, metric, "paper", {"ours": value}))
    for floor in read_json(folder / "matrix.json")["floors"]:
        if floor["where"] == "attack":
            values = {"ours": floor["ssim"], **{k: floor[k] for k in ("lo", "hi", "n")}}
            name = f"floor.{floor['name']}"
            found.append(cell(name, floor["name"], "ga", "baseline", values))
    return found


def _measured(value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    found = {"ours": value["value"], "lo": value["lo"], "hi": value["hi"], "n": value.get("n")}
    return found | {"seeds": len(value["seeds"]) if value.get("seeds") else None}


def _sift_inversion(folder: Path) -> list[dict[str, Any]]:
    found = []
    for row in read_json(folder / "table.json")["rows"]:
        if row["set"] != "faces":
            continue
        kind = "paper" if row["kind"] == "run" else "baseline"
        for metric in METRICS["sift_inversion"]:
            values = _measured(row["values"].get(metric))
            found.append(cell(f"{row['name']}.{metric}", row["name"], metric, kind, values))
    return found


def _deep_features(folder: Path) -> list[dict[str, Any]]:
    found = []
    table = read_json(folder / "table.json")
    for row in table["reid"]:
        name = f"{row['model']} on {row['set']}"
        for metric in ("rank1", "mAP", "mINP"):
            values = {**_measured(row.get(metric)), "n": row.get("n")}
            identity = f"reid.{row['model']}.{row['set']}.{metric}"
            found.append(cell(identity, name, metric, "paper", values))
    for name in (c["name"] for c in table["cells"]):
        path = folder / f"{name}.json"
        own = read_json(path) if path.exists() else {}
        model, _, images = name.partition("-")
        for metric in ("ba_mean", "ba_wrong_key", "ba_attacked", "attacked_centred_median"):
            lo, hi = own.get(f"{metric}_ci") or (None, None)
            values = {"ours": own.get(metric), "lo": lo, "hi": hi, "n": own.get("n")}
            row = f"{model} on {images}"
            found.append(cell(f"{name}.{metric}", row, metric, "paper", values))
        if own.get("chance") is not None:
            row, values = f"chance on {images}", {"ours": own["chance"]}
            found.append(cell(f"{name}.chance", row, "ba_mean", "baseline", values))
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in found:  # the same chance for every black box on a set
        seen.setdefault((entry["row"], entry["metric"]), entry)
    return list(seen.values())


CELLS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "colourisation": _colourisation,
    "gan_transform": _gan_transform,
    "sift_inversion": _sift_inversion,
    "deep_features": _deep_features,
}


def cells(paper: str, folder: Path) -> list[dict[str, Any]]:
    """Return a paper's cells from its results; [] of a paper that has no table here.

    Parameters
    ----------
    folder : reports/results/<profile>/<paper>.

    Raises
    ------
    InputError
        If a file of the results is missing or damaged.
    """
    return CELLS[paper](folder) if paper in CELLS else []
