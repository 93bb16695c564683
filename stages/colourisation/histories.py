"""What a training run's history says about the events of Fig. 3.

The figure prints no values, so the events are defined here: collapse of the adversarial game,
epochs until a given L1, and a sudden change of the adversarial loss.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from stages.common.errors import InputError
from stages.common.files import read_json


@dataclass(frozen=True, eq=False)
class History:
    """One run: logged series against step and epoch, and L1 at the end of each epoch.

    ``log`` is name -> (steps, epochs, values); ``epochs`` counts from 1; L1 in CIELAB units.
    """

    steps: int
    log: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    epochs: Float64[np.ndarray, " e"]
    l1_train: Float64[np.ndarray, " e"]
    l1_val: Float64[np.ndarray, " e"]

    def tail(self, name: str, window: float) -> Float64[np.ndarray, " t"]:
        """Values of a logged series in the last ``window`` (0..1) of the steps, at least one."""
        steps, _, values = self.log[name]
        late = steps > (1 - window) * self.steps
        return values[late] if late.any() else values[-1:]

    def by_epoch(self, name: str) -> Float64[np.ndarray, " e"]:
        """Mean of a logged series in each epoch that has an entry."""
        _, epochs, values = self.log[name]
        number = np.ceil(epochs - 1e-9)  # an entry at 2.0 closes the second epoch
        return np.array([values[number == k].mean() for k in np.unique(number)], np.float64)


def read_history(path: Path) -> History:
    """Read history-s<seed>.json.

    Raises
    ------
    InputError
        If the file is missing or damaged, lacks a part, or holds NaN.
    """
    content = read_json(path)
    try:
        log: dict[str, list[tuple[float, float, float]]] = {}
        for entry in content["log"]:
            at = float(entry["step"]), float(entry["epoch"])
            for name, value in entry.items():
                if name not in ("step", "epoch") and value is not None:
                    log.setdefault(name, []).append((*at, float(value)))
        columns = {
            key: np.array([float(entry[key]) for entry in content["epochs"]], np.float64)
            for key in ("epoch", "l1_train", "l1_val")
        }
        steps = int(content["steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            path,
            "is not the history of a training run",
            expected="steps, log [{step, epoch, ...}] and epochs [{epoch, l1_train, l1_val}]",
            found=f"{type(error).__name__}: {error}",
            remedy="delete it and run the training again (dvc repro)",
        ) from error
    series = {name: np.array(rows, np.float64) for name, rows in log.items()}
    for name, values in [*series.items(), *columns.items()]:
        if not np.isfinite(values).all():
            raise InputError(
                path,
                f"has values of {name!r} that are no numbers",
                expected="finite numbers",
                found="NaN or infinity",
                remedy="delete it and run the training again (dvc repro)",
            )
    return History(
        steps=steps,
        log={name: (rows[:, 0], rows[:, 1], rows[:, 2]) for name, rows in series.items()},
        epochs=columns["epoch"],
        l1_train=columns["l1_train"],
        l1_val=columns["l1_val"],
    )


def collapsed(history: History, *, threshold: float, window: float) -> bool:
    """Tell whether the adversarial game is over: D always wins, or its gradient is negligible.

    Median d_loss (0.25 for a blind D, 0 for a perfect one) or median adv_share (gradient of the
    adversarial terms over that of the L1 term) below ``threshold`` in the last ``window``.
    """
    medians = [np.median(history.tail(name, window)) for name in ("d_loss", "adv_share")]
    return bool(min(medians) < threshold)


def epochs_to(history: History, l1: float) -> float:
    """Epochs until the L1 on training images is at most ``l1``; infinite if that never happens."""
    reached = np.flatnonzero(history.l1_train <= l1)
    return float(history.epochs[reached[0]]) if len(reached) else math.inf


def last_epochs(history: History, window: float) -> slice:
    """Return the slice of the last ``window`` (0..1) of the epochs, at least one."""
    return slice(len(history.epochs) - max(1, round(window * len(history.epochs))), None)


def change_point(
    values: Float64[np.ndarray, " e"], *, permutations: int, seed: int
) -> tuple[int, float]:
    """Find the most likely change of the mean, and its p-value.

    Page's cumulative sum: the split k maximises |sum_{i<k} (x_i - mean)|; p is the share of
    permuted series whose maximum is as large (Taylor, "Change-point analysis", 2000). Neighbouring
    epochs are not independent, so a slow trend counts as a change as well.

    Returns
    -------
    k : number of values before the change, 1 .. e - 1.
    p : the observed series is one of the permutations, so p > 0.

    Raises
    ------
    ValueError
        If there are fewer than 2 values.
    """
    if len(values) < 2:
        raise ValueError(f"a change needs 2 values, there are {len(values)}")

    def sums(x: np.ndarray) -> np.ndarray:
        return np.abs((x - values.mean()).cumsum(axis=-1)[..., :-1])

    observed = sums(values)
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(values, (permutations, 1)), axis=1)
    reached = sums(shuffled).max(axis=1) >= observed.max() * (1 - 1e-12)
    return int(observed.argmax()) + 1, float((1 + reached.sum()) / (1 + permutations))
