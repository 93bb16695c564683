"""The first stage of training, on images and keypoints that the test makes."""

import json

import numpy as np
import pytest
import torch
from killing import Killable
from torch.nn.functional import normalize

from stages.common.errors import InputError
from stages.common.files import read_json, write_npz
from stages.common.networks.efficientnet_lite import load_efficientnet_lite0
from stages.sift_inversion.keypoints import Descriptors, offsets_of, placed, write
from stages.sift_inversion.losses import joint_terms, total
from stages.sift_inversion.models import load_run, read_meta
from stages.sift_inversion.networks import CoarseNet, parameters
from stages.sift_inversion.pairs import split, to_network
from stages.sift_inversion.perceptual import Perceptual, load_phi
from stages.sift_inversion.sparse import densify
from stages.sift_inversion.train import train

N, SIZE, KEYPOINTS = 24, 32, 12
SETTINGS = {
    "seeds": [0],
    "threads": 1,
    "size": SIZE,
    "precision": "32-true",
    "image_set": "faces",
    "inputs": [4, 2],
    "net": "R",
    "loss": "joint",
    "width": 0.0625,
    "channels": 128,
    "desc_norm": "unit",
    "lambda_p": 1,
    "lambda_s": 1e-4,
    "phi": "random",
    "phi_layer": "relu2_1",
    "phi_weights": None,
    "phi_size": 16,
    "share": 1,
    "lr": 1e-3,
    "lr_end": 1,
    "l2_first": 0,
    "beta1": 0.9,
    "beta2": 0.999,
    "batch_size": 4,
    "images": 32,
    "log_every": 2,
    "n_val": 4,
}
RUNS = {
    "B5": {"net": "dosovitskiy", "inputs": [4], "channels": 133, "loss": "l2"},
    "B5_128": {"net": "dosovitskiy", "inputs": [4], "loss": "l2"},
    "R4_L2": {"inputs": [4], "loss": "l2"},
    "R2_J": {"inputs": [2]},
    "R44_J": {"inputs": [4, 4]},
    "R42_J": {},
    "R42_J_nostyle": {"loss": "l2+p"},
    "R42_J_half": {"share": 0.5},
    "R42_J_133": {"channels": 133, "desc_norm": "pm1"},
}


def keypoints(n, size, count, seed=0):
    rng = np.random.default_rng(seed)
    N = n * count
    places = rng.random((N, 2)) * size
    others = np.column_stack([1 + 4 * rng.random(N), 360 * rng.random(N), rng.random(N)])
    kp = np.concatenate([places, others], 1).astype(np.float32)
    desc = rng.integers(0, 120, (N, 128), dtype=np.uint8)
    meta = {"size": size, "params": {"r_max": 1, "order": "response", "collision": "adjacent"}}
    offsets, ids = offsets_of([count] * n), np.arange(n)
    cells = placed(kp, desc, offsets, ids, meta)
    return Descriptors(desc, cells, kp, np.zeros(N, np.int32), offsets, ids, meta)


def smooth(n, size, seed=0):
    rng = np.random.default_rng(seed)
    corners = torch.from_numpy(rng.uniform(0, 255, (n, 3, 3, 3)).astype(np.float32))
    images = torch.nn.functional.interpolate(
        corners, size=(size, size), mode="bilinear", align_corners=True
    )
    return images.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    images, groups = smooth(N, SIZE), np.arange(N) // 2
    write_npz(tmp_path / "data" / "faces_train.npz", images=images, groups=groups, labels=groups)
    write(tmp_path / "extract" / "faces_train", keypoints(N, SIZE, KEYPOINTS))
    return tmp_path / "data", tmp_path / "extract"


@pytest.mark.parametrize("name", RUNS)
def test_every_run_trains_and_is_loaded_again(name, made, tmp_path):
    out = tmp_path / "p" / "train" / name
    facts = train(*made, out, **{**SETTINGS, **RUNS[name]})
    model = load_run(out, 0, torch.device("cpu"))
    images = model(keypoints(N, SIZE, KEYPOINTS).take([3, 0, 3]))
    assert images.shape == (3, 3, SIZE, SIZE) and images.abs().max() <= 1
    assert torch.allclose(images[0], images[2], atol=1e-6)
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not model.net.training and model.meta["run"] == name
    history = read_json(out / "history-s0.json")
    assert history["parameters"] == parameters(model.net)
    assert facts["images_per_s_of_each_seed"][0] > 0
    assert not list((tmp_path / "ckpt").iterdir()), "a finished run leaves no checkpoint"


