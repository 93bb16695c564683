"""The check on generated faces, here on coloured squares and with a network of a few steps."""

import json
import time

import cv2
import numpy as np
import pytest

from stages.common.errors import InputError
from stages.data.images import ImageSet
from stages.data.resize import resize
from stages.sift_inversion import reference as module
from stages.sift_inversion.reference import at_most, main, read_faces, verdict

COUNTS = {"main": 12, "variants": 12}


def made_up(name, split, size):
    assert name == "synthfaces256"
    rng = np.random.default_rng(len(split))
    n = COUNTS[split]
    coarse = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    images = [resize(cv2.GaussianBlur(c.repeat(16, 0).repeat(16, 1), (0, 0), 2), size)
              for c in coarse]  # fmt: skip
    labels, groups = np.zeros(n, np.int64), np.arange(n) // (1 if split == "main" else 3)
    return ImageSet(np.stack(images), labels, groups, ["all"], "made up", 0)


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))
    monkeypatch.setattr(module, "load_images", made_up)
    monkeypatch.setattr(module, "NETWORK", {**module.NETWORK, "width": 0.0625})
    monkeypatch.setattr(module, "RESAMPLES", 100)
    return tmp_path


def test_everything_is_measured_and_written(small, capsys):
    out = small / "reference.json"
    main([str(out), "--images", "32", "--faces", "5", "--threads", "1"])
    found = json.loads(out.read_text())
    assert (found["set"], found["n"]) == ("synthfaces256", 5)
    keypoints = found["sift"]["keypoints"]
    assert keypoints["min"] <= keypoints["mean"] <= keypoints["max"]
    for name in ("collisions", "owned", "occupancy"):
        assert set(found["sift"][name]["share"]) == {"2", "4"}
    for d in ("2", "4"):
        assert found["sift"]["owned"]["share"][d] <= found["sift"]["occupancy"]["share"][d]
    for rows in found["floors"].values():
        assert set(rows) == {"identity", "mean", "other", "blur"}
        for value in rows["identity"].values():
            assert value == {"value": 1.0, "reference": 1.0, "agrees": True}
        assert rows["other"]["dcos"]["value"] < rows["blur"]["dcos"]["value"] < 1
    network = found["network"]
    assert network["size"] == 64 and network["chance"] == 0.2
    assert set(network["rows"]) == {"mean", "R42_J"}
    for name, difference in network["difference"].items():
        rows = [network["rows"][row][name] for row in ("mean", "R42_J")]
        assert difference["mean"] == pytest.approx(rows[1]["mean"] - rows[0]["mean"], abs=1e-3)
        assert difference["lo"] <= difference["mean"] <= difference["hi"]
    assert network["rows"]["mean"]["id1"]["mean"] == pytest.approx(0.2), "that of chance"
    assert set(found["verdicts"]) == {f"beats the mean face in {w}" for w in ("PD", "retrieval")}
    about = found["provenance"]
    assert about["cv2"] == cv2.__version__ and about["seed"] == 0
    assert about["train"]["images_seen"] == 32
    assert about["train"]["trained_on"] == (7 + 12) * (1 + module.COPIES)
    assert set(about["seconds"]) == {"before_training", "training", "all"}
    said = capsys.readouterr().out
    assert "beats the mean face in PD" in said and "identity at 256 px: dcos 1.000" in said
    assert not list((small / "ckpt").iterdir())


def test_copies_are_cut_scaled_and_mirrored_the_same_every_time():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 72, 72, 3), dtype=np.uint8)
    images[:, :, :36] //= 4  # dark on the left
    made = module.copies(images, 8)
    assert made.shape == (24, 64, 64, 3) and np.array_equal(made, module.copies(images, 8))
    assert len({c.tobytes() for c in made}) > 20  # two may be the whole image
    darker_left = made[:, :, :32].mean((1, 2, 3)) < made[:, :, 32:].mean((1, 2, 3))
    assert 4 < darker_left.sum() < 20, "some are mirrored, some are not"


def test_no_measured_face_is_trained_on(small):
    rules = module.section(module.load_params(), "sift_inversion.extract")
    large, less = (read_faces(size, 5, rules) for size in (256, 64))
    assert np.array_equal(large.test_groups, less.test_groups)
    assert not set(less.test_groups) & set(less.other_groups)
    assert len(less.others) + len(less.test) == COUNTS["main"]
    assert less.keypoints.size == 64 and len(less.keypoints) == 5


@pytest.mark.parametrize("count", [1, 12, 99])
def test_too_few_faces_to_measure_or_to_train_on_are_refused(count, small, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(small / "x.json"), "--faces", str(count)])
    assert stopped.value.code == 2 and not (small / "x.json").exists()
    assert capsys.readouterr().err.startswith("error: reference: --faces: does not suit the set")


def test_training_that_takes_too_long_stops():
    with pytest.raises(InputError, match="--train-seconds"), at_most(0.01):
        time.sleep(5)
    with at_most(0.01):
        pass
    time.sleep(0.02)  # the clock is off again


@pytest.mark.parametrize(
    ("lo", "hi", "side", "expected"),
    [
        (-0.2, -0.1, -1, "supported"),
        (0.1, 0.2, -1, "contradicted"),
        (-0.1, 0.2, -1, "inconclusive"),
        (0.1, 0.2, 1, "supported"),
        (-0.2, -0.1, 1, "contradicted"),
        (0.0, 0.2, 1, "inconclusive"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(lo, hi, side, expected):
    assert verdict({"mean": (lo + hi) / 2, "lo": lo, "hi": hi}, side) == expected


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many"])
def test_numbers_on_the_command_line_are_whole_and_positive(value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["x.json", "--images", value])
    assert stopped.value.code == 2 and "no whole number" in capsys.readouterr().err
