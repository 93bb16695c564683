"""The claims of Gorriz Blanch et al. 2019, and four of ours, as tests; one function a claim.

Statements, sources and margins are in paper.yaml, the rules of decision in stages.common.claims.
An effect is a difference of means over the test images, averaged over seeds, on common resamples.
Departures: C13's interval comes from the images at the final weights, since epochs of one run are
no sample; C12, C14 and C15 are events of a run and have no interval, so the seeds must agree.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.colourisation.histories import (
    History,
    change_point,
    collapsed,
    epochs_to,
    last_epochs,
)
from stages.common.claims import (
    Claim,
    Criterion,
    Estimate,
    Finding,
    MissingEvidenceError,
    Paper,
    Part,
    above,
    at_least,
    at_most,
    below,
    combine,
    exactly,
    holds,
    judge,
    judge_all,
    within,
    witness,
)

TABLE1 = ("in", "bn_sn", "in_sn", "bn_sn_md", "ibn_sn_md", "bn")  # the rows of Table I
COLOURFUL = ("bn_sn", "bn_sn_md", "ibn_sn_md")  # the models that the paper calls more colourful
RESAMPLED_HISTOGRAMS = ("bn", "bn_sn")  # the variants of C8
UNITS = {"l1": "ab", "psnr": "dB", "lperc": "", "chroma": "ab", "m3": "", "hf": "ab", "w1": "ab"}


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on.

    Attributes
    ----------
    scores : variant -> metric -> mean over the test images; ``<distance>_<channel>`` are
        distances of colour histograms, ``l1_train`` is over training images.
    baselines : the same for the trivial baselines.
    histories : variant -> one history a seed.
    missing : variant -> why it has no scores; others are not among the variants at all.
    n : number of test images.
    level : of the intervals.
    permutations, seed : of the change point's test.
    """

    scores: Mapping[str, Mapping[str, Estimate]]
    n: int
    level: float
    baselines: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[History]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    permutations: int = 1000
    seed: int = 0

    def __call__(self, variant: str, metric: str) -> Estimate:
        """Return the mean of a metric, or say what was not run."""
        if variant in self.baselines:
            known = self.baselines[variant]
        else:
            known = self.scores.get(variant)
        if known is None:
            raise MissingEvidenceError(
                self.missing.get(variant, f"{variant} is not among the variants")
            )
        if metric not in known:
            raise MissingEvidenceError(f"{metric} of {variant} was not measured")
        return known[metric]

    def runs(self, variant: str) -> Sequence[History]:
        """Return the histories of a variant's training runs, or say what was not run."""
        if variant not in self.histories:
            raise MissingEvidenceError(
                self.missing.get(variant, f"{variant} has no training history")
            )
        return self.histories[variant]

    def logged(self, variant: str, *series: str) -> Sequence[History]:
        """Return the runs if each logged these series to its end, or say that one did not."""
        for run in self.runs(variant):
            for name in series:
                if name not in run.log or run.log[name][0][-1] <= run.steps / 2:
                    raise MissingEvidenceError(f"{name} of {variant} was not logged to the end")
        return self.runs(variant)

    def epochs(self, *variants: str, at_least: float) -> int:
        """Return the epochs of the shortest run, or say that it is too short."""
        shortest = min(len(run.epochs) for v in variants for run in self.runs(v))
        if shortest < at_least:
            raise MissingEvidenceError(
                f"the test needs {at_least:g} epochs, the shortest run of"
                f" {' and '.join(variants)} has {shortest}"
            )
        return shortest


def difference(evidence: Evidence, metric: str, first: str, second: str) -> Estimate:
    """Return metric(first) - metric(second), paired over the images."""
    return evidence(first, metric) - evidence(second, metric)


def lower(evidence: Evidence, metric: str, first: str, second: str) -> Criterion:
    """Ask whether metric(first) < metric(second)."""
    estimate = difference(evidence, metric, first, second)
    return below(f"{metric} {first} - {second}", estimate, UNITS.get(metric.split("_")[0], ""))


