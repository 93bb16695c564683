import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from stages.deep_features.estimates import (
    average,
    balanced_accuracy,
    draw_identities,
    identities_of_classes,
    kept_by_every_key,
    mean_over_images,
    median_over_requests,
    permuted_accuracy,
    without_draw,
)

RNG = np.random.default_rng(0)
IDS, EACH = 30, 4
PIDS = np.repeat(np.arange(IDS), EACH)
LABELS = np.repeat(np.arange(IDS) % 3, EACH)


def draws(pids=PIDS, resamples=500):
    return draw_identities(pids, resamples=resamples, seed=0)


def test_balanced_accuracy_is_scikit_learns_also_with_absent_classes():
    predictions = RNG.integers(5, size=(2, len(LABELS)))  # classes 3 and 4 are not in test
    correct = (predictions == LABELS).astype(np.float64)
    counted = np.array([True, True, True, False, False])
    found = balanced_accuracy(correct, LABELS, draws(), counted=counted)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = [balanced_accuracy_score(LABELS, p) for p in predictions]
    assert found.seeds == pytest.approx(expected)
    assert found.value == pytest.approx(np.mean(expected))
    lo, hi = found.interval(0.95)
    assert lo < found.value < hi


def test_a_constant_predictor_guesses_without_any_spread():
    correct = (LABELS == 0).astype(np.float64)[None]
    found = balanced_accuracy(correct, LABELS, draws(), counted=np.ones(3, bool))
    assert found.value == pytest.approx(1 / 3)
    assert found.samples == pytest.approx(np.full(500, 1 / 3))


def test_images_without_label_do_not_count():
    labels = LABELS.copy()
    labels[:EACH] = -1
    correct = np.ones((1, len(labels)))
    correct[:, :EACH] = 0
    assert balanced_accuracy(correct, labels, draws(), counted=np.ones(3, bool)).value == 1
    assert identities_of_classes(labels, PIDS, 4).tolist() == [9, 10, 10, 0]


def test_images_of_one_person_are_not_independent():
    right = (np.arange(IDS) % 2).repeat(EACH).astype(np.float64)[None]  # a person right or wrong
    one = np.zeros(len(LABELS), np.int64)
    clustered = balanced_accuracy(right, one, draws(resamples=4000), counted=np.ones(1, bool))
    alone = draw_identities(np.arange(len(LABELS)), resamples=4000, seed=0)
    naive = balanced_accuracy(right, one, alone, counted=np.ones(1, bool))
    assert clustered.samples.std() == pytest.approx(math.sqrt(0.25 / IDS), rel=0.1)
    assert clustered.samples.std() == pytest.approx(2 * naive.samples.std(), rel=0.1)


def test_a_class_that_a_draw_lacks_keeps_its_recall():
    labels = np.repeat((np.arange(IDS) == 0).astype(np.int64), EACH)
    correct = (labels == 1).astype(np.float64)[None]  # recalls 0 and 1
    found = balanced_accuracy(correct, labels, draws(), counted=np.ones(2, bool))
    assert np.unique(found.samples).tolist() == [0.5]


@pytest.mark.parametrize("counted", [np.zeros(3, bool), np.array([True, False, False, True])])
def test_classes_without_images_cannot_count(counted):
    with pytest.raises(ValueError, match="classes to count"):
        balanced_accuracy(np.ones((1, len(LABELS))), LABELS, draws(), counted=counted)


def test_permuted_labels_lie_around_guessing_and_wider_for_few_persons():
    predictions = LABELS[None]
    few = permuted_accuracy(predictions, LABELS, PIDS, permutations=400, seed=0)
    assert few.mean() == pytest.approx(1 / 3, abs=0.02)
    assert np.quantile(few, 0.95) < 1
    many = permuted_accuracy(
        np.tile(predictions, 8), np.tile(LABELS, 8), np.arange(8 * len(LABELS)),
        permutations=400, seed=0,
    )  # fmt: skip
    assert many.std() < few.std() / 3


def test_a_person_with_two_labels_is_refused():
    labels = LABELS.copy()
    labels[0] = 1
    with pytest.raises(ValueError, match="not one for each identity"):
        permuted_accuracy(LABELS[None], labels, PIDS, permutations=5, seed=0)
    with pytest.raises(ValueError, match="not one for each identity"):
        permuted_accuracy(LABELS[None], np.full_like(LABELS, -1), PIDS, permutations=5, seed=0)


def test_means_over_images_weigh_images_equally():
    pids = np.array([0, 0, 0, 1])
    values = np.array([[1.0, 1, 1, 0], [0, 0, 0, 1]])
    found = mean_over_images(values, draws(pids))
    assert found.seeds == (0.75, 0.25) and found.value == 0.5
    one_seed = mean_over_images(values[:1], draws(pids))
    assert set(one_seed.samples.round(9)) == {0.0, 0.75, 1.0}


def test_medians_over_requests_are_of_each_seed():
    values = np.array([[0.9, 1.0, 1.0], [0.2, 0.4, 0.9]])
    found = median_over_requests(values, resamples=300, seed=0)
    assert found.seeds == (1.0, 0.4) and found.value == pytest.approx(0.7)
    assert found.samples.min() >= (0.9 + 0.2) / 2


def test_averages_are_paired():
    first = mean_over_images(RNG.random((2, len(PIDS))), draws())
    opposite = -1.0 * first + 1.0
    assert average([first, opposite]).samples == pytest.approx(np.full(500, 0.5))
    assert average([without_draw(np.array([1.0, 3.0]), 500), first]).seeds[1] == pytest.approx(
        (3 + first.seeds[1]) / 2
    )
    with pytest.raises(ValueError, match="no estimates"):
        average([])


def test_numbers_of_ones_tell_what_their_entropy_says():
    features = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)  # 0 ones, 7 ones; two exponents
    assert kept_by_every_key(features) == pytest.approx({"popcount": 1, "leading": 1, "mutual": 1})
    words = RNG.integers(2**23, size=(200, 200), dtype=np.uint32) | np.uint32(0x3F800000)
    same = kept_by_every_key(words.view(np.float32))
    assert same["leading"] == 0 and same["mutual"] == pytest.approx(0, abs=1e-9)
    binomial = 0.5 * math.log2(2 * math.pi * math.e * 23 / 4)
    assert same["popcount"] == pytest.approx(binomial, abs=0.02)
