"""Where SynthPed's people are seen: three domains, each with backgrounds and cameras of its own.

A domain is a family of backgrounds (a square, a park, a street at dusk) and ranges of what its
cameras do: colour gains, gamma, blur, noise, light. The ranges of two domains do not overlap in the
gain of red over blue, so no camera of one could stand in another. All values are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8

Planes = Float32[np.ndarray, "3 n h w"]
WARM_COOL = 0.5  # exponent of a gain of red over blue that goes to either channel
PATH = np.array([0.36, 0.29, 0.2], np.float32)
BARK = np.array([0.62, 0.42, 0.3], np.float32)
SIDE = 64  # px; image height at which blur is given


@dataclass(frozen=True)
class Domain:
    """A set's world; ranges are (least, most).

    red_over_blue, gamma : of a camera, numbers.
    blur : standard deviation in pixels of an image 64 high.
    noise : standard deviation in shares of white.
    tint : what backgrounds' colours are mixed from, two of them, 0..1.
    """

    paint: Callable[[Planes, "Views"], None]
    cameras: int
    red_over_blue: tuple[float, float]
    gamma: tuple[float, float]
    blur: tuple[float, float]
    noise: tuple[float, float]
    tint: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Cameras:
    """The cameras of a domain, one row each."""

    matrix: Float32[np.ndarray, "c 3 3"]
    gamma: Float32[np.ndarray, " c"]
    blur: Float32[np.ndarray, " c"]
    noise: Float32[np.ndarray, " c"]
    light: Float32[np.ndarray, " c"]  # from the left (-) or right (+), -1..1
    view: Float32[np.ndarray, " c"]  # radians; where people mostly face
    scene: Float32[np.ndarray, "c 6"]  # uniform numbers that shape the background
    colours: Float32[np.ndarray, "c 3 3"]  # ground, wall, detail; 0..1


@dataclass(frozen=True, eq=False)
class Views:
    """What backgrounds are painted from, one row an image: the camera's scene, and a pan."""

    x: Float32[np.ndarray, " w"]  # 0..0.5
    y: Float32[np.ndarray, " h"]  # 0..1
    scene: Float32[np.ndarray, "n 6"]
    colours: Float32[np.ndarray, "n 3 3"]
    random: Float32[np.ndarray, "n 6"]  # uniform numbers of the image

    def each(self, numbers: np.ndarray) -> np.ndarray:
        return numbers[:, None, None]


def draw_cameras(domain: Domain, rng: np.random.Generator) -> Cameras:
    """Draw the cameras of a domain."""
    c = domain.cameras
    ratio = np.linspace(*domain.red_over_blue, c)[rng.permutation(c)] ** WARM_COOL
    gains = np.stack([ratio, rng.uniform(0.97, 1.03, c), 1 / ratio], axis=1)
    gains *= rng.uniform(0.92, 1.06, (c, 1)) / gains.mean(axis=1, keepdims=True)
    mix = rng.uniform(0, 0.06, (c, 3, 3))
    mix[:, range(3), range(3)] = 0
    mix[:, range(3), range(3)] = 1 - mix.sum(axis=2)
    low, high = (np.array(tint) for tint in domain.tint)
    blend = rng.uniform(0, 1, (c, 3, 1)) * (high - low) + low
    grey = rng.uniform(0.55, 1.0, (c, 3, 1))
    drawn = {
        "matrix": mix * gains[:, :, None],
        "gamma": rng.uniform(*domain.gamma, c),
        "blur": rng.uniform(*domain.blur, c),
        "noise": rng.uniform(*domain.noise, c),
        "light": rng.uniform(-1, 1, c),
        "view": np.linspace(0, 2 * np.pi, c, endpoint=False) + rng.uniform(0, 1),
        "scene": rng.uniform(0, 1, (c, 6)),
        "colours": np.clip(blend * grey + rng.uniform(-0.04, 0.04, (c, 3, 3)), 0.05, 0.95),
    }
    return Cameras(**{name: value.astype(np.float32) for name, value in drawn.items()})


