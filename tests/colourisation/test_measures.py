import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from sklearn.metrics.pairwise import polynomial_kernel

from stages.colourisation import baselines
from stages.colourisation.ciede2000 import ciede2000
from stages.colourisation.colour import AB_SCALE, encode
from stages.colourisation.kid import kid
from stages.colourisation.measures import (
    PSNR_CAP,
    Judge,
    Picture,
    against,
    auc,
    local_detail,
    measure,
    own_values,
)
from stages.colourisation.perceptual import l_perc, l_perc_unit, load_backbone, resized
from stages.common.errors import InputError
from stages.common.histograms import overlap
from stages.common.networks.efficientnet_lite import load_efficientnet_lite0

CPU = torch.device("cpu")
GREY_L1, GREY_PSNR = 28.2855, 17.5418  # of smooth_images(), with scikit-image 0.26
OPTIONS = {"quant": "trunc8", "batch_size": 4, "threads": 1, "device": CPU}


def smooth_images(n=6, side=16, seed=0):
    """Make smooth colourful images, the same ones always."""
    coarse = torch.from_numpy(np.random.default_rng(seed).random((n, 3, 4, 4), np.float32))
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)


IMAGES = smooth_images()
AB = encode(torch.from_numpy(IMAGES))[1].numpy() * np.float32(AB_SCALE)


@pytest.fixture(scope="module")
def judge():
    net = load_efficientnet_lite0()
    return Judge(net, net, size=32, pooling_size=32)


def in_lab(ab):
    lab = torch.cat([torch.full((len(ab), 1, *ab.shape[2:]), 50.0), ab], 1)
    return Picture(torch.zeros(lab.shape, dtype=torch.uint8), lab)


def test_true_colours_score_no_error_the_psnr_cap_and_full_overlap(judge):
    (values,), real = measure(IMAGES, [AB], judge, **OPTIONS)
    for name in ("l1", "mse", "delta_e", "lperc", "lperc_unit"):
        np.testing.assert_allclose(values[name], 0, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(values["psnr"], np.float32(PSNR_CAP))
    np.testing.assert_allclose(values["auc"], 1)
    counts = values["image_hist"].sum(0), real["image_hist"].sum(0)
    np.testing.assert_allclose(overlap(*counts), 1)
    for name in ("chroma", "m3", "hf", "hist2d"):
        np.testing.assert_array_equal(values[name], real[name])


def test_a_shift_of_1_in_a_alone_gives_l1_half_and_51_dB():
    zero, one = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    one[:, 0] = 1
    values = against(in_lab(one), in_lab(zero))
    np.testing.assert_allclose(values["l1"], 0.5)
    np.testing.assert_allclose(values["psnr"], 51.14, atol=0.005)
    np.testing.assert_allclose(values["psnr"], 20 * np.log10(255 / np.sqrt(0.5)))


def test_histogram_counts_sum_to_the_pixels_of_both_channels():
    (values,), real = measure(IMAGES, [baselines.random_hue(AB, 0)], None, **OPTIONS)
    for arrays in (values, real):
        np.testing.assert_array_equal(arrays["image_hist"].sum((1, 2)), 2 * 16 * 16)
        assert arrays["hist2d"].sum() == len(IMAGES) * 16 * 16


def test_grey_baseline_of_the_fixture_equals_scikit_images_value():
    # the c.8 pipeline written with scikit-image: trunc8(lab2rgb) both ways, then ab differences
    lab = rgb2lab(IMAGES)
    grey = np.concatenate([lab[..., :1], np.zeros_like(lab[..., 1:])], 3)
    real, fake = (rgb2lab((lab2rgb(v) * 255).astype(np.uint8))[..., 1:] for v in (lab, grey))
    mse = ((fake - real) ** 2).mean((1, 2, 3))
    assert np.abs(fake - real).mean() == pytest.approx(GREY_L1, abs=1e-3)
    assert (20 * np.log10(255 / np.sqrt(mse))).mean() == pytest.approx(GREY_PSNR, abs=1e-3)
    (values,), _ = measure(IMAGES, [baselines.grey(AB)], None, **OPTIONS)
    # float32 and float64 truncate some values to different levels
    assert values["l1"].mean() == pytest.approx(GREY_L1, abs=0.1)
    assert values["psnr"].mean() == pytest.approx(GREY_PSNR, abs=0.05)
    assert values["m3"].max() < 1


def test_auc_of_a_constant_distance_by_hand():
    shift = np.zeros((1, 2, 3, 3), np.float32)
    shifted = shift.copy()
    shifted[:, 0] = 15.0  # thresholds 15 .. 150 of 0 .. 150 pass
    assert auc(shifted, shift)[0] == pytest.approx(136 / 151)
    shifted[:, 0] = 15.5
    assert auc(shifted, shift)[0] == pytest.approx(135 / 151)
    shifted[:, 0] = 200
    assert auc(shifted, shift)[0] == 0


def test_local_detail_is_0_for_flat_colours_and_sees_a_checkerboard():
    flat = torch.full((1, 2, 16, 16), 7.0)
    assert local_detail(flat) == pytest.approx(0, abs=1e-5)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    board = ((rows + columns) % 2 * 2.0 - 1).expand(1, 2, 16, 16) * 5
    assert local_detail(board) == pytest.approx(5, rel=0.02)


def test_a_9_by_9_box_separates_detail_from_slow_change():
    ramp = torch.linspace(-20, 20, 64).expand(1, 2, 64, 64)
    assert local_detail(ramp) < 0.15 * ramp.std()


# Sharma, Wu & Dalal 2005, Table 1: pairs 1, 7, 9, 15, 17, 25, 33, 34
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0009), 7.1792),
    ((50.0, -0.001, 2.49), (50.0, 0.0011, -2.49), 4.7461),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]


