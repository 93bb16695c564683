"""The numbers in a paper's result files, each once, with a short name and its interval.

Files store an interval in one of two ways: ``<metric>`` beside ``<metric>_ci: [lo, hi]``, or a map
with ``lo``, ``hi`` and one of ``VALUES``. What else is a number has no interval. Texts, lists of
bare numbers (one a seed, samples) and what follows from another number (``DERIVED``) are left out.

A number that several files hold has a best home: the flat file of a variant (one with
``<metric>_ci`` at its top), then claims.json, then the other files by name. In claims.json the
inequalities of a claim count, not its effect, which is that of the weakest of them and so may be
another one's the next time.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

VALUES = ("value", "ours", "effect", "difference", "ssim")
DERIVED = ("deviation",)  # of ours from the paper's
NAMING = (  # keys whose values say which item of a list this is
    *("axis", "cell", "id", "name", "scheme", "attack", "model", "set", "where", "condition"),
    *("first", "second", "class", "kind", "dims", "width", "metric", "column"),
)
SILENT = ("values", "measures", "effects", "tasks")  # keys that a name does without
CLAIMS = "claims"
Words = tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """A number, its interval (None: it has none), the file that it is from and its metric."""

    value: float
    lo: float | None
    hi: float | None
    home: str
    metric: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return lo and hi, or None."""
        return None if self.lo is None or self.hi is None else (self.lo, self.hi)


def is_number(value: object) -> TypeGuard[float]:
    """Say whether a JSON value is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _pair(value: object) -> tuple[float, float] | None:
    if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
        return float(value[0]), float(value[1])
    return None


def _words(item: Mapping[str, Any], i: int) -> Words:
    """Name an item of a list; what a name before it ends or begins with is not said again."""
    found: list[str] = []
    for key in NAMING:
        said = {part for word in found for part in word.split("-")}
        if isinstance(item.get(key), (str, int)) and str(item[key]) not in said:
            found.append(str(item[key]))
    return tuple(found) or (f"#{i + 1}",)


def _numbers(content: Mapping[str, Any], path: Words) -> Iterator[tuple[Words, float, Any]]:
    """Yield (words of the name, value, interval or None) of a map and all below it."""
    own = next((key for key in VALUES if is_number(content.get(key))), None)
    interval = _pair([content.get("lo"), content.get("hi")])
    if own and interval:
        yield path, content[own], interval
        told = {own, "lo", "hi", "n", "seeds"}  # n and seeds say what the number is of
    else:
        told = set()
    told |= {key for key in content if key.rpartition("_")[2] in ("ci", "seeds")}
    for key, value in content.items():
        if is_number(value):
            if key not in told and key not in DERIVED:
                yield (*path, key), value, _pair(content.get(f"{key}_ci"))
        elif isinstance(value, Mapping):
            yield from _numbers(value, path if key in SILENT else (*path, key))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from _numbers(item, (*path, *_words(item, i)))


def _of_claims(content: Mapping[str, Any]) -> Iterator[tuple[Words, float, Any]]:
    for detail in content["details"]:
        parts = detail.get("parts") or [{**detail, "name": "effect"}]
        for part in parts:
            interval = _pair([part.get("lo"), part.get("hi")])
            if is_number(part.get("effect")):
                yield (str(detail["id"]), str(part["name"])), part["effect"], interval


def is_flat(content: Mapping[str, Any]) -> bool:
    """Say whether a file holds the numbers of one variant at its top."""
    return any(_pair(content.get(f"{key}_ci")) for key in content)


def home_ranks(files: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return each file's rank as a home of numbers, from 0, the best: that of all flat ones."""
    flat = [name for name in sorted(files) if is_flat(files[name])]
    others = sorted((name for name in files if name not in flat), key=lambda n: (n != CLAIMS, n))
    return {**dict.fromkeys(flat, 0), **{name: i + 1 for i, name in enumerate(others)}}


def numbers(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Number]:
    """Return all numbers of a paper's files by name, repeats among them: "bn_sn l1".

    Parameters
    ----------
    files : name of a file, without .json -> its content. claims.json must have its layout.
    """
    found: dict[str, Number] = {}
    for home in sorted(files):
        rows = _of_claims(files[home]) if home == CLAIMS else _numbers(files[home], ())
        for words, value, interval in rows:
            name = short = " ".join(words if home == CLAIMS else (home, *words))
            again = 1
            while name in found:
                again += 1
                name = f"{short} #{again}"
            lo, hi = interval or (None, None)
            found[name] = Number(float(value), lo, hi, home, words[-1] if words else home)
    return found
