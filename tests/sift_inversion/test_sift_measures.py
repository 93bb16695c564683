import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity

from stages.common.networks.efficientnet_lite import load_efficientnet_lite0
from stages.data.images import load_images
from stages.sift_inversion import measures
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.keypoints import Descriptors
from stages.sift_inversion.luma import luma_chroma
from stages.sift_inversion.sift import detector

PARAMS = {
    "contrast_threshold": 0.04,
    "edge_threshold": 10,
    "sigma": 1.6,
    "octave_layers": 3,
    "order": "response",
    "collision": "adjacent",
    "r_max": 1,
}
SIZE, N = 64, 12
REGIONS = ("face", "rest", "far")


def images_of(size=SIZE):
    """Faces of different emoji, the last one flat: it has no keypoints."""
    images = load_images("emojifaces", "test", size).images[: 20 * N : 20].copy()
    images[-1] = 200
    return images


def keypoints_of(images) -> Descriptors:
    return arrange(find(images, PARAMS, "test"), images.shape[1], PARAMS)


def blurred(images, sigma):
    soft = gaussian_filter(images.astype(np.float64), (0, sigma, sigma, 0), mode="reflect")
    return np.rint(soft).astype(np.uint8)


@pytest.fixture(scope="module")
def net():
    torch.set_num_threads(1)
    return load_efficientnet_lite0()


@pytest.fixture(scope="module")
def real(net):
    images = images_of()
    return measures.load_real(images, keypoints_of(images), net, batch_size=5, pca=8)


@pytest.fixture(scope="module")
def measured(real, net):
    """Measure the original, other images, a blur of it, grey and a flat image."""
    sift = detector(PARAMS)
    box = np.zeros((N, SIZE, SIZE), bool)
    box[:, 16:48, 16:48] = True
    box[0] = False
    fakes = {
        "same": real.images,
        "other": np.roll(real.images, 1, 0),
        "grey": np.repeat(real.images.mean(-1, keepdims=True).astype(np.uint8), 3, -1),
        "flat": np.full_like(real.images, 128),
        **{f"blur{s}": blurred(real.images, s) for s in (0.5, 1.0, 2.0)},
    }
    return {
        name: measures.measure(
            fake, real, net, sift, regions={"in": box, "out": ~box}, batch_size=5
        )
        for name, fake in fakes.items()
    }


def test_the_original_is_perfect_by_every_measure(measured, real):
    found = measured["same"]
    present = real.keypoints.counts > 0
    assert present.sum() == N - 1
    for name in ("dcos", "dmatch", "kpr"):
        assert (found[name][present] == 1).all() and np.isnan(found[name][~present]).all()
    for name in ("pd", "mae", "rse", "chroma_error", "log_sharp", "chk"):
        assert (found[name] == 0).all(), name
    for name in ("ssim", "ssim_y"):
        np.testing.assert_allclose(found[name], 1)
    assert (found["psnr"] == measures.PSNR_CAP).all() and (found["id1"] == 1).all()
    for region in REGIONS:
        inside = real.regions[region].any((1, 2))
        assert (found[f"pd_{region}"][inside] == 0).all()
        assert (found[f"log_sharp_{region}"][inside] == 0).all()


def test_blur_worsens_what_it_must(measured):
    series = [measured[f"blur{s}"] for s in (0.5, 1.0, 2.0)]
    for name in ("psnr", "ssim", "log_sharp", "kpr", "dcos"):
        means = [np.nanmean(found[name]) for found in (measured["same"], *series)]
        assert (np.diff(means) < 0).all(), name
    assert (np.diff([found["pd"].mean() for found in (measured["same"], *series)]) > 0).all()


def test_another_image_is_far_away(measured):
    found = measured["other"]
    assert np.nanmean(found["dcos"]) < 0.6 and np.nanmean(found["kpr"]) < 0.3
    assert np.nanmean(found["dmatch"]) < 0.5
    assert found["id1"].sum() == 0 and found["psnr"].mean() < 15


def test_grey_loses_colour_alone(measured):
    found = measured["grey"]
    assert (found["chroma_error"][:-1] > 1).all()
    assert found["ssim_y"].mean() > 0.95 > 0.5 > abs(found["log_sharp"]).mean()
    np.testing.assert_allclose(found["mean_cb"], 128)
    np.testing.assert_allclose(found["mean_cr"], 128)


