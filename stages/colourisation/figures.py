"""The paper's figures, drawn from the artifacts of training and evaluation.

Every function returns the figure and the table of its numbers, or None if a file that it needs
does not exist yet. Variants are given by name (params.yaml), never found by listing folders.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from skimage.color import lab2rgb, rgb2lab

from stages.colourisation.baselines import half_chroma, random_hue
from stages.common.figures import PALETTE, appearance, image_grid, panels, spread_labels, styled
from stages.common.files import read_json, read_npz
from stages.common.histograms import log_histogram

FIG3 = ("bn", "bn_sn", "ibn_sn")  # Fig. 3's panels
FIG4 = ("bn", "bn_sn", "bn_sn_md", "ibn_sn_md")  # Fig. 4's curves, besides the real images
BIN_CENTRES = np.arange(-109.5, 109)  # 219 bins of one ab unit, edges -110 .. 109
BLIND, PERFECT = 0.25, 0.0  # Eq. (4) as least squares: D's loss if it cannot tell, if it always can
Drawn = tuple[Figure, pd.DataFrame]


def architecture_table(plan: Sequence) -> pd.DataFrame:
    """Turn a plan, a list of one dataclass per layer, into a table, one row a layer (Fig. 2)."""
    if not plan:
        raise ValueError("a plan has at least one layer, this has 0")
    return pd.DataFrame([dataclasses.asdict(layer) for layer in plan], dtype=object)


def _histories(folder: Path) -> dict[int, dict]:
    """Read the training logs of one variant, seed -> log."""
    files = {int(p.stem.removeprefix("history-s")): p for p in folder.glob("history-s*.json")}
    return {seed: read_json(files[seed]) for seed in sorted(files)}


def learning_table(artifacts: Path, variants: Sequence[str]) -> pd.DataFrame:
    """Collect the training logs: variant, seed, epoch, quantity, value; empty if none was made."""
    rows = []
    for variant in variants:
        for seed, history in _histories(artifacts / "train" / variant).items():
            for entry in history["log"]:
                for quantity in ("g_adv", "d_loss", "l1"):
                    if quantity in entry:
                        value = entry[quantity]
                        rows.append((variant, seed, float(entry["epoch"]), quantity, value))
            for entry in history["epochs"]:
                rows.append((variant, seed, float(entry["epoch"]), "l1_val", entry["l1_val"]))
    return pd.DataFrame(rows, columns=["variant", "seed", "epoch", "quantity", "value"])


@styled
def learning_curves(artifacts: Path, variants: Sequence[str]) -> Drawn | None:
    """Draw Fig. 3: adversarial and L1 terms against the epoch; a thin line a seed, thick the mean.

    The paper shows the generator's two terms; the loss of D and the L1 of the validation images
    are added, since claims C12 and C13 are about them.
    """
    table = learning_table(artifacts, variants)
    if table.empty:
        return None
    figure, axes = panels(2, 2, width=9, height=5.6, sharex=True)
    titles = {
        "g_adv": "adversarial term of G (0.25: D is blind)",
        "d_loss": "loss of D (0.25: blind, 0: perfect)",
        "l1": "L1, training images (ab units)",
        "l1_val": "L1, validation images (ab units)",
    }
    for ax, (quantity, title) in zip(axes, titles.items(), strict=True):
        ax.set_title(title)
        if quantity in ("g_adv", "d_loss"):
            ax.axhline(BLIND, color="#777777", lw=0.8, ls=":")
        for i, variant in enumerate(variants):
            shown = table[(table.variant == variant) & (table.quantity == quantity)]
            if shown.empty:
                continue
            look = appearance(i)
            for _, run in shown.groupby("seed"):
                ax.plot(run.epoch, run.value, color=look["color"], lw=0.6, alpha=0.45)
            mean = shown.groupby("epoch").value.mean()
            ax.plot(mean.index, mean, color=look["color"], ls=look["linestyle"], label=variant)
    for ax in axes[2:]:
        ax.set_xlabel("epoch")
    axes[0].legend()
    return figure, table


def histogram_table(artifacts: Path, variants: Sequence[str]) -> pd.DataFrame:
    """Log histograms of a and b over the test images: a column a channel and source.

    Counts are means over images and seeds. Variants without a result are left out; without the
    real images' the table is empty.
    """
    columns: dict[str, np.ndarray] = {"centre": BIN_CENTRES}
    real = artifacts / "evaluate" / "baselines" / "real.npz"
    if not real.exists():
        return pd.DataFrame()
    files = {"real": real} | {v: artifacts / "evaluate" / f"{v}.npz" for v in variants}
    for name, path in files.items():
        if not path.exists():
            continue
        counts = read_npz(path, ["image_hist"])["image_hist"].astype(np.int64)
        counts = counts.reshape(-1, *counts.shape[-2:])  # (seeds x images, 2, bins)
        for channel, letter in enumerate("ab"):
            columns[f"{name} {letter}"] = log_histogram(counts[:, channel].mean(0))
    return pd.DataFrame(columns)


@styled
def log_histograms(artifacts: Path, variants: Sequence[str]) -> Drawn | None:
    """Draw Fig. 4: log histograms of a and of b of the test images, real and predicted."""
    table = histogram_table(artifacts, variants)
    if table.empty:
        return None
    figure, axes = panels(1, 2, width=9, height=3.8, sharey=True)
    shown = [v for v in variants if f"{v} a" in table]
    curves = [f"{name} {letter}" for name in ("real", *shown) for letter in "ab"]
    floor = table[curves].to_numpy().min()
    for ax, letter in zip(axes, "ab", strict=True):
        real = table[f"real {letter}"]
        ax.fill_between(table.centre, real, floor, color="#d9d9d9", label="real", lw=0)
        for i, variant in enumerate(shown):
            look = appearance(i)
            ax.plot(
                table.centre,
                table[f"{variant} {letter}"],
                color=look["color"],
                ls=look["linestyle"],
                lw=1.2,
                label=variant,
            )
        ax.set_xlabel(f"{letter} (CIELAB units)")
        ax.set_xlim(-110, 109)
    axes[0].set_ylabel("ln(pixels per image)")
    axes[1].legend()
    return figure, table


def to_rgb(
    L: Float[np.ndarray, "n h w"], ab: Float[np.ndarray, "n 2 h w"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Decode CIELAB (L 0..100, ab units) to sRGB; colours outside sRGB are clipped."""
    lab = np.stack([L, ab[:, 0], ab[:, 1]], axis=-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*negative Z values")  # clipped, as said above
        return (lab2rgb(lab) * 255).round().astype(np.uint8)


def one_of_each_class(labels: Int[np.ndarray, " n"]) -> list[int]:
    """Return the position of the first image of every class, in the order of the classes."""
    return np.unique(labels, return_index=True)[1].tolist()


def comparison_grid(
    artifacts: Path, variants: Sequence[str], *, max_rows: int = 12
) -> Drawn | None:
    """Draw Fig. 5: grey input, every variant's prediction (its first seed), the original.

    Rows are the first test image of each class, by rule and not by eye; with more than
    ``max_rows`` classes, evenly spaced ones. Two trivial predictions follow last: half the true
    chroma, and the true chroma with a random hue (grey is the input). The table gives the mean
    |Δab| of every tile.
    """
    test, meta = artifacts / "prepare" / "test.npz", artifacts / "prepare" / "meta.json"
    if not (test.exists() and meta.exists()):
        return None
    classes = read_json(meta)["classes"]
    data = read_npz(test, ["images", "labels"])
    chosen = one_of_each_class(data["labels"])
    if len(chosen) > max_rows:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, max_rows).round().astype(int)]
    lab = rgb2lab(data["images"][chosen])
    L, real = lab[..., 0], lab[..., 1:].transpose(0, 3, 1, 2)
    names = [str(classes[label]) for label in data["labels"][chosen]]
    predicted: dict[str, np.ndarray] = {"grey input": np.zeros_like(real)}
    for variant in variants:
        files = sorted((artifacts / "train" / variant).glob("predictions-s*.npz"), key=_seed)
        if files:
            test_ab = read_npz(files[0], ["test"])["test"]
            predicted[variant] = test_ab[chosen].astype(np.float64)
    predicted["original"] = real
    predicted["half chroma"] = half_chroma(real)
    predicted["random hue"] = random_hue(real, seed=0)  # any draw: only an illustration
    columns = {name: list(to_rgb(L, ab)) for name, ab in predicted.items()}
    table = pd.DataFrame({"image": chosen, "class": names})
    for name, ab in predicted.items():
        table[f"L1 {name}"] = np.abs(ab - real).mean(axis=(1, 2, 3))
    return image_grid(columns, names), table


