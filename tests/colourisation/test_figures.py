from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

from stages.colourisation import figures as draw
from stages.colourisation import report
from stages.common.files import write_json, write_npz

VARIANTS = ["bn", "bn_sn", "bn_sn_md", "ibn_sn", "l1_only"]
TRIVIAL = ["grey", "mean_ab", "random_hue", "half_chroma", "other_image"]
SIDE = 16


def _histograms(ab):
    bins = np.arange(-110, 110)
    return np.stack([[np.histogram(channel, bins)[0] for channel in image] for image in ab]).astype(
        np.int32
    )


def make_artifacts(root: Path, variants=VARIANTS, side=SIDE, n=8, seeds=(0, 1)) -> Path:
    """Write artifacts and results of every stage, of random images, below ``root``."""
    rng = np.random.default_rng(0)
    folder = root / "artifacts" / "smoke" / "colourisation"
    images = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    labels = np.arange(n) % 4
    labels.sort()
    write_npz(
        folder / "prepare" / "test.npz", images=images, labels=labels, groups=np.arange(n) // 2
    )
    write_json(
        folder / "prepare" / "meta.json",
        {
            "dataset": "emoji10",
            "attribution": "drawn by <a test>",
            "classes": ["animals", "plants", "food & drink", "flags"],
            "size": side,
            "grey_converted": 0,
            "n_train": n,
            "n_val": n,
            "n_test": n,
        },
    )
    real = rgb2lab(images)[..., 1:].transpose(0, 3, 1, 2)
    ones = np.ones(n, np.float32)
    write_npz(
        folder / "evaluate" / "baselines" / "real.npz",
        image_hist=_histograms(real),
        chroma=ones,
        m3=ones,
        hf=ones,
        hist2d=np.ones((22, 22), np.int64),
        labels=labels,
        groups=np.arange(n) // 2,
    )
    for k, variant in enumerate(variants):
        ab = real * (0.4 + 0.1 * k)
        for seed in seeds:
            train = folder / "train" / variant
            write_npz(train / f"predictions-s{seed}.npz", test=ab.astype(np.float16))
            adversarial = {"d_loss": 0.2, "g_adv": 0.5, "d_acc": 0.6, "adv_share": 0.5}
            log = [
                {"step": s, "epoch": s / 10, "l1": 12 - s / 20 + seed}
                | (adversarial if variant != "l1_only" else {})
                for s in range(10, 60, 10)
            ]
            epochs = [{"epoch": e, "l1_train": 9.0 - e, "l1_val": 9.5 - e} for e in (1, 2, 3)]
            write_json(
                train / f"history-s{seed}.json",
                {"steps_per_epoch": 10, "steps": 50, "log": log, "epochs": epochs},
            )
        both = np.repeat(_histograms(ab)[None], len(seeds), axis=0)
        write_npz(folder / "evaluate" / f"{variant}.npz", image_hist=both)
    return folder


def make_results(root: Path, variants=VARIANTS) -> Path:
    """Write results as ``score`` does; the verdict on C1 is supported, that on C2 contradicted."""
    folder = root / "reports" / "results" / "smoke" / "colourisation"

    def result(k):
        return {
            "n": 8,
            "seeds": 2,
            "l1": 9.0 + k / 10,
            "l1_ci": [8.5, 10.5],
            "psnr": 26.0 - k / 10,
            "psnr_ci": [25.0, 27.0],
            "lperc": 1.5 - k / 50,
            "lperc_ci": [1.0, 1.9],
            "chroma": 9.0 + k,
            "chroma_ratio": 0.8,
            "dhist_a": 0.3,
            "dhist_b": 0.2,
            "per_class": [
                {"class": "animals", "l1": 8.0, "chroma_ratio": 0.9, "m3": 10.0, "n": 4},
                {"class": "flags", "l1": 12.0, "chroma_ratio": None, "m3": 10.0, "n": 4},
            ],
        }

    for k, variant in enumerate(variants):
        write_json(folder / f"{variant}.json", result(k))
    for k, name in enumerate(TRIVIAL):
        write_json(folder / f"baseline_{name}.json", result(3 * k))
    rows = [
        {
            "id": "T1.bn",
            "variant": "bn",
            "metric": metric,
            "paper": paper,
            "ours": ours,
            "lo": ours - 0.1,
            "hi": ours + 0.1,
            "deviation": ours - paper,
            "n": 8,
            "seeds": 2,
            "verdict": "supported",
            "reason": "because",
            "note": "",
        }
        for metric, paper, ours in (("l1", 9.83, 9.0), ("psnr", 26.77, 26.0), ("lperc", 64.05, 1.5))
    ]
    write_json(
        folder / "table1.json",
        {
            "comparable": False,
            "not_comparable_because": "size 16 instead of 256",
            "rows": rows,
            "baselines": [{"name": name, "l1": 9.0} for name in TRIVIAL],
        },
    )
    details = [
        {
            "id": claim,
            "statement": "a < b & c",
            "source": "Table I",
            "verdict": verdict,
            "reason": "the interval excludes 0",
            "table1": True,
            "effect": -0.3,
            "lo": -0.5,
            "hi": -0.1,
            "unit": "dB",
            "n": 8,
            "seeds": 2,
            "parts": [{"name": "a", "effect": -0.3, "lo": -0.5, "hi": -0.1, "verdict": verdict}],
        }
        for claim, verdict in (("C1", "supported"), ("C2", "contradicted"))
    ]
    verdicts = {detail["id"]: detail["verdict"] for detail in details}
    write_json(folder / "claims.json", {"verdicts": verdicts, "details": details})
    return folder


