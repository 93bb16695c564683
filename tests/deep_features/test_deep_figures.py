import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.deep_features import figures as draw
from stages.deep_features.facts import example

ONE = "bot-synth_a"


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _texts(figure):
    return [text.get_text() for text in figure.texts]


def _cell(value):
    return {"value": value, "lo": value - 0.05, "hi": value + 0.05, "seeds": [value]}


def _attack(cos, n=12):
    return {"n": n, "measures": {"cos": _cell(0.99), "centred": _cell(cos)}, "lowest": cos - 0.1,
            "q10": cos - 0.05, "share_95": _cell(0.9)}  # fmt: skip


ATTACKS = {
    "co-same_domain-img1": _attack(0.9),
    "co-same_domain-img16": _attack(0.95),
    "co-same_domain-img4": _attack(0.93),
    "co-n20-img1": _attack(0.7),
    "co-none-img1": _attack(0.3),
    "kpa-K12": _attack(0.8),
    "kpa-K4": _attack(0.5),
    "hungarian": _attack(0.6),
}


def _attacks():
    return {
        "cells": [{"cell": ONE, "attacks": ATTACKS}, {"cell": "sbs-synth_b", "attacks": ATTACKS}]
    }


# ---------------------------------------------------------------- Fig. 2


def test_bits_belong_to_the_fields_of_binary32():
    fields = [draw.field_of(bit) for bit in range(32)]
    assert fields == ["mantissa"] * 23 + ["exponent"] * 8 + ["sign"]


def test_worked_example_follows_every_bit():
    figure, table = draw.worked_example(example())
    rotation = table[table.example.str.startswith("rotation")]
    assert rotation["goes to"].tolist() == [(bit + 5) % 32 for bit in range(32)]
    assert (table.plain == table["encrypted there"]).all() and (
        table.plain == table.decrypted
    ).all()
    word = sum(1 << int(bit) for bit in rotation[rotation.plain == "1"].bit)
    assert word == 0x40490FDB
    digits = [t.get_text() for t in figure.axes[0].texts]
    assert "".join(d for d in digits[:32]) == example()["items"][0]["plain"]
    assert {"float", "encrypted", "decrypted"} <= set(digits)
    assert draw.worked_example(None) is None and draw.worked_example({"items": []}) is None


# ---------------------------------------------------------------- Fig. 3


def _table():
    of = {"ba": _cell(0.7), "chance": 0.5, "null": {"mean": 0.5, "lo": 0.4, "hi": 0.6},
          "ba5": None, "chance5": None, "best": _cell(0.8)}  # fmt: skip
    tasks = [{"name": "hat"}, {"name": "bag"}]
    cells = [
        {"set": s, "model": m, "tasks": {"bag": of, "hat": of}}
        for m in ("bot", "sbs")
        for s in ("synth_a", "synth_b")
    ]
    return {"models": ["bot", "sbs"], "sets": {"synth_a": {"tasks": tasks},
            "synth_b": {"tasks": tasks}}, "cells": cells}  # fmt: skip


def test_bars_have_guessing_and_a_band_each():
    figure, table = draw.accuracy_bars(_table())
    assert len(table) == 8 and table.attribute.tolist()[:2] == ["hat", "bag"]  # the set's order
    for ax in figure.axes:
        bars = [p for p in ax.patches if p.get_height() == pytest.approx(0.7)]
        assert len(bars) == 4  # two attributes, two black boxes
        chance = [line for line in ax.lines if list(line.get_ydata()) == [0.5, 0.5]]
        assert len(chance) == 4
        bands = [c.get_paths()[0].get_extents() for c in ax.collections if len(c.get_paths()) == 1]
        heights = {(round(b.y0, 3), round(b.y1, 3)) for b in bands}
        assert (0.4, 0.6) in heights
    labels = [t.get_text() for t in figure.legends[0].texts]
    assert labels == ["bot", "sbs", "guessing", "permuted labels"]


def test_no_attribute_is_no_figure():
    table = _table()
    for cell in table["cells"]:
        cell["tasks"] = {}
    assert draw.accuracy_bars(table) is None


# ---------------------------------------------------------------- grids


def test_numbers_under_an_image_are_its_own(artifacts_tree):
    folder = artifacts_tree(models=["bot"], local_sets=["synth_a"])
    figure, table = draw.reconstruction_grid(folder, ONE, wanted=3)
    panel = read_json(folder / "prepare/meta.json")["panel"]["synth_a"]
    measured = read_npz(folder / f"evaluate/{ONE}.npz")["distance_fr"][0, panel]
    of_fr = table[table.shows == "fr"]
    assert of_fr.image.tolist() == panel == [0, 4, 8]
    assert of_fr.distance.tolist() == pytest.approx(measured)
    assert table[table.shows == "original"].distance.isna().all()
    assert f"d {measured[2]:.2f}" in _texts(figure)
    kinds = list(dict.fromkeys(table.shows))
    assert kinds == ["original", "pixel", "fr", "fr_adv"]


