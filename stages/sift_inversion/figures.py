"""The paper's figures, drawn from images, keypoints, measures and training histories.

Every function returns the figure and the table of its numbers, or None if a file that it needs does
not exist yet. Runs are given by name, never found by listing folders.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from stages.common.figures import appearance, image_grid, panels, styled, tile
from stages.common.files import read_json, read_npz
from stages.sift_inversion.keypoints import Descriptors, read
from stages.sift_inversion.partial import boxes, kept, parse_box

Drawn = tuple[Figure, pd.DataFrame]
FULL = "full"  # the condition in which every keypoint is kept
ORIGINAL, KEYPOINTS = "original", "keypoints"  # columns that are no run's
TILE_PX = 128  # smaller images are enlarged by whole pixels
LARGEST_GRID = 400_000  # pixels of the images shown; ours: keeps the page below 3 MB
CAPTION_PX = 30  # two lines under a tile
SMALL_PT = 7
LETTERS = 20  # of a head above a tile
FINER = 3  # lines on images are drawn so much larger, then averaged
CROSS_PX = 2.5  # half of the cross of a removed keypoint
KEPT, GONE, REGION = "#56B4E9", "#D55E00", "#FFFFFF"  # drawn on black, which any image lets see
# measure of one image -> how it is called under a tile, decimals, what it is
UNDER = {
    "pd": ("PD", 2, "perceptual distance"),
    "pd_in": ("PD in box", 2, "there alone"),
    "psnr": ("PSNR", 1, "in dB"),
    "log_sharp": ("sharp", 2, "gradient energy over the original's"),  # as the ratio
    "ssim_y": ("SSIM Y", 2, "of luma"),
    "chroma_error": ("ΔCbCr", 1, "error of the colour"),
    "dcos": ("DC", 2, "cosine of the descriptors"),
    "kpr": ("KPR", 2, "keypoints found again"),
    "id1": ("found", 0, "the original is the nearest of all"),  # or "not found"
}
MEASURES = (
    *("psnr", "ssim", "ssim_y", "chroma_error", "pd", "log_sharp", "dcos", "dmatch", "kpr", "id1"),
    *("pd_face", "pd_rest", "pd_far", "pd_in", "pd_out"),
)
FULL_OF_BOX, MEAN_OF_BOX, COLOUR_OF_BOX = "pd_in_full", "pd_in_mean", "pd_in_mean_colour"
# of partial.json: metric -> title of its panel
LEAKS = {
    "id1": "originals found (%)",
    "pd": "perceptual distance PD",
    "dcos": "cosine of descriptors DC",
    "kpr": "keypoints found again KPR",
    "log_sharp_abs": "|ln SHARP|",
}
INSIDE = {  # metric of a box -> what it is of
    "pd_in": "without its keypoints",
    FULL_OF_BOX: "with all keypoints",
    MEAN_OF_BOX: "mean image there",
    COLOUR_OF_BOX: "mean colour there",
}
# of a history: quantity -> title
TERMS = {
    "val_loss": "validation loss, joint (eq. 7)",
    "val_l2": "validation loss, its L2 part (eq. 4)",
    "share_l2": "share of the L2 term in training",
    "share_p": "share of the perceptual term (eq. 5)",
    "share_s": "share of the style term (eq. 6)",
    "adv_share": "gradient of the adversary over that of 100 L_j",
    "d_acc": "accuracy of D",
    "loss_D": "loss of D (eq. 1)",
}


class Column(NamedTuple):
    """One column of a grid of images.

    head : above it.
    what : ``ORIGINAL``, ``KEYPOINTS`` or the name of a run.
    condition : which keypoints are left.
    """

    head: str
    what: str
    condition: str = FULL


def fixed(value: float | int, places: int, *, sign: bool = False) -> str:
    """Write a number with ``places`` decimals, a true minus, and no sign of a zero."""
    rounded = round(float(value), places) or 0.0
    return f"{rounded:{'+' * (sign and rounded != 0)}.{places}f}".replace("-", "−")


# ---------------------------------------------------------------- what is shown


def images_shown(size: int, *, columns: int, wanted: int) -> int:
    """Return how many images a grid has: fewer than wanted if they are large, at least one.

    Parameters
    ----------
    size : side of an image, px.
    columns : of the grid.
    """
    return max(1, min(wanted, LARGEST_GRID // (columns * size**2)))


def _panel(
    artifacts: Path, image_set: str, count: int
) -> tuple[list[int], list[str], UInt8[np.ndarray, "k s s 3"]] | None:
    """Return the first ``count`` images of a set's panel: indices, names, images."""
    test, meta = artifacts / "prepare" / f"{image_set}_test.npz", artifacts / "prepare/meta.json"
    if not (test.exists() and meta.exists()):
        return None
    known = read_json(meta)
    if image_set not in known["sets"]:
        return None
    data = read_npz(test, ["images", "labels"])
    chosen = [int(i) for i in known["panel"][image_set][:count]]
    classes = known["sets"][image_set]["classes"]
    names = [
        str(classes[label]) if len(classes) > 1 else f"image {i}"
        for i, label in zip(chosen, data["labels"][chosen].tolist(), strict=True)
    ]
    return chosen, names, data["images"][chosen]


