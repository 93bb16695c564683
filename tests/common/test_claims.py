import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.claims import (
    Estimate,
    Finding,
    MissingEvidenceError,
    above,
    as_record,
    at_least,
    at_most,
    attempt,
    below,
    combine,
    decide,
    exactly,
    holds,
    judge,
    load_paper,
    mean_estimates,
    not_run,
    verdict_table,
    with_seed_spread,
    within,
    witness,
)
from stages.common.errors import InputError

LEVEL = 0.95


def estimate(value: float, spread: float = 0.1, seeds: tuple[float, ...] = ()) -> Estimate:
    """Normal resamples around ``value``, by their quantiles."""
    steps = np.linspace(-3, 3, 601) * spread
    return Estimate(float(value), value + steps, seeds or (float(value),))


def verdict(*criteria, level: float = LEVEL) -> str:
    return judge("C", criteria, level=level, n=10).verdict


@pytest.mark.parametrize(
    ("value", "expected"), [(1.0, "supported"), (-1.0, "contradicted"), (0.1, "inconclusive")]
)
def test_a_direction_is_decided_by_the_interval(value, expected):
    assert verdict(above("x", estimate(value), "")) == expected
    assert verdict(below("x", estimate(-value), "")) == expected


def test_an_effect_of_exactly_zero_is_inconclusive():
    assert verdict(above("x", exactly(0.0), "")) == "inconclusive"
    assert verdict(below("x", exactly(0.0), "")) == "inconclusive"


def test_seeds_that_disagree_make_a_clear_interval_inconclusive():
    assert verdict(above("x", estimate(1.0, seeds=(2.1, -0.1)), "")) == "inconclusive"
    assert verdict(above("x", estimate(-1.0, seeds=(-2.1, 0.1)), "")) == "inconclusive"
    finding = judge("C", [above("x", estimate(1.0, seeds=(2.1, -0.1)), "")], level=LEVEL, n=10)
    assert "the seeds disagree (1 of 2 as claimed)" in finding.reason
    assert finding.seeds == 2


def test_a_margin_must_be_cleared_by_the_interval_and_does_not_move_the_contradiction():
    assert verdict(above("x", estimate(1.0), "", margin=0.5)) == "supported"
    assert verdict(above("x", estimate(1.0), "", margin=0.9)) == "inconclusive"
    assert verdict(above("x", estimate(0.5), "", margin=0.9)) == "inconclusive"
    assert verdict(below("x", estimate(-1.0), "", margin=0.5)) == "supported"
    assert verdict(below("x", estimate(1.0), "", margin=5.0)) == "contradicted"


def test_an_effect_too_small_to_matter_is_inconclusive():
    assert verdict(above("x", estimate(1.0), "", least=0.9)) == "supported"
    assert verdict(above("x", estimate(1.0), "", least=1.1)) == "inconclusive"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "supported"), (0.9, "inconclusive"), (2.0, "contradicted"), (-2.0, "contradicted")],
)
def test_equivalence_asks_for_the_whole_interval_inside_the_margin(value, expected):
    assert verdict(within("x", estimate(value), "", margin=1.0)) == expected


def test_equivalence_needs_every_seed_inside_the_margin():
    assert verdict(within("x", estimate(0.0, seeds=(1.5, -1.5)), "", margin=1.0)) == "inconclusive"
    outside = estimate(2.0, seeds=(4.5, -0.5))
    assert verdict(within("x", outside, "", margin=1.0)) == "inconclusive"


def test_non_inferiority_allows_the_margin_and_no_more():
    assert verdict(at_most("x", estimate(0.5), "", margin=1.0)) == "supported"
    assert verdict(at_most("x", estimate(1.0), "", margin=1.0)) == "inconclusive"
    assert verdict(at_most("x", estimate(1.5), "", margin=1.0)) == "contradicted"
    assert verdict(at_least("x", estimate(-0.5), "", margin=1.0)) == "supported"
    assert verdict(at_least("x", estimate(-1.5), "", margin=1.0)) == "contradicted"


