import json

import cv2
import numpy as np
import pytest
from PIL import Image

from stages.common.errors import InputError
from stages.common.files import read_json
from stages.data import cache, fingerprint
from stages.data.cache import decoded
from stages.data.images import load_images
from stages.data.register import register


def test_folder_gives_images_labels_and_classes_in_the_order_of_their_paths(tiny):
    got = load_images("tiny", "train", 24)
    assert got.classes == ["cat", "dog"] and got.labels.tolist() == [0, 0, 1, 1]
    assert got.groups.tolist() == [0, 1, 2, 3] and got.grey_converted == 0
    first = np.asarray(Image.open(tiny / "train/cat/0.jpg"))
    np.testing.assert_array_equal(got.images[0], first)


def test_real_is_looked_in_when_no_variable_is_set(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("TINY_ROOT")
    (tmp_path / "real").mkdir()
    tiny.rename(tmp_path / "real/tiny")
    assert len(load_images("tiny", "test", 8).images) == 4


def test_dashes_of_a_name_become_underscores_in_its_variable(folder, monkeypatch):
    register("tiny-2", folder)
    monkeypatch.setenv("TINY_2_ROOT", str(folder))
    assert len(load_images("tiny-2", "test", 8).images) == 4


def test_flat_folder_is_one_split_that_answers_to_all_and_test(folder):
    register("tiny", folder / "train/cat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_ROOT", str(folder / "train/cat"))
        got = load_images("tiny", "all", 8)
        np.testing.assert_array_equal(got.images, load_images("tiny", "test", 8).images)
    assert len(got.images) == 2 and got.classes == ["all"]


def test_folder_of_flat_splits_has_one_class(folder, monkeypatch):
    register("tiny", folder / "train")
    monkeypatch.setenv("TINY_ROOT", str(folder / "train"))
    got = load_images("tiny", "dog", 8)
    assert got.classes == ["all"] and got.labels.tolist() == [0, 0]


def test_group_pattern_makes_one_cluster_of_the_pictures_of_a_face(folder, monkeypatch):
    root = folder.parent / "faces"
    root.mkdir()
    for i, name in enumerate(["1_age_0", "1_age_1", "2_age_0", "11_age_0"]):
        Image.fromarray(np.full((8, 8, 3), 50 * i, np.uint8)).save(root / f"{name}.png")
    register("tiny", root, group="^[^_]+")
    monkeypatch.setenv("TINY_ROOT", str(root))
    groups = load_images("tiny", "all", 8).groups  # sorted: 11_, 1_age_0, 1_age_1, 2_
    assert groups.tolist() == [0, 1, 1, 2]


def test_grey_images_are_converted_and_counted(folder):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.save(folder / "train/cat/2.png")
    register("tiny", folder)
    for _ in ("decoded", "cached"):
        got = load_images("tiny", "train", 8)
        assert got.grey_converted == 1 and len(got.images) == 5
        np.testing.assert_array_equal(got.images[2], np.stack([np.asarray(grey)] * 3, axis=-1))


def test_rgb_files_without_colour_are_counted_too(folder):
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "train/cat/2.png")
    register("tiny", folder)
    assert load_images("tiny", "train", 8).grey_converted == 1


def test_palette_images_are_looked_up(folder):
    colours = Image.fromarray(np.full((8, 8, 3), (200, 10, 30), np.uint8))
    colours.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "train/cat/2.png")
    register("tiny", folder)
    np.testing.assert_array_equal(load_images("tiny", "train", 8).images[2, 0, 0], (200, 10, 30))


def test_opaque_alpha_channel_is_dropped(folder):
    Image.fromarray(np.full((8, 8, 4), 255, np.uint8)).save(folder / "train/cat/2.png")
    register("tiny", folder)
    assert load_images("tiny", "train", 8).images[2].min() == 255


def test_hidden_files_and_other_suffixes_are_ignored(folder):
    (folder / "train/cat/.hidden.jpg").write_text("no image")
    (folder / "train/notes.txt").write_text("no image")
    register("tiny", folder)
    assert len(load_images("tiny", "train", 8).images) == 4


