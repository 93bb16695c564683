"""Keypoints on disk and the dense maps made from them; spec test 12."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.common.errors import InputError
from stages.sift_inversion.keypoints import (
    DROPPED,
    Descriptors,
    offsets_of,
    placed,
    read,
    write,
)
from stages.sift_inversion.placement import own_cells, place
from stages.sift_inversion.sparse import densify

META = {
    "size": 18,
    "cv2": "none",
    "params": {"order": "response", "collision": "adjacent", "r_max": 1},
}


def made(counts, seed=0, **meta):
    """Random keypoints, crowded at few places, of images of 18 px."""
    rng = np.random.default_rng(seed)
    N, meta = sum(counts), META | meta
    kp = np.zeros((N, 5), np.float32)
    kp[:, :2] = rng.integers(0, 36, (N, 2)) / 2
    kp[:, 2:] = rng.integers([2, 0, 1], [9, 360, 50], (N, 3)) * [1, 1, 0.01]
    desc = rng.integers(0, 214, (N, 128), dtype=np.uint8)
    offsets, ids = offsets_of(counts), np.arange(len(counts))
    cells = placed(kp, desc, offsets, ids, meta)
    octave = rng.integers(0, 1 << 20, N, dtype=np.int32)
    return Descriptors(desc, cells, kp, octave, offsets, ids, meta)


def reference(descriptors, i, d):
    """F_d of image i, a cell after the other, from the sequential placement."""
    rows = slice(*descriptors.offsets[i : i + 2])
    kp, desc = descriptors.kp[rows], descriptors.desc[rows]
    F = np.zeros((128, -(-18 // d), -(-18 // d)), np.float32)
    for (row, col), D in zip(place(kp, desc, size=18, d=d), desc, strict=True):
        if row >= 0:
            F[:, row, col] = D.astype(np.float32) / 512
    return F


@pytest.fixture
def descriptors():
    return made([7, 0, 1, 40, 0, 90])


def test_written_read_and_made_dense_equals_direct_placement(tmp_path, descriptors):
    write(tmp_path / "x", descriptors)
    again = read(tmp_path / "x")
    for d, F in densify(again, range(6)).items():
        assert F.dtype == torch.float32 and F.is_contiguous(memory_format=torch.channels_last)
        assert F.shape == (6, 128, -(-18 // d), -(-18 // d))
        for i in range(6):
            assert np.array_equal(F[i].numpy(), reference(descriptors, i, d))
    assert {d for d in densify(again, [0], scales=[2])} == {2}
    assert {d for d in densify(again, [0], scales=[4, 4])} == {4}


def test_types_and_bytes_on_disk(tmp_path, descriptors):
    write(tmp_path, descriptors)
    found = {name: np.load(tmp_path / f"{name}.npy") for name in ("desc", "cells", "kp", "octave")}
    assert [a.dtype.name for a in found.values()] == ["uint8", "uint8", "float32", "int32"]
    assert found["desc"].nbytes + found["cells"].nbytes == 132 * 138
    assert found["kp"].nbytes + found["octave"].nbytes == 24 * 138
    offsets = np.load(tmp_path / "offsets.npy")
    assert offsets.dtype == np.int64 and offsets.tolist() == [0, 7, 7, 8, 48, 48, 138]
    assert json.loads((tmp_path / "meta.json").read_text()) == META


def test_the_same_content_is_the_same_bytes(tmp_path, descriptors):
    write(tmp_path / "a", descriptors)
    write(tmp_path / "b", read(tmp_path / "a"))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("counts", [[], [0], [0, 0, 0]])
def test_a_set_without_keypoints(tmp_path, counts):
    write(tmp_path, made(counts))
    again = read(tmp_path)
    assert len(again) == len(counts)
    for channels in (128, 133):
        F = densify(again, range(len(counts)), channels=channels)[2]
        assert F.shape == (len(counts), channels, 9, 9) and not F.any()


def test_an_images_map_does_not_depend_on_its_batch(descriptors):
    for channels in (128, 133):
        together = densify(descriptors, [5, 3, 0, 3], channels=channels)
        for d, F in together.items():
            assert torch.equal(F[1], F[3])
            assert torch.equal(F[1:2], densify(descriptors, [3], channels=channels)[d])


def test_taken_images_keep_their_maps_and_their_draws(descriptors):
    taken = descriptors.take([5, 1, 3])
    assert taken.ids.tolist() == [5, 1, 3] and taken.counts.tolist() == [90, 0, 40]
    for channels in (128, 133):
        whole = densify(descriptors, [5, 1, 3], channels=channels)
        for d, F in densify(taken, torch.arange(3), channels=channels).items():
            assert torch.equal(F, whole[d])


def test_a_dropped_keypoint_is_in_no_map():
    crowd = made([60])
    crowd = replace(crowd, kp=np.tile(np.float32([9, 9, 2, 0, 1]), (60, 1)))
    cells = placed(crowd.kp, crowd.desc, crowd.offsets, crowd.ids, crowd.meta)
    assert (cells[:, 0] == DROPPED).sum() == (cells[:, 2] == DROPPED).sum() == 51
    assert cells[cells != DROPPED].max() < 9
    for F in densify(replace(crowd, cells=cells), [0]).values():
        assert F.any(1).sum() == 9


def test_a_map_is_normalised_as_asked(descriptors):
    unit = densify(descriptors, [3], scales=[4])[4]
    pm1 = densify(descriptors, [3], scales=[4], desc_norm="pm1")[4]
    occupied = unit.any(1, keepdim=True).expand_as(unit)
    torch.testing.assert_close(pm1[occupied], unit[occupied] * 512 / 127.5 - 1)
    assert not pm1[~occupied].any()
    half = densify(descriptors, [3], scales=[4], dtype=torch.bfloat16)[4]
    assert half.dtype == torch.bfloat16 and torch.equal(half, unit.bfloat16())


def test_the_baselines_map_holds_one_keypoint_of_each_cell_and_its_geometry(descriptors):
    F = densify(descriptors, [5], scales=[4], channels=133)[4][0].numpy()
    rows = slice(*descriptors.offsets[5:7])
    kp, desc = descriptors.kp[rows].astype(float), descriptors.desc[rows]
    own = own_cells(descriptors.kp[rows], size=18, d=4)
    assert F.any(0).sum() == len(np.unique(own, axis=0)) < len(own)
    for row, col in np.unique(own, axis=0):
        inside = np.flatnonzero((own == [row, col]).all(1))
        (k,) = [k for k in inside if np.array_equal(F[:128, row, col], desc[k] / np.float32(512))]
        x, y, size, angle, _ = kp[k]
        theta = np.deg2rad(angle)
        expected = [x % 4, y % 4, np.sin(theta), np.cos(theta), np.log(size / 2)]
        np.testing.assert_allclose(F[128:, row, col], expected, atol=1e-6)


def test_the_baselines_pick_is_random_but_neither_of_the_order_nor_of_the_rest(descriptors):
    rng = np.random.default_rng(0)
    one = descriptors.take([5])
    F = densify(one, [0], scales=[4], channels=133)[4]
    order = rng.permutation(90)
    shuffled = replace(one, **{n: getattr(one, n)[order] for n in ("desc", "kp", "cells")})
    assert torch.equal(densify(shuffled, [0], scales=[4], channels=133)[4], F)
    other = densify(replace(one, ids=np.array([6])), [0], scales=[4], channels=133)[4]
    assert not torch.equal(other, F) and torch.equal(other.any(1), F.any(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": [3]}, "inputs: is no way .* one of 4, 2, found 3"),
        ({"channels": 130}, "channels: is no way"),
        ({"desc_norm": "l2"}, "one of unit, pm1, found l2"),
    ],
)
def test_a_map_that_does_not_exist_is_one_sentence(descriptors, settings, message):
    with pytest.raises(InputError, match=message):
        densify(descriptors, [0], **settings)


def test_images_too_large_for_a_byte_are_one_sentence():
    with pytest.raises(InputError, match="at most 508 px"):
        made([3], size=512)


def test_a_damaged_folder_is_one_sentence(tmp_path, descriptors):
    write(tmp_path, descriptors)
    (tmp_path / "cells.npy").write_bytes(b"\x93NUMPY broken")
    with pytest.raises(InputError, match=r"cells\.npy: is not a readable array of keypoints"):
        read(tmp_path)
    np.save(tmp_path / "cells.npy", np.zeros((138, 4), np.int16))
    with pytest.raises(InputError, match=r"expected uint8 \(N, 4\), found int16"):
        read(tmp_path)
    np.save(tmp_path / "cells.npy", np.zeros((137, 4), np.uint8))
    with pytest.raises(InputError, match=r"do not belong together.*arrays of \[137, 138\]"):
        read(tmp_path)
    (tmp_path / "cells.npy").unlink()
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path)
