from dataclasses import replace

import numpy as np
import pytest

from stages.common.claims import Estimate, Finding
from stages.common.errors import InputError
from stages.deep_features.claims import CLAIMS, Evidence, judge_claims, like_chance, number
from stages.deep_features.score import read_paper

PAPER = read_paper()
CELLS = [f"{model}-{name}" for model in ("bot", "agw", "sbs") for name in ("synth_a", "synth_b")]
RESAMPLES = 1000
# A world in which every claim but that of security is true; metrics of every cell.
TRUE = {
    **{"ba/headline": 0.8, "ba/headline/hat": 0.8, "ba/headline/bag": 0.8, "ba5/headline/bag": 0.8},
    **{"ba/blocks2": 0.79, "ba/blocks3": 0.78},
    **{"imbalanced/headline": 0.8, "imbalanced/unweighted": 0.7},
    **{"distance/pixel": 0.5, "distance/fr": 0.4, "distance/fr_adv": 0.3},
    **{"distance/pixel_equal": 0.55, "distance/fr_equal": 0.45},
    **{"distance/floor": 0.01, "distance/other": 0.9, "distance/wrong": 0.95},
    "distance/mean": 0.8,
    "distance/other there": 0.9,
    **{"hf/pixel": 0.02, "hf/fr": 0.08, "hf/fr_adv": 0.06, "hf/original": 0.09},
    **{"peak/pixel": 0.2, "peak/fr": 1.2, "peak/fr_adv": 0.4, "peak/original": 0.3},
    **{"ba/wrong": 0.501, "ba/popcount": 0.501, "ba/own": 0.6},
    **{"centred/co-same_domain-img1": 0.01, "centred/co-n20-img1": 0.01},
    **{
        "cos/co-same_domain-img1": 0.8,
        "cos/control-mean": 0.8,
        "share_95/co-same_domain-img1": 0.0,
    },
    **{"mean centred/control-aes_gcm": 0.001, "mean centred/control-xor": 0.001},
    **{"ll/best": -3.0, "ll/mean": -5.0},
}
CHANCE = {m: 0.5 for m in TRUE if m.startswith(("ba/", "ba5/"))}
FACTS = {
    **{"wrong_bits": 0.0, "changed_predictions": 0.0, "changed_distances": 0.0},
    **{"self_distance": 1e-8, "keys": 100.0, "weak": 0.05},
}
CHECKS = {
    **{"wrong16": 0.0, "wrong32": 0.0, "wrong64": 0.0, "wrong_special": 0.0, "wrong_inverses": 0.0},
    **{
        "wrong_compositions": 0.0,
        "wrong_definition": 0.0,
        "wrong_rotations": 0.0,
        "wrong_aes": 0.0,
    },
    **{"changed_ones": 990.0, "words": 1000.0, "keys": 10.0, "key_bits": 256.0},
}
GRAPH = {"device": "a GPU", "fullgraph": True, "copies_to_host": 0, "wrong_bits": 0}
SPREAD = 0.002


def estimate(value: float, *, seeds: int = 2, name: str = "", sd: float = SPREAD) -> Estimate:
    rng = np.random.default_rng(sum(map(ord, name)))
    return Estimate(value, rng.normal(value, sd, RESAMPLES), tuple(value for _ in range(seeds)))


def evidence(changes: dict | None = None, *, seeds: int = 2, cells=CELLS, **other) -> Evidence:
    """Return the true world with {metric: value} or {(cell, metric): value} changed."""
    changes = changes or {}

    def value(cell: str, metric: str) -> float:
        return changes.get((cell, metric), changes.get(metric, TRUE[metric]))

    scores = {
        cell: {m: estimate(value(cell, m), seeds=seeds, name=cell + m) for m in TRUE}
        for cell in cells
    }
    return Evidence(
        **{
            "cells": CELLS,
            "scores": scores,
            "n": dict.fromkeys(CELLS, 200),
            "level": 0.95,
            "chance": dict.fromkeys(cells, CHANCE),
            "null": {c: dict.fromkeys(("ba/headline/hat", "ba/headline/bag"), 0.55) for c in cells},
            "facts": dict.fromkeys(cells, FACTS),
            "checks": CHECKS,
            "ones": dict.fromkeys(cells, 0.0),
            "graph": GRAPH,
            **other,
        }
    )


