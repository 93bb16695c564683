"""The claims of Ni, Huttunen & Rahtu 2021 as tests; one function a claim.

Statements, sources and margins are in paper.yaml, the rules of decision in stages.common.claims.
An effect of a cell (a black box on a set) is a mean over test identities, attributes or requests,
and over seeds; a seed is a black box and all that is trained on its features. What holds by
construction (C6 to C9, C11, C14, C16) is a fact: true or not, without an interval.

Departures from our specification: where it asks whether an interval contains 0, which a wide one
always does, ours must lie inside a margin to support the claim; a claim about every cell is not
supported by some of them; what was recovered (C15, C17) is judged by the centred cosine, which is 0
for who answers with the mean of features of his own, whereas the plain cosine of that is high; and
the attack on AES (C17) is also compared with that on a key stream.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from stages.common.claims import (
    Claim,
    Criterion,
    Estimate,
    Finding,
    MissingEvidenceError,
    Paper,
    Part,
    Verdict,
    above,
    at_least,
    at_most,
    below,
    combine,
    decide,
    in_numbers,
    judge,
    judge_all,
    with_seed_spread,
    within,
)
from stages.deep_features.estimates import average
from stages.deep_features.evaluations import LOSSES

ONE = "img1"  # scope of claim C15
MAIN = f"co-same_domain-{ONE}"  # attack of claim C15
GUESS = "control-mean"  # the answer of who has no ciphertext
# Measures that one pool of seeds' spread serves: all reconstructions, or all floors.
POOLED = {
    **{f"{m}/{name}": f"{m} of reconstructions" for m in ("distance", "hf", "peak", "psnr", "ssim")
       for name in (*LOSSES, "pixel_equal", "fr_equal", "wrong")},
    **{f"distance/{name}": "distance of floors" for name in ("floor", "other", "mean", "blank")},
}  # fmt: skip


class Fact(NamedTuple):
    """Something that is so or not: what was counted, the count, and whether it is as claimed."""

    name: str
    count: float
    holds: bool


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the claims are judged on. Estimates come without the luck of their seeds.

    Attributes
    ----------
    cells : every black box on every local set, in order, measured or not.
    scores : cell -> metric -> estimate. "ba/<setting>" is a mean over attributes, "ba/<setting>/
        <attribute>" one of them; a setting is one of stage attributes, or ``right``, ``wrong``,
        ``own``, ``popcount``, ``attacked`` and ``unattacked`` (the plain features of the same
        images); "ba5/..." the same of classes of at least five test identities;
        "imbalanced/<setting>" the mean over imbalanced attributes; "<measure>/<reconstruction>";
        "cos/<attack>" and "centred/<attack>", medians over requests; "mean centred/<attack>";
        "share_95/<attack>"; "distance/other there", that of another image where
        "distance/wrong" was measured; "ll/mean" and "ll/best", the
        true key's log-likelihood a float less that of random keys.
    chance : cell -> metric of a balanced accuracy -> 1 / K, or its mean over attributes.
    null : cell -> "ba/headline/<attribute>" -> quantile of identities with permuted labels.
    facts : cell -> what is exactly so: ``wrong_bits``, ``changed_predictions``,
        ``changed_distances``, ``self_distance``, ``keys`` (random ones that were tried) and
        ``weak`` (the share of them that leaves much of a feature vector).
    checks : what the self-check of ShuffleBits counted (``facts.check``); None if it was not run.
    ones : cell -> bits of a float that its number of ones tells.
    phi_factors : cell -> by how much images were averaged before φ of the feature loss saw them.
    graph : what was seen on CUDA (``evaluations.read_graph``).
    n : cell -> test images.
    level : of the intervals.
    missing : cell -> stage -> why there is nothing of it.
    seed : of the seeds' spread.
    """

    cells: Sequence[str]
    scores: Mapping[str, Mapping[str, Estimate]]
    n: Mapping[str, int]
    level: float
    chance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    null: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    checks: Mapping[str, float] | None = None
    ones: Mapping[str, float] = field(default_factory=dict)
    phi_factors: Mapping[str, int] = field(default_factory=dict)
    graph: Mapping[str, object] | None = None
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seed: int = 0
    _spread: dict[str, dict[tuple[str, str], Estimate]] = field(default_factory=dict, init=False)

    def having(self, *metrics: str) -> list[str]:
        """Return the cells that have all of the metrics."""
        return [c for c in self.cells if set(metrics) <= set(self.scores.get(c, {}))]

    def __call__(self, cell: str, metric: str) -> Estimate:
        """Return a metric with the seeds' spread, pooled over the cells (or see ``POOLED``)."""
        pool = POOLED.get(metric, metric)
        if pool not in self._spread:
            models = {
                (other, m): found
                for other, of in self.scores.items()
                for m, found in of.items()
                if POOLED.get(m, m) == pool
            }
            self._spread[pool] = self._with_luck(pool, models)
        found = self._spread[pool].get((cell, metric))
        if found is None:
            raise MissingEvidenceError(f"{metric} of {cell} was not measured")
        return found

    def contrast(self, cell: str, first: str, second: str) -> Estimate:
        """Return first - second, two metrics of one cell, whose seeds' luck they share."""
        pool = f"{first} - {second}"
        if pool not in self._spread:
            models = {
                (other, pool): self.scores[other][first] - self.scores[other][second]
                for other in self.having(first, second)
            }
            self._spread[pool] = self._with_luck(pool, models)
        found = self._spread[pool].get((cell, pool))
        if found is None:
            raise MissingEvidenceError(f"{pool} of {cell} was not measured")
        return found

    def _with_luck(
        self, pool: str, models: Mapping[tuple[str, str], Estimate]
    ) -> dict[tuple[str, str], Estimate]:
        """Add the seeds' spread, drawn for each pool anew: the names say which draw."""
        named = {f"{pool} {cell} {metric}": found for (cell, metric), found in models.items()}
        lucky = with_seed_spread(named, seed=self.seed) if named else {}
        return {(c, m): lucky[f"{pool} {c} {m}"] for c, m in models}

    def excess(self, cell: str, metric: str) -> Estimate:
        """Return a balanced accuracy less that of guessing."""
        return self(cell, metric) - self.chance[cell][metric]


