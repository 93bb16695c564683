"""The training stage on images that the test makes: shapes, updates, determinism, resumption."""

import inspect
import json

import numpy as np
import pytest
import torch
from killing import Killable
from safetensors.torch import load_file

from stages.colourisation.colour import AB_SCALE, encode
from stages.colourisation.losses import loss_G, loss_G_adversarial
from stages.colourisation.networks import build
from stages.colourisation.train import ARCHITECTURE, augment, gradient_share, train
from stages.common.errors import InputError
from stages.common.files import write_json, write_npz
from stages.common.params import load_params

PARAMS = load_params()["colourisation"]
TINY = {
    "widths_g": [8, 8, 16],
    "widths_d": [8, 8],
    "bn_momentum": 0.1,
    "batch_size": 4,
    "epochs": 2,
    "log_every": 2,
    "n_eval": 4,
    "seeds": [0],
}


def settings(variant="bn", **changes):
    known = inspect.signature(train).parameters
    shared = {k: v for k, v in PARAMS["shared"].items() if k in known}
    return shared | PARAMS["train"] | TINY | PARAMS["variants"][variant] | changes


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 4), ("test", 6)):
        coarse = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        images = coarse.repeat(8, axis=1).repeat(8, axis=2)
        write_npz(tmp_path / "data" / f"{split}.npz", images=images)
    return tmp_path / "data"


def test_it_writes_weights_predictions_and_history(data, tmp_path):
    out = tmp_path / "paper" / "train" / "bn_sn_md"
    facts = train(data, out, **settings("bn_sn_md"))
    predictions = np.load(out / "predictions-s0.npz")
    assert {k: predictions[k].shape for k in predictions} == {
        "train": (4, 2, 32, 32),
        "val": (4, 2, 32, 32),
        "test": (6, 2, 32, 32),
    }
    assert predictions["test"].dtype == np.float16
    history = json.loads((out / "history-s0.json").read_text())
    assert history["steps"] == 6 and history["steps_per_epoch"] == 3
    assert [entry["step"] for entry in history["log"]] == [2, 4, 6]
    assert [entry["epoch"] for entry in history["epochs"]] == [1, 2]
    expected = {"d_loss", "d_acc", "g_adv", "g_adv_0", "g_adv_1", "g_adv_2", "adv_share", "l1"}
    assert expected <= set(history["log"][0])
    assert facts["images_per_s_of_each_seed"][0] > 0
    assert not list((tmp_path / "ckpt").iterdir()), "a finished run leaves no checkpoint"


def test_the_saved_generator_gives_the_saved_predictions(data, tmp_path):
    out = tmp_path / "paper" / "train" / "bn_sn"
    keys = settings("bn_sn")
    train(data, out, **keys)
    G, _ = build(size=32, **{k: keys[k] for k in ARCHITECTURE})
    G.load_state_dict(load_file(out / "generator-s0.safetensors"))
    G.eval()
    x, _ = encode(torch.from_numpy(np.load(data / "test.npz")["images"]))
    with torch.no_grad():
        ab = (G(x) * AB_SCALE).numpy()
    assert np.abs(ab - np.load(out / "predictions-s0.npz")["test"]).max() < 0.05


@pytest.mark.parametrize("variant", PARAMS["variants"])
def test_every_variant_trains_and_moves_all_its_networks(variant, data, tmp_path, monkeypatch):
    made = []

    def spy(**kwargs):
        nets = build(**kwargs)
        made.extend((net, [p.clone() for p in net.parameters()]) for net in nets)
        return nets

    monkeypatch.setattr("stages.colourisation.train.build", spy)
    out = tmp_path / "paper" / "train" / variant
    train(data, out, **settings(variant))
    for net, before in made:
        for parameter, old in zip(net.parameters(), before, strict=True):
            assert torch.isfinite(parameter).all()
            assert not torch.equal(parameter.detach().cpu(), old)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(data, tmp_path):
    runs = [tmp_path / str(i) / "train" / "bn" for i in range(3)]
    for out, seed in zip(runs, (0, 0, 1), strict=True):
        train(data, out, **settings("bn", seeds=[seed]))
    first, again, other = ((run, seed) for run, seed in zip(runs, (0, 0, 1), strict=True))
    for name in ("generator-s{}.safetensors", "history-s{}.json", "predictions-s{}.npz"):
        a, b, c = ((run / name.format(s)).read_bytes() for run, s in (first, again, other))
        assert a == b
        assert a != c


