import numpy as np
import pytest

from stages.common.errors import InputError
from stages.deep_features.sampler import Batches

PIDS = np.repeat(np.arange(10), [8, 3, 4, 9, 4, 5, 4, 4, 1, 12]).astype(np.int64)
PIDS = PIDS[np.random.default_rng(0).permutation(len(PIDS))]


def test_a_batch_holds_k_images_of_each_of_p_identities():
    batches = Batches(PIDS, P=3, K=4, seed=0)
    for i in range(60):
        groups = PIDS[batches.at(i)].reshape(3, 4)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 3


def test_within_a_pass_no_image_comes_twice_but_of_identities_with_too_few():
    batches = Batches(PIDS, P=2, K=4, seed=0)
    batches.at(0)
    images = np.concatenate(batches.held)
    values, counts = np.unique(images, return_counts=True)
    enough = np.bincount(PIDS)[PIDS[values]] >= 4
    assert (counts[enough] == 1).all()
    # groups: 2 + 1 + 1 + 2 + 1 + 1 + 1 + 1 + 1 + 3 = 14, so at most 7 batches
    assert 5 <= len(batches.held) <= 7


def test_all_images_are_seen_in_time():
    batches = Batches(PIDS, P=2, K=4, seed=0)
    assert len(np.unique(np.concatenate([batches.at(i) for i in range(200)]))) == len(PIDS)


def test_a_batch_depends_on_seed_and_number_alone():
    forth, back = (Batches(PIDS, P=3, K=4, seed=1) for _ in range(2))
    every = [forth.at(i) for i in range(40)]
    for i in reversed(range(40)):
        assert np.array_equal(every[i], back.at(i))
    assert np.array_equal(Batches(PIDS, P=3, K=4, seed=1).at(33), every[33])
    assert not np.array_equal(Batches(PIDS, P=3, K=4, seed=2).at(0), every[0])
    assert len({tuple(b) for b in every}) == 40


def test_too_few_identities_are_refused():
    with pytest.raises(InputError, match="at least 11, found 10"):
        Batches(PIDS, P=11, K=4, seed=0)
