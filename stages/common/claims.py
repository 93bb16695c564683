"""From numbers to verdicts: the rules by which every claim of every paper is judged.

A claim says where an effect lies: a difference above 0, a ratio inside a margin. The effect comes
with its bootstrap resamples and with its value in each training seed alone. A claim is

- ``supported`` if the interval lies where the claim says, and every seed agrees;
- ``contradicted`` if the interval lies where the claim says it does not, and every seed agrees;
- ``inconclusive`` otherwise: the interval reaches both sides, or the seeds disagree;
- ``not run`` if something it needs was not computed.

The interval covers the draw of the images and, for trained models, that of the seed: two or
three seeds are too few for a spread of their own, so :func:`with_seed_spread` pools it over all
models of a table. The seeds must agree besides, and one seed decides nothing. A claim of several
parts is supported if every part is (an intersection-union test, no correction needed: Berger,
Technometrics 1982) and contradicted if any part is at the level corrected for their number
(Bonferroni).
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int64
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.bootstrap import bootstrap_means, interval
from stages.common.errors import InputError, suggestion

Verdict = Literal["supported", "contradicted", "inconclusive", "not run"]
Region = tuple[float, float]  # an open interval
WORST_FIRST = {"contradicted": 0, "inconclusive": 1, "supported": 2}


class MissingEvidenceError(Exception):
    """A claim cannot be judged; the message says what was not run."""


# ---------------------------------------------------------------- effects


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic: its value, its value in each bootstrap resample, and in each seed alone.

    Sums, differences and multiples are taken resample by resample, so two estimates of the same
    images are paired. A statistic that was not trained has one seed, which fits any number.
    ``trained``: it depends on a training seed, so one seed is not enough to judge it.
    """

    value: float
    samples: Float64[np.ndarray, " resamples"]
    seeds: tuple[float, ...]
    trained: bool = False

    def __post_init__(self):
        if not (math.isfinite(self.value) and np.isfinite(self.samples).all()):
            raise ValueError(f"an estimate of value {self.value} has samples that are not finite")
        if not (self.seeds and all(map(math.isfinite, self.seeds))):
            raise ValueError(f"an estimate needs a finite value for each seed, has {self.seeds}")

    def __add__(self, other: "Estimate | float") -> "Estimate":
        if isinstance(other, Estimate):
            return combine(np.add, self, other)
        return combine(lambda x: x + other, self)

    def __sub__(self, other: "Estimate | float") -> "Estimate":
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> "Estimate":
        return combine(lambda x: factor * x, self)

    def interval(self, level: float) -> tuple[float, float]:
        """Percentile interval of the resamples."""
        return interval(self.samples, level)


def combine(function: Callable[..., Any], *estimates: Estimate) -> Estimate:
    """Apply a function of arrays, elementwise in all of them, to estimates of the same resamples.

    Raises
    ------
    ValueError
        If they have different numbers of resamples, or of seeds (1 fits any number).
    """
    resamples = {len(e.samples) for e in estimates}
    if len(resamples) > 1:
        raise ValueError(f"cannot pair estimates of {sorted(resamples)} resamples")
    trained = {len(e.seeds) for e in estimates} - {1}
    if len(trained) > 1:
        raise ValueError(f"cannot pair estimates of {sorted(trained)} seeds")
    seeds = np.broadcast_arrays(*(np.asarray(e.seeds, np.float64) for e in estimates))
    return Estimate(
        value=float(function(*(np.asarray([e.value]) for e in estimates))[0]),
        samples=np.asarray(function(*(e.samples for e in estimates)), np.float64),
        seeds=tuple(float(v) for v in function(*seeds)),
        trained=any(e.trained for e in estimates),
    )


def with_seed_spread(estimates: Mapping[str, Estimate], *, seed: int) -> dict[str, Estimate]:
    """Add to one metric's estimates of several trained models the luck of their training seeds.

    The variance between seeds is pooled over the models: v = mean of their variances, with
    models x (seeds - 1) degrees of freedom. Each resample of a model's mean over S seeds gets
    t sqrt(v / S), t from Student's distribution, independently for every model (as if equal seeds
    of two models had nothing in common, which errs on the safe side). With one seed nothing can be
    added; such estimates are only marked as trained, and no verdict rests on them.
    """
    freedom = sum(len(e.seeds) - 1 for e in estimates.values())
    total = sum(np.var(e.seeds) * len(e.seeds) for e in estimates.values())
    found = {}
    for name, e in estimates.items():
        samples = e.samples
        if freedom:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            error = math.sqrt(total / freedom / len(e.seeds))
            samples = samples + error * rng.standard_t(freedom, len(samples))
        found[name] = replace(e, samples=samples, trained=True)
    return found


