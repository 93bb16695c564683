from dataclasses import replace

import numpy as np
import pytest

from stages.common.claims import Estimate, Finding, with_seed_spread
from stages.common.errors import InputError
from stages.gan_transform.claims import (
    Evidence,
    MissingEvidenceError,
    common_attacks,
    judge_claims,
    worst,
)
from stages.gan_transform.score import read_paper

PAPER = read_paper()
# A world in which every claim is true.
TRUE = {
    "plain": {
        "ssim_ga_unet": 0.8,
        "ssim_itn": 0.95,
        "acc_ten_client": 95.0,
        "acc_transfer_client": 77.0,
    },
    "tanaka": {
        **{"ssim_ga_blockwise": 0.7, "ssim_uwa_literal": 0.25, "ssim_qap": 0.95},
        **{"acc_ten_client": 86.0, "acc_transfer_client": 69.6},
    },
    "pe_same": {
        **{"ssim_uwa_literal": 0.35, "ssim_uwa_strong": 0.95, "ssim_pc1": 0.97},
        **{"acc_ten_server": 89.8, "acc_ten_none": 70.0, "acc_transfer_server": 68.4},
    },
    "pe_diff": {
        **{"ssim_uwa_literal": 0.21, "ssim_uwa_strong": 0.06},
        **{"acc_ten_server": 89.2, "acc_transfer_server": 68.8},
    },
    "proposed": {
        **{"ssim_itn": 0.1, "ssim_g_ba": 0.12, "ssim_g_ba_float": 0.12},
        **{"acc_ten_client": 88.6, "acc_transfer_client": 69.2},
        **{"htheta_acc": 91.0, "test_ssim": 0.08, "test_ssim_g_ba": 0.12},
    },
    "proposed_sum": {"ssim_itn": 0.1, "ssim_g_ba": 0.12},
}
for scheme, ga in {"pe_same": 0.45, "pe_diff": 0.3, "proposed": 0.05}.items():
    TRUE[scheme]["ssim_ga_unet" if scheme == "proposed" else "ssim_ga_shared"] = ga
for scheme in ("tanaka", "pe_same", "pe_diff"):
    TRUE[scheme] |= {"ssim_raw": 0.02, "ssim_itn": 0.5}
TRUE["proposed"]["ssim_raw"] = TRUE["proposed_sum"]["ssim_raw"] = 0.08
FLOORS = {"blank_attack": 0.12, "blank_test": 0.12}
PROTECTION = {"acc": 92.0, "acc_x": 99.0, "acc_p": 100.0, "ssim": 0.1, "ssim_blank": 0.12}


def estimates(world: dict, *, seeds: int = 2, split: float = 0.0) -> dict[str, Estimate]:
    """Means with independent normal resamples; the seeds lie 2 x ``split`` of the mean apart."""
    rng = np.random.default_rng(0)
    return {
        name: Estimate(
            float(value),
            rng.normal(value, 0.005 if abs(value) <= 1 else 0.05, 2000),
            tuple(float(v) for v in value * (1 + np.linspace(-split, split, seeds))),
        )
        for name, value in world.items()
    }


def evidence(changes: dict | None = None, **options) -> Evidence:
    """Return the true world with changes: {scheme or "floors" or "protection": {name: value}}."""
    changes = changes or {}
    mismatches = {"proposed": [0, 0], "proposed_sum": [0, 0], **changes.get("mismatches", {})}
    return Evidence(
        scores={
            scheme: estimates({**world, **changes.get(scheme, {})}, **options)
            for scheme, world in TRUE.items()
        },
        n={"attack": 100, "test": 200, "transfer": 150, "train": 300},
        level=0.95,
        floors=estimates({**FLOORS, **changes.get("floors", {})}, seeds=1),
        protection=estimates({**PROTECTION, **changes.get("protection", {})}, **options),
        mismatches=mismatches,
        keyed=changes.get("keyed", ()),
    )


