"""Retrieval against brute force, one query at a time."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_distances as reference

from stages.common.errors import InputError
from stages.deep_features.reid_metrics import cosine_distances, rank, rank1_by, rank_by, retrieve


def made(seed, *, q=12, g=40, ids=6, cams=3, distractors=0):
    draw = np.random.default_rng(seed)
    gallery = draw.integers(1, ids + 1, g)
    gallery[:distractors] = 0
    who = draw.integers(1, ids + 1, q)
    return draw.random((q, g)), {
        "pids": who.astype(np.int64),
        "camids": draw.integers(0, cams, q),
        "gallery_pids": gallery.astype(np.int64),
        "gallery_camids": draw.integers(0, cams, g),
    }


def by_hand(distances, *, pids, camids, gallery_pids, gallery_camids):
    found = []
    for i in range(len(pids)):
        ranked = []
        for j in np.argsort(distances[i]):
            if gallery_pids[j] == pids[i] and gallery_camids[j] == camids[i]:
                continue
            ranked.append(gallery_pids[j] == pids[i])
        places = [k + 1 for k, right in enumerate(ranked) if right]
        if places:
            ap = np.mean([(k + 1) / place for k, place in enumerate(places)])
            found.append((ap, len(places) / places[-1], float(places[0] == 1), pids[i]))
    return np.array(found).T


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("changes", [{}, {"distractors": 10}, {"ids": 25, "g": 30}, {"cams": 2}])
def test_ranking_equals_brute_force(seed, changes):
    distances, who = made(seed, **changes)
    ranking = rank(distances, **who)
    for ours, want in zip(ranking, by_hand(distances, **who), strict=True):
        assert np.allclose(ours, want)
    if changes.get("ids") == 25:
        assert len(ranking.pids) < 12, "queries without a right image are left out"


def test_average_precision_is_scikit_learns_without_a_camera_filter():
    distances, who = made(0)
    who["camids"] = np.full(12, 9)
    for i, ap in enumerate(rank(distances, **who).ap):
        right = who["gallery_pids"] == who["pids"][i]
        assert ap == pytest.approx(average_precision_score(right, -distances[i]))


def test_the_own_cameras_image_is_left_out_and_a_distractor_is_not():
    who = {
        "pids": np.array([1]),
        "camids": np.array([5]),
        "gallery_pids": np.array([1, 0, 1, 2, 1]),
        "gallery_camids": np.array([5, 5, 6, 5, 7]),
    }
    # order: own camera (left out), distractor, right, other, right -> right at 2 and 4
    ranking = rank(np.array([[0.0, 0.1, 0.2, 0.3, 0.4]]), **who)
    assert ranking.ap[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert ranking.inp[0] == 2 / 4 and ranking.rank1[0] == 0
    assert ranking.means() == {"rank1": 0.0, "mAP": 0.5, "mINP": 0.5}


def test_equal_distances_keep_the_gallerys_order():
    who = {
        "pids": np.array([1]),
        "camids": np.array([0]),
        "gallery_pids": np.array([2, 1]),
        "gallery_camids": np.array([1, 1]),
    }
    assert rank(np.array([[3, 3]]), **who).rank1[0] == 0


def test_cosine_distances_are_scikit_learns():
    draw = np.random.default_rng(0)
    a, b = (draw.standard_normal((n, 8)).astype(np.float32) for n in (3, 5))
    assert np.allclose(cosine_distances(a, b), reference(a, b), atol=1e-6)
    assert cosine_distances(a, -a)[0, 0] == pytest.approx(2)


def test_retrieval_splits_query_and_gallery():
    draw = np.random.default_rng(0)
    pids = np.repeat(np.arange(5), 4)
    centres = draw.standard_normal((5, 16))
    noise = 0.01 * draw.standard_normal((20, 16))
    features = (centres[pids] + noise).astype(np.float32)
    query = np.arange(20) % 4 == 0
    camids = np.tile([0, 1, 2, 0], 5)
    ranking = retrieve(features, pids=pids, camids=camids, query=query)
    assert ranking.means() == {"rank1": 1.0, "mAP": 1.0, "mINP": 1.0}
    assert ranking.pids.tolist() == list(range(5))


@pytest.mark.parametrize("at_once", [1, 7, 12])
def test_blocks_of_queries_give_the_same_bits(at_once):
    distances, who = made(3, ids=25, g=30)  # some blocks have no valid query
    expected = rank(distances, **who)
    assert 0 < len(expected.pids) < 12
    found = rank_by(lambda part: distances[part], **who, at_once=at_once)
    for ours, want in zip(found, expected, strict=True):
        assert ours.dtype == want.dtype and ours.tobytes() == want.tobytes()
    first = rank1_by(lambda part: distances[part], **who, at_once=at_once)
    assert first.tobytes() == expected.rank1.tobytes()

    draw = np.random.default_rng(at_once)
    features = draw.standard_normal((60, 16)).astype(np.float32)
    pids, camids = draw.integers(0, 9, 60), draw.integers(0, 3, 60)
    about = {"pids": pids, "camids": camids, "query": np.arange(60) % 3 == 0}
    for ours, want in zip(
        retrieve(features, **about, at_once=at_once), retrieve(features, **about), strict=True
    ):
        assert ours.tobytes() == want.tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_rank1_needs_no_sorting(seed):
    distances, who = made(seed, distractors=5)
    rounded = (distances * 8).astype(np.int32)  # many are equal
    found = rank1_by(lambda part: rounded[part], **who, at_once=5)
    assert found.tolist() == rank(rounded, **who).rank1.tolist()


def test_without_a_valid_query_nothing_is_measured():
    distances, who = made(0)
    who["gallery_pids"][:] = 0
    with pytest.raises(InputError, match="12 queries"):
        rank(distances, **who)
    with pytest.raises(InputError, match="12 queries"):
        rank1_by(lambda part: distances[part], **who)
