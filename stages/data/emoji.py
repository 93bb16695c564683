"""Build the embedded image sets from open emoji drawings: emoji10, emoji100, emojifaces.

    python -m stages.data.emoji data

Real drawings by two independent hands, OpenMoji 17.0.0 (CC BY-SA 4.0) and Twemoji (CC BY 4.0).
One picture is one emoji, turned, scaled and shifted at random on a smooth, light, pale ground, so
that colour belongs to the drawing. Train and test have no emoji in common, in any skin tone, gender
or direction, by either source; in emoji100, whose classes are emoji, they have no render in common.

set         side  classes                         train  test
emoji10     96    ten Unicode groups, below       2,864   686
emoji100    32    100 emoji of emoji10's test     4,000 1,000
emojifaces  96    smileys, people                 2,159   527

emoji10 has one emoji of each family (``emoji_catalogue``) drawn by both sources; a class with few
emoji has up to four renders of each drawing in train (plants). emojifaces has all emoji of
Unicode's groups Smileys & Emotion and People & Body, by both sources, and each emoji's five skin
tones, by one source each. Smaller sides are made on loading, by area interpolation.

Each set is a folder: ``train.npz`` and ``test.npz`` (``embedded`` reads them) and ``labels.csv``,
one line a picture with source, code points, name, group, skin tone, class and licence.
"""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stages.common.files import write_json, write_text
from stages.common.stage import one_sentence
from stages.data import emoji_catalogue as unicode
from stages.data.embedded import SPLITS, write_split
from stages.data.emoji_catalogue import CLASSES, LICENCES, Emoji
from stages.data.emoji_render import recipe, render
from stages.data.fingerprint import FINGERPRINTS, array_hash
from stages.data.pool import ordered_map

SEED = 0
SIDES = {"emoji10": 96, "emoji100": 32, "emojifaces": 96}  # px; 96 is STL-10's, 32 CIFAR-100's
FEW = 200  # drawings; a class with fewer in train gets more renders of each, ...
MOST_RENDERS = 4  # ... up to so many
RENDERS_100 = {"train": 20, "test": 5}  # of each drawing of emoji100; CIFAR-100 has 500 and 100
CLASSES_100 = 100


@dataclass(frozen=True)
class Picture:
    """The recipe of one picture. ``family`` is its bootstrap cluster."""

    split: str
    label: int
    emoji: Emoji
    source: str
    render: int


def plan(name: str, seed: int) -> tuple[list[str], list[Picture]]:
    """Return the classes and the pictures of a set, train before test, in Unicode's order."""
    emojis = unicode.catalogue()
    test = unicode.test_families(emojis, seed)
    classes, pictures = {"emoji10": _plan_10, "emoji100": _plan_100, "emojifaces": _plan_faces}[
        name
    ](emojis, test, seed)
    return classes, sorted(pictures, key=lambda picture: SPLITS.index(picture.split))


def _one_a_family(emojis: list[Emoji]) -> list[Emoji]:
    first: dict[str, Emoji] = {}
    for emoji in emojis:
        if not emoji.skin_tone:
            first.setdefault(emoji.family, emoji)
    return list(first.values())


def _side(emoji: Emoji, test: set[str]) -> str:
    return "test" if emoji.family in test else "train"


def _plan_10(emojis: list[Emoji], test: set[str], seed: int) -> tuple[list[str], list[Picture]]:
    chosen = _one_a_family(emojis)
    train = Counter(emoji.label for emoji in chosen if _side(emoji, test) == "train")
    pictures = []
    for emoji in chosen:
        split = _side(emoji, test)
        drawings = len(LICENCES) * train[emoji.label]
        renders = min(MOST_RENDERS, max(1, round(FEW / drawings)))
        pictures += [
            Picture(split, emoji.label, emoji, source, number)
            for source in LICENCES
            for number in range(renders if split == "train" else 1)
        ]
    return list(CLASSES), pictures


def _plan_100(emojis: list[Emoji], test: set[str], seed: int) -> tuple[list[str], list[Picture]]:
    candidates = [emoji for emoji in _one_a_family(emojis) if emoji.family in test]
    candidates.sort(key=lambda emoji: unicode.draw_order(seed, f"emoji100/{emoji.code}"))
    rank = {}  # place of an emoji within its class: take the first of each class, the second, ...
    for label in range(len(CLASSES)):
        alike = [emoji for emoji in candidates if emoji.label == label]
        rank |= {emoji: place for place, emoji in enumerate(alike)}
    chosen = sorted(candidates, key=lambda emoji: (rank[emoji], emoji.label))[:CLASSES_100]
    chosen.sort(key=lambda emoji: emoji.code)
    pictures = [
        Picture(split, label, emoji, source, number + (RENDERS_100["train"] * (split == "test")))
        for label, emoji in enumerate(chosen)
        for source in LICENCES
        for split in SPLITS
        for number in range(RENDERS_100[split])
    ]
    return [emoji.name for emoji in chosen], pictures


