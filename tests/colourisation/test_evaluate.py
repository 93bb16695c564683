import numpy as np
import pytest
import torch

from stages.colourisation import evaluations
from stages.colourisation.baselines import matching_scale
from stages.colourisation.evaluate import ab_of, evaluate
from stages.colourisation.evaluate_baselines import evaluate_baselines
from stages.common.errors import InputError
from stages.common.files import read_npz, write_npz

SIDE = 16
SIZES = {"train": 8, "val": 4, "test": 6}
N_EVAL = 5
OPTIONS = {
    "seeds": [0, 1],
    "quant": "trunc8",
    "perc_backbone": "efflite0",
    "perc_size": 32,
    "perc_weights": None,
    "batch_size": 4,
    "threads": 1,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Write prepared images and the predictions of two seeds: the true colours, paled."""
    folder = tmp_path_factory.mktemp("colourisation")
    rng = np.random.default_rng(0)
    truth = {}
    for split, n in SIZES.items():
        coarse = torch.from_numpy(rng.random((n, 3, 4, 4), np.float32))
        images = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
        images = (images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
        labels, groups = np.arange(n) % 2, np.arange(n) // 2
        write_npz(folder / "prepare" / f"{split}.npz", images=images, labels=labels, groups=groups)
        truth[split] = ab_of(images)
    for seed, scale in ((0, 0.5), (1, 0.25)):
        predictions = {k: (v * scale).astype(np.float16) for k, v in truth.items()}
        predictions["train"] = predictions["train"][:N_EVAL]
        write_npz(folder / "bn" / f"predictions-s{seed}.npz", **predictions)
    return folder


@pytest.fixture(scope="module")
def evaluated(prepared):
    threads = torch.get_num_threads()
    facts = evaluate(prepared / "prepare", prepared / "bn", prepared / "bn.npz", **OPTIONS)
    evaluate_baselines(
        prepared / "prepare",
        prepared / "bn",
        prepared / "baselines",
        baseline_seed=0,
        **OPTIONS,
    )
    torch.set_num_threads(threads)
    assert facts["images_per_s"] > 0
    return prepared


def test_score_can_read_what_evaluate_wrote(evaluated):
    real = evaluations.read_real(evaluated / "baselines" / "real.npz")
    assert len(real["groups"]) == SIZES["test"]
    arrays = evaluations.read_evaluation(evaluated / "bn.npz", real)
    assert arrays["seeds"].tolist() == [0, 1]
    assert arrays["l1_train"].shape == (2, N_EVAL)
    for name in (*evaluations.BASELINES, evaluations.SATURATED):
        baseline = evaluations.read_evaluation(evaluated / "baselines" / f"{name}.npz", real)
        expected = [0, 1] if name == evaluations.SATURATED else [-1]
        assert baseline["seeds"].tolist() == expected


def test_arrays_have_the_types_and_shapes_agreed(evaluated):
    arrays = read_npz(evaluated / "bn.npz")
    n = SIZES["test"]
    for name in ("l1", "psnr", "lperc", "lperc_unit", "chroma", "m3", "hf", "auc", "delta_e"):
        assert arrays[name].shape == (2, n) and arrays[name].dtype == np.float32, name
    assert arrays["image_hist"].shape == (2, n, 2, 219) and arrays["image_hist"].dtype == np.int32
    assert arrays["hist2d"].shape == (2, 22, 22) and arrays["hist2d"].dtype == np.int64
    assert arrays["kid"].shape == arrays["kid_se"].shape == (2,)


def test_half_chroma_predictions_equal_the_half_chroma_baseline(evaluated):
    arrays = read_npz(evaluated / "bn.npz")
    baseline = read_npz(evaluated / "baselines" / "half_chroma.npz")
    for name, tolerance in (("l1", 0.05), ("chroma", 0.05), ("lperc", 0.05), ("delta_e", 0.05)):
        np.testing.assert_allclose(arrays[name][0], baseline[name][0], rtol=tolerance)
    assert arrays["l1"][1].mean() > arrays["l1"][0].mean()
    grey = read_npz(evaluated / "baselines" / "grey.npz")
    np.testing.assert_allclose(grey["chroma"], 0, atol=1)


def test_saturated_bn_has_the_real_chroma_on_the_validation_images(evaluated):
    saturated = read_npz(evaluated / "baselines" / "bn_saturated.npz")
    np.testing.assert_allclose(saturated["scale"], [2, 4], rtol=1e-3)
    real = read_npz(evaluated / "baselines" / "real.npz")
    np.testing.assert_allclose(saturated["chroma"].mean(), real["chroma"].mean(), rtol=0.02)
    assert saturated["l1"].mean() < 1


def test_the_same_input_gives_the_same_bytes(evaluated, tmp_path):
    threads = torch.get_num_threads()
    evaluate(evaluated / "prepare", evaluated / "bn", tmp_path / "bn.npz", **OPTIONS)
    torch.set_num_threads(threads)
    assert (tmp_path / "bn.npz").read_bytes() == (evaluated / "bn.npz").read_bytes()


def written(prepared, folder, **changes):
    """Write bn's predictions of seed 0 with some arrays replaced."""
    arrays = read_npz(prepared / "bn" / "predictions-s0.npz")
    write_npz(folder / "predictions-s0.npz", **(arrays | changes))
    return folder


def test_predictions_of_other_images_are_refused(prepared, tmp_path):
    runs = written(prepared, tmp_path, test=np.zeros((3, 2, SIDE, SIDE), np.float16))
    with pytest.raises(InputError, match=r"'test' does not belong .*\(6, 2, 16, 16\).*\(3, 2"):
        evaluate(prepared / "prepare", runs, tmp_path / "o.npz", **(OPTIONS | {"seeds": [0]}))
    runs = written(prepared, tmp_path, train=np.zeros((9, 2, SIDE, SIDE), np.float16))
    with pytest.raises(InputError, match=r"'train' does not belong .*\(8, 2, 16, 16\).*\(9, 2"):
        evaluate(prepared / "prepare", runs, tmp_path / "o.npz", **(OPTIONS | {"seeds": [0]}))


def test_predictions_that_are_not_finite_are_refused(prepared, tmp_path):
    bad = np.full((SIZES["test"], 2, SIDE, SIDE), np.inf, np.float16)
    runs = written(prepared, tmp_path, test=bad)
    with pytest.raises(InputError, match="'test' cannot be measured: expected finite numbers"):
        evaluate(prepared / "prepare", runs, tmp_path / "o.npz", **(OPTIONS | {"seeds": [0]}))


def test_a_seed_that_was_not_trained_is_refused(prepared, tmp_path):
    with pytest.raises(InputError, match=r"predictions-s7\.npz: is not a readable array file"):
        evaluate(
            prepared / "prepare", prepared / "bn", tmp_path / "o.npz", **(OPTIONS | {"seeds": [7]})
        )
    assert not (tmp_path / "o.npz").exists()


def test_a_backbone_without_its_weights_is_refused(prepared, tmp_path):
    with pytest.raises(InputError, match="lacks its weights"):
        evaluate(
            prepared / "prepare",
            prepared / "bn",
            tmp_path / "o.npz",
            **(OPTIONS | {"perc_backbone": "vgg19_keras"}),
        )


def test_grey_predictions_cannot_be_saturated():
    grey = np.zeros((2, 2, 4, 4), np.float32)
    with pytest.raises(InputError, match="are grey and cannot be made more colourful"):
        matching_scale(grey, grey + 1)
