"""The claims of Wu, Zhou & Li 2019 as tests; one function a claim.

Statements, sources and least effects are in paper.yaml, the rules of decision in
stages.common.claims. An effect is a difference of means over the test images, averaged over seeds,
on common resamples; the Frechet distance is one number of all images. Departures from our
specification: the effect that must reach a claim's delta is the mean over images, not the median;
a spread of losses over two or three seeds (C3b) is reported and decides nothing; a verdict is
withdrawn if the run it rests on is not shown to be nearer to the originals than the mean training
image (``gated``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

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
    decide,
    in_numbers,
    judge,
    judge_all,
    with_seed_spread,
    within,
)
from stages.sift_inversion.evaluations import FULL, Run

OURS, BASELINE = "R42_G", "B5"
SHUFFLED = "R42_J_shuffled"  # C7's control, trained on faces of shuffled colours
RESTS = {  # claim -> runs that must have learnt something, or it says nothing of the method
    **dict.fromkeys(("C1", "C4", "C6", "C7", "C8", "C12"), (OURS,)),
    **dict.fromkeys(("C2", "C10", "C11"), ("R42_J",)),
    **{"C3": (OURS, "R42_J"), "C9": (OURS, "M_R42_G")},
}
BASELINES = frozenset({BASELINE, "B5_128"})  # another architecture than R
UNITS = {"psnr": "dB", "id1": "points", "chroma": "levels"}
# Where a box is measured -> the region whose spread between seeds stands for its own: the runs
# measured in boxes are too few for one.
STANDS_FOR = {"in": "face", "out": "rest"}
VAL_DRAWS = 10_000  # of the F distribution


def score_name(metric: str) -> str:
    """Return how a criterion calls a metric."""
    return metric.replace("log_sharp_abs", "|ln sharp|").replace("dcos", "dc").replace("_", " ")


def unit_of(metric: str) -> str:
    """Return the unit of a metric's differences."""
    return UNITS.get(metric.split("_")[0], "")


