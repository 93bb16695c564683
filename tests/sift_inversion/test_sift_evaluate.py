import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.common.errors import InputError
from stages.common.files import read_npz, write_json, write_npz
from stages.data.images import load_images
from stages.sift_inversion import evaluate as module
from stages.sift_inversion import evaluations, keypoints
from stages.sift_inversion.evaluate import evaluate
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.partial import box_masks, boxes
from stages.sift_inversion.reconstruct import floor_images

SIZE, N = 32, 14
PARAMS = {
    "contrast_threshold": 0.04,
    "edge_threshold": 10,
    "sigma": 1.6,
    "octave_layers": 3,
    "order": "response",
    "collision": "adjacent",
    "r_max": 1,
}
SEEDS = [0, 3]
OPTIONS = {"seeds": SEEDS, "threads": 1, "size": SIZE, "batch_size": 5, "pca": 8}
BOX = "box-centre-eyes-0.1"
RUNS = {
    "B5": {"set": "faces", "conditions": ["full"]},
    "R42_G": {"set": "faces", "conditions": ["full", BOX, "keep-0.5"]},
    "M_R42_G": {"set": "multi", "conditions": ["full"]},
}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Starting a pool takes longer than what it would do here."""
    monkeypatch.setattr(module, "processes", lambda: 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Write what comes before: reconstructions are blurs, of seed 3 stronger ones."""
    root = tmp_path_factory.mktemp("before")
    drawn = load_images("emojifaces", "test", SIZE)
    for i, name in enumerate(("faces", "multi")):
        for split, n in (("train", 20), ("test", N)):
            chosen = slice(i + 2 * (split == "train"), None, 25)
            write_npz(
                root / "prepare" / f"{name}_{split}.npz",
                images=drawn.images[chosen][:n],
                labels=drawn.labels[chosen][:n],
                groups=np.arange(n),
            )
    sets = {name: {"n_test": N} for name in ("faces", "multi")}
    write_json(root / "prepare" / "meta.json", {"sets": sets})
    images, made = {}, root / "reconstruct"
    for name in ("faces", "multi"):
        file = root / "prepare" / f"{name}_test.npz"
        arrays = read_npz(file)
        if name == "faces":
            arrays["images"][4] = 90  # without keypoints
            write_npz(file, **arrays)
        images[name] = arrays["images"]
        found = arrange(find(images[name], PARAMS, name), SIZE, PARAMS)
        keypoints.write(root / "extract" / f"{name}_test", found)
        train = read_npz(root / "prepare" / f"{name}_train.npz")["images"]
        for floor, shown in floor_images(train, images[name], arrays["groups"]).items():
            write_npz(made / "floors" / f"{name}-{floor}.npz", images=shown)
    for run, about in RUNS.items():
        for condition in about["conditions"]:
            for seed in SEEDS:
                sigma = 0.5 + 0.3 * seed + 0.5 * (condition != "full")
                soft = gaussian_filter(images[about["set"]].astype(float), (0, sigma, sigma, 0))
                soft = np.rint(soft).astype(np.uint8)
                write_npz(made / run / f"{condition}-s{seed}.npz", images=soft)
    own = keypoints.read(root / "extract" / "faces_test")
    shares = {f"removed-{c}": np.linspace(0, 1, N) for c in (BOX, "keep-0.5")}
    masks = {"box-eyes-0.1": box_masks(boxes(own, "eyes", 0.1), SIZE)}
    write_npz(made / "partial.npz", **masks, **shares)
    write_json(made / "meta.json", {"runs": RUNS, "partial_run": "R42_G", "seeds": SEEDS})
    return [root / name for name in ("prepare", "extract", "reconstruct")]


@pytest.fixture(scope="module")
def evaluated(before, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "processes", lambda: 1)
        facts = evaluate(*before, out, **OPTIONS)
    assert facts["tasks"] == 2 + 10 + 5 and facts["images_per_s"] > 0
    return out


def test_score_can_read_what_evaluate_wrote(before, evaluated):
    for name in ("faces", "multi"):
        real = evaluations.read_real(evaluated, before[0], name)
        assert real["features"].shape == (N, 8)
        floors = evaluations.read_floors(evaluated, real, name)
        assert set(floors) == {"mean", "other", "grey", "mean_colour", "blur"}
        for run, about in RUNS.items():
            if about["set"] == name:
                path = evaluated / run / "full.npz"
                found = evaluations.read_measured(path, real, SEEDS)
                assert found["psnr"].shape == (2, N)
                for condition in about["conditions"][1:]:
                    path = evaluated / run / f"{condition}.npz"
                    assert len(evaluations.read_partial(path, real, SEEDS)["removed"]) == N


