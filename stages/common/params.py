"""Parameters: params.yaml -> the keyword arguments of one stage's function, checked.

The arguments of stage ``<paper>.<verb>`` are merged, the later winning, from

1. ``<paper>.shared``                        keys that several stages of the paper take,
2. ``<paper>.<verb>``                        the stage's defaults, each with its source,
3. ``profiles.<profile>.<paper>.shared``     the scale of a profile (sizes, steps, seeds),
4. ``profiles.<profile>.<paper>.<verb>``
5. ``<paper>.variants.<variant>``            what makes a variant, if the stage has variants.

Of the ``shared`` sections a stage takes the keys it names, and refuses what is nearly one of them;
in the others every unknown key is an error. A function that takes ``variants`` gets the list of the
paper's variant names. Types and ranges are the function's annotations; no list is empty. YAML is
read by ruamel, as DVC does (YAML 1.2: ``2e-4`` is a number, ``on`` a string).
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from beartype.door import is_bearable
from beartype.vale import Is
from ruamel.yaml import YAML

from stages.common.errors import InputError, cause, shown, suggestion

PARAMS = Path("params.yaml")
Number = int | float

LARGEST_INT = 2**31 - 1  # what torch, NumPy and OpenCV all take as a size or a seed
MISSPELLED = 0.9  # likeness, difflib's ratio, above which a shared key is no other stage's
LARGEST_FLOAT = sys.float_info.max


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -LARGEST_FLOAT <= value <= LARGEST_FLOAT


PositiveInt = Annotated[int, Is[lambda v: not isinstance(v, bool) and 0 < v <= LARGEST_INT]]
NonNegativeInt = Annotated[int, Is[lambda v: not isinstance(v, bool) and 0 <= v <= LARGEST_INT]]
PositiveFloat = Annotated[Number, Is[lambda v: _is_number(v) and v > 0]]
NonNegativeFloat = Annotated[Number, Is[lambda v: _is_number(v) and v >= 0]]
Fraction = Annotated[Number, Is[lambda v: _is_number(v) and 0 <= v <= 1]]
Decay = Annotated[Number, Is[lambda v: _is_number(v) and 0 <= v < 1]]

IN_WORDS = [
    (PositiveInt, f"a whole number from 1 to {LARGEST_INT}"),
    (NonNegativeInt, f"a whole number from 0 to {LARGEST_INT}"),
    (PositiveFloat, "a number above 0"),
    (NonNegativeFloat, "a number, 0 or more"),
    (Fraction, "a number from 0 to 1"),
    (Decay, "a number from 0 to below 1"),
    (int, "a whole number"),
    (str, "a string"),
    (bool, "true or false"),
    (dict, "a map of keys to values"),
]


def load_params(path: Path = PARAMS) -> dict[str, Any]:
    """Read params.yaml whole.

    Raises
    ------
    InputError
        If the file is missing, is not YAML, has a key twice, or is not a map.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except Exception as error:  # ruamel raises many kinds on what is no YAML
        raise InputError(
            path,
            "cannot be read",
            expected="YAML with every key once",
            found=cause(error),
            remedy="mend the file (git diff shows what changed)",
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            path,
            "has the wrong layout",
            expected="a map with 'profile', 'profiles' and one section a paper",
            found=f"a {type(content).__name__}",
            remedy="mend the file (git diff shows what changed)",
        )
    return content


def section(params: Mapping, name: str, path: Path = PARAMS) -> dict[str, Any]:
    """Return the section with dotted ``name``, e.g. ``profiles.embedded.colourisation.train``.

    Raises
    ------
    InputError
        If it does not exist (the nearest existing name is suggested) or is not a map.
    """
    here: Any = params
    for i, key in enumerate(parts := name.split(".")):
        if not isinstance(here, Mapping) or key not in here:
            known = [str(k) for k in here] if isinstance(here, Mapping) else []
            raise InputError(
                path,
                f"has no section {name!r}",
                expected=f"a key {key!r} in {'.'.join(parts[:i]) or 'the top level'}",
                found=f"{len(known)} other keys",
                remedy=suggestion(key, known) if known else "add it",
            )
        here = here[key]
    if not isinstance(here, Mapping):
        raise InputError(
            path,
            f"section {name!r} has the wrong layout",
            expected="a map of keys to values",
            found=shown(here),
            remedy="write 'key: value' lines below it",
        )
    return dict(here)


