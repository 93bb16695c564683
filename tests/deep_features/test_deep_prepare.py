import numpy as np
import pytest
from PIL import Image

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz
from stages.deep_features.prepare import prepare, shown_images
from stages.deep_features.synthped import TASKS

OPTIONS = {
    "proprietary": "synth_p",
    "local_sets": ["synth_a", "synth_b"],
    "height": 64,
    "width": 32,
    "proprietary_train": [12, 6],
    "proprietary_test": [9, 4],
    "local_train": [16, 6],
    "local_test": [10, 4],
    "panel": 4,
    "set_seed": 0,
}
SETS = ("synth_p", "synth_a", "synth_b")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("prepare")
    prepare(out, **OPTIONS)
    return out


def test_it_writes_what_was_asked_for(prepared):
    meta = read_json(prepared / "meta.json")
    assert (meta["height"], meta["width"], meta["proprietary"]) == (64, 32, "synth_p")
    assert meta["locals"] == ["synth_a", "synth_b"]
    for name in SETS:
        owner, about = "proprietary" if name == "synth_p" else "local", meta["sets"][name]
        assert not about["real"] and "SynthPed" in about["attribution"]
        for split in ("train", "test"):
            ids, images = OPTIONS[f"{owner}_{split}"]
            found = read_npz(prepared / f"{name}_{split}.npz")
            n = ids * images
            assert found["images"].shape == (n, 64, 32, 3) and found["images"].dtype == np.uint8
            assert about[f"n_{split}"] == n and about[f"ids_{split}"] == ids
            for key in ("pids", "camids", "attributes"):
                assert found[key].dtype == np.int64 and len(found[key]) == n
            for key in ("query", "annotated"):
                assert found[key].dtype == bool and found[key].shape == (n,)
            assert found["annotated"].all() == (owner == "local")
            assert found["attributes"].shape[1] == len(about["tasks"])
            assert found["query"].any() == (split == "test")
    assert [task["name"] for task in meta["sets"]["synth_a"]["tasks"]] == list(TASKS)
    assert meta["sets"]["synth_p"]["tasks"] == []


def test_no_identity_is_in_training_and_test(prepared):
    for name in SETS:
        train, test = (
            set(read_npz(prepared / f"{name}_{s}.npz")["pids"].tolist()) for s in ("train", "test")
        )
        assert train and test and not train & test


def test_the_panel_shows_different_people_before_different_cameras(prepared):
    panel = read_json(prepared / "meta.json")["panel"]
    for name in SETS:
        test = read_npz(prepared / f"{name}_test.npz")
        assert len(np.unique(test["pids"][panel[name]])) == 4
        assert len(np.unique(test["camids"][panel[name]])) > 2


def test_the_panel_is_shorter_where_people_are_fewer():
    pids, camids = np.array([5, 5, 0, 6, 6, 7]), np.array([1, 2, 1, 1, 2, 1])
    good = np.array([True, True, False, True, True, False])
    assert shown_images(pids, camids, good, 9) == [0, 4]
    assert shown_images(pids, camids, good, 1) == [0]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(prepared, tmp_path):
    for folder, seed in (("same", 0), ("other", 1)):
        prepare(tmp_path / folder, **OPTIONS | {"set_seed": seed})
    for name in SETS:
        for split in ("train", "test"):
            file = f"{name}_{split}.npz"
            first = (prepared / file).read_bytes()
            assert first == (tmp_path / "same" / file).read_bytes()
            assert first != (tmp_path / "other" / file).read_bytes()
    meta = (prepared / "meta.json").read_bytes()
    assert meta == (tmp_path / "same" / "meta.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"height": 50}, "height and width: are not those of a person's image.*found 50 x 32"),
        ({"proprietary": "synthp"}, "not a known set of pedestrians.*did you mean 'synth_p'"),
        ({"local_sets": ["markt"]}, "did you mean 'market'"),
        ({"local_sets": []}, "one local set or more.*found synth_p; none"),
        ({"local_sets": ["synth_a", "synth_a"]}, "do not name different sets"),
        ({"local_sets": ["synth_p"]}, "do not name different sets"),
        ({"local_train": [8, 8]}, "synth_a_train: would have too few identities"),
        ({"proprietary_test": [9, 2]}, "synth_p_test: would have too few images an identity"),
        ({"local_test": [9]}, "local_test: is not the size of a set.*two numbers"),
        ({"proprietary_train": [9, 4, 2]}, "proprietary_train: is not the size of a set"),
    ],
)
def test_impossible_parameters_are_one_sentence(changes, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path / "out", **OPTIONS | changes)
    assert not (tmp_path / "out" / "meta.json").exists()


