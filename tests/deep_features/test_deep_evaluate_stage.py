"""The evaluation, with black boxes and generators that the test makes."""

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.metrics import pairwise_distances

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_bytes, write_json, write_npz
from stages.deep_features import evaluate as stage
from stages.deep_features.evaluate import evaluate, next_person, rounded, through_jpeg, truncated
from stages.deep_features.generator import Generator, load_generator
from stages.deep_features.pixels import to_floats

N, H, W, D = 10, 32, 16, 16
SHAPE = {"dims": D, "height": H, "width": W, "min_map": [8, 4], "c0": 8, "hidden": 16, "base_g": 4}
OPTIONS = {"seeds": [0, 3], "threads": 1, "batch_size": 4, "jpeg": False, "allow_real_grids": False}
MADE = ("pixel", "pixel_equal", "fr", "fr_equal", "fr_adv")
FLOORS = ("same", "floor", "other", "mean", "blank")
MEASURES = ("distance", "psnr", "ssim", "hf", "peak")


def black_box(folder, seed, device):
    assert folder.name in ("agw", "bot")
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(D, 3, 8, 8, generator=generator)

    def see(images, batch_size):
        parts = images.split(batch_size)
        return torch.cat(
            [torch.nn.functional.conv2d(p, weight, stride=8).amax((2, 3)) - 4 for p in parts]
        )

    return see


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "load_blackbox", black_box)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        images = rng.integers(0, 256, (N, H // 4, W // 4, 3), dtype=np.uint8)
        images = images.repeat(4, 1).repeat(4, 2)
        pids = np.array([7, 7, 8, 8, 8, 9, 0, 0, 7, 7])
        write_npz(tmp_path / "data" / f"a_{split}.npz", images=images, pids=pids)
    sets = {"a": {"real": False}}
    panel = {"a": [1, 4]}
    write_json(tmp_path / "data" / "meta.json", {"locals": ["a"], "sets": sets, "panel": panel})
    x = to_floats(torch.from_numpy(images))
    for seed in (0, 3):
        f = black_box(tmp_path / "bot", seed, None)(x, 4)
        write_npz(tmp_path / "extract" / "bot" / f"a_test-s{seed}.npz", features=f.numpy())
        for i, loss in enumerate(("pixel", "fr", "fr_adv")):
            folder = tmp_path / "made" / loss / "bot-a"
            write_json(folder / "meta.json", {**SHAPE, "loss": loss, "updates_g": 4, "w_adv": 1})
            for kind in ("generator", "generator-equal")[: 1 + (loss != "fr_adv")]:
                torch.manual_seed(10 * seed + 2 * i + len(kind))
                weights = save(Generator(**SHAPE).state_dict())
                write_bytes(folder / f"{kind}-s{seed}.safetensors", weights)
    return [tmp_path / name for name in ("data", "trained", "extract", "made")]


def test_everything_is_measured_and_agrees_with_other_implementations(made, tmp_path):
    evaluate(*made, tmp_path / "out", **OPTIONS)
    found = read_npz(tmp_path / "out" / "bot-a.npz")
    names = {f"{m}_{r}" for m in MEASURES for r in (*MADE, *FLOORS)}
    assert set(found) == names | {"seeds", "hf_original", "peak_original"}
    for name in names:
        assert found[name].shape == (2, N) and found[name].dtype == np.float64, name
        assert np.isfinite(found[name]).all() or name == "psnr_same", name
    assert found["hf_original"].shape == found["peak_original"].shape == (1, N)
    assert found["distance_same"].max() <= 1e-6
    assert np.isinf(found["psnr_same"]).all() and np.allclose(found["ssim_same"], 1)
    assert (found["distance_floor"] > 0).all()
    assert found["distance_floor"].mean() < found["distance_other"].mean()
    for k, seed in enumerate((0, 3)):
        f = read_npz(made[2] / "bot" / f"a_test-s{seed}.npz")["features"]
        images = load_generator(made[3] / "fr" / "bot-a", seed, torch.device("cpu"))(f)
        again = black_box(tmp_path / "bot", seed, None)(images, 4).numpy()
        expected = np.diag(pairwise_distances(f, again, metric="cosine"))
        np.testing.assert_allclose(found["distance_fr"][k], expected, atol=1e-5)
        other = f[next_person(np.array([7, 7, 8, 8, 8, 9, 0, 0, 7, 7]))]
        expected = np.diag(pairwise_distances(f, other, metric="cosine"))
        np.testing.assert_allclose(found["distance_other"][k], expected, atol=1e-5)
    assert not np.allclose(found["distance_pixel"], found["distance_pixel_equal"])
    meta = read_json(tmp_path / "out" / "meta.json")
    assert meta["cells"]["bot-a"]["losses"]["fr_adv"] == {"updates_g": 4, "w_adv": 1}


def test_everything_is_measured_on_the_device(made, tmp_path, monkeypatch):
    """What a network or a measure gets and gives lies on the device, up to ``joined``."""
    evaluate(*made, tmp_path / "cpu", **{**OPTIONS, "seeds": [0]})
    moved, here = [], torch.device("cpu", 0)  # a device that tensors can be told to be sent to
    to = torch.Tensor.to

    def sent(tensor, *args, **kwargs):
        if args == (here,):
            moved.append(tensor.shape)
        return to(tensor, *args, **kwargs)

    monkeypatch.setattr(stage, "evaluation_device", lambda: here)
    monkeypatch.setattr(torch.Tensor, "to", sent)
    evaluate(*made, tmp_path / "device", **{**OPTIONS, "seeds": [0]})
    assert (N, H, W, 3) in moved and (N, D) in moved and (1, 3, H, W) not in moved
    files = [tmp_path / name / "bot-a.npz" for name in ("cpu", "device")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_parts_do_not_change_the_numbers(made, tmp_path, monkeypatch):
    evaluate(*made, tmp_path / "whole", **OPTIONS)
    monkeypatch.setattr(stage, "AT_ONCE", 4)
    evaluate(*made, tmp_path / "parts", **OPTIONS)
    whole, parts = (read_npz(tmp_path / name / "bot-a.npz") for name in ("whole", "parts"))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


def test_the_panel_shows_the_first_seed_and_real_people_only_if_allowed(made, tmp_path):
    evaluate(*made, tmp_path / "out", **OPTIONS)
    panel = read_npz(tmp_path / "out" / "panel-bot-a.npz")
    assert set(panel) == {"original", "pixel", "fr", "fr_adv"}
    images = read_npz(made[0] / "a_test.npz")["images"]
    assert np.array_equal(panel["original"], images[[1, 4]])
    f = read_npz(made[2] / "bot" / "a_test-s0.npz")["features"][[1, 4]]
    G = load_generator(made[3] / "pixel" / "bot-a", 0, torch.device("cpu"))
    assert np.abs(panel["pixel"].astype(int) - rounded(G(f)).astype(int)).max() <= 1
    meta = read_json(made[0] / "meta.json")
    for sets in ({"a": {"real": True}}, {"a": {}}):
        write_json(made[0] / "meta.json", {**meta, "sets": sets})
        evaluate(*made, tmp_path / "real", **OPTIONS)
        assert not (tmp_path / "real" / "panel-bot-a.npz").exists()
    evaluate(*made, tmp_path / "allowed", **{**OPTIONS, "allow_real_grids": True})
    assert (tmp_path / "allowed" / "panel-bot-a.npz").exists()


def test_the_authors_way_through_jpeg_is_another_number(made, tmp_path):
    evaluate(*made, tmp_path / "lossless", **OPTIONS)
    evaluate(*made, tmp_path / "jpeg", **{**OPTIONS, "jpeg": True})
    a, b = (read_npz(tmp_path / n / "bot-a.npz") for n in ("lossless", "jpeg"))
    assert not np.array_equal(a["distance_fr"], b["distance_fr"])
    np.testing.assert_allclose(a["distance_fr"], b["distance_fr"], atol=0.1)
    assert np.array_equal(a["distance_floor"], b["distance_floor"])


def test_losses_that_were_not_trained_are_left_out(made, tmp_path):
    (made[3] / "fr" / "bot-a" / "meta.json").unlink()
    evaluate(*made, tmp_path / "out", **OPTIONS)
    found = read_npz(tmp_path / "out" / "bot-a.npz")
    assert "distance_pixel" in found and "distance_fr" not in found


def test_eight_bits_are_cut_off_or_rounded():
    x = torch.tensor([0.0, 0.9999, 1.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    assert truncated(x)[:, 0, 0, 0].tolist() == [0, 254, 255]
    assert rounded(x)[:, 0, 0, 0].tolist() == [0, 255, 255]


def test_jpeg_is_opencvs_of_quality_95_in_rgb(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 2, 3), dtype=np.uint8)
    image = image.repeat(8, 0).repeat(8, 1)
    cv2.imwrite(str(tmp_path / "x.jpg"), image[..., ::-1])  # OpenCV's default is 95
    expected = cv2.imread(str(tmp_path / "x.jpg"))
    assert expected is not None
    assert np.array_equal(through_jpeg(image[None])[0], expected[..., ::-1])


def test_the_next_person_is_another():
    assert next_person(np.array([7, 7, 8, 9, 7])).tolist() == [2, 2, 3, 4, 2]
    with pytest.raises(InputError, match="have no other image"):
        next_person(np.array([3, 3]))


def test_what_does_not_belong_together_is_one_sentence(made, tmp_path):
    one = {**OPTIONS, "seeds": [0]}
    with pytest.raises(InputError, match="holds no reconstructions"):
        evaluate(*made[:3], tmp_path / "none", tmp_path / "out", **one)
    with pytest.raises(InputError, match=r"a_test-s5.npz: is not a readable"):
        evaluate(*made, tmp_path / "out", **{**OPTIONS, "seeds": [5]})
    file = made[3] / "fr" / "bot-a" / "meta.json"
    write_json(file, {**read_json(file), "height": 64, "width": 32, "min_map": [16, 8]})
    with pytest.raises(InputError, match="cannot be used as weights"):
        evaluate(*made, tmp_path / "out", **one)
    write_json(file, {**read_json(file), "min_map": [8, 4]})
    with pytest.raises(InputError):
        evaluate(*made, tmp_path / "out", **one)
    meta = read_json(made[0] / "meta.json")
    write_json(made[0] / "meta.json", {**meta, "locals": ["z"], "sets": {"z": {}}})
    with pytest.raises(InputError, match="has a cell of an unknown set.*found a"):
        evaluate(*made, tmp_path / "out", **one)