# ---------------------------------------------------------------- the language of the tests


def number(claim: Claim, name: str) -> float:
    """Return a constant of the claim's test.

    Raises
    ------
    ValueError
        If paper.yaml does not give it.
    """
    known = {**(claim.numbers or {}), **({} if claim.delta is None else {"delta": claim.delta})}
    if name not in known:
        raise ValueError(f"paper.yaml: claim {claim.id} needs {name}, has {sorted(known)}")
    return known[name]


def adding(finding: Finding, words: str) -> Finding:
    """Return the finding with something more to say; the verdict stays the rule's."""
    return replace(finding, reason=f"{finding.reason}; {words}")


def needed(e: Evidence, what: str, *metrics: str) -> list[str]:
    """Return the cells that have the metrics, or say that none has."""
    cells = e.having(*metrics)
    if not cells:
        raise MissingEvidenceError(f"no black box has {what}")
    return cells


def everywhere(e: Evidence, finding: Finding, cells: Sequence[str]) -> Finding:
    """Name the cells that a claim about all of them was not tested in; without them no support."""
    lost = [cell for cell in e.cells if cell not in cells]
    if not lost:
        return finding
    parts = (*finding.parts, *(Part(cell, None, None, None, "not run") for cell in lost))
    words = f"of {len(e.cells)} cells {len(cells)} were run"
    if finding.verdict == "supported":
        words += ", in all of which it holds"
        finding = replace(finding, verdict="inconclusive")
    return adding(replace(finding, parts=parts), words)


def images(e: Evidence, cells: Sequence[str]) -> int:
    """Return the number of test images of these cells' sets, each set once."""
    sets = {cell.partition("-")[2]: e.n[cell] for cell in cells}
    return sum(sets.values())


def like_chance(name: str, estimate: Estimate, *, margin: float) -> Criterion:
    """Ask whether a balanced accuracy is that of guessing.

    Supported inside +-margin; contradicted where the interval leaves out 0 and is not inside.
    """
    return replace(
        within(name, estimate, "", margin=margin),
        reject=((-math.inf, 0.0), (0.0, math.inf)),
    )


