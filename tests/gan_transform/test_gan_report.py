import json
import re
import shutil
from pathlib import Path

import pytest

from stages.common.files import read_json, write_json
from stages.common.render import PAGE_LIMIT_BYTES, loads
from stages.gan_transform import report
from stages.gan_transform.score import score

STAGES = ("prepare", "train_target", "perturb", "transform", "encrypt", "attack", "cryptanalyse")
SECTIONS = re.findall(r"report\.(\w+)\(run\)", Path("notebooks/gan_transform.ipynb").read_text())
PARAMS = """
profile: smoke
profiles:
  smoke:
    gan_transform:
      shared: {seeds: [0, 1], target_width: 8}
      prepare: {dataset: toy, size: 16}
      train_target: {}
      perturb: {n: 24, steps: 50}
      transform: {epochs: 1}
      attack: {ga_iterations: 80}
      classify: {epochs: 1}
gan_transform:
  schemes: [plain, proposed]
  shared: {threads: 1}
  perturb: {epsilon: 0.251, n: ~}
  transform: {phi: hed, phi_layer: relu1_2, gamma1: -1, precision: 32-true}
  classify: {schedule: one_cycle, lr: 0.1}
  variants:
    proposed: {rec_reduction: mean}
"""


def make_root(root):
    (root / "params.yaml").write_text(PARAMS)
    paper = root / "stages" / "gan_transform" / "paper.yaml"
    paper.parent.mkdir(parents=True)
    paper.write_bytes(Path("stages/gan_transform/paper.yaml").read_bytes())
    return root


def _load(root):
    return report.load("smoke", root / "figures", root)


@pytest.fixture
def make_run(tmp_path, tmp_path_factory, artifacts_tree):
    """Return a function that makes a world, scores it and loads what the page is made of."""

    def make(**world):
        usual = tmp_path_factory.getbasetemp() / "usual_world"
        if not world and usual.exists():
            shutil.copytree(usual, tmp_path, dirs_exist_ok=True)
            return _load(tmp_path)
        root = make_root(tmp_path)
        folder = artifacts_tree(root / "artifacts" / "smoke" / "gan_transform", **world)
        score(
            *(folder / name for name in (*STAGES, "classify")),
            root / "reports" / "results" / "smoke" / "gan_transform",
            seeds=[0, 1],
            variants=["proposed", "proposed_sum"],
            level=0.95,
            resamples=200,
            seed=0,
        )
        if not world:
            shutil.copytree(root, usual)
        return _load(root)

    return make


def _results(run):
    return run.figures.parent / "reports" / "results" / "smoke" / "gan_transform"


def _judged(run, claim, verdict):
    """Change the verdict on a claim, and load everything again."""
    content = read_json(_results(run) / "claims.json")
    for detail in content["details"]:
        if detail["id"] == claim:
            detail["verdict"] = verdict
    write_json(_results(run) / "claims.json", content)
    return _load(run.figures.parent)


def _answer(run):
    return report.finding(run).split("</p>")[0]


def _words(html):
    return re.sub(r"<[^>]+>", "", html)


def test_finding_says_yes_where_the_paper_is_right(make_run):
    run = make_run()
    answer = _answer(run)
    assert "<p>The proposed scheme gives away less than every other scheme under the" in answer
    assert '(<a href="#C2b">C2b</a> supported)' in answer
    worst = run.results["proposed"]
    assert (
        f"{worst['worst_ssim']:.3f} ({worst['worst_attack']}), lower than that of all 3" in answer
    )
    assert "pe_same 1.000 (kpa_pe), pe_diff" in answer and "tanaka 1.000 (kpa_le)" in answer
    assert (
        "right for 91.7 % of toy (8.3 points fewer than on plain images; above guessing, " in answer
    )
    assert "% of toy_transfer, which h_p never saw (" in answer
    assert f"(itn) recovers an SSIM of {run.matrix['proposed', 'itn']['ssim']:.3f}" in answer
    assert answer.count("less than a blank image") == 2
    assert "pc1 recovers pe_same to an SSIM of 0.97" in answer
    assert "qap recovers tanaka to an SSIM of 0.95" in answer
    rest = report.finding(run)
    assert "Attacks were judged on 10 images of toy at 16 pixels" in rest
    assert "with 2 seeds (profile smoke). Of 16 claims, " in rest