def exactly(value: float) -> Estimate:
    """Return a printed number as an estimate without uncertainty, one seed."""
    return Estimate(float(value), np.array([value], np.float64), (float(value),))


def mean_estimates(
    values: Mapping[Any, Float[np.ndarray, "_ n"]],
    groups: Int64[np.ndarray, " n"],
    *,
    resamples: int,
    seed: int,
) -> dict[Any, Estimate]:
    """Means over images, averaged over seeds, all on the same resamples of the same images.

    Parameters
    ----------
    values : name -> per-image values, one row a seed.
    groups : the cluster of each image.
    """
    rows = np.stack([v.mean(axis=0, dtype=np.float64) for v in values.values()])
    means = bootstrap_means(rows, groups, resamples, seed)
    return {
        name: Estimate(
            value=float(v.mean(dtype=np.float64)),
            samples=means[:, i].copy(),
            seeds=tuple(float(m) for m in v.mean(axis=1, dtype=np.float64)),
        )
        for i, (name, v) in enumerate(values.items())
    }


# ---------------------------------------------------------------- questions


@dataclass(frozen=True, eq=False)
class Criterion:
    """An effect, and where it must lie; made by the functions below."""

    name: str
    estimate: Estimate
    unit: str
    said: str
    accept: Region  # the interval inside: supported
    reject: tuple[Region, ...]  # the interval inside one of these: contradicted
    agree: Region  # every seed's effect inside, to be supported
    least: float = 0.0  # the effect must be at least this large to be supported


def above(
    name: str, estimate: Estimate, unit: str, *, margin: float = 0.0, least: float = 0.0
) -> Criterion:
    """Ask whether the effect is positive.

    Parameters
    ----------
    margin : what the whole interval must exceed for support (contradiction stays below 0).
    least : what the effect itself must reach for support, its interval exceeding ``margin``.
    """
    positive = (0.0, math.inf)
    return Criterion(
        name,
        estimate,
        unit,
        f"> {margin:g}",
        (margin, math.inf),
        ((-math.inf, 0.0),),
        positive,
        least,
    )


def below(
    name: str, estimate: Estimate, unit: str, *, margin: float = 0.0, least: float = 0.0
) -> Criterion:
    """Ask whether the effect is negative: :func:`above` mirrored."""
    negative = (-math.inf, 0.0)
    said = f"< {-margin or 0:g}"
    return Criterion(
        name, estimate, unit, said, (-math.inf, -margin), ((0.0, math.inf),), negative, least
    )


def at_least(name: str, estimate: Estimate, unit: str, *, margin: float = 0.0) -> Criterion:
    """Ask whether the effect is not below ``-margin`` (non-inferiority of a score)."""
    accept = (-margin, math.inf)
    said = f">= {-margin or 0:g}"
    return Criterion(name, estimate, unit, said, accept, ((-math.inf, -margin),), accept)


def at_most(name: str, estimate: Estimate, unit: str, *, margin: float = 0.0) -> Criterion:
    """Ask whether the effect is not above ``margin`` (non-inferiority of an error)."""
    accept = (-math.inf, margin)
    return Criterion(name, estimate, unit, f"<= {margin:g}", accept, ((margin, math.inf),), accept)


def within(name: str, estimate: Estimate, unit: str, *, margin: float) -> Criterion:
    """Ask whether the effect lies inside +-margin (equivalence, two one-sided tests)."""
    tails = ((-math.inf, -margin), (margin, math.inf))
    said = f"inside +-{margin:.3g}"
    return Criterion(name, estimate, unit, said, (-margin, margin), tails, (-margin, margin))


# ---------------------------------------------------------------- answers


@dataclass(frozen=True)
class Part:
    """One inequality of a claim: its effect, interval and verdict."""

    name: str
    effect: float | None
    lo: float | None
    hi: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Finding:
    """The verdict on a claim; effect, interval and unit are those of its weakest part.

    ``n`` is the number of images, ``seeds`` that of training runs. What does not exist is None.
    """

    id: str
    verdict: Verdict
    reason: str
    effect: float | None
    lo: float | None
    hi: float | None
    unit: str
    n: int | None
    seeds: int | None
    parts: tuple[Part, ...] = ()