def find(id: str, evidence: Evidence) -> Finding:
    return judge_claims(evidence, replace(PAPER, claims={id: PAPER.claims[id]}))[0]


def parts(finding: Finding) -> dict[str, str]:
    return {part.name: part.verdict for part in finding.parts}


def facts_with(**changes: float) -> dict:
    return {"facts": dict.fromkeys(CELLS, {**FACTS, **changes})}


def checks_with(**changes: float) -> dict:
    return {"checks": {**CHECKS, **changes}}


def test_every_claim_can_be_supported():
    findings = judge_claims(evidence(), PAPER)
    assert {f.id: f.verdict for f in findings} == dict.fromkeys(PAPER.claims, "supported")
    assert all(f.reason and f.effect is not None for f in findings)


AGAINST = {
    "C1": evidence({("sbs-synth_b", "ba/headline/hat"): 0.45}),
    "C2": evidence({"ba/blocks3": 0.85}),
    "C3": evidence({"imbalanced/unweighted": 0.9}),
    "C4": evidence({("agw-synth_a", "distance/fr"): 0.2}),
    "C4b": evidence({"distance/pixel_equal": 0.25}),
    "C5": evidence({("bot-synth_b", "hf/pixel"): 0.1}),
    "C6": evidence(**facts_with(self_distance=1e-4)),
    "C7": evidence(**facts_with(wrong_bits=1.0)),
    "C8": evidence(**checks_with(wrong_inverses=1.0)),
    "C9": evidence(**checks_with(key_bits=64.0)),
    "C10": evidence({"ll/best": 8.0}),
    "C11": evidence(**checks_with(changed_ones=0.0)),
    "C12": evidence({"ba/wrong": 0.7}),
    "C13": evidence({"ba/popcount": 0.6}),
    "C14": evidence(**facts_with(changed_predictions=2.0)),
    "C15": evidence({"centred/co-same_domain-img1": 0.999}),
    "C16": evidence(graph={**GRAPH, "copies_to_host": 1}),
    "C17": evidence({("bot-synth_a", "mean centred/control-aes_gcm"): 0.4}),
}


def test_every_claim_has_its_contrary():
    assert list(AGAINST) == list(CLAIMS) == list(PAPER.claims)


@pytest.mark.parametrize("id", AGAINST)
def test_a_claim_is_contradicted_by_numbers_on_the_other_side(id):
    assert find(id, AGAINST[id]).verdict == "contradicted"


OPEN = {
    "C1": {"ba/headline/hat": 0.501},
    "C2": {"ba/blocks2": 0.805},
    "C3": {"imbalanced/unweighted": 0.8},
    "C4": {"distance/fr": 0.3},
    "C4b": {"distance/fr_equal": 0.3},
    "C5": {"hf/pixel": 0.08},
    "C10": {"ll/best": 0.0},
    "C12": {"distance/other there": 0.95},
    "C13": {"ba/popcount": 0.509},
    "C15": {"centred/co-same_domain-img1": 0.1},
    "C17": {"mean centred/control-aes_gcm": 0.1},
}


@pytest.mark.parametrize("id", OPEN)
def test_a_claim_is_inconclusive_where_the_evidence_reaches_both_sides(id):
    world = OPEN[id]
    if id == "C13":  # a wide interval with 0 in it says nothing, though it contains 0
        found = evidence(world)
        wide = {
            c: {**of, "ba/popcount": estimate(0.5, name=c, sd=0.05)}
            for c, of in found.scores.items()
        }
        assert find(id, replace(found, scores=wide)).verdict == "inconclusive"
    else:
        assert find(id, evidence(world)).verdict == "inconclusive"


