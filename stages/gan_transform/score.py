"""Judge the paper's numbers and claims by what was measured (Table I).

Reads the evaluation.npz of every stage, the test images' clusters, the schemes' meta.json, the
training histories of h_p and paper.yaml. Writes <scheme>.json, table1.json, matrix.json (every
attack on every scheme), protection.json and claims.json.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.claims import (
    Estimate,
    Paper,
    as_record,
    load_paper,
    mean_estimates,
    verdict_table,
    with_seed_spread,
)
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json
from stages.common.params import Fraction, NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.gan_transform.claims import Evidence, judge_claims, table1_says
from stages.gan_transform.evaluations import (
    Arrays,
    Scheme,
    read_attacks,
    read_classified,
    read_encrypted,
    read_floors,
    read_groups,
    read_perturbed,
    read_schemes,
    read_target,
)
from stages.gan_transform.summaries import SCHEMES, in_order, matrix, protection, summarise
from stages.gan_transform.table1 import table1

PAPER = Path(__file__).with_name("paper.yaml")
Key = tuple[str, str]  # scheme, metric


def read_paper(path: Path = PAPER) -> Paper:
    """Read this paper's numbers and claims."""
    return load_paper(path, axes=("scheme", "column"))


def _percent(correct: np.ndarray) -> np.ndarray:
    return 100.0 * correct.astype(np.float64)


def commonest(labels: np.ndarray) -> float:
    """Return the share of the commonest class in per cent: guessing, knowing the test set."""
    return float(100 * np.bincount(labels).max() / len(labels))


def _of_protected(perturbed: Arrays, *, resamples: int, seed: int) -> dict[str, Estimate]:
    """Return the means of P, over all seeds' images at once: an image may lie in several."""
    rows = {
        "acc_x": _percent(perturbed["correct_plain"]),
        "acc_p": _percent(perturbed["correct"]),
        "ssim": perturbed["ssim"],
        "ssim_blank": perturbed["ssim_blank"],
    }
    flat = {name: row.reshape(1, -1) for name, row in rows.items()}
    groups = perturbed["groups"].reshape(-1)
    found = mean_estimates(flat, groups, resamples=resamples, seed=seed)
    means = {
        name: replace(e, seeds=tuple(float(v) for v in rows[name].mean(axis=1, dtype=np.float64)))
        for name, e in found.items()
    }
    accuracies = {name: means[name] for name in ("acc_x", "acc_p")}
    means |= with_seed_spread(accuracies, seed=seed)
    return means | with_seed_spread({"ssim": means["ssim"]}, seed=seed)


def _spread(
    means: dict[Key, Estimate], trained: Mapping[str, list[Key]], *, seed: int
) -> dict[Key, Estimate]:
    """Add the luck of the training seeds, pooled over each list of trained models.

    What is added is cut off where no mean can lie: SSIMs at -1 and 1, accuracies at 0 and 100.
    """
    found = dict(means)
    for models in trained.values():
        named = {" ".join(key): means[key] for key in models}
        for name, estimate in with_seed_spread(named, seed=seed).items():
            scheme, _, metric = name.partition(" ")
            lo, hi = (-1, 1) if "ssim" in metric else (0, 100)
            samples = np.clip(estimate.samples, lo, hi)
            found[scheme, metric] = replace(estimate, samples=samples)
    return found


def _transform_epochs(runs: list[dict], n_train: int) -> int | float | None:
    """Return the epochs of the shortest run of h_p, to two digits; None if there is none."""
    if not (runs and all({"steps", "batch_size"} <= set(run) for run in runs)):
        return None
    pairs = min(run["steps"] * run["batch_size"] for run in runs)
    epochs = float(f"{pairs / n_train:.2g}")
    return int(epochs) if epochs.is_integer() else epochs


def _classifier_epochs(folder: Path, seeds: list[int]) -> int | None:
    """Return the epochs of the shortest run on plain images; None if there is none."""
    files = [folder / f"history-s{s}.json" for s in seeds]
    runs = [run for file in files if file.exists() for run in read_json(file).values()]
    return min((len(run["epochs"]) for run in runs if "epochs" in run), default=None)