def _inside(lo: float, hi: float, region: Region) -> bool:
    return region[0] < lo and hi < region[1]


def _decide(criterion: Criterion, level: float) -> tuple[Part, str]:
    """Judge one criterion, and say why in a few words."""
    e = criterion.estimate
    lo, hi = e.interval(level)
    claimed = _inside(lo, hi, criterion.accept)
    against = [region for region in criterion.reject if _inside(lo, hi, region)]
    supporting = sum(_inside(s, s, criterion.agree) for s in e.seeds)
    opposing = sum(_inside(s, s, region) for s in e.seeds for region in against)
    verdict: Verdict = "inconclusive"
    if e.trained and len(e.seeds) < 2 and (claimed or against):
        why = "one training seed cannot tell the method from luck"
    elif claimed and supporting < len(e.seeds):
        why = f"the seeds disagree ({supporting} of {len(e.seeds)} as claimed)"
    elif claimed and abs(e.value) < criterion.least:
        why = f"the effect is smaller than the {criterion.least:g} that would matter"
    elif claimed:
        verdict, why = "supported", "the interval lies as claimed"
    elif against and opposing < len(e.seeds):
        why = f"the seeds disagree ({opposing} of {len(e.seeds)} against the claim)"
    elif against:
        verdict, why = "contradicted", "the interval lies against the claim"
    else:
        why = "the interval decides neither way"
    return Part(criterion.name, e.value, lo, hi, verdict), why


def decide(criterion: Criterion, *, level: float) -> Part:
    """Judge one criterion by the interval of the given level."""
    return _decide(criterion, level)[0]


def _strength(criterion: Criterion) -> float:
    """Distance of the effect inside its claimed region, in standard errors."""
    e = criterion.estimate
    distance = min(e.value - criterion.accept[0], criterion.accept[1] - e.value)
    error = float(e.samples.std())
    return distance / error if error else math.copysign(math.inf, distance) if distance else 0.0


def judge(
    id: str,
    criteria: Sequence[Criterion],
    *,
    level: float,
    n: int,
    also: Sequence[Criterion] = (),
) -> Finding:
    """Judge a claim that says all of ``criteria`` at once.

    Parameters
    ----------
    level : of the intervals; a contradiction by one of k parts uses 1 - (1 - level) / k.
    n : number of images.
    also : criteria that are reported as parts and do not decide.

    Raises
    ------
    ValueError
        If there is no criterion.
    """
    if not criteria:
        raise ValueError(f"claim {id} has no criterion")
    strict = 1 - (1 - level) / len(criteria)
    corrected = [decide(c, level=strict) for c in criteria]
    decided = [_decide(c, level) for c in criteria]
    parts = [part for part, _ in decided]
    verdict: Verdict = "inconclusive"
    if all(part.verdict == "supported" for part in parts):
        verdict = "supported"
    elif any(part.verdict == "contradicted" for part in corrected):
        verdict = "contradicted"

    def weakness(i: int) -> tuple[int, int, float]:
        ranks = WORST_FIRST[corrected[i].verdict], WORST_FIRST[parts[i].verdict]
        return *ranks, _strength(criteria[i])

    worst = min(range(len(criteria)), key=weakness)
    (part, why), unit = decided[worst], criteria[worst].unit
    reason = f"{part.name} {in_numbers(part, unit)}, claimed {criteria[worst].said}: {why}"
    if len(criteria) > 1:
        held = sum(p.verdict == "supported" for p in parts)
        reason = f"{held} of {len(parts)} parts supported; weakest: {reason}"
        if part.verdict == "contradicted" and verdict == "inconclusive":
            reason += f", but not once corrected for {len(parts)} parts"
    return Finding(
        id=id,
        verdict=verdict,
        reason=reason,
        effect=part.effect,
        lo=part.lo,
        hi=part.hi,
        unit=unit,
        n=n,
        seeds=max(len(c.estimate.seeds) for c in criteria),
        parts=(*parts, *(decide(c, level=level) for c in also)),
    )


