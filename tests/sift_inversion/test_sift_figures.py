import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.sift_inversion import figures as draw
from stages.sift_inversion.figures import KEYPOINTS, ORIGINAL, Column
from stages.sift_inversion.keypoints import read
from stages.sift_inversion.partial import kept

BOX = "box-centre-centre-0.4"
COLUMNS = [Column(ORIGINAL, ORIGINAL), Column(KEYPOINTS, KEYPOINTS), Column("R42_G", "R42_G")]


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def _texts(figure):
    return [text.get_text() for text in figure.texts]


def _grid(folder, columns=COLUMNS, image_set="faces", names=("pd", "id1"), wanted=4):
    return draw.comparison_grid(folder, image_set, columns, names=names, wanted=wanted)


def _colours(image):
    return {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}


# ---------------------------------------------------------------- keypoints


def test_keypoints_are_drawn_where_they_are():
    grey = np.full((32, 32, 3), 128, np.uint8)
    kp = np.array([[7.5, 23.5, 8, 0, 1]], np.float32)  # x, y, a circle of radius 4, to the right
    drawn = draw.keypoint_overlay(grey, kp, side=128)
    changed = np.argwhere((drawn != 128).any(2))
    top, left = changed.min(0) - 1
    bottom, right = changed.max(0) + 1
    assert (left + right) / 2 == pytest.approx(32, abs=1)  # (7.5 + 0.5) x 4
    assert (top + bottom) / 2 == pytest.approx(96, abs=1)
    assert (right - left) / 2 == pytest.approx(16, abs=4)
    assert (drawn[96, 33:48] != 128).any() and (drawn[90, 26] == 128).all()  # the line, not a disc
    assert np.array_equal(draw.keypoint_overlay(grey, kp[:0], side=128), np.full_like(drawn, 128))


def test_removed_keypoints_and_their_box_look_different():
    grey = np.full((32, 32, 3), 128, np.uint8)
    kp = np.array([[15.5, 15.5, 8, 0, 1]], np.float32)
    box = np.array([0.0, 0.0, 32.0, 32.0])
    kept_, gone, boxed = (
        draw.keypoint_overlay(grey, *drawn, side=64, **how)
        for drawn, how in (((kp,), {}), ((kp[:0],), {"gone": kp}), ((kp[:0],), {"box": box}))
    )
    assert any(b > r for r, _, b in _colours(kept_)) and any(r > b for r, _, b in _colours(gone))
    assert any(r == g == b > 200 for r, g, b in _colours(boxed))
    assert (boxed[32, 32] == 128).all() and (gone[32, 32] != 128).any()  # a frame, a cross


def test_overlay_of_a_large_image_is_shrunk_with_its_keypoints():
    grey = np.full((64, 64, 3), 128, np.uint8)
    kp = np.array([[47.5, 15.5, 8, 90, 1]], np.float32)
    changed = np.argwhere((draw.keypoint_overlay(grey, kp, side=32) != 128).any(2))
    assert changed.mean(0) == pytest.approx([8, 24], abs=1)


# ---------------------------------------------------------------- grids


def test_numbers_under_a_tile_are_those_of_its_image(artifacts_tree):
    folder = artifacts_tree()
    figure, table = _grid(folder)
    panel = read_json(folder / "prepare" / "meta.json")["panel"]["faces"]
    measured = read_npz(folder / "evaluate" / "R42_G" / "full.npz")
    of_run = table[table.shows == "R42_G"]
    assert of_run.image.tolist() == panel == [0, 1, 2, 4]
    assert np.allclose(of_run.pd, measured["pd"][0, panel])
    under = f"PD {measured['pd'][0, 4]:.2f}  {'found' if measured['id1'][0, 4] else 'not found'}"
    assert under in _texts(figure)
    counts = read(folder / "extract" / "faces_test").counts[panel]
    assert table[table.shows == KEYPOINTS].keypoints.tolist() == counts.tolist()
    assert f"{counts[0]} keypoints" in _texts(figure) and "R42_G" in _texts(figure)


def test_lines_under_a_tile_have_two_numbers_each():
    values = {"pd": 0.512, "log_sharp": np.log(0.25), "kpr": np.nan, "id1": 0.0}
    words = draw.under(values, ["pd", "log_sharp", "kpr", "id1", "psnr"])
    assert words == "PD 0.51  sharp 0.25\nKPR –  not found"
    assert draw.under({}, ["pd"]) == ""