FACTUAL = {"C6", "C7", "C8", "C9", "C11", "C14", "C16"}


@pytest.mark.parametrize("id", sorted(set(CLAIMS) - FACTUAL))
def test_one_training_seed_decides_nothing(id):
    for world in (evidence(seeds=1), AGAINST[id]):
        one = {
            c: {m: replace(e, seeds=e.seeds[:1]) for m, e in of.items()}
            for c, of in world.scores.items()
        }
        assert find(id, replace(world, scores=one)).verdict == "inconclusive"


@pytest.mark.parametrize("id", CLAIMS)
def test_nothing_at_all_leaves_every_claim_not_run(id):
    finding = find(id, Evidence(cells=CELLS, scores={}, n={}, level=0.95))
    assert finding.verdict == "not run" and finding.reason


NEEDS = {
    "ba/headline": {"C1", "C2"},
    "ba/blocks3": {"C2"},
    "imbalanced/unweighted": {"C3"},
    "distance/pixel": {"C4"},
    "distance/fr_equal": {"C4b"},
    "peak/fr": {"C5"},
    "hf/original": {"C5"},
    "ll/best": {"C10"},
    "ba/wrong": {"C12"},
    "ba/popcount": {"C13"},
    "centred/co-same_domain-img1": {"C15"},
    "cos/co-same_domain-img1": set(),
    "cos/control-mean": set(),
    "mean centred/control-aes_gcm": {"C17"},
    "mean centred/control-xor": {"C17"},
    "centred/co-n20-img1": set(),
}


@pytest.mark.parametrize("metric", NEEDS)
def test_exactly_the_claims_that_need_a_missing_metric_are_not_run(metric):
    world = evidence()
    scores = {c: {m: e for m, e in of.items() if m != metric} for c, of in world.scores.items()}
    findings = judge_claims(replace(world, scores=scores), PAPER)
    assert {f.id for f in findings if f.verdict == "not run"} == NEEDS[metric]


# ---------------------------------------------------------------- cells


EVERYWHERE = ["C1", "C4", "C4b", "C5", "C12", "C15", "C17"]


@pytest.mark.parametrize("id", EVERYWHERE)
def test_some_cells_do_not_support_a_claim_about_all(id):
    finding = find(id, evidence(cells=CELLS[:2]))
    assert finding.verdict == "inconclusive"
    assert "of 6 cells 2 were run, in all of which it holds" in finding.reason
    lost = {part.name for part in finding.parts if part.verdict == "not run"}
    assert lost == set(CELLS[2:])


def test_one_cell_contradicts_a_claim_about_all():
    world = evidence({"centred/co-same_domain-img1": 0.99}, cells=CELLS[:1])
    finding = find("C15", world)
    assert finding.verdict == "contradicted"
    assert "of 6 cells 1 were run" in finding.reason and "it holds" not in finding.reason


def test_images_of_a_set_count_once():
    assert find("C1", evidence()).n == 400
    assert find("C1", evidence(cells=["bot-synth_a", "agw-synth_a"])).n == 200


# ---------------------------------------------------------------- single rules


def test_an_attribute_must_beat_permuted_labels_too():
    world = evidence()
    null = {c: {**of, "ba/headline/bag": 0.9} for c, of in world.null.items()}
    finding = find("C1", replace(world, null=null))
    assert finding.verdict == "inconclusive"
    assert "smaller than the 0.4 that would matter" in finding.reason
    assert "not shown: bag bot-synth_a" in finding.reason
    assert parts(finding)["ba5 bag bot-synth_a - 1 / K"] == "supported"