def test_crop_cuts_out_the_centred_square_and_resize_alone_keeps_all(folder):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200  # the centred square is all bright
    Image.fromarray(wide).save(folder / "train/cat/2.png")
    register("tiny", folder)
    assert load_images("tiny", "train", 4, crop=True).images[2].min() == 200
    assert load_images("tiny", "train", 4).images[2].min() == 0


def test_shrinking_is_area_interpolation(tiny):
    original = np.asarray(Image.open(tiny / "train/cat/0.jpg"))
    expected = original.reshape(8, 3, 8, 3, 3).mean(axis=(1, 3))
    assert np.abs(load_images("tiny", "train", 8).images[0] - expected).max() <= 0.5 + 1e-6


def test_second_load_maps_the_cache_and_decodes_nothing(tiny, monkeypatch):
    first = load_images("tiny", "train", 8).images
    monkeypatch.setattr(cache, "read_photo", None)  # decoding would fail
    second = load_images("tiny", "train", 8).images
    assert isinstance(second, np.memmap) and not second.flags.writeable
    np.testing.assert_array_equal(first, second)


def test_crop_and_size_have_caches_of_their_own(tiny, tmp_path):
    for size, crop in ((8, False), (8, True), (12, False)):
        load_images("tiny", "train", size, crop=crop)
    assert len(list((tmp_path / ".cache").glob("*.npy"))) == 3


def test_interrupted_decoding_leaves_no_array(tiny, tmp_path, monkeypatch):
    done = []

    def killed(path, **options):
        if done:
            raise KeyboardInterrupt
        done.append(path)
        return original(path, **options)

    original = cache.read_photo
    monkeypatch.setattr(cache, "read_photo", killed)
    with pytest.raises(KeyboardInterrupt):
        load_images("tiny", "train", 8)
    assert not list((tmp_path / ".cache").iterdir())
    monkeypatch.setattr(cache, "read_photo", original)
    assert len(load_images("tiny", "train", 8).images) == 4


def test_leftover_of_a_killed_run_is_not_read(tiny, tmp_path):
    (tmp_path / ".cache").mkdir()
    sha = read_json(fingerprint.FINGERPRINTS / "tiny.json")["splits"]["train"]["sha256"]
    (tmp_path / f".cache/.tiny-train-8-{sha[:16]}.npy.1.new").write_bytes(b"half")
    assert load_images("tiny", "train", 8).images.shape == (4, 8, 8, 3)


def test_damaged_cache_names_itself_and_says_delete(tiny, tmp_path):
    load_images("tiny", "train", 8)
    (path,) = (tmp_path / ".cache").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="is damaged.*delete the file"):
        load_images("tiny", "train", 8)


def test_pool_decodes_what_one_process_decodes(tiny):
    files = sorted(tiny.rglob("*.jpg")) * 20
    one, _ = decoded("one", files, size=8, key="k", workers=1)
    two, _ = decoded("two", files, size=8, key="k", workers=2)
    np.testing.assert_array_equal(one, two)


def test_pool_raises_the_sentence_of_a_bad_file(tiny):
    bad = tiny / "train/cat/0.jpg"
    bad.write_text("no image")
    with pytest.raises(InputError, match=r"0\.jpg: is not an image"):
        decoded("x", sorted(tiny.rglob("*.jpg")), size=8, key="k", workers=2)


def test_fingerprint_has_counts_and_no_path_of_this_machine(tiny, tmp_path):
    text = (fingerprint.FINGERPRINTS / "tiny.json").read_text()
    content = json.loads(text)
    assert content["count"] == 8 and content["splits"]["test"]["classes"] == {"cat": 2, "dog": 2}
    assert content["bytes"] == sum(path.stat().st_size for path in tiny.rglob("*.jpg"))
    assert str(tmp_path) not in text and tmp_path.name not in text


def test_fingerprint_is_the_same_wherever_the_folder_lies(tiny):
    first = (fingerprint.FINGERPRINTS / "tiny.json").read_bytes()
    moved = tiny.rename(tiny.with_name("elsewhere"))
    assert register("tiny", moved).read_bytes() == first


def test_opencv_threads_of_this_process_are_left_alone(tiny):
    before = cv2.getNumThreads()
    load_images("tiny", "train", 8)
    assert cv2.getNumThreads() == before
