"""The attribute stage on features that the test makes: some carry the labels, some do not."""

import numpy as np
import pytest
import torch

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.deep_features.attributes import attributes, permute_identities
from stages.deep_features.balanced_accuracy import balanced_accuracy
from stages.deep_features.heads import load_heads

IDS, EACH, D = 40, 5, 24
TASKS = {
    "a": [{"name": "hat", "classes": ["no", "yes"]}, {"name": "top", "classes": ["x", "y", "z"]}],
    "b": [{"name": "top", "classes": ["x", "y"]}, {"name": "hat", "classes": ["no", "yes"]}],
}
SETTINGS = ["headline", "unweighted", "permuted", "noise", "blocks2", "blocks3", "cross"]
RECIPE = {
    **{"seeds": [0, 3], "threads": 1, "epochs": 8, "batch_size": 32, "lr": 1e-2, "lr_late": 2e-3},
    **{"beta1": 0.9, "beta2": 0.999, "bn_momentum": 0.1},
}


def write_set(root, name, tasks, models=("agw", "bot"), seeds=(0, 3)):
    rng = np.random.default_rng(len(name) + ord(name[0]))
    directions = {"no": 0, "yes": 1, "x": 2, "y": 3, "z": 4}
    axes = np.random.default_rng(9).standard_normal((5, D))
    for split, first in (("train", 1), ("test", 1001)):
        pids = np.repeat(np.arange(first, first + IDS), EACH)
        of_id = np.stack([rng.integers(0, len(t["classes"]), IDS) for t in tasks], 1)
        labels = of_id[pids - first]
        seen = labels.copy()
        labels[:EACH] = -1  # the first person is not annotated
        write_npz(root / "data" / f"{name}_{split}.npz", attributes=labels, pids=pids)
        clean = np.zeros((len(pids), D))
        for t, task in enumerate(tasks):
            words = np.array([directions[c] for c in task["classes"]])
            clean += axes[words[seen[:, t]]]
        for model in models:
            for seed in seeds:
                f = clean + 0.5 * rng.standard_normal(clean.shape)
                file = root / "extract" / model / f"{name}_{split}-s{seed}.npz"
                write_npz(file, features=f.astype(np.float32))


def write_input(root, models):
    for name, tasks in TASKS.items():
        write_set(root, name, tasks, models)
    sets = {name: {"tasks": tasks} for name, tasks in TASKS.items()}
    write_json(root / "data" / "meta.json", {"locals": ["a", "b"], "sets": sets})
    return root / "data", root / "extract"


@pytest.fixture
def made(tmp_path):
    return write_input(tmp_path, ["bot"])


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("before"), ["agw", "bot"])


@pytest.fixture(scope="module")
def out(before, tmp_path_factory):
    out = tmp_path_factory.mktemp("attributes")
    assert attributes(*before, out, **RECIPE)["cells"] == 4
    return out


def test_every_setting_of_every_cell_is_written_and_judged_right(before, out):
    found = {}
    for name, tasks in TASKS.items():
        truth = read_npz(before[0] / f"{name}_test.npz")["attributes"]
        for model in ("agw", "bot"):
            cell = out / f"{model}-{name}"
            files = sorted(p.stem for p in cell.glob("*.npz"))
            assert files == sorted(SETTINGS)
            for setting in SETTINGS:
                arrays = read_npz(cell / f"{setting}.npz", ["predictions", "best", "seeds"])
                assert arrays["seeds"].tolist() == [0, 3]
                for kept in ("predictions", "best"):
                    assert arrays[kept].shape == (2, IDS * EACH, len(tasks))
                    assert arrays[kept].dtype == np.int64
                    rates = balanced_accuracy(truth, arrays[kept])
                    found.setdefault((setting, kept), []).append(rates)
            meta = read_json(cell / "meta.json")
            assert meta["n_train"] == meta["n_test"] == (IDS - 1) * EACH
            assert meta["dims"] == D and meta["tasks"] == tasks and meta["bn_momentum"] == 0.1
            assert meta["cross"] == {"set": "b" if name == "a" else "a", "tasks": ["hat"]}
    mean = {key: np.mean([rates.mean() for rates in values]) for key, values in found.items()}
    for setting in ("headline", "unweighted", "blocks2", "blocks3"):
        assert mean[setting, "predictions"] > 0.9, setting
    for setting in SETTINGS[:-1]:
        assert mean[setting, "best"] >= mean[setting, "predictions"] - 1e-9


def test_permuted_labels_and_noise_are_at_chance(before, out):
    chance = np.array([1 / 2, 1 / 3])
    truth = read_npz(before[0] / "a_test.npz")["attributes"]
    known = truth[EACH:]
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(IDS - 1), EACH)
    headline = read_npz(out / "bot-a" / "headline.npz")["predictions"]
    null = [
        balanced_accuracy(permute_identities(known, people, rng), headline[0, EACH:])
        for _ in range(200)
    ]
    band = np.quantile(null, [0, 1], axis=0)
    for setting in ("permuted", "noise"):
        rates = np.stack(
            [
                balanced_accuracy(truth, read_npz(out / f"{m}-a" / f"{setting}.npz")["predictions"])
                for m in ("agw", "bot")
            ]
        ).mean((0, 1))
        assert (np.abs(rates - chance) < 0.15).all(), setting
        assert (band[0] <= rates).all() and (rates <= band[1]).all(), setting
    assert (balanced_accuracy(truth, headline).mean(0) > band[1]).all()


