"""Judge the paper's claims by what was measured, and write all numbers for the report.

Reads what evaluate measured, the keypoints of the test images, the runs' meta.json and training
histories, and paper.yaml. Writes <run>.json, table.json, partial.json, ablation.json,
keypoints.json and claims.json; ``summaries`` says what is in them.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.claims import Estimate, Paper, as_record, load_paper, verdict_table
from stages.common.errors import InputError
from stages.common.files import read_json, write_json
from stages.common.params import Fraction, NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.sift_inversion.claims import OURS, Evidence, judge_claims
from stages.sift_inversion.estimates import (
    at_equal,
    correlation,
    frechet,
    means_of_present,
    permutation_p,
)
from stages.sift_inversion.evaluations import (
    FULL,
    OF_BOXES,
    Arrays,
    conditions,
    images_seen,
    last_losses,
    read_crowding,
    read_floors,
    read_histories,
    read_measured,
    read_partial,
    read_real,
    read_runs,
    trained_on,
)
from stages.sift_inversion.summaries import (
    CURVES,
    ablation,
    in_order,
    keypoints,
    partial,
    summarise,
    table,
)

PAPER = Path(__file__).with_name("paper.yaml")
OWN = ("features", "rse", "mean_cb", "mean_cr", "removed")  # not averaged as they are
Key = tuple[str, str]  # run, floor or condition, and metric


def read_paper(path: Path = PAPER) -> Paper:
    """Read this paper's figures and claims."""
    return load_paper(path, axes=())


def per_image(arrays: Arrays, real: Arrays) -> dict[str, np.ndarray]:
    """Return what is averaged over images: (seeds, n) by metric; id1 in per cent."""
    found = {name: array for name, array in arrays.items() if name not in OWN}
    found["log_sharp_abs"] = np.abs(arrays["log_sharp"])
    found["id1"] = 100 * arrays["id1"]
    found["nerr"] = np.sqrt(arrays["rse"]) / real["pairwise"].item()
    return found


@dataclass
class Scored:
    """All estimates of one set's test images, on the same resamples.

    scores, floors, parts : run, floor or condition -> metric -> estimate.
    counts : the same names -> metric -> images that have a value, where not all have; a floor's
        name is "<set>-<floor>".
    removed : condition -> mean share of the keypoints that were removed.
    chance : run -> ``cb`` and ``cr`` -> p of the permutation test of claim C7.
    crowding, keypoints : what ``read_crowding`` counts, its means and its images.
    """

    scores: dict[str, dict[str, Estimate]]
    floors: dict[str, dict[str, Estimate]]
    parts: dict[str, dict[str, Estimate]]
    counts: dict[str, dict[str, int]]
    removed: dict[str, float]
    chance: dict[str, dict[str, float]]
    crowding: dict[str, Estimate]
    keypoints: Arrays


def _means(
    values: Mapping[Key, np.ndarray], groups: np.ndarray, *, resamples: int, seed: int
) -> tuple[dict[Key, Estimate], dict[str, dict[str, int]]]:
    """Return the means, and by name and metric how many images have a value if not all have."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, metric), v in values.items():
        present = int(np.isfinite(v).all(axis=0).sum())
        if present < len(groups):
            counts[name][metric] = present
    return means_of_present(values, groups, resamples=resamples, seed=seed), counts


def _by_name(estimates: Mapping[Key, Estimate]) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for (name, metric), estimate in estimates.items():
        found[name][metric] = estimate
    return dict(found)


def score_set(
    image_set: str,
    real: Arrays,
    runs: Mapping[str, Arrays],
    floors: Mapping[str, Arrays],
    parts: Mapping[str, Arrays],
    crowding: Arrays,
    *,
    resamples: int,
    fd_resamples: int,
    seed: int,
) -> Scored:
    """Estimate every metric of everything that was measured on a set's test images.

    An image that has no value of a metric in one run or floor is left out of it in all of them.

    Parameters
    ----------
    runs, floors, parts, crowding : what the readers of ``evaluations`` return; ``parts`` by
        condition.
    """
    groups, draw = real["groups"], {"resamples": resamples, "seed": seed}
    whole = {**runs, **{f"{image_set}-{name}": arrays for name, arrays in floors.items()}}
    values = {(name, m): v for name, of in whole.items() for m, v in per_image(of, real).items()}
    lacking = {m: np.zeros(len(groups), bool) for _, m in values}
    for (_, m), v in values.items():
        lacking[m] |= np.isnan(v).any(axis=0)
    values = {key: np.where(lacking[key[1]], np.nan, v) for key, v in values.items()}
    values |= {
        (condition, m): v
        for condition, of in parts.items()
        for m, v in per_image(of, real).items()
        if m in (*CURVES, *OF_BOXES)
    }
    estimates, counts = _means(values, groups, **draw)
    features = {name: of["features"] for name, of in whole.items()}
    fd = frechet(features, real["features"], groups, resamples=fd_resamples, seed=seed)
    estimates |= {(name, "fd"): estimate for name, estimate in fd.items()}
    apart = np.stack([real[f"{of}_face"] - real[f"{of}_rest"] for of in ("density", "gradient")])
    for name, of in runs.items():
        for c in ("cb", "cr"):
            colours = of[f"mean_{c}"], real[f"mean_{c}"]
            estimates[name, f"r_{c}"] = correlation(*colours, groups, **draw)
        gap = of["pd_face"] - of["pd_rest"]
        if np.isfinite(gap).all():
            estimates[name, "pd_gap_equal"] = at_equal(gap, apart, groups, **draw)
    named = {**dict.fromkeys([*whole, *parts], {}), **_by_name(estimates)}
    return Scored(
        scores={name: named[name] for name in runs},
        floors={name: named[f"{image_set}-{name}"] for name in floors},
        parts={name: named[name] for name in parts},
        counts=counts,
        removed={c: float(of["removed"].mean()) for c, of in parts.items() if "removed" in of},
        chance={
            OURS: {
                c: permutation_p(
                    runs[OURS][f"mean_{c}"],
                    real[f"mean_{c}"],
                    groups,
                    permutations=resamples,
                    seed=seed,
                )
                for c in ("cb", "cr")
            }
        }
        if OURS in runs
        else {},
        crowding=means_of_present(crowding, groups, **draw),
        keypoints=crowding,
    )


def _setting(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what paper.yaml's ``setting`` says of the paper, of ours."""
    sets = meta["sets"]
    found: dict[str, Any] = {"size": meta["size"]}
    if "faces" in sets:
        of = sets["faces"]
        found |= {"faces": of["dataset"], "n_train": of["n_train"], "n_test": of["n_test"]}
    if "multi" in sets:
        of = sets["multi"]
        found |= {"multi": of["dataset"], "multi_images": of["n_train"] + of["n_test"]}
    return found


