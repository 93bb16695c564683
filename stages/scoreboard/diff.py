"""Say what changed between two revisions or profiles, and what of it is more than noise.

``python -m stages.scoreboard.diff [OLD] [NEW]`` compares the results of HEAD with those of the
working tree, or of any two of ``REV``, ``workspace``, ``REV:PROFILE`` and ``:PROFILE`` (of the
working tree); without a profile it is the active one. It prints the claims whose verdict changed,
the parameters that differ, the numbers that moved (of every paper the first ones), and counts of
the rest. ``--all`` lists every number that changed, ``--json FILE`` writes everything,
``--fail-on-verdict`` exits with status 1 if a claim of OLD has another verdict in NEW, or none.

*Moved.* Old and new are taken as independent, as if of other images and other seeds. The interval
of their difference d = new - old is [d - a, d + b], with a from new - new.lo and old.hi - old, and
b from new.hi - new and old - old.lo, in quadrature (Zou & Donner, Stat. Med. 2008; of symmetric
intervals, the half widths in quadrature). A number moved if that interval excludes 0; a or b,
whichever lies between d and 0, is its noise. Both sides mostly share their test images, and then
the noise is less than this: "within noise" errs on the side of silence. Even so, of numbers that
only the luck of a seed separates, up to one in twenty moves if the intervals are 95 % ones: a few
among hundreds tell nothing by themselves.

A number without an interval, or with one of no width, moved if it differs by more than 1e-9 of
its size; such numbers are listed by themselves. A number that several files repeat counts once.
"""

import argparse
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.scoreboard.numbers import CLAIMS, Number, home_ranks, is_flat, is_number, numbers
from stages.scoreboard.readme import CELLS, LEAKS, METRICS
from stages.scoreboard.sides import RESULTS, WORKSPACE, Side, active_profile, read_side