def without(scheme: str, metric: str) -> Evidence:
    full = evidence()
    left = {m: e for m, e in full.scores[scheme].items() if m != metric}
    return replace(full, scores={**full.scores, scheme: left})


def find(id: str, evidence: Evidence) -> Finding:
    return judge_claims(evidence, replace(PAPER, claims={id: PAPER.claims[id]}))[0]


def test_every_claim_can_be_supported():
    findings = judge_claims(evidence(), PAPER)
    assert {f.id: f.verdict for f in findings} == dict.fromkeys(PAPER.claims, "supported")
    assert {f.seeds for f in findings} == {2}
    assert all(f.reason and f.effect is not None for f in findings)


AGAINST = {
    "C1": {"pe_diff": {"ssim_ga_shared": 0.01}},
    "C2": {"pe_diff": {"ssim_uwa_literal": 0.01}},
    "C2b": {"proposed": {"ssim_itn": 0.9}},
    "C3": {"pe_diff": {"ssim_uwa_strong": 0.99}},
    "C4": {"pe_same": {"ssim_ga_shared": 0.9}},
    "C5": {"proposed": {"acc_ten_client": 80.0}},
    "C6": {"proposed": {"acc_transfer_client": 60.0}},
    "C7": {"tanaka": {"acc_transfer_client": 80.0}},
    "C8": {"protection": {"ssim": 0.4}},
    "C9": {"proposed": {"htheta_acc": 50.0}},
    "C10": {"proposed": {"acc_ten_client": 84.0}},
    "C11": {"pe_same": {"ssim_ga_shared": 0.05}},
    "C12": {"pe_same": {"acc_ten_none": 92.0}},
    "C13": {"mismatches": {"proposed": [3, 5]}},
    "X1": {"proposed": {"ssim_g_ba": 0.9}},
    "X2": {"tanaka": {"ssim_qap": 0.5}},
}
OPEN = {
    "C1": {"pe_diff": {"ssim_ga_shared": 0.05}},
    "C2": {"pe_diff": {"ssim_uwa_literal": 0.05}},
    "C2b": {"proposed": {"ssim_itn": 0.5}},
    "C3": {"pe_diff": {"ssim_uwa_strong": 0.95}},
    "C4": {"pe_same": {"ssim_ga_shared": 0.3}},
    "C5": {"proposed": {"acc_ten_client": 86.8}},
    "C6": {"proposed": {"acc_transfer_client": 65.8}},
    "C7": {"tanaka": {"acc_transfer_client": 77.0}},
    "C8": {"protection": {"ssim": 0.17}},
    "C9": {"proposed": {"test_ssim": 0.14}},
    "C10": {"proposed": {"acc_ten_client": 89.2}},
    "C11": {"pe_same": {"ssim_ga_shared": 0.12}},
    "C12": {"pe_same": {"acc_ten_none": 89.8}},
    "C13": {"mismatches": {"proposed": [0, 5]}},
    "X1": {"proposed": {"ssim_itn": 0.17}},
    "X2": {"pe_same": {"ssim_pc1": 0.45}},
}
LACKING = {
    "C1": ("tanaka", "ssim_ga_blockwise", "ga_blockwise was not run on tanaka"),
    "C2": ("pe_diff", "ssim_uwa_literal", "uwa_literal was not run on pe_diff"),
    "C3": ("pe_same", "ssim_uwa_strong", "uwa_strong was not run on pe_same"),
    "C4": ("proposed", "ssim_ga_unet", "ga_unet was not run on proposed"),
    "C5": ("pe_same", "acc_ten_server", "acc_ten_server of pe_same was not measured"),
    "C6": ("pe_same", "acc_transfer_server", "acc_transfer_server of pe_same was not measured"),
    "C7": ("plain", "acc_ten_client", "acc_ten_client of plain was not measured"),
    "C9": ("proposed", "htheta_acc", "htheta_acc of proposed was not measured"),
    "C10": ("tanaka", "acc_ten_client", "acc_ten_client of tanaka was not measured"),
    "C11": ("pe_diff", "ssim_ga_shared", "ga_shared was not run on pe_diff"),
    "C12": ("pe_same", "acc_ten_none", "acc_ten_none of pe_same was not measured"),
    "X1": ("proposed", "ssim_itn", "itn was not run on proposed"),
    "X2": ("tanaka", "ssim_qap", "qap was not run on tanaka"),
}


