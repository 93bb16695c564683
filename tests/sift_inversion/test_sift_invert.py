"""One photograph of the user's own, with networks that have learned nothing."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.sift_inversion import invert as inverting
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.invert import SHOWN_PX, invert, main, sift_params
from stages.sift_inversion.models import build_coarse, build_refined, load_run
from stages.sift_inversion.pairs import to_uint8

SIZE = 32
SIFT = {
    "contrast_threshold": 0.04,
    "edge_threshold": 10,
    "sigma": 1.6,
    "octave_layers": 3,
    "order": "response",
    "collision": "adjacent",
    "r_max": 1,
}
COARSE = {"net": "R", "size": SIZE, "width": 0.05, "desc_norm": "unit", "set": "faces"}
RUNS = {
    "train/R42_J": {"inputs": [4, 2], "channels": 128},
    "train/B5": {"inputs": [4], "channels": 133, "net": "dosovitskiy"},
    "refine/R42_G": {"inputs": [4, 2], "channels": 128, "adversary": True}
    | {"ngf": 4, "blocks": 1, "dropout": 0.5},
}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Return a folder with runs of both stages, and with what extract says of itself."""
    folder = tmp_path_factory.mktemp("paper") / "artifacts" / "toy" / "sift_inversion"
    write_json(folder / "extract" / "faces_train" / "meta.json", {"params": SIFT, "size": SIZE})
    for name, more in RUNS.items():
        meta = {"run": name.split("/")[1], **COARSE, **more}
        write_json(folder / name / "meta.json", meta)
        for seed in (0, 3):
            torch.manual_seed(seed)
            net = build_refined(meta) if "adversary" in meta else build_coarse(meta)
            save_file(net.state_dict(), folder / name / f"weights-s{seed}.safetensors")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blobs(h=60, w=90):
    coarse = np.random.default_rng(0).integers(0, 256, (h // 6, w // 6, 3), dtype=np.uint8)
    return coarse.repeat(6, axis=0).repeat(6, axis=1)


@pytest.fixture
def photo(here):
    path = here / "photo.png"
    Image.fromarray(blobs()).save(path)
    return path


@pytest.mark.parametrize("run", RUNS)
def test_a_photograph_is_shown_beside_its_keypoints_and_its_reconstruction(run, paper, photo):
    before = photo.read_bytes()
    found = invert(photo, paper / run, seed=3)
    assert found.out.name == f"photo-{run.split('/')[1]}-s3.png"
    assert photo.read_bytes() == before
    assert 0 < found.psnr < 60 and -1 <= found.ssim < 1 and found.keypoints > 0
    with Image.open(found.out) as shown:
        width, height = shown.size
        pixels = np.asarray(shown.convert("RGB"))
    assert width > 3 * SHOWN_PX and SHOWN_PX < height < 1.5 * SHOWN_PX
    tile = SHOWN_PX // SIZE
    square = np.asarray(Image.fromarray(blobs()[:, 15:75]).resize((SIZE, SIZE), Image.BOX))
    place = [np.abs(pixels[-SHOWN_PX - 2 : -2, x : x + SHOWN_PX][::tile, ::tile].astype(int)
                    - square).mean() for x in range(40, 80)]  # fmt: skip
    assert min(place) < 25, "the largest centred square is the first tile"


def test_the_reconstruction_is_the_one_that_the_stages_make(paper, photo):
    pixels = inverting.read_photo(photo, size=SIZE, crop=True).pixels
    ours = inverting.keypoints_of(pixels, SIFT)
    theirs = arrange(find(pixels[None], SIFT, "one", workers=1), SIZE, SIFT)
    for name in ("kp", "desc", "cells", "octave", "offsets"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    folder = paper / "refine" / "R42_G"
    made = to_uint8(load_run(folder, 0, torch.device("cpu"))(theirs)).numpy()
    mse = ((made[0].astype(float) - pixels) ** 2).mean()
    assert invert(photo, folder).psnr == pytest.approx(10 * np.log10(255**2 / mse))


def test_keypoints_are_sought_as_for_training(paper, here, monkeypatch):
    beside = {**SIFT, "contrast_threshold": 0.02}
    write_json(here / "extract" / "faces_train" / "meta.json", {"params": beside})
    meta = {"set": "faces"}
    assert sift_params(here / "train" / "R42_J", meta) == beside
    monkeypatch.setattr(inverting, "load_params", lambda: {"sift_inversion": {"extract": SIFT}})
    assert sift_params(here / "elsewhere" / "train" / "R42_J", meta) == SIFT


def test_the_command_says_what_came_out(paper, photo, here, capsys):
    main([str(photo), "--weights", str(paper / "train/R42_J"), "--out", str(here / "o" / "x.png")])
    first, second = capsys.readouterr().out.splitlines()
    assert "keypoints, PSNR" in first and "SSIM" in first
    assert second == f"wrote {here / 'o' / 'x.png'}" and (here / "o" / "x.png").is_file()


def refused(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: invert: ") and said.count("\n") == 1
    return said


def test_bad_images_are_refused_in_a_sentence(paper, here, capsys):
    run = ["--weights", paper / "train/R42_J"]
    assert "missing.png: cannot be read" in refused(["missing.png", *run], capsys)
    (here / "text.jpg").write_text("no image")
    assert "is not an image" in refused(["text.jpg", *run], capsys)
    Image.fromarray(blobs()).save("whole.png")
    (here / "half.png").write_bytes((here / "whole.png").read_bytes()[:200])
    assert "damaged" in refused(["half.png", *run], capsys)
    Image.fromarray(np.full((50, 50, 3), 128, np.uint8)).save("flat.png")
    assert "has no SIFT keypoints" in refused(["flat.png", *run], capsys)
    assert sorted(p.name for p in here.iterdir() if "-R42" in p.name) == []


def test_bad_weights_are_refused_in_a_sentence(paper, photo, here, capsys):
    said = refused([photo], capsys)
    assert "--weights: is missing" in said and "dvc repro" in said
    assert "found nothing" in refused([photo, "--weights", here / "none"], capsys)
    assert "found a file" in refused([photo, "--weights", photo], capsys)
    said = refused([photo, "--weights", paper / "train"], capsys)
    assert "found a folder with B5, R42_J; give one of these" in said
    said = refused([photo, "--weights", paper / "extract" / "faces_train"], capsys)
    assert "does not say what the networks are" in said
    said = refused([photo, "--weights", paper / "train/B5", "--seed", "1"], capsys)
    assert "has no network of seed 1" in said and "0, 3" in said
    run = here / "train" / "R42_J"
    write_json(run / "meta.json", {**COARSE, **RUNS["train/R42_J"]})
    assert "without weights" in refused([photo, "--weights", run], capsys)
    whole = (paper / "train/R42_J/weights-s0.safetensors").read_bytes()
    (run / "weights-s0.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be used as weights" in refused([photo, "--weights", run], capsys)
    (run / "meta.json").write_text("{")
    assert "is not a readable JSON file" in refused([photo, "--weights", run], capsys)


def test_runs_that_are_there_are_named_if_none_is_given(paper, photo, monkeypatch, capsys):
    monkeypatch.chdir(paper.parents[2])
    said = refused([photo], capsys)
    assert "give artifacts/toy/sift_inversion/refine/R42_G or" in said


def test_the_photograph_is_never_overwritten(paper, photo, here, capsys):
    run = ["--weights", paper / "train/R42_J"]
    before = photo.read_bytes()
    assert "is the photograph itself" in refused([photo, *run, "--out", "photo.png"], capsys)
    (here / "link.png").symlink_to(photo)
    assert "is the photograph itself" in refused([photo, *run, "--out", "link.png"], capsys)
    assert "ends in .png" in refused([photo, *run, "--out", "photo.jpg"], capsys)
    assert photo.read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        (here / "folder.png").mkdir()
        invert(photo, paper / "train/R42_J", here / "folder.png")
