"""SynthPed: drawn pedestrians with identities, poses, cameras and attributes; no person is shown.

An identity is a class of each of 12 tasks and what makes it itself beside them (proportions,
shades, patterns, hair, skin, what it carries); an image is an identity in a pose before a camera.
The tasks have the names and numbers of classes of Market-1501's attributes, but body height and
build stand where it has age and gender. Three sets stand for the paper's three (Sec. III-A):
``synth_p`` for MSMT17, ``synth_a`` and ``synth_b`` for the two local ones; see ``synthped_camera``
for how they differ. Everything follows from the seed.

How often a class is met is as in Market-1501's training identities where the counts are known to us
(age, hat, sleeves: Lin et al. 2019, as filtered by the authors' code) and of that order elsewhere;
every class has five identities or more, as far as there are that many.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from stages.common.errors import InputError, suggestion
from stages.data.pool import ordered_map, processes
from stages.deep_features.synthped_camera import (
    DOMAINS,
    Cameras,
    Domain,
    draw_cameras,
    paint_backgrounds,
    photograph,
)
from stages.deep_features.synthped_figure import Canvas, Looks, Pose, paint_figures

ATTRIBUTION = "SynthPed, drawn by this repository (MIT); shows no person"
# task -> class -> weight; where known, identities of Market-1501's training set (Sec. III-A)
TASKS: dict[str, dict[str, float]] = {
    "height": {"small": 7, "medium": 495, "tall": 140, "very_tall": 7},  # its age
    "backpack": {"no": 73, "yes": 27},
    "bag": {"no": 75, "yes": 25},
    "clothes": {"dress": 40, "pants": 60},
    "down": {"long": 62, "short": 38},
    "build": {"slim": 57, "broad": 43},  # its gender
    "hair": {"short": 66, "long": 34},
    "handbag": {"no": 88, "yes": 12},
    "hat": {"no": 631, "yes": 18},
    "up": {"long": 33, "short": 616},  # sleeves
    "down_colour": {
        "black": 39, "blue": 20, "brown": 9, "gray": 17, "green": 2, "pink": 4, "purple": 0.15,
        "white": 8, "yellow": 1.4,
    },
    "up_colour": {
        "black": 15, "blue": 10, "gray": 13, "green": 11, "purple": 4, "red": 11, "white": 29,
        "yellow": 7,
    },
}  # fmt: skip
PALETTE = {
    "black": (0.09, 0.09, 0.1), "blue": (0.16, 0.32, 0.74), "brown": (0.4, 0.25, 0.13),
    "gray": (0.44, 0.44, 0.45), "green": (0.16, 0.52, 0.22), "pink": (0.93, 0.55, 0.68),
    "purple": (0.46, 0.2, 0.58), "red": (0.78, 0.12, 0.13), "white": (0.93, 0.93, 0.92),
    "yellow": (0.93, 0.8, 0.16),
}  # fmt: skip
SKIN = np.array([(0.95, 0.8, 0.7), (0.87, 0.66, 0.52), (0.66, 0.46, 0.34), (0.4, 0.27, 0.2)])
HAIR = np.array([(0.08, 0.07, 0.07), (0.28, 0.17, 0.1), (0.55, 0.38, 0.2), (0.62, 0.6, 0.58)])
HATS = np.array([(0.75, 0.15, 0.12), (0.85, 0.6, 0.1), (0.88, 0.88, 0.85), (0.12, 0.2, 0.5)])
PACKS = np.array([(0.75, 0.15, 0.12), (0.1, 0.16, 0.45), (0.08, 0.45, 0.42), (0.9, 0.45, 0.1)])
BAGS = np.array([(0.08, 0.07, 0.07), (0.4, 0.22, 0.1), (0.85, 0.8, 0.68), (0.62, 0.42, 0.2)])
HANDBAGS = np.array([(0.85, 0.15, 0.2), (0.9, 0.7, 0.12), (0.9, 0.4, 0.6), (0.9, 0.9, 0.86)])
SHOES = np.array([(0.08, 0.08, 0.08), (0.85, 0.85, 0.85), (0.35, 0.2, 0.1)])
HEIGHTS = np.array([0.68, 0.78, 0.87, 0.955])  # of the image, by class of height
HEADS = np.array([1.16, 1.05, 0.97, 0.9])  # shares of the usual head, likewise
BUILDS = np.array([0.9, 1.3])  # shares of the usual width, by class of build
SPLITS = ("train", "test")
FEWEST = 5  # identities of a class
CHUNK = 96  # images drawn at a time: their planes stay in the cache; part of the random stream
WORTH_A_POOL = 20_000 * 64 * 32  # pixels; less takes one process 10 seconds or so
AT_LEAST = {"height": 32, "images": 4}  # px; images of an identity: two cameras, two each


@dataclass(frozen=True, eq=False)
class Pedestrians:
    """Images of one split of a set, those of an identity beside each other.

    images : RGB, 0..255.
    pids : identity, from ``first_pid`` on.
    camids : camera, from 1.
    attributes : class of each of ``TASKS``, an index into its names.
    query : one image of each identity in each of its cameras.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    pids: Int64[np.ndarray, " n"]
    camids: Int64[np.ndarray, " n"]
    attributes: Int64[np.ndarray, "n tasks"]
    query: Bool[np.ndarray, " n"]


