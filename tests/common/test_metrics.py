from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stages.common.histograms import (
    BINS,
    ab_histogram_2d,
    ab_histograms,
    js_divergence,
    log_histogram,
    log_histogram_distance,
    overlap,
    shares,
    wasserstein,
)
from stages.common.metrics import (
    colourfulness,
    mean_absolute_error,
    mean_chroma,
    mean_squared_error,
    psnr,
    ssim,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(3, 16, 16, 3), dtype=np.uint8)
OTHERS = RNG.integers(256, size=(3, 16, 16, 3), dtype=np.uint8)


def test_identical_images_have_no_error_and_the_capped_psnr():
    np.testing.assert_array_equal(mean_absolute_error(IMAGES, IMAGES), 0)
    np.testing.assert_array_equal(psnr(IMAGES, IMAGES, data_range=255, cap=60), 60)
    assert np.isinf(psnr(IMAGES, IMAGES, data_range=255)).all()


def test_unsigned_differences_do_not_wrap_around():
    dark, bright = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)
    assert mean_absolute_error(dark, bright) == 255
    assert mean_squared_error(dark, bright) == 255**2
    assert psnr(dark, bright, data_range=255) == pytest.approx(0)


def test_psnr_equals_scikit_image():
    ours = psnr(IMAGES, OTHERS, data_range=255)
    for x, y, dB in zip(IMAGES, OTHERS, ours, strict=True):
        assert dB == pytest.approx(peak_signal_noise_ratio(x, y, data_range=255))


def test_psnr_needs_a_positive_data_range():
    with pytest.raises(ValueError, match="data_range must be positive, is 0"):
        psnr(IMAGES, OTHERS, data_range=0)


def test_ssim_is_1_for_identical_images_and_scikit_images_otherwise():
    np.testing.assert_allclose(ssim(IMAGES, IMAGES, data_range=255), 1)
    theirs = structural_similarity(IMAGES[0], OTHERS[0], channel_axis=-1, data_range=255)
    assert ssim(IMAGES, OTHERS, data_range=255)[0] == theirs
    wang = structural_similarity(
        IMAGES[0],
        OTHERS[0],
        channel_axis=-1,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(IMAGES, OTHERS, data_range=255, gaussian=True)[0] == wang != theirs


def test_mean_chroma_of_3_and_4_is_5():
    ab = np.broadcast_to(np.float32([3, -4])[:, None, None], (2, 2, 5, 5))
    np.testing.assert_allclose(mean_chroma(ab), 5)
    assert mean_chroma(ab[0]) == 5


def test_colourfulness_of_grey_is_0():
    grey = np.repeat(RNG.integers(256, size=(2, 8, 8, 1), dtype=np.uint8), 3, axis=3)
    np.testing.assert_array_equal(colourfulness(grey), 0)


def test_colourfulness_of_a_known_patch():
    # one red, one blue pixel: rg = 255, 0; yb = 127.5, -255
    # var rg = 127.5^2, var yb = 191.25^2; mean rg = 127.5, mean yb = -63.75
    patch = np.array([[[[255, 0, 0], [0, 0, 255]]]], np.uint8)
    expected = np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, 63.75)
    assert colourfulness(patch)[0] == pytest.approx(expected) == pytest.approx(272.61, abs=0.01)


AB = RNG.uniform(-80, 90, size=(4, 2, 6, 5)).astype(np.float32)


def test_histogram_counts_sum_to_the_pixels_of_both_channels():
    counts = ab_histograms(AB)
    assert counts.shape == (4, 2, BINS)
    np.testing.assert_array_equal(counts.sum((1, 2)), 2 * 6 * 5)
    assert ab_histogram_2d(AB).sum() == 4 * 6 * 5


def test_histograms_equal_numpys_with_the_authors_edges():
    edges = np.arange(-110, 110)
    for image, counts in zip(AB, ab_histograms(AB), strict=True):
        for channel in range(2):
            expected = np.histogram(image[channel], edges)[0]
            np.testing.assert_array_equal(counts[channel], expected)
    coarse = np.arange(-110, 120, 10)
    expected = np.histogram2d(AB[:, 0].ravel(), AB[:, 1].ravel(), [coarse, coarse])[0]
    np.testing.assert_array_equal(ab_histogram_2d(AB), expected)


def test_a_colour_outside_every_bin_is_refused():
    for wrong in (-110.5, 110):
        with pytest.raises(ValueError, match="for sRGB colours"):
            ab_histograms(np.full((1, 2, 2, 2), wrong, np.float32))
        with pytest.raises(ValueError, match="for sRGB colours"):
            ab_histogram_2d(np.full((1, 2, 2, 2), wrong, np.float32))
    with pytest.raises(ValueError, match="bins of 7 do not tile"):
        ab_histogram_2d(AB, width=7)


P, Q = RNG.integers(0, 9, size=(2, 3, 20))
Q[:, -1] += 1
P[:, 0] += 1


def test_equal_histograms_are_at_distance_0_with_overlap_1():
    np.testing.assert_allclose(overlap(P, 3 * P), 1)
    np.testing.assert_allclose(js_divergence(P, 3 * P), 0, atol=1e-12)
    np.testing.assert_allclose(wasserstein(P, 3 * P, width=1), 0, atol=1e-12)
    np.testing.assert_allclose(log_histogram_distance(P, P, floor=0.5), 0)


def test_disjoint_histograms_have_overlap_0_and_divergence_1():
    p, q = np.array([3, 0, 0]), np.array([0, 0, 7])
    assert overlap(p, q) == 0
    assert js_divergence(p, q) == pytest.approx(1)
    assert wasserstein(p, q, width=10) == pytest.approx(20)


def test_divergence_and_wasserstein_equal_scipys():
    centres = np.arange(20) * 2.5
    js, w1 = js_divergence(P, Q), wasserstein(P, Q, width=2.5)
    for i in range(3):
        assert js[i] == pytest.approx(jensenshannon(P[i], Q[i], base=2) ** 2)
        assert w1[i] == pytest.approx(wasserstein_distance(centres, centres, P[i], Q[i]))


def test_leading_axes_broadcast_as_bootstrap_resamples_need():
    resampled = RNG.random((5, 3, 20))
    area = partial(log_histogram_distance, floor=0.1)
    for distance in (overlap, js_divergence, area):
        assert distance(resampled, Q).shape == (5, 3)
        assert distance(resampled, Q)[4, 1] == pytest.approx(distance(resampled[4, 1], Q[1]))
    assert wasserstein(resampled, Q, width=1).shape == (5, 3)


def test_empty_bins_of_a_log_histogram_get_its_least_value():
    h = log_histogram(np.array([0, 1, np.e]))
    np.testing.assert_allclose(h, [0, 0, 1])


def test_area_between_log_histograms_by_hand_and_not_moved_by_bins_empty_in_both():
    # raised to 1: ln p = 0, 0, 1, 0 and ln q = 1, 0, 0, 0 -> mean |difference| = 2/4
    p, q = np.array([0, 1, np.e, 0]), np.array([np.e, 0, 1, 0])
    assert log_histogram_distance(p, q, floor=1) == pytest.approx(2 / 4)
    rare = p + np.array([0, 0, 0, 0.5])  # one rare colour below the floor changes nothing
    assert log_histogram_distance(rare, q, floor=1) == pytest.approx(2 / 4)


def test_empty_histograms_are_refused():
    with pytest.raises(ValueError, match="1 of 2 histograms are empty"):
        shares(np.array([[1, 2], [0, 0]]))
    with pytest.raises(ValueError, match="a histogram is empty"):
        log_histogram(np.zeros(3))
