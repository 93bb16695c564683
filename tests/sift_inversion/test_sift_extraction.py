"""T, OpenCV's SIFT and its descriptors at given places; spec tests 1 and 2."""

import cv2
import numpy as np
import pytest
import torch

from stages.data.images import load_images
from stages.sift_inversion import sift
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.sparse import densify

LOWE = {"contrast_threshold": 0.04, "edge_threshold": 10, "sigma": 1.6, "octave_layers": 3}
RULES = {"order": "response", "collision": "adjacent", "r_max": 1}


@pytest.fixture(scope="module")
def faces():
    return np.array(load_images("emojifaces", "test", 96).images[:12])


@pytest.fixture
def detector():
    return sift.detector(LOWE)


def test_grey_is_the_gamma_mean_of_known_values_and_not_luma():
    values = np.array([0, 1, 64, 128, 255], np.uint8)
    grey = np.repeat(values[:, None], 3, 1)
    assert sift.to_grey(grey).tolist() == [0, 21, 136, 186, 255]
    primaries = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    assert sift.to_grey(primaries).tolist() == [85, 85, 85]
    luma = cv2.cvtColor(primaries[None], cv2.COLOR_RGB2GRAY)[0]
    assert luma.tolist() == [76, 150, 29]


def test_grey_is_the_printed_formula(faces):
    exact = 255 * ((faces / 255) ** (1 / 2.2)).mean(-1)
    assert np.abs(sift.to_grey(faces) - exact).max() <= 0.5 + 1e-9
    assert sift.to_grey(faces).shape == faces.shape[:-1]


def test_a_flat_image_has_no_keypoint_and_an_empty_map(detector):
    flat = np.full((64, 64, 3), 90, np.uint8)
    kp, octave, desc = sift.detect(flat, detector)
    assert kp.shape == (0, 5) and octave.shape == (0,) and desc.shape == (0, 128)
    descriptors = arrange(find(flat[None], LOWE, "SIFT"), 64, LOWE | RULES)
    assert descriptors.meta["images_without"] == 1
    for d, F in densify(descriptors, [0]).items():
        assert F.shape == (1, 128, 64 // d, 64 // d) and not F.any()


def test_two_calls_are_equal_and_descriptors_are_bytes_of_length_512(faces, detector):
    kp, octave, desc = sift.detect(faces[0], detector)
    again = sift.detect(faces[0], sift.detector(LOWE))
    assert len(kp) > 20
    for a, b in zip((kp, octave, desc), again, strict=True):
        assert np.array_equal(a, b)
    assert desc.dtype == np.uint8
    length = np.linalg.norm(desc.astype(float), axis=1)
    assert length.min() > 505 and length.max() < 520
    grey, types = sift.to_grey(faces[0]), {cv2.CV_8U: np.uint8, cv2.CV_32F: np.float32}
    for kind, dtype in types.items():
        opencv = cv2.SIFT.create(0, 3, 0.04, 10, 1.6, descriptorType=kind)
        found = opencv.detectAndCompute(grey, None)[1]
        assert found.dtype == dtype and np.array_equal(found, desc)


def test_the_number_of_threads_and_of_processes_changes_nothing(faces):
    alone = find(faces, LOWE, "SIFT")
    threads = cv2.getNumThreads()
    for image, start, stop in zip(faces, alone["offsets"], alone["offsets"][1:], strict=False):
        cv2.setNumThreads(2)
        kp, octave, desc = sift.detect(image, sift.detector(LOWE))
        cv2.setNumThreads(threads)
        assert np.array_equal(kp, alone["kp"][start:stop])
        assert np.array_equal(octave, alone["octave"][start:stop])
        assert np.array_equal(desc, alone["desc"][start:stop])
    for name, array in find(faces, LOWE, "SIFT", workers=2).items():
        assert np.array_equal(array, alone[name])


def test_descriptors_at_an_images_own_keypoints_are_the_found_ones_exactly(faces, detector):
    for image in faces:
        kp, octave, desc = sift.detect(image, detector)
        again, done = sift.describe_at(image, kp, octave, detector)
        assert done.all() and np.array_equal(again, desc)


def test_a_part_of_the_keypoints_gets_the_same_descriptors_as_all(faces, detector):
    """OpenCV would take another pyramid if no keypoint of the finest octave were given."""
    kp, octave, desc = sift.detect(faces[0], detector)
    coarse = np.flatnonzero((octave & 255) != 255)[::-1]
    assert 0 < len(coarse) < len(kp)
    again, done = sift.describe_at(faces[0], kp[coarse], octave[coarse], detector)
    assert done.all() and np.array_equal(again, desc[coarse])


def test_descriptors_of_another_image_differ(faces, detector):
    kp, octave, desc = sift.detect(faces[0], detector)
    other, done = sift.describe_at(faces[1], kp, octave, detector)
    a, b = (x[done].astype(float) for x in (desc, other))
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1)
    assert cosine.mean() < 0.8


def test_no_keypoints_are_described_as_none(faces, detector):
    desc, done = sift.describe_at(
        faces[0], np.zeros((0, 5), np.float32), np.zeros(0, np.int32), detector
    )
    assert desc.shape == (0, 128) and done.shape == (0,)


def test_a_map_of_no_image_is_empty(faces):
    descriptors = arrange(find(faces[:0], LOWE, "SIFT"), 96, LOWE | RULES)
    assert len(descriptors) == 0
    assert densify(descriptors, torch.zeros(0, dtype=torch.int64))[4].shape == (0, 128, 24, 24)
