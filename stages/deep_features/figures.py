"""The paper's figures and the attack's curves, drawn from results and panels of images.

Every function returns the figure and the table of its numbers, or None if what it needs does not
exist yet.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from stages.common.figures import DASHES, PALETTE, SCREEN_DPI, appearance, panels, styled, wrapped
from stages.common.files import read_json, read_npz
from stages.deep_features.evaluations import CIPHERTEXT_ONLY, KNOWN, LOSSES
from stages.deep_features.summaries import MODELS

Drawn = tuple[Figure, pd.DataFrame]
TALL_PX = 128  # a person's image is enlarged by whole pixels to at most this height
SHRUNK_PX = 192  # a taller one is shrunk to this height
LARGEST_GRID = 130_000  # pixels of the images in a grid; ours: keeps the page below 1 MB
GAP_PX, CAPTION_PX, LABEL_PX = 10, 16, 66
FONT_PX, SMALL_PT = 10, 7
FIELDS = {"sign": "#D55E00", "exponent": "#0072B2", "mantissa": "#AAAAAA"}
BITS, MANTISSA = 32, 23
NOTHING = "–"
# reference features of the attack, from nothing to most
REFERENCES = {
    "none": "none",
    "other_dataset": "another set",
    "n20": "20 vectors",
    "n100": "100 vectors",
    "same_domain": "training split",
}
BAR = 0.26  # width, of a group of 1
TOP = 1.05  # an interval over few seeds may reach above 1


def fixed(value: float | int, places: int, *, sign: bool = False) -> str:
    """Write a number with ``places`` decimals, a true minus, and no sign of a zero."""
    rounded = round(float(value), places) or 0.0
    return f"{rounded:{'+' * (sign and rounded != 0)}.{places}f}".replace("-", "−")


def look(cell: str, sets: Sequence[str]) -> dict[str, str]:
    """Return a cell's colour (its black box) and dash (its set)."""
    model, _, image_set = cell.partition("-")
    place = MODELS.index(model) if model in MODELS else len(MODELS)
    dash = sets.index(image_set) if image_set in sets else 0
    return {"color": PALETTE[place], "linestyle": DASHES[dash % len(DASHES)]}


# ---------------------------------------------------------------- Fig. 2


def field_of(bit: int) -> str:
    """Return the field of binary32 that a bit belongs to; bit 0 is the least significant."""
    return "sign" if bit == BITS - 1 else "exponent" if bit >= MANTISSA else "mantissa"


def _bits_row(ax: Axes, y: float, bits: str, origin: Sequence[int], label: str) -> None:
    """Draw 32 bits, most significant first; ``origin``: which bit of the float stands where."""
    for x, digit in enumerate(bits):
        colour = FIELDS[field_of(origin[BITS - 1 - x])]
        ax.add_patch(Rectangle((x - 0.45, y - 0.16), 0.9, 0.32, color=colour, alpha=0.25, lw=0))
        ax.text(x, y, digit, ha="center", va="center", size=SMALL_PT, family="DejaVu Sans Mono")
    ax.text(-0.9, y, label, ha="right", va="center", size=SMALL_PT + 1)


def example_table(example: Mapping[str, Any]) -> pd.DataFrame:
    """Return the worked examples bit by bit: example, bit, field, goes to, plain, decrypted."""
    rows = []
    for item in example["items"]:
        for bit, place in enumerate(item["perm"]):
            plain, cipher, back = (
                item[name][BITS - 1 - at]
                for name, at in (("plain", bit), ("cipher", place), ("decrypted", bit))
            )
            rows.append((item["name"], bit, field_of(bit), place, plain, cipher, back))
    columns = ["example", "bit", "field", "goes to", "plain", "encrypted there", "decrypted"]
    return pd.DataFrame(rows, columns=columns)


