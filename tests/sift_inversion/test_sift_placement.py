"""Which keypoint gets which cell; spec tests 3 to 11."""

import numpy as np
import pytest

from stages.sift_inversion.placement import draw, own_cells, place, place_many


def points(*rows):
    """Keypoints from (x, y, response[, size[, angle]])."""
    kp = np.zeros((len(rows), 5), np.float32)
    for k, (x, y, response, *more) in enumerate(rows):
        size, angle = [*more, 2, 0][:2] if len(more) != 1 else [more[0], 0]
        kp[k] = x, y, size, angle, response
    return kp


def plain(n):
    return np.zeros((n, 128), np.uint8)


def cells(kp, desc=None, **settings):
    return place(kp, plain(len(kp)) if desc is None else desc, **settings).tolist()


def crowded(rng, n, size):
    """Many keypoints that agree in place, response, or in everything but the descriptor."""
    kp = np.zeros((n, 5), np.float32)
    kp[:, :2] = (
        rng.integers(0, 2 * size, (n, 2)) / 2 if rng.random() < 0.5 else rng.random((n, 2)) * size
    )
    kp[:, 2:] = rng.integers([2, 0, 1], [5, 3, 4], (n, 3)) * [1, 90, 0.01]
    kp[n // 2 :][: n // 4] = kp[: n // 4]
    return kp, rng.integers(0, 3, (n, 128), dtype=np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "cell"),
    [
        (0, 0, [0, 0]),
        (3.99, 0, [0, 0]),
        (4, 0, [0, 1]),
        (10, 2, [0, 2]),
        (255.9, 255.9, [63, 63]),
        (256, -0.3, [0, 63]),
    ],
)
def test_a_cell_is_the_floor_of_its_coordinates(x, y, cell):
    assert cells(points((x, y, 1)), size=256, d=4) == [cell]


def test_cells_of_two_pixels():
    assert cells(points((255.9, 255.9, 1)), size=256, d=2) == [[127, 127]]


def test_a_size_that_cells_do_not_tile_has_one_more():
    corner = points((249.5, 249.5, 1), (1e6, 1e6, 2))
    assert own_cells(corner, size=250, d=4).tolist() == [[62, 62]] * 2
    assert own_cells(corner, size=250, d=2).tolist() == [[124, 124]] * 2


def test_the_weaker_of_two_moves_to_the_nearest_free_cell():
    """Centres (2, 6) at 2.5 beats (6, 2) and (6, 10) at 4.27."""
    assert cells(points((5, 5, 2), (4.5, 6, 1)), size=16, d=4) == [[1, 1], [1, 0]]


TEN = points(*((6, 6, 10 - k) for k in range(10)))
RING = [[1, 1], [0, 1], [1, 0], [1, 2], [2, 1], [0, 0], [0, 2], [2, 0], [2, 2]]


def test_ten_at_one_point_fill_its_neighbourhood_in_a_fixed_order():
    assert cells(TEN, size=16, d=4) == [*RING, [-1, -1]]
    assert cells(TEN, size=16, d=4, r_max=2) == [*RING, [1, 3]]


def test_a_corner_has_three_neighbours():
    five = points(*((1, 1, 5 - k) for k in range(5)))
    assert cells(five, size=16, d=4)[-1] == [-1, -1]
    assert sorted(cells(five, size=16, d=4)[:4]) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_an_owner_keeps_its_cell_though_all_others_are_stronger():
    kp = points((5, 5, 9), (4.1, 5, 8), (2, 6, 0.01))
    assert cells(kp, size=16, d=4)[0] == [1, 1]
    assert cells(kp, size=16, d=4)[2] == [1, 0]
    assert cells(kp, size=16, d=4)[1] not in ([1, 0], [1, 1])


def test_equal_responses_are_decided_by_size_place_angle_and_descriptor():
    assert cells(points((5, 5, 1, 2), (5, 5, 1, 3)), size=16, d=4)[1] == [1, 1]
    assert cells(points((5, 6, 1), (6, 5, 1)), size=16, d=4)[1] == [1, 1]
    assert cells(points((5, 5, 1, 2, 90), (5, 5, 1, 2, 45)), size=16, d=4)[1] == [1, 1]
    desc = plain(2)
    desc[0, 0] = 1
    assert cells(points((5, 5, 1), (5, 5, 1)), desc, size=16, d=4)[1] == [1, 1]


def test_the_largest_can_have_the_cell_instead():
    assert cells(points((5, 5, 2, 3), (5, 5, 1, 9)), size=16, d=4, order="size")[1] == [1, 1]


@pytest.mark.parametrize("collision", ["drop", "random_pick"])
def test_who_loses_a_cell_can_be_dropped(collision):
    found = cells(points((5, 5, 2), (4.5, 6, 1)), size=16, d=4, collision=collision)
    assert sorted(found) == [[-1, -1], [1, 1]]
    if collision == "drop":
        assert found[0] == [1, 1]


