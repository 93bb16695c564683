from functools import cache

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz
from stages.data.images import load_images
from stages.sift_inversion import prepare as module
from stages.sift_inversion.prepare import in_turn, of_classes, prepare, shown_images

CLASSES = ["people", "animals", "flags"]
OPTIONS = {
    "faces": "emojifaces",
    "multi": "emoji10",
    "multi_classes": CLASSES,
    "size": 32,
    "crop": True,
    "n_train": 120,
    "n_test": 30,
    "panel": 6,
    "split_seed": 0,
    "train_split": "train",
    "test_split": "test",
}
FILES = [f"{name}_{split}" for name in ("faces", "multi") for split in ("train", "test")]


@pytest.fixture(scope="module", autouse=True)
def decoded_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_images", cache(load_images))
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("prepare")
    prepare(out, out, **OPTIONS)
    return {name: read_npz(out / f"{name}.npz") for name in FILES}, out


def test_it_writes_what_was_asked_for(prepared):
    arrays, out = prepared
    for name, found in arrays.items():
        n = OPTIONS[f"n_{name.split('_')[1]}"]
        assert found["images"].shape == (n, 32, 32, 3) and found["images"].dtype == np.uint8
        assert found["labels"].dtype == found["groups"].dtype == np.int64
    meta = read_json(out / "meta.json")
    assert meta["size"] == 32 and meta["sets"]["multi"]["classes"] == CLASSES
    assert meta["sets"]["faces"]["n_train"] == 120 and meta["sets"]["faces"]["n_test"] == 30
    assert "OpenMoji" in meta["sets"]["faces"]["attribution"]


@pytest.mark.parametrize("name", ["faces", "multi"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_identity_is_in_training_and_test(name, split, tmp_path):
    splits = {"train_split": split, "test_split": "test"}
    prepare(tmp_path, tmp_path, **OPTIONS | splits | {"n_train": 60})
    train, test = (set(read_npz(tmp_path / f"{name}_{s}.npz")["groups"]) for s in ("train", "test"))
    assert train and test and not train & test


def test_faces_are_as_many_different_ones_as_can_be(prepared):
    arrays, _ = prepared
    for name, n in (("faces_train", 120), ("faces_test", 30)):
        assert len(np.unique(arrays[name]["groups"])) == n


def test_classes_share_the_images_of_multi(prepared):
    arrays, _ = prepared
    for name, n in (("multi_train", 120), ("multi_test", 30)):
        counts = np.bincount(arrays[name]["labels"], minlength=3)
        assert len(counts) == 3 and abs(counts - n / 3).max() <= 2
    assert len(np.unique(arrays["multi_train"]["labels"][:12])) == 3  # in random order


def test_the_panel_shows_test_images_of_different_groups_and_all_classes(prepared):
    arrays, out = prepared
    panel = read_json(out / "meta.json")["panel"]
    for name in ("faces", "multi"):
        test = arrays[f"{name}_test"]
        assert len(np.unique(test["groups"][panel[name]])) == 6
    assert np.bincount(arrays["multi_test"]["labels"][panel["multi"]]).tolist() == [2, 2, 2]


def test_the_panel_is_shorter_where_groups_are_fewer():
    labels, groups = np.array([0, 0, 1, 1, 1]), np.array([7, 7, 8, 8, 9])
    assert shown_images(labels, groups, 2) == [0, 2]
    assert shown_images(labels, groups, 5) == [0, 2, 4]


def test_keys_take_turns():
    keys = np.array([5, 5, 5, 5, 2, 2, 9])
    rng = np.random.default_rng(0)
    assert sorted(keys[in_turn(keys, 3, rng)]) == [2, 5, 9]
    assert sorted(keys[in_turn(keys, 5, rng)]) == [2, 2, 5, 5, 9]
    assert in_turn(keys, 99, rng).tolist() == list(range(7))
    assert len({tuple(in_turn(keys, 3, rng)) for _ in range(20)}) > 1


def test_classes_are_numbered_in_the_order_given():
    whole = load_images("emoji10", "test", 32)
    chosen = of_classes("emoji10", whole, ["flags", "smileys"])
    assert chosen.classes == ["flags", "smileys"]
    assert np.bincount(chosen.labels).tolist() == [108, 68]
    assert np.array_equal(chosen.images[0], whole.images[0])  # a smiley


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["people", "animal"], "'animal'.*did you mean 'animals'"),
        (["flags", "flags"], "name each once"),
        ([], "found none"),
    ],
)
def test_wrong_classes_are_one_sentence(classes, sentence, tmp_path):
    with pytest.raises(InputError, match=f"are not classes of emoji10.*{sentence}"):
        prepare(tmp_path, tmp_path / "out", **OPTIONS | {"multi_classes": classes})


@pytest.mark.parametrize(("which", "where"), [("n_train", "faces_train"), ("n_test", "faces_test")])
def test_too_few_images_are_one_sentence(which, where, tmp_path):
    with pytest.raises(InputError, match=f"as {where}: has too few images.*lower {which}"):
        prepare(tmp_path, tmp_path / "out", **OPTIONS | {which: 5000})


def test_a_pool_is_a_fixed_choice_of_each_class(tmp_path):
    with pytest.raises(InputError, match="emoji10 as multi_test: .*found 15"):
        prepare(tmp_path, tmp_path, **OPTIONS | {"pool": 5, "n_test": 16, "faces": "emoji10"} | {
            "n_train": 10})  # fmt: skip


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(prepared, tmp_path):
    _, out = prepared
    for name, seed in (("same", 0), ("other", 1)):
        prepare(out, tmp_path / name, **OPTIONS | {"split_seed": seed})
    for name in FILES:
        first = (out / f"{name}.npz").read_bytes()
        assert first == (tmp_path / "same" / f"{name}.npz").read_bytes()
        assert first != (tmp_path / "other" / f"{name}.npz").read_bytes()