def test_the_history_logs_every_term_with_its_weight_and_share(made, tmp_path):
    out = tmp_path / "p" / "train" / "R42_J"
    train(*made, out, **SETTINGS)
    history = read_json(out / "history-s0.json")
    assert (history["steps"], history["batch_size"], history["trained_on"]) == (8, 4, N - 4)
    assert [entry["images"] for entry in history["log"]] == [8, 16, 24, 32]
    for entry in history["log"]:
        terms = [entry[name] for name in ("l2", "p", "s")]
        assert entry["loss"] == pytest.approx(sum(terms), rel=1e-3)
        shares = [entry[f"share_{name}"] for name in ("l2", "p", "s")]
        assert shares == pytest.approx([term / entry["loss"] for term in terms], rel=1e-3)
    assert [entry["step"] for entry in history["epochs"]] == [5, 8]
    last = history["epochs"][-1]
    terms = [last[f"val_{name}"] for name in ("l2", "p", "s")]
    assert last["val_loss"] == pytest.approx(sum(terms), rel=1e-3)
    assert history["phi_unit"] > 0


@pytest.mark.parametrize(("loss", "terms"), [("l2", {"l2"}), ("l2+p", {"l2", "p"})])
def test_a_loss_has_its_terms_and_no_others(loss, terms, made, tmp_path):
    out = tmp_path / "p" / "train" / "x"
    train(*made, out, **{**SETTINGS, "loss": loss})
    history = read_json(out / "history-s0.json")
    assert {k for k in history["log"][0] if k in ("l2", "p", "s")} == terms
    assert (history["phi_unit"] is None) == (loss == "l2")
    assert (read_meta(out)["phi"] is None) == (loss == "l2")


def test_eq_4_alone_comes_first_and_is_trained_as_by_itself(made, tmp_path):
    """8 steps, 4 of them with eq. (4): the same as in a run that has no other loss."""
    settings = {**SETTINGS, "n_val": 0, "log_every": 1}
    runs = {
        "first": {"l2_first": 0.5},
        "never": {"loss": "l2"},
        "always": {"l2_first": 1},
        "joint": {},
    }
    logs, weights = {}, {}
    for name, changed in runs.items():
        out = tmp_path / "p" / "train" / name
        train(*made, out, **{**settings, **changed})
        logs[name] = read_json(out / "history-s0.json")["log"]
        weights[name] = (out / "weights-s0.safetensors").read_bytes()
    assert [{"l2", "p", "s"} & set(entry) for entry in logs["first"]] == [
        *([{"l2"}] * 4),
        *([{"l2", "p", "s"}] * 4),
    ]
    l2 = {name: [entry["l2"] for entry in log] for name, log in logs.items()}
    assert l2["first"][:5] == l2["never"][:5] and l2["first"][5:] != l2["never"][5:]
    assert weights["always"] == weights["never"]
    assert weights["first"] not in (weights["never"], weights["joint"])