def test_a_flat_image_has_numbers_and_no_keypoints(measured):
    found = measured["flat"]
    for name in ("dcos", "dmatch", "kpr"):
        assert (found[name][:-1] == 0).all()
    others = [v for k, v in found.items() if k.split("_")[0] not in ("dcos", "dmatch", "kpr")]
    assert all(np.isfinite(v).all() for v in others if not np.isnan(v[0]).any())
    assert found["id1"].sum() <= 1


def test_arrays_have_one_value_an_image(measured):
    for found in measured.values():
        for name, array in found.items():
            if name == "features":
                assert array.shape == (N, 8) and array.dtype == np.float32
            else:
                assert array.shape == (N,) and array.dtype == np.float64, name


def test_a_region_without_pixels_has_no_value(measured):
    for metric in ("psnr", "pd", "log_sharp"):
        assert np.isnan(measured["other"][f"{metric}_in"][0])
        assert np.isfinite(measured["other"][f"{metric}_in"][1:]).all()
        np.testing.assert_allclose(
            measured["other"][f"{metric}_out"][0], measured["other"][metric][0], rtol=1e-6
        )


def test_damage_in_a_box_is_seen_in_the_box(real, net):
    box = np.zeros((N, SIZE, SIZE), bool)
    box[:, 20:44, 20:44] = True
    fake = np.where(box[..., None], 255 - real.images, real.images)
    found = measures.measure(
        fake, real, net, detector(PARAMS), regions={"in": box, "out": ~box}, batch_size=N
    )
    assert (found["psnr_out"] == measures.PSNR_CAP).all()
    assert (found["pd_in"] > 3 * found["pd_out"]).all()
    assert (found["psnr_in"] < found["psnr"]).all()


def test_pd_is_the_mean_over_space_summed_over_maps():
    torch.manual_seed(0)
    maps = [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)]
    other = [torch.rand_like(m) for m in maps]
    distances = measures.distance_maps(maps, other)
    by_hand = sum(((a - b) ** 2).sum(1).mean((1, 2)) for a, b in zip(maps, other, strict=True))
    everywhere = np.ones((2, 8, 8), bool)
    np.testing.assert_allclose(measures.perceptual_distance(distances), by_hand, rtol=1e-6)
    np.testing.assert_allclose(
        measures.perceptual_distance(distances, everywhere), by_hand, rtol=1e-6
    )
    corner = np.zeros((2, 8, 8), bool)
    corner[:, :2, :2] = True  # one place of the first map, a quarter of one of the second
    first = sum(((a - b) ** 2).sum(1)[:, 0, 0] for a, b in zip(maps, other, strict=True))
    np.testing.assert_allclose(measures.perceptual_distance(distances, corner), first, rtol=1e-6)


def test_feature_vectors_have_unit_length_at_three_scales(net):
    maps, pooled = measures.look(net, images_of()[:2])
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 32, 32), (24, 16, 16), (40, 8, 8)]
    for m in maps:
        length = m.square().sum(1)
        assert ((length - 1).abs() < 1e-5).logical_or(length == 0).all()
    assert pooled.shape == (2, 1280)


def test_images_of_any_side_can_be_looked_at(net):
    maps, _ = measures.look(net, images_of(40)[:2])
    assert maps[0].shape[-1] == 32  # enlarged to 64
    distances = measures.distance_maps(maps, [m.flip(0) for m in maps])
    mask = np.ones((2, 40, 40), bool)
    np.testing.assert_allclose(
        measures.perceptual_distance(distances, mask),
        measures.perceptual_distance(distances),
        rtol=1e-6,
    )


def test_luma_and_chroma_are_jpegs():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    Y, Cb, Cr = luma_chroma(images)
    studio = rgb2ycbcr(images)  # the same matrix, for studio range: Y 16..235, C 16..240
    np.testing.assert_allclose(Y, (studio[..., 0] - 16) * 255 / 219, atol=0.01)
    np.testing.assert_allclose(Cb - 128, (studio[..., 1] - 128) * 255 / 224, atol=0.01)
    np.testing.assert_allclose(Cr - 128, (studio[..., 2] - 128) * 255 / 224, atol=0.01)
    jpeg = cv2.cvtColor(images.reshape(10, 4, 3), cv2.COLOR_RGB2YCrCb).reshape(images.shape)
    assert abs(np.stack([Y, Cr, Cb], -1) - jpeg).max() < 1.01


@pytest.mark.parametrize(("size", "window"), [(32, 7), (64, 7), (65, 11), (128, 11)])
def test_ssim_has_the_window_of_the_size(size, window):
    rng = np.random.default_rng(size)
    x, y = rng.integers(0, 256, (2, 1, size, size, 3)).astype(np.uint8)
    expected = structural_similarity(x[0], y[0], win_size=window, data_range=255, channel_axis=-1)
    assert measures.ssim(x, y)[0] == expected


