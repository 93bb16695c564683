"""The tests that judge the papers, tested themselves: on made-up data whose truth is known.

Every rate is over 1,000 worlds drawn anew, each with its own images, models and training seeds. To
take seconds, an interval is made from 1,000 resamples instead of the 10,000 of the embedded
profile, which moves its ends by some 3 % of its width, and 50 worlds at a time share the resamples.
A rate of 5 % over 1,000 worlds has a standard error of 0.7 points. A value is

    effect of the model + luck of the seed + the image + the image for this model + noise,

the image's part (standard deviation 2, of both drawings of a motif alike) being common to all
models, as in the papers' tables.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from stages.common.bootstrap import mean_interval
from stages.common.claims import (
    Estimate,
    above,
    at_least,
    at_most,
    below,
    decide,
    judge,
    mean_estimates,
    with_seed_spread,
    within,
)

DRAWS, AT_ONCE, RESAMPLES, LEVEL = 1000, 50, 1000, 0.95
ALPHA = 0.07  # 2.5 % in each direction is meant; a bootstrap of few images gives a little more
IMAGE, FIT, NOISE = 2.0, 1.5, 1.0  # standard deviations of the last three terms


@dataclass(frozen=True)
class World:
    """How the data are made; ``models`` beside a and b only tell how much luck there is in seeds.

    drawings : images of one motif, which are drawn together.
    luck : standard deviation of a training seed's effect; 0: nothing is trained.
    """

    motifs: int
    drawings: int = 1
    seeds: int = 1
    luck: float = 0.0
    models: int = 2

    @property
    def groups(self) -> np.ndarray:
        return np.repeat(np.arange(self.motifs), self.drawings)

    @property
    def error(self) -> float:
        """Standard error of the difference of two models' means, from the recipe alone."""
        of_images = FIT**2 / self.motifs + NOISE**2 / (self.motifs * self.drawings * self.seeds)
        return math.sqrt(2 * (of_images + self.luck**2 / self.seeds))


PAIRED = World(motifs=100)
GROUPED = World(motifs=60, drawings=2)
TRAINED = World(motifs=60, drawings=2, seeds=2, luck=0.3, models=8)
WORLDS = {"paired": PAIRED, "grouped": GROUPED, "trained": TRAINED}


def values_of(world: World, rng: np.random.Generator) -> np.ndarray:
    """Return what was measured in one world without any effect: (models, seeds, images)."""
    index, n = world.groups, world.motifs * world.drawings
    of_image = IMAGE * rng.standard_normal(world.motifs)[index]
    of_model = FIT * rng.standard_normal((world.models, 1, world.motifs))[..., index]
    of_seed = world.luck * rng.standard_normal((world.models, world.seeds, 1))
    return of_image + of_model + of_seed + NOISE * rng.standard_normal((*of_seed.shape[:2], n))


def judged(values: np.ndarray, groups: np.ndarray, world: World, seed: int) -> Iterator[Estimate]:
    """Yield a - b of each world, as the stages' scoring makes it: (worlds, models, seeds, n)."""
    named = {(w, m): v for w, of in enumerate(values) for m, v in enumerate(of)}
    means = mean_estimates(named, groups, resamples=RESAMPLES, seed=seed)
    for w in range(len(values)):
        table = {str(m): means[w, m] for m in range(world.models)}
        if world.luck:
            table = with_seed_spread(table, seed=seed + w)
        yield table["0"] - table["1"]


@cache
def differences(name: str, groups: str = "known", spread: bool = True) -> tuple[Estimate, ...]:
    """Return a - b in 1,000 worlds in which a and b are equal.

    ``groups`` "ignored" and ``spread`` False are mistakes, made to see that they are found.
    """
    world, rng = WORLDS[name], np.random.default_rng(20)
    rule = world if spread else replace(world, luck=0.0)
    index = world.groups if groups == "known" else np.arange(world.motifs * world.drawings)
    found = []
    for start in range(0, DRAWS, AT_ONCE):
        values = np.stack([values_of(world, rng) for _ in range(AT_ONCE)])
        found += judged(values, index, rule, start)
    return tuple(found)