def test_every_claim_has_its_contrary_and_its_open_case():
    assert set(AGAINST) == set(OPEN) == set(PAPER.claims)
    assert set(LACKING) == set(PAPER.claims) - {"C2b", "C8", "C13"}


@pytest.mark.parametrize("id", AGAINST)
def test_a_claim_is_contradicted_by_numbers_on_the_other_side(id):
    assert find(id, evidence(AGAINST[id])).verdict == "contradicted"


@pytest.mark.parametrize("id", OPEN)
def test_a_claim_is_inconclusive_where_the_evidence_reaches_both_sides(id):
    assert find(id, evidence(OPEN[id])).verdict == "inconclusive"


@pytest.mark.parametrize("id", LACKING)
def test_a_claim_is_not_run_without_what_it_needs_and_says_what(id):
    scheme, metric, reason = LACKING[id]
    finding = find(id, without(scheme, metric))
    assert (finding.verdict, finding.reason) == ("not run", reason)


@pytest.mark.parametrize("id", PAPER.claims)
def test_nothing_at_all_leaves_every_claim_not_run(id):
    nothing = Evidence(scores={}, n={}, level=0.95)
    assert find(id, nothing).verdict == "not run"


NEEDS = {
    "plain": {"C7", "C10"},
    "tanaka": {"C1", "C2", "C2b", "C4", "C7", "C10", "C11", "X2"},
    "pe_same": {"C1", "C2", "C2b", "C3", "C4", "C5", "C6", "C7", "C10", "C11", "C12", "X2"},
    "pe_diff": {"C1", "C2", "C2b", "C3", "C4", "C5", "C6", "C7", "C10", "C11"},
    "proposed": {"C1", "C2", "C2b", "C4", "C5", "C6", "C7", "C9", "C10", "C13", "X1"},
    "proposed_sum": set(),
}


@pytest.mark.parametrize("absent", NEEDS)
def test_exactly_the_claims_that_need_a_missing_scheme_are_not_run(absent):
    full = evidence()
    left = replace(
        full,
        scores={s: m for s, m in full.scores.items() if s != absent},
        mismatches={s: m for s, m in full.mismatches.items() if s != absent},
        missing={absent: f"{absent} was dropped"},
    )
    findings = [f for f in judge_claims(left, PAPER) if f.verdict == "not run"]
    assert {f.id for f in findings} == NEEDS[absent]
    assert {f.reason for f in findings} <= {f"{absent} was dropped"}


def test_a_scheme_that_is_not_there_is_named():
    full = evidence()
    left = replace(full, scores={s: m for s, m in full.scores.items() if s != "tanaka"})
    assert find("C1", left).reason == "tanaka is not among the schemes"


# ---------------------------------------------------------------- the instrument


@pytest.mark.parametrize("id", ["C1", "C2", "C4"])
def test_a_generator_that_fails_on_the_identity_is_said_to_show_nothing(id):
    good, bad = find(id, evidence()), find(id, evidence({"plain": {"ssim_ga_unet": 0.2}}))
    assert (good.verdict, bad.verdict) == ("supported", "inconclusive")
    assert good.reason.endswith("the control, ga_unet on plain images, has 0.8")
    assert "only 0.2 on plain images, below 0.5: the instrument fails on the identity" in bad.reason
    assert bad.reason.endswith("so that it fails on h_p shows nothing")


@pytest.mark.parametrize("id", ["C2b", "X1"])
def test_an_inversion_network_that_fails_on_the_identity_supports_nothing(id):
    good, bad = find(id, evidence()), find(id, evidence({"plain": {"ssim_itn": 0.5}}))
    assert (good.verdict, bad.verdict) == ("supported", "inconclusive")
    assert "itn has only 0.5 on plain images, below 0.9" in bad.reason