def test_ciede2000_gives_the_authors_table():
    first, second = (torch.tensor([pair[i] for pair in SHARMA]).view(-1, 3, 1, 1) for i in (0, 1))
    expected = torch.tensor([pair[2] for pair in SHARMA])
    torch.testing.assert_close(ciede2000(first, second).flatten(), expected, atol=1e-4, rtol=0)


def test_ciede2000_equals_scikit_image_on_random_colours():
    rng = np.random.default_rng(0)
    first, second = rng.uniform([0, -90, -90], [100, 90, 90], size=(2, 1, 40, 50, 3))
    ours = ciede2000(*(torch.from_numpy(v).permute(0, 3, 1, 2) for v in (first, second)))
    np.testing.assert_allclose(ours.numpy(), deltaE_ciede2000(first, second), atol=1e-4)


def test_kid_equals_the_sums_of_scikit_learns_kernel_over_all_pairs_of_other_images():
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.rand(2, 40, 20, generator=generator, dtype=torch.float64)
    fake = fake + 0.3
    value, _ = kid(real, fake)
    kernels = [polynomial_kernel(a, b) for a, b in ((real, real), (fake, fake), (real, fake))]
    xx, yy, xy = kernels  # (x . y / d + 1)^3 is scikit-learn's default
    others = ~np.eye(40, dtype=bool)
    assert value == pytest.approx(xx[others].mean() + yy[others].mean() - 2 * xy.mean())


def test_kid_jackknife_equals_leaving_each_image_out(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    real, fake = torch.rand(2, 12, 5, generator=generator, dtype=torch.float64)
    left = []
    for i in range(12):
        rest = [j for j in range(12) if j != i]
        left.append(kid(real[rest], fake[rest])[0])
    expected = np.sqrt(11 / 12 * np.square(np.array(left) - np.mean(left)).sum())
    assert kid(real, fake)[1] == pytest.approx(expected)
    whole = kid(real, fake)
    monkeypatch.setattr("stages.colourisation.kid.ROWS_AT_ONCE", 5)
    assert kid(real, fake) == pytest.approx(whole)


def test_kid_of_two_images_is_refused():
    with pytest.raises(ValueError, match="needs 3 images, there are 2"):
        kid(torch.rand(2, 4), torch.rand(2, 4))


def test_l_perc_grows_as_chroma_shrinks_and_is_0_for_the_truth(judge):
    faded = [baselines.saturate(AB, s) for s in (1, 0.75, 0.5, 0)]
    results, _ = measure(IMAGES, faded, judge, **OPTIONS)
    for name in ("lperc", "lperc_unit"):
        values = [float(r[name].mean()) for r in results]
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values == sorted(values) and values[1] > 0


def test_l_perc_does_not_depend_on_the_order_of_images_or_the_batch(judge):
    ab = baselines.half_chroma(AB)
    (values,), _ = measure(IMAGES, [ab], judge, **OPTIONS)
    order = np.array([3, 0, 5, 1, 4, 2])
    (shuffled,), _ = measure(
        IMAGES[order], [ab[order]], judge, quant="trunc8", batch_size=6, threads=1, device=CPU
    )
    for name in ("lperc", "lperc_unit", "l1", "delta_e"):
        np.testing.assert_allclose(shuffled[name], values[name][order], rtol=1e-4)
    assert shuffled["kid"] == pytest.approx(float(values["kid"]), rel=1e-2, abs=1e-6)


def test_values_do_not_depend_on_the_number_of_threads(judge):
    ab = baselines.half_chroma(AB)
    (one,), _ = measure(IMAGES, [ab], judge, **(OPTIONS | {"batch_size": 2}))
    (three,), _ = measure(IMAGES, [ab], judge, **(OPTIONS | {"batch_size": 2, "threads": 3}))
    for name, values in one.items():
        np.testing.assert_array_equal(three[name], values, err_msg=name)


def test_l_perc_is_the_mean_over_layers_of_mean_absolute_differences():
    real = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)]
    fake = [torch.full((2, 3, 4, 4), -2.0), torch.full((2, 5, 2, 2), 4.0)]
    torch.testing.assert_close(l_perc(real, fake), torch.tensor([3.0, 3.0]))


def test_unit_l_perc_of_orthogonal_features_is_2():
    real, fake = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    real[:, 0], fake[:, 1] = 5, 0.1
    torch.testing.assert_close(l_perc_unit([real], [fake]), torch.tensor([2.0]))