def higher(evidence: Evidence, metric: str, first: str, second: str) -> Criterion:
    """Ask whether metric(first) > metric(second)."""
    estimate = difference(evidence, metric, first, second)
    return above(f"{metric} {first} - {second}", estimate, UNITS.get(metric.split("_")[0], ""))


def others(variant: str) -> list[str]:
    """Return the other rows of Table I."""
    return [v for v in TABLE1 if v != variant]


def all_of(
    evidence: Evidence, claim: Claim, criteria: list[Criterion], also: Sequence[Criterion] = ()
) -> Finding:
    """Judge a conjunction at the evidence's level."""
    return judge(claim.id, criteria, level=evidence.level, n=evidence.n, also=also)


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


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation along axis 0, ties at their mean rank; 0 where x or y is constant."""

    def centred_ranks(v: np.ndarray) -> np.ndarray:
        return np.sign(v[:, None] - v[None]).sum(axis=1) / 2

    r, s = centred_ranks(x), centred_ranks(y)
    norm = np.sqrt((r * r).sum(axis=0) * (s * s).sum(axis=0))
    product = (r * s).sum(axis=0)
    return np.divide(product, norm, out=np.zeros(norm.shape), where=norm > 0)


# ---------------------------------------------------------------- Table I


def c1(e: Evidence, claim: Claim) -> Finding:
    """Ask whether lperc(ibn_sn_md) is the lowest of Table I."""
    return all_of(e, claim, [lower(e, "lperc", "ibn_sn_md", v) for v in others("ibn_sn_md")])


def c2(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the colourful models lose in PSNR and in L1."""
    return all_of(
        e,
        claim,
        [
            *(lower(e, "psnr", v, "bn") for v in COLOURFUL),
            *(higher(e, "l1", v, "bn") for v in COLOURFUL),
        ],
    )


def c3(e: Evidence, claim: Claim) -> Finding:
    """Ask whether bn has the lowest L1, the highest PSNR and the highest lperc."""
    return all_of(
        e,
        claim,
        [
            *(higher(e, "l1", v, "bn") for v in others("bn")),
            *(lower(e, "psnr", v, "bn") for v in others("bn")),
            *(lower(e, "lperc", v, "bn") for v in others("bn")),
        ],
    )