def set_of(artifacts: Path, run: str) -> str | None:
    """Return the image set of a run that has reconstructed."""
    path = artifacts / "reconstruct" / "meta.json"
    return read_json(path)["runs"].get(run, {}).get("set") if path.exists() else None


def reconstruction(
    artifacts: Path, run: str, condition: str, chosen: Sequence[int]
) -> tuple[UInt8[np.ndarray, "k s s 3"], int] | None:
    """Return a run's images of the chosen test images by its first seed, and that seed."""
    files = (artifacts / "reconstruct" / run).glob(f"{condition}-s*.npz")
    seeds = {int(path.stem.rpartition("-s")[2]): path for path in files}
    if not seeds:
        return None
    first = min(seeds)
    return read_npz(seeds[first], ["images"])["images"][list(chosen)], first


def measures(
    artifacts: Path, run: str, condition: str, seed: int, chosen: Sequence[int]
) -> list[dict[str, float]]:
    """Return what was measured of each chosen image, by ``MEASURES``; empty if nothing was."""
    path = artifacts / "evaluate" / run / f"{condition}.npz"
    arrays = read_npz(path) if path.exists() else {}
    rows = arrays["seeds"].tolist() if arrays else []
    if seed not in rows:
        return [{} for _ in chosen]
    present = [name for name in MEASURES if name in arrays]
    return [{name: float(arrays[name][rows.index(seed), i]) for name in present} for i in chosen]


def under(values: Mapping[str, float], names: Sequence[str]) -> str:
    """Write an image's measures as the lines under its tile, two a line."""
    words = []
    for name in names:
        value = values.get(name)
        if value is None:
            continue
        head, places, _ = UNDER[name]
        if name == "id1":
            words.append(head if value else f"not {head}")
        elif np.isnan(value):
            words.append(f"{head} –")
        else:
            shown = np.exp(value) if name == "log_sharp" else value
            words.append(f"{head} {fixed(float(shown), places)}")
    pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
    return "\n".join("  ".join(pair) for pair in pairs)


# ---------------------------------------------------------------- keypoints


