"""The trained attacks: what they reach where the answer is known, and the stage on tiny images."""

import json
from itertools import count

import numpy as np
import pytest
import torch
from killing import Killable
from safetensors.torch import save_file

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import write_json, write_npz
from stages.common.metrics import ssim
from stages.common.params import stage_params
from stages.common.training import set_up
from stages.data.images import load_images
from stages.gan_transform import attack as stage
from stages.gan_transform.attack import attack, read_pairs
from stages.gan_transform.ciphers import aes_ctr, pixel_based
from stages.gan_transform.floors import floor_images
from stages.gan_transform.networks import translator
from stages.gan_transform.reconstruction import (
    Run,
    decayed,
    flip_pairs,
    pair_loss,
    train_ga,
    train_itn,
    train_uwa,
)

GA = {"width_divisor": 4, "ndf": 16, "lr": 4e-4, "beta1": 0.5, "beta2": 0.999, "batch_size": 8}
GA |= {"validations": 1, "unet_widths": [8, 16]}
SGD = {"momentum": 0.9, "weight_decay": 5e-4}
UWA = SGD | {"network": "lin", "reduce": "sum", "lr": 0.1, "batch_size": 32, "epochs": 8}
UWA |= {"milestones": [0.6, 0.9]}
ITN = SGD | {"lr": 0.5, "batch_size": 8, "epochs": 2, "milestones": [0.5, 0.8], "hflip": True}
TINY = {"seeds": [0], "generators": ["blockwise", "shared", "local", "unet"], "log_every": 2}
TINY |= {"ga_iterations": 4, "ga_batch_size": 4, "validations": 2, "n_secondary": 3}
TINY |= {"uwa_epochs": 1, "uwa_batch_size": 4, "itn_epochs": 1, "itn_batch_size": 4}
TRAINED = ["ga_blockwise", "ga_local", "ga_shared", "ga_unet"]
TRAINED += ["itn", "uwa_block", "uwa_literal", "uwa_strong"]


def settings(**changes):
    return stage_params(attack, "gan_transform.attack", profile="smoke") | TINY | changes


# ---------------------------------------------------------------- what the instruments can do


@pytest.fixture(scope="module")
def emoji():
    """1,000 images to attack with and 200 to be attacked."""
    images = load_images("emoji10", "train", 32).images
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:1000]], images[order[1000:1200]]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    fabric, number = set_up(threads=1, precision="32-true"), count()

    def make(seed=0):
        return Run(fabric, Checkpoint(f"run{next(number)}", {}), "test", seed, 0, 50)

    return make


def reached(reconstruct, cipher, plain):
    return ssim(reconstruct(cipher), plain, data_range=255).mean()


def test_itn_recovers_images_that_are_not_encrypted(emoji, run):
    x, x_test = emoji
    reconstruct, _ = train_itn(x, x, run=run(), unet_widths=[16], **ITN | {"epochs": 3})
    assert reached(reconstruct, x_test, x_test) >= 0.95


def test_ga_recovers_images_that_are_not_encrypted(emoji, run):
    """Statistical: an adversarial loss alone leaves colours free, so two more seeds may try."""
    x, x_test = emoji
    validation, found = (x_test[:8], x_test[:8]), []
    for seed in (1, 0, 2):
        reconstruct, _ = train_ga(
            x[:500],
            x[500:],
            validation=validation,
            run=run(seed),
            generator="shared",
            iterations=300,
            **GA,
        )
        found.append(reached(reconstruct, x_test, x_test))
        if found[-1] >= 0.7:
            return
    pytest.fail(f"SSIM {found}")


def masks(keys, n, first=0):
    if keys == "same":
        return pixel_based.make_key(0, 1, 32, 32)[0]
    return pixel_based.make_key(1 + first, n, 32, 32)[0]