def test_cross_heads_know_only_the_tasks_of_both_sets(before, out):
    for name, hat in (("a", 0), ("b", 1)):
        arrays = read_npz(out / f"bot-{name}" / "cross.npz")
        truth = read_npz(before[0] / f"{name}_test.npz")["attributes"]
        for kept in ("predictions", "best"):
            assert (arrays[kept][..., 1 - hat] == -1).all()
            assert (balanced_accuracy(truth, arrays[kept])[:, hat] > 0.7).all()
    heads = load_heads(out / "bot-b", 3, torch.device("cpu"))
    features = read_npz(before[1] / "bot" / "a_test-s3.npz")["features"]
    cross = read_npz(out / "bot-a" / "cross.npz")["predictions"]
    assert np.array_equal(heads(features)[:, 1], cross[1, :, 0])
    own = read_npz(out / "bot-b" / "headline.npz")["predictions"]
    features = read_npz(before[1] / "bot" / "b_test-s3.npz")["features"]
    assert np.array_equal(heads(features), own[1])


def test_one_local_set_has_no_cross_and_seeds_stand_alone(made, tmp_path):
    meta = read_json(made[0] / "meta.json")
    write_json(made[0] / "meta.json", {**meta, "locals": ["a"]})
    both, one = tmp_path / "both", tmp_path / "one"
    attributes(*made, both, **RECIPE)
    attributes(*made, one, **{**RECIPE, "seeds": [3]})
    assert not (both / "bot-a" / "cross.npz").exists() and not (both / "bot-b").exists()
    assert read_json(both / "bot-a" / "meta.json")["cross"] is None
    name = "bot-a/heads-s3.safetensors"
    assert (both / name).read_bytes() == (one / name).read_bytes()
    for setting in SETTINGS[:-1]:
        pair = [read_npz(p / "bot-a" / f"{setting}.npz")["best"] for p in (both, one)]
        assert np.array_equal(pair[0][1:], pair[1])


def test_identities_keep_together_when_their_labels_are_permuted():
    pids = np.array([5, 5, 2, 9, 2, 9, 9])
    labels = np.array([[0, 0], [0, 0], [1, 7], [2, 8], [1, 7], [2, 8], [2, 8]])
    seen = set()
    for seed in range(20):
        found = permute_identities(labels, pids, np.random.default_rng(seed))
        of_id = {p: {tuple(row) for row in found[pids == p].tolist()} for p in (2, 5, 9)}
        assert all(len(rows) == 1 for rows in of_id.values())
        assert set.union(*of_id.values()) == {(0, 0), (1, 7), (2, 8)}
        seen.add(tuple(map(tuple, found.tolist())))
    assert len(seen) == 6


def change(made, **arrays):
    file = made[0] / "a_test.npz"
    write_npz(file, **{**read_npz(file), **arrays})


def test_people_in_both_splits_are_refused(made, tmp_path):
    pids = read_npz(made[0] / "a_test.npz")["pids"]
    pids[-1] = 7
    change(made, pids=pids)
    with pytest.raises(InputError, match="people of the training split.*such as 7"):
        attributes(*made, tmp_path / "out", **RECIPE)


def test_what_does_not_belong_together_is_one_sentence(made, tmp_path):
    labels = read_npz(made[0] / "a_test.npz")["attributes"]
    change(made, attributes=labels + 1)
    with pytest.raises(InputError, match="do not belong to the tasks.*up to class 3"):
        attributes(*made, tmp_path / "out", **RECIPE)
    change(made, attributes=labels)
    with pytest.raises(InputError, match="fewer annotated training images.*found 195"):
        attributes(*made, tmp_path / "out", **{**RECIPE, "seeds": [0], "batch_size": 196})
    file = made[1] / "bot" / "a_train-s0.npz"
    features = read_npz(file)["features"]
    write_npz(file, features=features[1:])
    with pytest.raises(InputError, match=r"a_train-s0.npz: does not belong.*200 images"):
        attributes(*made, tmp_path / "out", **{**RECIPE, "seeds": [0]})
    features[0, 0] = np.nan
    write_npz(file, features=features)
    with pytest.raises(InputError, match="not finite.*found 1 NaN"):
        attributes(*made, tmp_path / "out", **{**RECIPE, "seeds": [0]})
    with pytest.raises(InputError, match="holds no features"):
        attributes(made[0], tmp_path, tmp_path / "out", **RECIPE)
    meta = read_json(made[0] / "meta.json")
    write_json(made[0] / "meta.json", {**meta, "locals": ["c"]})
    with pytest.raises(InputError, match="does not describe the local sets.*found c"):
        attributes(*made, tmp_path / "out", **RECIPE)