# ---------------------------------------------------------------- a set of real people's layout


@pytest.fixture
def market(tmp_path, monkeypatch):
    """Noise under Market's file names; identity 5 wears two colours, 6 has no attributes."""
    root = tmp_path / "market"
    names = {
        "bounding_box_train": ["0001_c1", "0001_c2", "0002_c1", "0005_c1"],
        "query": ["0003_c1", "0004_c1"],
        "bounding_box_test": ["-1_c1", "0000_c2", "0003_c2", "0004_c3", "0006_c2"],
    }
    for folder, starts in names.items():
        (root / folder).mkdir(parents=True)
        for i, start in enumerate(starts):
            pixels = np.random.RandomState(i).randint(0, 256, (32, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{start}s1_{i:06}_00.jpg")
    (root / "attributes.csv").write_text(
        "identity,hat,upred,upblue\n1,no,2,1\n2,yes,1,2\n3,no,1,2\n4,yes,2,1\n5,no,2,2\n"
    )
    monkeypatch.setenv("MARKET_ROOT", str(root))
    return root


def test_a_real_set_is_read_whole_and_marked(market, tmp_path):
    out = tmp_path / "out"
    prepare(out, **OPTIONS | {"local_sets": ["market"]})
    train, test = (read_npz(out / f"market_{split}.npz") for split in ("train", "test"))
    assert train["images"].shape == (4, 64, 32, 3)
    assert train["annotated"].tolist() == [True, True, True, False]
    assert train["attributes"].tolist() == [[0, 1], [0, 1], [1, 0], [-1, -1]]
    assert test["pids"].tolist() == [3, 4, 0, 3, 4, 6]
    assert test["query"].tolist() == [True, True, False, False, False, False]
    assert test["annotated"].tolist() == [True, True, False, True, True, False]
    about = read_json(out / "meta.json")["sets"]["market"]
    assert about["real"] and about["ids_test"] == 3 and about["n_test"] == 6
    assert about["dropped"] == {"junk": 1, "distractor": 1, "colour_rule": 1, "no_annotation": 1}
    assert [task["classes"] for task in about["tasks"]] == [["no", "yes"], ["blue", "red"]]
    assert read_json(out / "meta.json")["panel"]["market"] == [0, 4]


def test_a_proprietary_set_needs_no_attributes(market, tmp_path):
    (market / "attributes.csv").unlink()
    out = tmp_path / "out"
    prepare(out, **OPTIONS | {"proprietary": "market", "local_sets": ["synth_a"]})
    test = read_npz(out / "market_test.npz")
    assert test["attributes"].shape == (6, 0) and not test["annotated"].any()
    with pytest.raises(InputError, match="has no attributes"):
        prepare(tmp_path / "second", **OPTIONS | {"local_sets": ["market"]})


def test_a_person_in_both_splits_is_one_sentence(market, tmp_path):
    path = market / "bounding_box_train" / "0001_c1s1_000000_00.jpg"
    path.rename(path.with_name("0003_c1s1_000000_00.jpg"))
    with pytest.raises(InputError, match="same identities in both splits.*such as 3"):
        prepare(tmp_path / "out", **OPTIONS | {"local_sets": ["market"]})


def test_one_person_is_too_few(market, tmp_path):
    for path in (market / "bounding_box_train").glob("000[15]*"):
        path.unlink()
    with pytest.raises(InputError, match="market_train: has too few identities.*found 1"):
        prepare(tmp_path / "out", **OPTIONS | {"proprietary": "market", "local_sets": ["synth_a"]})