def beside(*make: Callable[[], list[Criterion]]) -> list[Criterion]:
    """Return the criteria that can be made: those beside a claim may lack what they need."""
    found = []
    for criteria in make:
        try:
            found += criteria()
        except MissingEvidenceError:
            continue
    return found


def facts(
    claim: Claim, found: Sequence[Fact], words: str, *, also: Sequence[Part] = (), n: int | None
) -> Finding:
    """Judge what holds by construction: supported if all facts are as claimed, else contradicted.

    Parameters
    ----------
    n : test images among them, if any.
    """
    if not found:
        raise MissingEvidenceError("nothing was counted")

    def verdict(holds: bool) -> Verdict:
        return "supported" if holds else "contradicted"

    parts = [Part(fact.name, fact.count, None, None, verdict(fact.holds)) for fact in found]
    worst = next((fact for fact in found if not fact.holds), found[0])
    return Finding(
        id=claim.id,
        verdict=verdict(all(fact.holds for fact in found)),
        reason=f"{worst.name}: {worst.count:g}; {words}",
        effect=worst.count,
        lo=None,
        hi=None,
        unit="",
        n=n,
        seeds=None,
        parts=(*parts, *also),
    )


def checked(e: Evidence) -> Mapping[str, float]:
    """Return what the self-check of ShuffleBits counted, or say that it was not run."""
    if e.checks is None:
        raise MissingEvidenceError("ShuffleBits was not checked")
    return e.checks


def of_cells(e: Evidence, name: str) -> dict[str, float]:
    """Return a fact of each cell that has it."""
    return {c: e.facts[c][name] for c in e.cells if name in e.facts.get(c, {})}


# ---------------------------------------------------------------- attributes


def c1(e: Evidence, claim: Claim) -> Finding:
    """Ask whether every attribute is above guessing, and above nearly all permuted labels."""
    cells = needed(e, "heads", "ba/headline")

    def beats(head: str) -> list[Criterion]:
        found = []
        for cell in cells:
            for metric in e.scores[cell]:
                kind, _, attribute = metric.partition("/headline/")
                if kind == head and attribute:
                    excess = e.excess(cell, metric)
                    band = e.null[cell][f"ba/headline/{attribute}"] - e.chance[cell][metric]
                    least = max(band, 0.0) if head == "ba" else 0.0
                    name = f"{head} {attribute} {cell} - 1 / K"
                    found.append(above(name, excess, "", least=least))
        return found

    criteria = beats("ba")
    finding = judge(claim.id, criteria, level=e.level, n=images(e, cells), also=beats("ba5"))
    ids = number(claim, "ids")
    own = zip(criteria, finding.parts, strict=False)  # behind them stand those that do not decide
    few = [criterion.name for criterion, part in own if part.verdict != "supported"]
    words = f"ba5: classes of at least {ids:g} test identities only"
    if few:
        short = ", ".join(name.removeprefix("ba ").removesuffix(" - 1 / K") for name in few[:8])
        words = f"not shown: {short}{' and others' if len(few) > 8 else ''}; {words}"
    return everywhere(e, adding(finding, words), cells)


def c2(e: Evidence, claim: Claim) -> Finding:
    """Ask whether one block is no worse than two and three."""
    margin = number(claim, "delta")

    def no_worse(cells: Sequence[str], where: str) -> list[Criterion]:
        return [
            at_least(
                f"ba 1 block - {other} blocks{where}",
                average([e.contrast(c, "ba/headline", f"ba/blocks{other}") for c in cells]),
                "",
                margin=margin,
            )
            for other in (2, 3)
        ]

    cells = needed(e, "heads of 1, 2 and 3 blocks", "ba/headline", "ba/blocks2", "ba/blocks3")
    also = [criterion for c in cells for criterion in no_worse([c], f" {c}")]
    n = images(e, cells)
    return everywhere(e, judge(claim.id, no_worse(cells, ""), level=e.level, n=n, also=also), cells)


def c3(e: Evidence, claim: Claim) -> Finding:
    """Ask whether class weights help the attributes that have a rare class."""
    pair = ("imbalanced/headline", "imbalanced/unweighted")
    cells = needed(e, "an attribute with a class that is rare enough", *pair)

    def helps(some: Sequence[str], where: str) -> Criterion:
        effect = average([e.contrast(c, *pair) for c in some])
        return above(f"ba weighted - unweighted, imbalanced attributes{where}", effect, "")

    also = [helps([c], f" {c}") for c in cells]
    n = images(e, cells)
    return judge(claim.id, [helps(cells, "")], level=e.level, n=n, also=also)