def paint_backgrounds(
    domain: Domain,
    cameras: Cameras,
    camids: Int64[np.ndarray, " n"],
    height: int,
    width: int,
    rng: np.random.Generator,
) -> Planes:
    """Return what each image's camera sees without people."""
    n = len(camids)
    views = Views(
        x=((np.arange(width) + 0.5) * (0.5 / width)).astype(np.float32),
        y=((np.arange(height) + 0.5) / height).astype(np.float32),
        scene=cameras.scene[camids],
        colours=cameras.colours[camids],
        random=rng.random((n, 6), np.float32),
    )
    planes = np.empty((3, n, height, width), np.float32)
    domain.paint(planes, views)
    planes *= 0.88 + 0.24 * rng.random((n, 1, 1), np.float32)
    return planes


def photograph(
    planes: Planes,
    cameras: Cameras,
    camids: Int64[np.ndarray, " n"],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "n h w 3"]:
    """Return what the cameras make of the scenes: colour matrix, blur, gamma, noise, 8 bits."""
    n, h = planes.shape[1:3]
    exposure = (0.94 + 0.12 * rng.random(n, np.float32))[:, None, None]
    matrix = cameras.matrix[camids] * exposure
    seen = np.empty((*planes.shape[1:], 3), np.float32)
    for i in range(3):
        r, g, b = (matrix[:, i, j, None, None] * planes[j] for j in range(3))
        seen[..., i] = r + g + b
    sigma = cameras.blur[camids].astype(np.float64) * (h / SIDE)
    for i, one in enumerate(sigma.tolist()):
        seen[i] = cv2.GaussianBlur(seen[i], (0, 0), one)
    np.clip(seen, 0, 1, out=seen)
    seen **= cameras.gamma[camids][:, None, None, None]
    noise = rng.standard_normal(seen.shape, np.float32)
    seen += noise * cameras.noise[camids][:, None, None, None]
    return (np.clip(seen, 0, 1) * 255 + 0.5).astype(np.uint8)


def _lay(planes: Planes, cover: np.ndarray, colour: np.ndarray) -> None:
    """Paint a colour an image, (n, 3), where ``cover`` is 1."""
    for plane, level in zip(planes, colour.T, strict=True):
        plane += cover * (level[:, None, None] - plane)


def _ground(planes: Planes, v: Views) -> tuple[np.ndarray, np.ndarray]:
    """Paint wall above ground; return how far below the horizon a row is, and the horizon."""
    horizon = v.each(0.3 + 0.3 * v.scene[:, 0] + 0.04 * v.random[:, 0])
    down = v.y[:, None] - horizon  # (n, h, 1)
    below = np.clip(0.5 + down * 64, 0, 1)
    for plane, ground, wall in zip(planes, v.colours[:, 0].T, v.colours[:, 1].T, strict=True):
        plane[:] = v.each(wall) + below * (v.each(ground) - v.each(wall))
    return down, horizon


def _square(planes: Planes, v: Views) -> None:
    """Paint a paved square: slabs that grow towards the camera, a wall with windows."""
    down, horizon = _ground(planes, v)
    depth = 1 / np.maximum(down + 0.12, 0.06)
    vanishing = v.each(0.1 + 0.3 * v.scene[:, 1] + 0.3 * (v.random[:, 1] - 0.5))
    row = np.sin((7 + 5 * v.each(v.scene[:, 2])) * depth + 6 * v.each(v.random[:, 2]))
    column = np.sin((v.x - vanishing) * depth * 6 + 6 * v.each(v.random[:, 3]))
    joints = np.clip(6 * np.maximum(np.abs(row), 0) - 5.2, 0, 1)
    joints = np.maximum(joints, np.clip(6 * np.abs(column) - 5.2, 0, 1)) * (down > 0)
    _lay(planes, 0.35 * joints, v.colours[:, 0] * 0.7)
    across = np.sin((v.x + v.each(v.random[:, 4])) * (30 + 40 * v.each(v.scene[:, 3])))
    up = np.sin((v.y[:, None] - horizon) * (25 + 15 * v.each(v.scene[:, 4])))
    windows = np.clip(4 * across - 1, 0, 1) * np.clip(4 * up - 1, 0, 1) * (down < -0.03)
    _lay(planes, windows * 0.8, v.colours[:, 2])