def test_an_attack_that_fails_on_the_identity_and_yet_reads_the_cipher_contradicts():
    weak = {"plain": {"ssim_itn": 0.5}, "proposed": {"ssim_itn": 0.6}}
    assert find("X1", evidence(weak)).verdict == "contradicted"


@pytest.mark.parametrize(("id", "column"), [("C5", "c10"), ("C6", "c100")])
def test_accuracies_that_are_no_better_than_guessing_are_no_reference(id, column):
    dataset = {"c10": "ten", "c100": "transfer"}[column]
    guessing = replace(evidence(), guess={dataset: 99.0})
    finding = find(id, guessing)
    assert finding.verdict == "not run"
    assert f"{column} of pe_same" in finding.reason
    assert "is no better than guessing, 99.0 %" in finding.reason
    assert find(id, replace(evidence(), guess={dataset: 1.0})).verdict == "supported"


def test_a_control_that_was_not_run_is_said_to_be_missing():
    finding = find("C1", without("plain", "ssim_ga_unet"))
    assert finding.verdict == "supported"
    assert finding.reason.endswith("no control of the instrument: ga_unet was not run on plain")


# ---------------------------------------------------------------- the worst case


def test_the_common_attacks_are_those_on_all_schemes_without_insiders():
    world = evidence({"tanaka": {"ssim_g_ba": 0.9}})
    schemes = ("proposed", "pe_same", "pe_diff", "tanaka")
    assert set(common_attacks(world, schemes)) == {"raw", "itn"}
    assert set(common_attacks(world, ("proposed",))) == {"raw", "itn", "ga_unet"}


def test_the_cipher_itself_counts_as_an_attack():
    shown = evidence({"proposed": {"ssim_raw": 0.9}})
    finding = find("C2b", shown)
    assert finding.verdict == "contradicted"
    assert "proposed raw" in finding.reason
    assert worst(shown, "proposed", ["raw", "itn"]).value == 0.9


def test_the_worst_case_is_taken_resample_by_resample():
    world = evidence({"proposed": {"ssim_raw": 0.1, "ssim_itn": 0.1}})
    both = [world("proposed", f"ssim_{a}").samples for a in ("raw", "itn")]
    found = worst(world, "proposed", ["raw", "itn"])
    np.testing.assert_array_equal(found.samples, np.maximum(*both))


def test_attacks_without_training_alone_are_no_worst_case():
    full = evidence()
    left = {
        s: {m: e for m, e in metrics.items() if m != "ssim_itn"}
        for s, metrics in full.scores.items()
    }
    finding = find("C2b", replace(full, scores=left))
    assert finding.verdict == "not run"
    assert finding.reason == (
        "no trained attack was run on all of proposed, pe_same, pe_diff, tanaka"
    )
    with pytest.raises(MissingEvidenceError, match="not among the schemes"):
        common_attacks(full, ("proposed", "etc"))


# ---------------------------------------------------------------- parts that do not decide


def parts(finding: Finding) -> dict[str, str]:
    return {part.name: part.verdict for part in finding.parts}


def test_the_sum_variant_stands_beside_c2b_and_x1_and_decides_neither():
    world = evidence({"proposed_sum": {"ssim_itn": 0.9}})
    c2b, x1 = find("C2b", world), find("X1", world)
    assert c2b.verdict == x1.verdict == "supported"
    assert parts(c2b)["worst proposed_sum - tanaka"] == "contradicted"
    assert parts(x1)["itn proposed_sum - blank"] == "contradicted"
    assert "itn proposed_sum - blank" not in parts(find("X1", without("proposed_sum", "ssim_itn")))


