"""The costs in docs/gpu_and_clusters.md: what was counted, by hand and by others; a true page."""

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet50

from stages.common.files import write_json
from stages.common.params import load_params
from stages.scoreboard.blocks import filled
from stages.scoreboard.costs import BENCH, COUNTED, LETTERS, PAGE, STEPS, table

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts, which import each other

import bench  # noqa: E402
import flops  # noqa: E402

PAPERS = json.loads((BENCH / COUNTED).read_text())["papers"]
TEXT = PAGE.read_text(encoding="utf-8")


def conv(c_in, c_out, k, side):
    """Return a convolution's operations, forward, for an image; ``side`` of what comes out."""
    return 2 * c_in * c_out * k**2 * side**2


def per_image(paper, stage, run):
    return PAPERS[paper][stage][run]["flop_per_image"]


# ---------------------------------------------------------------- the page


def test_the_page_shows_what_was_counted_and_measured():
    assert filled(TEXT, "costs", table(), PAGE) == TEXT


@pytest.fixture
def folder(tmp_path):
    shutil.copy(BENCH / COUNTED, tmp_path)
    return tmp_path


def measured(folder, name, *, gpu="none used", rate=50.0, precision="32-true", steps=None):
    """Write what ``make bench`` writes of a device, as far as it is read."""
    way = {"GFLOP_per_s": rate, "share_of_peak": 0.5}
    if steps is None:
        steps = [step for several in STEPS.values() for step in several]
    items = {
        step: {"what": f"step {step}, {precision}", "ours": "ours", "ways": {"ours": way}}
        for step in steps
    }
    device = {"gpu": gpu, "processor": "Some Processor"}
    write_json(folder / f"{name}.json", {"device": device, "run": {}, "items": items})


def cells(text, stage):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {stage} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("key", ["flop_per_image", "images", "trainings"])
@pytest.mark.parametrize("paper", LETTERS)
def test_another_count_gives_another_page(folder, paper, key):
    counted = json.loads((folder / COUNTED).read_text())
    for stage, runs in counted["papers"][paper].items():
        run = max(runs, key=lambda name: runs[name]["flop_per_image"] * runs[name]["images"])
        before = runs[run][key]
        runs[run][key] = 2 * before
        write_json(folder / COUNTED, counted)
        assert table(folder) != table(), stage
        runs[run][key] = before


def test_without_a_device_there_are_no_hours_and_it_says_how_to_get_them(folder):
    text = table(folder)
    assert "hours on" not in text and "No GPU has been measured" in text


def test_hours_are_operations_by_the_speed_of_the_papers_own_step(folder):
    measured(folder, "cpu", rate=50.0)
    runs = PAPERS["sift_inversion"]["refine"].values()
    work = sum(run["flop_per_image"] * run["images"] * run["trainings"] for run in runs)
    text = table(folder)
    assert cells(text, "B `refine`")[-1] == f"{work / 50e9 / 3600:,.0f}"
    assert "hours on one core of Some Processor" in text and "No GPU has been measured" in text
    found = json.loads((folder / "cpu.json").read_text())
    found["items"]["sift_refine"]["ways"]["ours"]["GFLOP_per_s"] = 25.0
    write_json(folder / "cpu.json", found)
    slower = table(folder)
    assert cells(slower, "B `refine`")[-1] == f"{work / 25e9 / 3600:,.0f}"
    assert cells(slower, "B `train`") == cells(text, "B `train`")


def test_a_gpu_has_a_column_of_its_own_after_the_processor(folder):
    measured(folder, "cpu")
    measured(folder, "a-gpu", gpu="A GPU", rate=100_000.0, precision="bf16-mixed")
    text = table(folder)
    assert "hours on one core of Some Processor | hours on A GPU |" in text
    assert "No GPU" not in text
    slow, fast = cells(text, "D `train`")[-2:]
    assert float(slow.replace(",", "")) == pytest.approx(
        2000 * float(fast.replace(",", "")), rel=0.01
    )
    assert not fast.startswith("at least")


def test_32_bits_wanted_and_16_timed_is_a_bound_from_below(folder):
    measured(folder, "a-gpu", gpu="A GPU", precision="bf16-mixed")
    text = table(folder)
    assert cells(text, "A `classify`")[-1].startswith("at least ")
    assert not cells(text, "A `transform`")[-1].startswith("at least ")