def witness(
    id: str,
    outcomes: Sequence[bool | None],
    *,
    effect: float | None,
    unit: str,
    why: str,
    least: int = 1,
    parts: Sequence[Part] = (),
) -> Finding:
    """Judge a claim about an event that each training run shows (True), refutes or leaves open.

    Parameters
    ----------
    outcomes : one a seed; None where the run cannot tell.
    effect : a number that stands for the event, without an interval.
    why : what was seen, in words.
    least : seeds below which nothing is concluded, for events without a test of their own.
    """
    verdict: Verdict = "inconclusive"
    if len(outcomes) < least:
        why = f"{why}; {len(outcomes)} seed, {least} are needed to conclude"
    elif all(outcomes):
        verdict = "supported"
    elif all(outcome is False for outcome in outcomes):
        verdict = "contradicted"
    elif len(set(outcomes)) > 1:
        why = f"{why}; the seeds disagree"
    return Finding(id, verdict, why, effect, None, None, unit, None, len(outcomes), tuple(parts))


def not_run(id: str, reason: str) -> Finding:
    """Say that a claim was not judged, and why."""
    return Finding(id, "not run", reason, None, None, None, "", None, None)


def attempt(id: str, test: Callable[[], Finding]) -> Finding:
    """Return what ``test`` finds, or "not run" with the reason if its evidence is missing."""
    try:
        return test()
    except MissingEvidenceError as missing:
        return not_run(id, str(missing))


# ---------------------------------------------------------------- reports


def judge_all(
    tests: Mapping[str, Callable[[Any, "Claim"], Finding]],
    evidence: Any,
    paper: "Paper",
    module: str,
) -> list[Finding]:
    """Judge every claim of a paper.yaml, in its order; one whose evidence is missing is not run.

    Parameters
    ----------
    tests : claim -> its test, from the evidence and what paper.yaml says of it.
    module : that has the tests.

    Raises
    ------
    InputError
        If paper.yaml has a claim that has no test.
    """
    for id in paper.claims:
        if id not in tests:
            raise InputError(
                "paper.yaml",
                f"claim {id} has no test",
                expected=f"a function for it in {module.replace('.', '/')}.py",
                found=f"tests of {len(tests)} other claims",
                remedy=suggestion(id, list(tests)),
            )
    return [
        attempt(id, lambda id=id, claim=claim: tests[id](evidence, claim))
        for id, claim in paper.claims.items()
    ]


def in_numbers(part: Part | Finding, unit: str) -> str:
    """Write "+0.31 dB [+0.2, +0.4]", or a dash for what has no effect."""
    if part.effect is None:
        return "-"
    text = f"{part.effect:+.3g}{' ' + unit if unit else ''}"
    return text if part.lo is None else f"{text} [{part.lo:+.3g}, {part.hi:+.3g}]"


def verdict_table(findings: Sequence[Finding]) -> str:
    """Return the verdicts as lines for a terminal: id, verdict, effect [interval], reason."""
    rows = [(f.id, f.verdict, in_numbers(f, f.unit), f.reason) for f in findings]
    wide = [
        max(len(row[i]) for row in [("claim", "verdict", "effect", ""), *rows]) for i in (0, 1, 2)
    ]
    head = ("claim", "verdict", "effect", "reason")
    return "\n".join(
        "  ".join([*(row[i].ljust(wide[i]) for i in (0, 1, 2)), row[3]]) for row in [head, *rows]
    )


def as_record(claim: "Claim", finding: Finding, table: bool | None) -> dict[str, Any]:
    """Return a finding beside its claim, as claims.json has it; ``table``: see :func:`holds`."""
    record = asdict(finding)
    return {"statement": claim.statement, "source": claim.source, "table1": table, **record}


def holds(finding: Finding) -> bool | None:
    """Read a finding on numbers without uncertainty: the claim is true, false, or open."""
    return {"supported": True, "contradicted": False}.get(finding.verdict)


# ---------------------------------------------------------------- paper.yaml


