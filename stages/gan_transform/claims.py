"""The claims of Sirichotedumrong & Kiya 2020, and three of ours, as tests; one function a claim.

Statements, sources and margins are in paper.yaml, the rules of decision in stages.common.claims.
An effect is a difference of mean SSIMs over the attack's test images, or of accuracies in points
over the classifier's, averaged over seeds, on common resamples. Departures: C3 is decided by the
unshared-weight attack that learns (sum loss), and the paper's stands beside it; C2b is the claim
of C2 as a worst case over the same attacks for all schemes. What would be supported because an
attack failed is inconclusive if the attack fails on plain images, too; what would be judged against
an accuracy that is no better than guessing is not run.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
    exactly,
    holds,
    judge,
    judge_all,
    within,
    witness,
)

CONVENTIONAL = ("pe_same", "pe_diff", "tanaka")  # the schemes that the paper compares its own with
PIXEL_BASED = ("pe_same", "pe_diff")
PROTECTED = ("proposed", *CONVENTIONAL)
# The generator that the paper gives each scheme; every h_p has the U-Net.
GENERATORS = {
    "plain": "ga_shared",
    "tanaka": "ga_blockwise",
    "pe_same": "ga_shared",
    "pe_diff": "ga_shared",
}
# The SSIMs that Table I prints beside the proposed scheme's.
PRINTED = (
    ("pe_same", "uwa"),
    ("pe_same", "ga"),
    ("pe_diff", "uwa"),
    ("pe_diff", "ga"),
    ("tanaka", "ga"),
)
RANKS = {  # C10
    "ten": ("plain", "pe_same", "pe_diff", "proposed", "tanaka"),
    "transfer": ("plain", "tanaka", "proposed", "pe_diff", "pe_same"),
}
INSIDERS = ("g_ba", "g_ba_float")  # attacks of who has the CycleGAN's other half
LEARNED = ("ga_", "uwa_", "itn")  # how the names of attacks that are trained begin
POINTS = "points"  # of accuracy
DATA_SETS = {"c10": "ten", "c100": "transfer"}  # columns of Table I


def primary_arm(scheme: str) -> str:
    """Return who augments the training images in the scheme's row of Table I."""
    return "server" if scheme.startswith("pe_") or scheme == "noise" else "client"


def accuracy_of(scheme: str, dataset: str) -> str:
    """Return the metric of a scheme's accuracy in Table I."""
    return f"acc_{dataset}_{primary_arm(scheme)}"


def attack_of(scheme: str, column: str) -> str | None:
    """Return the attack in a column of Table I (uwa, ga), None for an accuracy."""
    return {"uwa": "uwa_literal", "ga": GENERATORS.get(scheme, "ga_unet")}.get(column)


