"""Judge the paper's claims by what was measured, and write all numbers for the report.

Reads what the stages before it measured, the labels of the test images, and paper.yaml; checks
ShuffleBits once more by its definition. Writes <model>-<set>.json, table.json, iiid.json,
attacks.json, keyspace.json and claims.json; ``summaries`` says what is in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.claims import (
    Estimate,
    Paper,
    as_record,
    load_paper,
    verdict_table,
    with_seed_spread,
)
from stages.common.errors import InputError
from stages.common.files import read_json, write_json
from stages.common.params import Fraction, NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.deep_features.claims import Evidence, judge_claims, number
from stages.deep_features.estimates import (
    Draws,
    average,
    balanced_accuracy,
    draw_identities,
    identities_of_classes,
    kept_by_every_key,
    mean_over_images,
    median_over_requests,
    permuted_accuracy,
    without_draw,
)
from stages.deep_features.evaluations import (
    FLOORS,
    LOSSES,
    MADE,
    MEASURES,
    Cell,
    LocalSet,
    attacks_of,
    read_cell,
    read_features,
    read_graph,
    read_local,
    read_recipes,
    read_reid,
    read_synthetic,
)
from stages.deep_features.facts import check, example
from stages.deep_features.summaries import (
    MODELS,
    PLAIN,
    attacks,
    iiid,
    in_order,
    keyspace,
    summarise,
    table,
)

PAPER = Path(__file__).with_name("paper.yaml")
RECOVERED = 0.95  # centred cosine above which a request counts as recovered (share_95)
PERMUTATIONS = 2000  # of labels, at most: enough for a 95 % quantile
VECTORS = 1000  # of a test split, in which numbers of ones are counted
REID = {"rank1": "rank1", "mAP": "ap", "mINP": "inp"}


def read_paper(path: Path = PAPER) -> Paper:
    """Read this paper's figures and claims."""
    return load_paper(path, axes=("model",))


@dataclass
class Scored:
    """All estimates of one cell; the names are those of ``claims.Evidence``.

    scores : metric -> estimate, without the luck of the seeds.
    chance : metric of a balanced accuracy -> 1 / K, or its mean over attributes.
    null : attribute -> balanced accuracy of each permutation of the labels.
    facts : what is exactly so.
    same : share of predictions from attacked features that are those from plain ones.
    """

    scores: dict[str, Estimate] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    null: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    same: float | None = None


def _accuracies(
    found: Scored,
    head: str,
    correct: Mapping[str, np.ndarray],
    of: LocalSet,
    draws: Draws,
    *,
    chosen: np.ndarray | None = None,
    ids: int = 1,
) -> None:
    """Add the balanced accuracy of every attribute, and their mean.

    Attributes of which fewer than two classes count are left out.

    Parameters
    ----------
    head : of the metrics, as "ba/headline".
    correct : attribute -> share of right predictions, (seeds, images).
    chosen : the test images that these are; None: all.
    ids : test identities a class needs to count.
    """
    several, guesses = [], []
    for i, task in enumerate(of.tasks):
        if task.name not in correct:
            continue
        labels = of.labels[:, i] if chosen is None else of.labels[chosen, i]
        pids = of.pids if chosen is None else of.pids[chosen]
        counted = identities_of_classes(labels, pids, len(task.classes)) >= ids
        if counted.sum() < 2:
            continue
        estimate = balanced_accuracy(correct[task.name], labels, draws, counted=counted)
        found.scores[f"{head}/{task.name}"] = estimate
        found.chance[f"{head}/{task.name}"] = 1 / int(counted.sum())
        several.append(estimate)
        guesses.append(found.chance[f"{head}/{task.name}"])
    if several:
        found.scores[head], found.chance[head] = average(several), float(np.mean(guesses))