def score(
    data: Path,
    target: Path,
    perturbed: Path,
    transforms: Path,
    encrypted: Path,
    attacked: Path,
    cryptanalysed: Path,
    classified: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    variants: list[str],
    level: Fraction,
    resamples: PositiveInt,
    seed: NonNegativeInt,
) -> dict[str, Any]:
    """Write every scheme's numbers, Table I, all attacks and the verdicts on all claims.

    Parameters
    ----------
    data, target, perturbed, transforms, encrypted, attacked, cryptanalysed, classified : folders
        of the stages prepare, train_target, perturb, transform, encrypt, attack, cryptanalyse and
        classify. Schemes are those of ``encrypted``; what was not run on one is reported so.
    out : folder of the JSON.
    seeds : of the training runs and keys, which every stage must have.
    variants : the CycleGANs; schemes made by others are not read.
    level : of the intervals, e.g. 0.95.
    resamples, seed : of the bootstrap.

    Raises
    ------
    InputError
        If a file is damaged, holds NaN, has other seeds, or does not fit the others.
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
    groups = read_groups(data)
    n = {where: len(g) for where, g in groups.items()}
    guess = {
        "ten": commonest(read_npz(data / "test.npz", ["labels"])["labels"]),
        "transfer": commonest(read_npz(data / "transfer_test.npz", ["labels"])["labels"]),
    }
    schemes = read_schemes(encrypted, variants)
    made = {scheme.variant for scheme in schemes.values()}
    missing = {v: f"no cipher was made by the CycleGAN {v}" for v in variants if v not in made}
    of_target = read_target(target / "evaluation.npz", seeds, n["test"])
    of_protected = read_perturbed(perturbed / "evaluation.npz", seeds)
    floors = read_floors(encrypted / "floors.npz", n)

    # scheme and metric -> one row of per-image values a seed, by the images they are of
    values: dict[str, dict[Key, np.ndarray]] = {where: {} for where in groups}
    # trained models by what they do, a pool of seeds' variances each: one attack on every scheme;
    # of h_p, whose two readings do not vary alike, each by itself
    trained: dict[str, list[Key]] = defaultdict(list)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    mismatches: dict[str, list[int]] = {}
    histories: dict[str, list[dict]] = {}

    def add(where: str, scheme: str, metric: str, rows: np.ndarray, pool: str | None) -> None:
        values[where][scheme, metric] = rows
        if pool is not None:
            trained[pool].append((scheme, metric))

    def add_cipher(scheme: Scheme) -> None:
        name, transform = scheme.name, scheme.variant is not None
        path = encrypted / name / "evaluation.npz"
        found = read_encrypted(path, seeds, n, transform=transform)
        arrays[name] = {"ssim_raw": found["ssim"]}
        own = f"h_p {name}"
        add("attack", name, "ssim_raw", found["ssim"], f"{own} raw" if transform else None)
        # h_theta was trained; its answers to key after key of a cipher are no pool for h_p's
        correct = _percent(found["htheta_correct"])
        add("test", name, "htheta_acc", correct, f"{own} htheta" if transform else None)
        add("test", name, "test_ssim", found["ssim_test"], f"{own} ssim" if transform else None)
        if transform:
            add("test", name, "test_ssim_g_ba", found["ssim_g_ba_test"], f"{own} g_ba")
            mismatches[name] = [int(pixels) for pixels in found["mismatches"]]
            histories[name] = [
                read_json(transforms / str(scheme.variant) / f"history-s{s}.json") for s in seeds
            ]

    def add_attacks(name: str, path: Path, *, by_training: bool) -> None:
        if path.exists():
            found = read_attacks(path, seeds, n["attack"])
            arrays[name] |= found
            for metric in found:
                if metric.startswith("ssim_"):
                    add("attack", name, metric, found[metric], metric if by_training else None)

    def add_classified(name: str, path: Path) -> None:
        if path.exists():
            for key, correct in read_classified(path, seeds, n).items():
                metric = key.replace("correct_", "acc_", 1)
                dataset = "ten" if metric.startswith("acc_ten_") else "transfer"
                where = "test" if dataset == "ten" else "transfer"
                add(where, name, metric, _percent(correct), dataset)

    for name in in_order(list(schemes), SCHEMES):
        add_cipher(schemes[name])
        add_attacks(name, attacked / name / "evaluation.npz", by_training=True)
        of_h_p = schemes[name].variant is not None
        add_attacks(name, cryptanalysed / name / "evaluation.npz", by_training=of_h_p)
        add_classified(name, classified / name / "evaluation.npz")
    add("test", "h_theta", "acc", _percent(of_target["correct"]), "h_theta")
    for floor, rows in floors.items():
        add(floor.rpartition("_")[2], "floor", floor, rows, None)

    print(f"resampling {n['attack']} attacked images {resamples} times", flush=True)
    means: dict[Key, Estimate] = {}
    # a seed for each set of images: equal draws would pair what has no partner
    for i, (where, of_where) in enumerate(values.items()):
        if of_where:
            means |= mean_estimates(of_where, groups[where], resamples=resamples, seed=seed + i)
    means = _spread(means, trained, seed=seed)
    on_protected = _of_protected(of_protected, resamples=resamples, seed=seed + len(values))
    n["train"] = of_protected["correct"].shape[1]
    evidence = Evidence(
        scores={
            name: {metric: e for (s, metric), e in means.items() if s == name} for name in schemes
        },
        n=n,
        level=level,
        floors={floor: means["floor", floor] for floor in floors},
        protection={**on_protected, "acc": means["h_theta", "acc"]},
        mismatches=mismatches,
        keyed={scheme.name for scheme in schemes.values() if scheme.keyed},
        guess=guess,
        missing=missing,
    )
    findings = judge_claims(evidence, paper)
    printed = table1_says(paper)
    setting = {
        **meta,
        "transform_epochs": _transform_epochs(histories.get("proposed", []), meta["n_train"]),
        "classifier_epochs": _classifier_epochs(classified / "plain", seeds),
    }

    for name in schemes:
        write_json(out / f"{name}.json", summarise(evidence, name, arrays[name]))
    content = {**table1(paper, evidence, setting), "level": level, "guess": guess}
    write_json(out / "table1.json", content)
    write_json(out / "matrix.json", matrix(evidence, arrays))
    guards = {name: [run.get("guard") for run in runs] for name, runs in histories.items()}
    variant_of = {name: str(schemes[name].variant) for name in histories}
    write_json(out / "protection.json", protection(evidence, variant_of, guards))
    write_json(
        out / "claims.json",
        {
            "verdicts": {finding.id: finding.verdict for finding in findings},
            "details": [
                as_record(paper.claims[finding.id], finding, printed[finding.id])
                for finding in findings
            ],
        },
    )
    print(verdict_table(findings))
    return {"images": n["attack"], "schemes": len(schemes)}


if __name__ == "__main__":
    run(score, "gan_transform.score")
