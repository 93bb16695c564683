"""Training and asking of all three black boxes, on images that the test makes."""

import socket
import subprocess

import numpy as np
import pytest
import torch
from killing import Killable
from safetensors.torch import load_file

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.deep_features.blackbox import build, load_blackbox, read_meta
from stages.deep_features.extract import extract
from stages.deep_features.pixels import resize, to_floats
from stages.deep_features.reid_metrics import retrieve
from stages.deep_features.train_reid import learning_rate, parameter_groups, train_reid

IDS, EACH, H, W = 6, 8, 32, 16
SETTINGS = {
    "seeds": [0],
    "threads": 1,
    "precision": "32-true",
    "amp": True,
    "net": "mini",
    "mini_width": 8,
    "input_width": 16,
    "aspect": 2,
    "backbone_weights": None,
    "freeze": 0,
    "non_local": False,
    "non_local_width": 1,
    "pool": "gap",
    "classifier": "linear",
    "smoothing": 0.1,
    "circle_scale": 64,
    "circle_margin": 0.35,
    "mining": "hard",
    "margin": 0.3,
    "triplet_on": "before",
    "ids_per_batch": 4,
    "per_id": 4,
    "lr": 1e-3,
    "bias_lr": 2,
    "weight_decay": 5e-4,
    "schedule": "steps",
    "warmup": 0.1,
    "warmup_factor": 0.1,
    "milestones": [0.5, 0.75],
    "drop": 0.1,
    "flat": 0.5,
    "lr_end": 7e-7,
    "flip": 0.5,
    "padding": 1,
    "erasing": 0.5,
    "autoaugment": 0,
    "epochs": 2,
    "epochs_share": 1,
    "log_every": 2,
}
MODELS = {
    "bot": {},
    "agw": {"non_local": True, "pool": "gem", "mining": "weighted", "margin": 0},
    "sbs": {
        "aspect": 3,
        "non_local": True,
        "pool": "gem_p",
        "classifier": "circle",
        "margin": 0,
        "triplet_on": "after",
        "ids_per_batch": 2,
        "per_id": 8,
        "bias_lr": 1,
        "amp": False,
        "schedule": "cosine",
        "freeze": 0.34,
        "autoaugment": 0.1,
    },
}


def settings(model="bot", **changes):
    return {**SETTINGS, **MODELS[model], **changes}