def test_sobel_of_a_ramp():
    ramp = np.tile(np.arange(9.0), (1, 9, 1))
    assert (measures.gradient(ramp)[0, 1:-1, 1:-1] == 8).all()  # 2 apart, weights 1 + 2 + 1
    assert (measures.gradient(ramp + ramp.swapaxes(1, 2))[0, 1:-1, 1:-1] == np.hypot(8, 8)).all()

    alone = [measures.gradient(Y[None])[0] for Y in np.concatenate([ramp, 9 - ramp])]
    assert np.array_equal(measures.gradient(np.concatenate([ramp, 9 - ramp])), alone)


def test_log_sharpness_of_known_gradients():
    fake, real = np.array([20.0, 5, 0, 0.5]), np.array([10.0, 10, 10, 0.1])
    expected = [np.log(2), -np.log(2), -np.log(10), 0]
    np.testing.assert_allclose(measures.log_sharpness(fake, real), expected)


def test_checkerboard_counts_period_two():
    row, column = np.mgrid[:16, :16]
    board, stripes = (-1.0) ** (row + column), (-1.0) ** column
    wave, flat = np.sin(2 * np.pi * column / 8), np.full((16, 16), 7.0)
    found = measures.checkerboard(np.stack([board, stripes, wave, flat, wave + stripes / 2**0.5]))
    np.testing.assert_allclose(found, [1, 1, 0, 0, 0.5], atol=1e-12)


def test_rank_one_finds_the_nearest_original():
    real = np.eye(4, dtype=np.float32)
    fake = np.array([[2, 0, 0, 0], [0, 1, 3, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    assert measures.rank_one(fake, real).tolist() == [1, 0, 1, 0]  # zero: near to none


def test_equal_descriptors_far_apart_are_still_matches(real):
    """A drawing that repeats itself: the nearest descriptor need not be the first one."""
    images = np.concatenate([real.images[:1, :, :32]] * 2, 2)
    keypoints = keypoints_of(images)
    found = measures.keypoint_agreement(images, keypoints, detector(PARAMS))
    assert found["dmatch"][0] == found["dcos"][0] == found["kpr"][0] == 1


def test_principal_axes_are_orthonormal_and_signed():
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(30, 5)) * [5, 1, 3, 0.1, 2] + 7
    mean, axes = measures.principal_axes(pooled, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.abs(axes).argmax(0).tolist() == [0, 2, 4] and (axes.max(0) > 0.8).all()
    spread = ((pooled - mean) @ axes).std(0)
    assert (np.diff(spread) < 0).all()
    with pytest.raises(ValueError, match="5 images span fewer than 5 axes"):
        measures.principal_axes(pooled[:5], 5)


def test_mean_distance_is_over_all_pairs():
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[1, 0, 0] = 255  # distance sqrt(3) from the others
    assert measures.mean_distance(images) == pytest.approx(2 * 3**0.5 / 3)
    big = np.random.default_rng(0).integers(0, 256, (5, 80, 80, 3)).astype(np.uint8)
    flat = big.reshape(5, -1) / 255
    pairs = [np.linalg.norm(flat[i] - flat[j]) for i in range(5) for j in range(i)]
    assert measures.mean_distance(big) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="needs two images, there are 1"):
        measures.mean_distance(images[:1])


def test_the_originals_are_described(real):
    found = measures.own_values(real)
    assert np.array_equal(found["n_keypoints"], real.keypoints.counts)
    assert found["features"].shape == (N, 8)
    np.testing.assert_allclose(found["features"].mean(0), 0, atol=1e-4)
    face = real.regions["face"][0].mean()
    everywhere = found["density_face"] * face + found["density_rest"] * (1 - face)
    np.testing.assert_allclose(everywhere, 1000 * real.keypoints.counts / SIZE**2)
    assert found["gradient_face"][-1] == 0 < found["gradient_face"][0]
    assert found["pairwise"] > 0


def test_errors_are_in_the_images_units(measured, real):
    fake = np.roll(real.images, 1, 0).astype(np.float64)
    difference = (fake - real.images).reshape(N, -1)
    np.testing.assert_allclose(measured["other"]["mae"], np.abs(difference).mean(1))
    np.testing.assert_allclose(measured["other"]["rse"], (difference**2).sum(1) / 255**2)
