from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.common import report
from stages.common.figures import (
    DPI,
    appearance,
    image_grid,
    panels,
    save_figure,
    save_table,
    spread_labels,
    styled,
    tile,
    wrapped,
)
from stages.common.render import loads


@styled
def _figure():
    figure, (ax,) = panels(1, 1, width=3, height=2)
    ax.plot([1, 2], [3, 4], label="line")
    ax.legend()
    return figure


def test_a_figure_is_the_same_bytes_again_whatever_the_users_settings(tmp_path):
    table = pd.DataFrame({"x": [1 / 3], "y": ["a"]})
    first = save_figure(_figure(), tmp_path / "a.png", table)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = save_figure(_figure(), tmp_path / "b.png", table)
    assert first.read_bytes() == second.read_bytes()
    vectors = [path.with_suffix(".svg").read_bytes() for path in (first, second)]
    assert vectors[0] == vectors[1] and b"<text" in vectors[0] and b"<image" not in vectors[0]
    assert (tmp_path / "a.csv").read_text() == "x,y\n0.33333,a\n"
    with Image.open(first) as image:
        assert image.size == (3 * DPI, 2 * DPI)
        assert "Software" not in image.info


def test_a_figure_is_a_png():
    with pytest.raises(ValueError, match=r"written as \.png"):
        save_figure(_figure(), Path("a.svg"))


def test_series_look_different_without_colour_too():
    looks = [tuple(appearance(i).values()) for i in range(21)]
    assert len(set(looks)) == 21


def test_tiles_repeat_whole_pixels_and_average_larger_images():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(tile(image, 4), image.repeat(2, 0).repeat(2, 1))
    padded = tile(image, 5)
    assert np.array_equal(padded[:4, :4], tile(image, 4)) and (padded[4] == 255).all()
    large = np.zeros((4, 4, 3), np.uint8)
    large[:2, :2] = [[[100] * 3, [100] * 3], [[100] * 3, [20] * 3]]
    assert tile(large, 2)[0, 0].tolist() == [80] * 3
    with pytest.raises(ValueError, match="a tile is square, the image is 2 x 3"):
        tile(np.zeros((2, 3, 3), np.uint8), 4)


def test_grid_shows_every_pixel_of_every_image(tmp_path):
    red, blue = (np.full((4, 4, 3), colour, np.uint8) for colour in ([255, 0, 0], [0, 0, 255]))
    figure = image_grid({"first": [red, blue], "second_one": [blue, red]}, ["a", "b"], side=8)
    path = save_figure(figure, tmp_path / "grid.png")
    assert not path.with_suffix(".svg").exists(), "a grid of images is no drawing"
    with Image.open(path) as image:
        pixels = np.asarray(image)
    assert ((pixels == [255, 0, 0]).all(-1)).sum() == 2 * 8 * 8
    assert ((pixels == [0, 0, 255]).all(-1)).sum() == 2 * 8 * 8


def test_grid_refuses_columns_that_do_not_fit():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="column 'a' has 1 images, there are 2"):
        image_grid({"a": [image]}, ["x", "y"])
    with pytest.raises(ValueError, match="nothing to show"):
        image_grid({}, ["x"])


def test_names_wrap_at_underscores():
    assert wrapped("bn_sn_unnormed", 9) == "bn sn\nunnormed"


def test_labels_of_close_points_do_not_overlap():
    figure, (ax,) = panels(1, 1, width=6, height=4)
    ax.scatter([0.0, 0.01, 0.02, 1.0], [0.0, 0.0, 0.0, 1.0])
    spread_labels(
        ax, [0.0, 0.01, 0.02, 1.0], [0.0, 0.0, 0.0, 1.0], ["first", "second", "third", "last"]
    )
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_numbers_are_written_for_people():
    assert [report.number(v) for v in (9.83, -0.5, 12345, 0.0, None, float("nan"), 1e-9)] == [
        "9.830",
        "−0.5000",
        "12,345",
        "0.000",
        "–",
        "–",
        "1e−09",
    ]
    assert report.signed(0.31, 2) == "+0.31" and report.signed(-0.31, 2) == "−0.31"
    assert report.interval(-0.5, 0.25, 2) == "[−0.50, 0.25]" and report.interval(None, 1) == ""


def test_table_escapes_names_rows_and_columns_and_scrolls():
    frame = pd.DataFrame({"model": ["a<b"], "L1": [1.5], "verdict": [report.chip("supported")]})
    table = report.table(frame, caption="x & y", quiet=[0], csv="p/t.csv")
    assert '<th scope="row">a&lt;b</th><td class="num">1.500</td>' in table
    assert '<th scope="col" class="num">L1</th>' in table
    assert '<td><span class="chip supported">supported</span></td>' in table
    assert "<caption>x &amp; y" in table and '<a href="p/t.csv">CSV</a>' in table
    assert table.startswith('<div class="scroll" tabindex="0"') and '<tr class="quiet">' in table
    assert report.table(frame, caption="x") == report.table(frame, caption="x")


def test_table_with_two_levels_groups_its_heads():
    columns = pd.MultiIndex.from_tuples([("", "model"), ("L1", "paper"), ("L1", "ours")])
    table = report.table(pd.DataFrame([["bn", 1, 2]], columns=columns), caption="t")
    assert '<th scope="col" rowspan="2">model</th>' in table
    assert '<th scope="colgroup" colspan="2">L1</th>' in table


def test_figure_is_embedded_with_alt_text_and_links(tmp_path):
    path = save_figure(_figure(), tmp_path / "paper" / "f.png", pd.DataFrame({"x": [1]}))
    shown = report.figure(path, alt='a "line"', caption="Fig. 1.", dpi=DPI)
    assert 'src="data:image/png;base64,' in shown and loads(shown) == []
    assert 'width="288" height="192"' in shown and 'alt="a &quot;line&quot;"' in shown
    for suffix in ("png", "svg", "csv"):
        assert f'href="paper/f.{suffix}"' in shown


def test_large_figure_is_embedded_as_jpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "EMBED_LIMIT_BYTES", 10)
    path = save_figure(_figure(), tmp_path / "f.png")
    shown = report.figure(path, alt="a", caption="b", dpi=DPI)
    assert "data:image/jpeg" in shown and "f.csv" not in shown


def test_verdicts_are_words_and_all_four_are_counted():
    tally = report.tally(["supported", "supported", "not run"])
    assert "supported</span> 2" in tally and "contradicted</span> 0" in tally
    assert 'class="chip other"' in report.chip("<new>") and "&lt;new&gt;" in report.chip("<new>")


def test_claim_without_a_result_is_not_run():
    shown = report.claim({"id": "C1", "statement": "a"})
    assert "not run" in shown and "effect" not in shown


def test_claim_shows_effect_interval_and_parts():
    part = {"name": "p", "effect": -1.0, "lo": -2.0, "hi": 0.5, "verdict": "inconclusive"}
    detail = {"id": "C1", "statement": "s", "verdict": "inconclusive", "effect": -1.0, "lo": -2.0}
    detail |= {"hi": 0.5, "unit": "dB", "n": 400, "seeds": 2, "table1": True, "parts": [part] * 2}
    shown = report.claim(detail)
    assert "effect −1.00 [−2.00, 0.500] dB; 400 images; 2 seeds" in shown
    assert "on the paper&#x27;s own numbers it would hold" in shown
    assert shown.count("<tr>") == 3


def test_csv_has_five_significant_digits(tmp_path):
    save_table(pd.DataFrame({"x": [123456.789]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "x\n1.2346e+05\n"