def _optional(params: Mapping, name: str, path: Path) -> dict[str, Any]:
    """Return a section that may be absent, but not under a misspelled parent."""
    parent, _, key = name.rpartition(".")
    return section(params, name, path) if key in section(params, parent, path) else {}


def fits(value: object, annotation: Any) -> bool:
    """Check a value against an annotation; of a list, never empty, every item.

    (beartype samples one item.)
    """
    if get_origin(annotation) is list:
        item = get_args(annotation)[0]
        return isinstance(value, list) and value != [] and all(fits(v, item) for v in value)
    return is_bearable(value, annotation)


def describe(annotation: Any) -> str:
    """Return in words what an annotation takes."""
    if get_origin(annotation) is list:
        return f"a list of one item or more, each {describe(get_args(annotation)[0])}"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(repr, get_args(annotation)))}"
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(map(describe, get_args(annotation)))
    if annotation is NoneType:
        return "null"
    words = [text for known, text in IN_WORDS if known is annotation]
    return words[0] if words else str(annotation)


def stage_params(
    function: Callable,
    name: str,
    *,
    profile: str,
    variant: str | None = None,
    path: Path = PARAMS,
) -> dict[str, Any]:
    """Return the keyword arguments of stage ``name`` ("<paper>.<verb>") for ``function``.

    Raises
    ------
    InputError
        If a section is missing; a key is unknown, misspelled or missing; or a value has another
        type or range than the function's annotation says.
    """
    params = load_params(path)
    paper, verb = name.split(".")
    section(params, f"profiles.{profile}.{paper}", path)  # names a misspelled profile
    wanted = {
        key: p
        for key, p in inspect.signature(function).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    shared = [f"{paper}.shared", f"profiles.{profile}.{paper}.shared"]
    strict = [f"{paper}.{verb}", f"profiles.{profile}.{paper}.{verb}"]
    if variant is not None:
        section(params, f"{paper}.variants.{variant}", path)
        strict.append(f"{paper}.variants.{variant}")
    merged: dict[str, Any] = {}
    source: dict[str, str] = {}
    for where in [shared[0], strict[0], shared[1], *strict[1:]]:
        for key, value in _optional(params, where, path).items():
            if key in wanted:
                merged[key], source[key] = value, where
            elif where in strict or get_close_matches(str(key), wanted, cutoff=MISSPELLED):
                raise InputError(
                    path,
                    f"{where} has the unknown key {key!r}",
                    expected=f"a parameter of stage {name}",
                    found=shown(value),
                    remedy=suggestion(str(key), list(wanted)),
                )
    if "variants" in wanted:
        merged["variants"] = list(section(params, f"{paper}.variants", path))
        source["variants"] = f"{paper}.variants"
    missing = [
        k for k, p in wanted.items() if k not in merged and p.default is inspect.Parameter.empty
    ]
    if missing:
        raise InputError(
            path,
            f"stage {name} lacks the key {missing[0]!r}",
            expected=f"it in {' or '.join(strict)}",
            found=f"the keys {sorted(merged)}",
            remedy="add it, or mend its spelling",
        )
    hints = get_type_hints(function, include_extras=True)
    for key, value in merged.items():
        if key in hints and not fits(value, hints[key]):
            raise InputError(
                path,
                f"{source[key]}.{key} has the wrong value",
                expected=describe(hints[key]),
                found=shown(value),
                remedy="correct it; the comment beside the key gives its source",
            )
    seeds = merged.get("seeds", [])
    if len(set(seeds)) < len(seeds):
        raise InputError(
            path,
            f"{source['seeds']}.seeds has the wrong value",
            expected="every seed once: the same run again is no second one",
            found=shown(seeds),
            remedy="take others, or fewer",
        )
    return merged