HEADLINES = {  # paper -> metrics of the tables in docs/results.md
    "colourisation": tuple(METRICS),
    "deep_features": tuple(CELLS),
    "gan_transform": (
        *("ssim_uwa_literal", "ssim_ga_blockwise", "ssim_ga_shared", "ssim_ga_local"),
        *("ssim_ga_unet", "acc_ten", "acc_transfer", "worst_unpaired_ssim", "worst_ssim"),
    ),
    "sift_inversion": tuple(LEAKS),
}
SAME = 1e-9  # relative
LISTED = 12  # numbers of a paper that are printed without --all
NARROWEST = 40  # columns
ABSENT = "-"


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict on one side; None where that side does not judge it."""

    verdict: str | None
    effect: float | None = None
    lo: float | None = None
    hi: float | None = None


@dataclass(frozen=True)
class VerdictChange:
    """A claim whose verdict is not the same on both sides."""

    paper: str
    id: str
    old: Verdict
    new: Verdict
    statement: str


@dataclass(frozen=True)
class ParameterChange:
    """A parameter of a paper and profile; ``there``: whether old and new have it."""

    paper: str
    name: str
    old: Any
    new: Any
    there: tuple[bool, bool]


@dataclass(frozen=True)
class Change:
    """A number that both sides have.

    ``difference`` has the interval ``lo``, ``hi`` and is ``times`` its noise; these are None where
    there is no noise to compare with. ``headline``: README shows the metric.
    """

    paper: str
    name: str
    old: Number
    new: Number
    difference: float
    lo: float | None
    hi: float | None
    times: float | None
    headline: bool

    @property
    def equal(self) -> bool:
        """Say whether nothing changed."""
        return math.isclose(self.old.value, self.new.value, rel_tol=SAME)

    @property
    def moved(self) -> bool:
        """Say whether the change is beyond noise."""
        return not self.equal and (self.times is None or self.times > 1)


@dataclass(frozen=True)
class OneSided:
    """A number that only one side has."""

    paper: str
    name: str
    number: Number


@dataclass(frozen=True)
class Comparison:
    """All that can be said of two sides.

    judged : claims that both sides judge; changes : of all numbers that both sides have.
    """

    old: Side
    new: Side
    verdicts: list[VerdictChange]
    judged: int
    parameters: list[ParameterChange]
    changes: list[Change]
    only_old: list[OneSided]
    only_new: list[OneSided]


# ---------------------------------------------------------------- comparing


def difference(old: Number, new: Number) -> tuple[float, float, float, float] | None:
    """Return new - old, its interval, and how many times its noise it is; None without noise."""
    if old.interval is None or new.interval is None:
        return None
    (old_lo, old_hi), (new_lo, new_hi) = old.interval, new.interval
    # a percentile interval, or one cut off at a bound, need not hold its value
    below = math.hypot(max(new.value - new_lo, 0), max(old_hi - old.value, 0))
    above = math.hypot(max(new_hi - new.value, 0), max(old.value - old_lo, 0))
    d = new.value - old.value
    noise = below if d >= 0 else above
    return (d, d - below, d + above, abs(d) / noise) if noise else None


def _told(number: Number | None) -> tuple[Any, ...]:
    return (number.value, number.interval) if number else ()


def pair(
    old: Mapping[str, Number], new: Mapping[str, Number], rank: Mapping[str, int]
) -> dict[str, tuple[Number | None, Number | None]]:
    """Pair numbers by name, and leave out what repeats a number of a better home.

    A number with an interval is a repeat if value and interval agree on both sides; one without,
    if the values agree.

    Parameters
    ----------
    rank : of the files as homes, from 0, the best.
    """
    names = {**old, **new}
    found: dict[str, tuple[Number | None, Number | None]] = {}
    told: dict[tuple[Any, ...], int] = {}  # what was told -> the rank of its best home
    for name in sorted(names, key=lambda name: (rank[names[name].home], name)):
        both = old.get(name), new.get(name)
        home = rank[names[name].home]
        values = tuple(number and number.value for number in both)
        whole = tuple(map(_told, both))
        key = whole if any(number and number.interval for number in both) else values
        if told.get(key, home) < home:
            continue
        found[name] = both
        for key in (whole, values):
            told.setdefault(key, home)
    return found


def _details(side: Side, paper: str) -> dict[str, Mapping[str, Any]]:
    """Return the claims of a paper by id; none if it has no claims.json.

    Raises
    ------
    InputError
        If its claims.json has another layout.
    """
    content = side.papers.get(paper, {}).get(CLAIMS)
    if content is None:
        return {}
    details = content.get("details")
    if not isinstance(details, list) or not all(
        isinstance(detail, Mapping)
        and {"id", "verdict"} <= detail.keys()
        and isinstance(parts := detail.get("parts") or [], list)
        and all(isinstance(part, Mapping) and "name" in part for part in parts)
        for detail in details
    ):
        raise InputError(
            f"{side.name}: {RESULTS}/{side.profile}/{paper}/{CLAIMS}.json",
            "has another layout",
            expected="'details', each with 'id' and 'verdict', and parts with a 'name'",
            found=f"the keys {', '.join(content) or 'of an empty map'}",
            remedy="run the stage that writes it (dvc repro)",
        )
    return {str(detail["id"]): detail for detail in details}


def _verdict(details: Mapping[str, Mapping[str, Any]], name: str) -> Verdict:
    if name not in details:
        return Verdict(None)
    detail = details[name]
    ends = [detail.get(key) for key in ("effect", "lo", "hi")]
    return Verdict(str(detail["verdict"]), *(float(e) if is_number(e) else None for e in ends))


def _verdicts(old: Side, new: Side, paper: str) -> tuple[list[VerdictChange], int]:
    """Return the changed verdicts of a paper, and how many claims both sides judge."""
    before, after = _details(old, paper), _details(new, paper)
    found = []
    for name, detail in {**before, **after}.items():
        first, second = _verdict(before, name), _verdict(after, name)
        if first.verdict != second.verdict:
            statement = " ".join(str(detail.get("statement", "")).split())
            found.append(VerdictChange(paper, name, first, second, statement))
    return found, len(before.keys() & after.keys())


def _merged(general: Any, own: Any) -> Any:
    if not (isinstance(general, Mapping) and isinstance(own, Mapping)):
        return own
    return {**general, **{k: _merged(general.get(k), value) for k, value in own.items()}}


def _flat(section: Mapping[str, Any], begin: str = "") -> dict[str, Any]:
    found = {}
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{begin}{key}.")
        else:
            found[f"{begin}{key}"] = value
    return found


def parameters(side: Side, paper: str) -> dict[str, Any]:
    """Return a paper's parameters by dotted name, those of the profile over the general ones.

    A section without a key is none; a variant without one is, as it is there.
    """
    profile = side.params["profiles"][side.profile]
    own = profile.get(paper) if isinstance(profile, Mapping) else None
    merged = _merged(side.params.get(paper) or {}, own or {})
    return {key: value for key, value in _flat(merged).items() if "." in key or value != {}}


def _parameters(old: Side, new: Side, paper: str) -> list[ParameterChange]:
    before, after = parameters(old, paper), parameters(new, paper)
    found = []
    for name in {**before, **after}:
        there = name in before, name in after
        if not all(there) or before[name] != after[name]:
            both = before.get(name), after.get(name)
            found.append(ParameterChange(paper, name, *both, there))
    return found


def compare(old: Side, new: Side) -> Comparison:
    """Compare the verdicts, parameters and numbers of all papers that a side has results of.

    Raises
    ------
    InputError
        If a claims.json has another layout.
    """
    found = Comparison(old, new, [], 0, [], [], [], [])
    judged = 0
    for paper in sorted({*old.papers, *new.papers}):
        verdicts, both = _verdicts(old, new, paper)
        judged += both
        found.verdicts.extend(verdicts)
        found.parameters.extend(_parameters(old, new, paper))
        files = {**old.papers.get(paper, {}), **new.papers.get(paper, {})}
        shown = HEADLINES.get(paper, ())
        pairs = pair(
            numbers(old.papers.get(paper, {})),
            numbers(new.papers.get(paper, {})),
            home_ranks(files),
        )
        for name, (first, second) in pairs.items():
            if first and second:
                headline = second.metric in shown and is_flat(files[second.home])
                d = difference(first, second) or (second.value - first.value, None, None, None)
                found.changes.append(Change(paper, name, first, second, *d, headline))
            elif first:
                found.only_old.append(OneSided(paper, name, first))
            elif second:
                found.only_new.append(OneSided(paper, name, second))
    return replace(found, judged=judged)


def by_size(changes: Iterable[Change]) -> list[Change]:
    """Sort: what README shows first, then by times the noise, without noise by relative size."""

    def size(c: Change) -> float:
        most = max(abs(c.old.value), abs(c.new.value))
        return c.times if c.times is not None else abs(c.difference) / most if most else 0.0

    return sorted(changes, key=lambda c: (not c.headline, -size(c), c.name))


def lost_verdicts(found: Comparison) -> list[VerdictChange]:
    """Return the claims of OLD that have another verdict in NEW, or none."""
    return [v for v in found.verdicts if v.old.verdict is not None]


# ---------------------------------------------------------------- printing


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def _table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Align columns, indented; a first one that leaves no room has a line of its own."""
    rest = "".join(f"  {{:>{max(len(row[i]) for row in rows)}}}" for i in range(1, len(rows[0])))
    room = width - 4 - len(rest.format(*rows[0][1:]))
    name = min(room, max(len(row[0]) for row in rows))
    lines = []
    for row in rows:
        first = row[0]
        if len(first) > name:
            lines.append(_cut(f"    {first}", width))
            first = ""
        lines.append(_cut(f"    {first:<{max(name, 0)}}{rest.format(*row[1:])}", width))
    return lines