def metric_of(scheme: str, column: str) -> str:
    """Return the metric in a column of Table I: uwa, ga, c10 or c100."""
    attack = attack_of(scheme, column)
    if attack is not None:
        return f"ssim_{attack}"
    return accuracy_of(scheme, DATA_SETS[column])


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on.

    Attributes
    ----------
    scores : scheme -> metric -> mean. ``ssim_<attack>`` and ``ssim_raw`` (the cipher itself) over
        the attack's test images; ``acc_<data set>_<arm>`` in per cent; over the test images
        ``htheta_acc`` in per cent, ``test_ssim`` of the cipher and ``test_ssim_g_ba`` of G_BA.
    n : number of images: attack, test, transfer, and train for the protected ones.
    level : of the intervals.
    floors : ``blank_attack``, ``blank_test``, ...: SSIMs of images that show nothing.
    protection : ``acc`` of h_theta on the test images; ``acc_x``, ``acc_p``, ``ssim`` and
        ``ssim_blank`` of the preliminary protection, over the protected training images.
    mismatches : scheme -> pixels, a seed, that depend on the batch.
    keyed : schemes that keep a key.
    guess : data set -> per cent right of who always names the commonest class of its test images.
    missing : scheme -> why it has no scores; others are not among the schemes at all.
    """

    scores: Mapping[str, Mapping[str, Estimate]]
    n: Mapping[str, int]
    level: float
    floors: Mapping[str, Estimate] = field(default_factory=dict)
    protection: Mapping[str, Estimate] = field(default_factory=dict)
    mismatches: Mapping[str, Sequence[int]] = field(default_factory=dict)
    keyed: Collection[str] = ()
    guess: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def _has(self, scheme: str) -> None:
        if scheme not in self.scores:
            raise MissingEvidenceError(
                self.missing.get(scheme, f"{scheme} is not among the schemes")
            )

    def __call__(self, scheme: str, metric: str) -> Estimate:
        """Return the mean of a metric, or say what was not run."""
        self._has(scheme)
        if metric not in self.scores[scheme]:
            attack = metric.removeprefix("ssim_")
            raise MissingEvidenceError(
                f"{metric} of {scheme} was not measured"
                if attack == metric
                else f"{attack} was not run on {scheme}"
            )
        return self.scores[scheme][metric]

    def floor(self, name: str) -> Estimate:
        """Return the mean SSIM of an image that shows nothing, or say that it is missing."""
        if name not in self.floors:
            raise MissingEvidenceError(f"the floor {name} was not measured")
        return self.floors[name]

    def of_target(self, name: str) -> Estimate:
        """Return a number of h_theta or of P, or say that it is missing."""
        if name not in self.protection:
            raise MissingEvidenceError(f"{name} of the target model was not measured")
        return self.protection[name]

    def attacks(self, scheme: str) -> list[str]:
        """Return the attacks on a scheme, its cipher ("raw") among them."""
        self._has(scheme)
        return [m.removeprefix("ssim_") for m in self.scores[scheme] if m.startswith("ssim_")]


def common_attacks(evidence: Evidence, schemes: Sequence[str]) -> list[str]:
    """Return the attacks that were run on all of these schemes, insiders left out.

    Raises
    ------
    MissingEvidenceError
        If a scheme is missing, or none of them was trained: attacks that are made for single
        ciphers say nothing about the others.
    """
    lists = [evidence.attacks(scheme) for scheme in schemes]
    found = [a for a in lists[0] if a not in INSIDERS and all(a in other for other in lists)]
    if not any(attack.startswith(LEARNED) for attack in found):
        raise MissingEvidenceError(f"no trained attack was run on all of {', '.join(schemes)}")
    return found


def worst(evidence: Evidence, scheme: str, attacks: Sequence[str]) -> Estimate:
    """Return the highest mean SSIM that one of the attacks reaches, resample by resample."""
    means = [evidence(scheme, f"ssim_{attack}") for attack in attacks]
    return combine(lambda *values: np.maximum.reduce(values), *means)


def column(evidence: Evidence, scheme: str, name: str) -> Estimate:
    """Return ours in a column of Table I."""
    return evidence(scheme, metric_of(scheme, name))


def lower(evidence: Evidence, name: str, first: str, second: str) -> Criterion:
    """Ask whether a column of Table I is lower for the first scheme than for the second."""
    effect = column(evidence, first, name) - column(evidence, second, name)
    return below(f"{name} {first} - {second}", effect, "" if attack_of(first, name) else POINTS)


def all_of(
    evidence: Evidence,
    claim: Claim,
    criteria: list[Criterion],
    also: Sequence[Criterion] = (),
    *,
    where: Sequence[str] = ("attack",),
) -> Finding:
    """Judge a conjunction at the evidence's level, over the images of ``where``."""
    n = min(evidence.n[name] for name in where)
    return judge(claim.id, criteria, level=evidence.level, n=n, also=also)


def beside(*make: Callable[[], list[Criterion]]) -> list[Criterion]:
    """Return the criteria that can be made: those beside a claim may lack what they need."""
    found = []
    for criteria in make:
        try:
            found += criteria()
        except MissingEvidenceError:
            continue
    return found


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