PARAMS = """
profile: smoke
profiles:
  smoke:
    colourisation:
      shared: {size: 16}
      train: {widths_g: [4, 8], widths_d: [4, 8], epochs: 3}
colourisation:
  train: {lambda_l1: 100, up: nearest_conv, rf: code94}
  variants:
    bn: {norm: bn, sn: none, scales: 1}
    bn_sn: {norm: bn, sn: all, scales: 1}
    bn_sn_md: {norm: bn, sn: all, scales: 2}
    ibn_sn: {norm: ibn, sn: all, scales: 1}
    l1_only: {norm: bn, sn: none, scales: 0}
"""


def make_root(root: Path) -> Path:
    (root / "params.yaml").write_text(PARAMS)
    paper = root / "stages" / "colourisation" / "paper.yaml"
    paper.parent.mkdir(parents=True)
    paper.write_bytes(Path("stages/colourisation/paper.yaml").read_bytes())
    return root


@pytest.fixture
def root(tmp_path):
    make_artifacts(tmp_path)
    make_results(tmp_path)
    return make_root(tmp_path)


def _run(root):
    return report.load("smoke", root / "figures", root)


def _pixels(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def test_a_plan_becomes_one_row_a_layer():
    @dataclass(frozen=True)
    class Layer:
        name: str
        c_out: int

    table = draw.architecture_table([Layer("e1", 4), Layer("out", 2)])
    assert table.to_dict("records") == [{"name": "e1", "c_out": 4}, {"name": "out", "c_out": 2}]
    with pytest.raises(ValueError, match="at least one layer"):
        draw.architecture_table([])


def test_learning_curves_hold_every_seed_and_leave_out_what_a_variant_does_not_log(tmp_path):
    figure, table = draw.learning_curves(make_artifacts(tmp_path), ["bn", "l1_only"])
    assert set(table.seed) == {0, 1}
    assert set(table[table.variant == "l1_only"].quantity) == {"l1", "l1_val"}
    adversarial, *_ = figure.axes
    assert len(adversarial.lines) == 1 + 2 + 1  # the blind D, two seeds, their mean


def test_histograms_are_the_log_of_counts_per_image(tmp_path):
    artifacts = make_artifacts(tmp_path, seeds=(0,))
    table = draw.histogram_table(artifacts, ["bn", "not_trained"])
    assert list(table) == ["centre", "real a", "real b", "bn a", "bn b"]
    assert table.centre.iloc[[0, -1]].tolist() == [-109.5, 108.5]
    pixels = np.exp(table["bn a"])[table["bn a"] > table["bn a"].min()]
    assert SIDE**2 * 0.9 < pixels.sum() <= SIDE**2


def test_grid_shows_the_first_image_of_each_class_and_measures_every_tile(tmp_path):
    artifacts = make_artifacts(tmp_path)
    figure, table = draw.comparison_grid(artifacts, ["bn", "not_trained"])
    assert table.image.tolist() == [0, 2, 4, 6]
    assert table["class"].tolist() == ["animals", "plants", "food & drink", "flags"]
    assert "L1 not_trained" not in table
    assert np.allclose(table["L1 original"], 0)
    assert np.allclose(table["L1 half chroma"], table["L1 grey input"] / 2)
    assert np.allclose(table["L1 bn"], 0.6 * table["L1 grey input"], rtol=1e-3)  # float16
    assert len({text.get_text() for text in figure.texts}) == 4 + 5


def test_grid_of_many_classes_is_thinned_evenly(tmp_path):
    _, table = draw.comparison_grid(make_artifacts(tmp_path), [], max_rows=2)
    assert table["class"].tolist() == ["animals", "flags"]


def test_decoding_returns_the_image_that_was_encoded():
    image = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    lab = rgb2lab(image)
    assert np.array_equal(draw.to_rgb(lab[..., 0], lab[..., 1:].transpose(0, 3, 1, 2)), image)


def test_figures_are_the_same_pixels_when_drawn_again(tmp_path):
    artifacts = make_artifacts(tmp_path)
    for function in (draw.learning_curves, draw.log_histograms, draw.comparison_grid):
        first, second = (_pixels(function(artifacts, VARIANTS)[0]) for _ in range(2))
        assert np.array_equal(first, second)


def test_scatter_refuses_nothing_and_keeps_intervals():
    with pytest.raises(ValueError, match="nothing to draw"):
        draw.l1_against_lperc({"bn": {"l1": 1.0}}, {})
    results = {"bn": {"l1": 9.0, "l1_ci": [8.0, 10.0], "lperc": 1.0}}
    _, table = draw.l1_against_lperc(results, {"grey": {"l1": 9.5, "lperc": 1.2}})
    assert table[["l1_lo", "l1_hi", "lperc_lo"]].iloc[0].tolist() == [8.0, 10.0, 1.0]
    assert table.kind.tolist() == ["variant", "baseline"]


def test_finding_counts_what_the_results_say(root):
    text = report.finding(_run(root))
    assert "5 variants of the network" in text
    assert "20 claims, 1 supported, 1 contradicted and 18 not run" in text
    assert "The lowest L1 has bn with 9.00" in text
    assert 'Supported: <a href="#C1">C1</a>. Contradicted: <a href="#C2">C2</a>.' in text


def test_table_1_has_the_papers_numbers_controls_and_baselines(root):
    table = report.table1(_run(root))
    for words in (
        "9.83",
        "64.05",
        "9.00 <small>[8.90, 9.10]</small>",
        "−0.83",
        "l1_only",
        "grey image",
    ):
        assert words in table
    assert "size 16 instead of 256" in table
    assert (root / "figures" / "table1.csv").exists()


def test_controls_compare_pairs_and_say_what_was_not_run(root):
    table = report.controls(_run(root))
    assert "bn − l1_only" in table and "−0.400" in table
    assert "bn_sn_lam33 − bn_sn" in table and "not run" in table


def test_every_section_says_not_run_when_there_is_nothing(tmp_path):
    run = _run(make_root(tmp_path))
    assert "has no results yet" in report.finding(run) and "20 not run" in report.finding(run)
    for name in ("table1", "scatter", "learning_curves", "histograms", "grid", "worst_classes"):
        assert "not run" in getattr(report, name)(run), name
    assert "not run" in report.claims(run)
    assert "least squares" in report.deviations(run)


def test_variants_come_from_params_and_not_from_the_files_that_lie_about(root):
    stray = root / "reports" / "results" / "smoke" / "colourisation" / "removed.json"
    write_json(stray, {"l1": 1.0, "lperc": 1.0, "psnr": 1.0, "n": 8, "seeds": 2})
    run = _run(root)
    assert list(run.results) == VARIANTS
    assert "removed" not in report.table1(run)


def test_deviations_follow_the_parameters_and_the_data(root):
    run = _run(root)
    assert "emoji10, 8 to train and 8 to test" in report.deviations(run)
    assert "four stride-2 blocks (94 pixels)" in report.deviations(run)
    assert "bfloat16" not in report.deviations(run)
    run.params["profiles"]["smoke"]["colourisation"]["train"]["precision"] = "bf16-mixed"
    assert "bfloat16" in report.deviations(run)


def test_page_text_is_escaped(root):
    run = _run(root)
    assert "a &lt; b &amp; c" in report.claims(run)
    assert "drawn by &lt;a test&gt;" in report.grid(run)


def test_architecture_follows_the_plan_of_the_parameters(root):
    tables = report.architecture(_run(root), "bn_sn_md")
    assert "there are 2 of them" in tables
    assert tables.count("<table>") == 2
    assert report.architecture(_run(root), "l1_only").count("<table>") == 1
