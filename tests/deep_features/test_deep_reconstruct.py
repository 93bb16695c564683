"""The training of G: who is updated when, by what weight, and that it can be cut and resumed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.common.training import set_up
from stages.deep_features import reconstruct as stage
from stages.deep_features.generator import Discriminator, Generator, load_generator
from stages.deep_features.perceptual import Perceptual
from stages.deep_features.reconstruct import (
    AdversarialWeight,
    reconstruct,
    update_D,
    update_G,
    updates_of,
)

N, H, W, D_IN = 20, 32, 16, 12
CPU = torch.device("cpu")
SETTINGS = {
    **{"seeds": [0], "threads": 1, "precision": "32-true", "cells": [["bot", "a"]]},
    **{"min_map": [8, 4], "c0": 8, "hidden": 16, "base_g": 4, "base_d": 4},
    **{"w_adv": "auto", "rho": 0.1, "auto_updates": 2, "d_fake_bn": "eval", "bn_momentum": 0.1},
    **{"phi": "random", "phi_layer": "relu1_2", "phi_weights": None, "phi_factor": 2},
    **{"phi_preprocessing": "caffe", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999},
    **{"batch_size": 4, "steps": 8, "log_every": 2},
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, H // 8, W // 8, 3), dtype=np.uint8)
    images = images.repeat(8, 1).repeat(8, 2)
    write_npz(tmp_path / "data" / "a_train.npz", images=images)
    write_json(tmp_path / "data" / "meta.json", {"locals": ["a"], "sets": {"a": {}}})
    for seed in (0, 1):
        features = images[:, ::8, ::8].reshape(N, -1)[:, :D_IN] / 128 - 1
        file = tmp_path / "extract" / "bot" / f"a_train-s{seed}.npz"
        write_npz(file, features=features.astype(np.float32))
    return tmp_path / "data", tmp_path / "extract"


@pytest.fixture
def nets():
    fabric = set_up(threads=1, precision="32-true")
    torch.manual_seed(0)
    shape = {"height": H, "width": W, "min_map": [8, 4], "c0": 8, "hidden": 16, "base_g": 4}
    G = Generator(dims=D_IN, **shape)
    D = Discriminator(dims=D_IN, n_blocks=2, base_d=4)
    G, opt_G = fabric.setup(G, torch.optim.Adam(G.parameters(), 1e-2))
    D, opt_D = fabric.setup(D, torch.optim.Adam(D.parameters(), 1e-2))
    x, f, place = torch.rand(6, 3, H, W), torch.randn(6, D_IN), torch.arange(6)
    phi = Perceptual(lambda i: 3 * i, lambda i: x[i], 6, autocast=fabric.autocast, device=CPU)
    return SimpleNamespace(**{k: v for k, v in locals().items() if k != "shape"})


def values(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def differ(before, net):
    return [
        name for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    ]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_step_of_D_leaves_G_and_its_averages_as_they_were(nets, mode):
    G, D = values(nets.G), values(nets.D)
    nets.G.train()
    log = update_D(nets.fabric, nets.D, nets.opt_D, nets.G, nets.x, nets.f, d_fake_bn=mode)
    assert not differ(G, nets.G) and nets.G.training
    assert set(differ(D, nets.D)) == set(D)
    assert all(p.grad is None for p in nets.G.parameters())  # fakes are detached
    assert log["loss_D"] > 0


def test_the_fakes_of_D_come_from_G_in_inference_mode(nets):
    nets.G.train()
    with torch.no_grad():
        nets.G.eval()
        fake = nets.D(nets.G(nets.f), nets.f).mean()
        nets.G.train()
    args = (nets.fabric, nets.D, nets.opt_D, nets.G, nets.x, nets.f)
    found = update_D(*args, d_fake_bn="eval")["d_fake"]
    torch.testing.assert_close(found, fake)


def test_a_step_of_G_leaves_D_as_it_was(nets):
    G, D = values(nets.G), values(nets.D)
    weight = AdversarialWeight(0.06, 0.1, 5)
    args = (nets.fabric, nets.G, nets.opt_G, nets.x, nets.f, nets.place)
    log = update_G(*args, perceptual=nets.phi, D=nets.D, weight=weight)
    assert not differ(D, nets.D) and all(p.requires_grad for p in nets.D.parameters())
    changed = set(differ(G, nets.G))
    trained = {name.removeprefix("_forward_module.") for name, _ in nets.G.named_parameters()}
    assert trained <= changed
    assert any("running_mean" in name for name in changed)
    assert set(log) == {"fr", "adv", "w_adv", "rho"} and log["w_adv"] == pytest.approx(0.06)


@pytest.mark.parametrize("loss", ["pixel", "fr", "fr_adv"])
def test_a_step_of_G_goes_down_the_weighted_sum_of_the_losses(nets, loss):
    G, D, x, f = nets.G, nets.D, nets.x, nets.f
    x_rec = G(f)
    whole = (x_rec - x).square().mean() * (1 if loss == "pixel" else 9)
    if loss == "fr_adv":
        whole = whole + 0.5 * (D(x_rec, f) - 1).square().mean()
    expected = torch.autograd.grad(whole, list(G.parameters()))
    update_G(
        *(nets.fabric, G, torch.optim.SGD(G.parameters(), 0.0), x, f, nets.place),
        perceptual=None if loss == "pixel" else nets.phi,
        D=D if loss == "fr_adv" else None,
        weight=AdversarialWeight(0.5, 1, 1) if loss == "fr_adv" else None,
    )
    for p, gradient in zip(G.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-6)


def test_auto_aims_at_the_ratio_and_then_is_fixed():
    weight = AdversarialWeight("auto", 0.1, 2)
    for adversarial, features, expected in (
        (2.0, 1.0, 0.05),
        (0.0, 1.0, 0.05),  # a zero says nothing
        (8.0, 1.0, 0.025),  # geometric mean of 2 and 8
        (100.0, 1.0, 0.025),
    ):
        weight.observe(torch.tensor(adversarial), torch.tensor(features))
        assert float(weight.value()) == pytest.approx(expected)
    fixed = AdversarialWeight(0.06, 0.1, 2)
    fixed.observe(torch.tensor(5.0), torch.tensor(1.0))
    assert float(fixed.value()) == pytest.approx(0.06)


def test_updates_are_the_authors():
    assert updates_of("fr_adv", 200) == (100, 100, 100)
    assert updates_of("fr", 60_000) == updates_of("pixel", 60_000) == (60_000, 0, 30_000)


@pytest.mark.parametrize("loss", ["pixel", "fr", "fr_adv"])
def test_every_update_is_made_and_every_file_written(loss, made, tmp_path, monkeypatch):
    calls = []
    for name in ("update_D", "update_G"):
        whole = getattr(stage, name)

        def counted(*args, name=name, whole=whole, **kwargs):
            calls.append(name[-1])
            return whole(*args, **kwargs)

        monkeypatch.setattr(stage, name, counted)
    out = tmp_path / "reconstruct" / loss
    reconstruct(*made, out, **SETTINGS, loss=loss)
    assert "".join(calls) == ("DG" * 4 if loss == "fr_adv" else "G" * 8)
    meta, history = (read_json(out / "bot-a" / f"{n}.json") for n in ("meta", "history-s0"))
    assert (meta["updates_g"], meta["updates_d"]) == (calls.count("G"), calls.count("D"))
    assert meta["phi"] == (None if loss == "pixel" else "random")
    assert len(history["log"]) == 4 and history["trained_on"] == N
    if loss == "fr_adv":
        assert meta["w_adv"]["0"] > 0
        first = history["log"][0]  # its first update aims at rho exactly
        assert first["rho"] == pytest.approx(0.1, rel=1e-3)
        assert set(first) == {"step", "loss_D", "d_real", "d_fake", "fr", "adv", "w_adv", "rho"}
    else:
        assert meta["w_adv"] == {"0": None}
    f = read_npz(made[1] / "bot" / "a_train-s0.npz")["features"]
    images = load_generator(out / "bot-a", 0, CPU)(f)
    assert images.shape == (N, 3, H, W)
    assert (out / "bot-a" / "generator-equal-s0.safetensors").exists() == (loss != "fr_adv")
    assert not list((tmp_path / "ckpt").iterdir()), "a finished run leaves no checkpoint"


def test_the_snapshot_is_a_run_of_half_the_steps(made, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    reconstruct(*made, whole, **SETTINGS, loss="pixel")
    reconstruct(*made, half, **{**SETTINGS, "steps": 4}, loss="pixel")
    a = (whole / "bot-a" / "generator-equal-s0.safetensors").read_bytes()
    assert a == (half / "bot-a" / "generator-s0.safetensors").read_bytes()
    assert a != (whole / "bot-a" / "generator-s0.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bytes_and_seeds_differ(made, tmp_path):
    both, one = tmp_path / "both", tmp_path / "one"
    reconstruct(*made, both, **{**SETTINGS, "seeds": [0, 1]}, loss="fr_adv")
    reconstruct(*made, one, **{**SETTINGS, "seeds": [1]}, loss="fr_adv")
    for name in ("generator-s1.safetensors", "history-s1.json"):
        assert (both / "bot-a" / name).read_bytes() == (one / "bot-a" / name).read_bytes()
    a, b = ((both / "bot-a" / f"generator-s{s}.safetensors").read_bytes() for s in (0, 1))
    assert a != b


@pytest.mark.parametrize("loss", ["fr", "fr_adv"])
def test_a_cut_training_resumes_bit_for_bit(loss, made, tmp_path, monkeypatch, capsys):
    def cut_at(kill_at):
        whole = stage.fit if kill_at is None else None

        def fit(step, **kwargs):
            def counted(i):
                if i == kill_at:
                    raise KeyboardInterrupt
                return step(i)

            return original(counted, **{**kwargs, "save_seconds": 0.0})

        return whole or fit

    original = stage.fit
    reconstruct(*made, tmp_path / "p" / loss, **SETTINGS, loss=loss)
    whole = {f.name: f.read_bytes() for f in (tmp_path / "p" / loss / "bot-a").iterdir()}
    monkeypatch.setattr(stage, "fit", cut_at(6))
    with pytest.raises(KeyboardInterrupt):
        reconstruct(*made, tmp_path / "p" / loss, **SETTINGS, loss=loss)
    monkeypatch.setattr(stage, "fit", original)
    reconstruct(*made, tmp_path / "p" / loss, **SETTINGS, loss=loss)
    assert "resuming at step 6 of 8" in capsys.readouterr().out
    for name, content in whole.items():
        assert (tmp_path / "p" / loss / "bot-a" / name).read_bytes() == content, name


def test_G_can_learn_its_images_by_heart(made, tmp_path):
    long = {**SETTINGS, "steps": 150, "lr": 1e-2, "batch_size": 20}
    reconstruct(*made, tmp_path / "pixel", **long, loss="pixel")
    log = read_json(tmp_path / "pixel" / "bot-a" / "history-s0.json")["log"]
    assert log[-1]["pixel"] < log[0]["pixel"] / 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cells": [["bott", "a"]]}, "unknown model 'bott'.*did you mean 'bot'"),
        ({"cells": [["bot", "b"]]}, "unknown local set 'b'"),
        ({"cells": [["bot"]]}, "cells: has a wrong item"),
        ({"min_map": [8, 8]}, "min_map: does not suit the images"),
        ({"batch_size": 21}, "has too few images.*found 20"),
        ({"phi_factor": 3}, "phi_factor: does not suit"),
        ({"phi_layer": "layer1"}, "phi: is not completely said"),
        ({"steps": 1}, "steps: are too few"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(changes, words, made, tmp_path):
    with pytest.raises(InputError, match=words):
        reconstruct(*made, tmp_path / "out", **{**SETTINGS, **changes}, loss="fr")


def test_bfloat16_trains_and_stays_near_float32(made, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        settings = {**SETTINGS, "precision": precision, "w_adv": 0.06}
        reconstruct(*made, tmp_path / precision, **settings, loss="fr_adv")
    a, b = (
        read_json(tmp_path / p / "bot-a" / "history-s0.json")["log"][-1]
        for p in ("32-true", "bf16-mixed")
    )
    assert a["fr"] == pytest.approx(b["fr"], rel=0.1) and a["fr"] != b["fr"]