def test_steps_of_several_speeds_give_a_range_and_a_missing_one_is_named(folder):
    measured(folder, "cpu", steps=["colourisation_bn", "colourisation_bn_sn"])
    found = json.loads((folder / "cpu.json").read_text())
    found["items"]["colourisation_bn"]["ways"]["ours"]["GFLOP_per_s"] = 100.0
    write_json(folder / "cpu.json", found)
    text = table(folder)
    low, high = (float(n.replace(",", "")) for n in cells(text, "D `train`")[-1].split(" to "))
    assert high == pytest.approx(2 * low, rel=0.01)
    assert cells(text, "B `train`")[-1] == "not measured"


def test_every_stage_that_is_counted_has_a_step_that_is_timed():
    assert set(STEPS) == {(paper, stage) for paper in PAPERS for stage in PAPERS[paper]}
    assert {step for steps in STEPS.values() for step in steps} <= set(bench.names())


# ---------------------------------------------------------------- what was counted


def test_resnet18_of_32_px_has_the_operations_of_its_table():
    """He et al. 2016, Table 1, with a stem of 3 x 3: 0.56 G multiply-adds, forward."""
    stem = conv(3, 64, 3, 32)
    forward = stem + 4 * conv(64, 64, 3, 32) + 2 * 512 * 10
    for (a, b), side in zip(pairwise([64, 128, 256, 512]), (16, 8, 4), strict=True):
        forward += conv(a, b, 3, side) + 3 * conv(b, b, 3, side) + conv(a, b, 1, side)
    assert forward / 2 == pytest.approx(0.56e9, rel=0.01)
    whole = 3 * forward - stem  # the gradient of the images is not asked for
    assert per_image("gan_transform", "classify", "plain ten client") == pytest.approx(
        whole, rel=1e-4
    )


def test_vgg13_of_32_px_has_the_operations_of_its_table():
    forward, a = 2 * 512 * 10, 3
    for i, b in enumerate((64, 128, 256, 512, 512)):
        forward += conv(a, b, 3, 32 >> i) + conv(b, b, 3, 32 >> i)
        a = b
    whole = 3 * forward - conv(3, 64, 3, 32)
    assert per_image("gan_transform", "train_target", "h_theta") == pytest.approx(whole, rel=1e-4)


def test_the_proposed_schemes_clients_pay_for_h_p_in_every_epoch():
    """Against U-Net's table, Ronneberger et al. 2015, Fig. 1, with 64 to 1024 channels."""
    found = PAPERS["gan_transform"]["classify"]
    client, server = (found[f"proposed ten {arm}"] for arm in ("client", "server"))
    widths, sides = (64, 128, 256, 512, 1024), (32, 16, 8, 4, 2)
    h_p = conv(3, 64, 3, 32) + conv(64, 64, 3, 32) + conv(64, 3, 1, 32)
    for (a, b), side in zip(pairwise(widths), sides[1:], strict=True):
        h_p += conv(a, b, 3, side) + conv(b, b, 3, side)  # down
        h_p += conv(b, a, 3, 2 * side)  # upsampled, and a 3 x 3 convolution
        h_p += conv(b, a, 3, 2 * side) + conv(a, a, 3, 2 * side)  # of the two halves
    assert client["flop_per_image"] - server["flop_per_image"] == pytest.approx(h_p, rel=1e-3)


def test_the_generator_of_paper_d_has_the_operations_of_its_table():
    """Fig. 2 at 256 px. An upsampling 4 x 4 convolution costs a 3 x 3 one to four times the maps.

    A gradient of the lightness is not asked for. The kernels' rearrangement, once a step, is 1 %.
    """
    widths = (64, 128, 256, 512, 512, 512, 512)
    encoder = [conv(a, b, 4, 128 >> i) for i, (a, b) in enumerate(pairwise((1, *widths)))]
    decoder, c_in = 0, 512
    for i, c_out in enumerate((512, 512, 512, 256, 128, 64)):
        decoder += conv(c_in, 4 * c_out, 3, 2 << i)
        c_in = 2 * c_out
    decoder += conv(128, 4 * 2, 3, 128)
    whole = 3 * (sum(encoder) + decoder) - encoder[0]
    assert whole < per_image("colourisation", "train", "l1_only") < 1.01 * whole


def test_one_discriminator_more_costs_what_its_table_says():
    """D of Fig. 2: of a step, 2 on real (forward, weights), 2 on fake, 2 through it to G.

    Gradients of an input cost as much again, but for c1, whose input needs none in D's own steps.
    """
    widths = (64, 128, 256, 512)
    first, *rest = (conv(a, b, 4, 128 >> i) for i, (a, b) in enumerate(pairwise((3, *widths))))
    rest.append(conv(512, 1, 4, 16))
    D = 2 * (2 * first + 3 * sum(rest)) + 2 * (first + sum(rest))
    found = {name: per_image("colourisation", "train", name) for name in ("l1_only", "bn")}
    assert found["bn"] - found["l1_only"] == pytest.approx(D, rel=1e-3)