def _right(
    predictions: np.ndarray, of: LocalSet, chosen: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return where predictions (seeds, n, T) are right, attribute by attribute.

    An attribute of which all predictions are -1 is left out.
    """
    labels = of.labels if chosen is None else of.labels[chosen]
    return {
        task.name: (predictions[:, :, i] == labels[:, i]).astype(np.float64)
        for i, task in enumerate(of.tasks)
        if (predictions[:, :, i] >= 0).any()
    }


def _heads(
    found: Scored, cell: Cell, of: LocalSet, draws: Draws, *, ids: int, resamples: int, seed: int
) -> None:
    """Score the heads of every setting, and permuted labels against the headline's."""
    for setting, predictions in cell.predictions.items():
        _accuracies(found, f"ba/{setting}", _right(predictions, of), of, draws)
    if PLAIN not in cell.predictions:
        return
    right = _right(cell.predictions[PLAIN], of)
    _accuracies(found, f"ba5/{PLAIN}", right, of, draws, ids=ids)
    _accuracies(found, f"best/{PLAIN}", _right(cell.best[PLAIN], of), of, draws)
    for i, task in enumerate(of.tasks):
        if f"ba/{PLAIN}/{task.name}" in found.scores:
            found.null[task.name] = permuted_accuracy(
                cell.predictions[PLAIN][:, :, i],
                of.labels[:, i],
                of.pids,
                permutations=min(resamples, PERMUTATIONS),
                seed=seed,
            )


def _imbalanced(found: Scored, of: LocalSet, minority: float) -> None:
    """Average the attributes whose smallest class is rare in training."""
    rare = [name for name, share in of.smallest.items() if share < minority]
    for setting in (PLAIN, "unweighted"):
        metrics = [f"ba/{setting}/{name}" for name in rare]
        several = [found.scores[m] for m in metrics if m in found.scores]
        if several:
            found.scores[f"imbalanced/{setting}"] = average(several)


def _images(found: Scored, cell: Cell, draws: Draws) -> None:
    """Score reconstructions and floors."""
    for name in (*MADE, *FLOORS):
        for measure in MEASURES:
            values = cell.images.get(f"{measure}_{name}")
            if values is not None and np.isfinite(values).all():
                found.scores[f"{measure}/{name}"] = mean_over_images(values, draws)
    for measure in ("hf", "peak"):
        if f"{measure}_original" in cell.images:
            values = cell.images[f"{measure}_original"]
            found.scores[f"{measure}/original"] = mean_over_images(values, draws)
    if "distance_same" in cell.images:
        found.facts["self_distance"] = float(np.abs(cell.images["distance_same"]).max())


def _encryption(
    found: Scored, cell: Cell, of: LocalSet, draws: Draws, *, weak: float, resamples: int, seed: int
) -> None:
    """Score what encryption does to heads, reconstructions and retrieval."""
    arrays = cell.encrypted
    if not arrays:
        return
    for name in ("right", "own", "popcount"):
        right = _right(arrays[f"predictions_{name}"], of)
        _accuracies(found, f"ba/{name}", right, of, draws)
    wrong = arrays["wrong_predictions"]
    shares = {
        task.name: (wrong[..., i] == of.labels[:, i]).mean(axis=1)
        for i, task in enumerate(of.tasks)
    }
    _accuracies(found, "ba/wrong", shares, of, draws)
    left = np.abs(arrays["wrong_cos"])
    found.facts |= {"wrong_bits": float(arrays["bits_wrong_right"].sum())}
    found.facts |= {"keys": float(left.shape[1]), "weak": float((left >= weak).mean())}
    if PLAIN in cell.predictions:
        before = arrays.get("predictions_plain", cell.predictions[PLAIN])
        changed = arrays["predictions_right"] != before
        found.facts["changed_predictions"] = float(np.count_nonzero(changed))
    if "distance_plain" in arrays:
        changed = arrays["distance_right"] != arrays["distance_plain"]
        found.facts["changed_distances"] = float(np.count_nonzero(changed))
        own, m = draws, arrays["distance_plain"].shape[1]
        chosen = arrays.get("recon_index")  # without it the identities are not known
        if chosen is not None or m != len(of.pids):
            pids = np.arange(m) if chosen is None else of.pids[chosen]
            own = draw_identities(pids, resamples=resamples, seed=seed)
        for name in ("right", "wrong"):
            found.scores[f"distance/{name}"] = mean_over_images(arrays[f"distance_{name}"], own)
        if "distance_other" in cell.images and (chosen is not None or m == len(of.pids)):
            others = cell.images["distance_other"][:, slice(None) if chosen is None else chosen]
            found.scores["distance/other there"] = mean_over_images(others, own)
    for name in ("plain", "hamming"):
        found.scores[f"rank1/{name}"] = without_draw(arrays[f"rank1_{name}"], resamples)


def _attacks(found: Scored, cell: Cell, of: LocalSet, *, resamples: int, seed: int) -> None:
    """Score what was recovered, and what recovered features are worth."""
    arrays, draw = cell.attacked, {"resamples": resamples, "seed": seed}
    if not arrays:
        return
    for attack, measured in attacks_of(arrays).items():
        for measure, values in measured.items():
            medians = np.median(values, axis=1)
            found.scores[f"{measure}/{attack}"] = without_draw(medians, resamples)
        for measure in ("cos", "centred"):
            if measure in measured:
                values = measured[measure]
                drawn = draw_identities(np.arange(values.shape[1]), **draw)
                found.scores[f"{measure}/{attack}"] = median_over_requests(values, **draw)
                found.scores[f"mean {measure}/{attack}"] = mean_over_images(values, drawn)
        if "centred" in measured:
            values = measured["centred"]
            drawn = draw_identities(np.arange(values.shape[1]), **draw)
            recovered = (values > RECOVERED).astype(np.float64)
            found.scores[f"share_95/{attack}"] = mean_over_images(recovered, drawn)
    gaps = arrays["ll_true"][:, None] - arrays["ll_random"]
    drawn = draw_identities(np.arange(gaps.shape[1]), **draw)
    found.scores["ll/mean"] = mean_over_images(gaps, drawn)
    found.scores["ll/best"] = without_draw(gaps.min(axis=1), resamples)
    chosen = arrays["attacked_index"]
    drawn = draw_identities(of.pids[chosen], **draw)
    for name, metric in (("attacked_distance", "attacked"), ("plain_distance", "unattacked")):
        if name in arrays:
            found.scores[f"distance/{metric}"] = mean_over_images(arrays[name], drawn)
    if PLAIN in cell.predictions:
        plain = cell.predictions[PLAIN][:, chosen]
        for name, of_images in (
            ("attacked", arrays["attacked_predictions"]),
            ("unattacked", plain),
        ):
            right = _right(of_images, of, chosen)
            _accuracies(found, f"ba/{name}", right, of, drawn, chosen=chosen)
        found.same = float((arrays["attacked_predictions"] == plain).mean())


def score_cell(
    cell: Cell, of: LocalSet, paper: Paper, *, resamples: int, seed: int
) -> Scored:  # fmt: skip
    """Estimate everything that was measured of a black box on a set, on the set's resamples."""
    found, draw = Scored(), {"resamples": resamples, "seed": seed}
    draws = draw_identities(of.pids, **draw)
    claims = paper.claims
    _heads(found, cell, of, draws, ids=int(number(claims["C1"], "ids")), **draw)
    _imbalanced(found, of, number(claims["C3"], "minority"))
    _images(found, cell, draws)
    _encryption(found, cell, of, draws, weak=number(claims["C12"], "weak"), **draw)
    _attacks(found, cell, of, **draw)
    return found


def score_reid(
    extracted: Path,
    models: Sequence[str],
    sets: Sequence[str],
    seeds: Sequence[int],
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Estimate how well the black boxes re-identify, in per cent."""
    rows = []
    for image_set in sets:
        for model in models:
            read = read_reid(extracted, model, image_set, seeds)
            if read is None:
                continue
            arrays, pids = read
            draws = draw_identities(pids, resamples=resamples, seed=seed)
            row: dict[str, Any] = {"model": model, "set": image_set, "n": len(pids)}
            row |= {m: mean_over_images(100 * arrays[name], draws) for m, name in REID.items()}
            rows.append(row)
    for metric in REID:
        known = {f"{metric} {i}": row[metric] for i, row in enumerate(rows)}
        lucky = with_seed_spread(known, seed=seed) if known else {}
        for i, row in enumerate(rows):
            row[metric] = lucky[f"{metric} {i}"]
    return rows


def _setting(meta: Mapping[str, Any], trained: Path, models: Sequence[str]) -> dict[str, Any]:
    """Return what paper.yaml's ``setting`` says of the paper, of ours."""
    found = {"proprietary": meta.get("proprietary"), "locals": list(meta.get("locals") or [])}
    found |= {key: meta.get(key) for key in ("height", "width")}
    nets = [read_json(p) for m in models if (p := trained / m / "meta.json").exists()]
    for key in ("net", "dims"):
        values = sorted({net[key] for net in nets if key in net})
        found[key] = values[0] if len(values) == 1 else values
    return found


def score(
    data: Path,
    trained: Path,
    extracted: Path,
    attributes: Path,
    reconstructed: Path,
    evaluated: Path,
    encrypted: Path,
    cryptanalysed: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    variants: list[str],
    level: Fraction,
    resamples: PositiveInt,
    seed: NonNegativeInt,
    words: PositiveInt,
    keys: PositiveInt,
) -> dict[str, Any]:
    """Write the numbers of every black box and set, of encryption and attacks, and all verdicts.

    Parameters
    ----------
    data, trained, extracted, attributes, reconstructed, evaluated, encrypted, cryptanalysed :
        folders of the stages prepare, train_reid, extract, attributes, reconstruct, evaluate,
        encrypt and cryptanalyse.
    out : folder of the JSON.
    seeds : of the black boxes and of all that is trained on their features.
    variants : the black boxes, and the losses of reconstruct, which are read anyway.
    level : of the intervals and of the band of permuted labels, e.g. 0.95.
    resamples, seed : of the bootstrap, and of the permutations of the labels.
    words, keys : random ones that the self-check of ShuffleBits takes.

    Raises
    ------
    InputError
        If a file is damaged, holds NaN where it must not, has other seeds, or does not fit the
        others; or nothing was measured.
    """
    if not 0 < level < 1:
        raise InputError(
            "params.yaml",
            "level of the intervals is wrong",
            expected="a number between 0 and 1",
            found=level,
            remedy="0.95 is usual",
        )
    paper, meta = read_paper(), read_json(data / "meta.json")
    models = in_order([name for name in variants if name not in LOSSES], MODELS)
    locals_ = [str(name) for name in meta["locals"]]
    sets = {name: read_local(data, meta, name) for name in locals_}
    folders = {"attributes": attributes, "evaluated": evaluated, "encrypted": encrypted}
    cells = [
        read_cell(model, sets[name], seeds, **folders, cryptanalysed=cryptanalysed)
        for model in models
        for name in locals_
    ]
    if not any(c.predictions or c.images or c.encrypted or c.attacked for c in cells):
        raise InputError(
            attributes.parent,
            "has nothing to score",
            expected=f"results of {', '.join(cell.name for cell in cells) or 'some black box'}",
            found="none",
            remedy="run the stages before this one (dvc repro)",
        )
    scored: dict[str, Scored] = {}
    ones: dict[str, dict[str, float]] = {}
    for cell in cells:
        print(f"{cell.name}: resampling {resamples} times", flush=True)
        # another set is of other images: equal draws would pair what has no partner
        own = seed + locals_.index(cell.image_set)
        of = sets[cell.image_set]
        scored[cell.name] = score_cell(cell, of, paper, resamples=resamples, seed=own)
        features = read_features(extracted, cell.model, cell.image_set, seeds)
        if features:
            ones[cell.name] = kept_by_every_key(np.concatenate([f[:VECTORS] for f in features]))
    recipes = {cell.name: read_recipes(reconstructed, cell.name) for cell in cells}
    checks = check(words=words, keys=keys, seed=seed)
    evidence = Evidence(
        cells=[cell.name for cell in cells],
        scores={name: of.scores for name, of in scored.items()},
        n={cell.name: len(sets[cell.image_set].pids) for cell in cells},
        level=level,
        chance={name: of.chance for name, of in scored.items()},
        null={
            name: {f"ba/{PLAIN}/{t}": float(np.quantile(v, level)) for t, v in of.null.items()}
            for name, of in scored.items()
        },
        facts={name: of.facts for name, of in scored.items()},
        checks=checks,
        ones={name: of["popcount"] for name, of in ones.items()},
        graph=read_graph(encrypted),
        phi_factors={
            name: max(int(of.get("phi_factor") or 1) for of in losses.values())
            for name, losses in recipes.items()
            if losses
        },
        missing={cell.name: cell.missing for cell in cells},
        seed=seed,
    )
    findings = judge_claims(evidence, paper)

    reid_sets = dict.fromkeys([str(meta["proprietary"]), *locals_])
    draw = {"resamples": resamples, "seed": seed}
    reid = score_reid(extracted, models, list(reid_sets), seeds, **draw)
    limit = number(paper.claims["C12"], "weak")
    same = {name: of.same for name, of in scored.items() if of.same is not None}
    null = {name: of.null for name, of in scored.items()}
    setting = _setting(meta, trained, models)
    for cell in cells:
        if scored[cell.name].scores:
            write_json(out / f"{cell.name}.json", summarise(evidence, cell.name))
    of_sets = list(sets.values())
    write_json(
        out / "table.json",
        table(evidence, cells, of_sets, null, reid, recipes, paper, meta, setting),
    )
    write_json(out / "iiid.json", iiid(evidence, cells, ones, limit=limit))
    write_json(out / "attacks.json", attacks(evidence, cells, same, read_synthetic(cryptanalysed)))
    write_json(out / "keyspace.json", keyspace(example(), checks))
    write_json(
        out / "claims.json",
        {
            "verdicts": {finding.id: finding.verdict for finding in findings},
            "details": [as_record(paper.claims[f.id], f, None) for f in findings],
        },
    )
    print(verdict_table(findings))
    return {"images": sum(len(of.pids) for of in of_sets), "cells": len(cells)}


if __name__ == "__main__":
    run(score, "deep_features.score")