@styled
def worked_example(example: Mapping[str, Any] | None) -> Drawn | None:
    """Draw how bits move: Fig. 2, a rotation, and a key without a pattern.

    Parameters
    ----------
    example : ``facts.example``.
    """
    if not example or not example.get("items"):
        return None
    items = example["items"]
    figure, axes = panels(len(items), 1, width=8, height=1.8 * len(items))
    for ax, item in zip(axes, items, strict=True):
        value = item["cipher_value"]
        shown = "not a number" if value is None else f"{value:.6g}"
        ax.set_title(f"{item['name']}: {item['value']:.7g} becomes {shown}".replace("-", "−"))
        straight = list(range(BITS))
        moved = [0] * BITS
        for bit, place in enumerate(item["perm"]):
            moved[place] = bit
            colour, width = FIELDS[field_of(bit)], 1.0 if bit >= MANTISSA else 0.5
            top, bottom = BITS - 1 - bit, BITS - 1 - place
            above = 2 + (bit >= MANTISSA)
            ax.plot([top, bottom], [1.8, 1.2], color=colour, lw=width, zorder=above)
            ax.plot([bottom, top], [0.8, 0.2], color=colour, lw=width, zorder=above)
        _bits_row(ax, 2.0, item["plain"], straight, "float")
        _bits_row(ax, 1.0, item["cipher"], moved, "encrypted")
        _bits_row(ax, 0.0, item["decrypted"], straight, "decrypted")
        ax.set_xlim(-4.2, BITS)
        ax.set_ylim(-0.3, 2.3)
        ax.set_axis_off()
    marks = [Rectangle((0, 0), 1, 1, color=colour, alpha=0.4, lw=0) for colour in FIELDS.values()]
    figure.legend(marks, list(FIELDS), loc="outside lower center", ncols=3)
    return figure, example_table(example)


# ---------------------------------------------------------------- Fig. 3


def accuracy_table(table: Mapping[str, Any]) -> pd.DataFrame:
    """Return balanced accuracies: set, attribute, model, value, interval, chance, null band."""
    rows = []
    for cell in table["cells"]:
        names = [task["name"] for task in table["sets"][cell["set"]]["tasks"]]
        for attribute in names:
            of = cell["tasks"].get(attribute)
            if of is None:
                continue
            ba, null, few = of["ba"], of["null"], of["ba5"] or {}
            place = (cell["set"], attribute, cell["model"])
            own = (ba["value"], ba["lo"], ba["hi"], of["chance"])
            band = (null["lo"], null["hi"])
            rows.append((*place, *own, *band, few.get("value"), of["chance5"]))
    columns = ["set", "attribute", "model", "ba", "lo", "hi", "chance", "null lo", "null hi"]
    return pd.DataFrame(rows, columns=[*columns, "ba of common classes", "chance of these"])


@styled
def accuracy_bars(table: Mapping[str, Any]) -> Drawn | None:
    """Draw Fig. 3: a bar an attribute and black box, over guessing and permuted labels.

    Parameters
    ----------
    table : the content of table.json.
    """
    numbers = accuracy_table(table)
    if numbers.empty:
        return None
    sets = list(dict.fromkeys(numbers.set))
    models = [model for model in table["models"] if model in set(numbers.model)]
    figure, axes = panels(len(sets), 1, width=11, height=2.9 * len(sets))
    for ax, image_set in zip(axes, sets, strict=True):
        ax.set_title(f"{image_set}: balanced accuracy")
        here = numbers.query("set == @image_set")
        groups = here.groupby("attribute", sort=False)
        for x, (_, group) in enumerate(groups):
            of = group.set_index("model")
            for j, model in enumerate(models):
                if model not in of.index:
                    continue
                row = of.loc[model]
                at = x + (j - (len(models) - 1) / 2) * BAR
                whiskers = [[row.ba - row.lo], [row.hi - row.ba]]
                ax.bar(at, row.ba, 0.9 * BAR, color=PALETTE[j], label=model if x == 0 else None)
                ax.errorbar(at, row.ba, whiskers, color="#000000", lw=0.8, capsize=1.5, zorder=5)
                low, high = at - BAR / 2, at + BAR / 2
                ax.fill_between([low, high], row["null lo"], row["null hi"], color="#ffffff",
                                alpha=0.55, lw=0, zorder=3)  # fmt: skip
                ax.plot([low, high], [row.chance, row.chance], color="#000000", lw=1.2, zorder=4)
        names = [wrapped(str(name), 9) for name, _ in groups]
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_ylim(0, TOP)
        ax.grid(False, axis="x")
    handles, labels = axes[0].get_legend_handles_labels()
    chance = axes[0].plot([], [], color="#000000", lw=1.2)[0]
    band = Rectangle((0, 0), 1, 1, facecolor="#ffffff", edgecolor="#777777", lw=0.6)
    figure.legend(
        [*handles, chance, band],
        [*labels, "guessing", "permuted labels"],
        loc="outside lower center",
        ncols=len(labels) + 2,
    )
    return figure, numbers