def with_control(
    evidence: Evidence, claim: Claim, finding: Finding, attack: str = "ga_unet"
) -> Finding:
    """Say what the attack that decides about the proposed scheme does on plain images.

    Where it cannot even leave those as they are, its failure on h_p says nothing about h_p: a claim
    that it would support is inconclusive.
    """
    enough = number(claim, "identity")
    try:
        control = evidence("plain", f"ssim_{attack}").value
    except MissingEvidenceError as missing:
        return _adding(finding, f"no control of the instrument: {missing}")
    if control >= enough:
        return _adding(finding, f"the control, {attack} on plain images, has {control:.2g}")
    words = (
        f"{attack} has only {control:.2g} on plain images, below {enough:g}: the instrument fails"
        " on the identity"
    )
    if finding.verdict != "supported":
        return _adding(finding, words)
    reason = f"{finding.reason}; but {words}, so that it fails on h_p shows nothing"
    return replace(finding, verdict="inconclusive", reason=reason)


def _above_guessing(evidence: Evidence, finding: Finding, columns: Sequence[str]) -> Finding:
    """Take back a verdict on accuracies if a reference's is no better than guessing."""
    for name in columns:
        guess = evidence.guess.get(DATA_SETS[name])
        for scheme in PIXEL_BASED:
            reference = column(evidence, scheme, name)
            if guess is not None and reference.interval(evidence.level)[0] <= guess:
                reason = (
                    f"{name} of {scheme}, {reference.value:.1f} %, is no better than guessing,"
                    f" {guess:.1f} %: nothing to compare with; else {finding.reason}"
                )
                return replace(finding, verdict="not run", reason=reason)
    return finding


def _adding(finding: Finding, words: str) -> Finding:
    return replace(finding, reason=f"{finding.reason}; {words}")


# ---------------------------------------------------------------- Table I, attacks


def c1(e: Evidence, claim: Claim) -> Finding:
    """Ask whether ga(proposed) is the lowest of the schemes; beside it, one generator for all."""

    def alike(s: str) -> list[Criterion]:
        effect = e("proposed", "ssim_ga_unet") - e(s, "ssim_ga_unet")
        return [below(f"ga_unet proposed - {s}", effect, "")]

    criteria = [lower(e, "ga", "proposed", s) for s in CONVENTIONAL]
    also = beside(*(lambda s=s: alike(s) for s in CONVENTIONAL))
    return with_control(e, claim, all_of(e, claim, criteria, also))


def c2(e: Evidence, claim: Claim) -> Finding:
    """Ask whether ga(proposed) is at most every other SSIM of Table I."""
    criteria = [
        at_most(f"ga proposed - {name} {s}", column(e, "proposed", "ga") - column(e, s, name), "")
        for s, name in PRINTED
    ]
    return with_control(e, claim, all_of(e, claim, criteria))


