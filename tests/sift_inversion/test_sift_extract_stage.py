"""The stage extract: what it writes, twice the same, and its cache; spec test 23's second half."""

import cv2
import numpy as np
import pytest

from stages.common.errors import InputError
from stages.common.files import read_json, write_npz
from stages.data.images import load_images
from stages.sift_inversion import extract as stage
from stages.sift_inversion import sift
from stages.sift_inversion.extract import extract
from stages.sift_inversion.keypoints import read
from stages.sift_inversion.sparse import densify

SETTINGS = {
    "size": 64, "contrast_threshold": 0.04, "edge_threshold": 10, "sigma": 1.6, "octave_layers": 3,
    "order": "response", "collision": "adjacent", "r_max": 1,
}  # fmt: skip
NAMES = ("faces_train", "faces_test", "multi_train", "multi_test")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Four sets of a few images, one of them flat, and an empty cache."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    images = np.array(load_images("emojifaces", "test", 64).images[:9])
    images[4] = 128
    for i, name in enumerate(NAMES):
        write_npz(tmp_path / "prepare" / f"{name}.npz", images=images[i : i + 5])
    return tmp_path / "prepare"


@pytest.fixture
def searched(monkeypatch):
    """The titles under which SIFT really searched."""
    titles, find = [], stage.find
    monkeypatch.setattr(stage, "find", lambda *args: titles.append(args[2]) or find(*args))
    return titles


def test_every_set_and_split_has_a_folder_that_says_how_it_went(data, tmp_path):
    facts = extract(data, tmp_path / "out", **SETTINGS)
    assert facts["images"] == 20 and facts["keypoints"] > 100
    for name in NAMES:
        meta, descriptors = (
            read_json(tmp_path / "out" / name / "meta.json"),
            read(tmp_path / "out" / name),
        )
        assert meta["cv2"] == cv2.__version__ and meta["size"] == 64
        assert meta["params"] == {k: v for k, v in SETTINGS.items() if k != "size"}
        assert meta["images"] == len(descriptors) == 5
        assert meta["keypoints"] == len(descriptors.kp) == descriptors.offsets[-1]
        assert meta["images_without"] == 1
        for column, d in enumerate(("4", "2")):
            F = densify(descriptors, range(5))[int(d)]
            assert F.any(1).sum() == meta["keypoints"] - meta["dropped"][d]
            assert meta["occupancy"][d] == pytest.approx(F.any(1).float().mean().item(), rel=1e-4)
            dropped = (descriptors.cells[:, 2 * column] == 255).sum()
            assert dropped == meta["dropped"][d]
        assert meta["collisions"]["4"] >= meta["collisions"]["2"] > 0
        assert 0 < meta["same_point"] <= 1


def test_the_stored_keypoints_are_sifts_own(data, tmp_path):
    extract(data, tmp_path / "out", **SETTINGS)
    found = read(tmp_path / "out" / "faces_train")
    with np.load(data / "faces_train.npz") as file:
        images = file["images"]
    for i, image in enumerate(images):
        rows = slice(*found.offsets[i : i + 2])
        kp, octave, desc = sift.detect(image, sift.detector(SETTINGS))
        assert np.array_equal(found.kp[rows], kp)
        assert np.array_equal(found.octave[rows], octave)
        assert np.array_equal(found.desc[rows], desc)


def test_two_runs_write_the_same_bytes_with_and_without_the_cache(data, tmp_path, monkeypatch):
    extract(data, tmp_path / "a", **SETTINGS)
    extract(data, tmp_path / "b", **SETTINGS)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    extract(data, tmp_path / "c", **SETTINGS)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 24
    for path in files:
        for other in ("b", "c"):
            again = tmp_path / other / path.relative_to(tmp_path / "a")
            assert again.read_bytes() == path.read_bytes()


def test_sift_searches_again_for_another_opencv_other_settings_or_images(
    data, tmp_path, searched, monkeypatch
):
    def run(**changes):
        searched.clear()
        extract(data, tmp_path / "out", **SETTINGS | changes)
        return list(searched)

    every = [f"SIFT of {name}" for name in NAMES]
    assert run() == every
    assert run() == []
    assert run(r_max=2, order="size") == []  # placement alone
    assert run(contrast_threshold=0.03) == every
    monkeypatch.setattr(cv2, "__version__", "4.99.0")
    assert run() == every
    assert read_json(tmp_path / "out" / "faces_train" / "meta.json")["cv2"] == "4.99.0"
    images = np.zeros((2, 64, 64, 3), np.uint8)
    write_npz(data / "multi_test.npz", images=images)
    assert run() == ["SIFT of multi_test"]
    meta = read_json(tmp_path / "out" / "multi_test" / "meta.json")
    assert meta["keypoints"] == 0 and meta["images_without"] == 2
    assert meta["collisions"] == {"4": None, "2": None} and meta["same_point"] is None


def test_a_search_that_was_killed_is_not_trusted(data, tmp_path, searched):
    extract(data, tmp_path / "out", **SETTINGS)
    searched.clear()
    (folder,) = (tmp_path / ".cache").glob("sift-faces_test-*")
    (folder / "meta.json").unlink()
    (folder / "kp.npy").unlink()
    extract(data, tmp_path / "out", **SETTINGS)
    assert searched == ["SIFT of faces_test"]


def test_images_of_another_size_are_one_sentence(data, tmp_path):
    with pytest.raises(InputError, match=r"expected uint8 \(n, 96, 96, 3\), found uint8 \(5, 64"):
        extract(data, tmp_path / "out", **SETTINGS | {"size": 96})