def _range(lo: float | None, hi: float | None) -> str:
    return "" if lo is None or hi is None else f" [{lo:+.3g}, {hi:+.3g}]"


def _effect(side: Verdict) -> str:
    return ABSENT if side.effect is None else f"{side.effect:+.3g}{_range(side.lo, side.hi)}"


def _print_verdicts(found: Comparison, width: int) -> list[str]:
    """Write three lines a changed verdict; one a paper that only one side has."""
    changed = [v for v in found.verdicts if None not in (v.old.verdict, v.new.verdict)]
    alone = len(found.verdicts) - len(changed)
    lines = [f"verdicts: {len(changed)} of {found.judged} changed"]
    if alone:
        lines[0] += f"; {alone} on one side only"
    for side, other in ((found.old, found.new), (found.new, found.old)):
        for paper in sorted(side.papers.keys() - other.papers.keys()):
            claims = sum(v.paper == paper for v in found.verdicts)
            lines.append(f"  {paper}: its {claims} claims only in {side.short}")
    for v in found.verdicts:
        if not (v.paper in found.old.papers and v.paper in found.new.papers):
            continue
        lines += [
            f"  {v.paper} {v.id}: {v.old.verdict or ABSENT} -> {v.new.verdict or ABSENT}",
            f"    {_effect(v.old)} -> {_effect(v.new)}",
            f"    {v.statement}",
        ]
    return lines


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_parameters(found: Comparison, width: int) -> list[str]:
    lines = [f"parameters: {len(found.parameters)} differ"]
    for p in found.parameters:
        old, new = (
            _shown(value) if there else ABSENT
            for value, there in zip((p.old, p.new), p.there, strict=True)
        )
        name = f"  {p.paper}.{p.name}:"
        line = f"{name} {old} -> {new}"
        lines += [line] if len(line) <= width else [name, f"    {old}", f"    -> {new}"]
    return lines


def _row(c: Change) -> tuple[str, ...]:
    row = c.name, f"{c.old.value:.5g}", f"{c.new.value:.5g}"
    change = f"{c.difference:+.3g}{_range(c.lo, c.hi)}"
    return (*row, change) if c.times is None else (*row, change, f"{c.times:.3g}")