def score(
    data: Path,
    extracted: Path,
    trained: Path,
    refined: Path,
    evaluated: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    variants: list[str],
    level: Fraction,
    resamples: PositiveInt,
    fd_resamples: PositiveInt,
    seed: NonNegativeInt,
) -> dict[str, Any]:
    """Write the numbers of every run and floor, the curves, the ablations and all verdicts.

    Parameters
    ----------
    data, extracted, trained, refined, evaluated : folders of the stages prepare, extract, train,
        refine and evaluate.
    out : folder of the JSON.
    seeds : of the training runs, which every run must have.
    variants : the runs; others are not read, and those not evaluated are reported as missing.
    level : of the intervals, e.g. 0.95.
    resamples, fd_resamples, seed : of the bootstrap; of means, and of the Frechet distance.

    Raises
    ------
    InputError
        If a file is damaged, holds NaN where it must not, has other seeds, or does not fit the
        others; or no run was evaluated.
    """
    if not 0 < level < 1:
        raise InputError(
            "params.yaml",
            "level of the intervals is wrong",
            expected="a number between 0 and 1",
            found=level,
            remedy="0.95 is usual",
        )
    paper = read_paper()
    meta = read_json(data / "meta.json")
    runs, missing = read_runs(trained, refined, evaluated, variants)
    if not runs:
        raise InputError(
            evaluated,
            "has no run to score",
            expected=f"<run>/{FULL}.npz of {', '.join(variants) or 'some run'}",
            found="none",
            remedy="run the stages before this one (dvc repro)",
        )
    runs = {name: runs[name] for name in in_order(list(runs), list(variants))}
    sets = [name for name in meta["sets"] if any(r.image_set == name for r in runs.values())]
    histories = {
        name: read_histories((refined if about.refined else trained) / name, seeds)
        for name, about in runs.items()
    }
    fed = {name: conditions(evaluated, name) for name in runs}
    partial_run = next((name for name in reversed(fed) if fed[name]), None)
    scored: dict[str, Scored] = {}
    for i, image_set in enumerate(sets):
        real = read_real(evaluated, data, image_set)
        n = len(real["groups"])
        names = [name for name, about in runs.items() if about.image_set == image_set]
        files = {}
        if partial_run is not None and partial_run in names:
            files = {c: evaluated / partial_run / f"{c}.npz" for c in fed[partial_run]}
        measured = {
            name: read_measured(evaluated / name / f"{FULL}.npz", real, seeds) for name in names
        }
        print(f"{image_set}: resampling {n} images {resamples} times", flush=True)
        scored[image_set] = score_set(
            image_set,
            real,
            measured,
            read_floors(evaluated, real, image_set),
            {condition: read_partial(path, real, seeds) for condition, path in files.items()},
            read_crowding(extracted / f"{image_set}_test", n),
            resamples=resamples,
            fd_resamples=fd_resamples,
            seed=seed + i,  # of other images: equal draws would pair what has no partner
        )

    def merged(part: str) -> dict[str, Any]:
        return {name: of for each in scored.values() for name, of in getattr(each, part).items()}

    counts, scores = merged("counts"), merged("scores")
    evidence = Evidence(
        runs=runs,
        scores={name: scores[name] for name in runs},
        n={name: each.keypoints["keypoints"].shape[1] for name, each in scored.items()},
        level=level,
        floors={name: each.floors for name, each in scored.items()},
        partial_run=partial_run,
        partial=merged("parts"),
        crowding=scored["faces"].crowding if "faces" in scored else {},
        chance=merged("chance"),
        losses={name: last_losses(of) for name, of in histories.items()},
        n_train={name: meta["sets"][name]["n_train"] for name in sets},
        trained_on={name: trained_on(of) for name, of in histories.items()},
        seen={name: images_seen(of) for name, of in histories.items()},
        missing=missing,
        seed=seed,
    )
    findings = judge_claims(evidence, paper)

    for name in runs:
        write_json(out / f"{name}.json", summarise(evidence, name))
    write_json(out / "table.json", table(evidence, counts, paper, _setting(meta)))
    write_json(out / "partial.json", partial(evidence, counts, merged("removed")))
    write_json(out / "ablation.json", ablation(evidence))
    write_json(
        out / "keypoints.json",
        {name: keypoints(of.crowding, of.keypoints, level=level) for name, of in scored.items()},
    )
    write_json(
        out / "claims.json",
        {
            "verdicts": {finding.id: finding.verdict for finding in findings},
            "details": [as_record(paper.claims[f.id], f, None) for f in findings],
        },
    )
    print(verdict_table(findings))
    return {"images": sum(evidence.n.values()), "runs": len(runs)}


if __name__ == "__main__":
    run(score, "sift_inversion.score")