def test_seeds_side_by_side_equal_seeds_alone(data, tmp_path):
    train(data, tmp_path / "p" / "both" / "bn", **settings("bn", seeds=[0, 1]))
    train(data, tmp_path / "p" / "one" / "bn", **settings("bn", seeds=[1]))
    both, one = (tmp_path / "p" / k / "bn" / "history-s1.json" for k in ("both", "one"))
    assert both.read_bytes() == one.read_bytes()


def test_a_killed_training_resumes_bit_for_bit(data, tmp_path):
    """Spectral norm's u and v, BatchNorm's statistics and both Adams come back as they were."""
    name = "bn_sn_md"
    training = Killable(tmp_path, "colourisation.train", [data], name, settings(name))
    said, _ = training.cut_and_whole(at=5)
    assert "resuming at step 4 of 6" in said


def test_a_batch_larger_than_the_set_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="fewer images than a batch"):
        train(data, tmp_path / "a" / "b" / "c", **settings(batch_size=13))


def test_a_diverging_run_stops_and_writes_nothing(data, tmp_path):
    out = tmp_path / "a" / "b" / "c"
    with pytest.raises(FloatingPointError, match="diverged"):
        train(data, out, **settings(lr=1e30))
    assert not out.exists()


@pytest.mark.parametrize("variant", ["bn", "ibn_sn_md", "l1_only"])
def test_bfloat16_trains_and_stays_near_float32(variant, data, tmp_path):
    outs = [tmp_path / "p" / precision / variant for precision in ("32-true", "bf16-mixed")]
    for out in outs:
        train(data, out, **settings(variant, precision=out.parent.name))
    a, b = (np.load(out / "predictions-s0.npz")["test"].astype(float) for out in outs)
    assert np.abs(a - b).mean() < 0.1 * np.abs(a).mean()


def test_a_zero_lambda_is_no_divergence(data, tmp_path):
    train(data, tmp_path / "p" / "t" / "bn", **settings(lambda_l1=0, epochs=1))
    history = json.loads((tmp_path / "p" / "t" / "bn" / "history-s0.json").read_text())
    assert "adv_share" not in history["log"][0] and "g_adv" in history["log"][0]


@pytest.mark.parametrize("changes", [{"d_update": "joint_half"}, {"fake_mode": "eval"}])
@pytest.mark.parametrize("adversarial", ["lsgan", "bce"])
def test_the_switches_of_the_update_order_run_and_differ(changes, adversarial, data, tmp_path):
    outs = [tmp_path / "p" / str(i) / "bn" for i in range(2)]
    train(data, outs[0], **settings(adversarial=adversarial, epochs=1))
    train(data, outs[1], **settings(adversarial=adversarial, epochs=1, **changes))
    a, b = (np.load(out / "predictions-s0.npz")["test"] for out in outs)
    assert np.isfinite(a).all() and np.isfinite(b).all()
    assert not np.array_equal(a, b)


def test_augmentation_flips_and_shifts_within_reflected_borders():
    images = torch.arange(8, dtype=torch.uint8)[None, None, :, None].expand(64, 8, 8, 3)
    assert augment(images, 0, seed=0, hflip=False, random_crop=0) is images
    flipped = augment(images, 0, seed=0, hflip=True, random_crop=0)
    which = (flipped[:, 0, 0, 0] == 7).float().mean()
    assert 0.2 < which < 0.8
    shifted = augment(images, 0, seed=0, hflip=False, random_crop=2)
    assert set(shifted[:, 0, 0, 0].tolist()) == {0, 1, 2}
    assert torch.equal(shifted, augment(images, 0, seed=0, hflip=False, random_crop=2))
    assert not torch.equal(shifted, augment(images, 1, seed=0, hflip=False, random_crop=2))