@pytest.mark.parametrize(("keys", "low", "high"), [("same", 0.95, 1), ("diff", -1, 0.25)])
def test_unshared_weights_undo_one_key_for_all_images_but_not_a_key_an_image(
    keys, low, high, emoji, run
):
    x, x_test = emoji
    z = pixel_based.encrypt(x, masks(keys, len(x)))
    z_test = pixel_based.encrypt(x_test, masks(keys, len(x_test), first=1))
    reconstruct, _ = train_uwa(z, x, run=run(), **UWA)
    assert low <= reached(reconstruct, z_test, x_test) <= high


def test_the_mean_over_pixels_makes_the_same_attack_fail(emoji, run):
    x, x_test = emoji
    bits = masks("same", 1)
    reconstruct, _ = train_uwa(
        pixel_based.encrypt(x, bits), x, run=run(), **UWA | {"reduce": "mean"}
    )
    assert reached(reconstruct, pixel_based.encrypt(x_test, bits), x_test) < 0.3


def test_no_attack_gets_anything_out_of_noise(emoji, run):
    """AES's output; what is learned is the images' mean, at most a blank image's SSIM."""
    x, x_test = emoji
    key = aes_ctr.make_key(0)
    z, z_test = aes_ctr.encrypt(x, key, first=0), aes_ctr.encrypt(x_test, key, first=10**6)
    blank = floor_images(x_test, 0)["blank"]
    most = ssim(blank, x_test, data_range=255).mean() + 0.02
    found = {}
    for generator in ("blockwise", "shared", "local", "unet"):
        reconstruct, _ = train_ga(
            z[:500],
            x[500:],
            validation=(z_test[:8], x_test[:8]),
            run=run(),
            generator=generator,
            iterations=30,
            **GA,
        )
        found[generator] = reached(reconstruct, z_test, x_test)
    for network, reduce in (("lin", "mean"), ("lin", "sum"), ("block", "sum")):
        how = UWA | {"network": network, "reduce": reduce, "epochs": 4}
        reconstruct, _ = train_uwa(z, x, run=run(), **how)
        found[network, reduce] = reached(reconstruct, z_test, x_test)
    reconstruct, _ = train_itn(z, x, run=run(), unet_widths=[8, 16], **ITN | {"epochs": 1})
    found["itn"] = reached(reconstruct, z_test, x_test)
    assert max(found.values()) <= most, found


# ---------------------------------------------------------------- the pieces


def test_the_two_reductions_differ_by_the_number_of_values():
    output, plain = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 3, 4, 4)
    assert pair_loss(output, plain, "mean").item() == pytest.approx(0.25)
    assert pair_loss(output, plain, "sum").item() == pytest.approx(0.25 * 48)


