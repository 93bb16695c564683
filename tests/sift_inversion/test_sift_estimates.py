import numpy as np
import pytest
from scipy.linalg import sqrtm

from stages.common.claims import mean_estimates
from stages.sift_inversion.estimates import (
    at_equal,
    correlation,
    frechet,
    means_of_present,
    permutation_p,
)

RNG = np.random.default_rng(0)
N = 60
GROUPS = np.arange(N, dtype=np.int64) // 2
DRAW = {"resamples": 300, "seed": 0}


# ---------------------------------------------------------------- means


def test_means_of_whole_values_are_the_common_ones():
    values = {"a": RNG.normal(size=(2, N)), "b": RNG.normal(size=(1, N))}
    ours = means_of_present(values, GROUPS, **DRAW)
    common = mean_estimates(values, GROUPS, **DRAW)
    for name in values:
        assert ours[name].value == pytest.approx(common[name].value)
        assert ours[name].seeds == pytest.approx(common[name].seeds)
        np.testing.assert_allclose(ours[name].samples, common[name].samples)


def test_images_without_a_value_do_not_count():
    values = RNG.normal(size=(2, N))
    values[:, 10:20] = np.nan
    found = means_of_present({"a": values, "b": np.ones((1, N))}, GROUPS, **DRAW)["a"]
    assert found.value == pytest.approx(np.nanmean(values))
    assert found.seeds == pytest.approx(np.nanmean(values, axis=1).tolist())
    assert np.isfinite(found.samples).all()
    # of one constant, every resample's mean is that constant, however many lack it
    constant = np.where(np.isnan(values), np.nan, 7.0)
    assert means_of_present({"c": constant}, GROUPS, **DRAW)["c"].samples == pytest.approx(7.0)


def test_what_too_few_images_have_is_left_out():
    values = np.full((2, N), np.nan)
    assert means_of_present({"none": values, "all": np.ones((1, N))}, GROUPS, **DRAW).keys() == {
        "all"
    }
    values[:, 0] = 1.0
    assert means_of_present({"one": values}, GROUPS, **DRAW) == {}


# ---------------------------------------------------------------- correlation


def test_correlation_is_pearsons_of_each_seed():
    y = RNG.normal(100, 5, N)
    x = np.stack([y + RNG.normal(0, 5, N), RNG.normal(100, 5, N)])
    found = correlation(x, y, GROUPS, **DRAW)
    assert found.seeds == pytest.approx([np.corrcoef(row, y)[0, 1] for row in x])
    assert found.value == pytest.approx(np.mean(found.seeds))
    assert abs(found.samples.mean() - found.value) < 0.05
    assert 0.02 < found.samples.std() < 0.3


def test_what_is_constant_correlates_with_nothing():
    y = RNG.normal(100, 5, N)
    assert correlation(np.full((1, N), 128.0), y, GROUPS, **DRAW).value == 0.0
    assert correlation(y[None], y, GROUPS, **DRAW).samples == pytest.approx(1.0)


def test_the_permutation_test_finds_what_is_there_and_only_that():
    y = RNG.normal(100, 5, N)
    near = np.stack([y + RNG.normal(0, 5, N) for _ in range(2)])
    options = {"permutations": 999, "seed": 0}
    assert permutation_p(near, y, GROUPS, **options) == pytest.approx(0.001)
    assert permutation_p(-near, y, GROUPS, **options) > 0.99
    assert permutation_p(np.full((2, N), 128.0), y, GROUPS, **options) == 1.0
    p = [
        permutation_p(RNG.normal(size=(1, N)), y, GROUPS, permutations=99, seed=i)
        for i in range(200)
    ]
    assert 0.02 < np.mean(np.array(p) <= 0.1) < 0.2


# ---------------------------------------------------------------- at equal covariates


def test_a_difference_at_equal_covariates_is_the_regressions_intercept():
    covariates = RNG.normal(2, 1, (2, N))
    difference = 0.3 + 0.5 * covariates[0] - 2 * covariates[1] + RNG.normal(0, 0.1, (2, N))
    found = at_equal(difference, covariates, GROUPS, **DRAW)
    X = np.column_stack([np.ones(N), *covariates])
    for seed, row in zip(found.seeds, difference, strict=True):
        assert seed == pytest.approx(np.linalg.lstsq(X, row)[0][0], rel=1e-6)
    assert found.value == pytest.approx(0.3, abs=0.1)
    lo, hi = found.interval(0.95)
    assert lo < found.value < hi < found.value + 0.2


def test_covariates_that_are_always_equal_change_nothing():
    difference = RNG.normal(1, 0.1, (1, N))
    found = at_equal(difference, np.zeros((2, N)), GROUPS, **DRAW)
    assert found.value == pytest.approx(difference.mean())
    means = mean_estimates({"d": difference}, GROUPS, **DRAW)["d"]
    np.testing.assert_allclose(found.samples, means.samples)


# ---------------------------------------------------------------- Frechet distance


def test_the_frechet_distance_is_its_formula():
    real, fake = RNG.normal(size=(N, 5)), RNG.normal(0.3, 1.5, (2, N, 5))
    found = frechet({"a": fake}, real, GROUPS, resamples=50, seed=0)["a"]

    def by_hand(x: np.ndarray, y: np.ndarray) -> float:
        C1, C2 = (np.cov(v.T, bias=True) for v in (x, y))
        root = np.real(sqrtm(C1 @ C2))
        return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(C1 + C2 - 2 * root))

    assert found.seeds == pytest.approx([by_hand(real, f) for f in fake], rel=1e-4)
    assert found.value == pytest.approx(np.mean(found.seeds))
    lo, hi = found.interval(0.95)
    assert lo < found.value < hi


def test_equal_features_have_no_distance_and_shifted_ones_their_shift():
    real = RNG.normal(size=(N, 5)).astype(np.float32)
    shift = np.array([3, 4, 0, 0, 0], np.float32)
    fakes = {"same": real[None], "shifted": (real + shift)[None]}
    found = frechet(fakes, real, GROUPS, resamples=70, seed=0)
    assert found["same"].value == pytest.approx(0, abs=1e-5)
    assert found["same"].samples == pytest.approx(0, abs=1e-4)
    assert found["shifted"].value == pytest.approx(25, rel=1e-4)
    assert found["shifted"].samples == pytest.approx(25, rel=1e-3)  # a paired resample moves both


def test_more_features_than_images_are_no_trouble():
    real = RNG.normal(size=(8, 20))
    fake = {"a": real[None] + 1}
    found = frechet(fake, real, np.arange(8, dtype=np.int64), resamples=10, seed=0)
    assert found["a"].value == pytest.approx(20, rel=1e-3)
