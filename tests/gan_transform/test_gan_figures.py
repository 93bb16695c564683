import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.gan_transform import figures as draw

ROLES = {
    "GA": {"proposed": "ga_unet", "tanaka": "ga_blockwise"},
    "inverse": {"proposed": "g_ba", "tanaka": "g_ba"},
    "worst": {"plain": "raw"},
}


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def _texts(figure):
    return [text.get_text() for text in figure.texts]


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert draw.fixed(-0.004, 2) == "0.00"
    assert draw.fixed(-0.25, 1) == "−0.2"
    assert draw.fixed(1.0, 1, sign=True) == "+1.0" and draw.fixed(0.0, 1, sign=True) == "0.0"


def test_ciphers_are_measured_against_the_images_of_the_panel(artifacts_tree):
    folder = artifacts_tree()
    figure, table = draw.cipher_grid(folder, ["plain", "tanaka", "never_encrypted"])
    assert set(table.scheme) == {"plain", "tanaka"}
    assert table.image.unique().tolist() == read_json(folder / "prepare" / "meta.json")["panel"]
    assert table["class"].unique().tolist() == ["w", "x", "y", "z"]
    assert np.allclose(table[table.scheme == "plain"].ssim, 1)
    assert (table[table.scheme == "tanaka"].ssim < 0.5).all()
    assert _texts(figure).count("1.00") == 4


def test_ciphers_of_another_set_are_named_by_the_number_of_their_class(artifacts_tree):
    folder = artifacts_tree(meta={"attack_dataset": "stl10"})
    _, table = draw.cipher_grid(folder, ["plain"])
    assert table["class"].unique().tolist() == ["class 0", "class 1", "class 2", "class 3"]


def test_first_seed_is_the_lowest_number_and_not_the_first_name(artifacts_tree):
    folder = artifacts_tree(seeds=(2, 10))
    second = read_npz(folder / "encrypt" / "tanaka" / "attack_test-s2.npz")["images"]
    assert np.array_equal(draw.ciphers_of(folder, "tanaka", [3])[0], second[3])


def test_large_images_are_fewer_and_keep_their_pixels(artifacts_tree):
    assert [draw.images_shown(side, small=4, large=1) for side in (32, 64, 96)] == [4, 4, 1]
    figure, table = draw.cipher_grid(artifacts_tree(attack_size=96), ["tanaka"])
    assert len(table) == 2
    assert _pixels(figure).shape[1] == 60 + 2 * (96 + draw.CAPTION_PX)


def test_reconstructions_are_those_of_the_image_and_blank_where_there_is_none(artifacts_tree):
    folder = artifacts_tree()
    plain = read_npz(folder / "prepare" / "attack_test.npz")["images"]
    path = folder / "attack" / "proposed" / "reconstructions.npz"
    write_npz(path, **(read_npz(path) | {"ga_unet": plain[:4]}))
    figure, table = draw.reconstruction_grid(folder, ROLES, ["proposed", "tanaka", "plain"], 1)
    found = table.set_index(["scheme", "column"]).ssim
    assert found["proposed", "GA"] == pytest.approx(1)
    assert found["plain", "cipher"] == pytest.approx(1) == found["plain", "worst"]
    assert ("tanaka", "inverse") not in found.index and ("plain", "GA") not in found.index
    assert set(table.image) == {1} and set(table["class"]) == {"x"}
    assert "ga_unet\n1.00" in _texts(figure) and "1.00" in _texts(figure)


def test_reconstructions_need_an_attack_and_an_image_of_the_panel(artifacts_tree):
    folder = artifacts_tree()
    assert draw.reconstruction_grid(folder, ROLES, ["never_attacked"], 0) is None
    assert draw.reconstruction_grid(folder, ROLES, ["proposed"], 4) is None


def test_learning_curves_hold_every_term_and_seed(artifacts_tree):
    folder = artifacts_tree()
    figure, table = draw.learning_curves(folder, ["proposed", "not_trained"])
    assert set(table.quantity) == {*draw.TERMS, "capped"}
    assert set(table.seed) == {0, 1} and set(table.variant) == {"proposed"}
    assert table.pairs.unique().tolist() == [8, 16, 32, 64]
    assert all(len(ax.lines) == 2 + 1 for ax in figure.axes)  # two seeds and their mean


def test_log_without_a_term_is_drawn_without_it(artifacts_tree):
    folder = artifacts_tree(seeds=(0,))
    path = folder / "transform" / "proposed" / "history-s0.json"
    history = read_json(path)
    history["log"] = [{"pairs": 8, "adv": 1.0, "lp": None}]
    write_json(path, history)
    figure, table = draw.learning_curves(folder, ["proposed"])
    assert table.quantity.tolist() == ["adv"]
    assert [len(ax.lines) for ax in figure.axes] == [2, 0, 0, 0, 0, 0]


def _points(**changes):
    row = {"scheme": "a", "data": "toy", "ours": False, "ssim": 0.4, "ssim_lo": 0.3}
    row |= {"ssim_hi": 0.5, "accuracy": 80.0, "accuracy_lo": 80.0, "accuracy_hi": 80.0}
    return row | changes


def test_leakage_has_a_panel_a_data_set_and_the_floor():
    rows = [_points(), _points(scheme="b", ours=True), _points(data="other")]
    figure = draw.accuracy_against_leakage(pd.DataFrame(rows), 0.2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["toy", "other"]
    assert [list(ax.lines[0].get_xdata()) for ax in figure.axes] == [[0.2, 0.2]] * 2
    labels = [t.get_text() for t in figure.axes[0].texts]
    assert labels == ["a", "b"]
    figure = draw.accuracy_against_leakage(pd.DataFrame(rows[:1]), None)
    assert len(figure.axes) == 1


def test_leakage_refuses_nothing():
    with pytest.raises(ValueError, match="nothing to draw"):
        draw.accuracy_against_leakage(pd.DataFrame(columns=list(_points())), 0.2)


def test_figures_are_the_same_pixels_when_drawn_again(artifacts_tree):
    folder = artifacts_tree()
    for function in (
        lambda: draw.cipher_grid(folder, ["tanaka"]),
        lambda: draw.reconstruction_grid(folder, ROLES, ["proposed"], 0),
        lambda: draw.learning_curves(folder, ["proposed"]),
    ):
        first, second = (_pixels(function()[0]) for _ in range(2))
        assert np.array_equal(first, second)


def test_missing_files_are_no_figure(tmp_path):
    assert draw.cipher_grid(tmp_path, ["plain"]) is None
    assert draw.reconstruction_grid(tmp_path, ROLES, ["plain"], 0) is None
    assert draw.learning_curves(tmp_path, ["proposed"]) is None
    assert draw.reconstructions_of(tmp_path, "plain") == {}