def _plan_faces(emojis: list[Emoji], test: set[str], seed: int) -> tuple[list[str], list[Picture]]:
    classes = ["smileys", "people"]
    pictures = []
    for emoji in emojis:
        kind = CLASSES[emoji.label]
        if kind not in classes or "-" in emoji.skin_tone:  # two people of two skin tones
            continue
        sources = list(LICENCES)
        if emoji.skin_tone:
            coin = recipe(seed, "emojifaces", "source", emoji.code).randint(len(sources))
            sources = [sources[coin]]
        pictures += [
            Picture(_side(emoji, test), classes.index(kind), emoji, source, 0) for source in sources
        ]
    return classes, pictures


def draw(item: tuple[Path, Picture], *, name: str, seed: int) -> UInt8[np.ndarray, "s s 3"]:
    """Draw one picture of a set from its SVG file, at the set's side."""
    path, picture = item
    random = recipe(seed, name, picture.source, picture.emoji.code, picture.render)
    return render(path, random, SIDES[name])


def make(name: str, seed: int = SEED, workers: int | None = None) -> dict[str, dict]:
    """Draw a whole set.

    Returns
    -------
    {split: {"images": uint8 (n, s, s, 3), "labels": int64 (n,), "groups": int64 (n,),
    "classes": list[str], "pictures": list[Picture]}}; groups number the families.
    """
    classes, pictures = plan(name, seed)
    drawn = {source: unicode.drawings(source) for source in LICENCES}
    families = sorted({picture.emoji.family for picture in pictures})
    items = [(unicode.drawing(p.emoji, drawn[p.source]), p) for p in pictures]
    work = partial(draw, name=name, seed=seed)
    images = np.stack(list(ordered_map(work, items, title=name, workers=workers)))
    made = {}
    for split in SPLITS:
        here = [i for i, picture in enumerate(pictures) if picture.split == split]
        members = [pictures[i] for i in here]
        made[split] = {
            "images": images[here],
            "labels": np.array([picture.label for picture in members], np.int64),
            "groups": np.array([families.index(p.emoji.family) for p in members], np.int64),
            "classes": classes,
            "pictures": members,
        }
    return made


def fingerprint(made: dict[str, dict], seed: int) -> dict:
    """Return what identifies a set: counts and the hashes of its arrays."""
    splits = {}
    for split, part in made.items():
        counts = np.bincount(part["labels"], minlength=len(part["classes"]))
        splits[split] = {
            "count": len(part["labels"]),
            "classes": dict(zip(part["classes"], counts.tolist(), strict=True)),
            "arrays": {
                array: array_hash(array, part[array]) for array in ("images", "labels", "groups")
            },
        }
    return {"kind": "embedded", "seed": seed, "splits": splits}


def table(made: dict[str, dict]) -> str:
    """Return the label table as CSV, one line a picture; index counts within the split."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("split index source code name group skin_tone class render licence".split())
    for split, part in made.items():
        for index, p in enumerate(part["pictures"]):
            label, licence = part["classes"][p.label], LICENCES[p.source]
            e = p.emoji
            writer.writerow(
                [split, index, p.source, e.code, e.name, e.group, e.skin_tone, label, p.render,
                 licence]
            )  # fmt: skip
    return text.getvalue()


def build(out: Path, *, seed: int = SEED) -> None:
    """Draw all sets and write ``out/<set>/`` and the committed fingerprints."""
    for name in SIDES:
        made = make(name, seed)
        for split, part in made.items():
            arrays = {key: part[key] for key in ("images", "labels", "groups")}
            write_split(out / name / f"{split}.npz", part["classes"], **arrays)
        write_text(out / name / "labels.csv", table(made))
        write_json(FINGERPRINTS / f"{name}.json", fingerprint(made, seed))
        size = sum(path.stat().st_size for path in (out / name).iterdir())
        counts = ", ".join(f"{len(part['labels'])} {split}" for split, part in made.items())
        print(f"{out / name}: {counts}, {size / 1e6:.1f} MB")


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; if it fails, one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.data.emoji", description="Build the embedded image sets."
    )
    parser.add_argument("out", type=Path, help="folder to write, as in: data")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(argv)
    with one_sentence("emoji"):
        build(given.out, seed=given.seed)


if __name__ == "__main__":
    main()
