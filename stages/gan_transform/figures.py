"""The paper's figures, drawn from the artifacts of the ciphers, the attacks and the training.

Every function returns the figure and the table of its numbers, or None if a file that it needs
does not exist yet. Schemes and attacks are given by name, never found by listing folders.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.figure import Figure

from stages.common.figures import PALETTE, appearance, image_grid, panels, spread_labels, styled
from stages.common.files import read_json, read_npz
from stages.common.metrics import ssim

Drawn = tuple[Figure, pd.DataFrame]
# of a history's log: quantity -> title
TERMS = {
    "adv": "adversarial terms of G × λ",
    "lp": "perceptual terms × γ1 (γ1 < 0: more is maximised)",
    "lc": "classification terms × γ2",
    "lr": "reconstruction terms × γ3",
    "ce_xhatp": "cross entropy of h_θ on the protected images",
    "d_loss": "loss of the two discriminators",
}
SMALL_PX = 64  # a larger image is shown at its own size: shrinking would smooth a cipher
CAPTION_PX = 26  # two lines under a tile
TINY_PT = 7


# ---------------------------------------------------------------- images


def _first_seed(folder: Path, stem: str) -> Path | None:
    files = folder.glob(f"{stem}-s*.npz")
    return min(files, key=lambda path: int(path.stem.rpartition("-s")[2]), default=None)


def _panel(
    artifacts: Path, count: int
) -> tuple[list[int], list[str], UInt8[np.ndarray, "k h w 3"]] | None:
    """Return the first ``count`` images of the panel: indices, names of their classes, images."""
    test, meta = (artifacts / "prepare" / name for name in ("attack_test.npz", "meta.json"))
    if not (test.exists() and meta.exists()):
        return None
    known = read_json(meta)
    data = read_npz(test, ["images", "labels"])
    chosen = [int(i) for i in known["panel"][:count]]
    labels = data["labels"][chosen].tolist()
    same = known["attack_dataset"] == known["dataset"]
    names = [str(known["classes"][i]) if same else f"class {i}" for i in labels]
    return chosen, names, data["images"][chosen]


def ciphers_of(
    artifacts: Path, scheme: str, chosen: Sequence[int]
) -> UInt8[np.ndarray, "k h w 3"] | None:
    """Return a scheme's ciphers of the chosen attack test images, with its first key or seed."""
    path = _first_seed(artifacts / "encrypt" / scheme, "attack_test")
    return None if path is None else read_npz(path, ["images"])["images"][list(chosen)]


def reconstructions_of(artifacts: Path, scheme: str) -> dict[str, UInt8[np.ndarray, "k h w 3"]]:
    """Return attack -> its reconstructions of the panel's images; empty if nothing was attacked."""
    found: dict[str, np.ndarray] = {}
    for stage in ("attack", "cryptanalyse"):
        path = artifacts / stage / scheme / "reconstructions.npz"
        if path.exists():
            found |= read_npz(path)
    return found


