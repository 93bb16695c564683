import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.data.images import load_images
from stages.sift_inversion import keypoints, partial
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.models import build_coarse, build_refined, load_run
from stages.sift_inversion.pairs import to_uint8
from stages.sift_inversion.reconstruct import floor_images, reconstruct

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
COARSE = {"net": "R", "size": SIZE, "width": 0.05, "channels": 128, "desc_norm": "unit"}
FINE = {"ngf": 4, "blocks": 1, "dropout": 0.5, "adversary": True}
OPTIONS = {
    "seeds": [0, 3],
    "variants": ["R4_L2", "M_R42_J", "R42_G", "R42_J"],
    "threads": 1,
    "size": SIZE,
    "batch_size": 5,
    "partial_run": "R42_G",
    "boxes": [0.1, 1],
    "places": ["centre", "random"],
    "modes": ["centre"],
    "keeps": [1, 0.5],
    "split_seed": 0,
}
CONDITIONS = [
    *(f"box-centre-{place}-{f}" for place in ("centre", "random") for f in ("0.1", "1")),
    *("keep-1", "keep-0.5", "sigma-above", "sigma-below"),
]


def write_run(folder, seeds, **meta):
    """Write a run that has learned nothing."""
    meta = {"run": folder.name, **COARSE, **meta}
    write_json(folder / "meta.json", meta)
    for seed in seeds:
        torch.manual_seed(seed)
        net = build_refined(meta) if "adversary" in meta else build_coarse(meta)
        save_file(net.state_dict(), folder / f"weights-s{seed}.safetensors")


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Return the folders of prepare, extract, train and refine."""
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
    for name in ("faces_test", "multi_test"):
        images = read_npz(root / "prepare" / f"{name}.npz")["images"]
        found = arrange(find(images, PARAMS, name), SIZE, PARAMS)
        keypoints.write(root / "extract" / name, found)
    write_run(root / "train" / "R4_L2", OPTIONS["seeds"], set="faces", inputs=[4])
    write_run(root / "train" / "M_R42_J", OPTIONS["seeds"], set="multi", inputs=[4, 2])
    write_run(root / "train" / "removed", [9], set="faces", inputs=[4])  # no line in params.yaml
    write_run(root / "refine" / "R42_G", OPTIONS["seeds"], set="faces", inputs=[4, 2], **FINE)
    return [root / name for name in ("prepare", "extract", "train", "refine")]


@pytest.fixture(scope="module")
def reconstructed(before, tmp_path_factory):
    out = tmp_path_factory.mktemp("reconstruct")
    threads = torch.get_num_threads()
    facts = reconstruct(*before, out, **OPTIONS)
    torch.set_num_threads(threads)
    assert facts == {"runs": 3, "conditions": 3 + len(CONDITIONS)}
    return out


def test_every_run_has_every_seed_and_its_conditions(reconstructed):
    runs = read_json(reconstructed / "meta.json")["runs"]
    assert runs == {
        "R4_L2": {"set": "faces", "conditions": ["full"]},
        "M_R42_J": {"set": "multi", "conditions": ["full"]},
        "R42_G": {"set": "faces", "conditions": ["full", *CONDITIONS]},
    }
    for name, about in runs.items():
        files = {f.name for f in (reconstructed / name).iterdir()}
        assert files == {f"{c}-s{s}.npz" for c in about["conditions"] for s in (0, 3)}
        for file in files:
            images = read_npz(reconstructed / name / file)["images"]
            assert images.shape == (N, SIZE, SIZE, 3) and images.dtype == np.uint8


def test_images_are_what_the_network_makes_of_the_descriptors(before, reconstructed):
    _, extracted, _, refined = before
    model = load_run(refined / "R42_G", 3, torch.device("cpu"))
    descriptors = keypoints.read(extracted / "faces_test")
    found = read_npz(reconstructed / "R42_G" / "full-s3.npz")["images"].astype(int)
    assert abs(found - to_uint8(model(descriptors)).numpy()).max() <= 1
    left = partial.select(descriptors, partial.kept(descriptors, "keep-0.5", seed=0))
    found = read_npz(reconstructed / "R42_G" / "keep-0.5-s3.npz")["images"].astype(int)
    assert abs(found - to_uint8(model(left)).numpy()).max() <= 1


def test_nothing_removed_is_the_full_image_and_everything_removed_is_one_image(reconstructed):
    full, whole, nothing = (
        read_npz(reconstructed / "R42_G" / f"{c}-s0.npz")["images"]
        for c in ("full", "keep-1", "box-centre-centre-1")
    )
    assert np.array_equal(full, whole)
    assert (nothing == nothing[0]).all() and not np.array_equal(full, nothing)


def test_masks_and_removed_shares_are_beside_the_images(reconstructed):
    found = read_npz(reconstructed / "partial.npz")
    boxes = {f"box-{place}-{f}" for place in ("centre", "random") for f in ("0.1", "1")}
    assert set(found) == boxes | {f"removed-{c}" for c in CONDITIONS}
    assert found["box-centre-0.1"].shape == (N, SIZE, SIZE)
    assert found["box-centre-0.1"].mean() == pytest.approx(0.1, abs=0.02)
    assert found["box-centre-1"].all()
    assert len(np.unique(found["box-random-0.1"].reshape(N, -1), axis=0)) > 1
    assert set(found["removed-box-centre-centre-1"]) <= {0, 1}
    assert (found["removed-keep-1"] == 0).all()
    np.testing.assert_allclose(
        found["removed-sigma-above"] + found["removed-sigma-below"],
        found["removed-box-centre-centre-1"],
    )


def test_floors_are_of_the_images(before, reconstructed):
    data = before[0]
    for name in ("faces", "multi"):
        train, test = (read_npz(data / f"{name}_{s}.npz") for s in ("train", "test"))
        found = {
            floor: read_npz(reconstructed / "floors" / f"{name}-{floor}.npz")["images"]
            for floor in ("mean", "mean_colour", "other", "grey", "blur")
        }
        mean = train["images"].mean(0)
        assert np.array_equal(found["mean"][5], np.rint(mean))
        assert np.array_equal(found["mean_colour"][5, 3, 3], np.rint(mean.mean((0, 1))))
        assert np.ptp(found["grey"].astype(int), axis=-1).max() == 0
        assert abs(found["blur"].astype(int) - test["images"]).max() > 0
        for floor, images in found.items():
            assert images.shape == test["images"].shape, floor


def test_the_other_image_is_the_next_of_another_group():
    test = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    found = floor_images(test, test, np.array([7, 7, 8, 7, 7]))["other"]
    assert found[:, 0, 0, 0].tolist() == [2, 2, 3, 2, 2]
    with pytest.raises(InputError, match="have no other image.*found 5 images of one group"):
        floor_images(test, test, np.zeros(5, np.int64))


def test_the_same_command_writes_the_same_bytes(before, reconstructed, tmp_path):
    threads = torch.get_num_threads()
    reconstruct(*before, tmp_path, **OPTIONS)
    torch.set_num_threads(threads)
    files = [f for f in reconstructed.rglob("*") if f.is_file()]
    assert len(files) == 2 + 10 + 2 * (3 + len(CONDITIONS))
    for file in files:
        assert file.read_bytes() == (tmp_path / file.relative_to(reconstructed)).read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"partial_run": "R42G"}, "partial_run: is no trained run.*did you mean 'R42_G'"),
        ({"places": ["eye"]}, "places: has an unknown value.*did you mean 'eyes'"),
        ({"modes": ["center"]}, "modes: has an unknown value.*did you mean 'centre'"),
        ({"size": 64}, "does not belong to the prepared images.*size 64"),
        ({"seeds": [1]}, "weights-s1"),
    ],
)
def test_wrong_parameters_are_one_sentence(before, tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        reconstruct(*before, tmp_path, **OPTIONS | changes)


def test_runs_of_other_images_are_refused(before, tmp_path):
    data, extracted, _, refined = before
    write_run(tmp_path / "train" / "R4_L2", [0], set="faces", inputs=[4], size=64)
    with pytest.raises(InputError, match="is of other images: expected size 32.*found size 64"):
        reconstruct(data, extracted, tmp_path / "train", refined, tmp_path / "out", **OPTIONS)


def test_no_run_or_one_name_twice_is_refused(before, tmp_path):
    data, extracted, trained, _ = before
    for second in (tmp_path, trained):
        first = trained if second == trained else tmp_path
        with pytest.raises(InputError, match="do not hold what to reconstruct with"):
            reconstruct(data, extracted, first, second, tmp_path / "out", **OPTIONS)