def test_finding_says_no_where_inversion_beats_the_scheme(make_run):
    world = {("proposed", "itn"): 0.99, ("proposed", "g_ba"): 0.9}
    run = make_run(ssim=world, acc={"proposed": (1.0, 1.0), "plain": (0.9, 0.9)})
    answer = _answer(run)
    assert "The proposed scheme does not give away less than every other scheme" in answer
    assert '(<a href="#C2b">C2b</a> contradicted)' in answer
    assert "(itn), lower than that of 2 of the 3 others" in answer
    assert "points more than on plain images; above guessing, 25.0 %)" in answer
    assert answer.count("more than a blank image") == 2
    assert '(<a href="#X1">X1</a> contradicted)' in answer


def test_finding_compares_with_none_and_with_equal_accuracy(make_run):
    weak = (("pe_same", "kpa_pe"), ("tanaka", "kpa_le"), ("pe_same", "pc1"), ("tanaka", "qap"))
    world = {**dict.fromkeys(weak, 0.2), ("proposed", "itn"): 1.0}
    run = make_run(ssim=world, acc={"proposed": (0.5, 0.5), "plain": (0.5, 0.5)})
    answer = _answer(run)
    assert "lower than that of none of the 3 others" in answer
    assert "% of toy (as on plain images; " in answer


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("inconclusive", "attack that all four were given stays open (C2b inconclusive)."),
        ("not run", "attack that all four were given was not judged (C2b not run)."),
    ],
)
def test_finding_does_not_answer_what_is_open(make_run, verdict, words):
    answer = _words(_answer(_judged(make_run(), "C2b", verdict)))
    assert answer.startswith("Whether the proposed scheme gives away less")
    assert words in answer


def test_finding_lists_verdicts_as_links(make_run):
    text = report.finding(_judged(make_run(), "C7", "contradicted"))
    assert 'Contradicted: <a href="#C7">C7</a>' in text
    assert re.search(r'Supported: <a href="#C1">C1</a>.* and <a href="#X2">X2</a>\.', text)