# ---------------------------------------------------------------- reconstructions


def _lower(e: Evidence, cell: str, metric: str, first: str, second: str) -> Criterion:
    effect = e(cell, f"{metric}/{first}") - e(cell, f"{metric}/{second}")
    return below(f"{'d' if metric == 'distance' else metric} {first} - {second} {cell}", effect, "")


def _against(e: Evidence, claim: Claim, others: Sequence[str]) -> Finding:
    """Ask whether fr_adv has a lower distance than the other reconstructions, in every cell."""
    names = ("fr_adv", *others)
    what = f"reconstructions with {', '.join(names)}"
    cells = needed(e, what, *(f"distance/{name}" for name in names))
    criteria = [_lower(e, c, "distance", "fr_adv", other) for c in cells for other in others]
    finding = judge(claim.id, criteria, level=e.level, n=images(e, cells))
    return everywhere(e, blurred(e, gated(e, finding, cells), cells), cells)


def gated(e: Evidence, finding: Finding, cells: Sequence[str]) -> Finding:
    """Withdraw a verdict that rests on generators that draw no better than the mean image does.

    Of the losses with features, in every cell: what has learnt nothing tells nothing of a loss.
    """
    if finding.verdict not in ("supported", "contradicted"):
        return finding
    asked = [_lower(e, c, "distance", loss, "mean") for c in cells for loss in ("fr", "fr_adv")]
    parts = [decide(criterion, level=e.level) for criterion in asked]
    weak = [f"{p.name} {in_numbers(p, '')}" for p in parts if p.verdict != "supported"]
    if not weak:
        return finding
    words = (
        f"not {finding.verdict}: not shown to be nearer to the originals than the mean training"
        f" image ({', '.join(weak)})"
    )
    return adding(replace(finding, verdict="inconclusive", parts=(*finding.parts, *parts)), words)


def blurred(e: Evidence, finding: Finding, cells: Sequence[str]) -> Finding:
    """Say so if φ saw smaller images than D, which is another adversary than the paper's."""
    factors = sorted({e.phi_factors.get(c, 1) for c in cells} - {1})
    if not factors:
        return finding
    said = " or ".join(map(str, factors))
    words = f"φ sees means of {said} × {said} pixels, so no pattern of period 2, which D sees"
    return adding(finding, words)