def test_the_rate_falls_at_the_papers_epochs():
    def rate(epoch):
        milestones = [0.571, 0.857]
        return decayed(10 * epoch, steps=700, lr=0.1, milestones=milestones, factor=0.1)

    assert [rate(e) for e in (0, 39, 40, 59, 60, 69)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_a_pair_is_mirrored_together_or_not_at_all():
    a = torch.randint(0, 256, (32, 4, 4, 3), dtype=torch.uint8)
    flipped, also = flip_pairs(a, 255 - a, 3, seed=0)
    assert torch.equal(also, 255 - flipped)
    which = [torch.equal(f, o.flip(1)) for f, o in zip(flipped, a, strict=True)]
    rest = [torch.equal(f, o) for f, o in zip(flipped, a, strict=True)]
    assert all(w != r for w, r in zip(which, rest, strict=True)) and 0 < sum(which) < 32
    assert torch.equal(flipped, flip_pairs(a, a, 3, seed=0)[0])
    assert not torch.equal(flipped, flip_pairs(a, a, 4, seed=0)[0])


def test_a_reconstruction_does_not_depend_on_the_images_beside_it(emoji, run):
    x, x_test = emoji
    reconstruct, _ = train_ga(
        x[:20],
        x[20:40],
        validation=(x_test[:2], x_test[:2]),
        run=run(),
        generator="shared",
        iterations=3,
        **GA,
    )
    together, alone = reconstruct(x_test[:5]), reconstruct(x_test[3:4])
    assert together.dtype == np.uint8 and together.shape == (5, 32, 32, 3)
    assert np.abs(together[3].astype(int) - alone[0]).max() <= 1


# ---------------------------------------------------------------- the stage


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Prepared images and two schemes: a negative, and a transformation with its inverse."""
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    rng = np.random.default_rng(0)
    data, encrypted = tmp_path / "prepare", tmp_path / "encrypt"
    for split, n in (("attack_train", 16), ("attack_test", 6)):
        coarse = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        images = coarse.repeat(8, axis=1).repeat(8, axis=2)
        write_npz(data / f"{split}.npz", images=images)
        for seed in (0, 1):
            for scheme in ("negative", "proposed"):
                write_npz(encrypted / scheme / f"{split}-s{seed}.npz", images=255 - images)
    write_json(data / "meta.json", {"panel": [4, 1]})
    write_json(encrypted / "negative" / "meta.json", {"cipher": "pe"})
    write_json(encrypted / "proposed" / "meta.json", {"cipher": "transform", "widths": [4, 8]})
    torch.manual_seed(0)
    for name in ("generator", "inverse"):
        weights = translator([4, 8]).state_dict()
        save_file(weights, encrypted / "proposed" / f"{name}-s0.safetensors")
    return data, encrypted


def test_it_measures_every_attack_on_every_test_image(folders, tmp_path):
    data, encrypted = folders
    out = tmp_path / "gan_transform" / "attack" / "proposed"
    facts = attack(data, encrypted / "proposed", out, **settings())
    found = np.load(out / "evaluation.npz")
    attacks = [*TRAINED, "g_ba", "g_ba_float"]
    expected = {"seeds": (1,)} | {f"oracle_{name}": (1,) for name in TRAINED[:4]}
    expected |= {f"ssim_{name}": (1, 6) for name in attacks}
    expected |= {f"gauss_{name}": (1, 3) for name in attacks}
    assert {name: found[name].shape for name in found} == expected
    assert all(np.isfinite(found[name]).all() for name in found)
    assert found["ssim_itn"].dtype == np.float64
    shown = np.load(out / "reconstructions.npz")
    assert {n: (shown[n].shape, shown[n].dtype.name) for n in shown} == {
        name: ((2, 32, 32, 3), "uint8") for name in attacks
    }
    plain = np.load(data / "attack_test.npz")["images"][[4, 1]]
    for name in attacks:  # the panel's images are those that were measured
        again = ssim(shown[name], plain, data_range=255)
        assert np.allclose(again, found[f"ssim_{name}"][0, [4, 1]])
    history = json.loads((out / "history-s0.json").read_text())
    assert sorted(history) == TRAINED
    assert [entry["step"] for entry in history["ga_unet"]["log"]] == [2, 4]
    assert {"loss_D", "loss_G", "d_acc"} < set(history["ga_unet"]["log"][0])
    looks = [look["ssim"] for look in history["ga_unet"]["epochs"]]
    assert found["oracle_ga_unet"][0] == pytest.approx(max(looks), rel=1e-4)
    assert looks[-1] == pytest.approx(found["ssim_ga_unet"].mean(), rel=1e-4)
    assert set(facts["seconds_of_each_attack"]) == set(TRAINED)
    assert not list((tmp_path / "ckpt").iterdir()), "a finished run leaves no checkpoint"


def test_the_insiders_inverse_is_only_there_for_a_transformation(folders, tmp_path):
    data, encrypted = folders
    out = tmp_path / "a" / "b" / "c"
    attack(data, encrypted / "negative", out, **settings(generators=["shared"]))
    assert not [name for name in np.load(out / "evaluation.npz") if "g_ba" in name]


def test_the_gan_attack_sees_ciphers_of_one_half_and_images_of_the_other(
    folders, tmp_path, monkeypatch
):
    data, encrypted = folders
    seen = []

    def spy(cipher, plain, **keys):
        seen.append((cipher, plain))
        return train_ga(cipher, plain, **keys)

    monkeypatch.setattr(stage, "train_ga", spy)
    attack(
        data,
        encrypted / "negative",
        tmp_path / "a" / "b" / "c",
        **settings(generators=["shared"], seeds=[1]),
    )
    images = np.load(data / "attack_train.npz")["images"]
    ((cipher, plain),) = seen
    assert np.array_equal(cipher, 255 - images[:8]) and np.array_equal(plain, images[8:])


def test_seeds_side_by_side_equal_seeds_alone_to_the_byte(folders, tmp_path):
    data, encrypted = folders
    both, one = (tmp_path / "p" / name / "negative" for name in ("both", "one"))
    keys = {"generators": ["shared", "local"]}
    attack(data, encrypted / "negative", both, **settings(seeds=[0, 1], **keys))
    attack(data, encrypted / "negative", one, **settings(seeds=[1], **keys))
    histories = [(out / "history-s1.json").read_bytes() for out in (both, one)]
    assert histories[0] == histories[1] != (both / "history-s0.json").read_bytes()
    a, b = (np.load(out / "evaluation.npz") for out in (both, one))
    assert all(np.array_equal(a[name][1], b[name][0]) for name in a)


def test_a_killed_stage_resumes_bit_for_bit_and_repeats_no_finished_attack(folders, tmp_path):
    """Spectral norm's vectors, batch norm's statistics and both Adams come back as they were."""
    data, encrypted = folders
    keys = settings(generators=["blockwise", "shared"], ga_iterations=6)
    inputs, steps_in = [data, encrypted / "negative"], "gan_transform.reconstruction"
    attacks = Killable(tmp_path, "gan_transform.attack", inputs, "negative", keys, steps_in)
    said, _ = attacks.cut_and_whole(at=5, label="ga_shared")
    assert "ga_blockwise seed 0: resuming at step 6 of 6" in said
    assert "ga_shared seed 0: resuming at step 4 of 6" in said


def test_bfloat16_trains_and_leaves_unshared_weights_in_32_bits(folders, tmp_path):
    data, encrypted = folders
    outs = [tmp_path / "p" / precision / "negative" for precision in ("32-true", "bf16-mixed")]
    for out in outs:
        attack(data, encrypted / "negative", out, **settings(precision=out.parent.name))
    a, b = (np.load(out / "reconstructions.npz") for out in outs)
    for name in a:
        apart = np.abs(a[name].astype(float) - b[name]).mean()
        assert apart == 0 if name.startswith("uwa") else apart < 12, name


def test_ciphers_of_other_images_are_refused(folders):
    data, encrypted = folders
    path = encrypted / "negative" / "attack_test-s0.npz"
    write_npz(path, images=np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="does not belong to the plain images"):
        read_pairs(data, encrypted / "negative", 0)


@pytest.mark.parametrize("key", ["ga_batch_size", "uwa_batch_size", "itn_batch_size"])
def test_a_batch_larger_than_the_set_is_refused(key, folders, tmp_path):
    data, encrypted = folders
    keys = settings(generators=["shared"]) | {key: 17}
    with pytest.raises(InputError, match="fewer images than a batch"):
        attack(data, encrypted / "negative", tmp_path / "a" / "b" / "c", **keys)


def test_images_too_small_for_the_discriminator_are_refused(run):
    x = np.zeros((8, 20, 20, 3), np.uint8)
    with pytest.raises(InputError, match="too small for D"):
        train_ga(x, x, validation=(x, x), run=run(), generator="shared", iterations=1, **GA)


def test_a_diverging_attack_stops_and_writes_nothing(folders, tmp_path):
    data, encrypted = folders
    out = tmp_path / "a" / "b" / "c"
    with pytest.raises(FloatingPointError, match="uwa_literal seed 0: the losses diverged"):
        attack(
            data,
            encrypted / "negative",
            out,
            **settings(generators=["shared"], uwa_lr=1e25, uwa_epochs=5),
        )
    assert not out.exists()


@pytest.mark.parametrize("profile", ["smoke", "embedded", "gpu", "paper"])
def test_every_profile_has_the_parameters(profile):
    found = stage_params(attack, "gan_transform.attack", profile=profile)
    assert set(found["generators"]) >= {"blockwise", "shared", "unet"}  # Table I's
