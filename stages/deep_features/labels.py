"""From attributes of identities to classes of tasks (Sec. III-B; the authors' code).

Market's and Duke's files have one column a colour, ``upblack``, ``downred``, ..., 2 for yes. They
become two tasks, ``up_colour`` and ``down_colour``; an identity without exactly one colour of each
is left out of all tasks, as in the authors' code (the paper does not say so).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from stages.common.errors import InputError

COLOUR = re.compile(r"(up|down)([a-z]+)")  # ``up`` and ``down`` alone are tasks of Market's
YES = ("2", "yes")
NONE = -1  # the class of what has no annotation
Rows = Mapping[int, Mapping[str, str]]  # identity -> column -> value


@dataclass(frozen=True)
class Labels:
    """Classes of identities.

    tasks : name, and names of the classes, in the order of the columns of the numbers.
    classes : split -> identity -> class of each task.
    dropped : split -> identity -> why it has no classes.
    constant : tasks of one class, left out.
    """

    tasks: list[dict]
    classes: dict[str, dict[int, Int64[np.ndarray, " tasks"]]]
    dropped: dict[str, dict[int, str]]
    constant: list[str]


def merge_colours(row: Mapping[str, str]) -> dict[str, str] | None:
    """Return a row with ``up_colour`` and ``down_colour`` in place of a column a colour.

    None, if a group of colours has none or several that are set. A group without columns makes no
    task.
    """
    merged = {k: v for k, v in row.items() if not COLOUR.fullmatch(k)}
    for group in ("down", "up"):
        columns = {m[2]: k for k in row if (m := COLOUR.fullmatch(k)) and m[1] == group}
        worn = [colour for colour, column in columns.items() if row[column] in YES]
        if columns and len(worn) != 1:
            return None
        if columns:
            merged[f"{group}_colour"] = worn[0]
    return merged


def label(train: Rows, test: Rows) -> Labels:
    """Return the classes of identities, numbered as the sorted ones of the training split.

    Left out are, in this order of reasons: identities with an empty cell (``no_annotation``),
    without exactly one colour (``colour_rule``), and test identities with a class that no training
    identity has (``unseen_class``). Colours come last among the tasks, the others are sorted.

    Raises
    ------
    InputError
        If the columns differ between identities, or no identity of a split is left.
    """
    columns = {frozenset(row) for rows in (train, test) for row in rows.values()}
    if len(columns) > 1:
        odd = sorted(frozenset.union(*columns) - frozenset.intersection(*columns))
        raise _wrong("the same columns for every identity", f"{', '.join(odd)} for some only")
    kept: dict[str, dict[int, dict[str, str]]] = {"train": {}, "test": {}}
    dropped: dict[str, dict[int, str]] = {"train": {}, "test": {}}
    for split, rows in (("train", train), ("test", test)):
        for pid, row in rows.items():
            merged = merge_colours(row)
            if not all(row.values()):
                dropped[split][pid] = "no_annotation"
            elif merged is None:
                dropped[split][pid] = "colour_rule"
            else:
                kept[split][pid] = merged
        if not kept[split]:
            expected = "identities with every attribute and one colour (2 or yes) of each group"
            raise _wrong(expected, f"none of {len(rows)} in {split}")
    names = sorted(next(iter(kept["train"].values())), key=lambda n: (n.endswith("_colour"), n))
    classes = {name: sorted({row[name] for row in kept["train"].values()}) for name in names}
    constant = [name for name in names if len(classes[name]) < 2]
    names = [name for name in names if name not in constant]
    if not names:
        raise _wrong("a task with two classes", f"one class in each of {', '.join(constant)}")
    numbers: dict[str, dict[int, np.ndarray]] = {"train": {}, "test": {}}
    for split, rows in kept.items():
        for pid, row in rows.items():
            if any(row[name] not in classes[name] for name in names):
                dropped[split][pid] = "unseen_class"
            else:
                found = [classes[name].index(row[name]) for name in names]
                numbers[split][pid] = np.array(found, np.int64)
    tasks = [{"name": name, "classes": classes[name]} for name in names]
    if not numbers["test"]:
        raise _wrong("test identities whose classes are in training", "none")
    return Labels(tasks, numbers, dropped, constant)


def of_images(
    pids: Int64[np.ndarray, " n"], classes: Mapping[int, Int64[np.ndarray, " tasks"]]
) -> Int64[np.ndarray, "n tasks"]:
    """Return the classes of each image's identity, -1 where it has none."""
    nothing = np.full(len(next(iter(classes.values()))), NONE, np.int64)
    return np.stack([classes.get(pid, nothing) for pid in pids.tolist()])


def _wrong(expected: str, found: str) -> InputError:
    return InputError(
        "the attributes",
        "cannot be made into classes",
        expected=expected,
        found=found,
        remedy="correct the file of attributes, see docs/data.md",
    )