def test_a_wrong_key_is_judged_by_a_hundred_keys_and_by_images():
    few = find("C12", evidence(**facts_with(keys=20.0)))
    assert few.verdict == "inconclusive" and "20 random keys, 100 are needed" in few.reason
    world = evidence()
    scores = {c: {m: e for m, e in of.items() if m != "distance/wrong"}
              for c, of in world.scores.items()}  # fmt: skip
    blind = find("C12", replace(world, scores=scores))
    assert blind.verdict == "inconclusive" and "no distance under a wrong key" in blind.reason
    assert find("C12", evidence({"distance/wrong": 0.7})).verdict == "contradicted"
    assert "up to 5.0% of the keys leave |cosine| >= 0.36" in find("C12", world).reason


@pytest.mark.parametrize(
    ("value", "sd", "verdict"),
    [
        (0.0, 0.001, "supported"),
        (0.005, 0.001, "supported"),  # not 0, but too little to matter
        (0.05, 0.005, "contradicted"),
        (-0.05, 0.005, "contradicted"),
        (0.0, 0.05, "inconclusive"),
    ],
)
def test_like_chance_is_inside_the_margin_or_leaves_out_zero(value, sd, verdict):
    from stages.common.claims import decide

    found = replace(estimate(value, sd=sd), trained=True)
    assert decide(like_chance("x", found, margin=0.01), level=0.95).verdict == verdict


def test_the_attack_with_other_references_stands_beside():
    finding = find("C15", evidence({"centred/co-n20-img1": 0.9}))
    assert finding.verdict == "supported"
    assert parts(finding)["median centred cosine n20-img1 bot-synth_a"] == "contradicted"
    assert "median centred cosines 0.010 to 0.010 from one vector" in finding.reason


def test_a_cosine_that_the_mean_has_is_nothing_recovered():
    finding = find("C15", evidence({("agw-synth_b", "cos/control-mean"): 0.95}))
    assert finding.verdict == "supported"
    assert parts(finding)["median cosine same_domain-img1 bot-synth_a"] == "contradicted"
    assert "plain cosines 0.800 to 0.800, of the mean of the adversary's own features, without a " \
        "ciphertext, 0.800 to 0.950" in finding.reason  # fmt: skip
    some = find("C15", evidence({"share_95/co-same_domain-img1": 0.4}))
    name = "share of requests above 0.95 same_domain-img1 bot-synth_a"
    assert (some.verdict, parts(some)[name]) == ("supported", "contradicted")


def test_without_a_checkerboard_there_is_none_to_remove():
    flat = {("bot-synth_b", "peak/fr"): 0.3, ("bot-synth_b", "peak/fr_adv"): 0.5}
    finding = find("C5", evidence(flat))
    assert finding.verdict == "inconclusive"
    assert finding.reason.endswith("there is no checkerboard to remove in bot-synth_b")
    assert parts(finding)["peak fr_adv - fr bot-synth_b"] == "inconclusive"
    kept = find("C5", evidence({"peak/fr_adv": 1.5}))
    assert kept.verdict == "contradicted" and "no checkerboard" not in kept.reason


def test_fine_detail_that_the_original_lacks_is_not_sharp():
    finding = find("C5", evidence({"hf/original": 0.03}))
    assert finding.verdict == "contradicted"
    assert parts(finding)["hf pixel - fr bot-synth_a"] == "supported"
    assert parts(finding)["|hf - original| fr - pixel bot-synth_a"] == "contradicted"


@pytest.mark.parametrize("id", ["C4", "C4b", "C5"])
def test_a_phi_that_sees_smaller_images_than_d_is_named(id):
    words = "φ sees means of 2 × 2 pixels"
    assert words in find(id, evidence(phi_factors=dict.fromkeys(CELLS[:1], 2))).reason
    assert words not in find(id, evidence(phi_factors=dict.fromkeys(CELLS, 1))).reason


def test_a_wrong_key_is_compared_with_other_images_of_the_same_persons():
    assert find("C12", evidence({"distance/other": 2.0})).verdict == "supported"
    assert find("C12", evidence({"distance/other there": 2.0})).verdict == "contradicted"


def test_own_keys_stand_beside_the_key_free_classifier():
    finding = find("C13", evidence())
    assert finding.verdict == "supported"
    assert parts(finding)["ba own key - 1 / K bot-synth_a"] == "contradicted"