# ---------------------------------------------------------------- grids of images


def _shown(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Enlarge by whole pixels, or shrink to area means."""
    height, width = image.shape[:2]
    if height > SHRUNK_PX:
        side = (max(1, round(width * SHRUNK_PX / height)), SHRUNK_PX)
        return np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BOX))
    factor = max(1, TALL_PX // height)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


@styled
def people_grid(
    columns: Mapping[str, Sequence[UInt8[np.ndarray, "_h _w 3"]]],
    captions: Mapping[str, Sequence[str]],
) -> Figure:
    """Lay out images of persons, a row a kind and a column an image, a caption under each.

    Parameters
    ----------
    columns : kind -> its images, all of one size.
    captions : kind -> the words under each image.

    Raises
    ------
    ValueError
        If there is nothing to show.
    """
    if not columns or not all(map(len, columns.values())):
        raise ValueError("nothing to show")
    tiles = {kind: [_shown(image) for image in images] for kind, images in columns.items()}
    tall, wide = next(iter(tiles.values()))[0].shape[:2]
    across, down = wide + GAP_PX, tall + CAPTION_PX + GAP_PX
    many = max(map(len, tiles.values()))
    across = max(across, 44)  # room for a caption
    width, height = LABEL_PX + across * many, down * len(tiles)
    mosaic = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI), dpi=SCREEN_DPI)
    FigureCanvasAgg(figure)
    points = FONT_PX * 72 / SCREEN_DPI
    for i, (kind, images) in enumerate(tiles.items()):
        y = i * down
        label = wrapped(kind, 10)
        figure.text(4 / width, 1 - (y + tall / 2) / height, label, size=points, va="center")
        for j, image in enumerate(images):
            x = LABEL_PX + j * across
            mosaic[y : y + tall, x : x + wide] = image
            words = captions[kind][j]
            middle, under = (x + wide / 2) / width, 1 - (y + tall + 2) / height
            figure.text(middle, under, words, size=SMALL_PT, ha="center", va="top")
    figure.figimage(mosaic, 0, 0, origin="upper")
    return figure


def images_shown(shape: tuple[int, ...], *, kinds: int, wanted: int) -> int:
    """Return how many images a grid has: fewer than wanted if they are large, at least one."""
    height, width = shape[1:3]
    shrunk = min(1.0, SHRUNK_PX / height)  # an enlarged image has no more to show than its own
    return max(1, min(wanted, round(LARGEST_GRID / (kinds * height * width * shrunk**2) - 0.5)))


def _distance(values: np.ndarray | None, place: int | None) -> str:
    if values is None or place is None or place >= values.shape[-1]:
        return ""
    return f"d {fixed(float(values[0, place]), 2)}"


def _panel(artifacts: Path, image_set: str) -> list[int]:
    meta = artifacts / "prepare" / "meta.json"
    return [int(i) for i in read_json(meta)["panel"][image_set]] if meta.exists() else []


def reconstruction_grid(artifacts: Path, cell: str, *, wanted: int) -> Drawn | None:
    """Draw Fig. 4: test images and what each loss makes of their features, by the first seed.

    Beneath an image stands its own cosine distance d.
    """
    path = artifacts / "evaluate" / f"panel-{cell}.npz"
    measured = artifacts / "evaluate" / f"{cell}.npz"
    if not (path.exists() and measured.exists()):
        return None
    images, values = read_npz(path), read_npz(measured)
    chosen = _panel(artifacts, cell.partition("-")[2])
    kinds = [kind for kind in ("original", *LOSSES) if kind in images]
    if not chosen or "original" not in kinds or len(kinds) == 1:
        return None
    keep = images_shown(images["original"].shape, kinds=len(kinds), wanted=wanted)
    keep = min(keep, len(chosen), *(len(images[kind]) for kind in kinds))
    return _grid(
        {kind: images[kind][:keep] for kind in kinds},
        {kind: values.get(f"distance_{kind}") for kind in kinds},
        chosen[:keep],
        {i: i for i in chosen},
    )


def attack_grid(artifacts: Path, cell: str, *, wanted: int) -> Drawn | None:
    """Draw what fr_adv makes of plain features, under a wrong key, and of attacked ciphertexts.

    Beneath an image stands its own cosine distance d, if it was measured.
    """
    path = artifacts / "cryptanalyse" / f"{cell}.npz"
    if not path.exists():
        return None
    arrays = read_npz(path)
    kinds = {
        "original": "original",
        "plain": "plain features",
        "wrong_key": "wrong key",
        "attacked": "attacked",
    }
    found = {words: arrays[f"panel_{k}"] for k, words in kinds.items() if f"panel_{k}" in arrays}
    chosen = sorted(_panel(artifacts, cell.partition("-")[2]))  # in the attack's order
    if not chosen or len(found) < 2:
        return None
    keep = images_shown(next(iter(found.values())).shape, kinds=len(found), wanted=wanted)
    keep = min(keep, len(chosen), *map(len, found.values()))
    places = {int(i): place for place, i in enumerate(arrays["attacked_index"].tolist())}
    values = {
        "plain features": arrays.get("plain_distance"),
        "attacked": arrays.get("attacked_distance"),
    }
    shown = {words: images[:keep] for words, images in found.items()}
    return _grid(shown, values, chosen[:keep], places)


def _grid(
    images: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray | None],
    chosen: Sequence[int],
    places: Mapping[int, int],
) -> Drawn:
    """Draw kinds of images with their distances.

    Parameters
    ----------
    chosen : the test images.
    places : test image -> its place in ``values``.
    """
    captions = {
        kind: [_distance(values.get(kind), places.get(i)) for i in chosen] for kind in images
    }
    rows = []
    for kind in images:
        own = values.get(kind)
        for i in chosen:
            place = places.get(i)
            d = None if own is None or place is None else float(own[0, place])
            rows.append((i, kind, d))
    table = pd.DataFrame(rows, columns=["image", "shows", "distance"])
    return people_grid({k: list(v) for k, v in images.items()}, captions), table


# ---------------------------------------------------------------- the attack


def curve_table(attacks: Mapping[str, Any]) -> pd.DataFrame:
    """Return the attack's curves: of the centred cosine median, interval and share above 0.95."""
    rows = []
    for cell in attacks["cells"]:
        for name, of in cell["attacks"].items():
            median = of["measures"].get("centred")
            if median is None:
                continue
            cosine = (of["measures"].get("cos") or {}).get("value")
            blind, known = CIPHERTEXT_ONLY.fullmatch(name), KNOWN.fullmatch(name)
            curve, x = "other", name
            if blind:
                curve, x = "vectors", blind["scope"].removeprefix("img")
            elif known:
                curve, x = "known floats", known["floats"]
            ref = blind["ref"] if blind else ""
            share = (of.get("share_95") or {}).get("value")
            own = (median["value"], median["lo"], median["hi"], of["lowest"], share, of["n"])
            rows.append((cell["cell"], name, curve, ref, x, *own, cosine))
    columns = ["cell", "attack", "curve", "reference", "x", "centred", "lo", "hi", "lowest"]
    return pd.DataFrame(rows, columns=[*columns, "share above 0.95", "requests", "cosine"])


def _line(
    ax: Axes, x: Sequence[float | int], points: pd.DataFrame, style: Mapping[str, str], label: str
) -> None:
    ax.fill_between(x, points.lo, points.hi, color=style["color"], alpha=0.12, lw=0)
    dash, colour = style["linestyle"], style["color"]
    ax.plot(x, points.centred, marker="o", ms=3, label=label, color=colour, linestyle=dash)


def _points(
    ax: Axes, x: Sequence[float], points: pd.DataFrame, style: Mapping[str, str], *, solid: bool
) -> None:
    whiskers = [points.centred - points.lo, points.hi - points.centred]
    colour = style["color"]
    inside = colour if solid else "#ffffff"
    ax.errorbar(x, points.centred, whiskers, fmt="o", ms=4, lw=1, color=colour, mfc=inside)


def _set(cell: str) -> str:
    return cell.partition("-")[2]


@styled
def attack_curves(attacks: Mapping[str, Any], iiid: Mapping[str, Any] | None) -> Drawn | None:
    """Draw the median centred cosine against what the adversary has, and what single keys leave.

    Parameters
    ----------
    attacks, iiid : the contents of attacks.json and iiid.json.
    """
    table = curve_table(attacks)
    if table.empty:
        return None
    cells = list(dict.fromkeys(table.cell))
    sets = list(dict.fromkeys(map(_set, cells)))
    figure, axes = panels(2, 2, width=9.5, height=6.6)
    titles = ("vectors in the request", "reference features, one vector", "known floats of it",
              "random keys, unattacked: share with |cosine| of at least")  # fmt: skip
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    for cell in cells:
        style, own = look(cell, sets), table.query("cell == @cell")
        vectors = own.query("curve == 'vectors' and reference == 'same_domain'")
        vectors = vectors.assign(x=vectors.x.astype(int)).sort_values("x")
        _line(axes[0], vectors.x.tolist(), vectors, style, cell)
        one = own.query("curve == 'vectors' and x == '1'").set_index("reference")
        named = [name for name in REFERENCES if name in one.index]
        if named:
            beside = (cells.index(cell) - (len(cells) - 1) / 2) * 0.09  # or they hide each other
            places = [list(REFERENCES).index(name) + beside for name in named]
            _points(axes[1], places, one.loc[named], style, solid=sets.index(_set(cell)) == 0)
        known = own.query("curve == 'known floats'")
        known = known.assign(x=known.x.astype(int)).sort_values("x")
        _line(axes[2], known.x.tolist(), known, style, cell)
        weak = next((row for row in (iiid or {}).get("weak", ()) if row["cell"] == cell), None)
        if weak:
            left = np.asarray(weak["sorted"])
            share = np.arange(1, len(left) + 1) / len(left)
            dash, colour = style["linestyle"], style["color"]
            axes[3].step(left, share, where="post", color=colour, linestyle=dash)
    axes[1].set_xticks(range(len(REFERENCES)), [wrapped(w, 9) for w in REFERENCES.values()])
    for ax in (axes[0], axes[2]):
        if ax.lines:
            ax.set_xscale("log", base=2)
            ticks = sorted({int(x) for line in ax.lines for x in np.asarray(line.get_xdata())})
            ax.set_xticks(ticks, [str(x) for x in ticks])
            ax.minorticks_off()
    for ax in axes[:3]:
        ax.set_ylim(-0.15, 1.05)
        ax.set_ylabel("median centred cosine recovered")
    axes[3].set_xlim(0, 1)
    axes[3].set_ylim(0, 1.02)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure, table


# ---------------------------------------------------------------- training


def learning_table(artifacts: Path, models: Sequence[str]) -> pd.DataFrame:
    """Collect the black boxes' histories: model, seed, step, quantity, value."""
    rows = []
    for model in models:
        for path in sorted((artifacts / "train_reid" / model).glob("history-s*.json")):
            match = re.fullmatch(r"history-s(\d+)", path.stem)
            for entry in read_json(path).get("log", []) if match else []:
                for name, value in entry.items():
                    if name != "step" and isinstance(value, (int, float)):
                        seed = int(match[1]) if match else 0
                        rows.append((model, seed, entry.get("step"), name, float(value)))
    return pd.DataFrame(rows, columns=["model", "seed", "step", "quantity", "value"])


@styled
def learning_curves(artifacts: Path, models: Sequence[str]) -> Drawn | None:
    """Draw what the black boxes' trainings logged; a line a seed."""
    table = learning_table(artifacts, models)
    if table.empty:
        return None
    shown = [q for q in ("loss", "accuracy") if q in set(table.quantity)]
    shown = shown or list(dict.fromkeys(table.quantity))[:2]
    figure, axes = panels(1, len(shown), width=4.5 * len(shown), height=2.8)
    for ax, quantity in zip(axes, shown, strict=True):
        ax.set_title(quantity)
        ax.set_xlabel("step")
        for i, model in enumerate(models):
            lines = table[(table.model == model) & (table.quantity == quantity)]
            for j, (_, of) in enumerate(lines.groupby("seed")):
                own = appearance(i)
                label = model if j == 0 else None
                ax.plot(of.step, of.value, color=own["color"], lw=1, label=label)
    axes[0].legend()
    return figure, table