def keypoint_overlay(
    image: UInt8[np.ndarray, "s s 3"],
    kp: Float32[np.ndarray, "k 5"],
    *,
    side: int,
    gone: Float32[np.ndarray, "g 5"] | None = None,
    box: Float[np.ndarray, "4"] | None = None,
) -> UInt8[np.ndarray, "side side 3"]:
    """Draw keypoints on an image shown at ``side`` px.

    Parameters
    ----------
    kp : a circle of radius sigma, a line in the direction of the gradient.
    gone : a cross where a keypoint was removed.
    box : left, top, right, bottom of the region, image pixels.
    """
    size, fine = image.shape[0], FINER * side
    scale = FINER * (side / size if size > side else side // size)
    shift = max(0.0, (fine - size * scale) / 2)
    canvas = Image.fromarray(tile(image, side).repeat(FINER, axis=0).repeat(FINER, axis=1))
    draw = ImageDraw.Draw(canvas)

    def stroke(points: Sequence[tuple[float | int, float | int]], colour: str) -> None:
        for width, paint in ((2 * FINER + 1, "#000000"), (FINER + 1, colour)):
            draw.line(points, fill=paint, width=width, joint="curve")

    def at(x: float, y: float) -> tuple[float, float]:
        return shift + (x + 0.5) * scale, shift + (y + 0.5) * scale

    for x, y, *_ in [] if gone is None else gone.tolist():
        (a, b), arm = at(x, y), CROSS_PX * FINER
        stroke([(a - arm, b - arm), (a + arm, b + arm)], GONE)
        stroke([(a - arm, b + arm), (a + arm, b - arm)], GONE)
    turn = np.linspace(0, 2 * np.pi, 37)
    for x, y, diameter, angle, _ in kp.tolist():
        (a, b), radius = at(x, y), diameter / 2 * scale
        circle = np.stack([a + radius * np.cos(turn), b + radius * np.sin(turn)], 1)
        stroke([(float(u), float(v)) for u, v in circle], KEPT)
        along = np.deg2rad(angle)
        stroke([(a, b), (a + radius * np.cos(along), b + radius * np.sin(along))], KEPT)
    if box is not None:
        edges = (shift + v * scale for v in box.tolist())
        left, top, right, bottom = (min(max(v, FINER), fine - 2 * FINER) for v in edges)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        stroke(corners, REGION)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX))


def _overlay(
    image: UInt8[np.ndarray, "s s 3"], found: Descriptors, condition: str, side: int
) -> tuple[UInt8[np.ndarray, "side side 3"], str]:
    """Draw the keypoints that a condition leaves of one image, and count them in words."""
    keep, region = kept(found, condition), parse_box(condition)
    box = boxes(found, *region[1:])[0] if region else None
    drawn = keypoint_overlay(
        image, np.asarray(found.kp[keep]), side=side, gone=np.asarray(found.kp[~keep]), box=box
    )
    total = int(keep.sum())
    return drawn, f"{total} keypoints" if condition == FULL else f"{total} of {len(keep)} left"


# ---------------------------------------------------------------- grids