def test_the_released_codes_one_key_is_told_and_decides_nothing():
    finding = find("C9", evidence())
    assert finding.verdict == "supported"
    assert "fixed seed gives 1 of them" in finding.reason and "43.21 bits" in finding.reason
    assert parts(finding)["keys that the released code draws"] == "contradicted"


def test_ciphertexts_of_aes_that_do_not_open_contradict():
    assert find("C17", evidence(**checks_with(wrong_aes=3.0))).verdict == "contradicted"
    assert "under AES-GCM the mean centred cosine is +0.001 [" in find("C17", evidence()).reason


def test_aes_is_compared_with_a_guess_and_with_a_key_stream():
    both = {"mean centred/control-aes_gcm": 0.2, "mean centred/control-xor": 0.2}
    finding = find("C17", evidence(both))
    assert finding.verdict == "contradicted"
    assert parts(finding)["mean centred cosine AES-GCM bot-synth_a"] == "contradicted"
    name = "mean centred cosine AES-GCM - key stream bot-synth_a"
    assert parts(finding)[name] == "supported"
    other = find("C17", evidence({"mean centred/control-xor": -0.2}))
    assert other.verdict == parts(other)[name] == "contradicted"


@pytest.mark.parametrize("name", ["wrong16", "wrong32", "wrong64", "wrong_special"])
def test_any_lost_bit_contradicts_losslessness(name):
    finding = find("C7", evidence(**checks_with(**{name: 1.0})))
    assert finding.verdict == "contradicted" and finding.effect == 1


def test_without_cuda_the_graph_is_not_run():
    finding = find("C16", evidence(graph=None))
    assert finding.verdict == "not run" and finding.reason.startswith("no CUDA device")
    assert find("C16", evidence(graph={**GRAPH, "fullgraph": False})).verdict == "contradicted"


def test_the_spread_of_reconstructions_is_pooled_and_of_a_contrast_shared():
    world = evidence(cells=CELLS[:1])
    scores = dict(world.scores["bot-synth_a"])
    scores["distance/fr"] = replace(scores["distance/fr"], seeds=(0.3, 0.5))
    world = replace(world, scores={"bot-synth_a": scores})
    assert world("bot-synth_a", "distance/fr_adv").samples.std() > 5 * SPREAD
    assert world("bot-synth_a", "distance/other").samples.std() < 2 * SPREAD
    both = {m: replace(scores[m], seeds=(0.6, 1.0)) for m in ("ba/headline", "ba/blocks2")}
    world = replace(world, scores={"bot-synth_a": {**scores, **both}})
    contrast = world.contrast("bot-synth_a", "ba/headline", "ba/blocks2")
    assert contrast.seeds == (0.0, 0.0) and contrast.samples.std() < 2 * SPREAD
    assert world("bot-synth_a", "ba/headline").samples.std() > 5 * SPREAD


def test_a_constant_that_paper_yaml_lacks_is_named():
    with pytest.raises(ValueError, match="claim C15 needs limit, has"):
        number(PAPER.claims["C15"], "limit")


def test_a_claim_without_a_test_is_refused():
    strange = replace(PAPER, claims={"C99": replace(PAPER.claims["C1"], id="C99")})
    with pytest.raises(InputError, match="claim C99 has no test"):
        judge_claims(evidence(), strange)


@pytest.mark.parametrize("id", ["C4", "C4b", "C5"])
def test_generators_no_better_than_the_mean_image_decide_nothing(id):
    for changes in ({"distance/mean": 0.35}, {"distance/mean": 0.1}):  # of fr; of both
        finding = find(id, evidence(changes))
        assert finding.verdict == "inconclusive"
        assert "not supported: not shown to be nearer to the originals" in finding.reason
    against = evidence({("agw-synth_a", "distance/fr"): 0.2, "distance/mean": 0.25})
    assert find("C4", against).verdict == "inconclusive"
