"""Which keypoints a condition keeps; spec test 13."""

from dataclasses import replace

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.sift_inversion.keypoints import DROPPED, Descriptors, offsets_of, placed
from stages.sift_inversion.partial import (
    PLACES,
    box_masks,
    boxes,
    condition_names,
    in_box,
    kept,
    select,
    support_radius,
)
from stages.sift_inversion.placement import place
from stages.sift_inversion.sparse import densify

F = [0, 0.02, 0.05, 0.1, 0.2, 0.4, 1]
META = {
    "size": 64,
    "cv2": "none",
    "params": {"order": "response", "collision": "adjacent", "r_max": 1},
}


@pytest.fixture(scope="module")
def descriptors():
    rng = np.random.default_rng(0)
    counts = [50, 0, 1, 120]
    kp = rng.uniform([0, 0, 2, 0, 0], [64, 64, 6, 360, 1], (171, 5)).astype(np.float32)
    kp[:2, :2] = [[63.99, 64.2], [0, -0.4]]
    desc = rng.integers(0, 200, (171, 128), dtype=np.uint8)
    offsets, ids = offsets_of(counts), np.arange(4)
    cells = placed(kp, desc, offsets, ids, META)
    return Descriptors(desc, cells, kp, np.zeros(171, np.int32), offsets, ids, META)


@pytest.mark.parametrize("mode", ["centre", "support"])
@pytest.mark.parametrize("where", PLACES)
def test_boxes_remove_nothing_then_more_then_all(descriptors, mode, where):
    removed = [~kept(descriptors, f"box-{mode}-{where}-{f:g}") for f in F]
    assert not removed[0].any() and removed[-1].all()
    for less, more in zip(removed, removed[1:], strict=False):
        assert (less <= more).all()
    assert len({part.sum() for part in removed}) > 3


@pytest.mark.parametrize("where", PLACES)
def test_the_supports_of_a_box_contain_its_centres(descriptors, where):
    for f in F:
        box = boxes(descriptors, where, f)
        assert (in_box(descriptors, box, "centre") <= in_box(descriptors, box, "support")).all()


def test_a_box_is_a_square_of_its_share_inside_the_image(descriptors):
    for where in PLACES:
        for f in F:
            box = boxes(descriptors, where, f)
            assert box.min() >= 0 and box.max() <= 64
            width = box[:, 2:] - box[:, :2]
            np.testing.assert_allclose(width, 64 * f**0.5)
    assert boxes(descriptors, "centre", 0.25)[0].tolist() == [16, 16, 48, 48]
    eyes, mouth = (boxes(descriptors, where, 0.1)[0] for where in ("eyes", "mouth"))
    assert eyes[1] < mouth[1] and eyes[0] == mouth[0]


def test_random_boxes_differ_by_image_and_by_seed_and_are_drawn_by_its_id(descriptors):
    box = boxes(descriptors, "random", 0.1)
    assert len(np.unique(box, axis=0)) == 4
    assert not np.array_equal(box, boxes(descriptors, "random", 0.1, seed=1))
    assert np.array_equal(boxes(descriptors.take([3, 0]), "random", 0.1), box[[3, 0]])


def test_a_mask_is_the_box_in_pixels(descriptors):
    box = np.array([[16, 8, 48, 24.5], [0, 0, 0, 0], [0, 0, 64, 64]], np.float64)
    masks = box_masks(box, 64)
    assert masks.sum((1, 2)).tolist() == [32 * 16, 0, 64 * 64]
    assert masks[0, 8:24, 16:48].all()


def test_a_descriptor_looks_as_far_as_its_grid_of_bins_turned_by_45_degrees(descriptors):
    assert support_radius(np.float32([2]))[0] == pytest.approx(3 * 2**0.5 * 2.5)
    one = descriptors.take([2])
    radius = support_radius(one.kp[:, 2])[0]
    x, y = one.kp[0, :2].astype(float)
    for gap, touched in ((0.999, True), (1.001, False)):
        left = x + gap * radius
        box = np.array([[left, y - 1, left + 1, y + 1]])
        assert in_box(one, box, "support").tolist() == [touched]


def test_random_keeping_is_nested_exact_and_of_each_image(descriptors):
    shares = [0, 0.1, 0.25, 0.5, 0.75, 1]
    parts = [kept(descriptors, f"keep-{p:g}") for p in shares]
    for less, more in zip(parts, parts[1:], strict=False):
        assert (less <= more).all()
    for p, part in zip(shares, parts, strict=True):
        found = np.bincount(descriptors.image[part], minlength=4)
        assert found.tolist() == np.rint(p * descriptors.counts).tolist()
    assert not np.array_equal(kept(descriptors, "keep-0.5", seed=1), parts[3])


def test_above_and_below_the_median_size_are_complements(descriptors):
    above, below = (kept(descriptors, f"sigma-{side}") for side in ("above", "below"))
    assert np.array_equal(above, ~below)
    assert np.bincount(descriptors.image[above], minlength=4).tolist() == [25, 0, 0, 60]
    first = descriptors.kp[:50, 2]
    assert first[above[:50]].min() > first[below[:50]].max()


def test_full_keeps_all_and_changes_nothing(descriptors):
    keep = kept(descriptors, "full")
    assert keep.all()
    same = select(descriptors, keep)
    for name in ("desc", "cells", "kp", "octave", "offsets", "ids"):
        assert np.array_equal(getattr(same, name), getattr(descriptors, name))


def test_what_is_left_is_placed_anew(descriptors):
    left = select(descriptors, kept(descriptors, "keep-0.5"))
    assert left.counts.tolist() == [25, 0, 0, 60] and len(left) == 4
    for i in (0, 3):
        rows = slice(*left.offsets[i : i + 2])
        expected = place(left.kp[rows], left.desc[rows], size=64, d=4)
        assert np.array_equal(left.cells[rows, :2], expected.astype(np.uint8))
    two = replace(
        descriptors.take([2]).take([0, 0]),
        kp=np.float32([[5, 5, 2, 0, 2], [5, 5, 2, 90, 1]]),
        offsets=np.array([0, 2]),
        ids=np.array([0]),
    )
    both = placed(two.kp, two.desc, two.offsets, two.ids, META)
    assert both[1, :2].tolist() != [1, 1]
    assert select(two, np.array([False, True])).cells[0, :2].tolist() == [1, 1]


def test_no_keypoint_at_all_is_an_empty_map(descriptors):
    nothing = select(descriptors, kept(descriptors, "box-centre-centre-1"))
    assert len(nothing) == 4 and nothing.cells.shape == (0, 4)
    assert not densify(nothing, range(4))[4].any()
    assert not (descriptors.cells == DROPPED).any()


def test_names_of_conditions_are_read_back(descriptors):
    names = condition_names([0, 0.1], ["centre", "random"], ["centre", "support"], [0.5])
    assert len(names) == len(set(names)) == 11
    assert "box-support-random-0.1" in names and "keep-0.5" in names and "sigma-below" in names
    for name in names:
        assert kept(descriptors, name).shape == (171,)


@pytest.mark.parametrize(
    "name",
    ["box-centre-nose-0.1", "box-middle-centre-0.1", "box-centre-centre-1.5", "box-centre-centre",
     "keep-", "keep-nan", "keep-1.0.0", "keep--1", "sigma", "half"],
)  # fmt: skip
def test_a_condition_that_does_not_exist_is_one_sentence(descriptors, name):
    with pytest.raises(InputError, match="is no condition of reconstruct"):
        kept(descriptors, name)
