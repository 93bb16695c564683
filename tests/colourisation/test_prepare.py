import numpy as np
import pytest

from stages.colourisation.prepare import balanced, prepare
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz

OPTIONS = {
    "dataset": "emoji10",
    "train_split": "train",
    "test_split": "test",
    "test_per_class": None,
    "size": 32,
    "n_train": 400,
    "n_val": 60,
    "n_test": 100,
    "split_seed": 0,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("prepare")
    prepare(out, out, **OPTIONS)
    return {s: read_npz(out / f"{s}.npz") for s in ("train", "val", "test")}, out


def test_it_writes_what_was_asked_for(prepared):
    splits, out = prepared
    assert {s: a["images"].shape for s, a in splits.items()} == {
        "train": (400, 32, 32, 3),
        "val": (60, 32, 32, 3),
        "test": (100, 32, 32, 3),
    }
    meta = read_json(out / "meta.json")
    assert (meta["n_train"], meta["n_val"], meta["n_test"]) == (400, 60, 100)
    assert len(meta["classes"]) == 10 and "OpenMoji" in meta["attribution"]


def test_no_emoji_is_in_two_of_training_and_validation(prepared):
    splits, _ = prepared
    assert not set(splits["train"]["groups"]) & set(splits["val"]["groups"])


def test_classes_share_the_images_and_every_prefix_of_train_is_mixed(prepared):
    splits, _ = prepared
    for split in splits.values():
        counts = np.bincount(split["labels"], minlength=10)
        assert counts.min() >= len(split["labels"]) // 20
    assert len(np.unique(splits["train"]["labels"][:60])) == 10


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(prepared, tmp_path):
    _, out = prepared
    for name, seed in (("same", 0), ("other", 1)):
        prepare(out, tmp_path / name, **OPTIONS | {"split_seed": seed})
    for split in ("train", "val", "test"):
        first = (out / f"{split}.npz").read_bytes()
        assert first == (tmp_path / "same" / f"{split}.npz").read_bytes()
        assert first != (tmp_path / "other" / f"{split}.npz").read_bytes()


def test_groups_stay_whole_until_the_count_is_reached():
    labels = np.repeat([0, 1], 10)
    groups = np.repeat(np.arange(10), 2)
    chosen = balanced(labels, groups, 8, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [4, 4]
    assert np.unique(groups[chosen], return_counts=True)[1].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("which", ["n_train", "n_val", "n_test"])
def test_too_few_images_are_one_sentence(which, tmp_path):
    with pytest.raises(InputError, match="has too few images.*lower n_"):
        prepare(tmp_path, tmp_path / "out", **OPTIONS | {which: 5000})