def c4(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the rank correlation of L1 and lperc over the six rows is negative."""
    means = [e(v, metric) for metric in ("l1", "lperc") for v in TABLE1]

    def correlation(*rows: np.ndarray) -> np.ndarray:
        return spearman(np.stack(rows[: len(TABLE1)]), np.stack(rows[len(TABLE1) :]))

    return all_of(e, claim, [below("Spearman(l1, lperc)", combine(correlation, *means), "")])


def c5(e: Evidence, claim: Claim) -> Finding:
    """Ask whether spectral norm lowers lperc with BN and with IN."""
    return all_of(e, claim, [lower(e, "lperc", "bn_sn", "bn"), lower(e, "lperc", "in_sn", "in")])


def c6(e: Evidence, claim: Claim) -> Finding:
    """Ask whether several discriminators lower lperc on top of BN+SN."""
    return all_of(e, claim, [lower(e, "lperc", "bn_sn_md", "bn_sn")])


def c7(e: Evidence, claim: Claim) -> Finding:
    """Ask whether IBN has lower lperc and L1 than BN, with SN and several discriminators."""
    return all_of(e, claim, [lower(e, m, "ibn_sn_md", "bn_sn_md") for m in ("lperc", "l1")])


def c16(e: Evidence, claim: Claim) -> Finding:
    """Ask whether lperc(ibn_sn_md) is at most 1 + delta times lperc(bn_sn_md)."""
    delta = number(claim, "delta")
    excess = e("ibn_sn_md", "lperc") - (1 + delta) * e("bn_sn_md", "lperc")
    name = f"lperc ibn_sn_md - {1 + delta:g} bn_sn_md"
    return all_of(e, claim, [at_most(name, excess, UNITS["lperc"])])


# ---------------------------------------------------------------- Fig. 4 and the text


def c8(e: Evidence, claim: Claim) -> Finding:
    """Ask whether spectral norm brings both log histograms closer to the real ones."""
    decisive = [lower(e, f"dhist_{c}", "bn_sn", "bn") for c in "ab"]
    beside = [lower(e, f"{d}_{c}", "bn_sn", "bn") for d in ("js", "w1") for c in "ab"]
    return all_of(e, claim, decisive, beside)


def c9(e: Evidence, claim: Claim) -> Finding:
    """Ask whether several discriminators raise colourfulness and chroma."""
    return all_of(e, claim, [higher(e, m, "bn_sn_md", "bn_sn") for m in ("m3", "chroma")])


def c10(e: Evidence, claim: Claim) -> Finding:
    """Ask whether several discriminators raise the fine-scale colour."""
    return all_of(e, claim, [higher(e, "hf", "bn_sn_md", "bn_sn")])


def c11(e: Evidence, claim: Claim) -> Finding:
    """Ask whether bn has the lowest chroma; ratios to the real chroma order the same."""
    return all_of(e, claim, [higher(e, "chroma", v, "bn") for v in COLOURFUL])


# ---------------------------------------------------------------- Fig. 3


def c12(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the game of bn collapses and that of bn_sn does not."""
    epochs = e.epochs("bn", "bn_sn", at_least=number(claim, "min_epochs"))
    threshold, window = number(claim, "threshold"), number(claim, "window")
    long_enough = epochs >= number(claim, "horizon_epochs")

    def over(run: History) -> bool:
        return collapsed(run, threshold=threshold, window=window)

    runs = {v: e.logged(v, "d_loss", "adv_share") for v in ("bn", "bn_sn")}
    as_claimed: dict[str, list[bool | None]] = {
        "bn": [over(run) or (False if long_enough else None) for run in runs["bn"]],
        "bn_sn": [not over(run) for run in runs["bn_sn"]],
    }
    outcomes = [
        False if False in both else None if None in both else True
        for both in zip(*as_claimed.values(), strict=True)
    ]
    medians = {
        (v, name): float(np.mean([np.median(r.tail(name, window)) for r in runs[v]]))
        for v in runs
        for name in ("d_loss", "adv_share")
    }
    counts = {v: sum(map(over, runs[v])) for v in runs}
    why = f"collapsed: {counts['bn']} of {len(runs['bn'])} runs of bn"
    why += f", {counts['bn_sn']} of {len(runs['bn_sn'])} of bn_sn, in {epochs} epochs"
    if not long_enough:
        why += "; too short to rule a collapse of bn out"

    def event(outcomes: list[bool | None], parts: Sequence[Part] = ()) -> Finding:
        return witness(
            claim.id,
            outcomes,
            effect=medians["bn", "d_loss"],
            unit="median d_loss of bn",
            why=why,
            least=int(number(claim, "min_seeds")),
            parts=parts,
        )

    return event(
        outcomes,
        [
            Part(f"median {name} of {v}", value, None, None, event(as_claimed[v]).verdict)
            for (v, name), value in medians.items()
        ],
    )


def c13(e: Evidence, claim: Claim) -> Finding:
    """Ask whether bn has the larger gap of test to training L1, and the smaller training L1."""
    e.epochs("bn", "bn_sn", at_least=number(claim, "min_epochs"))
    window = number(claim, "window")

    def late(variant: str, series: Callable[[History], np.ndarray]) -> np.ndarray:
        return np.array([series(r)[last_epochs(r, window)].mean() for r in e.runs(variant)])

    def judged_late(final: Estimate, series: Callable[[History], np.ndarray]) -> Estimate:
        seeds = late("bn", series) - late("bn_sn", series)
        return Estimate(final.value, final.samples, tuple(map(float, seeds)))

    train = difference(e, "l1_train", "bn", "bn_sn")
    gap = difference(e, "l1", "bn", "bn_sn") - train
    return all_of(
        e,
        claim,
        [
            above(
                "(test - train) l1 bn - bn_sn",
                judged_late(gap, lambda run: run.l1_val - run.l1_train),
                UNITS["l1"],
            ),
            below("train l1 bn - bn_sn", judged_late(train, lambda run: run.l1_train), UNITS["l1"]),
        ],
    )


def c14(e: Evidence, claim: Claim) -> Finding:
    """Ask whether bn_sn needs more epochs than bn to reach tau times the grey L1."""
    target = number(claim, "tau") * e("grey", "l1_train").value
    pairs = [
        (epochs_to(bn, target), epochs_to(bn_sn, target))
        for bn, bn_sn in zip(e.runs("bn"), e.runs("bn_sn"), strict=True)
    ]
    outcomes = [None if bn == bn_sn else bn_sn > bn for bn, bn_sn in pairs]
    finite = [bn_sn - bn for bn, bn_sn in pairs if max(bn, bn_sn) < math.inf]

    def words(epochs: float) -> str:
        return "never" if epochs == math.inf else f"{epochs:g}"

    shown = "; ".join(f"{words(bn)} and {words(bn_sn)}" for bn, bn_sn in pairs)
    return witness(
        claim.id,
        outcomes,
        effect=float(np.mean(finite)) if finite else None,
        unit="epochs" if finite else "",
        why=f"epochs of bn and bn_sn to train l1 <= {target:.3g}: {shown}",
        least=int(number(claim, "min_seeds")),
    )


def c15(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the g_adv of ibn_sn changes suddenly, to the better, at a cost in L1."""
    epochs = e.epochs("ibn_sn", "bn_sn", at_least=number(claim, "min_epochs"))
    outcomes, shown, effects = [], [], []
    for run, steady in zip(e.logged("ibn_sn", "g_adv"), e.logged("bn_sn", "g_adv"), strict=True):
        g_adv, calm = run.by_epoch("g_adv"), steady.by_epoch("g_adv")
        if len(g_adv) != len(run.epochs) or len(calm) != len(steady.epochs):
            raise MissingEvidenceError("g_adv was not logged in every epoch; lower log_every")
        k, p = change_point(g_adv, permutations=e.permutations, seed=e.seed)
        fall = float(g_adv[k:].mean() - g_adv[:k].mean())
        rise = float(run.l1_train[k:].mean() - run.l1_train[:k].mean())
        restless = float(g_adv[:k].std() - calm[:k].std())
        sudden = p < number(claim, "p") and number(claim, "first") <= k <= number(claim, "last")
        outcomes.append(fall < 0 < rise and restless > 0 if sudden else None)
        effects.append(fall)
        shown.append(
            f"after epoch {k} (p = {p:.2g}) g_adv {fall:+.2g}, train l1 {rise:+.2g},"
            f" std before {restless:+.2g} to bn_sn"
        )
    return witness(
        claim.id,
        outcomes,
        effect=float(np.mean(effects)),
        unit="change of g_adv",
        why=f"in {epochs} epochs: {'; '.join(shown)}",
        least=int(number(claim, "min_seeds")),
    )


# ---------------------------------------------------------------- ours


def x1(e: Evidence, claim: Claim) -> Finding:
    """Ask whether l1(bn) is at least 1 - delta times that of the best constant colour."""
    share = 1 - number(claim, "delta")
    constant = combine(np.minimum, e("grey", "l1"), e("mean_ab", "l1"))
    name = f"l1 bn - {share:g} best constant colour"
    return all_of(e, claim, [at_least(name, e("bn", "l1") - share * constant, UNITS["l1"])])


def x2(e: Evidence, claim: Claim) -> Finding:
    """Ask whether a random hue at the true chroma has a lower lperc than grey."""
    return all_of(e, claim, [lower(e, "lperc", "random_hue", "grey")])


def x3(e: Evidence, claim: Claim) -> Finding:
    """Ask whether spectral norm on un-normalised layers only does the same, within delta."""
    delta = number(claim, "delta")
    first, second = "bn_sn_unnormed", "bn_sn"
    criteria = [
        within(
            f"{m} {first} - {second}",
            difference(e, m, first, second),
            UNITS[m],
            margin=20 * math.log10(1 + delta) if m == "psnr" else delta * e(second, m).value,
        )
        for m in ("l1", "psnr", "lperc", "chroma", "m3", "hf")
    ]
    return all_of(e, claim, criteria)


def x4(e: Evidence, claim: Claim) -> Finding:
    """Ask whether a weaker L1 term alone gives the given share of the discriminators' effect.

    It is tested as lam33's effect - share x MD's effect >= 0 in the direction of MD's
    effect, since a ratio of noisy effects has no useful interval.
    """
    share = number(claim, "share")
    criteria, shown, absent = [], [], []
    for metric in ("l1", "chroma"):
        md = difference(e, metric, "bn_sn_md", "bn_sn")
        lam = difference(e, metric, "bn_sn_lam33", "bn_sn")
        sign = math.copysign(1.0, md.value)
        nonzero = all_of(e, claim, [above(metric, sign * md, UNITS[metric])])
        if nonzero.verdict != "supported":
            absent.append(metric)
        else:
            shown.append(f"{metric} {lam.value / md.value:.0%}")
        excess = sign * lam - (share * sign) * md
        name = f"{metric} effect of lambda - {share:.2g} effect of MD"
        criteria.append(at_least(name, excess, UNITS[metric]))
    finding = all_of(e, claim, criteria)
    if absent:
        why = (
            f"no effect of several discriminators on {' or '.join(absent)} that could be explained"
        )
        return _undecided(finding, why)
    return _because(finding, f"share of the effect: {', '.join(shown)}; {finding.reason}")


def _because(finding: Finding, reason: str) -> Finding:
    return Finding(**{**vars(finding), "reason": reason})


def _undecided(finding: Finding, reason: str) -> Finding:
    parts = tuple(Part(**{**vars(part), "verdict": "inconclusive"}) for part in finding.parts)
    return Finding(**{**vars(finding), "verdict": "inconclusive", "reason": reason, "parts": parts})


CLAIMS: dict[str, Callable[[Evidence, Claim], Finding]] = {
    **{f"C{i}": f for i, f in enumerate((c1, c2, c3, c4, c5, c6, c7, c8), start=1)},
    **{f"C{i}": f for i, f in enumerate((c9, c10, c11, c12, c13, c14, c15, c16), start=9)},
    **{f"X{i}": f for i, f in enumerate((x1, x2, x3, x4), start=1)},
}


def judge_claims(evidence: Evidence, paper: Paper) -> list[Finding]:
    """Judge every claim of paper.yaml, in its order.

    Raises
    ------
    InputError
        If paper.yaml has a claim that has no test here.
    """
    return judge_all(CLAIMS, evidence, paper, __name__)


def printed(paper: Paper) -> Evidence:
    """Return Table I as evidence without uncertainty: each mean exactly as printed."""
    scores: dict[str, dict[str, Estimate]] = {}
    for cell in paper.cells:
        if cell.paper is not None:
            scores.setdefault(cell.axes["variant"], {})[cell.metric] = exactly(cell.paper)
    missing = {v: f"{v} is not a row of Table I" for v in ("bn_sn_lam33", "bn_sn_unnormed")}
    return Evidence(scores=scores, n=1, level=0.95, missing=missing)


def table1_says(paper: Paper) -> dict[str, bool | None]:
    """Return whether Table I's own numbers satisfy each claim; None where they cannot tell."""
    return {finding.id: holds(finding) for finding in judge_claims(printed(paper), paper)}
