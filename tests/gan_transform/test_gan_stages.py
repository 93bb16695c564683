"""prepare, train_target, perturb, transform, encrypt, classify: tiny, on embedded images."""

import json

import numpy as np
import pytest
import torch

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz
from stages.common.params import stage_params
from stages.gan_transform.augmentation import crop_flip
from stages.gan_transform.ciphers import pixel_based
from stages.gan_transform.classifier import learning_rate
from stages.gan_transform.classify import classify
from stages.gan_transform.encrypt import encrypt
from stages.gan_transform.floors import floor_images
from stages.gan_transform.perturb import perturb
from stages.gan_transform.prepare import prepare
from stages.gan_transform.protection import load_translator, translate
from stages.gan_transform.schemes import load_cipher, make_keys, parse_scheme, read_scheme
from stages.gan_transform.train_target import train_target
from stages.gan_transform.transform import transform

STAGES = {f.__name__: f for f in (prepare, train_target, perturb, transform, encrypt, classify)}


def smoke(verb, variant=None, **changes):
    name = f"gan_transform.{verb}"
    return stage_params(STAGES[verb], name, profile="smoke", variant=variant) | changes


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    here = tmp_path_factory.mktemp("chain")
    from pathlib import Path

    prepare(Path("data"), here / "prepare", **smoke("prepare"))
    train_target(here / "prepare", here / "train_target", **smoke("train_target"))
    before = here / "prepare", here / "train_target"
    perturb(*before, here / "perturb", **smoke("perturb"))
    for variant in ("proposed", "proposed_sum"):
        settings = smoke("transform", variant)
        transform(*before, here / "perturb", here / "transform" / variant, **settings)
    encrypt(*before, here / "transform", here / "encrypt", **smoke("encrypt"))
    return here


def test_the_attackers_images_are_disjoint_from_the_protectors(chain):
    groups = {
        name: set(read_npz(chain / "prepare" / f"{name}.npz")["groups"].tolist())
        for name in ("train", "test", "attack_train", "attack_test")
    }
    assert not groups["train"] & groups["attack_train"]
    assert not groups["train"] & groups["attack_test"]
    assert not groups["attack_train"] & groups["attack_test"]
    assert not groups["train"] & groups["test"]


def test_the_panel_shows_one_test_image_of_each_class(chain):
    meta = read_json(chain / "prepare" / "meta.json")
    labels = read_npz(chain / "prepare" / "attack_test.npz")["labels"][meta["panel"]]
    assert labels.tolist() == list(range(10))


def test_an_attacker_on_the_test_split_gets_other_images_than_its_test(tmp_path):
    from pathlib import Path

    prepare(Path("data"), tmp_path, **smoke("prepare", attack_from="test"))
    train, test = (read_npz(tmp_path / f"attack_{s}.npz")["groups"] for s in ("train", "test"))
    assert not set(train.tolist()) & set(test.tolist())


def test_the_attackers_two_halves_share_at_most_one_emoji(chain):
    groups = read_npz(chain / "prepare" / "attack_train.npz")["groups"]
    half = len(groups) // 2
    assert len(set(groups[:half].tolist()) & set(groups[half:].tolist())) <= 1
    assert groups.tolist() != sorted(groups.tolist())


def test_the_transfer_task_asks_for_no_class_that_it_did_not_teach(chain):
    train, test = (read_npz(chain / "prepare" / f"transfer_{s}.npz") for s in ("train", "test"))
    counts = np.bincount(train["labels"])
    assert len(counts.nonzero()[0]) == 10 and set(counts) <= {0, 10}  # 100 images
    assert set(test["labels"].tolist()) <= set(train["labels"].tolist())
    assert read_json(chain / "prepare" / "meta.json")["transfer_classes"] == 10


def test_classes_without_training_images_are_one_sentence(tmp_path):
    from pathlib import Path

    few = smoke("prepare", transfer_classes=None, n_transfer_train=20, n_transfer_test=200)
    with pytest.raises(InputError, match="transfer_test: asks for classes of which no image"):
        prepare(Path("data"), tmp_path, **few)


