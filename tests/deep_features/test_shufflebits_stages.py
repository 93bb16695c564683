"""Stages encrypt and cryptanalyse on a small tree: synthetic features, untrained networks."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.deep_features import cryptanalyse as module
from stages.deep_features import encrypt as encrypt_module
from stages.deep_features.blackbox import build, load_blackbox
from stages.deep_features.cryptanalyse import Plan, chosen_images, cryptanalyse
from stages.deep_features.cryptanalysis import hamming, synthetic
from stages.deep_features.cryptanalysis.planes import words
from stages.deep_features.encrypt import (
    as_features,
    encrypt,
    evenly,
    fresh_keys,
    hamming_by_torch,
    look_at_graph,
    seal,
    seal_by_torch,
    train_own,
)
from stages.deep_features.generator import Generator
from stages.deep_features.heads import Heads, load_heads
from stages.deep_features.shufflebits.arrays import encrypt_numpy
from stages.deep_features.shufflebits.graph import linear
from stages.deep_features.shufflebits.keys import BitKey

D, N, SEEDS = 256, 96, [0, 3]
LOCALS, MODEL = ("here", "there"), "bot"
TASKS = [{"name": "hat", "classes": ["no", "yes"]}, {"name": "up", "classes": ["a", "b", "c"]}]
PANEL = [4, 0]
HEIGHT, WIDTH = 16, 8
NETWORK = {
    "net": "mini", "ids": 3, "mini_width": D // 4, "non_local": False, "non_local_width": 1,
    "pool": "gap", "classifier": "linear",
}  # fmt: skip
SHAPE = {
    "dims": D, "height": HEIGHT, "width": WIDTH, "min_map": [4, 2], "c0": 8,
    "hidden": 8, "base_g": 4,
}  # fmt: skip
RECIPE = {"epochs": 8, "batch_size": 32, "lr": 1e-3, "lr_late": 1e-4, "beta1": 0.9, "beta2": 0.999}
ENCRYPT = {"seeds": SEEDS, "threads": 1, "key_seed": 0, "wrong_keys": 5, "n_recon": 6}
CRYPTANALYSE = {
    "seeds": SEEDS, "threads": 1, "key_seed": 0, "n_reference": 200, "requests": 2,
    "scopes": [1, 2], "known_floats": [1, 32, 2048], "n_attacked": 6, "random_keys": 5,
    "synthetic_dims": [64], "synthetic_requests": 2, "allow_real_grids": False,
}  # fmt: skip
MEASURES = ("cos", "centred", "cos_min", "sign_ok", "exponent_ok", "prefix_bits")


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Starting processes takes longer than what they would do here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "processes", lambda: 1)
        patch.setattr("os.cpu_count", lambda: 1)
        yield


def make_tree(root):
    rng = np.random.default_rng(0)
    sets = {n: {"tasks": TASKS, "real": n == "there"} for n in LOCALS}
    meta = {"proprietary": "own", "locals": LOCALS, "sets": sets, "panel": {"here": PANEL}}
    write_json(root / "prepare" / "meta.json", meta)
    for place, name in enumerate(("own", *LOCALS)):
        for split in ("train", "test"):
            number = 400 if split == "train" else N
            pids = np.arange(number) % (number // 8)
            labels = np.stack([pids % 2, pids % 3], 1).astype(np.int64)
            labels[-1] = -1  # without annotation
            camids = np.arange(number) * 8 // number
            images = rng.integers(0, 256, (number, HEIGHT, WIDTH, 3), np.uint8)
            query = (camids == 0) & (split == "test")
            write_npz(
                root / "prepare" / f"{name}_{split}.npz", images=images, pids=pids, camids=camids,
                attributes=labels if name != "own" else labels[:, :0], query=query,
            )  # fmt: skip
            for seed in SEEDS:
                draw_seed = 100 * seed + 10 * place + (split == "test")
                about = {"network": seed, "domain": place}
                features = synthetic.draw("bn", number, D, seed=draw_seed, **about)
                of_person = synthetic.draw("bn", number // 8, D, seed=draw_seed + 5, **about)
                features = (0.5 * features + of_person[pids]).astype(np.float32)
                features[:, :100] += 2 * labels[:, :1]
                file = root / "extract" / MODEL / f"{name}_{split}-s{seed}.npz"
                write_npz(file, features=features)
    torch.manual_seed(0)
    write_json(
        root / "train" / MODEL / "meta.json",
        {**NETWORK, "model": MODEL, "dims": D, "input": [HEIGHT, WIDTH]},
    )
    for name in LOCALS:
        cell = f"{MODEL}-{name}"
        write_json(
            root / "attributes" / cell / "meta.json",
            {"dims": D, "blocks": 1, "tasks": TASKS, "bn_momentum": 0.2, **RECIPE},
        )
        for seed in SEEDS:
            heads = Heads(D, [2, 3])
            with torch.no_grad():  # knows what the first dimensions say of the first task
                heads.blocks[0].weight[0, 0, :100] = -1
                heads.blocks[0].weight[0, 1, :100] = 1
                heads.blocks[0].mean += 1
            save_file(heads.state_dict(), root / "attributes" / cell / f"heads-s{seed}.safetensors")
    folder = root / "reconstruct" / "fr_adv" / f"{MODEL}-here"
    write_json(folder / "meta.json", SHAPE)
    for seed in SEEDS:
        net = build(NETWORK)
        save_file(net.state_dict(), root / "train" / MODEL / f"weights-s{seed}.safetensors")
        save_file(Generator(**SHAPE).state_dict(), folder / f"generator-s{seed}.safetensors")
    return root


def paths(root):
    return [root / name for name in ("prepare", "train", "extract", "attributes", "reconstruct")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = make_tree(tmp_path_factory.mktemp("stages"))
    encrypt(*paths(root), root / "encrypt", **ENCRYPT)
    root.joinpath("facts.txt").write_text(
        str(cryptanalyse(*paths(root), root / "attacked", **CRYPTANALYSE))
    )
    return root


def prepared(tree, name="here"):
    return read_npz(tree / "prepare" / f"{name}_test.npz")


def plain(tree, seed, name="here"):
    return read_npz(tree / "extract" / MODEL / f"{name}_test-s{seed}.npz")["features"]


# ---------------------------------------------------------------- encrypt


def test_encrypt_writes_what_its_module_says(tree):
    arrays = read_npz(tree / "encrypt" / f"{MODEL}-here.npz")
    shapes = {name: array.shape for name, array in arrays.items()}
    k, T = len(SEEDS), len(TASKS)
    cell = {
        "seeds": (k,),
        **{f"predictions_{name}": (k, N, T) for name in ("plain", "right", "own", "popcount")},
        "wrong_predictions": (k, 5, N, T),
        "wrong_cos": (k, 5),
        "nan_share": (5,),
        "bits_wrong_right": (1,),
        "rank1_plain": (k,),
        "rank1_hamming": (k,),
    }
    distances = {f"distance_{name}": (k, 6) for name in ("plain", "right", "wrong")}
    assert shapes == cell | distances | {"recon_index": (6,)}
    assert arrays["wrong_predictions"].dtype == np.int16
    for name in ("right", "own", "popcount"):
        assert arrays[f"predictions_{name}"].dtype == np.int64
    for name, array in read_npz(tree / "encrypt" / f"{MODEL}-there.npz").items():
        assert array.shape == cell[name], name


def test_the_right_key_changes_nothing(tree):
    arrays = read_npz(tree / "encrypt" / f"{MODEL}-here.npz")
    assert arrays["bits_wrong_right"] == 0
    np.testing.assert_array_equal(arrays["distance_right"], arrays["distance_plain"])
    for row, seed in zip(arrays["predictions_right"], SEEDS, strict=True):
        heads = load_heads(tree / "attributes" / f"{MODEL}-here", seed)
        np.testing.assert_array_equal(row, heads(plain(tree, seed)))


def accuracy(predictions, tree):
    labels = prepared(tree)["attributes"][:, 0]
    known = labels >= 0
    return np.mean(predictions[..., known, 0] == labels[known])


def test_wrong_keys_leave_the_heads_guessing_and_no_key_does_not(tree):
    arrays = read_npz(tree / "encrypt" / f"{MODEL}-here.npz")
    assert accuracy(arrays["predictions_right"], tree) > 0.9
    assert accuracy(arrays["wrong_predictions"], tree) == pytest.approx(0.5, abs=0.2)
    assert accuracy(arrays["predictions_popcount"], tree) > 0.8
    assert np.median(np.abs(arrays["wrong_cos"])) < 0.5
    assert (0 <= arrays["nan_share"]).all() and (arrays["nan_share"] < 0.1).all()


def test_training_under_an_own_key_works_if_the_key_leaves_the_sizes_readable(tree):
    """Of a ciphertext taken for a float the heads see its size: what moved there decides."""
    meta = read_json(tree / "attributes" / f"{MODEL}-here" / "meta.json")
    folder = tree / "extract" / MODEL
    x = {s: read_npz(folder / f"here_{s}-s0.npz")["features"] for s in ("train", "test")}
    labels = read_npz(tree / "prepare" / "here_train.npz")["attributes"]
    largest = 1.5 * float(np.abs(x["train"]).max())
    found = []
    for i in (0, 2):
        key = BitKey.random(np.random.default_rng(i))
        y = {s: as_features(encrypt_numpy(f, key), largest)[: len(f) - 1] for s, f in x.items()}
        device = torch.device("cpu")
        predictions = train_own(y["train"], labels[:-1], y["test"], meta, seed=0, device=device)
        truth = prepared(tree)["attributes"][:-1, 0]
        found.append(np.mean(predictions[:, 0] == truth))
    assert found[0] > 0.9 and found[1] == pytest.approx(0.5, abs=0.15)


def test_ciphertexts_under_one_key_can_be_retrieved(tree):
    arrays = read_npz(tree / "encrypt" / f"{MODEL}-here.npz")
    assert (arrays["rank1_plain"] > 0.9).all()
    assert (arrays["rank1_hamming"] > 0.8).all()  # chance 1 / 12


def test_fresh_keys_permute_the_bits_of_every_float_apart():
    x = np.full((200, 50), 0x0000FFFF, np.uint32)
    found = fresh_keys(x, [0])
    assert (np.bitwise_count(found) == 16).all()
    assert len(np.unique(found)) > 9900
    single = fresh_keys(np.full(100_000, 1, np.uint32).reshape(-1, 1), [1])
    places = np.bincount(np.log2(single).astype(int).ravel(), minlength=32) / 100_000
    np.testing.assert_allclose(places, 1 / 32, atol=0.003)  # five standard errors


def test_what_a_gpu_computes_is_what_numpy_does():
    x = words(np.random.default_rng(0).standard_normal((9, 70)).astype(np.float32))
    found = hamming_by_torch(*(torch.from_numpy(part.view(np.int32)) for part in (x[:2], x[2:])))
    expected = hamming.distances(x[:2], x[2:])
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    key = BitKey.random(np.random.default_rng(0))
    features = torch.from_numpy(x.view(np.float32))
    ours, want = (f(features, key).view(torch.int32) for f in (seal_by_torch, seal))
    assert torch.equal(ours, want)
    assert np.array_equal(ours.numpy().view(np.uint32), encrypt_numpy(features.numpy(), key))


def test_the_cosine_under_wrong_keys_is_of_images_evenly_spread(tree, tmp_path, monkeypatch):
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4] and evenly(9, 3).tolist() == [0, 4, 8]
    monkeypatch.setattr(encrypt_module, "COSINES", 7)
    encrypt(*paths(tree), tmp_path / "encrypt", **ENCRYPT | {"seeds": [0]})
    few, all_ = (read_npz(p / "encrypt" / f"{MODEL}-here.npz") for p in (tmp_path, tree))
    for name, values in few.items():
        same = np.array_equal(values, all_[name][:1] if len(all_[name]) == 2 else all_[name])
        assert same or name in ("wrong_cos", "seeds", "bits_wrong_right"), name
    np.testing.assert_allclose(few["wrong_cos"], all_["wrong_cos"][:1], atol=0.1)
    assert not np.array_equal(few["wrong_cos"], all_["wrong_cos"][:1])


def test_the_first_black_box_is_looked_at_with_cuda_alone(tree, tmp_path, monkeypatch, capsys):
    looked = []

    def look(networks, key, device):
        for _, network, x in networks:
            assert torch.equal(network(x), network(x))
        looked.append([name for name, *_ in networks])
        return evidence

    def run():
        root, out = tree / "prepare", tmp_path / "out"
        write_json(out / "graph.json", {"of": "another run"})
        look_at_graph(root, tree / "train" / MODEL, out, seed=0, key_seed=0)
        file = out / "graph.json"
        return read_json(file) if file.exists() else None

    class Cuda(str):  # a CPU by that name
        type = "cuda"

    evidence = {"fullgraph": True}
    monkeypatch.setattr(encrypt_module, "look", look)
    assert run() is None and not looked
    cpu = torch.device("cpu")
    monkeypatch.setattr(encrypt_module, "evaluation_device", lambda: Cuda("cpu"))
    monkeypatch.setattr(encrypt_module, "load_blackbox", lambda *a: load_blackbox(*a[:2], cpu))
    monkeypatch.setattr(encrypt_module, "linear", lambda device: linear(cpu))
    monkeypatch.setattr(encrypt_module, "compiler", lambda: "cc")
    assert run() == evidence and looked == [[MODEL, "linear layer"]]
    evidence = None
    assert run() is None and len(looked) == 2
    monkeypatch.setattr(encrypt_module, "compiler", lambda: None)
    assert run() is None and "no C compiler" in capsys.readouterr().out


def test_ciphertexts_as_features_are_finite_and_bounded():
    x = np.array([[np.nan, np.inf, -1e30, 2.0, -0.5]], np.float32)
    np.testing.assert_array_equal(as_features(words(x), 3.0), [[0, 0, -3, 2, -0.5]])


# ---------------------------------------------------------------- cryptanalyse


def test_cryptanalyse_writes_what_its_module_says(tree):
    arrays = read_npz(tree / "attacked" / f"{MODEL}-here.npz")
    k, r, T = len(SEEDS), 6, len(TASKS)
    refs = ("same_domain", "n20", "n100", "other_dataset", "none")
    attacks = [f"co-{ref}-img{n}" for ref in refs for n in (1, 2)]
    attacks += [
        "hungarian",
        "profile",
        *(f"kpa-K{c}" for c in (1, 32, D)),
    ]  # 2048 are all D of a vector
    controls = [f"control-{name}" for name in ("aes_gcm", "xor", "iid")]
    shapes = {f"{a}-{m}": (k, 2) for a in attacks + controls for m in MEASURES}
    shapes |= {f"{a}-abs_cos": (k, 2) for a in controls}
    shapes |= {f"control-mean-{m}": (k, 2) for m in ("cos", "centred")}
    shapes |= {"seeds": (k,), "ll_true": (k,), "ll_random": (k, 5), "attacked_index": (r,)}
    shapes |= {"attacked_features": (k, r, D), "attacked_predictions": (k, r, T)}
    shapes |= {"attacked_cos": (k, r), "attacked_centred": (k, r)}
    drawn = {
        f"panel_{n}": (2, HEIGHT, WIDTH, 3) for n in ("original", "plain", "wrong_key", "attacked")
    }
    drawn |= {"attacked_distance": (k, r), "plain_distance": (k, r)}
    assert {name: array.shape for name, array in arrays.items()} == shapes | drawn
    there = read_npz(tree / "attacked" / f"{MODEL}-there.npz")
    assert {name: array.shape for name, array in there.items()} == shapes
    kinds = read_npz(tree / "attacked" / "synthetic.npz")
    assert {n: a.shape for n, a in kinds.items()} == {
        f"synthetic-{kind}-D64-{m}": (2,) for kind in synthetic.KINDS for m in ("cos", "centred")
    }
    assert "co-same_domain-img1" in (tree / "facts.txt").read_text()  # seconds


def test_the_features_come_back_and_controls_fail(tree):
    for name in LOCALS:
        arrays = read_npz(tree / "attacked" / f"{MODEL}-{name}.npz")
        for ref in ("same_domain", "n100", "other_dataset"):
            assert np.median(arrays[f"co-{ref}-img1-cos"]) > 0.98, ref
        assert np.median(arrays["attacked_cos"]) > 0.98
        assert arrays[f"kpa-K{D}-cos"].min() > 0.999
        for control in ("aes_gcm", "xor"):
            assert abs(np.median(arrays[f"control-{control}-centred"])) < 0.2
        assert np.median(arrays["co-same_domain-img1-centred"]) > 0.98
        assert np.median(arrays["attacked_centred"]) > 0.98
        np.testing.assert_array_equal(arrays["control-mean-centred"], 0)
        assert abs(np.median(arrays["control-iid-cos"])) < 0.3
        assert arrays["control-iid-abs_cos"].min() > 0.9
        assert (arrays["ll_true"][:, None] > arrays["ll_random"] + 2).all()


def test_what_was_attacked_is_what_it_says(tree):
    arrays = read_npz(tree / "attacked" / f"{MODEL}-here.npz")
    index = arrays["attacked_index"]
    assert set(PANEL) <= set(index.tolist()) and len(np.unique(index)) == 6
    for s, seed in enumerate(SEEDS):
        x, y = plain(tree, seed)[index], arrays["attacked_features"][s]
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        np.testing.assert_allclose(arrays["attacked_cos"][s], cosine, rtol=1e-5)
        own = read_npz(tree / "extract" / MODEL / f"here_train-s{seed}.npz")["features"]
        taken = own[np.random.default_rng(seed).permutation(len(own))[:200]]  # n_reference
        a, b = x - taken.mean(0), y - taken.mean(0)
        centred = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(arrays["attacked_centred"][s], centred, rtol=1e-4)
        heads = load_heads(tree / "attributes" / f"{MODEL}-here", seed)
        np.testing.assert_array_equal(arrays["attacked_predictions"][s], heads(y))
    np.testing.assert_array_equal(arrays["panel_original"], prepared(tree)["images"][sorted(PANEL)])


def test_images_are_chosen_once_and_with_the_panel():
    plan = Plan(0, 9, 9, [1], [1], 5, 9)
    found = chosen_images(30, plan, [7, 3])
    assert len(found) == 5 and {3, 7} <= set(found.tolist()) and (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, chosen_images(30, plan, [7, 3]))
    assert len(chosen_images(3, plan, [])) == 3


def copied(tree, tmp_path):
    for folder in paths(tree):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


def test_both_write_the_same_bytes_again_in_several_processes(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "processes", lambda: 2)
    cryptanalyse(*paths(tree), tmp_path / "attacked", **CRYPTANALYSE)
    encrypt(*paths(tree), tmp_path / "encrypt", **ENCRYPT)
    for folder in ("attacked", "encrypt"):
        for file in sorted((tree / folder).iterdir()):
            assert file.read_bytes() == (tmp_path / folder / file.name).read_bytes(), file.name


def test_pictures_of_real_people_need_leave(tree, tmp_path):
    root = copied(tree, tmp_path)
    meta = {"proprietary": "own", "locals": ["here"], "panel": {"here": PANEL}}
    write_json(
        root / "prepare" / "meta.json", meta | {"sets": {"here": {"tasks": TASKS, "real": True}}}
    )
    few = {"requests": 1, "scopes": [1], "n_attacked": 2, "synthetic_requests": 1}
    small = CRYPTANALYSE | few | {"seeds": [0], "n_reference": 50, "synthetic_dims": [16]}
    cryptanalyse(*paths(root), root / "out", **small)
    arrays = read_npz(root / "out" / f"{MODEL}-here.npz")
    assert not any(name.startswith("panel_") for name in arrays)
    assert "attacked_distance" in arrays
    cryptanalyse(*paths(root), root / "out", **small | {"allow_real_grids": True})
    assert "panel_attacked" in read_npz(root / "out" / f"{MODEL}-here.npz")


def test_the_attacks_do_not_import_torch():
    code = "import sys, stages.deep_features.cryptanalyse; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- bad input


def test_the_request_of_one_vector_is_needed(tree, tmp_path):
    with pytest.raises(InputError, match="1 among them, found .2."):
        cryptanalyse(*paths(tree), tmp_path / "out", **CRYPTANALYSE | {"scopes": [2]})


def test_requests_larger_than_a_test_split_are_one_sentence(tree, tmp_path):
    with pytest.raises(InputError, match="at least 97, found 96; lower scopes"):
        cryptanalyse(*paths(tree), tmp_path / "out", **CRYPTANALYSE | {"scopes": [1, 97]})


@pytest.mark.parametrize("stage, options", [(encrypt, ENCRYPT), (cryptanalyse, CRYPTANALYSE)])
@pytest.mark.parametrize(
    "file",
    [
        f"extract/{MODEL}/here_test-s3.npz",
        f"attributes/{MODEL}-here/meta.json",
        "prepare/meta.json",
    ],
)
def test_missing_files_are_one_sentence(tree, tmp_path, stage, options, file):
    root = copied(tree, tmp_path)
    (root / file).unlink()
    with pytest.raises(InputError, match=file.rpartition("/")[2]):
        stage(*paths(root), root / "out", **options)