def c2b(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the worst of the common attacks does least against the proposed scheme."""

    def against(ours: str) -> tuple[list[str], list[Criterion]]:
        attacks = common_attacks(e, (ours, *CONVENTIONAL))
        mine = worst(e, ours, attacks)
        return attacks, [
            below(f"worst {ours} - {s}", mine - worst(e, s, attacks), "") for s in CONVENTIONAL
        ]

    attacks, criteria = against("proposed")
    finding = all_of(e, claim, criteria, beside(lambda: against("proposed_sum")[1]))
    strongest = {s: max(attacks, key=lambda a: e(s, f"ssim_{a}").value) for s in PROTECTED}
    words = ", ".join(f"{s} {attack}" for s, attack in strongest.items())
    finding = _adding(finding, f"of {len(attacks)} attacks, the worst are {words}")
    return with_control(e, claim, finding, "itn")


def c3(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the unshared-weight attack fails against different keys."""

    def easier(attack: str) -> list[Criterion]:
        effect = e("pe_diff", f"ssim_{attack}") - e("pe_same", f"ssim_{attack}")
        return [below(f"{attack} pe_diff - pe_same", effect, "")]

    return all_of(e, claim, easier("uwa_strong"), beside(lambda: easier("uwa_literal")))


def c4(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the GAN attack ranks the schemes as printed."""
    chain = ("tanaka", "pe_same", "pe_diff", "proposed")
    criteria = [lower(e, "ga", b, a) for a, b in zip(chain, chain[1:], strict=False)]
    return with_control(e, claim, all_of(e, claim, criteria))


def c11(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the GAN attack does better than a blank image on the conventional ciphers."""
    criteria = [
        above(f"ga {s} - blank", column(e, s, "ga") - e.floor("blank_attack"), "")
        for s in CONVENTIONAL
    ]
    return all_of(e, claim, criteria)


# ---------------------------------------------------------------- Table I, accuracies


def c5(e: Evidence, claim: Claim) -> Finding:
    """Ask whether the proposed scheme is as accurate as pixel-based encryption."""
    criteria = [
        within(
            f"{name} proposed - {s}",
            column(e, "proposed", name) - column(e, s, name),
            POINTS,
            margin=number(claim, "delta"),
        )
        for name in DATA_SETS
        for s in PIXEL_BASED
    ]

    def unaugmented(name: str) -> list[Criterion]:
        other = e("pe_same", f"acc_{DATA_SETS[name]}_none")
        margin = number(claim, "delta")
        effect = column(e, "proposed", name) - other
        label = f"{name} proposed - pe_same, not augmented"
        return [within(label, effect, POINTS, margin=margin)]

    also = beside(*(lambda name=name: unaugmented(name) for name in DATA_SETS))
    finding = all_of(e, claim, criteria, also, where=("test", "transfer"))
    return _above_guessing(e, finding, list(DATA_SETS))


def c6(e: Evidence, claim: Claim) -> Finding:
    """Ask whether h_p loses little on a data set that it never saw."""
    criteria = [
        at_least(
            f"c100 proposed - {s}",
            column(e, "proposed", "c100") - column(e, s, "c100"),
            POINTS,
            margin=number(claim, "delta"),
        )
        for s in PIXEL_BASED
    ]

    def unaugmented() -> list[Criterion]:
        effect = column(e, "proposed", "c100") - e("pe_same", "acc_transfer_none")
        label, margin = "c100 proposed - pe_same, not augmented", number(claim, "delta")
        return [at_least(label, effect, POINTS, margin=margin)]

    finding = all_of(e, claim, criteria, beside(unaugmented), where=("transfer",))
    return _above_guessing(e, finding, ["c100"])


def c7(e: Evidence, claim: Claim) -> Finding:
    """Ask whether plain images are classified best."""
    criteria = [lower(e, name, s, "plain") for name in ("c10", "c100") for s in PROTECTED]
    return all_of(e, claim, criteria, where=("test", "transfer"))


def c10(e: Evidence, claim: Claim) -> Finding:
    """Ask whether both accuracies rank the schemes as printed."""
    criteria = [
        lower(e, name, b, a)
        for name, dataset in (("c10", "ten"), ("c100", "transfer"))
        for a, b in zip(RANKS[dataset], RANKS[dataset][1:], strict=False)
    ]
    return all_of(e, claim, criteria, where=("test", "transfer"))


def c12(e: Evidence, claim: Claim) -> Finding:
    """Ask whether augmenting the cipher helps."""
    effect = e("pe_same", "acc_ten_server") - e("pe_same", "acc_ten_none")
    return all_of(e, claim, [above("c10 pe_same server - none", effect, POINTS)], where=("test",))


# ---------------------------------------------------------------- the protection itself


def _hides_and_keeps(
    e: Evidence,
    claim: Claim,
    *,
    accuracy: tuple[str, Estimate],
    ssim: tuple[str, Estimate],
    where: str,
) -> Finding:
    """Judge a loss of accuracy of at most ``points`` and an SSIM at most ``ssim`` above blank."""
    criteria = [
        at_least(*accuracy, POINTS, margin=number(claim, "points")),
        at_most(*ssim, "", margin=number(claim, "ssim")),
    ]
    return all_of(e, claim, criteria, where=(where,))


def c8(e: Evidence, claim: Claim) -> Finding:
    """Ask whether P is classified no worse than the images and shows no more than a blank one."""
    return _hides_and_keeps(
        e,
        claim,
        accuracy=("accuracy P - X", e.of_target("acc_p") - e.of_target("acc_x")),
        ssim=("SSIM(P, X) - blank", e.of_target("ssim") - e.of_target("ssim_blank")),
        where="train",
    )


def c9(e: Evidence, claim: Claim) -> Finding:
    """Ask the same of h_p on the test images, with this claim's margins."""
    return _hides_and_keeps(
        e,
        claim,
        accuracy=("accuracy h_p(x) - x", e("proposed", "htheta_acc") - e.of_target("acc")),
        ssim=("SSIM(h_p(x), x) - blank", e("proposed", "test_ssim") - e.floor("blank_test")),
        where="test",
    )


def c13(e: Evidence, claim: Claim) -> Finding:
    """Ask whether h_p keeps no key and does not depend on the batch."""

    def outcomes(scheme: str) -> list[bool]:
        return [pixels == 0 and scheme not in e.keyed for pixels in e.mismatches[scheme]]

    if "proposed" not in e.mismatches:
        raise MissingEvidenceError(e.missing.get("proposed", "proposed is not among the schemes"))
    pixels = int(sum(e.mismatches["proposed"]))
    key = "a key is stored" if "proposed" in e.keyed else "no key is stored"
    shown = {s: outcomes(s) for s in ("proposed", "proposed_sum") if s in e.mismatches}
    return witness(
        claim.id,
        shown["proposed"],
        effect=float(pixels),
        unit="pixels",
        why=f"{key}, {pixels} pixels depend on the batch; the weights of h_p are the secret",
        parts=[
            Part(
                f"pixels of {s} that depend on the batch",
                float(sum(e.mismatches[s])),
                None,
                None,
                "supported" if all(seen) else "contradicted",
            )
            for s, seen in shown.items()
        ],
    )


# ---------------------------------------------------------------- ours


def x1(e: Evidence, claim: Claim) -> Finding:
    """Ask whether h_p resists those who have pairs, or its inverse."""

    def inverted(scheme: str) -> list[Criterion]:
        return [
            at_most(
                f"{attack} {scheme} - blank",
                e(scheme, f"ssim_{attack}") - e.floor("blank_attack"),
                "",
                margin=number(claim, "delta"),
            )
            for attack in ("itn", "g_ba")
        ]

    finding = all_of(e, claim, inverted("proposed"), beside(lambda: inverted("proposed_sum")))
    return with_control(e, claim, finding, "itn")


def x2(e: Evidence, claim: Claim) -> Finding:
    """Ask whether attacks without training beat the GAN attack on the same images."""
    free = {"pe_same": "pc1", "tanaka": "qap"}
    criteria = [
        above(f"{a} {s} - ga", e(s, f"ssim_{a}") - column(e, s, "ga"), "") for s, a in free.items()
    ]
    also = [
        above(f"{a} {s} - the ga that the paper prints", e(s, f"ssim_{a}") - number(claim, s), "")
        for s, a in free.items()
    ]
    return all_of(e, claim, criteria, also)


CLAIMS: dict[str, Callable[[Evidence, Claim], Finding]] = {
    **{"C1": c1, "C2": c2, "C2b": c2b, "C3": c3, "C4": c4, "C5": c5, "C6": c6, "C7": c7},
    **{"C8": c8, "C9": c9, "C10": c10, "C11": c11, "C12": c12, "C13": c13, "X1": x1, "X2": x2},
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
    """Return Table I as evidence without uncertainty: each mean exactly as printed.

    The printed UWA stands for both of ours, since the paper does not say how it was trained.
    """
    scores: dict[str, dict[str, Estimate]] = {}
    for cell in paper.cells:
        if cell.paper is not None:
            scheme, name = cell.axes["scheme"], cell.axes["column"]
            of_scheme = scores.setdefault(scheme, {})
            of_scheme[metric_of(scheme, name)] = exactly(cell.paper)
            if name == "uwa":
                of_scheme["ssim_uwa_strong"] = exactly(cell.paper)
    return Evidence(scores=scores, n={"attack": 1, "test": 1, "transfer": 1}, level=0.95)


def table1_says(paper: Paper) -> dict[str, bool | None]:
    """Return whether Table I's own numbers satisfy each claim; None where they cannot tell."""
    return {finding.id: holds(finding) for finding in judge_claims(printed(paper), paper)}