def test_too_few_images_are_one_sentence(tmp_path):
    from pathlib import Path

    with pytest.raises(InputError, match="emoji10 as attack_test: has too few images"):
        prepare(Path("data"), tmp_path, **smoke("prepare", n_attack_test=5000))


def test_every_scheme_has_a_folder_with_all_that_a_client_needs(chain):
    for name in smoke("encrypt")["schemes"]:
        folder = chain / "encrypt" / name
        assert read_scheme(folder).scheme == name
        found = read_npz(folder / "evaluation.npz")
        assert found["ssim"].shape == (1, 20) and found["htheta_correct"].shape == (1, 24)
        cipher = read_npz(folder / "attack_test-s0.npz")["images"]
        plain = read_npz(chain / "prepare" / "attack_test.npz")["images"]
        assert np.array_equal(load_cipher(folder, 0)(plain, "attack_test"), cipher)
        assert np.array_equal(cipher, plain) == (name == "plain")


def test_keys_are_shared_or_not_as_the_scheme_says(chain):
    same = read_npz(chain / "encrypt" / "pe_same" / "key-s0.npz")
    diff = read_npz(chain / "encrypt" / "pe_diff" / "key-s0.npz")
    assert np.array_equal(same["bits_train"], same["bits_attack_test"])
    assert len(same["bits_train"]) == 1 and len(diff["bits_train"]) == 64
    assert not np.array_equal(diff["bits_train"][:20], diff["bits_attack_test"])
    assert not np.array_equal(diff["bits_train"][0], diff["bits_train"][1])
    assert "perm_train" in read_npz(chain / "encrypt" / "pe_same_shuffle" / "key-s0.npz")


def test_random_signs_differ_from_split_to_split(chain):
    cipher = load_cipher(chain / "encrypt" / "random_sign", 0)
    grey = np.full((2, 8, 8, 3), 128, np.uint8)
    train, test = (cipher(grey, split) for split in ("train", "test"))
    assert not np.array_equal(train, test)
    assert np.array_equal(train, cipher(grey, "train"))


def test_h_p_is_deterministic_and_independent_of_its_batch(chain):
    folder = chain / "encrypt" / "proposed"
    assert not list(folder.glob("key*"))  # claim C13: no key
    widths = read_json(folder / "meta.json")["widths"]
    G = load_translator(folder / "generator-s0.safetensors", widths, torch.device("cpu"))
    images = torch.from_numpy(read_npz(chain / "prepare" / "test.npz")["images"])
    together = translate(G, images)
    assert together.dtype == torch.uint8
    assert torch.equal(together, translate(G, images))
    assert torch.equal(together[3:4], translate(G, images[3:4]))
    assert torch.equal(together.flip(0), translate(G, images.flip(0)))
    assert not read_npz(folder / "evaluation.npz")["mismatches"].any()


def test_both_readings_of_equation_9_give_different_transformations(chain):
    a, b = (
        read_npz(chain / "encrypt" / name / "attack_test-s0.npz")["images"]
        for name in ("proposed", "proposed_sum")
    )
    assert not np.array_equal(a, b)


def test_the_history_logs_every_term_with_its_weight(chain):
    history = read_json(chain / "transform" / "proposed" / "history-s0.json")
    wanted = {"step", "pairs", "adv", "lp", "lc", "lr", "ce_xhatp", "d_loss", "capped"}
    assert wanted <= set(history["log"][0])
    assert history["log"][0]["lp"] < 0  # gamma_1 is negative
    assert history["guard"]["mode"] == "auto"


@pytest.mark.parametrize("scheme", ["tanaka", "pe_same", "proposed"])
def test_classify_writes_every_task_and_augmentation(chain, scheme):
    out = chain / "classify" / scheme
    classify(chain / "prepare", chain / "encrypt" / scheme, out, **smoke("classify"))
    found = read_npz(out / "evaluation.npz")
    for arm in read_scheme(chain / "encrypt" / scheme).augment:
        for task in ("ten", "transfer"):
            assert found[f"correct_{task}_{arm}"].shape == (1, 24)
            assert found[f"best_{task}_{arm}"].shape == (1,)