def stand_in(metric: str) -> str | None:
    """Return the metric of all keypoints whose spread between seeds a part's takes.

    None for the floors that a box is compared with: nothing was trained for them.
    """
    for side, region in STANDS_FOR.items():
        head, found, tail = metric.partition(f"_{side}")
        if found:
            return f"{head}_{region}" if tail in ("", "_full") else None
    return metric


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the claims are judged on. Estimates of runs come without the luck of their seeds.

    Attributes
    ----------
    runs : those that were evaluated.
    scores : run -> metric -> mean over its set's test images, all keypoints kept: the measures of
        stage evaluate, ``log_sharp_abs`` (the mean magnitude), ``id1`` in per cent, ``nerr``,
        ``fd``; ``r_cb`` and ``r_cr``, correlations of the face's mean colour with the original's;
        ``pd_gap_equal``, pd(face) - pd(rest) at equal density of keypoints and gradient energy.
    n : set -> test images.
    level : of the intervals.
    floors : set -> floor -> metric -> mean.
    partial_run : the run that was fed a part of the keypoints.
    partial : condition -> metric -> its mean.
    crowding : ``occupancy_<d>``, ``collisions_<d>`` of the faces' keypoints, and ``same_point``.
    chance : run -> ``cb`` and ``cr`` -> p of the correlation in a permutation test.
    losses : run -> the last validation loss of each seed.
    n_train : set -> training images.
    trained_on, seen : run -> images that it trained on, and that it saw, each as often as seen.
    missing : run -> why it has no scores; others are not among the runs at all.
    seed : of the seeds' spread.
    """

    runs: Mapping[str, Run]
    scores: Mapping[str, Mapping[str, Estimate]]
    n: Mapping[str, int]
    level: float
    floors: Mapping[str, Mapping[str, Mapping[str, Estimate]]] = field(default_factory=dict)
    partial_run: str | None = None
    partial: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    crowding: Mapping[str, Estimate] = field(default_factory=dict)
    chance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    n_train: Mapping[str, int] = field(default_factory=dict)
    trained_on: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    _spread: dict[str, dict[str, Estimate]] = field(default_factory=dict, init=False)

    def absent(self, run: str) -> NoReturn:
        """Say why a run is not there."""
        raise MissingEvidenceError(self.missing.get(run, f"{run} is not among the runs"))

    def raw(self, run: str, metric: str) -> Estimate:
        """Return the mean of a metric without the luck of the seeds, or say what was not run."""
        if run not in self.scores:
            self.absent(run)
        if metric not in self.scores[run]:
            raise MissingEvidenceError(
                f"{metric} of {run} was not measured, or in too few of the images"
            )
        return self.scores[run][metric]

    def __call__(self, run: str, metric: str) -> Estimate:
        """Return the mean of a metric, with the seeds' spread, pooled over all runs."""
        self.raw(run, metric)
        if metric not in self._spread:
            models = {name: found[metric] for name, found in self.scores.items() if metric in found}
            parts = [models]
            if metric == "chk":  # transposed convolutions make one, of another size
                of_baselines = {n: models[n] for n in models if n in BASELINES}
                parts = [of_baselines, {n: models[n] for n in models if n not in BASELINES}]
            self._spread[metric] = {
                name: e for part in parts for name, e in self._with_luck(metric, part).items()
            }
        return self._spread[metric][run]

    def contrast(self, run: str, first: str, second: str) -> Estimate:
        """Return first - second, two metrics of one run, whose seeds' luck they share."""
        for metric in (first, second):
            self.raw(run, metric)
        name = f"{first} - {second}"
        if name not in self._spread:
            models = {
                other: found[first] - found[second]
                for other, found in self.scores.items()
                if first in found and second in found
            }
            self._spread[name] = self._with_luck(name, models)
        return self._spread[name][run]

    def _with_luck(self, metric: str, models: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """Add the seeds' spread, drawn for each metric anew: their names say which draw."""
        named = {f"{metric} {run}": estimate for run, estimate in models.items()}
        found = with_seed_spread(named, seed=self.seed)
        return {run: found[f"{metric} {run}"] for run in models}

    def floor(self, image_set: str, name: str, metric: str) -> Estimate:
        """Return the mean of a metric of images that show nothing, or say that it is missing."""
        found = self.floors.get(image_set, {}).get(name, {})
        if metric not in found:
            raise MissingEvidenceError(
                f"{metric} of the floor {name} of {image_set} was not measured"
            )
        return found[metric]

    def part(self, condition: str, metric: str) -> Estimate:
        """Return the mean of a metric when only some keypoints were kept ("full": all of them)."""
        if self.partial_run is None:
            raise MissingEvidenceError("no run was fed a part of the keypoints")
        if condition == FULL:
            return self(self.partial_run, metric)
        if condition not in self.partial:
            raise MissingEvidenceError(f"{self.partial_run} was not fed {condition}")
        if metric not in self.partial[condition]:
            raise MissingEvidenceError(f"{metric} of {condition} was not measured")
        found, alike = self.partial[condition][metric], stand_in(metric)
        if alike is None:
            return found
        models = {name: scores[alike] for name, scores in self.scores.items() if alike in scores}
        return self._with_luck(metric, {**models, condition: found})[condition]

    def images(self, run: str) -> int:
        """Return how many test images a run was measured on."""
        if run not in self.runs:
            self.absent(run)
        return self.n[self.runs[run].image_set]


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


def share(claim: Claim) -> float:
    """Return the claim's delta, per cent in paper.yaml, as a share."""
    return number(claim, "delta") / 100


def lower(e: Evidence, metric: str, first: str, second: str, by: float = 0.0) -> Criterion:
    """Ask whether metric(first) < metric(second), by at least the share ``by`` of the latter."""
    a, b = e(first, metric), e(second, metric)
    name = f"{score_name(metric)} {first} - {second}"
    return below(name, a - b, unit_of(metric), least=by * abs(b.value))


def higher(e: Evidence, metric: str, first: str, second: str) -> Criterion:
    """Ask whether metric(first) > metric(second)."""
    name = f"{score_name(metric)} {first} - {second}"
    return above(name, e(first, metric) - e(second, metric), unit_of(metric))


def under_floor(e: Evidence, metric: str, run: str, floor: str, by: float = 0.0) -> Criterion:
    """Ask whether metric(run) < metric(floor of its set), by at least the share ``by``."""
    a, b = e(run, metric), e.floor(e.runs[run].image_set, floor, metric)
    name = f"{score_name(metric)} {run} - {floor}"
    return below(name, a - b, unit_of(metric), least=by * abs(b.value))


def all_of(
    e: Evidence, claim: Claim, criteria: list[Criterion], also: Sequence[Criterion] = (), *, n: int
) -> Finding:
    """Judge a conjunction at the evidence's level."""
    return judge(claim.id, criteria, level=e.level, n=n, also=also)


def beside(*make: Callable[[], list[Criterion]]) -> list[Criterion]:
    """Return the criteria that can be made: those beside a claim may lack what they need."""
    found = []
    for criteria in make:
        try:
            found += criteria()
        except MissingEvidenceError:
            continue
    return found


def adding(finding: Finding, words: str) -> Finding:
    """Return the finding with something more to say; the verdict stays the rule's."""
    return replace(finding, reason=f"{finding.reason}; {words}")


def control(
    e: Evidence, finding: Finding, make: Callable[[], list[Criterion]], *, holds: str, fails: str
) -> Finding:
    """Say what a control says, and report its criteria as parts. It decides nothing.

    Parameters
    ----------
    holds, fails : what it means that all of its criteria are supported, or that one is not.
        Where the claim itself is not supported, a control that holds shows nothing.
    """
    try:
        criteria = make()
    except MissingEvidenceError as missing:
        return adding(finding, f"no control: {missing}")
    parts = [decide(c, level=e.level) for c in criteria]
    said = ", ".join(
        f"{part.name} {in_numbers(part, c.unit)} {part.verdict}"
        for part, c in zip(parts, criteria, strict=True)
    )
    meaning = holds if all(part.verdict == "supported" for part in parts) else fails
    if meaning == holds and finding.verdict != "supported":
        meaning = "but the claim itself is not shown"
    known = {part.name for part in finding.parts}
    more = (*finding.parts, *(part for part in parts if part.name not in known))
    return adding(replace(finding, parts=more), f"control: {said}: {meaning}")


# ---------------------------------------------------------------- against the baseline


def c1(e: Evidence, claim: Claim) -> Finding:
    """Ask whether R42_G beats B5 in every respect; the control says what B5 has of a keypoint."""
    by = share(claim)
    criteria = [
        lower(e, "pd", OURS, BASELINE, by),
        lower(e, "pd_face", OURS, BASELINE, by),
        lower(e, "pd_rest", OURS, BASELINE, by),
        lower(e, "log_sharp_abs", OURS, BASELINE),
        *(higher(e, metric, OURS, BASELINE) for metric in ("kpr", "dmatch", "id1")),
        lower(e, "fd", OURS, BASELINE),
    ]
    also = beside(
        lambda: [higher(e, "psnr", OURS, BASELINE)],
        lambda: [lower(e, "pd", OURS, "B5_128", by)],
    )
    finding = all_of(e, claim, criteria, also, n=e.images(OURS))
    return control(
        e,
        finding,
        lambda: [higher(e, "pd", "B5_128", BASELINE)],
        holds="without scale, angle and offset the baseline is worse, so ours wins with less",
        fails="no cost shown of leaving out scale, angle and offset",
    )


def c6(e: Evidence, claim: Claim) -> Finding:
    """Ask whether R42_G beats B5 and the mean image far from every keypoint."""
    by = share(claim)
    criteria = [
        lower(e, "pd_far", OURS, BASELINE, by),
        under_floor(e, "pd_far", OURS, "mean", by),
    ]
    return all_of(e, claim, criteria, n=e.images(OURS))


# ---------------------------------------------------------------- ablations of the paper


def c2(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the joint loss beats L2, with both maps and with one."""
    criteria = [
        criterion
        for net in ("R42", "R4")
        for criterion in (
            lower(e, "pd", f"{net}_J", f"{net}_L2", share(claim)),
            lower(e, "log_sharp_abs", f"{net}_J", f"{net}_L2"),
            higher(e, "kpr", f"{net}_J", f"{net}_L2"),
        )
    ]

    def trade(net: str) -> list[Criterion]:
        effect = e(f"{net}_L2", "psnr") - e(f"{net}_J", "psnr")
        return [at_least(f"psnr {net}_L2 - {net}_J", effect, "dB")]

    return all_of(e, claim, criteria, [*trade("R42"), *trade("R4")], n=e.images("R42_J"))


def c3(e: Evidence, claim: Claim) -> Finding:
    """Ask whether two scales beat one, refined and coarse; the control has two nets of one."""

    def better(first: str, second: str) -> list[Criterion]:
        return [
            lower(e, "pd", first, second, share(claim)),
            higher(e, "ssim_y", first, second),
            higher(e, "dcos", first, second),
        ]

    criteria = [*better(OURS, "R4_G"), *better("R42_J", "R4_J")]
    return control(
        e,
        all_of(e, claim, criteria, n=e.images(OURS)),
        lambda: better("R42_J", "R44_J"),
        holds="two scales, not merely two networks",
        fails="not shown to be more than what two averaged networks give",
    )


def _variance_ratio(first: Sequence[float], second: Sequence[float], seed: int) -> Estimate:
    """Return ln of the ratio of two variances, with what normal samples of these sizes leave open.

    The ratio of sample variances is that of the true ones times a variable of Fisher's F
    distribution.
    """
    if min(len(first), len(second)) < 2:
        raise MissingEvidenceError("one training seed has no spread")
    spreads = [float(np.var(v, ddof=1)) for v in (first, second)]
    if min(spreads) <= 0:
        raise MissingEvidenceError("the seeds have equal losses")
    value = math.log(spreads[0] / spreads[1])
    draws = np.random.default_rng(seed).f(len(first) - 1, len(second) - 1, VAL_DRAWS)
    return Estimate(value, value - np.log(draws), (value,))


def c3b(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the finer map is emptier and the coarser one has more collisions."""
    of = e.crowding
    if not {f"{what}_{d}" for what in ("occupancy", "collisions") for d in (2, 4)} <= set(of):
        raise MissingEvidenceError("the faces' keypoints were not counted, or are too few")
    criteria = [
        below("occupancy 2 px - 4 px", of["occupancy_2"] - of["occupancy_4"], ""),
        above("collisions 4 px - 2 px", of["collisions_4"] - of["collisions_2"], ""),
    ]
    same = of["same_point"].value / (of["collisions_4"].value or 1.0)
    words = f"{same:.0%} of the collisions at 4 px are keypoints on one point, which no cell parts"

    def losses(run: str) -> Sequence[float]:
        if run not in e.losses:
            e.absent(run)
        if not e.losses[run]:
            raise MissingEvidenceError(f"{run} logged no validation loss")
        return e.losses[run]

    also = []
    try:
        spread = _variance_ratio(losses("R2_J"), losses("R4_J"), e.seed)
        also = [at_least("ln variance of val loss over seeds R2_J / R4_J", spread, "")]
        words += f"; the spread of {len(losses('R2_J'))} seeds' losses decides nothing"
    except MissingEvidenceError as missing:
        words += f"; no spread of losses: {missing}"
    return adding(all_of(e, claim, criteria, also, n=e.n["faces"]), words)


def c4(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the second stage helps; the control has its networks without the adversary."""

    def better(first: str, second: str) -> list[Criterion]:
        return [lower(e, m, first, second, share(claim)) for m in ("fd", "pd", "log_sharp_abs")]

    finding = all_of(e, claim, better(OURS, "R42_J"), n=e.images(OURS))
    if e.runs[OURS].collapsed:
        seeds = ", ".join(map(str, e.runs[OURS].collapsed))
        finding = adding(finding, f"the discriminator won outright with seed {seeds}")
    return control(
        e,
        finding,
        lambda: better(OURS, "R42_N"),
        holds="the adversary, not the second network's capacity",
        fails="not shown to be more than what the second network gives without an adversary",
    )


def c11(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the style term lowers the checkerboard, if there is one without it."""
    without = "R42_J_nostyle"
    finding = all_of(e, claim, [lower(e, "chk", "R42_J", without)], n=e.images("R42_J"))
    there = decide(above(f"chk {without}", e(without, "chk"), ""), level=e.level)
    finding = replace(finding, parts=(*finding.parts, there))
    if there.verdict == "supported":
        return finding
    words = f"no checkerboard shown without the style term: {in_numbers(there, '')}"
    return adding(replace(finding, verdict="inconclusive"), words)


# ---------------------------------------------------------------- a part of the keypoints


def box(mode: str, place: str, f: float) -> str:
    """Return the name of the condition in which a box's keypoints are removed."""
    return f"box-{mode}-{place}-{f:g}"


def c5(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the inside of a box is recovered, the identity kept and the outside unhurt."""
    f, outside, kept = (number(claim, name) for name in ("box", "outside", "id1"))

    def recovered(mode: str) -> list[Criterion]:
        name = box(mode, "centre", f)
        inside, full_out = e.part(name, "pd_in"), e.part(name, "pd_out_full")
        identity = e.part(name, "id1") - kept * e.part(FULL, "id1")
        change = e.part(name, "pd_out") - full_out
        return [
            below(f"pd in, {mode} - mean image", inside - e.part(name, "pd_in_mean"), ""),
            below(f"pd in, {mode} - mean colour", inside - e.part(name, "pd_in_mean_colour"), ""),
            at_least(f"id1 {mode} - {kept:g} id1 full", identity, UNITS["id1"]),
            within(f"pd out {mode} - full", change, "", margin=outside / 100 * full_out.value),
        ]

    criteria = recovered("centre")
    n = e.images(str(e.partial_run))
    finding = all_of(e, claim, criteria, beside(lambda: recovered("support")), n=n)
    whole = e.part(FULL, "id1").value
    return adding(
        finding, f"of {e.partial_run}; its id1 with all keypoints {whole:.3g} %, {_chance_words(n)}"
    )


# ---------------------------------------------------------------- colour, regions, categories


def c7(e: Evidence, claim: Claim) -> Finding:
    """Ask whether skin colour is better than none and than the mean one, and follows the face's."""

    def follows(run: str) -> list[Criterion]:
        return [above(f"r {c} {run}", e(run, f"r_{c}"), "") for c in ("cb", "cr")]

    criteria = [
        under_floor(e, "chroma_error", OURS, "grey"),
        under_floor(e, "chroma_error", OURS, "mean_colour"),
        *follows(OURS),
    ]
    finding = all_of(e, claim, criteria, n=e.images(OURS))
    limit, chance = number(claim, "p"), e.chance.get(OURS, {})
    if not {"cb", "cr"} <= set(chance):
        raise MissingEvidenceError(f"no permutation test of the colours of {OURS}")
    words = f"permutation p {chance['cb']:.2g} for Cb, {chance['cr']:.2g} for Cr"
    if finding.verdict == "supported" and max(chance.values()) >= limit:
        finding = replace(finding, verdict="inconclusive")
        words += f", not below {limit:g}"
    return control(
        e,
        adding(finding, words),
        lambda: [higher(e, f"r_{c}", OURS, SHUFFLED) for c in ("cb", "cr")],
        holds="more than a prior of what colours go with a face",
        fails="not shown to be more than a prior of what colours go with a face",
    )


def c8(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the face is better than the rest of its image; beside it, at equal texture."""

    def better(run: str) -> list[Criterion]:
        least = share(claim) * e(run, "pd_rest").value
        pd = e.contrast(run, "pd_face", "pd_rest")
        psnr = e.contrast(run, "psnr_face", "psnr_rest")
        return [
            below(f"pd face - rest {run}", pd, "", least=least),
            above(f"psnr face - rest {run}", psnr, "dB"),
        ]

    def equal(run: str) -> list[Criterion]:
        name = f"pd face - rest {run} at equal keypoints and gradients"
        return [below(name, e(run, "pd_gap_equal"), "")]

    also = beside(lambda: better(BASELINE), lambda: equal(OURS), lambda: equal(BASELINE))
    finding = all_of(e, claim, better(OURS), also, n=e.images(OURS))
    try:
        (left,) = (decide(c, level=e.level) for c in equal(OURS))
    except MissingEvidenceError as missing:
        return adding(finding, str(missing))
    return adding(
        finding,
        f"at equal density of keypoints and gradient energy pd face - rest is"
        f" {in_numbers(left, '')}",
    )


def c9(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the eight categories are blurrier than faces, each against its own mean image."""
    multi = "M_R42_G"

    def of_its_set(run: str) -> Estimate:
        pd = e(run, "pd")
        mean = e.floor(e.runs[run].image_set, "mean", "pd")
        return combine(lambda pd, mean: pd / mean, pd, mean)

    theirs, faces = of_its_set(multi), of_its_set(OURS)
    sharp = e(multi, "log_sharp") - e(OURS, "log_sharp")
    criteria = [
        below(f"ln sharp {multi} - {OURS}", sharp, "", least=-math.log(1 - share(claim))),
        above(
            f"pd / pd of the mean image {multi} - {OURS}",
            theirs - faces,
            "",
            least=share(claim) * abs(faces.value),
        ),
    ]
    finding = all_of(e, claim, criteria, n=min(e.images(OURS), e.images(multi)))

    def pair(what: str, of: Mapping[str, int]) -> str:
        ours, theirs = of[OURS], of[multi]
        return f"{'equal' if ours == theirs else 'unequal'} {what} ({theirs} and {ours})"

    words = f"{pair('training images', e.trained_on)}, {pair('images seen', e.seen)}"
    return adding(finding, words)


def c10(e: Evidence, claim: Claim) -> Finding:
    """Ask whether twice the images help little and half of them hurt: what the data lets be asked.

    R42_J_half saw half of the training images. Where these are twice the paper's, the pair tests
    that more help little; where they are fewer, it tests that fewer hurt, which refutes nothing:
    that they do not would even speak for the claim. The other half of the claim is not run, so that
    the claim itself cannot be supported.
    """
    enough = int(number(claim, "images"))
    few, many = "R42_J_half", "R42_J"
    half, whole = e(few, "pd"), e(many, "pd")
    n_train = e.n_train[e.runs[many].image_set]
    d = share(claim)
    more = f"pd N - 2 N < {d:.0%} of pd N"
    less = f"pd {few} - {many} > {d:.0%} of pd {many}"
    if n_train >= 2 * enough:
        effect, tested, open_part = (1 - d) * half - whole, more, "pd N / 2 - N: fewer images hurt"
        criterion = at_most(f"{1 - d:g} pd {few} - pd {many}", effect, "")
        why = f"no run had fewer than {e.trained_on[few]} images"
    else:
        effect, tested, open_part = half - (1 + d) * whole, less, more
        criterion = above(f"pd {few} - {1 + d:g} pd {many}", effect, "")
        why = f"{2 * enough} training images are needed, there are {n_train}"
    finding = judge(claim.id, [criterion], level=e.level, n=e.images(many))
    parts = (*finding.parts, Part(open_part, None, None, None, "not run"))
    refuted = tested == more and finding.verdict == "contradicted"
    verdict = "contradicted" if refuted else "inconclusive"
    sizes = f"{e.trained_on[few]} and {e.trained_on[many]} images"
    words = f"tested: {tested} at {sizes}, {finding.verdict}"
    return adding(
        replace(finding, verdict=verdict, parts=parts), f"{words}; not run: {open_part}, {why}"
    )


# ---------------------------------------------------------------- privacy


def _chance_words(n: int) -> str:
    return f"chance {100 / n:.2g} %"


def c12(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the reconstructions identify their originals far more often than by chance."""
    n, times = e.images(OURS), number(claim, "times")
    if times >= n:
        raise MissingEvidenceError(f"{times:g} times chance is all of {n} images")

    def identified(name: str, estimate: Estimate) -> list[Criterion]:
        excess = estimate - times * 100 / n
        return [at_least(f"id1 {name} - {times:g} x chance", excess, UNITS["id1"])]

    floor = e.floor(e.runs[OURS].image_set, "mean", "id1")
    criteria = [
        *identified(OURS, e(OURS, "id1")),
        above(f"id1 {OURS} - mean image", e(OURS, "id1") - floor, UNITS["id1"]),
    ]
    name = box("centre", "centre", number(claim, "box"))
    also = beside(
        lambda: identified(BASELINE, e(BASELINE, "id1")),
        lambda: identified("R42_J", e("R42_J", "id1")),
        lambda: identified(f"{e.partial_run} {name}", e.part(name, "id1")),
    )
    return adding(all_of(e, claim, criteria, also, n=n), _chance_words(n))


CLAIMS: dict[str, Callable[[Evidence, Claim], Finding]] = {
    **{"C1": c1, "C2": c2, "C3": c3, "C3b": c3b, "C4": c4, "C5": c5, "C6": c6, "C7": c7},
    **{"C8": c8, "C9": c9, "C10": c10, "C11": c11, "C12": c12},
}


def learnt(e: Evidence, run: str) -> list[Part]:
    """Judge whether a run's images are nearer to the originals than the mean training image.

    In perceptual distance, and in the cosine of descriptors computed again.
    """
    mean = e.floor(e.runs[run].image_set, "mean", "dcos")
    criteria = [
        under_floor(e, "pd", run, "mean"),
        above(f"{score_name('dcos')} {run} - mean", e(run, "dcos") - mean, ""),
    ]
    return [decide(c, level=e.level) for c in criteria]


def gated(e: Evidence, finding: Finding) -> Finding:
    """Withdraw a verdict that rests on a run that has learnt nothing, whichever way it goes."""
    if finding.verdict not in ("supported", "contradicted"):
        return finding
    runs = (e.partial_run,) if finding.id == "C5" else RESTS.get(finding.id, ())
    for run in runs:
        parts = learnt(e, str(run))
        weak = [part for part in parts if part.verdict != "supported"]
        if weak:
            said = ", ".join(f"{part.name} {in_numbers(part, '')}" for part in weak)
            words = (
                f"not {finding.verdict}: {run} is not shown to be nearer to the originals than the"
                f" mean training image ({said}), so it tells nothing of the method"
            )
            parts = (*finding.parts, *(p for p in parts if p not in finding.parts))
            return adding(replace(finding, verdict="inconclusive", parts=parts), words)
    return finding


def judge_claims(evidence: Evidence, paper: Paper) -> list[Finding]:
    """Judge every claim of paper.yaml, in its order.

    Raises
    ------
    InputError
        If paper.yaml has a claim that has no test here.
    """
    tests = {
        id: lambda e, claim, test=test: gated(e, test(e, claim)) for id, test in CLAIMS.items()
    }
    return judge_all(tests, evidence, paper, __name__)
