import itertools

import kornia
import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from stages.colourisation.colour import AB_SCALE, decode, encode, quantise, to_lab
from stages.colourisation.recolour import grey, recolour

LEVELS = np.linspace(0, 255, 52).round().astype(np.uint8)
CUBE = np.array(list(itertools.product(LEVELS, repeat=3)), np.uint8).reshape(1, 52, 52 * 52, 3)
RGB = torch.from_numpy(CUBE).permute(0, 3, 1, 2)


def test_lab_equals_scikit_images_over_the_whole_cube():
    ours = to_lab(RGB).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours - rgb2lab(CUBE)).max() <= 5e-4
    assert kornia.__version__  # its Lab is what colour.py calls


def test_encode_then_decode_is_the_identity():
    x, y = encode(torch.from_numpy(CUBE))
    assert (decode(x, y) - RGB / 255).abs().max() <= 1e-5


def test_8_bit_images_survive_rounding_exactly():
    x, y = encode(torch.from_numpy(CUBE))
    assert torch.equal(quantise(decode(x, y), "round8"), RGB)


def test_truncation_loses_about_half_a_level():
    x, y = encode(torch.from_numpy(CUBE))
    lost = RGB.float() - quantise(decode(x, y), "trunc8").float()
    assert set(lost.unique().tolist()) <= {0.0, 1.0}
    assert 0.3 <= lost.mean() <= 0.6


def test_whole_cube_stays_in_range_and_ends_at_black_and_white():
    x, y = encode(torch.from_numpy(CUBE))
    assert y.abs().max() < 1
    assert x.min() == pytest.approx(-1, abs=1e-6) and x.max() == pytest.approx(1, abs=1e-6)


def test_grey_has_no_colour():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(1, 256, 1, 3)
    assert (encode(levels)[1].abs() * AB_SCALE).max() < 0.01


def test_colours_outside_srgb_are_clipped():
    x, y = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, 2)
    rgb = decode(x, y)
    assert rgb.min() >= 0 and rgb.max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_lab_on_the_gpu_equals_the_cpus():
    assert (to_lab(RGB.cuda()).cpu() - to_lab(RGB)).abs().max() <= 1e-3


def test_report_pictures_are_the_evaluations_with_rounding():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(2, 8, 8, 3), dtype=np.uint8)
    ab = rng.uniform(-60, 60, size=(2, 2, 8, 8)).astype(np.float32)
    x, _ = encode(torch.from_numpy(images))
    rgb = quantise(decode(x, torch.from_numpy(ab) / AB_SCALE), "round8")
    ours = recolour(images, ab).astype(int)
    assert np.abs(ours - rgb.permute(0, 2, 3, 1).numpy()).max() <= 1
    assert np.ptp(grey(images), axis=3).max() <= 1


def test_recolouring_with_the_true_colours_gives_the_image_back():
    images = np.random.default_rng(1).integers(256, size=(2, 8, 8, 3), dtype=np.uint8)
    ab = np.moveaxis(rgb2lab(images)[..., 1:], 3, 1)
    np.testing.assert_array_equal(recolour(images, ab), images)