def test_the_validation_loss_is_that_of_the_saved_weights(made, tmp_path):
    out = tmp_path / "p" / "train" / "R42_J"
    train(*made, out, **{**SETTINGS, "loss": "l2"})
    _, held = split(np.arange(N) // 2, n_val=4, share=1)
    images = load_run(out, 0, torch.device("cpu"))(keypoints(N, SIZE, KEYPOINTS).take(held))
    error = (images - to_network(torch.from_numpy(smooth(N, SIZE)[held]))).square().mean()
    last = read_json(out / "history-s0.json")["epochs"][-1]
    assert last["val_loss"] == pytest.approx(float(error), rel=1e-4)


def test_held_out_images_share_no_group_with_the_others():
    groups = np.repeat(np.arange(10), 3)
    fit, val = split(groups, n_val=4, share=1)
    assert len(val) == 4 and len(fit) == 24
    assert not set(groups[fit]) & set(groups[val])
    half, again = split(groups, n_val=4, share=0.5)
    assert np.array_equal(again, val)
    assert len(half) == 12 and set(half) < set(fit)
    everything, none = split(groups, n_val=0, share=1)
    assert np.array_equal(everything, np.arange(30)) and len(none) == 0


def test_training_without_held_out_images_has_no_epochs(made, tmp_path):
    out = tmp_path / "p" / "train" / "x"
    train(*made, out, **{**SETTINGS, "n_val": 0})
    assert read_json(out / "history-s0.json")["epochs"] == []


def test_the_same_seed_gives_the_same_bytes_and_seeds_differ(made, tmp_path):
    both, one = (tmp_path / "p" / name / "R42_J" for name in ("both", "one"))
    train(*made, both, **{**SETTINGS, "seeds": [0, 1]})
    train(*made, one, **{**SETTINGS, "seeds": [1]})
    for name in ("weights-s1.safetensors", "history-s1.json", "meta.json"):
        assert (both / name).read_bytes() == (one / name).read_bytes()
    a, b = ((both / f"weights-s{seed}.safetensors").read_bytes() for seed in (0, 1))
    assert a != b


def test_the_rate_falls_by_a_cosine_to_its_end(made, tmp_path, monkeypatch):
    rates = []

    class Watched(torch.optim.Adam):
        def step(self, *args, **kwargs):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr("stages.sift_inversion.train.Adam", Watched)
    for end, wanted in ((0.5, [1, 0.75]), (1, [1, 1])):
        rates.clear()
        out = tmp_path / "p" / "train" / f"end{end}"
        train(*made, out, **{**SETTINGS, "lr_end": end})
        half = len(rates) // 2
        assert [rates[0], rates[half]] == pytest.approx([1e-3 * w for w in wanted])
        assert 1e-3 * end <= rates[-1] <= 1e-3


def test_a_killed_training_resumes_bit_for_bit(made, tmp_path):
    training = Killable(tmp_path, "sift_inversion.train", made, "R42_J", SETTINGS)
    said, out = training.cut_and_whole(at=6)
    assert "resuming at step 6 of 8" in said
    assert len(list(out.iterdir())) == 3


def test_bfloat16_trains_and_stays_near_float32(made, tmp_path):
    outs = [tmp_path / "p" / precision / "R42_J" for precision in ("32-true", "bf16-mixed")]
    for out in outs:
        train(*made, out, **{**SETTINGS, "precision": out.parent.name})
    a, b = (read_json(out / "history-s0.json")["log"][-1]["loss"] for out in outs)
    assert a == pytest.approx(b, rel=0.05)
    assert a != b


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 21}, "has too few images"),
        ({"share": 0.1}, "has too few images"),
        ({"size": 64}, "does not belong to the images"),
        ({"phi_size": 12}, "phi_size does not suit"),
        ({"net": "dosovitskiy", "channels": 133}, "wrong inputs"),
        ({"phi": "torchvision"}, "lacks its weights"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(changes, words, made, tmp_path):
    with pytest.raises(InputError, match=words):
        train(*made, tmp_path / "p" / "train" / "x", **{**SETTINGS, **changes})


def test_a_diverging_run_stops_and_writes_nothing(made, tmp_path):
    out = tmp_path / "p" / "train" / "x"
    with pytest.raises(FloatingPointError, match="diverged"):
        train(*made, out, **{**SETTINGS, "net": "dosovitskiy", "inputs": [4], "lr": 1e30})
    assert not out.exists()


def test_a_run_that_does_not_say_what_it_is_cannot_be_loaded(made, tmp_path):
    out = tmp_path / "p" / "train" / "x"
    train(*made, out, **{**SETTINGS, "loss": "l2"})
    meta = read_json(out / "meta.json")
    (out / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "width"}))
    with pytest.raises(InputError, match="does not say what the networks are"):
        load_run(out, 0, torch.device("cpu"))
    (out / "meta.json").write_text(json.dumps({**meta, "width": 0.125}))
    with pytest.raises(InputError, match="cannot be used as weights"):
        load_run(out, 0, torch.device("cpu"))
    with pytest.raises(InputError, match="expected a readable file"):
        load_run(out, 7, torch.device("cpu"))


def overfit(loss, steps):
    """Learn four images of 64 pixels by heart.

    Returns them, R's images before and after, and after with the inputs of another image; L_j
    before and after; all in inference mode.
    """
    size = 64
    images = torch.from_numpy(smooth(4, size))
    y = to_network(images)
    F = densify(keypoints(4, size, 30), range(4))
    torch.manual_seed(0)
    R = CoarseNet([4, 2], size=size, width=0.125, channels=128)
    R.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(R.parameters(), 1e-3, fused=True)
    cpu = torch.device("cpu")
    phi = load_phi("hed", "relu3_3", None, size=size, phi_size=32, device=cpu)
    perceptual = Perceptual(phi, images, autocast=torch.enable_grad, keep=True)
    index = torch.arange(4)

    def L_j():
        terms = joint_terms(o, y, perceptual(o), perceptual.of(index, y), lambda_p=1, lambda_s=1e-4)
        return total(terms)

    R.eval()
    with torch.no_grad():
        o = R(F)
        before, first = float(L_j()), o
    R.train()
    for _ in range(steps):
        o = R(F)
        objective = L_j() if loss == "joint" else (o - y).square().mean()
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
    R.eval()
    with torch.no_grad():
        o = R(F)
        return y, first, o, R({d: F_d.roll(1, 0) for d, F_d in F.items()}), before, float(L_j())


def psnr(a, b):
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def test_it_can_learn_four_images_by_heart_from_their_own_descriptors():
    torch.set_num_threads(1)
    y, _, o, of_others, _, _ = overfit("l2", 200)
    assert psnr(o, y) >= 24
    assert psnr(of_others, y) <= 13


def test_the_joint_loss_falls_and_a_network_that_no_loss_has_seen_agrees():
    torch.set_num_threads(1)
    y, first, o, _, before, after = overfit("joint", 120)
    judge = load_efficientnet_lite0()

    def distance(a):
        """PD of the first feature map only: the later ones judge noise in such smooth images."""
        pair = [normalize(judge.features((x + 1) / 2)[0], dim=1) for x in (a, y)]
        return float((pair[0] - pair[1]).square().sum(1).mean())

    assert after <= before / 5
    with torch.no_grad():
        assert distance(o) <= distance(first) / 4
