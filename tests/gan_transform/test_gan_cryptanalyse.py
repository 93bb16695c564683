import shutil
import subprocess
import sys

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.common.files import read_npz, write_json, write_npz
from stages.data.images import load_images
from stages.data.pool import processes
from stages.gan_transform import cryptanalyse as module
from stages.gan_transform.ciphers import aes_ctr, pixel_based, tanaka
from stages.gan_transform.cryptanalyse import cryptanalyse

ATTACKS = ("fr", "fr_advanced", "pc1", "qap", "kpa_le", "kpa_pe")
SEEDS = [0, 3]
PANEL = [4, 0]
N_TRAIN, N_TEST = 80, 10
OPTIONS = {
    "seeds": SEEDS,
    "n_cipher": 40,
    "n_public": 40,
    "n_pairs": 8,
    "n_secondary": 3,
    "faq_iterations": 30,
    "faq_weight": 1,
    "threads": 1,
}


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Starting a pool takes longer than what it would do here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "processes", lambda: 1)
        yield


def encrypted_by(scheme, images, split, seed):
    """Return the ciphers and the key file's arrays."""
    n, h, w, _ = images.shape
    if scheme == "plain":
        return images, {}
    if scheme == "tanaka":
        key = tanaka.make_key(seed)
        return tanaka.encrypt(images, key), {"key": key}
    if scheme == "noise":
        key = aes_ctr.make_key(seed)
        return aes_ctr.encrypt(images, key, first=1000 * (split == "attack_test")), {"key": key}
    own = 2 * seed + (split == "attack_test") if "diff" in scheme else seed
    bits, perm = pixel_based.make_key(own, n if "diff" in scheme else 1, h, w)
    keys = {f"bits_{split}": bits}
    if "shuffle" in scheme:
        return pixel_based.encrypt(images, bits, perm), keys | {f"perm_{split}": perm}
    return pixel_based.encrypt(images, bits), keys


def make_folders(root, schemes):
    order = np.random.default_rng(0).permutation(2000)
    images = load_images("emoji10", "train", 32).images
    plain = {
        "attack_train": images[order[:N_TRAIN]],
        "attack_test": images[order[N_TRAIN : N_TRAIN + N_TEST]],
    }
    for split, arrays in plain.items():
        zeros = np.zeros(len(arrays), np.int64)
        write_npz(root / "prepare" / f"{split}.npz", images=arrays, labels=zeros, groups=zeros)
    write_json(root / "prepare" / "meta.json", {"panel": PANEL})
    for scheme in schemes:
        folder = root / "encrypt" / scheme
        write_json(folder / "meta.json", {"scheme": scheme})
        for seed in SEEDS:
            keys = {}
            for split, arrays in plain.items():
                cipher, key = encrypted_by(scheme, arrays, split, seed)
                write_npz(folder / f"{split}-s{seed}.npz", images=cipher)
                keys |= key
            if keys:
                write_npz(folder / f"key-s{seed}.npz", **keys)
    write_npz(root / "encrypt" / "floors.npz", blank_attack=np.zeros((1, N_TEST)))
    return root / "prepare", root / "encrypt"


SCHEMES = ("plain", "tanaka", "pe_same", "pe_diff", "pe_same_shuffle", "noise")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("cryptanalyse")
    folders = make_folders(root, SCHEMES)
    cryptanalyse(*folders, root / "out", **OPTIONS)
    return root


def evaluation(root, scheme, out="out"):
    return read_npz(root / out / scheme / "evaluation.npz")


def test_it_writes_what_was_measured_of_every_scheme(done):
    assert sorted(p.name for p in (done / "out").iterdir()) == sorted(SCHEMES)
    for scheme in SCHEMES:
        arrays = evaluation(done, scheme)
        assert arrays["seeds"].tolist() == SEEDS
        for attack in ATTACKS:
            assert arrays[f"ssim_{attack}"].shape == (2, N_TEST)
            assert arrays[f"ssim_{attack}"].dtype == np.float64
            assert arrays[f"gauss_{attack}"].shape == (2, 3)
            assert np.abs(arrays[f"ssim_{attack}"]).max() <= 1
        shown = read_npz(done / "out" / scheme / "reconstructions.npz")
        assert set(shown) == set(ATTACKS)
        assert {(a.shape, a.dtype.name) for a in shown.values()} == {((2, 32, 32, 3), "uint8")}


def test_rates_are_written_where_there_is_such_a_key(done):
    rates = {s: {k for k in evaluation(done, s) if k.startswith("rate")} for s in SCHEMES}
    mask = {"rate_pc1", "rate_kpa_pe"}
    assert rates == {
        "plain": set(),
        "noise": set(),
        "tanaka": {"rate_qap", "rate_qap_upper", "rate_kpa_le"},
        "pe_same": mask,
        "pe_diff": mask,
        "pe_same_shuffle": mask,
    }
    assert evaluation(done, "tanaka")["rate_qap"].shape == (2,)