def test_c3_is_decided_by_the_attack_that_learns():
    world = evidence({"pe_diff": {"ssim_uwa_literal": 0.9}})
    finding = find("C3", world)
    assert finding.verdict == "supported"
    assert parts(finding) == {
        "uwa_strong pe_diff - pe_same": "supported",
        "uwa_literal pe_diff - pe_same": "contradicted",
    }


def test_c1_with_one_generator_for_all_schemes_stands_beside_it():
    alike = {s: {"ssim_ga_unet": 0.02} for s in ("pe_same", "pe_diff", "tanaka")}
    finding = find("C1", evidence(alike))
    assert finding.verdict == "supported"
    assert parts(finding)["ga_unet proposed - tanaka"] == "contradicted"
    assert len(finding.parts) == 6
    assert len(find("C1", evidence()).parts) == 3


def test_x2_is_decided_on_equal_images_and_shows_the_papers_number_beside():
    strong = {"tanaka": {"ssim_ga_blockwise": 0.99}}
    finding = find("X2", evidence(strong))
    assert finding.verdict == "contradicted"
    assert parts(finding)["qap tanaka - the ga that the paper prints"] == "supported"


# ---------------------------------------------------------------- single claims


def test_equal_accuracies_of_100_per_cent_support_c8():
    same = evidence({"protection": {"acc_x": 100.0, "acc_p": 100.0}})
    exact = {
        name: replace(e, samples=np.full(2000, 100.0)) if name.startswith("acc_") else e
        for name, e in same.protection.items()
    }
    assert find("C8", replace(same, protection=exact)).verdict == "supported"


def test_a_stored_key_contradicts_c13():
    finding = find("C13", evidence({"keyed": {"proposed"}}))
    assert finding.verdict == "contradicted"
    assert finding.reason.startswith("a key is stored, 0 pixels")


def test_c13_counts_the_pixels_of_both_variants():
    finding = find("C13", evidence({"mismatches": {"proposed_sum": [1, 2]}}))
    assert (finding.verdict, finding.effect, finding.unit) == ("supported", 0.0, "pixels")
    assert [(p.effect, p.verdict) for p in finding.parts] == [
        (0.0, "supported"),
        (3.0, "contradicted"),
    ]


def test_seeds_that_disagree_are_inconclusive():
    assert find("C1", evidence(split=0.1)).verdict == "supported"
    finding = find("C7", evidence({"tanaka": {"acc_ten_client": 94.5}}))
    assert finding.verdict == "supported"
    full = evidence({"tanaka": {"acc_ten_client": 94.5}})
    apart = replace(full.scores["tanaka"]["acc_ten_client"], seeds=(93.0, 96.0))
    tanaka = {**full.scores["tanaka"], "acc_ten_client": apart}
    finding = find("C7", replace(full, scores={**full.scores, "tanaka": tanaka}))
    assert finding.verdict == "inconclusive"
    assert "the seeds disagree" in finding.reason


def test_one_training_seed_decides_nothing_that_was_trained():
    full = evidence(seeds=1)
    trained = {s: with_seed_spread(m, seed=0) for s, m in full.scores.items()}
    finding = find("C1", replace(full, scores=trained))
    assert finding.verdict == "inconclusive"
    assert "one training seed cannot tell" in finding.reason


def test_the_number_of_images_is_that_of_the_claims_own():
    world = evidence()
    n = {"C1": 100, "C5": 150, "C6": 150, "C8": 300, "C9": 200, "C12": 200}
    assert {id: find(id, world).n for id in n} == n


def test_a_claim_without_a_test_is_refused():
    claims = {"C99": replace(PAPER.claims["C1"], id="C99")}
    with pytest.raises(InputError, match="claim C99 has no test"):
        judge_claims(evidence(), replace(PAPER, claims=claims))


def test_a_constant_that_paper_yaml_lacks_is_named():
    claims = {"X1": replace(PAPER.claims["X1"], delta=None)}
    with pytest.raises(ValueError, match=r"claim X1 needs delta, has \['identity'\]"):
        judge_claims(evidence(), replace(PAPER, claims=claims))