def test_only_images_without_keypoints_lack_their_measures(evaluated):
    found = read_npz(evaluated / "R42_G" / "full.npz")
    without = read_npz(evaluated / "faces-real.npz")["n_keypoints"] == 0
    assert without[4]
    for name in ("dcos", "dmatch", "kpr"):
        assert np.array_equal(np.isnan(found[name]), np.stack([without] * 2))
    for name in evaluations.WHOLE:
        if name not in evaluations.OF_KEYPOINTS:
            assert np.isfinite(found[name]).all(), name


def test_the_stronger_blur_is_worse(evaluated):
    found = read_npz(evaluated / "R42_G" / "full.npz")
    for name, sign in (("psnr", 1), ("ssim", 1), ("pd", -1), ("log_sharp", 1), ("dcos", 1)):
        assert sign * np.nanmean(found[name][0]) > sign * np.nanmean(found[name][1]), name


def test_floors_are_measured_like_reconstructions(evaluated):
    grey = read_npz(evaluated / "floors" / "faces-grey.npz")
    assert grey["seeds"].tolist() == [-1] and grey["psnr"].shape == (1, N)
    np.testing.assert_allclose(grey["mean_cb"], 128)
    np.testing.assert_allclose(grey["ssim_y"], 1, atol=0.02)
    colour = read_npz(evaluated / "floors" / "faces-mean_colour.npz")
    assert (np.nan_to_num(colour["dcos"]) == 0).all() and colour["id1"].sum() <= 1


def test_a_box_is_compared_with_all_keypoints_and_with_pasted_floors(evaluated):
    box, full = (read_npz(evaluated / "R42_G" / f"{c}.npz") for c in (BOX, "full"))
    for name in evaluations.OF_BOXES:
        assert box[name].shape == (2, N) and np.isfinite(box[name]).all(), name
    assert (box["pd_in"] > box["pd_in_full"]).mean() > 0.5  # blurred more
    mean = read_npz(evaluated / "floors" / "faces-mean.npz")["pd"]
    assert box["pd_in_mean"].mean() > box["pd_in_full"][0].mean()
    assert box["pd_in_mean"].mean() < 2 * mean.mean()
    assert np.array_equal(box["pd_in_mean"][0], box["pd_in_mean"][1])
    keep = read_npz(evaluated / "R42_G" / "keep-0.5.npz")
    assert "pd_in" not in keep and "removed" in keep and "removed" not in full


def test_all_keypoints_in_and_out_of_a_box_make_the_whole(evaluated, before):
    box, full = (read_npz(evaluated / "R42_G" / f"{c}.npz") for c in (BOX, "full"))
    both = np.stack([box["pd_in_full"], box["pd_out_full"]])
    assert ((both.min(0) <= full["pd"]) & (full["pd"] <= both.max(0))).all()


def test_the_same_command_writes_the_same_bytes_in_any_number_of_processes(
    before, evaluated, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "processes", lambda: 2)
    evaluate(*before, tmp_path, **OPTIONS)
    files = [f for f in evaluated.rglob("*") if f.is_file()]
    assert len(files) == 17
    for file in files:
        assert file.read_bytes() == (tmp_path / file.relative_to(evaluated)).read_bytes(), file


def changed(before, tmp_path):
    """Copy the reconstructions, to change them."""
    data, extracted, made = before
    return [data, extracted, Path(shutil.copytree(made, tmp_path / "reconstruct"))]


def test_images_of_another_shape_are_refused(before, tmp_path):
    folders = changed(before, tmp_path)
    file = folders[2] / "B5" / "full-s3.npz"
    write_npz(file, images=np.zeros((N - 1, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(InputError, match=r"full-s3.npz: does not belong to the test images.*\(13"):
        evaluate(*folders, tmp_path / "out", **OPTIONS)


def test_missing_files_are_one_sentence(before, tmp_path):
    folders = changed(before, tmp_path)
    (folders[2] / "R42_G" / "keep-0.5-s0.npz").unlink()
    with pytest.raises(InputError, match=r"keep-0.5-s0.npz: is not a readable array file"):
        evaluate(*folders, tmp_path / "out", **OPTIONS)
    shutil.rmtree(folders[2] / "floors")
    with pytest.raises(InputError, match=r"floors: holds no floors of faces"):
        evaluate(*folders, tmp_path / "out", **OPTIONS)
    write_json(folders[2] / "meta.json", {"runs": {}})
    with pytest.raises(InputError, match="does not list what to measure.*found none"):
        evaluate(*folders, tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pca": 14}, "pca: is more than the test images span.*expected below 14.*found 14"),
        ({"size": 64}, "does not belong to the prepared images: .*size 64"),
        ({"seeds": [1]}, "full-s1.npz: is not a readable"),
    ],
)
def test_wrong_parameters_are_one_sentence(before, tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(*before, tmp_path, **OPTIONS | changes)