def _park(planes: Planes, v: Views) -> None:
    """Paint a park: uneven grass, a path, trunks and leaves above."""
    down, _ = _ground(planes, v)
    phase = v.random * 6.28
    x, y = v.x, v.y[:, None]
    leaves = np.sin(x * 31 + v.each(phase[:, 1]) + 3 * np.sin(y * 17 + v.each(phase[:, 2])))
    leaves = leaves * np.sin(y * 37 + v.each(phase[:, 3]) + 3 * np.sin(x * 23))
    planes *= 1 + 0.22 * leaves
    middle = v.each(0.1 + 0.3 * v.scene[:, 1] + 0.2 * (v.random[:, 0] - 0.5))
    half = 0.04 + np.maximum(down, 0) * (0.2 + 0.3 * v.each(v.scene[:, 2]))
    path = np.clip(0.5 + (half - np.abs(x - middle)) * 40, 0, 1) * np.clip(down * 40, 0, 1)
    _lay(planes, path * 0.85, 0.5 * v.colours[:, 1] + PATH)
    for k in (3, 4):
        at = v.each(0.5 * (v.scene[:, k] + 0.5 * v.random[:, k]) % 0.5)
        trunk = np.clip(0.5 + (0.018 + 0.012 * v.each(v.scene[:, 5]) - np.abs(x - at)) * 64, 0, 1)
        _lay(planes, trunk * (down < 0.06), v.colours[:, 2] * BARK)


def _dusk(planes: Planes, v: Views) -> None:
    """Paint a street at dusk: brick courses, shutters, pools of lamp light on a dark pavement."""
    down, _ = _ground(planes, v)
    x, y = v.x + 0.3 * v.each(v.random[:, 0]), v.y[:, None]
    courses = np.clip(5 * np.abs(np.sin(y * (50 + 20 * v.each(v.scene[:, 1])))) - 0.4, 0, 1)
    shutters = np.sin(x * (18 + 14 * v.each(v.scene[:, 2])))
    planes *= 1 - (0.4 * (1 - courses)) * (down < 0)
    _lay(planes, np.clip(5 * shutters - 3, 0, 1) * (down < -0.02) * 0.9, v.colours[:, 2] * 0.6)
    centre = v.each(0.5 * (v.scene[:, 3] + v.random[:, 1]) % 0.5)
    pool = np.exp(-(((v.x - centre) / 0.12) ** 2) - ((down - 0.25) / 0.18) ** 2)
    planes *= 0.9 + 0.6 * pool
    kerb = np.clip(1.5 - np.abs(down - 0.05 - 0.1 * v.each(v.scene[:, 4])) * 90, 0, 1)
    _lay(planes, kerb * 0.5, v.colours[:, 1] * 1.4)


DOMAINS = {
    "synth_p": Domain(
        paint=_square, cameras=8, red_over_blue=(0.97, 1.06), gamma=(0.8, 0.95),
        blur=(0.35, 0.6), noise=(0.01, 0.025), tint=((0.72, 0.7, 0.68), (0.9, 0.88, 0.84)),
    ),
    "synth_a": Domain(
        paint=_park, cameras=6, red_over_blue=(1.12, 1.3), gamma=(0.9, 1.1),
        blur=(0.4, 0.7), noise=(0.012, 0.03), tint=((0.38, 0.55, 0.22), (0.62, 0.72, 0.4)),
    ),
    "synth_b": Domain(
        paint=_dusk, cameras=6, red_over_blue=(0.72, 0.9), gamma=(0.85, 1.05),
        blur=(0.45, 0.75), noise=(0.015, 0.03), tint=((0.34, 0.42, 0.52), (0.62, 0.58, 0.66)),
    ),
}  # fmt: skip
