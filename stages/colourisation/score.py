"""Judge the paper's numbers and claims by what was measured (Table I, Figs. 3 and 4).

Reads evaluate/<variant>.npz, evaluate/baselines/*.npz, the training histories, the test images'
clusters and paper.yaml. Writes <variant>.json, baseline_<name>.json, table1.json, claims.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.colourisation.claims import (
    RESAMPLED_HISTOGRAMS,
    Evidence,
    judge_claims,
    table1_says,
)
from stages.colourisation.evaluations import (
    BASELINES,
    PER_IMAGE,
    SATURATED,
    Arrays,
    read_evaluation,
    read_real,
    same_seeds,
)
from stages.colourisation.histories import read_history
from stages.colourisation.summaries import histogram_estimates, summarise
from stages.colourisation.table1 import table1
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

PAPER = Path(__file__).with_name("paper.yaml")


def read_paper(path: Path = PAPER) -> Paper:
    """Read this paper's numbers and claims."""
    return load_paper(path, axes=("variant",))


def _means(
    evaluations: Mapping[str, Arrays],
    groups: np.ndarray,
    *,
    metrics: tuple[str, ...],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Estimate]]:
    """Resample all metrics of all evaluations at once, on the same draws."""
    values = {(v, m): arrays[m] for v, arrays in evaluations.items() for m in metrics}
    found: dict[str, dict[str, Estimate]] = {v: {} for v in evaluations}
    for (v, m), estimate in mean_estimates(values, groups, resamples=resamples, seed=seed).items():
        found[v][m] = estimate
    return found


def _training_groups(prepared: Path, evaluations: Mapping[str, Arrays], folder: Path) -> np.ndarray:
    """Return the clusters of the training images whose L1 was evaluated: the first ones."""
    groups = read_npz(prepared / "train.npz", ["groups"])["groups"]
    lengths = {v: arrays["l1_train"].shape[1] for v, arrays in evaluations.items()}
    n = min(lengths.values())
    for v, length in lengths.items():
        if length != n or length > len(groups):
            raise InputError(
                folder / f"{v}.npz",
                "l1_train is of other training images than the rest",
                expected=f"the first {n} of {len(groups)}",
                found=f"{length} images",
                remedy="evaluate everything on the same images (dvc repro)",
            )
    return groups[:n]


def score(
    prepared: Path,
    trained: Path,
    evaluated: Path,
    out: Path,
    *,
    variants: list[str],
    resamples: PositiveInt,
    histogram_resamples: PositiveInt,
    permutations: PositiveInt,
    level: Fraction,
    seed: NonNegativeInt,
    perc_backbone: str,
    perc_size: PositiveInt,
    quant: str,
) -> dict[str, Any]:
    """Write every variant's numbers, Table I and the verdicts on all claims.

    Parameters
    ----------
    prepared, trained, evaluated : folders of the stages of these names.
    out : folder of the JSON.
    variants : only these are read, whatever else lies in the folders.
    resamples, histogram_resamples : bootstrap resamples of means, and of histogram distances.
    permutations : of the change point's test (C15).
    level : of the intervals, e.g. 0.95.
    perc_backbone, perc_size, quant : the network behind ``lperc``, its input's side in pixels, and
        how colours were quantised; the paper's make absolute values comparable.

    Raises
    ------
    InputError
        If a file is damaged, holds NaN, or does not fit the others.
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
    meta = read_json(prepared / "meta.json")
    real = read_real(evaluated / "baselines" / "real.npz")
    files = {v: evaluated / f"{v}.npz" for v in variants}
    missing = {v: f"{v} has no evaluation" for v, file in files.items() if not file.exists()}
    evaluations = {v: read_evaluation(f, real) for v, f in files.items() if v not in missing}
    same_seeds(evaluated, evaluations)
    controls = [SATURATED] * ("bn" in evaluations)
    baselines = {
        name: read_evaluation(evaluated / "baselines" / f"{name}.npz", real)
        for name in (*BASELINES, *controls)
    }
    histories = {
        v: [read_history(trained / v / f"history-s{s}.json") for s in arrays["seeds"].tolist()]
        for v, arrays in evaluations.items()
    }

    print(f"resampling {len(real['groups'])} images {resamples} times", flush=True)
    draw = {"resamples": resamples, "seed": seed}
    everything = {**evaluations, **baselines}
    scores = _means(everything, real["groups"], metrics=PER_IMAGE, **draw)
    training = _training_groups(prepared, everything, evaluated)
    # other images than the test's, so other draws: equal ones would pair what has no partner
    on_training = _means(
        everything, training, metrics=("l1_train",), resamples=resamples, seed=seed + 1
    )
    for v, means in on_training.items():
        scores[v] |= means
    for v in set(RESAMPLED_HISTOGRAMS) & set(evaluations):
        scores[v] |= histogram_estimates(
            evaluations[v], real, resamples=histogram_resamples, seed=seed
        )
    for metric in {m for v in evaluations for m in scores[v]}:
        trained_models = {v: scores[v][metric] for v in evaluations if metric in scores[v]}
        for v, estimate in with_seed_spread(trained_models, seed=seed).items():
            scores[v][metric] = estimate
    truth = {"real": {m: real[m][None] for m in ("chroma", "m3", "hf")}}
    real_scores = _means(truth, real["groups"], metrics=("chroma", "m3", "hf"), **draw)["real"]

    evidence = Evidence(
        scores={v: scores[v] for v in evaluations},
        baselines={name: scores[name] for name in baselines},
        histories=histories,
        missing=missing,
        n=len(real["groups"]),
        level=level,
        permutations=permutations,
        seed=seed,
    )
    summaries = {
        v: summarise(
            arrays,
            real,
            scores[v],
            real_scores,
            level=level,
            classes=meta["classes"],
            histories=histories.get(v, ()),
        )
        for v, arrays in everything.items()
    }
    findings = judge_claims(evidence, paper)
    printed = table1_says(paper)
    setting = {**meta, "perc_backbone": perc_backbone, "perc_size": perc_size, "quant": quant}

    for v, summary in summaries.items():
        write_json(out / f"{'baseline_' * (v in baselines)}{v}.json", summary)
    short = ("l1", "l1_ci", "psnr", "psnr_ci", "lperc", "lperc_ci", "chroma_ratio", "m3_ratio")
    write_json(
        out / "table1.json",
        {
            **table1(paper, evidence, setting),
            "perc_backbone": perc_backbone,
            "level": level,
            "baselines": [{"name": b, **{k: summaries[b][k] for k in short}} for b in baselines],
        },
    )
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
    return {"images": len(real["groups"]), "variants": len(evaluations)}


if __name__ == "__main__":
    run(score, "colourisation.score")