def test_table_1_names_the_data_that_were_used(make_run):
    run = make_run()
    table = report.table1(run)
    head = table[table.index("<thead>") : table.index("</thead>")]
    for title in ("UWA: SSIM, toy", "GA: SSIM, toy", "accuracy (%), toy", "toy_transfer"):
        assert title in head
    assert not re.search("cifar|stl", head, re.IGNORECASE)
    for words in ("0.0956", "90.73", "ga_blockwise", "proposed_sum", "noise", "blank image"):
        assert words in table
    assert "dataset toy instead of cifar10" in table
    assert "10, 10, 12 and 14 test images a column, 2 seeds" in table
    lines = (run.figures / "table1.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 + 2 + 4 + 1
    assert lines[0].startswith("scheme,uwa attack,uwa paper,uwa ours,uwa lo,uwa hi")


def test_table_1_has_no_verdict_where_the_paper_has_no_value(make_run):
    rows = re.split("<tr[^>]*>", report.table1(make_run()))
    plain = next(row for row in rows if row.startswith('<th scope="row">plain'))
    judged = ["chip" in cell for cell in plain.split("<td")[1:]]
    assert judged == [False] * 8 + [True] + [False] * 2 + [True]


def test_matrix_marks_the_worst_shades_and_adds_the_floors(make_run):
    run = make_run()
    table = report.matrix(run)
    assert table.count("<b>") == 11  # one worst a scheme
    row = next(r for r in table.split("<tr>") if r.startswith('<th scope="row">itn'))
    assert "rgba(0,114,178,0.40)" in row or "rgba(0,114,178,0.39)" in row  # proposed_sum: 0.8
    assert row.count("–</td>") == 4  # the extras were not attacked by training
    assert "ciphers alone" in table and "without the cipher" in table
    for name in ("blank image", "mean colour", "another image", "random image"):
        assert name in table
    head, *lines = (run.figures / "matrix.csv").read_text().splitlines()
    assert head == "scheme,attack,family,ssim,lo,hi,abs,gauss,oracle,rate,n,seeds"
    assert sum(line.startswith("floor,") for line in lines) == 4
    assert "insider" in table and "public images" in table  # the legend


def test_control_on_plain_images_is_read_both_ways(make_run):
    run = make_run()
    assert "reaches the 0.5 asked for" in report.controls(run)
    run.matrix["plain", "ga_unet"]["ssim"] = 0.2
    assert "below the 0.5 asked for: its low SSIM on the proposed" in report.controls(run)
    assert "no pixel differs" in report.controls(run)
    run.protection["variants"]["proposed_sum"]["mismatches"] = 3
    assert "most in proposed_sum" in report.controls(run)
    assert "10.00 %" in report.controls(run)  # pixels without a gradient


def test_kerckhoffs_compares_pairs_with_none(make_run):
    run = make_run()
    for itn, side in ((0.9, "more"), (0.02, "less")):
        run.matrix["proposed", "itn"]["ssim"] = itn
        assert f"{side} than the GAN attack without pairs" in report.kerckhoffs(run)
    del run.matrix["proposed", "itn"], run.matrix["proposed", "g_ba"]
    assert "It reaches" not in report.kerckhoffs(run) and "recovers" not in report.kerckhoffs(run)


def test_training_free_attacks_say_what_of_the_key_was_found(make_run):
    run = make_run()
    table = report.training_free(run)
    assert "places of all half bytes: 95.0 %; places of upper half bytes: 95.0 %" in table or (
        "places of upper half bytes: 95.0 %; places of all half bytes: 95.0 %" in table
    )
    assert "bits of the mask: 95.0 %" in table and "over 2 keys" in table
    assert "rate_pc1" in (run.figures / "training_free.csv").read_text()


def test_protection_and_ablation_have_both_readings(make_run):
    run = make_run()
    table = report.protection(run)
    assert "their h_p, proposed_sum" in table and "100.0 <small>[100.0, 100.0]" in table
    assert f"{run.results['proposed_sum']['worst_ssim']:.3f} (itn)" in report.ablation(run)
    (_results(run) / "proposed_sum.json").unlink()
    assert report.ablation(_load(run.figures.parent)).count("chip not-run") == 6


def test_learning_curves_say_whether_the_guard_acted(make_run):
    run = make_run()
    assert "never had to cap" in report.learning_curves(run)
    path = run.artifacts / "transform" / "proposed" / "history-s1.json"
    history = read_json(path)
    history["log"][2]["capped"] = 1.0
    write_json(path, history)
    assert "capped the perceptual terms of proposed, first at 32 pairs" in report.learning_curves(
        run
    )


def test_every_section_says_not_run_when_there_is_nothing(tmp_path):
    run = _load(make_root(tmp_path))
    text = report.finding(run)
    assert "The schemes were not attacked yet." in text
    assert "has no results yet" in text and "16 not run" in text
    for name in SECTIONS:
        html = getattr(report, name)(run)
        if name not in ("finding", "kerckhoffs", "deviations", "provenance"):
            assert "not run" in html, name
    assert "least squares" in report.deviations(run)


def test_page_of_all_sections_loads_nothing_and_is_small(make_run):
    run = make_run(size=32, attack_size=96)
    page = "\n".join(getattr(report, name)(run) for name in SECTIONS)
    assert loads(page) == []
    assert len(page.encode()) < PAGE_LIMIT_BYTES
    assert "not run" not in page.replace('not-run">not run</span> 0', "")
    assert "nan" not in re.sub(r"base64,[\w+/=]+", "", page).lower().split()


def test_results_of_other_schemes_that_lie_about_are_ignored(make_run):
    run = make_run()
    write_json(_results(run) / "removed.json", {"acc_ten": 1.0, "worst_ssim": 0.5})
    run = _load(run.figures.parent)
    assert "removed" not in run.results
    assert "removed" not in report.table1(run) + report.matrix(run)


def test_deviations_follow_the_parameters_and_the_data(make_run):
    run = make_run()
    table = report.deviations(run)
    assert "toy, 24 to train and 12 to test, 16 pixels" in table
    assert "epochs of the CycleGAN: 5,000</td><td>1</td>" in table
    assert "training images in P: all</td><td>24</td>" in table
    assert "batches of the GAN attack (100 epochs): 3,900" in table
    assert "steps of eq. 3" not in table and "λ:" not in table
    assert "bfloat16" not in table
    run.params["profiles"]["smoke"]["gan_transform"]["transform"]["precision"] = "bf16-mixed"
    assert "bfloat16" in report.deviations(run)


def test_page_text_is_escaped(make_run):
    run = make_run(meta={"attribution": {"toy": "drawn by <a test>"}, "dataset": "a<b"})
    assert "drawn by &lt;a test&gt;" in report.ciphers(run) + report.provenance(run)
    assert "a<b" not in report.finding(run) + report.table1(run) + report.provenance(run)


def test_notebook_shows_every_section_once():
    notebook = json.loads(Path("notebooks/gan_transform.ipynb").read_text())
    ids = [cell["id"] for cell in notebook["cells"]]
    assert ids[:3] == ["title", "parameters", "finding"] and len(set(ids)) == len(ids)
    assert len(set(SECTIONS)) == len(SECTIONS) == 16
    assert all(callable(getattr(report, name)) for name in SECTIONS)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