def test_a_conjunction_takes_its_numbers_from_the_weakest_part():
    strong, weak = above("strong", estimate(9.0), "dB"), above("weak", estimate(0.3), "ab")
    finding = judge("C", [strong, weak], level=LEVEL, n=7)
    assert (finding.verdict, finding.effect, finding.unit, finding.n) == (
        "supported",
        0.3,
        "ab",
        7,
    )
    assert [part.name for part in finding.parts] == ["strong", "weak"]


def test_a_conjunction_is_inconclusive_if_one_part_is():
    parts = [above("a", estimate(9.0), ""), above("b", estimate(0.0), "")]
    assert verdict(*parts) == "inconclusive"


def test_a_contradicted_part_counts_only_at_the_corrected_level():
    rng = np.random.default_rng(0)
    barely = Estimate(-2.1, rng.normal(-2.1, 1.0, 20_000), (-2.1,))  # z = 2.1: p = 0.036
    clearly = Estimate(-4.0, rng.normal(-4.0, 1.0, 20_000), (-4.0,))
    fine = [above(f"fine {i}", estimate(5.0), "") for i in range(4)]
    assert verdict(above("x", barely, "")) == "contradicted"
    assert verdict(above("x", clearly, ""), *fine) == "contradicted"
    finding = judge("C", [above("x", barely, ""), *fine], level=LEVEL, n=1)
    assert finding.verdict == "inconclusive"
    assert finding.parts[0].verdict == "contradicted"
    assert "not once corrected for 5 parts" in finding.reason


def test_parts_beside_the_claim_are_reported_and_do_not_decide():
    against = above("beside", estimate(-9.0), "")
    finding = judge("C", [above("x", estimate(1.0), "")], level=LEVEL, n=1, also=[against])
    assert finding.verdict == "supported"
    assert finding.parts[1].verdict == "contradicted"