def test_a_condition_shows_the_keypoints_that_it_leaves(artifacts_tree):
    folder = artifacts_tree()
    columns = [Column("left", KEYPOINTS, BOX), Column("from these", "R42_G", BOX)]
    figure, table = _grid(folder, columns, names=("pd_in",))
    found = read(folder / "extract" / "faces_test")
    for i, left in table[table.shows == KEYPOINTS][["image", "keypoints"]].itertuples(index=False):
        keep = kept(found, BOX)[found.image == i]
        assert left == keep.sum() and f"{keep.sum()} of {len(keep)} left" in _texts(figure)
    inside = read_npz(folder / "evaluate" / "R42_G" / f"{BOX}.npz")["pd_in"][0]
    assert f"PD in box {inside[0]:.2f}" in _texts(figure)


def test_classes_name_the_rows_of_the_categories(artifacts_tree):
    columns = [Column(ORIGINAL, ORIGINAL), Column("M_R42_G", "M_R42_G")]
    figure, table = _grid(artifacts_tree(), columns, "multi")
    assert table["class"].tolist() == ["w", "x", "y", "w"]  # of images 0, 1, 2 and 4
    assert [t for t in _texts(figure) if t in list("wxyz")] == ["w", "x", "y", "w"]


def test_run_that_has_no_images_is_left_out(artifacts_tree):
    folder = artifacts_tree()
    _, table = _grid(folder, [*COLUMNS, Column("other", "never_run")])
    assert set(table.shows) == {KEYPOINTS, "R42_G"}
    assert _grid(folder, [*COLUMNS[:2], Column("other", "never_run")]) is None


def test_images_without_measures_are_shown_without_numbers(artifacts_tree):
    folder = artifacts_tree()
    (folder / "evaluate" / "R42_G" / "full.npz").unlink()
    figure, table = _grid(folder, [COLUMNS[0], COLUMNS[2]])
    assert "pd" not in table and not any("PD" in text for text in _texts(figure))


def test_first_seed_is_the_lowest_number_and_not_the_first_name(artifacts_tree):
    folder = artifacts_tree(seeds=(2, 10), runs=["R42_G"], conditions=[])
    second = read_npz(folder / "reconstruct" / "R42_G" / "full-s2.npz")["images"]
    images, seed = draw.reconstruction(folder, "R42_G", "full", [3, 1])
    assert seed == 2 and np.array_equal(images, second[[3, 1]])
    assert draw.measures(folder, "R42_G", "full", 5, [0, 1]) == [{}, {}]


def test_large_images_are_fewer_and_keep_their_pixels(artifacts_tree):
    shown = [draw.images_shown(s, columns=4, wanted=5) for s in (64, 128, 256, 512)]
    assert shown == [5, 5, 1, 1]
    folder = artifacts_tree()
    figure, _ = _grid(folder, [COLUMNS[0], COLUMNS[2]], wanted=1)
    original = read_npz(folder / "prepare" / "faces_test.npz")["images"][0]
    tile = original.repeat(8, axis=0).repeat(8, axis=1)
    pixels = _pixels(figure)[..., :3]
    y = int(np.argmax((pixels[:, 60] == tile[0, 0]).all(1)))
    assert np.array_equal(pixels[y : y + 128, 60 : 60 + 128], tile)


# ---------------------------------------------------------------- curves


def _cell(value):
    return {"value": value, "lo": value - 0.1, "hi": value + 0.1, "seeds": [value], "n": 4}


def _partial(**changes):
    box = {"condition": BOX, "mode": "centre", "place": "centre", "f": 0.4, "removed": 0.5}
    content = {
        "run": "R42_G",
        "set": "faces",
        "level": 0.95,
        "full": [{"condition": "full", "values": {"pd": _cell(0.4), "id1": _cell(80.0)}}],
        "boxes": [{**box, "values": {"pd": _cell(0.6), "pd_in": _cell(0.9)}}],
        "keeps": [
            {"condition": "keep-0.1", "p": 0.1, "removed": 0.9, "values": {"pd": _cell(0.8)}},
            {"condition": "keep-0.5", "p": 0.5, "removed": 0.5, "values": {"pd": _cell(0.5)}},
        ],
        "sigmas": [{"half": "above", "removed": 0.5, "values": {"pd": _cell(0.7)}}],
    }
    return content | changes