def pictures(n, seed, ids=IDS):
    """Identities differ in the colours of two halves, cameras in brightness."""
    draw = np.random.default_rng(seed)
    pids = np.repeat(np.arange(ids), n // ids)
    colours = draw.uniform(0.2, 0.8, (ids, 2, 3))
    camids = np.tile(np.arange(4), n)[:n]
    halves = colours[pids] * (0.3 + 0.3 * camids)[:, None, None]
    images = halves.repeat(H // 2, 1)[:, :, None].repeat(W, 2)
    images = (255 * (images + 0.1 * draw.standard_normal(images.shape))).clip(0, 255)
    return images.astype(np.uint8), 10 * (pids + 1 + 100 * seed), camids


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    folder = tmp_path / "prepare"
    for number, name in enumerate(("synth_p", "synth_a")):
        for split in ("train", "test"):
            images, pids, camids = pictures(IDS * EACH, 2 * number + (split == "test"))
            write_npz(
                folder / f"{name}_{split}.npz",
                images=images,
                pids=pids,
                camids=camids,
                attributes=np.zeros((len(pids), 0), np.int64),
                query=(np.arange(len(pids)) % EACH < 2) & (split == "test"),
            )
    write_json(folder / "meta.json", {"proprietary": "synth_p", "locals": ["synth_a"]})
    return folder


def network_of(folder):
    """The network as it was trained, its batch norms not fused."""
    net = build(read_meta(folder))
    net.load_state_dict(load_file(folder / "weights-s0.safetensors"))
    return net


def images_of(data, name):
    return torch.from_numpy(read_npz(data / f"{name}.npz")["images"])


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_and_is_asked_for_features(model, data, tmp_path):
    trained, out = tmp_path / "train_reid" / model, tmp_path / "extract" / model
    facts = train_reid(data, trained, **settings(model))
    assert facts["images_per_s_of_each_seed"][0] > 0
    assert not list((tmp_path / "ckpt").iterdir()), "a finished run leaves no checkpoint"
    meta = read_json(trained / "meta.json")
    assert (meta["model"], meta["dims"], meta["ids"]) == (model, 32, IDS)
    assert meta["input"] == ([48, 16] if model == "sbs" else [32, 16])
    assert meta["steps"] == 2 * (IDS * EACH // 16)
    assert meta["circle_scale"] == (32 if model == "sbs" else None), "few identities: half of 64"
    history = read_json(trained / "history-s0.json")
    for entry in history["log"]:
        assert entry["loss"] == pytest.approx(entry["id"] + entry["triplet"], rel=1e-3)
        assert 0 <= entry["accuracy"] <= 1

    facts = extract(data, trained, out, seeds=[0], threads=1, batch_size=7)
    names = {f"{n}_{s}-s0.npz" for n in ("synth_p", "synth_a") for s in ("train", "test")}
    assert {f.name for f in out.iterdir()} == names | {"reid_synth_p-s0.npz", "reid_synth_a-s0.npz"}
    features = read_npz(out / "synth_a_test-s0.npz")["features"]
    assert features.shape == (IDS * EACH, 32) and features.dtype == np.float32
    black_box = load_blackbox(trained, 0)
    shown = resize(to_floats(images_of(data, "synth_a_test")), black_box.size)
    plain = network_of(trained).eval()(shown)
    assert np.allclose(features, plain.detach().numpy(), atol=1e-4)
    assert black_box.dims == 32 and not black_box.net.training
    again = black_box(images_of(data, "synth_a_test")).cpu().numpy()
    assert np.allclose(features, again, atol=1e-4)
    content = read_npz(data / "synth_a_test.npz")
    want = retrieve(again, **{k: content[k] for k in ("pids", "camids", "query")})
    found = read_npz(out / "reid_synth_a-s0.npz")
    assert {k: v.dtype.name for k, v in found.items()} == {
        **dict.fromkeys(("ap", "inp", "rank1"), "float64"),
        "pids": "int64",
    }
    assert np.allclose(found["ap"], want.ap) and found["pids"].tolist() == want.pids.tolist()
    measured = facts["reid_of_each_seed"][0]["synth_a"]
    assert measured["mAP"] == pytest.approx(want.ap.mean())


def test_training_makes_retrieval_better(data, tmp_path):
    mAP = []
    for name, epochs in (("little", 0.1), ("much", 8)):
        changes = {"epochs": epochs, "lr": 5e-3, "milestones": [0.9], "erasing": 0}
        trained, out = tmp_path / "train_reid" / name, tmp_path / "extract" / name
        train_reid(data, trained, **settings(**changes))
        facts = extract(data, trained, out, seeds=[0], threads=1, batch_size=16)
        mAP.append(facts["reid_of_each_seed"][0]["synth_p"]["mAP"])
    assert mAP[1] > mAP[0] + 0.1


def test_a_black_box_takes_bytes_and_floats_of_any_size(data, tmp_path):
    train_reid(data, tmp_path / "x", **settings(epochs=0.1))
    black_box = load_blackbox(tmp_path / "x", 0, torch.device("cpu"))
    stored = images_of(data, "synth_a_test")[:5]
    planes = stored.permute(0, 3, 1, 2)
    features = black_box(stored)
    assert features.shape == (5, 32) and not features.requires_grad
    assert torch.equal(features, black_box(planes))
    assert torch.equal(features, black_box(planes.float() / 255))
    larger = torch.nn.functional.interpolate(planes.float() / 255, scale_factor=2, mode="bilinear")
    assert torch.nn.functional.cosine_similarity(black_box(larger), features).min() > 0.9
    assert black_box(stored[:0]).shape == (0, 32)
    with pytest.raises(ValueError, match="3 channels"):
        black_box(torch.zeros(1, 4, 8, 8))


def test_the_same_seed_gives_the_same_bytes_and_seeds_differ(data, tmp_path):
    both, one = (tmp_path / name / "sbs" for name in ("both", "one"))
    train_reid(data, both, **settings("sbs", seeds=[0, 1]))
    train_reid(data, one, **settings("sbs", seeds=[1]))
    for name in ("weights-s1.safetensors", "history-s1.json"):
        assert (both / name).read_bytes() == (one / name).read_bytes()
    a, b = ((both / f"weights-s{seed}.safetensors").read_bytes() for seed in (0, 1))
    assert a != b
    for folder, seeds in ((both, [0, 1]), (one, [1])):
        out = folder.parent / "extract" / "sbs"
        extract(data, folder, out, seeds=seeds, threads=1, batch_size=32)
    files = [folder.parent / "extract" / "sbs" / "synth_a_test-s1.npz" for folder in (both, one)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_killed_training_resumes_bit_for_bit(data, tmp_path):
    """Killed while the backbone is frozen, up to step 4."""
    train_reid(data, tmp_path / "bot", **settings())
    weights = str(tmp_path / "bot" / "weights-s0.safetensors")
    keys = settings("sbs", backbone_weights=weights, freeze=0.67)
    said, out = Killable(tmp_path, "deep_features.train_reid", [data], "sbs", keys).cut_and_whole(
        at=2
    )
    assert "resuming at step 2 of 6" in said
    assert len(list(out.iterdir())) == 3


def test_a_given_backbone_is_frozen_at_the_start_and_a_random_one_is_not(data, tmp_path):
    train_reid(data, tmp_path / "bot", **settings())
    weights = tmp_path / "bot" / "weights-s0.safetensors"
    given = network_of(tmp_path / "bot").backbone.state_dict()
    train_reid(
        data, tmp_path / "held", **settings("sbs", backbone_weights=str(weights), freeze=0.99)
    )
    meta = read_json(tmp_path / "held" / "meta.json")
    assert meta["initialised"] and meta["freeze_steps"] == 6 and meta["freeze_note"] is None
    held = network_of(tmp_path / "held").backbone.state_dict()
    assert all(torch.equal(held[name], value) for name, value in given.items())

    train_reid(data, tmp_path / "thawed", **settings("sbs", backbone_weights=str(weights)))
    assert read_json(tmp_path / "thawed" / "meta.json")["freeze_steps"] == 2
    thawed = network_of(tmp_path / "thawed").backbone.state_dict()
    assert not torch.equal(thawed["conv1.weight"], given["conv1.weight"])
    assert not torch.equal(thawed["bn1.running_mean"], given["bn1.running_mean"])

    train_reid(data, tmp_path / "random", **settings("sbs"))
    meta = read_json(tmp_path / "random" / "meta.json")
    assert not meta["initialised"] and meta["freeze_steps"] == 0
    assert meta["freeze_note"].startswith("skipped")


def test_a_group_of_processes_trains_with_a_frozen_backbone(data, tmp_path):
    train_reid(data, tmp_path / "bot", **settings())
    weights = str(tmp_path / "bot" / "weights-s0.safetensors")
    keys = settings("sbs", ids_per_batch=4, per_id=4, backbone_weights=weights, freeze=0.5)
    training = Killable(tmp_path, "deep_features.train_reid", [data], "sbs", keys)

    def go(size, folder):
        command, env, out = training.prepared(folder)
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        group = [
            subprocess.Popen(
                command,
                env={
                    **env, **address,
                    "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
                    "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1",
                    "TORCHELASTIC_RUN_ID": "test",
                },
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]  # fmt: skip
        said = [process.communicate(timeout=120)[1] for process in group]
        return [process.returncode for process in group], said, out

    codes, said, out = go(2, "two")
    assert codes == [0, 0], said
    assert read_json(out / "meta.json")["freeze_steps"] == 3
    codes, said, _ = go(3, "three")
    assert 0 not in codes and "expected 2 identities for each of 3" in said[0]


def free_port():
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def test_the_rate_follows_fastreids_two_courses():
    lr = 3.5e-4
    course = {k: SETTINGS[k] for k in ("warmup_factor", "drop", "lr_end")}
    steps = {"schedule": "steps", "warmup": 10 / 120, "milestones": [40 / 120, 90 / 120], "flat": 0}
    at = [learning_rate(e / 120, lr=lr, **course, **steps) for e in (0, 5, 10, 39, 41, 91)]
    assert at == pytest.approx([0.1 * lr, 0.55 * lr, lr, lr, 0.1 * lr, 0.01 * lr])
    cosine = {"schedule": "cosine", "warmup": 10 / 60, "milestones": [], "flat": 30 / 60}
    at = [learning_rate(e / 60, lr=lr, **course, **cosine) for e in (0, 10, 30, 45, 60)]
    assert at == pytest.approx([0.1 * lr, lr, lr, (lr + 7e-7) / 2, 7e-7])


def test_biases_have_their_own_factor_and_the_necks_bias_none(data, tmp_path):
    train_reid(data, tmp_path / "x", **settings("sbs", epochs=0.1))
    net = network_of(tmp_path / "x")
    weights, biases = parameter_groups(net, 2)
    assert (weights["factor"], biases["factor"]) == (1, 2)
    names = {id(p): name for name, p in net.named_parameters()}
    assert all(names[id(p)].endswith("bias") for p in biases["params"])
    assert not any(names[id(p)].endswith("bias") for p in weights["params"])
    assert len(weights["params"]) + len(biases["params"]) == len(names) - 1
    assert net.neck.bias.abs().max() == 0, "it stayed 0"


def test_amp_is_off_where_the_model_has_none(data, tmp_path):
    for name, amp in (("with", True), ("without", False)):
        changes = {"precision": "bf16-mixed", "amp": amp, "epochs": 0.1}
        train_reid(data, tmp_path / name, **settings("agw", **changes))
    found = [read_json(tmp_path / n / "meta.json")["precision"] for n in ("with", "without")]
    assert found == ["bf16-mixed", "32-true"]
    losses = [read_json(tmp_path / n / "history-s0.json")["log"][-1]["loss"] for n in
              ("with", "without")]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids_per_batch": 7, "per_id": 2}, "at least 7, found 6"),
        ({"ids_per_batch": 6, "per_id": 9}, "at least 54, found 48"),
        ({"backbone_weights": "no/such.pth"}, "no/such.pth"),
    ],
)
def test_bad_input_is_said_in_a_sentence(changes, words, data, tmp_path):
    with pytest.raises(InputError, match=words):
        train_reid(data, tmp_path / "x", **settings(**changes))


def test_weights_of_another_network_are_refused(data, tmp_path):
    train_reid(data, tmp_path / "bot", **settings(epochs=0.1))
    weights = str(tmp_path / "bot" / "weights-s0.safetensors")
    with pytest.raises(InputError, match="cannot be used as weights"):
        train_reid(data, tmp_path / "x", **settings(backbone_weights=weights, mini_width=16))
    meta = read_json(tmp_path / "bot" / "meta.json")
    write_json(tmp_path / "bot" / "meta.json", {**meta, "ids": 7})
    with pytest.raises(InputError, match=r"expected \(7, 32\) for 'classifier'"):
        load_blackbox(tmp_path / "bot", 0)
    write_json(tmp_path / "bot" / "meta.json", {k: v for k, v in meta.items() if k != "pool"})
    with pytest.raises(InputError, match="none of pool"):
        load_blackbox(tmp_path / "bot", 0)