def _listed(changes: Sequence[Change], width: int, most: int | None) -> list[str]:
    """Write a table a paper, its first ``most`` rows (None: all)."""
    lines = []
    for paper in sorted({c.paper for c in changes}):
        own = by_size(c for c in changes if c.paper == paper)
        lines += [f"  {paper}", *_table([_row(c) for c in own[:most]], width)]
        if len(own[:most]) < len(own):
            lines.append(f"    and {len(own) - len(own[:most])} more (--all)")
    return lines


def _print_one_sided(
    side: Side, alone: Sequence[OneSided], width: int, *, everything: bool
) -> list[str]:
    if not alone:
        return []
    files = Counter(f"{n.paper}/{n.number.home}" for n in alone)
    where = ", ".join(f"{file} {count}" for file, count in files.most_common())
    lines = [f"only in {side.short}: {len(alone)} ({where})"]
    if everything:
        rows = [(f"{n.paper} {n.name}", f"{n.number.value:.5g}") for n in alone]
        lines += _table(rows, width)
    return lines


def printout(found: Comparison, width: int, *, everything: bool = False) -> str:
    """Write a comparison for a terminal, lines of at most ``width`` columns (at least 40).

    Parameters
    ----------
    everything : list all numbers that changed or that one side lacks, not the first that moved.
    """
    width, most = max(width, NARROWEST), None if everything else LISTED
    measured = [c for c in found.changes if c.times is not None]
    moved = [c for c in measured if c.moved]
    bare = [c for c in found.changes if c.times is None and c.moved]
    within = [c for c in measured if not c.moved and not c.equal]
    equal = sum(c.equal for c in found.changes)
    lines = [f"old: {found.old}", f"new: {found.new}", ""]
    lines += [*_print_verdicts(found, width), "", *_print_parameters(found, width), ""]
    lines += [f"moved beyond noise: {len(moved)} of {len(measured)} numbers with an interval"]
    if moved:
        lines += ["  old, new, difference [its interval, as if old and new were independent],"]
        lines += ["  times its noise; the metrics of docs/results.md first"]
    lines += _listed(moved, width, most)
    lines += ["", f"without an interval, changed: {len(bare)}", *_listed(bare, width, most)]
    lines += ["", f"within noise: {len(within)} changed, {equal} did not"]
    if everything:
        lines += _listed(within, width, None)
    for side, alone in ((found.old, found.only_old), (found.new, found.only_new)):
        lines += _print_one_sided(side, alone, width, everything=everything)
    return "\n".join(_cut(line, width) for line in lines)


def record(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON: all of it, of numbers that did not change the names."""
    moved = [c for c in found.changes if c.moved]
    lists = {
        "moved": [c for c in moved if c.times is not None],
        "changed_without_interval": [c for c in moved if c.times is None],
        "within_noise": [c for c in found.changes if not c.moved and not c.equal],
    }
    sides = {"old": found.old, "new": found.new}
    return {
        **{key: {k: vars(s)[k] for k in ("name", "commit", "profile")} for key, s in sides.items()},
        "verdicts": [asdict(v) for v in found.verdicts],
        "parameters": [asdict(p) for p in found.parameters],
        **{key: [asdict(c) for c in by_size(changes)] for key, changes in lists.items()},
        "equal": [f"{c.paper} {c.name}" for c in found.changes if c.equal],
        "only_old": [asdict(n) for n in found.only_old],
        "only_new": [asdict(n) for n in found.only_new],
    }


def _say(text: str) -> None:
    """Print; a reader who has left (``| head``) misses the rest, and nothing fails."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 2 and one sentence if a side cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.scoreboard.diff",
        description="What changed between two revisions or profiles, beyond noise.",
    )
    what = f"a git revision, {WORKSPACE}, REV:PROFILE, or :PROFILE of the working tree"
    parser.add_argument("old", nargs="?", default="HEAD", help=f"{what}; default: HEAD")
    parser.add_argument("new", nargs="?", default=WORKSPACE, help=f"default: {WORKSPACE}")
    parser.add_argument("--all", action="store_true", help="list every number that changed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument(
        "--fail-on-verdict", action="store_true", help="exit with status 1 if a verdict changed"
    )
    given = parser.parse_args(argv)
    try:
        active = active_profile()
        found = compare(read_side(given.old, active), read_side(given.new, active))
        _say(printout(found, shutil.get_terminal_size((80, 24)).columns, everything=given.all))
        if given.json:
            write_json(given.json, record(found))
            _say(f"\nwrote {given.json}")
    except InputError as error:
        print(f"error: diff: {error}", file=sys.stderr)
        return 2
    return 1 if given.fail_on_verdict and lost_verdicts(found) else 0


if __name__ == "__main__":
    sys.exit(main())
