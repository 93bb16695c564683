"""The benchmarks measure what they say: the same work in all ways, time, memory, a true page."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts, which import each other

import bench  # noqa: E402
import page  # noqa: E402
import scoring  # noqa: E402
import steps  # noqa: E402
from timing import Settings, Way, compare, count_flops, peak_memory, peaks  # noqa: E402

from stages.colourisation.train import Pairs  # noqa: E402
from stages.common.files import write_npz  # noqa: E402
from stages.common.metrics import ssim  # noqa: E402
from stages.common.networks.up_conv import UpConv  # noqa: E402
from stages.deep_features.generator import DownBlock, UpBlock  # noqa: E402
from stages.gan_transform.classifier import to_network  # noqa: E402
from stages.sift_inversion.networks import NearestConv  # noqa: E402

FEW = Settings(repeats=5, seconds=0.01)


def busy(seconds):
    """Take the processor for so long, whoever else wants it."""

    def call():
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    return lambda: call


def test_a_way_that_takes_three_times_as_long_is_found_to():
    ways = {"ours": Way(busy(0.02), "short"), "plain": Way(busy(0.06), "long")}
    found = compare(ways, FEW, what="wait", against=("plain",), images=6, target=2.0)
    ratio = found["ways"]["ours"]["times_as_fast_as"]["plain"]
    assert ratio["min"] <= ratio["median"] <= ratio["max"]
    assert ratio["median"] == pytest.approx(3, rel=0.15)
    assert found["reached"] and found["ways"]["plain"]["images_per_s"] == pytest.approx(
        100, rel=0.1
    )
    assert not compare(ways, FEW, what="wait", against=("plain",), target=4.0)["reached"]


def test_a_way_that_fails_is_listed_with_its_reason_and_ours_stops():
    def fail():
        raise RuntimeError("no such kernel")

    ways = {"ours": Way(busy(0.001), ""), "graphs": Way(fail, "")}
    found = compare(ways, FEW, what="wait", against=("graphs",))
    assert found["ways"]["graphs"] == {"not_measured": "RuntimeError: no such kernel"}
    with pytest.raises(RuntimeError, match="no such kernel"):
        compare({"ours": Way(fail, "")}, FEW, what="wait", against=("ours",))


def test_the_peak_of_memory_is_what_was_held_at_once_even_if_it_is_given_back():
    with peak_memory("cpu") as memory:
        block = np.ones(64 * 2**20, np.uint8)
        del block
    if "not_measured" in memory:
        assert "clear_refs" in str(memory["not_measured"])
    else:
        assert memory["MiB"] == pytest.approx(64, abs=8)


def test_the_operations_of_a_convolution_are_counted_with_its_gradients():
    layer, x = torch.nn.Conv2d(4, 8, 3, padding=1), torch.randn(2, 4, 6, 6)
    forward = 2 * (2 * 6 * 6) * (8 * 4 * 9)
    assert count_flops(lambda: layer(x), 3) == forward
    assert count_flops(lambda: layer(x).sum().backward(), 2) == 2 * forward  # no gradient of x


def test_a_large_product_and_a_large_copy_have_a_rate():
    found = peaks(Settings(quick=True, repeats=5, seconds=0.01))
    assert found["fp32"]["TFLOP_per_s"]["median"] > 1e-3
    assert found["copy"]["GB_per_s"]["min"] > 0.1


LAYERS = [
    (UpConv(3, 5), steps.plain_up_conv),
    (NearestConv(3, 5), steps.plain_nearest_conv),
    (UpBlock(3, 5, 0.1), steps.plain_up_block),
    (DownBlock(3, 5), steps.plain_down_block),
]


@pytest.mark.parametrize(("layer", "plain"), LAYERS, ids=[type(k).__name__ for k, _ in LAYERS])
def test_the_plain_layer_computes_what_ours_does(layer, plain):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(plain(layer, x), layer(x), rtol=1e-4, atol=1e-5)


def test_images_by_pil_are_the_images(tmp_path):
    images = torch.from_numpy(steps.pictures(4, 32))
    torch.testing.assert_close(steps.by_pil(images), to_network(images))
    write_npz(tmp_path / "train.npz", images=images.numpy())
    pairs, some = Pairs(tmp_path / "train.npz", torch.device("cpu")), torch.tensor([2, 0])
    for ours, plain in zip(pairs.at(some), steps.lab_by_skimage(pairs, some), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [32, 48])
def test_ssim_of_all_pairs_at_once_has_the_bytes_of_scikit_images(size):
    x, y = steps.pictures(9, size), steps.pictures(9, size)[::-1]
    np.testing.assert_array_equal(
        scoring.batched_ssim(x, y, data_range=255), ssim(x, y, data_range=255)
    )


def test_a_step_taken_out_of_its_stage_trains_there(monkeypatch):
    """The step of paper D, as the stage runs it and written plainly, from the same weights."""
    taken = {}

    def keep(ways, *arguments, **settings):
        taken.update(ways)
        made = []
        build = steps.import_module("stages.colourisation.train").build

        def spy(**keys):
            made.append(build(**keys))
            return made[-1]

        monkeypatch.setattr("stages.colourisation.train.build", spy)
        weights = []
        for name in ("ours", "eager", "plain"):
            call = ways[name].build()
            G = made[-1][0]
            before = torch.cat([p.detach().flatten().clone() for p in G.parameters()])
            call()
            after = torch.cat([p.detach().flatten() for p in G.parameters()])
            assert not torch.equal(before, after)
            weights.append(after.clone())
        assert (weights[0] - weights[1]).norm() < 0.02 * weights[0].norm()
        assert (weights[0] - weights[2]).norm() < 0.02 * weights[0].norm()
        return {}

    monkeypatch.setattr(steps, "compare", keep)
    steps.colourise(Settings(quick=True), {}, variant="bn")
    assert set(taken) >= {"ours", "eager", "plain"}


def test_every_item_of_the_modules_can_be_named():
    named = bench.names()
    for module in bench.MODULES:
        items = __import__(module).ITEMS
        assert {name for name, of in named.items() if of == module} == set(items)


RESULTS = [p for p in sorted(Path("reports/bench").glob("*.json")) if p.with_suffix(".md").exists()]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_page_is_what_its_numbers_render_to(path):
    results = json.loads(path.read_text())
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    if path.stem == "growth":
        assert text == page.growth_page(results)
    else:
        assert text == page.render(results, path.name)
        assert results["run"]["repeats"] >= 5 and not results["run"]["quick"]


def test_the_benchmark_of_a_cpu_and_of_growth_are_in_git():
    assert {"cpu", "growth"} <= {path.stem for path in RESULTS}