def verdicts(estimates, ask=above, **margin) -> Mapping[str, float]:
    """Return the share of each verdict."""
    found = [decide(ask("a - b", e, "", **margin), level=LEVEL).verdict for e in estimates]
    return {v: found.count(v) / len(found) for v in ("supported", "contradicted", "inconclusive")}


def coverage(estimates: tuple[Estimate, ...]) -> float:
    """Return how many intervals hold the truth, which is 0."""
    ends = [e.interval(LEVEL) for e in estimates]
    return float(np.mean([lo <= 0 <= hi for lo, hi in ends]))


def normal(z: float) -> float:
    """Return the standard normal distribution function."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


@pytest.mark.parametrize("name", WORLDS)
def test_equal_models_are_called_different_in_at_most_seven_of_100_worlds_each_way(name):
    found = verdicts(differences(name))
    assert max(found["supported"], found["contradicted"]) <= ALPHA
    assert found["inconclusive"] >= 1 - 2 * ALPHA
    assert verdicts(differences(name), below)["supported"] <= ALPHA
    if not WORLDS[name].luck:  # there an interval may be too wide; here it must err now and then
        assert min(found["supported"], found["contradicted"]) >= 0.01


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("paired", 0.925, 0.97), ("grouped", 0.92, 0.97), ("trained", 0.925, 0.985)],
)
def test_an_interval_holds_the_true_difference_95_times_in_100(name, least, most):
    """Of k motifs a percentile interval misses more: P(|t| < 1.96 sqrt(1 - 1/k)), 94.3 % of 60."""
    assert least <= coverage(differences(name)) <= most


def test_drawings_of_one_motif_taken_for_independent_images_are_found_out():
    assert coverage(differences("grouped", groups="ignored")) < 0.9


def test_training_seeds_taken_for_no_source_of_luck_are_found_out():
    assert coverage(differences("trained", spread=False)) < 0.8


def test_a_skewed_measure_of_200_images_is_covered_nearly_as_often():
    rng, truth, hits = np.random.default_rng(3), math.exp(0.5), 0
    for draw in range(DRAWS // 2):
        values = rng.lognormal(size=200)
        settings = {"resamples": RESAMPLES, "seed": draw, "level": LEVEL}
        _, lo, hi = mean_interval(values, np.arange(200), **settings)
        hits += lo <= truth <= hi
    assert 0.90 <= hits / (DRAWS // 2) <= 0.97  # the percentile interval of a long tail is short


@pytest.mark.parametrize("name", ["paired", "grouped"])
@pytest.mark.parametrize("errors", [2.0, 3.5])
def test_the_power_against_a_planted_difference_is_that_of_theory(name, errors):
    planted = [e + errors * WORLDS[name].error for e in differences(name)]
    z = 1.96
    found = verdicts(planted)
    assert found["supported"] == pytest.approx(normal(errors - z), abs=0.06)
    assert found["contradicted"] <= ALPHA
    assert verdicts(planted, below)["contradicted"] == found["supported"]


def test_a_planted_difference_is_found_across_training_seeds_and_grows_with_its_size():
    shares = []
    for errors in (1.0, 2.0, 4.0):
        found = verdicts([e + errors * TRAINED.error for e in differences("trained")])
        assert found["contradicted"] <= ALPHA
        shares.append(found["supported"])
    assert shares == sorted(shares) and shares[-1] >= 0.9
    # Student's t and the agreement of both seeds cost power, they never add to it
    assert shares[1] <= normal(2.0 - 1.96) + 0.06


@pytest.mark.parametrize("name", WORLDS)
def test_an_effect_that_is_not_significant_stays_inconclusive(name):
    """Never "supported" because nothing speaks against it, nor the other way round."""
    seen = 0
    for e in differences(name):
        lo, hi = e.interval(LEVEL)
        if lo <= 0 <= hi:
            seen += 1
            for ask in (above, below):
                assert decide(ask("a - b", e, ""), level=LEVEL).verdict == "inconclusive"
    assert seen > 900


@pytest.mark.parametrize("name", WORLDS)
def test_equivalence_is_shown_by_much_data_only_and_not_by_little(name):
    equal, error = differences(name), WORLDS[name].error
    assert verdicts(equal, within, margin=5 * error)["supported"] >= 0.95
    assert verdicts(equal, within, margin=error)["supported"] <= 0.01


@pytest.mark.parametrize("name", WORLDS)
def test_a_difference_as_large_as_the_margin_is_rarely_called_equivalent(name):
    margin = 5 * WORLDS[name].error
    for sign in (-1, 1):
        found = verdicts([e + sign * margin for e in differences(name)], within, margin=margin)
        assert found["supported"] <= ALPHA and found["contradicted"] <= ALPHA
        far = [e + 2 * sign * margin for e in differences(name)]
        assert verdicts(far, within, margin=margin)["contradicted"] >= 0.9


@pytest.mark.parametrize(("ask", "sign"), [(at_least, -1), (at_most, 1)])
def test_non_inferiority_at_its_margin_errs_as_rarely(ask, sign):
    margin = 2 * GROUPED.error
    found = verdicts([e + sign * margin for e in differences("grouped")], ask, margin=margin)
    assert 0.01 <= found["supported"] <= ALPHA and 0.01 <= found["contradicted"] <= ALPHA
    better = verdicts([e - sign * 3 * margin for e in differences("grouped")], ask, margin=margin)
    assert better["supported"] >= 0.99


def claims_of(parts: int, true: int) -> list[str]:
    """Judge claims of several independent parts; ``true`` of them hold by ten standard errors."""
    pool, verdicts = differences("grouped"), []
    for start in range(0, DRAWS - DRAWS % parts, parts):
        part = [
            above(str(k), e + (10 * GROUPED.error if k < true else 0), "")
            for k, e in enumerate(pool[start : start + parts])
        ]
        verdicts.append(judge("C", part, level=LEVEL, n=120).verdict)
    return verdicts


def test_a_claim_of_five_parts_without_an_effect_is_rarely_contradicted_and_never_supported():
    found = claims_of(parts=5, true=0)
    assert len(found) == 200
    assert found.count("contradicted") / 200 <= ALPHA + 0.02  # standard error of 5 %: 1.5 points
    assert "supported" not in found


def test_a_claim_one_part_of_which_does_not_hold_is_rarely_supported():
    found = claims_of(parts=2, true=1)
    assert found.count("supported") / len(found) <= ALPHA
    assert claims_of(parts=2, true=2).count("supported") == 500


def test_uncorrected_parts_would_contradict_too_often():
    """What the correction for several parts is for."""
    pool = differences("grouped")
    any_part = [
        any(
            decide(above("", e, ""), level=LEVEL).verdict == "contradicted" for e in pool[i : i + 5]
        )
        for i in range(0, DRAWS, 5)
    ]
    assert np.mean(any_part) > ALPHA


def test_the_luck_of_the_seeds_is_estimated_without_bias():
    """with_seed_spread's added variance is that of the recipe, luck and noise over the seeds."""
    added = []
    rng = np.random.default_rng(1)
    for draw in range(200):
        values = values_of(TRAINED, rng)
        table = {
            str(m): Estimate(float(v.mean()), np.full(400, v.mean()), tuple(v.mean(axis=1)))
            for m, v in enumerate(values)
        }
        spread = with_seed_spread(table, seed=draw)
        added += [e.samples.var() for e in spread.values()]
    freedom = TRAINED.models * (TRAINED.seeds - 1)
    of_noise = NOISE**2 / (TRAINED.motifs * TRAINED.drawings)
    expected = (TRAINED.luck**2 + of_noise) / TRAINED.seeds * freedom / (freedom - 2)
    assert np.mean(added) == pytest.approx(expected, rel=0.1)