def test_a_claim_needs_a_criterion():
    with pytest.raises(ValueError, match="claim C has no criterion"):
        judge("C", [], level=LEVEL, n=1)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([True, True], "supported"),
        ([False, False], "contradicted"),
        ([True, False], "inconclusive"),
        ([True, None], "inconclusive"),
        ([None, None], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_an_event_must_be_seen_in_every_run(outcomes, expected):
    assert witness("C", outcomes, effect=None, unit="", why="").verdict == expected


def test_one_run_of_an_event_without_a_test_concludes_nothing():
    finding = witness("C", [True], effect=1.0, unit="", why="seen", least=2)
    assert finding.verdict == "inconclusive"
    assert "1 seed, 2 are needed" in finding.reason


def test_missing_evidence_becomes_not_run_with_its_reason():
    def test() -> Finding:
        raise MissingEvidenceError("bn has no evaluation")

    finding = attempt("C9", test)
    assert finding == not_run("C9", "bn has no evaluation")
    assert (finding.verdict, finding.effect, finding.seeds) == ("not run", None, None)


def test_other_errors_are_not_swallowed():
    def test() -> Finding:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        attempt("C9", test)


def test_points_decide_claims_about_printed_numbers():
    assert holds(judge("C", [below("x", exactly(-0.06), "")], level=LEVEL, n=1)) is True
    assert holds(judge("C", [below("x", exactly(0.06), "")], level=LEVEL, n=1)) is False
    assert holds(not_run("C", "not printed")) is None


def test_estimates_subtract_resample_by_resample():
    values = {
        "a": np.array([[1.0, 5.0, 9.0]], np.float32),
        "b": np.array([[0.5, 4.5, 8.5]], np.float32),
    }
    means = mean_estimates(values, np.arange(3), resamples=200, seed=1)
    paired = means["a"] - means["b"]
    assert paired.value == pytest.approx(0.5)
    np.testing.assert_allclose(paired.samples, 0.5, rtol=1e-6)
    assert means["a"].samples.std() > 1  # each alone varies much


def test_means_average_over_seeds_and_keep_each():
    values = {"x": np.array([[1.0, 3.0], [5.0, 7.0]], np.float32)}
    mean = mean_estimates(values, np.arange(2), resamples=10, seed=0)["x"]
    assert (mean.value, mean.seeds) == (4.0, (2.0, 6.0))
    assert mean.samples.shape == (10,)
    assert set(mean.samples) <= {3.0, 4.0, 5.0}


def test_an_untrained_statistic_pairs_with_any_number_of_seeds():
    difference = estimate(3.0, seeds=(2.0, 4.0)) - estimate(1.0)
    assert difference.seeds == (1.0, 3.0)


def test_estimates_of_other_resamples_or_seeds_cannot_be_paired():
    with pytest.raises(ValueError, match="resamples"):
        exactly(1.0) - estimate(1.0)
    with pytest.raises(ValueError, match="2, 3"):
        estimate(1.0, seeds=(1.0, 1.0)) - estimate(1.0, seeds=(1.0, 1.0, 1.0))


def test_an_estimate_refuses_nan():
    with pytest.raises(ValueError, match="not finite"):
        Estimate(1.0, np.array([1.0, math.nan]), (1.0,))


finite = st.floats(-100, 100, allow_nan=False)


@given(value=finite, spread=st.floats(0, 50), seeds=st.lists(finite, min_size=1, max_size=4))
@settings(deadline=None)
def test_swapping_the_direction_swaps_supported_and_contradicted(value, spread, seeds):
    e = estimate(value, spread, tuple(seeds))
    swapped = {"supported": "contradicted", "contradicted": "supported"}
    up, down = decide(above("x", e, ""), level=LEVEL), decide(below("x", e, ""), level=LEVEL)
    assert down.verdict == swapped.get(up.verdict, up.verdict)


@given(value=finite, spread=st.floats(0, 50), margin=st.floats(0.01, 50))
@settings(deadline=None)
def test_mirroring_the_effect_and_the_claim_changes_nothing(value, spread, margin):
    e = estimate(value, spread)
    mirrored = combine(np.negative, e)
    for ask, mirror in ((above, below), (at_least, at_most), (within, within)):
        first = decide(ask("x", e, "", margin=margin), level=LEVEL)
        second = decide(mirror("x", mirrored, "", margin=margin), level=LEVEL)
        assert first.verdict == second.verdict


@given(
    values=st.lists(st.tuples(finite, st.floats(0.01, 20)), min_size=1, max_size=5),
    level=st.floats(0.5, 0.99),
)
@settings(deadline=None)
def test_a_conjunction_never_says_more_than_its_parts(values, level):
    criteria = [above(str(i), estimate(v, s), "") for i, (v, s) in enumerate(values)]
    finding = judge("C", criteria, level=level, n=1)
    verdicts = [part.verdict for part in finding.parts]
    assert (finding.verdict == "supported") == (set(verdicts) == {"supported"})
    if finding.verdict == "contradicted":
        assert "contradicted" in verdicts
    assert finding.effect in [v for v, _ in values]


def test_the_table_for_the_terminal_aligns_its_columns():
    findings = [
        judge("C1", [above("x", estimate(1.0), "dB")], level=LEVEL, n=1),
        not_run("C10", "bn is not among the variants"),
    ]
    head, first, second = verdict_table(findings).splitlines()
    assert head.index("verdict") == first.index("supported") == second.index("not run")
    assert "+1 dB [+0.715, +1.29]" in first
    assert second.endswith("-                      bn is not among the variants")


PAPER = """
paper: Author et al. 2020
setting: {size: 32}
cells:
  - {id: T1.a, metric: psnr, paper: 20.5, variant: a}
  - {id: T1.a, metric: ssim, paper: null, variant: a}
figures:
  - {id: F1, what: curves}
claims:
  - {id: C1, statement: a is best, source: Table I, test: psnr(a) highest, delta: 0.1}
"""


def load(folder: Path, text: str):
    path = folder / "paper.yaml"
    path.write_text(text)
    return load_paper(path, axes=("variant",))


def test_a_paper_is_read_with_its_numbers(tmp_path):
    paper = load(tmp_path, PAPER)
    assert [(c.id, c.metric, c.paper, c.axes) for c in paper.cells] == [
        ("T1.a", "psnr", 20.5, {"variant": "a"}),
        ("T1.a", "ssim", None, {"variant": "a"}),
    ]
    assert paper.claims["C1"].delta == 0.1
    assert paper.setting == {"size": 32}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("statement: a", "statment: a", "claim C1 has the unknown key 'statment'.*did you mean"),
        ("source: Table I, ", "", "claim C1 lacks the key 'source'"),
        ("variant: a}\n  - {id: T1.a, m", "varant: a}\n  - {id: T1.a, m", "unknown key 'varant'"),
        ("metric: ssim", "metric: psnr", r"cell \('T1.a', 'psnr'\) stands more than once"),
        ("paper: 20.5", "paper: high", "cell T1.a.paper is wrong: expected a number, found 'high'"),
        ("delta: 0.1", "delta: .nan", "claim C1.delta is wrong"),
        ("setting: {size: 32}\n", "", "the file lacks the key 'setting'"),
        ("figures:", "figure:", "the file has the unknown key 'figure'"),
        ("paper: Author", "paper: x\npaper: Author", "cannot be read: expected YAML with every"),
        ("  - {id: F1, what: curves}", "  - F1", "a figure is not a map"),
    ],
)
def test_a_wrong_paper_file_is_refused_by_name(tmp_path, old, new, message):
    assert old in PAPER
    with pytest.raises(InputError, match=message):
        load(tmp_path, PAPER.replace(old, new))