def test_loss_of_the_generator_by_hand():
    fake, y = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 0.1)
    terms = loss_G_adversarial([torch.zeros(1, 1, 2, 2), torch.full((1, 1, 1, 1), 3.0)], "lsgan")
    assert [t.item() for t in terms] == [1, 4]
    assert loss_G(terms, fake, y, 100, "sum").item() == pytest.approx(15)
    assert loss_G(terms, fake, y, 100, "mean").item() == pytest.approx(12.5)
    assert loss_G([], fake, y, 100, "sum").item() == pytest.approx(10)


def test_gradient_share_by_hand():
    fake = torch.full((1, 2, 2, 2), 0.5, requires_grad=True)
    share = gradient_share(
        [fake.sum() * 3], fake, torch.zeros(1, 2, 2, 2), 8, torch.autograd.backward
    )
    assert share.item() == pytest.approx(3)  # each entry: 3 against 8 / 8
    assert fake.grad is None


def test_the_discriminator_is_untouched_by_the_generators_step(data, tmp_path, monkeypatch):
    """D's gradients after G's backward are those of D's own step: none were added."""
    frozen = []

    def spy(*args):
        frozen.append([p.requires_grad for p in nets[1].parameters()])
        return loss_G_adversarial(*args)

    nets = []

    def remember(**kwargs):
        nets[:] = build(**kwargs)
        return tuple(nets)

    monkeypatch.setattr("stages.colourisation.train.build", remember)
    monkeypatch.setattr("stages.colourisation.train.loss_G_adversarial", spy)
    train(data, tmp_path / "a" / "b" / "c", **settings(epochs=1))
    assert frozen and not any(any(flags) for flags in frozen)


@pytest.mark.parametrize("norm", ["bn", "in", "ln", "ibn"])
def test_it_can_learn_eight_images_by_heart(norm, tmp_path, monkeypatch):
    """Eight smooth images, L1 only: in inference mode too the error falls to a third of grey's."""
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    rng = np.random.default_rng(0)
    corners = rng.integers(40, 216, (8, 2, 2, 3)).astype(float)
    t = np.linspace(0, 1, 32)[:, None]
    rows = (
        corners[:, 0][:, None] * (1 - t)[None, :, :, None] + corners[:, 1][:, None] * t[:, :, None]
    )
    left, right = rows[:, :, 0], rows[:, :, 1]
    images = left[:, :, None] * (1 - t) + right[:, :, None] * t
    images = images.astype(np.uint8)
    for split, copies in (("train", 10), ("val", 1), ("test", 1)):
        write_npz(tmp_path / "data" / f"{split}.npz", images=np.tile(images, (copies, 1, 1, 1)))
    out = tmp_path / "p" / "train" / norm
    keys = {"widths_g": [16, 32, 64, 64], "batch_size": 8, "epochs": 40, "lr": 1e-3}
    train(
        tmp_path / "data",
        out,
        **settings("l1_only", **keys, norm=norm, log_every=50, n_eval=8),
    )
    _, y = encode(torch.from_numpy(images))
    grey = float((y * AB_SCALE).abs().mean())
    history = json.loads((out / "history-s0.json").read_text())
    inference, training = history["epochs"][-1]["l1_train"], history["log"][-1]["l1"]
    assert inference <= 0.35 * grey
    assert training <= 0.35 * grey


def test_history_holds_only_finite_numbers(data, tmp_path):
    with pytest.raises(ValueError, match=r"x.json.log\[0\].l1 is nan"):
        write_json(tmp_path / "x.json", {"log": [{"l1": float("nan")}]})
