"""Read personal attributes from features: the first threat model (Sec. III-B, Fig. 3).

For every black box, local set and seed, heads are trained on the features of the training split and
judged on the test split, whose people are others. Writes <model>-<set>/<setting>.npz: predictions
int64 (k, n, T) of all n test images after the last epoch, best int64 (k, n, T) of the epoch with
the highest mean balanced accuracy on the test images (what the authors' code keeps), seeds (k,);
heads-s<seed>.safetensors, the headline heads, for :func:`stages.deep_features.heads.load_heads`;
and meta.json. The settings:

headline     one block, weighted classes
blocks2, blocks3   deeper heads
unweighted   one block, every image weighs 1
permuted     control: the labels of the training identities permuted among them
noise        control: standard normal numbers in place of all features
cross        headline heads of the next local set, on the tasks with the same classes in both; -1
             elsewhere; not written if there is one local set

Images without labels (-1) train nothing and count in no accuracy, but are predicted, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from safetensors.torch import save

from stages.common.errors import InputError
from stages.common.files import read_npz, write_bytes, write_json, write_npz
from stages.common.params import Decay, NonNegativeInt, PositiveFloat, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed, set_up
from stages.deep_features.balanced_accuracy import balanced_weights
from stages.deep_features.features import REMEDY, find_models, read_features, read_sets
from stages.deep_features.head_training import train_heads
from stages.deep_features.heads import Heads, parameters

PATHS = ("data", "extracted", "out")
ONE_BLOCK = ("headline", "unweighted", "permuted", "noise")  # trained side by side
DEEPER = {"blocks2": 2, "blocks3": 3}
CROSS = "cross"
UNKNOWN = -1

Labels = Int64[np.ndarray, "n t"]


@dataclass(frozen=True, eq=False)
class LocalSet:
    """Labels of a local set.

    tasks : [{"name", "classes"}].
    labels, pids : of both splits, by name.
    """

    name: str
    tasks: list[dict[str, Any]]
    labels: Mapping[str, Labels]
    pids: Mapping[str, Int64[np.ndarray, " n"]]

    @property
    def classes(self) -> list[int]:
        """How many each task has."""
        return [len(task["classes"]) for task in self.tasks]

    def known(self, split: str) -> Bool[np.ndarray, " n"]:
        """Return which images have labels."""
        return np.asarray((self.labels[split] >= 0).all(1))


def read_local_set(data: Path, name: str, about: Mapping[str, Any]) -> LocalSet:
    """Read the labels of a local set; ``about`` is its entry in meta.json.

    Raises
    ------
    InputError
        If a file is missing or damaged, labels and tasks do not belong together, or a person is in
        both splits.
    """
    tasks = about["tasks"]
    labels, pids = {}, {}
    for split in ("train", "test"):
        file = data / f"{name}_{split}.npz"
        arrays = read_npz(file, ["attributes", "pids"])
        labels[split], pids[split] = arrays["attributes"], arrays["pids"]
        most = np.array([len(task["classes"]) for task in tasks])
        shape = labels[split].shape
        if not tasks or shape != (len(pids[split]), len(tasks)) or (labels[split] >= most).any():
            raise InputError(
                file,
                "has attributes that do not belong to the tasks",
                expected=f"{len(pids[split])} rows of {len(tasks)} tasks with {most.tolist()}"
                " classes",
                found=f"{shape}, up to class {labels[split].max(initial=-1)}",
                remedy=REMEDY,
            )
    found = LocalSet(name, tasks, labels, pids)
    people = [set(pids[split][found.known(split)].tolist()) for split in ("train", "test")]
    if both := people[0] & people[1]:
        raise InputError(
            data / f"{name}_test.npz",
            "shows people of the training split",
            expected="other identities",
            found=f"{len(both)} in both, such as {min(both)}",
            remedy=REMEDY,
        )
    return found


def permute_identities(
    labels: Labels, pids: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> Labels:
    """Give every identity the labels of another, drawn by ``rng``; the images of one stay equal."""
    _, first, index = np.unique(pids, return_index=True, return_inverse=True)
    return labels[first][rng.permutation(len(first))][index]


def shared_tasks(own: LocalSet, other: LocalSet) -> list[tuple[int, int]]:
    """Return the places of the tasks that have the same name and classes, in own and other."""
    places = {task["name"]: i for i, task in enumerate(other.tasks)}
    return [
        (i, places[task["name"]])
        for i, task in enumerate(own.tasks)
        if task["name"] in places
        and other.tasks[places[task["name"]]]["classes"] == task["classes"]
    ]


class Best:
    """Keeps predictions of the last epoch, and of the epoch best on the test images.

    truth : labels of the test images; -1: unknown.
    """

    def __init__(self, truth: Labels):
        self._truth, self._weights = truth, balanced_weights(truth)
        self._mean = -1.0
        self.last = self.best = np.empty(0, np.int64)

    def observe(self, predictions: Labels) -> None:
        """End an epoch."""
        self.last = predictions
        mean = float((self._weights * (predictions == self._truth)).sum(0).mean())
        if mean > self._mean:
            self._mean, self.best = mean, predictions


def attributes_of_cell(
    features: Mapping[str, Float32[np.ndarray, "_n d"]],
    other_features: Float32[np.ndarray, "_m d"] | None,
    own: LocalSet,
    other: LocalSet | None,
    *,
    seed: int,
    device: torch.device,
    bn_momentum: float,
    **recipe: Any,
) -> tuple[dict[str, Best], Best | None, Heads]:
    """Train all settings on one black box's features of one set.

    Parameters
    ----------
    features : of the splits of ``own``.
    other_features : of the test split of ``other``, the set that is read "cross" by these heads.

    Returns
    -------
    Predictions by setting; those for ``other``, in its tasks; the heads of ``ONE_BLOCK``.
    """
    rng = np.random.default_rng(seed)
    known, dims = own.known("train"), features["train"].shape[1]
    labels, pids = own.labels["train"][known], own.pids["train"][known]
    noise = {s: rng.standard_normal(f.shape, np.float32) for s, f in features.items()}
    permuted = permute_identities(labels, pids, rng)

    def to(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    def finish(settings: Sequence[str], blocks: int) -> Heads:
        trained = {name: to(part["train"][known]) for name, part in inputs.items()}
        judged = {name: to(part["test"]) for name, part in inputs.items()}
        torch.manual_seed(seed)
        heads = Heads(
            dims, own.classes, blocks=blocks, stack=len(settings), bn_momentum=bn_momentum
        ).to(device)
        source = ["noise" if name == "noise" else "features" for name in settings]
        x = torch.stack([judged[name] for name in source])
        for _ in train_heads(
            heads,
            [trained[name] for name in source],
            [to(permuted if name == "permuted" else labels) for name in settings],
            weighted=[name != "unweighted" for name in settings],
            seed=seed,
            **recipe,
        ):
            for name, predictions in zip(settings, heads.predict(x).cpu().numpy(), strict=True):
                found[name].observe(predictions)
            if crossing is not None and blocks == 1:
                assert far is not None and other is not None
                crossing.observe(translated(heads.predict(far)[0].cpu().numpy(), pairs, other))
        return heads

    inputs = {"features": features, "noise": noise}
    found = {name: Best(own.labels["test"]) for name in (*ONE_BLOCK, *DEEPER)}
    crossing = far = None
    pairs: list[tuple[int, int]] = []
    if other is not None and other_features is not None:
        pairs = shared_tasks(other, own)
        truth = np.full_like(other.labels["test"], UNKNOWN)
        for theirs, _ in pairs:
            truth[:, theirs] = other.labels["test"][:, theirs]
        crossing = Best(truth)
        far = to(other_features).expand(len(ONE_BLOCK), -1, -1)
    heads = finish(ONE_BLOCK, 1)
    for name, blocks in DEEPER.items():
        finish([name], blocks)
    return found, crossing, heads


def translated(predictions: Labels, pairs: list[tuple[int, int]], other: LocalSet) -> np.ndarray:
    """Return predictions in the tasks of ``other``; -1 where the heads have no such task."""
    found = np.full((len(predictions), len(other.tasks)), UNKNOWN, np.int64)
    for theirs, own in pairs:
        found[:, theirs] = predictions[:, own]
    return found


def attributes_of_seed(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    seed: int,
    position: int,
    threads: int,
    models: list[str],
    names: list[str],
    **recipe: Any,
) -> dict[str, dict[str, Any]]:
    """Train with one seed; writes the headline heads.

    Returns {cell: {"dims", "parameters", "arrays": {setting: (last, best)}}}.
    """
    device = set_up(threads=threads, precision="32-true").device
    about = read_sets(data)["sets"]
    sets = [read_local_set(data, name, about[name]) for name in names]
    cells: dict[str, dict[str, Any]] = {}
    for model in models:
        features = [
            {
                split: read_features(extracted, model, own.name, split, seed, n=len(pids))
                for split, pids in own.pids.items()
            }
            for own in sets
        ]
        for i, own in enumerate(sets):
            previous = (i - 1) % len(sets)  # its "next local set" is this one
            far = previous != i
            found, crossing, heads = attributes_of_cell(
                features[i],
                features[previous]["test"] if far else None,
                own,
                sets[previous] if far else None,
                seed=seed,
                device=device,
                **recipe,
            )
            cell = cells.setdefault(f"{model}-{own.name}", {"arrays": {}})
            cell["arrays"] |= {name: (kept.last, kept.best) for name, kept in found.items()}
            if crossing is not None:
                theirs = cells.setdefault(f"{model}-{sets[previous].name}", {"arrays": {}})
                theirs["arrays"][CROSS] = crossing.last, crossing.best
            cell["dims"], cell["parameters"] = heads.dims, parameters(heads) // len(ONE_BLOCK)
            write_bytes(
                out / f"{model}-{own.name}" / f"heads-s{seed}.safetensors",
                save(heads.take(ONE_BLOCK.index("headline"))),
            )
            truth = own.labels["test"]
            right = balanced_weights(truth) * (found["headline"].last == truth)
            print(
                f"  {model}-{own.name}, seed {seed}: balanced accuracy {right.sum(0).mean():.3f},"
                f" mean of {len(own.tasks)} tasks",
                flush=True,
            )
    return cells


def attributes(
    data: Path,
    extracted: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    epochs: PositiveInt,
    batch_size: PositiveInt,
    lr: PositiveFloat,
    lr_late: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    bn_momentum: Decay,
) -> dict[str, int]:
    """Train and judge the heads of all black boxes, local sets, settings and seeds.

    Parameters
    ----------
    lr, lr_late : Adam's rate in the first and in the second half of the epochs.
    bn_momentum : share of the new batch in batch norm's running averages.

    Raises
    ------
    InputError
        If a file is missing or damaged, features and labels do not belong together, a person is in
        both splits, or there are fewer annotated images than a batch.
    """
    recipe = {k: v for k, v in locals().items() if k not in (*PATHS, "seeds", "threads")}
    meta, models = read_sets(data), find_models(extracted)
    names = meta["locals"]
    sets = [read_local_set(data, name, meta["sets"][name]) for name in names]
    done = for_each_seed(
        attributes_of_seed,
        seeds,
        threads=threads,
        data=data,
        extracted=extracted,
        out=out,
        models=models,
        names=names,
        **recipe,
    )
    for model in models:
        for i, own in enumerate(sets):
            cell = f"{model}-{own.name}"
            of_seeds = [cells[cell] for cells in done]
            for setting in of_seeds[0]["arrays"]:
                last, best = (
                    np.stack([s["arrays"][setting][kept] for s in of_seeds]) for kept in (0, 1)
                )
                write_npz(
                    out / cell / f"{setting}.npz",
                    predictions=last,
                    best=best,
                    seeds=np.asarray(seeds, np.int64),
                )
            following = sets[(i + 1) % len(sets)]
            shared = [own.tasks[a]["name"] for a, _ in shared_tasks(own, following)]
            write_json(
                out / cell / "meta.json",
                {
                    "model": model,
                    "set": own.name,
                    "dims": of_seeds[0]["dims"],
                    "blocks": 1,
                    "tasks": own.tasks,
                    "settings": sorted(of_seeds[0]["arrays"]),
                    "cross": {"set": following.name, "tasks": shared} if len(sets) > 1 else None,
                    "n_train": int(own.known("train").sum()),
                    "n_test": int(own.known("test").sum()),
                    "parameters": of_seeds[0]["parameters"],
                    **recipe,
                },
            )
    return {"cells": len(models) * len(sets), "trainings": len(done) * len(done[0])}


if __name__ == "__main__":
    run(attributes, "deep_features.attributes")