def _captioned(
    columns: Mapping[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    captions: Mapping[str, Sequence[str]],
    rows: Sequence[str],
    side: int,
) -> Figure:
    """Lay out images by :func:`image_grid`, with a caption under each tile."""
    figure = image_grid(columns, rows, side=side, gap=CAPTION_PX)
    heads, labels = figure.texts[: len(columns)], figure.texts[len(columns) :]
    below = (side / 2 + 1) / (figure.get_figheight() * figure.dpi)
    for head, name in zip(heads, columns, strict=True):
        if len(name) <= LETTERS:
            head.set_text(name)  # R42_G keeps its underscore
        for label, caption in zip(labels, captions[name], strict=True):
            x, y = head.get_position()[0], label.get_position()[1] - below
            figure.text(x, y, caption, size=SMALL_PT, ha="center", va="top", linespacing=1.15)
    return figure


@styled
def comparison_grid(
    artifacts: Path,
    image_set: str,
    columns: Sequence[Column],
    *,
    names: Sequence[str],
    wanted: int,
) -> Drawn | None:
    """Draw the first images of a set's panel, a row an image, and what is measured beneath.

    A run that has not reconstructed is left out; without any there is no figure. Runs are shown by
    their first seed.

    Parameters
    ----------
    names : of the measures under a tile, of ``UNDER``.
    wanted : images; there are fewer if they are large or the panel has fewer.
    """
    panel = _panel(artifacts, image_set, wanted)
    if panel is None:
        return None
    size = panel[2].shape[1]
    keep = images_shown(size, columns=len(columns), wanted=wanted)
    chosen, labels, originals = panel[0][:keep], panel[1][:keep], panel[2][:keep]
    side = max(TILE_PX, size)
    folder = artifacts / "extract" / f"{image_set}_test"
    found = read(folder) if (folder / "meta.json").exists() else None
    tiles: dict[str, Sequence[np.ndarray]] = {}
    captions: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = []

    def note(column: Column, seed: int | None, values: Sequence[Mapping[str, float]]) -> None:
        for i, label, of in zip(chosen, labels, values, strict=True):
            about = {"image": i, "class": label, "column": column.head, "shows": column.what}
            rows.append({**about, "condition": column.condition, "seed": seed, **of})

    for column in columns:
        if column.what == ORIGINAL:
            tiles[column.head], captions[column.head] = list(originals), [""] * len(chosen)
        elif column.what == KEYPOINTS:
            if found is None:
                continue
            drawn = [
                _overlay(image, found.take([i]), column.condition, side)
                for i, image in zip(chosen, originals, strict=True)
            ]
            tiles[column.head] = [overlay for overlay, _ in drawn]
            captions[column.head] = [words for _, words in drawn]
            left = [int(kept(found.take([i]), column.condition).sum()) for i in chosen]
            note(column, None, [{"keypoints": float(count)} for count in left])
        else:
            made = reconstruction(artifacts, column.what, column.condition, chosen)
            if made is None:
                continue
            images, seed = made
            of = measures(artifacts, column.what, column.condition, seed, chosen)
            tiles[column.head] = list(images)
            captions[column.head] = [under(values, names) for values in of]
            note(column, seed, of)
    shown = {column.what for column in columns if column.head in tiles}
    if not shown - {ORIGINAL, KEYPOINTS}:
        return None
    return _captioned(tiles, captions, labels, side), pd.DataFrame(rows)


# ---------------------------------------------------------------- leakage


def leakage_table(partial: Mapping[str, Any]) -> pd.DataFrame:
    """Return the curves of partial.json: curve, mode, place, part, removed, metric, value, lo, hi.

    Every curve starts with all keypoints; what has no share of removed keypoints is left out.
    """
    curves: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for box in partial["boxes"]:
        key = f"{box['place']} box", box["mode"], box["place"]
        curves.setdefault(key, []).append({**box, "part": box["f"]})
    for keep in sorted(partial["keeps"], key=lambda keep: -keep["p"]):
        curves.setdefault(("at random", "", ""), []).append({**keep, "part": keep["p"]})
    for half in partial["sigmas"]:
        size = {"above": "large", "below": "small"}[half["half"]]
        curves[f"only {size} keypoints left", "", ""] = [{**half, "part": None}]
    rows = []
    for (curve, mode, place), points in curves.items():
        known = [point for point in points if point.get("removed") is not None]
        start = {"part": None, "removed": 0.0, "values": partial["full"][0]["values"]}
        alone = curve.startswith("only")
        for point in [*([start] * (not alone)), *known]:
            for metric, cell in point["values"].items():
                place_of = (curve, mode, place, point["part"], point["removed"], metric)
                rows.append((*place_of, cell["value"], cell["lo"], cell["hi"]))
    columns = ["curve", "mode", "place", "part", "removed", "metric", "value", "lo", "hi"]
    return pd.DataFrame(rows, columns=columns)


@styled
def leakage_curves(
    partial: Mapping[str, Any], floors: Mapping[str, Mapping[str, float]]
) -> Drawn | None:
    """Draw what is left of an image against the share of its descriptors that were removed.

    Parameters
    ----------
    partial : the content of partial.json.
    floors : metric -> name -> value of images that show nothing, as horizontal lines.
    """
    table = leakage_table(partial)
    if not (table.removed > 0).any():
        return None
    figure, axes = panels(2, 3, width=11, height=6.6)
    places = list(dict.fromkeys(table.place))
    curves = table[["curve", "mode", "place"]].drop_duplicates().values.tolist()
    for ax, (metric, title) in zip(axes, LEAKS.items(), strict=False):
        ax.set_title(title)
        for curve, mode, place in curves:
            points = table.query("metric == @metric and curve == @curve and mode == @mode")
            label = f"{curve}, by support" if mode == "support" else curve
            if curve.startswith("only"):
                marker = "^" if "large" in curve else "v"
                x = 100 * points.removed
                ax.plot(x, points.value, marker, color="#000000", ms=5, label=label)
                continue
            dash = "--" if mode == "support" else "-"
            _band(ax, points, appearance(places.index(place))["color"], dash, label)
        for name, value in floors.get(metric, {}).items():
            style = {"mean image": ":", "chance": "-."}.get(name, (0, (1, 4)))
            ax.axhline(value, color="#777777", lw=0.9, ls=style, label=name)
    ax = axes[len(LEAKS)]
    ax.set_title("PD inside the centred box")
    centred = dict(iter(table.query("place == 'centre' and mode == 'centre'").groupby("metric")))
    for i, (metric, label) in enumerate(INSIDE.items()):
        if metric in centred:
            _band(ax, centred[metric], appearance(i)["color"], "-" if i < 2 else ":", label)
    if ax.lines:
        ax.legend()
    for ax in axes[3:]:
        ax.set_xlabel("descriptors removed (%)")
    handles: dict[str, Any] = {}
    for ax in axes[: len(LEAKS)]:
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return figure, table


def _band(ax: Any, points: pd.DataFrame, colour: str, dash: str, label: str) -> None:
    x = 100 * points.removed
    ax.fill_between(x, points.lo, points.hi, color=colour, alpha=0.12, lw=0)
    ax.plot(x, points.value, color=colour, ls=dash, marker="o", ms=3, label=label)


# ---------------------------------------------------------------- training


def learning_table(artifacts: Path, runs: Sequence[str]) -> pd.DataFrame:
    """Collect the histories: run, seed, images seen, quantity, value; empty if none exists.

    ``val_loss`` is of runs with a joint loss only; of the others it is ``val_l2``.
    """
    rows = []
    for run in runs:
        for stage in ("train", "refine"):
            folder = artifacts / stage / run
            if not (folder / "meta.json").exists():
                continue
            l2 = read_json(folder / "meta.json").get("loss") == "l2"
            for path in sorted(folder.glob("history-s*.json")):
                seed, history = int(path.stem.rpartition("-s")[2]), read_json(path)
                for entry in [*history["log"], *history.get("epochs", [])]:
                    seen = int(entry.get("images", entry["step"] * history["batch_size"]))
                    found = {name: entry[name] for name in TERMS if entry.get(name) is not None}
                    if l2 and "val_loss" in found:
                        found["val_l2"] = found.pop("val_loss")
                    rows += [(run, seed, seen, name, float(v)) for name, v in found.items()]
    return pd.DataFrame(rows, columns=["run", "seed", "images", "quantity", "value"])


@styled
def learning_curves(artifacts: Path, runs: Sequence[str]) -> Drawn | None:
    """Draw validation losses, the shares of the loss's terms, and how D does, against images seen.

    A thin line is a seed, a thick one the mean of the seeds.
    """
    table = learning_table(artifacts, runs)
    if table.empty:
        return None
    figure, axes = panels(4, 2, width=9, height=11)
    shown = [run for run in runs if (table.run == run).any()]
    for ax, (quantity, title) in zip(axes, TERMS.items(), strict=True):
        ax.set_title(title)
        for i, run in enumerate(shown):
            lines = table[(table.run == run) & (table.quantity == quantity)]
            if lines.empty:
                continue
            look = appearance(i)
            for _, of_seed in lines.groupby("seed"):
                ax.plot(of_seed.images, of_seed.value, color=look["color"], lw=0.6, alpha=0.4)
            mean = lines.groupby("images").value.mean()
            ax.plot(mean.index, mean, color=look["color"], ls=look["linestyle"], label=run)
    for ax in axes[-2:]:
        ax.set_xlabel("images seen")
    handles: dict[str, Any] = {}
    for ax in axes:
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    order = [run for run in shown if run in handles]
    lines = [handles[run] for run in order]
    figure.legend(lines, order, loc="outside lower center", ncols=6)
    return figure, table