@dataclass(frozen=True)
class Cell:
    """One printed number of a table; ``axes`` say which (variant, data set, ...)."""

    id: str
    metric: str
    paper: float | None
    axes: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim: the statement in our words, where it stands, how it is tested.

    ``delta`` is its margin and ``numbers`` the other constants of its test; ``paper`` is what the
    paper's own numbers say, in words.
    """

    id: str
    statement: str
    source: str
    test: str
    paper: str = ""
    delta: float | None = None
    numbers: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Paper:
    """A paper's numbers and claims, as its paper.yaml has them; nothing here is a result.

    ``setting`` is what ours must equal for absolute values to be comparable, ``tolerance`` the
    relative deviation that then counts as the same.
    """

    citation: str
    setting: Mapping[str, Any]
    tolerance: float
    cells: tuple[Cell, ...]
    figures: tuple[Mapping[str, Any], ...]
    claims: Mapping[str, Claim]


def _keys(
    path: Path, what: str, item: object, *, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    """Return ``item`` if it is a map with the required keys and no unknown one."""
    known = [*required, *optional]
    if not isinstance(item, dict):
        raise InputError(
            path,
            f"{what} is not a map",
            expected=f"the keys {', '.join(required)}",
            found=repr(item),
            remedy="write 'key: value' pairs",
        )
    for key in item:
        if key not in known:
            raise InputError(
                path,
                f"{what} has the unknown key {key!r}",
                expected=f"of {', '.join(known)}",
                found=repr(item[key]),
                remedy=suggestion(str(key), known),
            )
    for key in required:
        if key not in item:
            raise InputError(
                path,
                f"{what} lacks the key {key!r}",
                expected=f"the keys {', '.join(required)}",
                found=", ".join(item) or "none",
                remedy="add it",
            )
    return item


def _called(kind: str, item: object) -> str:
    return f"{kind} {item.get('id') if isinstance(item, dict) else item}"


def _unique(path: Path, what: str, names: Sequence[object]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                path,
                f"{what} {name} stands more than once",
                expected="every one once",
                found=f"{names.count(name)} of them",
                remedy="rename or delete one",
            )


def _number(path: Path, what: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(
        path, f"{what} is wrong", expected="a number", found=repr(value), remedy="correct it"
    )


def load_paper(path: Path, *, axes: Sequence[str]) -> Paper:
    """Read a paper.yaml.

    Parameters
    ----------
    axes : the keys of a cell that say which cell it is, beside ``id`` and ``metric``; optional.

    Raises
    ------
    InputError
        If the file is not YAML; a key is unknown, misspelled or missing; a value is no number; or
        two cells have the same id and metric, or two claims or figures the same id.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise InputError(
            path,
            "cannot be read",
            expected="YAML with every key once",
            found=" ".join(str(error).split()),
            remedy="restore it from git",
        ) from error
    top = _keys(
        path,
        "the file",
        content,
        required=("paper", "setting", "cells", "claims"),
        optional=("tolerance", "figures"),
    )
    cells = []
    for item in top["cells"]:
        what = _called("cell", item)
        cell = _keys(path, what, item, required=("id", "metric", "paper"), optional=(*axes, "note"))
        value = cell["paper"]
        cells.append(
            Cell(
                id=str(cell["id"]),
                metric=str(cell["metric"]),
                paper=None if value is None else _number(path, f"{what}.paper", value),
                axes={axis: str(cell[axis]) for axis in axes if axis in cell},
                note=str(cell.get("note", "")),
            )
        )
    claims = []
    for item in top["claims"]:
        what = _called("claim", item)
        claim = _keys(
            path,
            what,
            item,
            required=("id", "statement", "source", "test"),
            optional=("paper", "delta", "numbers"),
        )
        delta = claim.get("delta")
        numbers = claim.get("numbers") or {}
        claims.append(
            Claim(
                **{key: str(claim[key]) for key in ("id", "statement", "source", "test")},
                paper=str(claim.get("paper", "")),
                delta=None if delta is None else _number(path, f"{what}.delta", delta),
                numbers={
                    str(k): _number(path, f"{what}.numbers.{k}", v) for k, v in numbers.items()
                },
            )
        )
    figures = [
        _keys(
            path,
            "a figure",
            item,
            required=("id", "what"),
            optional=("variants", "events", "derived", "check", "values"),
        )
        for item in top.get("figures") or []
    ]
    _unique(path, "cell", [(cell.id, cell.metric) for cell in cells])
    _unique(path, "claim", [claim.id for claim in claims])
    _unique(path, "figure", [figure["id"] for figure in figures])
    return Paper(
        citation=str(top["paper"]),
        setting=dict(top["setting"]),
        tolerance=_number(path, "tolerance", top.get("tolerance", 0)),
        cells=tuple(cells),
        figures=tuple(figures),
        claims={claim.id: claim for claim in claims},
    )