def _captioned_grid(
    columns: Mapping[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    captions: Mapping[str, Sequence[str]],
    row_labels: Sequence[str],
    side: int,
) -> Figure:
    """Lay out images by :func:`image_grid`, with a caption under each tile."""
    figure = image_grid(columns, row_labels, side=side, gap=CAPTION_PX)
    heads, rows = figure.texts[: len(columns)], figure.texts[len(columns) :]
    below = (side / 2 + 1) / (figure.get_figheight() * figure.dpi)
    for j, name in enumerate(columns):
        for i in range(len(row_labels)):
            x, y = heads[j].get_position()[0], rows[i].get_position()[1] - below
            caption = captions[name][i]
            figure.text(x, y, caption, size=TINY_PT, ha="center", va="top", linespacing=1.1)
    return figure


def _similarity(
    plain: UInt8[np.ndarray, "k h w 3"], other: UInt8[np.ndarray, "k h w 3"]
) -> list[float]:
    return [float(v) for v in ssim(plain, other, data_range=255)]


def fixed(value: float | int, places: int, *, sign: bool = False) -> str:
    """Write a number with ``places`` decimals, a true minus, and no sign of a zero."""
    rounded = round(float(value), places) or 0.0
    return f"{rounded:{'+' * (sign and rounded != 0)}.{places}f}".replace("-", "−")


def images_shown(size: int, *, small: int, large: int) -> int:
    """Return how many images a panel has: few if they are large, since ciphers do not compress.

    Parameters
    ----------
    size : side of an image, px.
    small, large : the two answers.
    """
    return small if size <= SMALL_PX else large


@styled
def cipher_grid(
    artifacts: Path, schemes: Sequence[str], *, small: int = 5, large: int = 2
) -> Drawn | None:
    """Draw Fig. 1: the panel's first images and their ciphers by every scheme, SSIM beneath.

    Ciphers are those of the first seed. Schemes that have none are left out. There are ``small``
    images, ``large`` if they are large.
    """
    panel = _panel(artifacts, small)
    if panel is None:
        return None
    chosen, names, plain = panel
    keep = images_shown(plain.shape[1], small=small, large=large)
    chosen, names, plain = chosen[:keep], names[:keep], plain[:keep]
    columns: dict[str, list[np.ndarray]] = {"original": list(plain)}
    captions = {"original": [""] * len(plain)}
    rows = []
    for scheme in schemes:
        cipher = ciphers_of(artifacts, scheme, chosen)
        if cipher is None:
            continue
        alike = _similarity(plain, cipher)
        columns[scheme], captions[scheme] = list(cipher), [fixed(v, 2) for v in alike]
        rows += [(i, name, scheme, v) for i, name, v in zip(chosen, names, alike, strict=True)]
    if len(columns) == 1:
        return None
    table = pd.DataFrame(rows, columns=["image", "class", "scheme", "ssim"])
    return _captioned_grid(columns, captions, names, max(SMALL_PX, plain.shape[1])), table


@styled
def reconstruction_grid(
    artifacts: Path, roles: Mapping[str, Mapping[str, str]], schemes: Sequence[str], position: int
) -> Drawn | None:
    """Draw Fig. 7 for one image: a row a scheme, a column a kind of attack, SSIM beneath.

    Parameters
    ----------
    roles : head of a column -> {scheme: attack}; a pair without a reconstruction stays white.
    schemes : the rows; those that were not attacked are left out.
    position : of the image in the panel.
    """
    panel = _panel(artifacts, position + 1)
    if panel is None or len(panel[0]) <= position:
        return None
    k, name, plain = panel[0][position], panel[1][position], panel[2][position:]
    blank = np.full_like(plain[0], 255)
    found = {scheme: reconstructions_of(artifacts, scheme) for scheme in schemes}
    shown = [scheme for scheme in schemes if found[scheme]]
    if not shown:
        return None
    columns: dict[str, list[np.ndarray]] = {"original": [plain[0]] * len(shown)}
    captions = {"original": [""] * len(shown)}
    rows = []
    for head in ("cipher", *roles):
        tiles, under = [], []
        for scheme in shown:
            attack = "raw" if head == "cipher" else roles[head].get(scheme, "")
            if attack == "raw":
                image = ciphers_of(artifacts, scheme, [k])
            else:
                image = found[scheme].get(attack)
                image = None if image is None else image[position : position + 1]
            if image is None:
                tiles.append(blank)
                under.append("")
                continue
            (alike,) = _similarity(plain, image)
            tiles.append(image[0])
            under.append(fixed(alike, 2) if attack == "raw" else f"{attack}\n{fixed(alike, 2)}")
            rows.append((k, name, scheme, head, attack, alike))
        columns[head], captions[head] = tiles, under
    table = pd.DataFrame(rows, columns=["image", "class", "scheme", "column", "attack", "ssim"])
    return _captioned_grid(columns, captions, shown, max(SMALL_PX, plain.shape[1])), table


# ---------------------------------------------------------------- curves


def learning_table(artifacts: Path, variants: Sequence[str]) -> pd.DataFrame:
    """Collect the CycleGAN's logs: variant, seed, pairs, quantity, value; empty if none exists."""
    rows = []
    for variant in variants:
        for path in sorted((artifacts / "transform" / variant).glob("history-s*.json")):
            seed = int(path.stem.rpartition("-s")[2])
            for entry in read_json(path)["log"]:
                for quantity in (*TERMS, "capped"):
                    if entry.get(quantity) is not None:
                        value = float(entry[quantity])
                        rows.append((variant, seed, int(entry["pairs"]), quantity, value))
    return pd.DataFrame(rows, columns=["variant", "seed", "pairs", "quantity", "value"])


@styled
def learning_curves(artifacts: Path, variants: Sequence[str]) -> Drawn | None:
    """Draw the terms of L_G (eqs. 4-9), each times its weight, against the pairs seen.

    A thin line is a seed, a thick one the mean of the seeds.
    """
    table = learning_table(artifacts, variants)
    if table.empty:
        return None
    figure, axes = panels(3, 2, width=9, height=7.4, sharex=True)
    for ax, (quantity, title) in zip(axes, TERMS.items(), strict=True):
        ax.set_title(title)
        for i, variant in enumerate(variants):
            shown = table[(table.variant == variant) & (table.quantity == quantity)]
            if shown.empty:
                continue
            look = appearance(i)
            for _, run in shown.groupby("seed"):
                ax.plot(run.pairs, run.value, color=look["color"], lw=0.6, alpha=0.45)
            mean = shown.groupby("pairs").value.mean()
            ax.plot(mean.index, mean, color=look["color"], ls=look["linestyle"], label=variant)
    for ax in axes[-2:]:
        ax.set_xlabel("pairs seen")
    axes[0].legend()
    return figure, table


@styled
def accuracy_against_leakage(table: pd.DataFrame, floor: float | None) -> Figure:
    """Draw accuracy against the SSIM of the worst attack: a panel a data set.

    Parameters
    ----------
    table : columns scheme, data (the panel), ours (bool: not in the paper's Table I), and ssim and
        accuracy (percent), each with _lo and _hi, which may be the value itself.
    floor : SSIM of a blank image, a dotted line.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    if table.empty:
        raise ValueError("nothing to draw: no scheme has both an accuracy and an attack")
    groups = list(table.groupby("data", sort=False))
    figure, axes = panels(1, len(groups), width=4.5 * len(groups), height=4.2)
    for ax, (title, shown) in zip(axes, groups, strict=True):
        ax.set_title(str(title))
        if floor is not None:
            ax.axvline(floor, color="#777777", lw=0.9, ls=":", label="a blank image")
        for ours, colour, marker in ((False, PALETTE[0], "o"), (True, PALETTE[1], "s")):
            part = shown.query("ours == @ours")
            if not part.empty:
                ax.errorbar(
                    part.ssim,
                    part.accuracy,
                    xerr=_errors(part, "ssim"),
                    yerr=_errors(part, "accuracy"),
                    fmt=marker,
                    ms=4,
                    lw=0.7,
                    color=colour,
                    label="not in the paper's table" if ours else "of the paper's table",
                    alpha=0.85,
                )
        ax.margins(0.15)
        ax.set_xlabel("SSIM of the worst attack, lower is more private")
    axes[0].set_ylabel("accuracy (%), higher is more useful")
    axes[0].legend(loc="best")
    figure.draw_without_rendering()
    for ax, (_, shown) in zip(axes, groups, strict=True):
        spread_labels(ax, shown.ssim.tolist(), shown.accuracy.tolist(), shown.scheme.tolist())
    return figure


def _errors(part: pd.DataFrame, name: str) -> np.ndarray:
    below, above = part[name] - part[f"{name}_lo"], part[f"{name}_hi"] - part[name]
    return np.clip(np.stack([below, above]), 0, None)