def test_attacks_break_what_they_were_made_for_and_nothing_else(done):
    found = {s: {k: v.mean() for k, v in evaluation(done, s).items()} for s in SCHEMES}
    assert found["tanaka"]["ssim_kpa_le"] == found["tanaka"]["rate_kpa_le"] == 1
    assert found["tanaka"]["ssim_qap"] > 0.85 and found["tanaka"]["rate_qap_upper"] > 0.9
    assert found["pe_same"]["ssim_kpa_pe"] > 0.99 and found["pe_same"]["rate_kpa_pe"] > 0.99
    # 40 ciphers are few for pc1: 500 give 0.99 of the mask
    assert found["pe_same"]["ssim_pc1"] > 0.5 and found["pe_same"]["rate_pc1"] > 0.65
    assert found["pe_same_shuffle"]["ssim_kpa_pe"] > 0.95
    assert found["pe_diff"]["rate_pc1"] == pytest.approx(0.5, abs=0.02)
    for attack in ("pc1", "qap", "kpa_le", "kpa_pe"):
        assert abs(found["pe_diff"][f"ssim_{attack}"]) < 0.06
    for attack in ATTACKS:
        assert abs(found["noise"][f"ssim_{attack}"]) < 0.06
    assert found["plain"]["ssim_kpa_le"] == found["plain"]["ssim_kpa_pe"] == 1
    assert found["plain"]["gauss_kpa_le"] == 1


def test_reconstructions_are_those_of_the_panels_images(done):
    plain = read_npz(done / "prepare" / "attack_test.npz")["images"]
    shown = read_npz(done / "out" / "tanaka" / "reconstructions.npz")
    np.testing.assert_array_equal(shown["kpa_le"], plain[PANEL])


def test_attacks_do_not_look_at_the_key_or_at_other_test_images(done, tmp_path):
    for folder in ("prepare", "encrypt"):
        shutil.copytree(done / folder, tmp_path / folder)
    for scheme in SCHEMES:
        for seed in SEEDS:
            (tmp_path / "encrypt" / scheme / f"key-s{seed}.npz").unlink(missing_ok=True)
            file = tmp_path / "encrypt" / scheme / f"attack_test-s{seed}.npz"
            write_npz(file, images=read_npz(file)["images"][:6])
    file = tmp_path / "prepare" / "attack_test.npz"
    write_npz(file, images=read_npz(file)["images"][:6])
    cryptanalyse(tmp_path / "prepare", tmp_path / "encrypt", tmp_path / "out", **OPTIONS)
    for scheme in SCHEMES:
        whole, part = evaluation(done, scheme), evaluation(tmp_path, scheme)
        assert not any(name.startswith("rate") for name in part)
        for attack in ATTACKS:
            name = f"ssim_{attack}"
            np.testing.assert_array_equal(part[name], whole[name][:, :6], err_msg=scheme)


@pytest.mark.skipif(processes() < 2, reason="one CPU: nothing runs at once")
def test_several_processes_write_the_same_bytes(done, monkeypatch):
    monkeypatch.setattr(module, "processes", processes)
    folders = done / "prepare", done / "encrypt"
    cryptanalyse(*folders, done / "pool", **OPTIONS)
    for scheme in SCHEMES:
        for name in ("evaluation.npz", "reconstructions.npz"):
            first = (done / "out" / scheme / name).read_bytes()
            assert first == (done / "pool" / scheme / name).read_bytes(), (scheme, name)


def test_it_does_not_import_torch():
    code = "import sys, stages.gan_transform.cryptanalyse; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Bad input


@pytest.fixture
def few(tmp_path):
    return make_folders(tmp_path, ["plain"])


def test_no_scheme_is_one_sentence(few, tmp_path):
    (few[1] / "plain" / "meta.json").unlink()
    with pytest.raises(InputError, match="holds no encrypted images"):
        cryptanalyse(*few, tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize("name", ["n_cipher", "n_public", "n_pairs"])
def test_more_images_than_there_are_is_one_sentence(few, tmp_path, name):
    with pytest.raises(InputError, match=f"too few images for {name}.*41 in a half.*lower {name}"):
        cryptanalyse(*few, tmp_path / "out", **OPTIONS | {name: 41})


def test_ciphers_of_other_images_are_one_sentence(few, tmp_path):
    write_npz(few[1] / "plain" / "attack_test-s3.npz", images=np.zeros((9, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="attack_test-s3.npz: does not fit the plain images"):
        cryptanalyse(*few, tmp_path / "out", **OPTIONS)


def test_missing_ciphers_are_one_sentence(few, tmp_path):
    with pytest.raises(InputError, match="attack_train-s7.npz"):
        cryptanalyse(*few, tmp_path / "out", **OPTIONS | {"seeds": [7]})


def test_sides_that_blocks_do_not_tile_are_one_sentence(few, tmp_path):
    for name, n in (("attack_train", N_TRAIN), ("attack_test", N_TEST)):
        images = np.zeros((n, 30, 30, 3), np.uint8)
        write_npz(few[0] / f"{name}.npz", images=images)
        for seed in SEEDS:
            write_npz(few[1] / "plain" / f"{name}-s{seed}.npz", images=images)
    with pytest.raises(InputError, match="multiples of 4, found 30 x 30"):
        cryptanalyse(*few, tmp_path / "out", **OPTIONS)
