"""Draw one emoji as one picture: turned, scaled and shifted on a smooth, light, pale background.

All randomness comes from one ``RandomState`` a picture (its stream is frozen by numpy), all
arithmetic on pixels is on integers, so a picture depends on nothing but its recipe and resvg.
"""

import hashlib
import math
import re
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

PROBE = 72  # px; side of the first drawing, which says how far the emoji reaches
MARGIN = 2 / 96  # of the side; kept free on all sides
EXTENT = (0.72, 0.94)  # of the side; the longer side of the turned emoji
TURN = 15.0  # degrees, to either side
LIGHT = (196, 244)  # grey level of a corner of the background
TINT = 6  # largest difference of a channel from grey; keeps the mean chroma below 8


def recipe(seed: int, *parts: object) -> np.random.RandomState:
    """Return the random numbers of one picture, from the SHA-256 of "seed/part/part/..."."""
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))


def background(random: np.random.RandomState, side: int) -> UInt8[np.ndarray, "s s 3"]:
    """Blend four light grey corners bilinearly, in integers, and tint the whole by one colour.

    One tint a picture, not one a corner: it compresses to 1.9 KB a picture instead of 3.1 KB.
    """
    corners = random.randint(*LIGHT, size=(2, 2))
    tint = random.randint(-TINT, TINT + 1, size=3)
    t = np.arange(side)
    weight = np.stack([side - 1 - t, t])  # (2, s), each column sums to s - 1
    total = np.einsum("iy,jx,ij->yx", weight, weight, corners)
    grey = (total + (side - 1) ** 2 // 2) // (side - 1) ** 2
    return (grey[..., None] + tint).astype(np.uint8)


def rasterise(svg: str, side: int) -> UInt8[np.ndarray, "s s 4"]:
    """Draw SVG text by resvg on a transparent square; red, green, blue, alpha (straight)."""
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("resvg gave no PNG")
    return np.asarray(pixels[..., [2, 1, 0, 3]], np.uint8)


@lru_cache(maxsize=64)
def read_svg(path: Path) -> tuple[str, Float[np.ndarray, "n 2"]]:
    """Return the ``<svg>`` element of a file, fitted in a unit square, and its :func:`outline`.

    Raises
    ------
    ValueError
        If the view box is missing or the drawing is blank.
    """
    text = path.read_text(encoding="utf-8")
    head, rest = text[text.index("<svg") :].split(">", 1)
    if "viewBox=" not in head:
        raise ValueError(f"{path.name}: no viewBox in {head}>")
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    svg = head.replace("<svg", '<svg width="1" height="1"', 1) + ">" + rest
    return svg, outline(svg)


def outline(svg: str) -> Float[np.ndarray, "n 2"]:
    """Return the (x, y) corners of each pixel row's drawn part, in units of the drawing's side."""
    alpha = rasterise(svg, PROBE)[..., 3]
    rows = np.flatnonzero(alpha.max(axis=1))
    if not len(rows):
        raise ValueError("the drawing is blank")
    points = []
    for y in rows:
        xs = np.flatnonzero(alpha[y])
        points += [(x, v) for x in (xs[0], xs[-1] + 1) for v in (y, y + 1)]
    return np.array(points) / PROBE


def placement(
    points: Float[np.ndarray, "n 2"], random: np.random.RandomState
) -> tuple[float, float, float, float, float, float]:
    """Draw a turn, a size and a place; return SVG's matrix(a b c d e f).

    It takes the unit square to the unit square. The turned outline's longer side is EXTENT of the
    picture, and all of it lies inside MARGIN.
    """
    angle = math.radians(random.uniform(-TURN, TURN))
    extent = random.uniform(*EXTENT)
    u, v = random.uniform(size=2)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = np.stack([cos * points[:, 0] - sin * points[:, 1],
                       sin * points[:, 0] + cos * points[:, 1]])  # fmt: skip
    low, high = turned.min(axis=1), turned.max(axis=1)
    scale = extent / (high - low).max()
    free = 1 - 2 * MARGIN - scale * (high - low)  # (2,), how far it can move
    x, y = MARGIN + free * (u, v) - scale * low
    return scale * cos, scale * sin, -scale * sin, scale * cos, float(x), float(y)


def render(path: Path, random: np.random.RandomState, side: int) -> UInt8[np.ndarray, "s s 3"]:
    """Draw the emoji of an SVG file once, at ``side`` pixels, straight from its curves."""
    svg, points = read_svg(path)
    ground = background(random, side)
    # six decimals: the last bits of sin and cos differ between C libraries
    matrix = " ".join(f"{value:.6f}" for value in placement(points, random))
    drawn = rasterise(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">'
        f'<g transform="matrix({matrix})">{svg}</g></svg>',
        side,
    ).astype(np.int64)
    colour, alpha = drawn[..., :3], drawn[..., 3:]
    return ((colour * alpha + ground * (255 - alpha) + 127) // 255).astype(np.uint8)