def tasks() -> list[dict]:
    """Return the tasks as prepare's meta.json has them: name, and names of the classes."""
    return [{"name": name, "classes": list(weights)} for name, weights in TASKS.items()]


def class_counts(weights: Float[np.ndarray, " k"], n: int) -> Int64[np.ndarray, " k"]:
    """Divide n identities between classes by weight, each having 5 or, if n < 5 k, n // k.

    What is above the least is divided by largest remainders.
    """
    least = min(FEWEST, n // len(weights))
    wanted = np.maximum(weights / weights.sum() * n, least)
    above = wanted - least
    spare = n - least * len(weights)
    share = above / above.sum() * spare if above.sum() else np.zeros(len(weights))
    counts = np.floor(share).astype(np.int64)
    counts[np.argsort(counts - share, kind="stable")[: spare - counts.sum()]] += 1
    return counts + least


def draw_attributes(n: int, rng: np.random.Generator) -> Int64[np.ndarray, "n tasks"]:
    """Draw n identities' classes: counts as :func:`class_counts`, tasks independent."""
    columns = []
    for weights in TASKS.values():
        counts = class_counts(np.array(list(weights.values()), float), n)
        columns.append(rng.permutation(np.repeat(np.arange(len(counts)), counts)))
    return np.stack(columns, axis=1).astype(np.int64)


def synthped(
    name: str,
    split: str,
    *,
    ids: int,
    images: int,
    height: int,
    width: int,
    seed: int,
    first_pid: int = 1,
) -> Pedestrians:
    """Draw one split of a set.

    Parameters
    ----------
    name : synth_p, synth_a or synth_b.
    split : train or test; they share cameras, not identities.
    ids, images : identities, and images of each.
    first_pid : number of the first identity.
    height, width : of an image, pixels; 2 : 1 or 3 : 1 (stretched, as crops of people are).

    Raises
    ------
    InputError
        If the set or split is unknown, the sides are no shape of a person, or there are fewer
        identities than a task has classes or fewer than four images of each.
    """
    domain = _domain(name)
    check_sides(height, width)
    _check_split(name, split)
    for what, found, least in (
        ("identities", ids, max(map(len, TASKS.values()))),
        ("images an identity", images, AT_LEAST["images"]),
    ):
        if found < least:
            raise InputError(
                f"{name}_{split}",
                f"would have too few {what}",
                expected=f"at least {least}",
                found=found,
                remedy="raise it in params.yaml",
            )
    world = [seed, list(DOMAINS).index(name)]
    cameras = draw_cameras(domain, np.random.default_rng([*world, 0]))
    rng = np.random.default_rng([*world, 1 + SPLITS.index(split)])
    attributes = draw_attributes(ids, rng)
    people = _people(attributes, rng)
    who = np.repeat(np.arange(ids), images)
    camids, query = _where(ids, images, domain.cameras, rng)
    draw = partial(
        _draw, name, cameras, people, who=who, camids=camids, height=height, width=width,
        seeds=(*world, 3 + SPLITS.index(split)),
    )  # fmt: skip
    starts = list(range(0, len(who), CHUNK))
    workers = processes() if len(who) * height * width >= WORTH_A_POOL else 1
    drawn = list(
        ordered_map(draw, starts, title=f"draw {name}_{split}, {CHUNK} at a time", workers=workers)
    )
    return Pedestrians(
        images=np.concatenate(drawn),
        pids=who + first_pid,
        camids=camids + 1,
        attributes=attributes[who],
        query=query & (split == "test"),
    )


def check_sides(height: int, width: int) -> None:
    """Check that images have the shape of a person.

    Raises
    ------
    InputError
        If the height is not two or three times the width, the width no multiple of 8, or the
        height below 32 pixels.
    """
    least = AT_LEAST["height"]
    if height < least or width % 8 or height not in (2 * width, 3 * width):
        raise InputError(
            "height and width",
            "are not those of a person's image",
            expected=f"a height of 2 or 3 widths, {least} or more, and a width that 8 divides",
            found=f"{height} x {width}",
            remedy="take 64 and 32 (mini), 128 and 64, or 384 and 128 (the paper) in params.yaml",
        )


def _domain(name: str) -> Domain:
    if name not in DOMAINS:
        raise InputError(
            name,
            "is not a set of SynthPed",
            expected=" or ".join(DOMAINS),
            found=repr(name),
            remedy=suggestion(name, list(DOMAINS)),
        )
    return DOMAINS[name]


def _check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise InputError(
            f"{name}/{split}",
            "is not a split of this set",
            expected=" or ".join(SPLITS),
            found=repr(split),
            remedy=suggestion(split, SPLITS),
        )


def _where(
    ids: int, images: int, cameras: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Choose each image's camera: two images or more in each of an identity's cameras."""
    seen_by = min(cameras, max(1, images // 2))
    turn = np.arange(images) % seen_by
    chosen = np.stack([rng.permutation(cameras)[:seen_by] for _ in range(ids)])
    return chosen[:, turn].ravel(), np.tile(np.arange(images) < seen_by, ids)


def _apart(options: np.ndarray, avoid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one colour an identity: of three drawn ones the farthest from what it is beside."""
    three = options[rng.integers(0, len(options), (len(avoid), 3))]
    three = np.clip(three + rng.uniform(-0.06, 0.06, three.shape), 0.03, 0.97)
    far = np.abs(three - avoid[:, None]).sum(axis=2).argmax(axis=1)
    return three[np.arange(len(avoid)), far]


def _mixed(anchors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return colours between neighbouring anchors; ``at`` runs from 0 to the last one's number."""
    i = np.minimum(at.astype(np.int64), len(anchors) - 2)
    return anchors[i] + (at - i)[:, None] * (anchors[i + 1] - anchors[i])


def _people(attributes: Int64[np.ndarray, "n tasks"], rng: np.random.Generator) -> dict:
    """Draw what identities look like: :class:`Looks`' fields, and ``height``; one row each."""
    n = len(attributes)
    task = dict(zip(TASKS, attributes.T, strict=True))

    def is_(name: str, label: str) -> np.ndarray:
        return task[name] == list(TASKS[name]).index(label)

    def shade_of(name: str) -> np.ndarray:
        base = np.array([PALETTE[label] for label in TASKS[name]])[task[name]]
        shift = rng.uniform(-0.035, 0.035, (n, 3)) + rng.uniform(-0.04, 0.04, (n, 1))
        return np.clip(base + shift, 0.03, 0.97)

    up, down = shade_of("up_colour"), shade_of("down_colour")
    skin = _mixed(SKIN, rng.uniform(0, len(SKIN) - 1, n)) + rng.uniform(-0.03, 0.03, (n, 1))
    hair = _mixed(HAIR, rng.uniform(0, len(HAIR) - 1, n) * rng.uniform(0, 1, n))
    kind = rng.integers(0, 4, n)  # plain, plain, horizontal, upright stripes
    stripes = np.stack(
        [kind == 3, kind == 2, rng.uniform(8, 14, n), rng.uniform(0, 6.28, n),
         np.where(kind < 2, 0, rng.uniform(0.12, 0.22, n))],
        axis=1,
    )  # fmt: skip
    colours = {
        "skin": skin, "hair": hair, "up": up, "down": down,
        "hat": _apart(HATS, (hair + skin) / 2, rng),
        "shoes": _apart(SHOES, down, rng),
        "pack": _apart(PACKS, up, rng), "bag": _apart(BAGS, (up + down) / 2, rng),
        "handbag": _apart(HANDBAGS, down, rng),
    }  # fmt: skip
    has = {
        **{name: is_(name, "yes") for name in ("backpack", "bag", "handbag", "hat")},
        "long_hair": is_("hair", "long"),
        "dress": is_("clothes", "dress"),
        "short_down": is_("down", "short"),
        "short_sleeves": is_("up", "short"),
    }
    return {
        "colours": {name: value.astype(np.float32) for name, value in colours.items()},
        "has": has,
        "build": BUILDS[task["build"]] * rng.uniform(0.95, 1.05, n),
        "head": HEADS[task["height"]] * rng.uniform(0.97, 1.03, n),
        "legs": rng.uniform(0.96, 1.05, n),
        "shoulders": rng.uniform(0.95, 1.06, n),
        "side": rng.choice([-1.0, 1.0], n),
        "stripes": stripes.astype(np.float32),
        "height": HEIGHTS[task["height"]] * rng.uniform(0.985, 1.015, n),
    }


def _draw(
    name: str,
    cameras: Cameras,
    people: dict,
    start: int,
    *,
    who: Int64[np.ndarray, " n"],
    camids: Int64[np.ndarray, " n"],
    height: int,
    width: int,
    seeds: tuple[int, ...],
) -> UInt8[np.ndarray, "m h w 3"]:
    """Draw the images from ``start`` on, a chunk of them, by random numbers of their own."""
    rng = np.random.default_rng([*seeds, start])
    who, camids = who[start : start + CHUNK], camids[start : start + CHUNK]
    n = len(who)
    looks = Looks(
        colours={name: value[who] for name, value in people["colours"].items()},
        has={name: value[who] for name, value in people["has"].items()},
        **{k: people[k][who].astype(np.float32)
           for k in ("build", "head", "legs", "shoulders", "side", "stripes")},
    )  # fmt: skip
    stands = rng.random(n) < 0.2
    numbers = {
        "view": cameras.view[camids] + rng.normal(0, 0.8, n),
        "gait": rng.uniform(0, 2 * np.pi, n),
        "stride": np.where(stands, 0.06, rng.uniform(0.25, 0.55, n)),
        "lean": rng.normal(0, 0.008, n),
        "height": people["height"][who] * rng.uniform(0.98, 1.02, n),
        "left": 0.25 + rng.uniform(-0.03, 0.03, n),
        "foot": 0.98 - rng.uniform(0, 0.02, n),
    }
    pose = Pose(**{name: value.astype(np.float32) for name, value in numbers.items()})
    planes = paint_backgrounds(DOMAINS[name], cameras, camids, height, width, rng)
    canvas = Canvas(planes, pose)
    paint_figures(canvas, looks, pose)
    canvas.light(cameras.light[camids])
    return photograph(canvas.planes, cameras, camids, rng)