def test_resnet50_has_the_operations_that_torchvision_prints_and_bot_those_of_its_size():
    """torchvision: 4.09 GFLOPS, a multiply-add counted once, of 224 x 224 px (ResNet50_Weights).

    BoT sees 256 x 128 px, and its layer4 has stride 1: four times the places, but for the first
    convolution, which stays.
    """
    with torch.device("meta"):
        net: Any = resnet50()
        x = torch.empty(1, 3, 224, 224)
        assert flops.of_network(net, x, backward=False) == pytest.approx(2 * 4.09e9, rel=0.01)
        net.layer4[0].conv2.stride = net.layer4[0].downsample[0].stride = (1, 1)
        bot = flops.of_network(net, torch.empty(1, 3, 256, 128))
    assert per_image("deep_features", "train_reid", "bot") == pytest.approx(bot, rel=0.01)


def test_loss_networks_cost_what_is_between_the_variants():
    """Paper B, relu3_3 of VGG16 at 256 px: forward twice, and back to the output once."""
    vgg = (
        conv(3, 64, 3, 256) + conv(64, 64, 3, 256) + conv(64, 128, 3, 128) + conv(128, 128, 3, 128)
    )
    vgg += conv(128, 256, 3, 64) + 2 * conv(256, 256, 3, 64)
    found = {
        name: per_image("sift_inversion", "train", name) for name in ("R42_L2", "R42_J_nostyle")
    }
    assert found["R42_J_nostyle"] - found["R42_L2"] == pytest.approx(3 * vgg, rel=1e-3)


def test_the_perceptual_loss_of_paper_c_costs_layer1_of_resnet50_three_times():
    """At 384 x 128 px, where maps have a quarter of the sides: of x, of x' and back to x'."""
    pixels = 2 * 96 * 32
    blocks = 64 * 64 + 64 * 256 + 3 * 9 * 64 * 64 + 3 * 64 * 256 + 2 * 256 * 64
    layer1 = 4 * pixels * 3 * 64 * 49 + pixels * blocks
    found = {name: per_image("deep_features", "reconstruct", name) for name in ("pixel", "fr")}
    assert found["fr"] - found["pixel"] == pytest.approx(3 * layer1, rel=1e-3)


def test_the_images_are_those_of_profile_paper():
    profile = load_params()["profiles"]["paper"]
    transform = PAPERS["gan_transform"]["transform"]["proposed"]
    assert transform["images"] == profile["gan_transform"]["transform"]["epochs"] * 50_000
    assert transform["trainings"] == len(profile["gan_transform"]["shared"]["seeds"])
    of_d = PAPERS["colourisation"]["train"]["bn"]
    assert of_d["images"] == 200 * 49_000  # Sec. IV-A
    assert of_d["precision"] == profile["colourisation"]["train"]["precision"]
    of_c = PAPERS["deep_features"]["reconstruct"]["fr_adv"]
    assert of_c["images"] == 300 * 200 * 64  # the authors' code: 300 epochs of 200 batches
    assert of_c["trainings"] == 6 * len(profile["deep_features"]["shared"]["seeds"])
    assert PAPERS["deep_features"]["train_reid"]["sbs"]["precision"] == "32-true"


def test_every_run_of_params_is_counted():
    params = load_params()
    assert set(PAPERS["colourisation"]["train"]) == set(params["colourisation"]["variants"])
    assert set(PAPERS["sift_inversion"]["train"]) == set(params["sift_inversion"]["coarse"])
    assert set(PAPERS["deep_features"]["train_reid"]) == set(params["deep_features"]["models"])
    assert set(PAPERS["deep_features"]["reconstruct"]) == set(params["deep_features"]["losses"])
    schemes = {name.split()[0] for name in PAPERS["gan_transform"]["classify"]}
    assert schemes == set(params["gan_transform"]["schemes"])


def test_counting_again_gives_the_committed_number():
    target, classified = flops.classifiers()
    for stage, runs in (("train_target", target), ("classify", classified)):
        assert set(runs) == set(PAPERS["gan_transform"][stage])
        for name, run in runs.items():
            committed = PAPERS["gan_transform"][stage][name]
            assert run == committed | {"flop_per_image": run["flop_per_image"]}
            assert run["flop_per_image"] == pytest.approx(committed["flop_per_image"], rel=1e-4)
