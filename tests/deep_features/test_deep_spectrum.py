"""Blur, checkerboards and similarity, on pictures whose value is known."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from sklearn.metrics import pairwise_distances

from stages.common.metrics import psnr as psnr_of_arrays
from stages.deep_features.similarity import cosine_distance, psnr, ssim
from stages.deep_features.spectrum import fine_share, lattice, luma, peaks


def noise(n=64, h=64, w=32, seed=0):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))


def wave(period, h=64, w=32, axis=1):
    length = (h, w)[axis]
    line = 0.5 + 0.4 * torch.cos(2 * math.pi * torch.arange(length) / period)
    plane = line.expand(h, w) if axis == 1 else line[:, None].expand(h, w)
    return plane.expand(1, 3, h, w)


def test_cosine_distance_is_scikit_learns():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 9))
    a[3] = 0
    found = cosine_distance(torch.from_numpy(a), torch.from_numpy(b))
    expected = np.diag(pairwise_distances(a, b, metric="cosine"))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_cosine_distance_knows_direction_not_length():
    f = torch.randn(4, 2048)
    assert cosine_distance(f, f).abs().max() <= 1e-6
    assert cosine_distance(f, 7 * f).abs().max() <= 1e-6
    torch.testing.assert_close(cosine_distance(f, -f), torch.full((4,), 2.0).double())


def test_psnr_and_ssim_are_those_of_the_other_papers():
    x, y = noise(3), (noise(3) + 0.1 * noise(3, seed=1)).clamp(0, 1)
    arrays = [image.permute(0, 2, 3, 1).double().numpy() for image in (x, y)]
    np.testing.assert_allclose(psnr(x, y).numpy(), psnr_of_arrays(*arrays, data_range=1))
    expected = [
        structural_similarity(a, b, data_range=1, channel_axis=-1)
        for a, b in zip(*arrays, strict=True)
    ]
    np.testing.assert_allclose(ssim(x, y).numpy(), expected, atol=1e-7)
    assert psnr(x, x).isinf().all()
    torch.testing.assert_close(ssim(x, x), torch.ones(3).double())


def test_luma_of_grey_is_grey():
    torch.testing.assert_close(
        luma(torch.full((1, 3, 2, 2), 0.3)), torch.full((1, 2, 2), 0.3).double()
    )
    assert luma(torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1)).item() == pytest.approx(0.587)


def test_white_noise_has_its_share_of_fine_detail_and_blur_has_less():
    x = noise()
    assert fine_share(x).mean().item() == pytest.approx(1 - math.pi / 16, abs=0.01)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert (fine_share(blurred) < fine_share(x)).all()


@pytest.mark.parametrize(("period", "share"), [(2, 1), (8 / 3, 1), (8, 0), (16, 0)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_is_fine_or_not(period, share, axis):
    assert fine_share(wave(period, axis=axis)).item() == pytest.approx(share, abs=1e-9)


def test_flat_images_have_neither():
    for level in (0.0, 0.3, 1.0):
        flat = torch.full((2, 3, 32, 32), level)
        assert fine_share(flat).tolist() == peaks(flat).tolist() == [0, 0]


def test_the_lattice_has_the_periods_two_four_and_eight():
    bins = lattice(64, 32)
    assert not bins[0, 0] and bins[8, 0] and bins[56, 0] and bins[16, 8] and bins[32, 16]
    assert not bins[0, 12] and not bins[24, 0] and not bins[1, 0]
    assert bins.sum() == 6 * 6 - 1


@pytest.mark.parametrize("block", [2, 4, 8])
def test_patterns_of_upsampling_are_peaks(block):
    x = noise()
    tile = torch.rand(1, 3, block, block, generator=torch.Generator().manual_seed(2))
    pattern = (tile - tile.mean()).repeat(1, 1, 64 // block, 32 // block)
    assert (peaks(x + 0.3 * pattern) > peaks(x)).all()
    other = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    other = (other - other.mean()).repeat(1, 1, 13, 7)[..., :64, :32]
    assert peaks(x + 0.3 * other).mean() < peaks(x).mean() + 0.1  # of another period
    # an exponential's mean over its median: 1 / ln 2
    assert peaks(noise(300)).mean().item() == pytest.approx(math.log10(1 / math.log(2)), abs=0.1)


def test_repeated_pixels_are_seen():
    small = noise(64, 32, 16)
    doubled = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    smooth = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    assert fine_share(doubled).mean() > fine_share(smooth).mean()


@pytest.mark.parametrize("size", [(60, 32), (8, 16)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 8"):
        peaks(torch.zeros(1, 3, *size))