def test_leakage_curves_start_with_all_keypoints():
    table = draw.leakage_table(_partial())
    random = table[(table.curve == "at random") & (table.metric == "pd")]
    assert random.removed.tolist() == [0.0, 0.5, 0.9] and random.value.tolist() == [0.4, 0.5, 0.8]
    boxes = table[table.curve == "centre box"]
    assert boxes.metric.tolist() == ["pd", "id1", "pd", "pd_in"] and set(boxes["mode"]) == {
        "centre"
    }
    assert table[table.curve == "only large keypoints left"].removed.tolist() == [0.5]
    figure, drawn = draw.leakage_curves(_partial(), {"pd": {"mean image": 1.0}})
    assert drawn.equals(table)
    pd, inside = figure.axes[1], figure.axes[5]
    assert [1.0, 1.0] in [list(line.get_ydata()) for line in pd.lines]
    assert [line.get_label() for line in inside.lines] == ["without its keypoints"]
    assert "only large keypoints left" in [t.get_text() for t in figure.legends[0].texts]


def test_leakage_without_the_share_that_was_removed_is_no_figure():
    boxes = [{**_partial()["boxes"][0], "removed": None}]
    assert draw.leakage_curves(_partial(boxes=boxes, keeps=[], sigmas=[]), {}) is None
    assert len(draw.leakage_table(_partial(boxes=boxes))) == 2 + 4 + 1  # starts, keeps, sigma


def test_learning_curves_hold_every_term_and_seed(artifacts_tree):
    folder = artifacts_tree()
    figure, table = draw.learning_curves(folder, ["R42_L2", "R42_J", "R42_G", "not_trained"])
    assert set(table.run) == {"R42_L2", "R42_J", "R42_G"} and set(table.seed) == {0, 1}
    of_D = table[table.quantity == "d_acc"]
    assert set(of_D.run) == {"R42_G"} and of_D.images.unique().tolist() == [16, 32, 64, 96]
    assert set(table[table.run == "R42_L2"].quantity) == {"val_l2", "share_l2"}
    by_title = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert len(by_title["accuracy of D"].lines) == 2 + 1  # two seeds and their mean
    assert len(by_title["validation loss, joint (eq. 7)"].lines) == 2 * 3
    assert [t.get_text() for t in figure.legends[0].texts] == ["R42_L2", "R42_J", "R42_G"]


def test_validation_of_the_joint_loss_keeps_its_parts(artifacts_tree):
    folder = artifacts_tree(seeds=(0,), runs=["R42_J"], partial_run="R42_J", conditions=[])
    path = folder / "train" / "R42_J" / "history-s0.json"
    history = read_json(path)
    history["epochs"] = [{"step": 6, "images": 50, "val_loss": 0.5, "val_l2": 0.2}]
    write_json(path, history)
    table = draw.learning_table(folder, ["R42_J"]).query("images == 50")
    assert dict(zip(table.quantity, table.value, strict=True)) == {"val_loss": 0.5, "val_l2": 0.2}


def test_figures_are_the_same_pixels_when_drawn_again(artifacts_tree):
    folder = artifacts_tree()
    for function in (
        lambda: _grid(folder),
        lambda: draw.leakage_curves(_partial(), {}),
    ):
        first, second = (_pixels(function()[0]) for _ in range(2))
        assert np.array_equal(first, second)


def test_missing_files_are_no_figure(tmp_path, artifacts_tree):
    assert _grid(tmp_path / "nothing") is None
    assert draw.learning_curves(tmp_path, ["R42_G"]) is None
    assert draw.reconstruction(tmp_path, "R42_G", "full", [0]) is None
    folder = artifacts_tree()
    write_npz(folder / "prepare" / "third_test.npz", images=np.zeros((1, 16, 16, 3), np.uint8))
    assert _grid(folder, image_set="third") is None


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert draw.fixed(-0.004, 2) == "0.00"
    assert draw.fixed(-0.25, 1) == "−0.2"
    assert draw.fixed(1.0, 1, sign=True) == "+1.0" and draw.fixed(0.0, 1, sign=True) == "0.0"