def test_two_runs_give_the_same_bytes(chain, tmp_path):
    before = chain / "prepare", chain / "train_target"
    settings = smoke("transform", "proposed")
    transform(*before, chain / "perturb", tmp_path / "proposed", **settings)
    for name in ("generator-s0.safetensors", "inverse-s0.safetensors", "history-s0.json"):
        again = (tmp_path / "proposed" / name).read_bytes()
        assert again == (chain / "transform" / "proposed" / name).read_bytes()


def test_a_scheme_of_a_variant_that_does_not_exist_is_one_sentence(chain, tmp_path):
    schemes = {"mine": {"cipher": "transform", "variant": "propsed"}}
    with pytest.raises(InputError, match="did you mean 'proposed'"):
        encrypt(
            chain / "prepare", chain / "train_target", chain / "transform", tmp_path,
            **smoke("encrypt", schemes=schemes),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"cipher": "rot13"}, "no such cipher"),
        ({"cipher": "pe"}, "lacks 'keys'"),
        ({"cipher": "pe", "kyes": "same"}, "did you mean 'keys'"),
        ({"cipher": "tanaka", "augment": ["sever"]}, "wrong 'augment'"),
        ({"cipher": "blur"}, "lacks 'sigma'"),
    ],
)
def test_a_wrong_scheme_line_is_one_sentence(line, words):
    with pytest.raises(InputError, match=words):
        parse_scheme("mine", line)


def test_a_lost_key_is_one_sentence(chain, tmp_path):
    meta = (chain / "encrypt" / "tanaka" / "meta.json").read_text()
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(InputError, match="key-s0.npz"):
        load_cipher(tmp_path, 0)


def test_a_pe_key_of_seed_and_split_is_no_other_splits():
    scheme = parse_scheme("pe_diff", {"cipher": "pe", "keys": "diff"})
    a = make_keys(scheme, 0, {"train": (2, 8, 8), "test": (2, 8, 8)})
    b = make_keys(scheme, 1, {"train": (2, 8, 8)})
    assert not np.array_equal(a["bits_train"], a["bits_test"])
    assert not np.array_equal(a["bits_train"], b["bits_train"])


def test_server_augmentation_commutes_with_pixel_based_encryption():
    """A shifted cipher is the shifted image under the shifted key, where no border enters."""
    x = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    bits, _ = pixel_based.make_key(0, 1, 16, 16)
    crop = np.s_[:, 3:, 2:]
    assert np.array_equal(
        pixel_based.encrypt(x, bits)[crop], pixel_based.encrypt(x[crop], bits[crop])
    )


def test_crop_flip_depends_on_seed_and_epoch_alone_and_pads_with_black():
    images = torch.randint(1, 256, (40, 8, 8, 3), dtype=torch.uint8)
    a = crop_flip(images, seed=0, epoch=1)
    assert torch.equal(a, crop_flip(images, seed=0, epoch=1))
    assert not torch.equal(a, crop_flip(images, seed=0, epoch=2))
    assert not torch.equal(a, crop_flip(images, seed=1, epoch=1))
    assert torch.equal(crop_flip(images, seed=0, epoch=0, padding=0).sum(2), images.sum(2))
    black = (a == 0).all(3)
    assert black.any() and not black.all((1, 2)).any()


def test_learning_rates_of_both_schedules():
    def rates(schedule):
        settings = {"lr": 0.1, "schedule": schedule, "milestones": [0.3, 0.6, 0.8]}
        return [learning_rate(i, steps=10, **settings) for i in range(10)]

    assert rates("steps") == pytest.approx([0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2)
    one = rates("one_cycle")
    assert max(one) == pytest.approx(0.1) and one[0] < one[1] < one[2] and one[-1] < one[-2]


def test_floors_know_nothing_of_their_image():
    plain = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    floors = floor_images(plain, 0)
    assert len(np.unique(floors["blank"].reshape(-1, 3), axis=0)) == 1
    assert np.array_equal(floors["other_image"][0], plain[3])
    assert np.array_equal(floors["noise"], floor_images(plain, 0)["noise"])
    assert (
        json.dumps({name: image.dtype.name for name, image in floors.items()}).count("uint8") == 4
    )
