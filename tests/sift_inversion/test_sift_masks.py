import numpy as np
import pytest

from stages.sift_inversion.masks import face_ellipse, far_distance, far_from_keypoints

NONE = np.zeros((0, 2), np.float32)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_face_is_an_ellipse_of_known_area_and_place(size):
    mask = face_ellipse(size)
    assert mask.mean() == pytest.approx(np.pi * 0.27 * 0.36, abs=0.01)
    rows, columns = np.nonzero(mask)
    assert (rows.mean() + 0.5) / size == pytest.approx(0.52, abs=0.01)
    assert (columns.mean() + 0.5) / size == pytest.approx(0.5, abs=1e-9)
    assert np.array_equal(mask, mask[:, ::-1])
    assert np.ptp(rows) > np.ptp(columns)


def test_far_is_an_eighth_of_small_images_and_a_sixteenth_of_large_ones():
    assert [far_distance(s) for s in (32, 64, 128, 256)] == [4, 8, 8, 16]


def test_far_leaves_out_a_disc_around_each_keypoint():
    near = np.zeros((64, 64), bool)
    for row in range(64):
        for column in range(64):
            near[row, column] = (row - 20) ** 2 + (column - 10) ** 2 <= 64
    found = far_from_keypoints([np.array([[10, 20]], np.float32)], 64)  # x = 10, y = 20
    assert np.array_equal(found[0], ~near)
    assert found.shape == (1, 64, 64)


def test_far_is_what_all_distances_say():
    rng = np.random.default_rng(0)
    keypoints = [rng.uniform(-0.5, 63.5, (k, 2)).astype(np.float32) for k in (1, 5, 20)]
    row, column = np.mgrid[:64, :64]
    for xy, found in zip(keypoints, far_from_keypoints(keypoints, 64), strict=True):
        squares = (column - xy[:, 0, None, None]) ** 2 + (row - xy[:, 1, None, None]) ** 2
        assert np.array_equal(found, squares.min(0) > 64)


def test_without_keypoints_all_is_far_and_among_many_nothing():
    many = np.stack(np.meshgrid(np.arange(0, 33, 4), np.arange(0, 33, 4)), -1).reshape(-1, 2)
    found = far_from_keypoints([NONE, many.astype(np.float32)], 32)
    assert found[0].all() and not found[1].any()
