import time

import numpy as np
import pytest

from stages.common.bootstrap import bootstrap_means, bootstrap_weights, interval, mean_interval

GROUPS = np.array([0, 0, 1, 2, 2, 2, 3])


def test_weights_of_a_resample_sum_to_1():
    weights = bootstrap_weights(GROUPS, 200, seed=0)
    assert weights.shape == (200, 7) and weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_images_of_a_cluster_are_drawn_together():
    weights = bootstrap_weights(GROUPS, 200, seed=0)
    for group in np.unique(GROUPS):
        assert (np.ptp(weights[:, group == GROUPS], axis=1) == 0).all()
    assert (weights == 0).any()


def test_same_seed_draws_the_same_and_another_does_not():
    first = bootstrap_weights(GROUPS, 50, seed=3)
    np.testing.assert_array_equal(first, bootstrap_weights(GROUPS, 50, seed=3))
    assert not np.array_equal(first, bootstrap_weights(GROUPS, 50, seed=4))


def test_resampled_means_are_the_weighted_sums():
    values = np.random.default_rng(0).normal(size=(3, 7))
    means = bootstrap_means(values, GROUPS, 100, seed=5)
    assert means.shape == (100, 3)
    np.testing.assert_allclose(means, bootstrap_weights(GROUPS, 100, seed=5) @ values.T, atol=1e-6)


def test_draws_do_not_depend_on_how_they_are_split_into_blocks(monkeypatch):
    whole = bootstrap_weights(GROUPS, 100, seed=1)
    monkeypatch.setattr("stages.common.bootstrap.DRAWS_AT_ONCE", 10)
    np.testing.assert_array_equal(bootstrap_weights(GROUPS, 100, seed=1), whole)


def test_interval_of_a_mean_has_the_width_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    effect, lo, hi = mean_interval(values, np.arange(400), resamples=10_000, seed=0, level=0.95)
    assert effect == pytest.approx(values.mean())
    assert hi - lo == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_doubled_images_widen_the_clustered_interval_only():
    values = np.repeat(np.random.default_rng(0).normal(size=200), 2)
    together = mean_interval(values, np.arange(400) // 2, resamples=4000, seed=0, level=0.95)
    apart = mean_interval(values, np.arange(400), resamples=4000, seed=0, level=0.95)
    ratio = (together[2] - together[1]) / (apart[2] - apart[1])
    assert ratio == pytest.approx(np.sqrt(2), rel=0.08)


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        values = rng.normal(size=80)
        _, lo, hi = mean_interval(values, np.arange(80), resamples=500, seed=trial, level=0.9)
        hits += lo <= 0 <= hi
    assert 0.84 <= hits / 300 <= 0.95


def test_ten_thousand_resamples_of_500_images_take_well_under_a_second():
    values = np.random.default_rng(0).normal(size=500)
    fastest = np.inf
    for _ in range(3):
        start = time.process_time()
        mean_interval(values, np.arange(500), resamples=10_000, seed=0, level=0.95)
        fastest = min(fastest, time.process_time() - start)
    assert fastest < 1


def test_nan_and_nothing_are_refused():
    with pytest.raises(ValueError, match="1 values are not finite"):
        bootstrap_means(np.array([1.0, np.nan]), np.arange(2), 10, 0)
    with pytest.raises(ValueError, match="0 images"):
        bootstrap_weights(np.zeros(0, np.int64), 10, 0)
    with pytest.raises(ValueError, match="resamples must be at least 1, is 0"):
        bootstrap_means(np.ones(3), np.arange(3), 0, 0)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), is 95.0"):
        interval(np.arange(5.0), 95.0)
    with pytest.raises(ValueError, match="1 resampled statistics are NaN"):
        interval(np.array([0.0, np.nan]), 0.95)