def test_attacked_images_are_found_by_their_index(artifacts_tree):
    folder = artifacts_tree(models=["bot"], local_sets=["synth_a"])
    path = folder / f"cryptanalyse/{ONE}.npz"
    arrays = read_npz(path)
    index = arrays["attacked_index"].tolist()
    figure, table = draw.attack_grid(folder, ONE, wanted=3)
    of = table[table.shows == "attacked"]
    places = [index.index(i) for i in of.image]
    assert of.distance.tolist() == pytest.approx(arrays["attacked_distance"][0, places])
    assert list(dict.fromkeys(table.shows)) == [
        "original",
        "plain features",
        "wrong key",
        "attacked",
    ]
    assert table[table.shows == "wrong key"].distance.isna().all()
    left = {k: v for k, v in arrays.items() if not k.startswith("panel_")}
    write_npz(path, **left)
    assert draw.attack_grid(folder, ONE, wanted=3) is None
    assert _texts(figure)


def test_images_are_enlarged_by_whole_pixels_and_keep_their_shape():
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    figure = draw.people_grid({"original": [image]}, {"original": ["d 0.10"]})
    pixels = _pixels(figure)
    tile = image.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(pixels[:128, draw.LABEL_PX : draw.LABEL_PX + 64], tile)
    tall = np.zeros((384, 128, 3), np.uint8)
    assert draw._shown(tall).shape == (192, 64, 3)
    with pytest.raises(ValueError, match="nothing to show"):
        draw.people_grid({}, {})


def test_large_images_are_fewer():
    def shown(height, width):
        return draw.images_shown((8, height, width, 3), kinds=4, wanted=8)

    assert [shown(64, 32), shown(128, 64), shown(384, 128)] == [8, 3, 2]


def test_missing_files_are_no_figure(tmp_path, artifacts_tree):
    assert draw.reconstruction_grid(tmp_path, ONE, wanted=3) is None
    assert draw.attack_grid(tmp_path, ONE, wanted=3) is None
    assert draw.learning_curves(tmp_path, ["bot"]) is None
    folder = artifacts_tree(models=["bot"], local_sets=["synth_a"], cells=[])
    assert draw.reconstruction_grid(folder, ONE, wanted=3) is None


# ---------------------------------------------------------------- curves


def test_curves_are_sorted_by_what_the_adversary_has():
    weak = [{"cell": ONE, "sorted": [0.5, 0.2, 0.1]}]
    figure, table = draw.attack_curves(_attacks(), {"weak": weak})
    vectors, references, known, weak = figure.axes
    assert list(vectors.lines[0].get_xdata()) == [1, 4, 16]
    assert list(vectors.lines[0].get_ydata()) == [0.9, 0.93, 0.95]
    assert list(known.lines[0].get_xdata()) == [4, 12]
    assert list(weak.lines[0].get_xdata()) == [0.5, 0.2, 0.1]
    ticks = [t.get_text().replace("\n", " ") for t in references.get_xticklabels()]
    assert ticks == ["none", "another set", "20 vectors", "100 vectors", "training split"]
    assert set(table.attack) == set(ATTACKS) and set(table.curve) == {"vectors", "known floats",
                                                                     "other"}  # fmt: skip
    labels = [t.get_text() for t in figure.legends[0].texts]
    assert labels == [ONE, "sbs-synth_b"]
    assert draw.attack_curves({"cells": []}, None) is None


def test_a_cell_is_known_by_colour_and_dash():
    looks = [draw.look(c, ["synth_a", "synth_b"]) for c in (ONE, "bot-synth_b", "sbs-synth_a")]
    assert looks[0]["color"] == looks[1]["color"] != looks[2]["color"]
    assert looks[0]["linestyle"] == looks[2]["linestyle"] != looks[1]["linestyle"]


def test_learning_curves_hold_every_seed(artifacts_tree):
    folder = artifacts_tree(models=["bot"], local_sets=["synth_a"])
    figure, table = draw.learning_curves(folder, ["bot", "agw"])
    assert set(table.model) == {"bot"} and set(table.seed) == {0, 1}
    assert table.query("quantity == 'loss'").step.unique().tolist() == [5, 10, 20]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["loss", "accuracy"]


def test_figures_are_the_same_pixels_when_drawn_again(artifacts_tree):
    folder = artifacts_tree(models=["bot"], local_sets=["synth_a"])
    for function in (
        lambda: draw.worked_example(example()),
        lambda: draw.accuracy_bars(_table()),
        lambda: draw.attack_curves(_attacks(), None),
        lambda: draw.reconstruction_grid(folder, ONE, wanted=3),
    ):
        first, second = (_pixels(function()[0]) for _ in range(2))
        assert np.array_equal(first, second)


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert draw.fixed(-0.004, 2) == "0.00"
    assert draw.fixed(-0.25, 1) == "−0.2"
    assert draw.fixed(1.0, 1, sign=True) == "+1.0"


def test_a_panel_of_another_set_is_not_taken(artifacts_tree):
    folder = artifacts_tree(models=["bot"], local_sets=["synth_a"])
    meta = read_json(folder / "prepare/meta.json")
    write_json(folder / "prepare/meta.json", {**meta, "panel": {"synth_a": []}})
    assert draw.reconstruction_grid(folder, ONE, wanted=3) is None