def test_a_random_pick_depends_on_the_image_and_not_on_the_response():
    kp = points((5, 5, 2), (4.5, 6, 1))
    picks = {
        cells(kp, size=16, d=4, collision="random_pick", image=i).index([1, 1]) for i in range(20)
    }
    assert picks == {0, 1}


RULES = [
    {"order": "response", "collision": "adjacent", "r_max": 1},
    {"order": "response", "collision": "adjacent", "r_max": 2},
    {"order": "size", "collision": "adjacent", "r_max": 1},
    {"order": "random", "collision": "adjacent", "r_max": 1},
    {"order": "response", "collision": "drop"},
    {"order": "size", "collision": "random_pick"},
]


def dense(found, desc, side):
    F = np.zeros((side, side, 128), int)
    kept = found[:, 0] >= 0
    F[tuple(found[kept].T)] = desc[kept] + 1
    return F


@pytest.mark.parametrize("rules", RULES)
def test_the_order_of_the_list_changes_nothing(rules):
    rng = np.random.default_rng(0)
    for _ in range(20):
        kp, desc = crowded(rng, 60, 20)
        shuffled = rng.permutation(60)
        for d in (2, 4):
            a = dense(place(kp, desc, size=20, d=d, **rules), desc, 10)
            b = place(kp[shuffled], desc[shuffled], size=20, d=d, **rules)
            assert np.array_equal(a, dense(b, desc[shuffled], 10))


@pytest.mark.parametrize("rules", RULES)
def test_every_keypoint_is_placed_once_or_dropped_and_no_two_share_a_cell(rules):
    rng = np.random.default_rng(1)
    for _ in range(20):
        kp, desc = crowded(rng, int(rng.integers(0, 80)), 17)
        found = place(kp, desc, size=17, d=4, **rules)
        kept = found[found[:, 0] >= 0]
        assert ((found >= 0).all(1) | (found == -1).all(1)).all()
        assert len(np.unique(kept, axis=0)) == len(kept)
        assert kept.max(initial=0) < 5
        away = np.abs(kept - own_cells(kp, size=17, d=4)[found[:, 0] >= 0])
        assert away.max(initial=0) <= rules.get("r_max", 0)


@pytest.mark.parametrize("rules", RULES)
def test_all_at_once_equals_one_after_the_other(rules):
    """300 crowded cases (100 batches of three images) for r_max 1 and 2, fewer for the others."""
    rng = np.random.default_rng(2)
    for _ in range(100 if rules in RULES[:2] else 20):
        size, d = int(rng.integers(3, 30)), int(rng.choice([2, 4]))
        images = [crowded(rng, int(n), size) for n in rng.integers(0, 40, 3)]
        kp, desc = (np.concatenate(part) for part in zip(*images, strict=True))
        offsets = np.cumsum([0, *(len(k) for k, _ in images)])
        many = place_many(kp, desc, offsets, np.array([5, 0, 7]), size=size, d=d, **rules)
        one = [
            place(*image, size=size, d=d, image=i, **rules)
            for image, i in zip(images, (5, 0, 7), strict=True)
        ]
        assert np.array_equal(many, np.concatenate(one))


def test_more_images_than_are_placed_at_once(monkeypatch):
    rng = np.random.default_rng(3)
    images = [crowded(rng, int(n), 16) for n in rng.integers(0, 30, 11)]
    kp, desc = (np.concatenate(part) for part in zip(*images, strict=True))
    offsets = np.cumsum([0, *(len(k) for k, _ in images)])

    def found():
        return place_many(kp, desc, offsets, np.arange(11), size=16, d=2, order="random")

    whole = found()
    monkeypatch.setattr("stages.sift_inversion.placement.IMAGES_AT_ONCE", 4)
    assert np.array_equal(found(), whole)


def test_no_images_and_images_without_keypoints():
    none = np.zeros((0, 5), np.float32), plain(0)
    assert place(*none, size=16, d=4).shape == (0, 2)
    for n in (0, 3):
        found = place_many(*none, np.zeros(n + 1, np.int64), np.arange(n), size=16, d=4)
        assert found.shape == (0, 2) and found.dtype == np.int16


def test_a_draw_is_uniform_and_of_the_keypoint_alone():
    rng = np.random.default_rng(4)
    kp = rng.random((4000, 5), np.float32)
    ids = rng.integers(0, 50, 4000)
    drawn = draw(kp, ids)
    assert np.array_equal(draw(kp[100:200], ids[100:200]), drawn[100:200])
    share = drawn / 2.0**64
    assert abs(share.mean() - 0.5) < 0.02 and abs(share.std() - 12**-0.5) < 0.01
    assert len(np.unique(drawn)) == 4000
    assert not np.any(draw(kp, ids, seed=1) == drawn)
    assert not np.any(draw(kp, ids + 1) == drawn)
    assert draw(points((1, 2, 3)), np.array([5])).tolist() == [PINNED]


PINNED = 12077372382996685764
