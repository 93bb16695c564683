"""Draw figures that are the same bytes every time, legible and colour-blind safe.

A figure is written as PNG, one of lines and words as SVG, too, with its numbers as CSV beside it.
Functions that draw are decorated with :data:`styled`, so that the user's matplotlib settings do not
reach the page.
"""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from stages.common.files import write_bytes, write_text

matplotlib.use("agg")

# Okabe & Ito, "Color Universal Design", 2008; its yellow left out (too pale on white), black last.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "D")
SIGNIFICANT_DIGITS = 5  # of floats in CSV; instruction sets differ in the seventh
SCREEN_DPI = 96  # CSS: 96 px are one inch
LABEL_RADII_PT = (5, 10, 16, 24, 34)
DPI = 2 * SCREEN_DPI  # drawn at twice the shown size, for sharp text on phones
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.dpi": DPI,
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": "figure",
}
styled = style.context(["default", STYLE])


def appearance(i: int) -> dict[str, str]:
    """Return colour, dash and marker of the i-th series; the first 21 differ pairwise."""
    turn = i // len(PALETTE)
    return {
        "color": PALETTE[i % len(PALETTE)],
        "linestyle": DASHES[turn % len(DASHES)],
        "marker": MARKERS[turn % len(MARKERS)],
    }


def panels(
    rows: int, columns: int, *, width: float | int, height: float | int, **options
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` x ``height`` inches and its axes in reading order."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


@styled  # ticks are made when the figure is drawn
def save_figure(figure: Figure, path: Path, table: pd.DataFrame | None = None) -> Path:
    """Write ``path`` (.png) and, beside it, the numbers behind it (.csv); return ``path``.

    A figure without images, all lines and words, is written as .svg, too.

    Raises
    ------
    ValueError
        If ``path`` does not end in .png.
    """
    if path.suffix != ".png":
        raise ValueError(f"a figure is written as .png, not as {path.name}")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    write_png(path, np.ascontiguousarray(pixels), dpi=figure.dpi)
    if not (figure.images or any(axes.images for axes in figure.axes)):
        buffer = io.BytesIO()
        with style.context(["default", {"svg.hashsalt": "figure", "svg.fonttype": "none"}]):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        write_bytes(path.with_suffix(".svg"), buffer.getvalue())
    if table is not None:
        save_table(table, path.with_suffix(".csv"))
    return path


def write_png(path: Path, pixels: UInt8[np.ndarray, "h w 3"], *, dpi: float | int) -> None:
    """Write an image as PNG whose bytes depend on the pixels and ``dpi`` alone."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True, dpi=(dpi, dpi))
    write_bytes(path, buffer.getvalue())


def save_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV (UTF-8, floats of 5 significant digits); return ``path``."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{SIGNIFICANT_DIGITS}g"))
    return path


def tile(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Show a square image at ``side`` px: whole pixels repeated, or area means if it is larger.

    Raises
    ------
    ValueError
        If the image is not square.
    """
    size = image.shape[0]
    if image.shape[1] != size:
        raise ValueError(f"a tile is square, the image is {size} x {image.shape[1]}")
    if size > side:
        shrunk = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
        return np.asarray(shrunk)
    factor = side // size
    enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
    space = side - size * factor
    return np.pad(
        enlarged,
        ((space // 2, space - space // 2), (space // 2, space - space // 2), (0, 0)),
        constant_values=255,
    )


def wrapped(name: str, width: int) -> str:
    """Break a name at underscores, spaces and hyphens into lines of at most ``width`` letters."""
    lines = [""]
    for word in name.replace("_", " ").replace("-", " ").split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


@styled
def image_grid(
    columns: Mapping[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    row_labels: Sequence[str],
    *,
    side: int = 64,
    gap: int = 2,
) -> Figure:
    """Lay out square images, one named column each, one row a label; no pixel is interpolated.

    Parameters
    ----------
    columns : name -> one image a row.
    side : of a tile, px; see :func:`tile`.
    gap : white space between tiles, px.

    Raises
    ------
    ValueError
        If there is nothing to show or a column has not one image a row.
    """
    if not columns or not row_labels:
        raise ValueError(f"nothing to show: {len(columns)} columns, {len(row_labels)} rows")
    for name, images in columns.items():
        if len(images) != len(row_labels):
            raise ValueError(
                f"column {name!r} has {len(images)} images, there are {len(row_labels)} rows"
            )
    font_px, letters = 10, 9
    heads = [wrapped(name, letters) for name in columns]
    left = 6 * font_px
    top = int(1.35 * font_px * max(head.count("\n") + 1 for head in heads)) + 6
    step = side + gap
    width, height = left + step * len(columns), top + step * len(row_labels)
    mosaic = np.full((height, width, 3), 255, np.uint8)
    for j, images in enumerate(columns.values()):
        for i, image in enumerate(images):
            y, x = top + i * step, left + j * step
            mosaic[y : y + side, x : x + side] = tile(image, side)
    figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI), dpi=SCREEN_DPI)
    FigureCanvasAgg(figure)
    figure.figimage(mosaic, 0, 0, origin="upper")
    points = font_px * 72 / SCREEN_DPI
    for j, head in enumerate(heads):
        x = (left + j * step + side / 2) / width
        y = 1 - (top - 4) / height
        figure.text(x, y, head, size=points, ha="center", va="bottom", linespacing=1.15)
    for i, label in enumerate(row_labels):
        y = 1 - (top + i * step + side / 2) / height
        figure.text(4 / width, y, wrapped(label, letters), size=points, va="center")
    return figure


def spread_labels(axes: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[str]):
    """Write a label beside each point where it covers the fewest labels, points and edges."""
    canvas = FigureCanvasAgg(axes.figure)  # pyright: ignore[reportArgumentType]
    canvas.draw()
    renderer = canvas.get_renderer()
    pixels = axes.transData.transform(np.column_stack([x, y]))
    taken: list[Bbox] = []
    for point, pixel, label in zip(zip(x, y, strict=True), pixels, labels, strict=True):
        candidates = []
        for radius, k in itertools.product(LABEL_RADII_PT, range(8)):
            text = axes.annotate(label, point, **_beside(radius, k * math.pi / 4))
            box = text.get_window_extent(renderer)
            text.remove()
            covered = sum(box.padded(6).contains(*p) for p in pixels if p is not pixel)
            covered += 2 * sum(bool(box.overlaps(other)) for other in taken)
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            candidates.append((100 * covered + 1000 * (not inside) + radius, radius, k, box))
        _, radius, k, box = min(candidates, key=lambda c: c[:3])
        taken.append(box)
        line = {"arrowstyle": "-", "lw": 0.5, "color": "#777777"} if radius > 10 else None
        axes.annotate(label, point, arrowprops=line, **_beside(radius, k * math.pi / 4))


def _beside(radius: float | int, angle: float) -> dict[str, Any]:
    """Place a label ``radius`` points from its point, growing away from it."""
    dx, dy = radius * math.cos(angle), radius * math.sin(angle)
    return {
        "xytext": (dx, dy),
        "textcoords": "offset points",
        "size": 7.5,
        "ha": "left" if dx > 1 else "right" if dx < -1 else "center",
        "va": "bottom" if dy > 1 else "top" if dy < -1 else "center",
    }