def _seed(path: Path) -> int:
    return int(path.stem.rpartition("-s")[2])


@styled
def l1_against_lperc(results: Mapping[str, Mapping], baselines: Mapping[str, Mapping]) -> Drawn:
    """Draw L_perc against L1 of variants and baselines: what C4, X1 and X2 are about.

    Parameters
    ----------
    results, baselines : name -> its numbers, with l1, lperc and, if known, l1_ci and lperc_ci.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    rows = [
        (name, kind, r["l1"], *_interval(r, "l1"), r["lperc"], *_interval(r, "lperc"))
        for kind, group in (("variant", results), ("baseline", baselines))
        for name, r in group.items()
        if r.get("l1") is not None and r.get("lperc") is not None
    ]
    if not rows:
        raise ValueError("nothing to draw: no result has both l1 and lperc")
    names = ["l1", "l1_lo", "l1_hi", "lperc", "lperc_lo", "lperc_hi"]
    table = pd.DataFrame(rows, columns=["name", "kind", *names])
    figure, axes = panels(1, 2, width=9, height=4.2)
    groups = {"all, with the trivial baselines": table}
    near = table.query("kind == 'variant'")
    if len(near) > 1:
        groups["the variants alone"] = near
    else:
        axes[1].set_visible(False)
    for ax, (title, shown) in zip(axes, groups.items(), strict=False):
        ax.set_title(title)
        for kind, colour, marker in (("variant", PALETTE[0], "o"), ("baseline", PALETTE[1], "s")):
            part = shown.query("kind == @kind")
            if not part.empty:
                ax.errorbar(
                    part.l1,
                    part.lperc,
                    xerr=_errors(part, "l1"),
                    yerr=_errors(part, "lperc"),
                    fmt=marker,
                    ms=4,
                    lw=0.7,
                    color=colour,
                    label=kind,
                    alpha=0.85,
                )
        ax.margins(0.12)
        ax.set_xlabel("L1 (ab units), lower is closer")
    axes[0].set_ylabel("L_perc, lower is closer")
    axes[0].legend(loc="best")
    figure.draw_without_rendering()
    for ax, shown in zip(axes, groups.values(), strict=False):
        spread_labels(ax, shown.l1.tolist(), shown.lperc.tolist(), shown.name.tolist())
    return figure, table


def _interval(result: Mapping, metric: str) -> tuple[float, float]:
    lo, hi = result.get(f"{metric}_ci") or (result[metric], result[metric])
    return lo, hi


def _errors(part: pd.DataFrame, metric: str) -> np.ndarray:
    below, above = part[metric] - part[f"{metric}_lo"], part[f"{metric}_hi"] - part[metric]
    return np.clip(np.stack([below, above]), 0, None)