def test_resizing_keeps_the_range_and_what_already_fits():
    images = (torch.rand(2, 3, 8, 8) > 0.5).float()
    large = resized(images, 32)
    assert large.shape == (2, 3, 32, 32) and large.min() >= 0 and large.max() <= 1
    assert resized(images, 8) is images


def test_another_backbone_gives_other_distances_and_the_same_kid():
    pooling = load_efficientnet_lite0()
    torch.manual_seed(0)
    vgg = Judge(load_backbone("vgg19_random", None, 40), pooling, size=40, pooling_size=64)
    own = Judge(pooling, pooling, size=64, pooling_size=64)
    ab = baselines.half_chroma(AB)
    (by_vgg,), _ = measure(IMAGES, [ab], vgg, **OPTIONS)
    (by_lite,), _ = measure(IMAGES, [ab], own, **OPTIONS)
    assert by_vgg["kid"] == pytest.approx(float(by_lite["kid"]), rel=1e-3)
    assert not np.allclose(by_vgg["lperc"], by_lite["lperc"], rtol=0.1)


def test_backbones_that_cannot_be_used_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="a multiple of 32, found 100; take 128"):
        load_backbone("efflite0", None, 100)
    with pytest.raises(InputError, match="perc_weights: is not used"):
        load_backbone("efflite0", "weights.h5", 96)
    with pytest.raises(InputError, match="lacks its weights"):
        load_backbone("vgg19_keras", None, 96)
    with pytest.raises(InputError, match="found none"):
        load_backbone("vgg19_tv", str(tmp_path / "gone.pth"), 96)


def test_predictions_that_are_nan_are_refused():
    ab = AB.copy()
    ab[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 predicted values are not finite"):
        measure(IMAGES, [ab], None, **OPTIONS)


def test_values_of_grey_images_are_0():
    grey = np.repeat(IMAGES[..., :1], 3, axis=3)
    _, real = measure(grey, [np.zeros_like(AB)], None, **(OPTIONS | {"quant": "round8"}))
    for name in ("chroma", "m3", "hf"):
        np.testing.assert_allclose(real[name], 0, atol=0.01)


def test_own_values_have_one_row_an_image():
    rgb = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    values = own_values(Picture(rgb, torch.zeros(6, 3, 16, 16)))
    assert {name: len(v) for name, v in values.items()} == dict.fromkeys(
        ("chroma", "m3", "hf", "image_hist"), 6
    )


# ---------------------------------------------------------------- baselines


def test_grey_and_constant_are_what_they_say():
    assert not baselines.grey(AB).any()
    constant = baselines.constant(AB, np.array([1.58, 8.13]))
    assert constant.dtype == AB.dtype and constant.shape == AB.shape
    np.testing.assert_allclose(constant[3, :, 2, 1], [1.58, 8.13], rtol=1e-6)
    np.testing.assert_allclose(baselines.mean_colour(AB), AB.mean((0, 2, 3)), rtol=1e-4)


def test_random_hue_keeps_the_chroma_of_every_pixel_and_turns_each_image_alone():
    turned = baselines.random_hue(AB, seed=0)
    chroma = [np.hypot(v[:, 0], v[:, 1]) for v in (AB, turned)]
    np.testing.assert_allclose(*chroma, rtol=1e-4, atol=1e-4)
    angle = np.arctan2(turned[:, 1], turned[:, 0]) - np.arctan2(AB[:, 1], AB[:, 0])
    first = np.exp(1j * angle)
    np.testing.assert_allclose(first, first[:, :1, :1].repeat(16, 1).repeat(16, 2), atol=1e-2)
    assert len(np.unique(np.round(first[:, 0, 0], 3))) == 6
    np.testing.assert_array_equal(turned, baselines.random_hue(AB, seed=0))
    assert not np.array_equal(turned, baselines.random_hue(AB, seed=1))


@pytest.mark.parametrize("seed", range(5))
def test_other_image_is_of_another_group_and_each_is_used_once(seed):
    groups = np.array([0, 0, 0, 1, 2, 2, 3, 4, 5, 5])
    donors = baselines.donors(groups, seed)
    assert sorted(donors) == list(range(10))
    assert (groups[donors] != groups).all()


def test_other_image_gives_the_donors_colours():
    groups = np.arange(6)
    np.testing.assert_array_equal(
        baselines.other_image(AB, groups, 0), AB[baselines.donors(groups, 0)]
    )


def test_a_group_of_more_than_half_the_images_is_refused():
    with pytest.raises(ValueError, match="one group has 4 of 6 images"):
        baselines.donors(np.array([0, 0, 0, 0, 1, 2]), 0)


def test_saturating_reaches_the_real_mean_chroma():
    pale = baselines.saturate(AB, 0.3)
    s = baselines.matching_scale(pale, AB)
    assert s == pytest.approx(1 / 0.3, rel=1e-5)
    with pytest.raises(InputError, match="are grey"):
        baselines.matching_scale(np.zeros_like(AB), AB)