def c4(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the joint loss has the lowest distance."""
    return _against(e, claim, ("fr", "pixel"))


def c4b(e: Evidence, claim: Claim) -> Finding:
    """Ask the same with equally many updates of the generator."""
    return _against(e, claim, ("fr_equal", "pixel_equal"))


def c5(e: Evidence, claim: Claim) -> Finding:
    """Ask whether pixel blurs against fr, and fr has spectral peaks that fr_adv has not.

    More energy at high frequencies is sharper only if the original has it, too; and a checkerboard
    can be removed only where there is one: without it the claim is neither true nor false.
    """
    names = [f"{m}/{name}" for m in ("hf", "peak") for name in (*LOSSES, "original")]
    cells = needed(e, "reconstructions with all three losses", *names)
    criteria, smooth = [], []
    for c in cells:
        peaks = e(c, "peak/fr") - e(c, "peak/original")
        board = replace(above(f"peak fr - original {c}", peaks, ""), reject=())
        removed = _lower(e, c, "peak", "fr_adv", "fr")
        if decide(board, level=e.level).verdict != "supported":
            smooth.append(c)
            removed = replace(removed, reject=())
        criteria += [_lower(e, c, "hf", "pixel", "fr"), _nearer(e, c), board, removed]
    finding = judge(claim.id, criteria, level=e.level, n=images(e, cells))
    if smooth:
        finding = adding(finding, f"there is no checkerboard to remove in {', '.join(smooth)}")
    return everywhere(e, blurred(e, gated(e, finding, cells), cells), cells)


def _nearer(e: Evidence, cell: str) -> Criterion:
    """Ask whether fr's share of fine detail is nearer to the original's than pixel's."""

    def off(loss: str) -> Estimate:
        return combine(np.abs, e(cell, f"hf/{loss}") - e(cell, "hf/original"))

    return below(f"|hf - original| fr - pixel {cell}", off("fr") - off("pixel"), "")


def c6(e: Evidence, claim: Claim) -> Finding:
    """Ask whether an image has no distance to itself; beside it, what JPEG costs."""
    limit, found = number(claim, "delta"), of_cells(e, "self_distance")
    if not found:
        raise MissingEvidenceError("no features were extracted a second time")
    known = [Fact(f"largest d of an image to itself {c}", v, v <= limit) for c, v in found.items()]
    floors = {c: e.scores[c]["distance/floor"].value for c in e.having("distance/floor")}
    said = ", ".join(f"{value:.2g} {c}" for c, value in floors.items())
    words = f"d after JPEG: {said or 'not measured'}"
    return facts(claim, known, words, n=images(e, list(found)))


# ---------------------------------------------------------------- the cipher


def c7(e: Evidence, claim: Claim) -> Finding:
    """Ask whether no bit is lost."""
    of = checked(e)
    found = of_cells(e, "wrong_bits")
    known = [
        Fact("wrong bits, all 16-bit patterns", of["wrong16"], of["wrong16"] == 0),
        Fact("wrong bits, random 32-bit patterns", of["wrong32"], of["wrong32"] == 0),
        Fact("wrong bits, special values of binary32", of["wrong_special"],
             of["wrong_special"] == 0),
        Fact("wrong bits, random 64-bit patterns", of["wrong64"], of["wrong64"] == 0),
        *(Fact(f"wrong bits, features {c}", v, v == 0) for c, v in found.items()),
    ]  # fmt: skip
    words = f"{of['keys']:g} keys, {of['words']:g} random words"
    return facts(claim, known, words, n=images(e, list(found)) or None)


def c8(e: Evidence, claim: Claim) -> Finding:
    """Ask whether decryption is the inverse permutation, and keys compose."""
    of = checked(e)
    known = [
        Fact("keys whose inverse does not undo them", of["wrong_inverses"],
             of["wrong_inverses"] == 0),
        Fact("wrong bits, key after key against the composed key", of["wrong_compositions"],
             of["wrong_compositions"] == 0),
        Fact("wrong bits, against one bit at a time", of["wrong_definition"],
             of["wrong_definition"] == 0),
        Fact("wrong bits, rotation to the left and back to the right", of["wrong_rotations"],
             of["wrong_rotations"] == 0),
    ]  # fmt: skip
    return facts(claim, known, f"{of['keys']:g} keys", n=None)


def c9(e: Evidence, claim: Claim) -> Finding:
    """Ask whether there are as many keys as printed, and whether they can all be drawn."""
    of = checked(e)
    keys, printed = math.factorial(32), number(claim, "keys")
    bits, released = math.log2(keys), number(claim, "released")
    effective = math.log2(math.perm(32, 9))
    known = [
        Fact("32!", float(keys), float(f"{keys:.2e}") == printed),
        Fact(f"bits that ours draws a key from, less {bits:.2f}", of["key_bits"] - bits,
             of["key_bits"] >= bits),
    ]  # fmt: skip
    also = [
        Part("keys that the released code draws", released, None, None,
             "contradicted" if released < keys else "supported"),
    ]  # fmt: skip
    words = (
        f"log2 32! = {bits:.2f}; the released code's fixed seed gives {released:g} of them; sign "
        f"and exponent alone have 32!/23!, {effective:.2f} bits"
    )
    return facts(claim, known, words, also=also, n=None)


def c10(e: Evidence, claim: Claim) -> Finding:
    """Ask whether a random key's values are as likely as the true key's."""
    cells = needed(e, "log-likelihoods of keys", "ll/best", "ll/mean")
    unit = "nats"
    criteria = [at_most(f"ll true - best random key {c}", e(c, "ll/best"), unit) for c in cells]
    also = [at_most(f"ll true - mean random key {c}", e(c, "ll/mean"), unit) for c in cells]
    n = images(e, cells)
    return everywhere(e, judge(claim.id, criteria, level=e.level, n=n, also=also), cells)


def c11(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the number of ones is hidden, as a one-time pad hides it."""
    of = checked(e)
    kept = of["changed_ones"] == 0
    known = [Fact("words whose number of ones a key changed", of["changed_ones"], not kept)]
    also = [
        Part(f"bits of a float that its number of ones tells, {c}", v, None, None,
             "contradicted" if v > 0 else "supported")
        for c, v in e.ones.items()
    ]  # fmt: skip
    words = (
        f"{'every' if kept else 'not every'} key of {of['keys']:g} keeps it on {of['words']:g} "
        "random words; a permutation of bits must"
    )
    return facts(claim, known, words, also=also, n=None)


# ---------------------------------------------------------------- threat models on ciphertexts


def c12(e: Evidence, claim: Claim) -> Finding:
    """Ask whether a wrong key leaves the heads guessing, and images as unlike as any other."""
    cells = needed(e, "predictions under wrong keys", "ba/wrong")
    margin, least, weak = (number(claim, name) for name in ("delta", "keys", "weak"))
    criteria = [
        like_chance(f"ba wrong key - 1 / K {c}", e.excess(c, "ba/wrong"), margin=margin)
        for c in cells
    ]
    pair = ("distance/wrong", "distance/other there")  # of the same images
    drawn = [c for c in e.having(*pair) if c in cells]
    for c in drawn:
        effect = e.contrast(c, *pair)
        criteria.append(at_least(f"d wrong key - another image {c}", effect, ""))
    finding = judge(claim.id, criteria, level=e.level, n=images(e, cells))
    finding = everywhere(e, finding, cells)
    keys = min(e.facts[c]["keys"] for c in cells)
    words = f"{keys:g} random keys"
    if not drawn:
        words += ", no distance under a wrong key was measured"
    if finding.verdict == "supported" and (keys < least or not drawn):
        finding = replace(finding, verdict="inconclusive")
        words += f", {least:g} are needed" if keys < least else ""
    share = max(e.facts[c]["weak"] for c in cells)
    return adding(finding, f"{words}; up to {share:.1%} of the keys leave |cosine| >= {weak:g}")


def c13(e: Evidence, claim: Claim) -> Finding:
    """Ask whether numbers of ones, which no key changes, tell an attribute."""
    cells = needed(e, "a key-free classifier", "ba/popcount")
    margin = number(claim, "delta")

    def guesses(metric: str, words: str, some: Sequence[str], where: str = "") -> Criterion:
        effect = average([e.excess(c, metric) for c in some])
        return like_chance(f"ba {words} - 1 / K{where}", effect, margin=margin)

    ones = "numbers of ones"
    also = [guesses("ba/popcount", ones, [c], f" {c}") for c in cells]
    own = e.having("ba/own")
    also += [guesses("ba/own", "own key", [c], f" {c}") for c in own]
    criteria = [guesses("ba/popcount", ones, cells)]
    return judge(claim.id, criteria, level=e.level, n=images(e, cells), also=also)


def c14(e: Evidence, claim: Claim) -> Finding:
    """Ask whether nothing at all changes for who has the key."""
    words = {
        "wrong_bits": "wrong bits of features",
        "changed_predictions": "changed predictions",
        "changed_distances": "changed distances",
    }
    known, cells = [], set()
    for name, said in words.items():
        for c, value in of_cells(e, name).items():
            known.append(Fact(f"{said} {c}", value, value == 0))
            cells.add(c)
    if not cells:
        raise MissingEvidenceError("nothing was decrypted")
    ran = [c for c in e.cells if c in cells]
    return facts(claim, known, f"{len(ran)} of {len(e.cells)} cells", n=images(e, ran))


def c15(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the attack on one encrypted vector recovers no more than a guess.

    Features have a mean that the adversary knows, whose cosine with any of them is high: the
    centred cosine decides. Beside it the plain one, and the requests recovered almost wholly.
    """
    main, margin = f"centred/{MAIN}", number(claim, "delta")
    cells = needed(e, "been attacked", main)
    heads = {"centred": "median centred cosine", "cos": "median cosine",
             "share_95": "share of requests above 0.95"}  # fmt: skip

    def secure(metric: str, cell: str) -> Criterion:
        head, _, attack = metric.partition("/")
        name = f"{heads[head]} {attack.removeprefix('co-')} {cell}"
        return at_most(name, e(cell, metric), "", margin=margin)

    blind = {
        m for c in cells for m in e.scores[c]
        if m.startswith("centred/co-") and m.endswith(f"-{ONE}")
    }  # fmt: skip
    beside_it = [f"share_95/{MAIN}", f"cos/{MAIN}", *sorted(blind - {main})]
    also = [secure(m, c) for m in beside_it for c in e.having(m)]
    criteria = [secure(main, c) for c in cells]
    finding = judge(claim.id, criteria, level=e.level, n=images(e, cells), also=also)

    def span(metric: str) -> str | None:
        values = [e(c, metric).value for c in e.having(metric)]
        return f"{min(values):.3f} to {max(values):.3f}" if values else None

    words = f"median centred cosines {span(main)} from one vector"
    plain, guess = span(f"cos/{MAIN}"), span(f"cos/{GUESS}")
    if plain:
        words += f"; plain cosines {plain}"
    if guess:
        words += f", of the mean of the adversary's own features, without a ciphertext, {guess}"
    return everywhere(e, adding(finding, words), cells)


def c16(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the module compiles with its network and copies nothing to the host."""
    if e.graph is None:
        raise MissingEvidenceError("no CUDA device, or no C compiler for it, was at hand")
    counts = {name: float(str(e.graph[name])) for name in ("copies_to_host", "wrong_bits")}
    known = [
        Fact("graph breaks", 0.0 if e.graph["fullgraph"] else 1.0, bool(e.graph["fullgraph"])),
        Fact("copies to the host before the output", counts["copies_to_host"],
             counts["copies_to_host"] == 0),
        Fact("wrong bits", counts["wrong_bits"], counts["wrong_bits"] == 0),
    ]  # fmt: skip
    return facts(claim, known, str(e.graph["device"]), n=None)


def c17(e: Evidence, claim: Claim) -> Finding:
    """Ask whether AES-GCM over ShuffleBits round-trips and leaves the attack nothing.

    Nothing: a centred cosine of 0, and of what the attack has of a ChaCha20 stream, whose
    ciphertexts tell nothing.
    """
    of, margin = checked(e), number(claim, "delta")
    aes, stream = "mean centred/control-aes_gcm", "mean centred/control-xor"
    if "wrong_aes" not in of:
        raise MissingEvidenceError("AES-GCM of ciphertexts was not checked")
    cells = needed(e, "been attacked under AES-GCM and under a key stream", aes, stream)
    criteria = [
        criterion
        for c in cells
        for criterion in (
            within(f"mean centred cosine AES-GCM {c}", e(c, aes), "", margin=margin),
            within(f"mean centred cosine AES-GCM - key stream {c}", e.contrast(c, aes, stream), "",
                   margin=margin),
        )
    ]  # fmt: skip
    finding = judge(claim.id, criteria, level=e.level, n=images(e, cells))
    lost = of["wrong_aes"]
    verdict: Verdict = "contradicted" if lost else "supported"
    round_trip = Part("wrong bits, AES-GCM of ShuffleBits and back", lost, None, None, verdict)
    finding = replace(finding, parts=(*finding.parts, round_trip))
    if lost:
        finding = replace(finding, verdict="contradicted")
    plain = average([e(c, aes) for c in cells])
    said = in_numbers(decide(within("", plain, "", margin=margin), level=e.level), "")
    words = f"under AES-GCM the mean centred cosine is {said}"
    return everywhere(e, adding(finding, words), cells)


CLAIMS: dict[str, Callable[[Evidence, Claim], Finding]] = {
    **{"C1": c1, "C2": c2, "C3": c3, "C4": c4, "C4b": c4b, "C5": c5, "C6": c6, "C7": c7},
    **{"C8": c8, "C9": c9, "C10": c10, "C11": c11, "C12": c12, "C13": c13, "C14": c14},
    **{"C15": c15, "C16": c16, "C17": c17},
}


def judge_claims(evidence: Evidence, paper: Paper) -> list[Finding]:
    """Judge every claim of paper.yaml, in its order.

    Raises
    ------
    InputError
        If paper.yaml has a claim that has no test here.
    """
    return judge_all(CLAIMS, evidence, paper, __name__)