def test_a_claim_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="claim C1 stands more than once"):
        load(tmp_path, PAPER + PAPER.strip().splitlines()[-1] + "\n")


def test_a_missing_paper_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml: cannot be read"):
        load_paper(tmp_path / "nowhere.yaml", axes=())


def test_a_record_carries_the_claim_and_its_verdict(tmp_path):
    claim = load(tmp_path, PAPER).claims["C1"]
    finding = judge("C1", [above("x", estimate(1.0), "dB")], level=LEVEL, n=5)
    record = as_record(claim, finding, True)
    assert record["statement"] == "a is best"
    assert record["table1"] is True
    assert record["parts"][0]["verdict"] == record["verdict"] == "supported"
    assert record.keys() >= {"id", "source", "reason", "effect", "lo", "hi", "unit", "n", "seeds"}


def models(*means, trained_twice=0.0):
    """Means of several models with no image noise; the seeds of each lie +- trained_twice off."""
    return {
        f"m{i}": Estimate(m, np.full(4000, m), (m - trained_twice, m + trained_twice))
        for i, m in enumerate(means)
    }


def test_the_spread_of_the_seeds_is_pooled_over_models():
    spread = with_seed_spread(models(1.0, 2.0, 5.0, 9.0, trained_twice=0.1), seed=0)
    # variance between two seeds 0.2 apart: 0.02; of a mean of two: 0.01; Student's t with 4
    # degrees of freedom has 95 % within 2.776
    for name, mean in zip(spread, (1.0, 2.0, 5.0, 9.0), strict=True):
        lo, hi = spread[name].interval(0.95)
        assert hi - lo == pytest.approx(2 * 2.776 * 0.1, rel=0.1)
        assert spread[name].value == mean
    draws = [e.samples - e.value for e in spread.values()]
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1  # each model has its own luck


def test_a_difference_smaller_than_the_seeds_spread_decides_nothing():
    near = with_seed_spread(models(1.0, 1.03, 1.0, 1.0, trained_twice=0.1), seed=0)
    far = with_seed_spread(models(1.0, 2.0, 1.0, 1.0, trained_twice=0.1), seed=0)
    assert verdict(above("near", near["m1"] - near["m0"], "ab")) == "inconclusive"
    assert verdict(above("far", far["m1"] - far["m0"], "ab")) == "supported"


def test_seeds_that_agree_exactly_add_nothing():
    same = models(1.0, 2.0)
    for name, e in with_seed_spread(same, seed=0).items():
        np.testing.assert_array_equal(e.samples, same[name].samples)


def test_one_training_seed_decides_nothing_and_a_baseline_needs_none():
    once = with_seed_spread({"a": estimate(5.0), "b": estimate(1.0)}, seed=0)
    assert verdict(above("trained", once["a"] - once["b"], "ab")) == "inconclusive"
    assert verdict(above("baselines", estimate(5.0) - estimate(1.0), "ab")) == "supported"
