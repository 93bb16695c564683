"""Draw pedestrians from signed-distance shapes, many at once.

A figure has height 1: y runs down from 0, the crown, to 1, the soles; x is 0 at the hips. Joints
are placed in three dimensions (to the figure's left, down, forward) and projected without
perspective on a camera that sees it from the angle ``view``: 0 from the front, pi from behind.
Parts are painted from the far to the near ones. All proportions are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Shaped

Each = Shaped[np.ndarray, " n"]  # one number an image
Colour = Float32[np.ndarray, "n 3"]  # 0..1
DEPTH = 0.6  # of a torso, in its width
SHADE = 0.26  # by how much a part is darker at its outline
LIGHT = 1.6  # how the light falls off across a figure, per height


@dataclass(frozen=True, eq=False)
class Looks:
    """What does not change from image to image of a person, one row an image.

    ``build``, ``head``, ``legs``, ``shoulders``: sizes in shares of the usual; ``side``: where a
    bag hangs, +1 left, -1 right, a handbag being on the other; ``stripes``: direction (x, y),
    cycles a height, phase, strength.
    """

    colours: dict[str, Colour]  # skin, hair, hat, up, down, shoes, pack, bag, handbag
    has: dict[str, Bool[np.ndarray, " n"]]  # backpack, bag, handbag, hat, long_hair, ...
    build: Each
    head: Each
    legs: Each  # height of the hips above the ground, in shares of the usual
    shoulders: Each
    side: Each
    stripes: Float32[np.ndarray, "n 5"]


@dataclass(frozen=True, eq=False)
class Pose:
    """How a person is seen in an image.

    ``view`` and ``gait`` in radians; ``stride``: the largest angle of a thigh, radians; ``lean`` of
    the shoulders to a side; ``height``, ``left`` (of the hips) and ``foot`` in image heights.
    """

    view: Each
    gait: Each
    stride: Each
    lean: Each
    height: Each
    left: Each
    foot: Each


class Canvas:
    """Images that are painted on: planes float32 (3, n, h, w), 0..1, half as wide as high.

    An image with other sides is a stretched one, as crops of people are stretched to 3 : 1.
    """

    def __init__(self, planes: Float32[np.ndarray, "3 n h w"], pose: Pose):
        _, n, h, w = planes.shape
        self.planes = planes
        self.figure = np.zeros((n, h, w), np.float32)  # how much of a pixel a figure covers
        self._top, self._left, self._height = pose.foot - pose.height, pose.left, pose.height
        columns = (np.arange(w, dtype=np.float32) + 0.5) * (0.5 / w)
        rows = (np.arange(h, dtype=np.float32) + 0.5) / h
        self.x = ((columns - pose.left[:, None]) / pose.height[:, None])[:, None]  # (n, 1, w)
        self.y = ((rows - self._top[:, None]) / pose.height[:, None])[:, :, None]  # (n, h, 1)
        pixel = max(1 / h, 0.5 / w)
        self._sharp = (pose.height / pixel).astype(np.float32)

    def capsule(self, colour: Colour, ax, ay, bx, by, ra, rb, on=None, shade=SHADE) -> None:
        """Paint a limb from a, of radius ra, to b, of radius rb."""

        def distance(x, y, ax, ay, bx, by, ra, rb):
            ux, uy = bx - ax, by - ay
            x, y = x - ax, y - ay
            t = (x * (ux / (ux * ux + uy * uy))) + (y * (uy / (ux * ux + uy * uy)))
            np.clip(t, 0, 1, out=t)
            dx, dy = x - t * ux, y - t * uy
            return np.sqrt(dx * dx + dy * dy) - (ra + t * (rb - ra))

        thick = np.maximum(ra, rb)
        box = (np.minimum(ax, bx) - thick, np.maximum(ax, bx) + thick,
               np.minimum(ay, by) - thick, np.maximum(ay, by) + thick)  # fmt: skip
        self._paint(distance, (ax, ay, bx, by, ra, rb), colour, box, thick, on, shade)

    def ellipse(self, colour: Colour, cx, cy, rx, ry, on=None, shade=SHADE, opacity=1.0) -> None:
        """Paint an upright ellipse; the distance is to first order."""

        def distance(x, y, cx, cy, rx, ry):
            k = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
            return (k - 1) * np.minimum(rx, ry)

        box = cx - rx, cx + rx, cy - ry, cy + ry
        thick = np.minimum(rx, ry)
        self._paint(distance, (cx, cy, rx, ry), colour, box, thick, on, shade, None, opacity)

    def trapezoid(
        self, colour: Colour, ax, ay, bx, by, wa, wb, r, on=None, shade=SHADE, stripes=None
    ) -> None:
        """Paint a rounded trapezoid: half as wide as wa at its top a, as wb at its bottom b."""

        def distance(x, y, ax, ay, bx, by, wa, wb, r):
            t = np.clip((y - ay) / (by - ay), 0, 1)  # (n, rows, 1)
            qx = np.abs(x - (ax + t * (bx - ax))) - (wa + t * (wb - wa) - r)
            qy = np.abs(y - (ay + by) / 2) - ((by - ay) / 2 - r)
            outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
            return outside + np.minimum(np.maximum(qx, qy), 0) - r

        params = ax, ay, bx, by, wa, wb, r
        wide = np.maximum(wa, wb)
        box = np.minimum(ax, bx) - wide, np.maximum(ax, bx) + wide, ay, by
        self._paint(distance, params, colour, box, wide, on, shade, stripes)

    def light(self, side: Each) -> None:
        """Brighten the figures towards +x by ``side``, darken them towards -x."""
        slope = self.figure * np.clip(self.x * (LIGHT * side[:, None, None]), -0.35, 0.35)
        self.planes *= 1 + slope.astype(np.float32)

    def _paint(
        self,
        distance: Callable[..., np.ndarray],
        params: tuple,
        colour: Colour,
        box: tuple,
        thick: np.ndarray | float,
        on: np.ndarray | None,
        shade: float,
        stripes: np.ndarray | None = None,
        opacity: float = 1.0,
    ) -> None:
        n, h, w = self.figure.shape
        take = slice(None) if on is None or on.all() else np.flatnonzero(on)
        left, right, top, bottom = (np.broadcast_to(v, n)[take] for v in box)
        if not len(top):
            return
        scale = self._height[take]
        rows = _span(self._top[take] + top * scale, self._top[take] + bottom * scale, 1.0, h)
        columns = _span(self._left[take] + left * scale, self._left[take] + right * scale, 0.5, w)

        def each(value) -> np.ndarray:
            return np.broadcast_to(np.asarray(value, np.float32), n)[take][:, None, None]

        x, y = self.x[take][:, :, columns], self.y[take][:, rows]
        d = distance(x, y, *map(each, params))
        cover = np.clip(0.5 - d * each(self._sharp), 0, opacity)
        tone = (1 - shade) + shade * np.clip(-d / each(thick), 0, 1)
        if stripes is not None:
            dx, dy, cycles, phase, strength = stripes[take].T[:, :, None, None]
            wave = np.sin((x * dx + y * dy) * (2 * np.pi * cycles) + phase)
            tone = tone * (1 - strength * np.clip(0.5 + 1.5 * wave, 0, 1))
        for plane, level in zip(self.planes, colour[take].T, strict=True):
            part = plane[take, rows, columns]
            plane[take, rows, columns] = part + cover * (level[:, None, None] * tone - part)
        if opacity == 1:
            part = self.figure[take, rows, columns]
            self.figure[take, rows, columns] = np.maximum(part, cover)


def _span(start: np.ndarray, end: np.ndarray, length: float, pixels: int) -> slice:
    """Return the pixels of a side of ``length`` that any of the intervals may touch."""
    first = int(np.clip(np.floor(start.min() / length * pixels) - 1, 0, pixels - 1))
    last = int(np.clip(np.ceil(end.max() / length * pixels) + 1, first + 1, pixels))
    return slice(first, last)


def paint_figures(canvas: Canvas, looks: Looks, pose: Pose) -> None:
    """Paint one figure on each image, from what is far from the camera to what is near."""
    c, has, build = looks.colours, looks.has, looks.build
    cos, sin = np.cos(pose.view), np.sin(pose.view)
    front = cos > 0

    def across(left, forward) -> np.ndarray:
        """Project a point to the figure's left, and in front of its spine, on the image's x."""
        return left * cos + forward * sin

    hip_y = 1 - 0.475 * looks.legs
    shoulder = 0.112 * looks.shoulders * build
    width = np.sqrt((shoulder * cos) ** 2 + (shoulder * DEPTH * sin) ** 2)
    neck_x, neck_y = pose.lean, np.full_like(hip_y, 0.165) * looks.head
    shoulder_y = neck_y + 0.02
    chest = width * (0.94 - 0.06 * np.abs(sin))
    waist = chest * 0.86

    # ---------------------------------------------------------------- behind the body
    dark = np.full_like(c["skin"], 0.05)
    canvas.ellipse(dark, 0 * hip_y, 0.995, 0.14 * build, 0.022, shade=0.0, opacity=0.5)
    pack_x = neck_x / 2 + across(0, -0.09 * build)
    pack_w = np.sqrt((1.0 * shoulder * cos) ** 2 + (0.075 * sin) ** 2)
    pack = pack_x, shoulder_y - 0.055, pack_x, shoulder_y + 0.27, 0.8 * pack_w, pack_w, 0.03
    canvas.trapezoid(c["pack"], *pack, on=has["backpack"] & front)

    arm_r, leg_r = 0.033 * build, 0.041 * build
    limbs = {}
    for sign in (1, -1):  # left and right
        swing = sign * pose.stride * np.sin(pose.gait)
        bend = pose.stride * (0.25 + 0.75 * np.maximum(0, -sign * np.cos(pose.gait)))
        thigh = 0.5 * (0.955 - hip_y)
        knee = thigh * np.sin(swing), hip_y + thigh * np.cos(swing)
        ankle = (
            knee[0] + thigh * np.sin(swing - bend),
            np.minimum(knee[1] + thigh * np.cos(swing - bend), 0.965),
        )
        arm = -0.8 * swing
        elbow = 0.15 * np.sin(arm), shoulder_y + 0.025 + 0.15 * np.cos(arm)
        fore = arm + 0.15 + 0.5 * pose.stride
        wrist = elbow[0] + 0.14 * np.sin(fore), elbow[1] + 0.14 * np.cos(fore)
        out = sign * (1.02 * shoulder + 0.4 * arm_r)
        hang = sign * 0.028
        limbs[sign] = {
            "hip_x": across(sign * 0.042 * build, 0), "knee_y": knee[1], "ankle_y": ankle[1],
            "knee_x": across(sign * 0.045 * build, knee[0]),
            "ankle_x": across(sign * 0.043 * build, ankle[0]),
            "toe_x": across(sign * 0.055 * build, ankle[0] + 0.055),
            "shoulder_x": neck_x + across(out, 0), "elbow_x": neck_x + across(out + hang, elbow[0]),
            "elbow_y": elbow[1], "wrist_x": neck_x + across(out + 1.4 * hang, wrist[0]),
            "wrist_y": wrist[1], "sign": np.full_like(cos, sign),
        }  # fmt: skip

    left_is_near = sin < 0  # x of the left is then behind the spine of one who walks to the left
    near = {k: np.where(left_is_near, limbs[1][k], limbs[-1][k]) for k in limbs[1]}
    far = {k: np.where(left_is_near, limbs[-1][k], limbs[1][k]) for k in limbs[1]}
    bare_shin, bare_arm = has["short_down"], has["short_sleeves"]
    lower = np.where(bare_shin[:, None], c["skin"], c["down"])
    lower_arm = np.where(bare_arm[:, None], c["skin"], c["up"])
    dress = has["dress"]

    def paint_leg(part: dict, dim: float) -> None:
        legs = np.where(dress[:, None], c["skin"], lower) * np.float32(dim)
        x, y = part["ankle_x"], part["ankle_y"]
        knee = part["knee_x"], part["knee_y"]
        canvas.capsule(legs, *knee, x, y, leg_r * 0.8, leg_r * 0.58)
        cloth = c["down"] * np.float32(dim)
        canvas.capsule(cloth, part["hip_x"], hip_y, *knee, leg_r * 1.12, leg_r * 0.9)
        shoe = np.minimum(y + 0.017, 0.983)
        canvas.capsule(c["shoes"], x, shoe, part["toe_x"], shoe + 0.006, 0.02, 0.016)

    def paint_arm(part: dict, dim: float) -> None:
        start, elbow = (part["shoulder_x"], shoulder_y + 0.025), (part["elbow_x"], part["elbow_y"])
        wrist = part["wrist_x"], part["wrist_y"]
        end = wrist[0], wrist[1] + 0.018
        canvas.capsule(c["skin"] * np.float32(dim), *wrist, *end, arm_r * 0.8, arm_r * 0.8)
        canvas.capsule(lower_arm * np.float32(dim), *elbow, *wrist, arm_r * 0.95, arm_r * 0.8)
        canvas.capsule(lower_arm * np.float32(dim), *start, *elbow, arm_r, arm_r)
        reach = np.where(bare_arm, 0.45, 1.0)
        end = start[0] + reach * (elbow[0] - start[0]), start[1] + reach * (elbow[1] - start[1])
        canvas.capsule(c["up"] * np.float32(dim), *start, *end, arm_r * 1.15, arm_r * 1.1)

    def paint_handbag(part: dict) -> None:
        carries = has["handbag"] & (part["sign"] == -looks.side)
        x, y = part["wrist_x"], part["wrist_y"] + 0.02
        wide = np.sqrt((0.048 * cos) ** 2 + (0.075 * sin) ** 2) + 0.016
        handle = x, y, x, y + 0.06, 0.008, 0.008
        canvas.capsule(c["handbag"] * np.float32(0.7), *handle, on=carries)
        box = x, y + 0.045, x, y + 0.165, wide * 0.85, wide * 1.1, 0.012
        canvas.trapezoid(c["handbag"], *box, on=carries)

    # ---------------------------------------------------------------- the body
    paint_arm(far, 0.82)
    paint_leg(far, 0.86)
    paint_leg(near, 1.0)
    hem_y = np.where(bare_shin, 0.72, 0.9).astype(np.float32)
    swing_x = across(0, 0.03 * pose.stride * np.sin(pose.gait))
    flare = np.where(bare_shin, 1.6, 1.75) * np.maximum(waist, 0.075 * build)
    canvas.trapezoid(c["down"], 0 * hip_y, hip_y - 0.13, swing_x, hem_y, waist * 0.95, flare, 0.012,
                     on=dress)  # fmt: skip
    hips = 0.082 * build * np.sqrt(cos**2 + 0.6 * sin**2)
    seat = 0 * hip_y, hip_y - 0.06, 0 * hip_y, hip_y + 0.045, hips * 0.95, hips, 0.02
    canvas.trapezoid(c["down"], *seat, on=~dress)
    canvas.capsule(c["skin"] * np.float32(0.85), neck_x, neck_y - 0.04, neck_x, neck_y + 0.03,
                   0.026 * build, 0.03 * build)  # fmt: skip
    waist_y = hip_y - np.where(dress, 0.1, 0.015)
    body = neck_x, shoulder_y - 0.018, 0 * hip_y, waist_y, chest, waist, 0.05 * build
    paint_handbag(far)
    canvas.trapezoid(c["up"], *body, stripes=looks.stripes)

    # ---------------------------------------------------------------- on the body
    strap = c["bag"] * np.float32(0.9)
    over = neck_x - across(looks.side * 0.06, 0), shoulder_y - 0.005
    bag_x = across(looks.side * 1.12 * shoulder, 0.02)
    canvas.capsule(strap, *over, bag_x, hip_y - 0.04, 0.017, 0.017, on=has["bag"])
    bag_w = np.sqrt((0.06 * cos) ** 2 + (0.085 * sin) ** 2)
    bag = bag_x, hip_y - 0.065, bag_x, hip_y + 0.1, bag_w, bag_w * 1.08, 0.014
    for sign in (1, -1):
        x = neck_x + across(sign * 0.6 * shoulder, 0.03)
        canvas.capsule(c["pack"], x, shoulder_y - 0.01, x * 1.1, shoulder_y + 0.2, 0.019, 0.016,
                       on=has["backpack"] & front)  # fmt: skip
    canvas.trapezoid(c["pack"], *pack, on=has["backpack"] & ~front)
    pocket = (
        pack_x,
        shoulder_y + 0.14,
        pack_x,
        shoulder_y + 0.23,
        0.6 * pack_w,
        0.62 * pack_w,
        0.012,
    )
    canvas.trapezoid(c["pack"] * np.float32(0.75), *pocket, on=has["backpack"] & (cos < -0.3))
    paint_handbag(near)
    paint_arm(near, 1.0)
    canvas.trapezoid(c["bag"], *bag, on=has["bag"])

    # ---------------------------------------------------------------- the head
    size = looks.head
    head_y = neck_y - 0.083 * size
    rx, ry = (0.05 + 0.006 * np.abs(sin)) * size, 0.068 * size
    back = neck_x + across(0, -0.013)
    long_hair = has["long_hair"]
    end_y = neck_y + np.where(front, 0.075, 0.14)
    fall = neck_x + across(0, -0.03)
    wide = rx * np.where(front, 1.5, 1.35)
    canvas.trapezoid(c["hair"], back, head_y, fall, end_y, rx * 1.15, wide, 0.025, on=long_hair)
    throat = neck_x + across(0, 0.02)
    neck = throat, head_y, throat, neck_y + 0.02, 0.026, 0.022
    in_front = long_hair & (cos > 0.3)
    canvas.capsule(c["skin"] * np.float32(0.82), *neck, on=in_front, shade=0.0)
    canvas.ellipse(c["hair"], back, head_y - 0.008, rx * 1.12, ry * 1.02)
    seen = np.clip(0.62 + 0.75 * cos, 0, 1)  # how much of the face
    face_x = neck_x + across(0, 0.026) * np.clip(1.3 - 0.3 * seen, 0, 1.3)
    canvas.ellipse(c["skin"], face_x, head_y + 0.013, rx * (0.3 + 0.62 * seen), ry * 0.8,
                   on=seen > 0.1, shade=0.16)  # fmt: skip
    brow = head_y - 0.014
    reach = 0.062 * size
    left, right = (neck_x + sin * 0.035 + sign * reach for sign in (-1, 1))
    brim = np.where((cos < -0.5)[:, None], c["hat"], c["hat"] * np.float32(0.75))
    canvas.trapezoid(c["hat"], back, brow - 0.085 * size, back, brow, rx * 0.95, rx * 1.2, 0.03,
                     on=has["hat"])  # fmt: skip
    canvas.capsule(brim, left, brow, right, brow, 0.012, 0.012, on=has["hat"])
