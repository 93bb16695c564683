import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.common.render import PAGE_LIMIT_BYTES, loads
from stages.sift_inversion import report
from stages.sift_inversion.score import score
from stages.sift_inversion.summaries import COMPARED, RUNS

STAGES = ("prepare", "extract", "train", "refine", "evaluate")
NOTEBOOK = Path("notebooks/sift_inversion.ipynb")
SECTIONS = re.findall(r"report\.(\w+)\(run\)", NOTEBOOK.read_text(encoding="utf-8"))
PICTURES = [name for name in SECTIONS if name.startswith("fig")]
PARAMS = """
profile: smoke
profiles:
  smoke:
    sift_inversion:
      shared: {seeds: [0, 1], size: 32}
      prepare: {faces: toy_faces, multi: toy_multi}
      train: {width: 0.125, phi_size: 16, images: 96}
      refine: {phi_size: 16, ngf: 16, n_critic: 1}
      score: {}
sift_inversion:
  shared: {threads: 1}
  train: {width: 1, phi: hed, phi_layer: relu3_3, lambda_s: 1e-4, precision: 32-true}
  refine: {n_critic: 5, conditional: true, adversarial: bce}
  variants:
    R42_J: {inputs: [4, 2], loss: joint}
"""


def make_root(root):
    plan = "".join(f"    {name}: {{}}\n" for name in RUNS if name != "R42_J")
    (root / "params.yaml").write_text(PARAMS + plan)
    paper = root / "stages" / "sift_inversion" / "paper.yaml"
    paper.parent.mkdir(parents=True)
    paper.write_bytes(Path("stages/sift_inversion/paper.yaml").read_bytes())
    return root


def _load(root):
    return report.load("smoke", root / "figures", root)


def _scored(root, seeds=(0, 1)):
    folder = root / "artifacts" / "smoke" / "sift_inversion"
    score(
        *(folder / name for name in STAGES),
        root / "reports" / "results" / "smoke" / "sift_inversion",
        seeds=list(seeds),
        variants=list(RUNS),
        level=0.95,
        resamples=100,
        fd_resamples=10,
        seed=0,
    )
    return _load(root)


@pytest.fixture
def make_run(tmp_path, tmp_path_factory, artifacts_tree):
    """Return a function that makes a world, scores it and loads what the page is made of."""

    def make(**world):
        usual = tmp_path_factory.getbasetemp() / "usual_sift_world"
        if not world and usual.exists():
            shutil.copytree(usual, tmp_path, dirs_exist_ok=True)
            return _load(tmp_path)
        root = make_root(tmp_path)
        artifacts_tree(root / "artifacts" / "smoke" / "sift_inversion", **{"size": 32, **world})
        run = _scored(root, world.get("seeds", (0, 1)))
        if not world:
            shutil.copytree(root, usual)
        return run

    return make


def _results(run):
    return run.figures.parent / "reports" / "results" / "smoke" / "sift_inversion"


def _judged(run, change):
    """Let ``change`` edit the details of the claims, by id, and load everything again."""
    content = read_json(_results(run) / "claims.json")
    change({detail["id"]: detail for detail in content["details"]})
    write_json(_results(run) / "claims.json", content)
    return _load(run.figures.parent)


def _words(html):
    return re.sub(r"<[^>]+>", "", html).replace("&#x27;", "'")


def _answer(run):
    return _words(report.finding(run).split("</p>")[0])


def _rows(html):
    return re.split("<tr[^>]*>", html)


def _row(html, name):
    starts = (f'<th scope="row">{name}<', f'<th scope="row" class="text">{name}<')
    return next(row for row in _rows(html) if row.startswith(starts))


# ---------------------------------------------------------------- the first paragraph


def test_finding_answers_where_the_paper_is_right(make_run):
    run = make_run()
    answer = _answer(run)
    found = run.cell("R42_G", "id1")
    assert answer.startswith(
        "From the SIFT descriptors of a face alone, the paper's method (R42_G) makes an image "
        f"whose nearest of 48 originals is the right one in {found['value']:.1f} % of cases ["
    )
    assert "above chance, 2.1 % (C12 supported)." in answer
    pd = run.cell("R42_G", "pd")["value"]
    assert f"(PD, 0 is perfect) is {pd:.3f}, below that of the mean training image (" in answer
    assert "(DC, 1 is perfect) of 0.70" in answer and "not told apart from that of" in answer
    assert "beats the earlier network B5, trained on the same images, in every measure" in answer
    assert (
        "Parts of the method shown to earn it: the joint loss (C2 supported), the second scale "
        "(C3 supported) and the adversarial stage (C4 supported)." in answer
    )
    details, rest = (_words(part) for part in report.finding(run).split("</p>")[1:3])
    assert "Control, two scales against two networks on one scale (R42_J, R44_J): PD 0." in details
    assert "(R42_J, R42_L2): PD 0.55" in details and "PSNR 20." in details
    assert "48 test images of toy_faces (faces) and 40 test images of toy_multi (multi)" in rest
    assert "at 32 pixels with 2 seeds (profile smoke). Of 13 claims, " in rest
    assert "Not run" not in rest


def test_finding_says_no_where_nothing_is_given_away(make_run):
    means = {("R42_G", "id1"): 0.02, ("R42_G", "pd"): 1.4, ("R42_G", "dcos"): 0.1}
    run = make_run(world={**means, ("B5", "pd"): 0.3, ("R4_G", "pd"): 0.3, ("R42_L2", "pd"): 0.1})
    answer = _answer(run)
    assert "no more than chance, 2.1 % (C12 inconclusive)" in answer  # it has learnt nothing
    assert re.search(r"is 1\.\d+, above that of the mean training image \((0\.9|1\.0)", answer)
    assert "of 0.100, below that of the mean training image (0.3" in answer
    assert "(C1 inconclusive)" in answer
    assert "Parts that lose in at least one measure: the joint loss (C2 contradicted)." in answer
    assert "the second scale (C3 inconclusive) and the adversarial stage (C4 incon" in answer


def test_one_seed_leaves_claims_open_and_missing_runs_are_named(make_run):
    lost = ("R42_G", "R4_G", "R42_N", "M_R42_G")
    some = [name for name in RUNS if name not in lost]
    run = make_run(seeds=(0,), runs=some, partial_run="R42_J")
    answer, details, rest = map(_words, report.finding(run).split("</p>")[:3])
    assert "the network R42_J, since the paper's method (R42_G) was not run, makes" in answer
    assert "(C12 not run)" in answer and "was not judged (C1 not run)" in answer
    assert "Parts whose gain stays open: the joint loss (C2 inconclusive)." in answer
    assert "Parts not judged: the second scale (C3 not run) and the adversarial stage" in answer
    assert "Control, two scales against two networks" in details and "R42_G" not in details
    assert "One seed cannot tell a method from luck" in rest
    assert "Not run: R42_N, R4_G, R42_G and M_R42_G." in rest
    table = report.runs(run)
    assert table.count("chip not-run") == 4 and "chip not-run" in _row(table, "R42_G")
    assert "Not run: R42_G" in report.fig5(run) and "chip not-run" in report.fig6(run)
    assert "chip not-run" in report.fig8(run)
    assert "R42_J, from these" in report.fig7(run)
    assert report.design(run).count("–</td>") == 3 * 3
    assert "D, of a pair" not in report.architecture(run)
    assert "not run" in report.controls(run)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("contradicted", "Parts that lose in at least one measure: the second scale (C3 contra"),
        ("inconclusive", "Parts whose gain stays open: the second scale (C3 inconclusive)."),
        ("not run", "Parts not judged: the second scale (C3 not run)."),
    ],
)
def test_finding_follows_the_verdict_of_each_part(make_run, verdict, words):
    run = _judged(make_run(), lambda details: details["C3"].update(verdict=verdict))
    assert words in _answer(run)
    assert "shown to earn it: the joint loss (C2 supported) and the adversarial" in _answer(run)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            "contradicted",
            "loses to the earlier network B5, trained on the same images, in at least one",
        ),
        (
            "inconclusive",
            "beats the earlier network B5, trained on the same images, stays open (C1",
        ),
        ("not run", "beats the earlier network B5, trained on the same images, was not judged (C1"),
    ],
)
def test_finding_follows_the_verdict_on_the_whole(make_run, verdict, words):
    assert words in _answer(_judged(make_run(), lambda d: d["C1"].update(verdict=verdict)))


def test_gain_without_its_control_is_not_called_earned(make_run):
    def unsure(details):
        for part in details["C4"]["parts"]:
            if "R42_N" in part["name"]:
                part["verdict"] = "inconclusive"
        parts = details["C3"]["parts"]
        details["C3"]["parts"] = [part for part in parts if "R44_J" not in part["name"]]

    answer = _answer(_judged(make_run(), unsure))
    assert (
        "Parts that gain, but not shown to be more than their control: the second scale (R44_J, "
        "two networks on one scale, not run) (C3 supported) and the adversarial stage (R42_N, "
        "the same G without adversary) (C4 supported)." in answer
    )


def test_discriminator_that_won_is_told(make_run):
    run = make_run()
    content = read_json(_results(run) / "table.json")
    row = next(row for row in content["rows"] if row["name"] == "R42_G")
    row["collapsed"] = [0, 1]
    write_json(_results(run) / "table.json", content)
    run = _load(run.figures.parent)
    assert "won outright in R42_G, seed 0 and 1." in _words(report.finding(run))
    assert "R42_G: seed 0 and 1" in report.controls(run)


# ---------------------------------------------------------------- tables


def test_table_has_all_runs_and_quiet_floors(make_run):
    run = make_run()
    table = report.runs(run)
    names = [m[1] for m in re.finditer(r'<th scope="row">(\w+)<', table)]
    faces = [name for name in RUNS if not name.startswith("M_")]
    assert names[: len(faces)] == faces and set(names) >= set(RUNS)
    assert table.count('class="quiet') == 10
    head = table[table.index("<thead>") : table.index("</thead>")]
    for words in ("PSNR (dB) ↑", "PD ↓", "ΔCbCr (levels) ↓", "ID1 (%) ↑", "FD ↓"):
        assert words in head
    pd = run.cell("R42_G", "pd")
    shown = f"{pd['value']:.3f} <small>[{pd['lo']:.3f}, {pd['hi']:.3f}]</small>"
    assert shown in _row(table, "R42_G")
    assert "faces toy_faces instead of celeba" in table and "95 % intervals" in table
    lines = (run.figures / "runs.csv").read_text().splitlines()
    assert len(lines) == 1 + len(RUNS) + 10
    assert lines[0].startswith("name,set,kind,psnr,psnr lo,psnr hi,psnr n")
    assert any(line.startswith("R42_G,faces,run,") for line in lines)


def test_regions_have_their_own_columns(make_run):
    table = report.regions(make_run())
    for words in ("far from keypoints", "ln SHARP", "r of Cb", "PD face − rest at equal texture"):
        assert words in table


def test_design_leaves_out_what_no_run_covers(make_run):
    run = make_run()
    table = report.design(run)
    assert "not-run" not in table and "–</td>" not in table
    head = table[table.index("<thead>") : table.index("</thead>")]
    assert [head.count(f"map {m} px") for m in ("4", "2", "4 + 4", "4 + 2")] == [1, 1, 1, 1]
    pd = run.cell("R42_N", "pd")
    assert f"{pd['value']:.3f} <small>[" in _row(table, "joint, then G")


def test_effects_say_better_and_worse_only_where_it_is_sure(make_run):
    run = make_run()
    effect = next(r for r in run.ablation["axes"][0]["rows"] if r["first"] == "R42_L2")["effects"]
    row = _row(report.effects(run), "R42_L2 → R42_J")
    assert f"−{-effect['pd']['difference']:.3f} <small>[" in row
    words = [re.search(r"\](.*?)</small>", cell)[1] for cell in row.split("<td")[2:]]
    sides = {True: " better", False: " worse", None: ""}
    assert words == [sides[effect[metric]["better"]] for metric in COMPARED]
    assert " better" in words and " worse" in words
    head, line = (run.figures / "effects.csv").read_text().splitlines()[:2]
    assert line.startswith("loss,R4_L2,R4_J,")
    assert (
        head == "axis,first,second,change,metric,first value,second value,difference,lo,hi,better"
    )


def test_leakage_lists_what_is_left_and_the_floors(make_run):
    run = make_run()
    html = report.leakage(run)
    row = _row(html, "centred box of 10 %")
    box = next(b for b in run.partial["boxes"] if b["condition"] == "box-centre-centre-0.1")
    assert f"{100 * box['removed']:.1f}</td>" in row
    assert f"{box['values']['pd_in_mean']['value']:.3f}" in row
    names = re.findall(r'<th scope="row"[^>]*>([^<]+)<', html)
    assert names[0] == "all keypoints" and "centred box of 40 %, by support" in names
    assert names[-4:-2] == ["50 % of them, at random", "10 % of them, at random"]
    assert names[-2:] == ["only large ones", "only small ones"]
    content = (run.figures / "leakage.csv").read_text()
    assert "eyes box,support,eyes,0.4," in content and "at random,,,0.1," in content


def test_keypoints_are_the_counted_ones(make_run):
    run = make_run()
    table = report.sift_facts(run)
    of = run.keypoints["faces"]
    assert f"{of['per_image']['value']:.1f} <small>" in _row(table, "keypoints an image")
    share = 100 * of["occupancy"]["2"]["value"]
    assert f"{share:.1f} <small>" in _row(table, "cells of 2 px that hold one (%)")
    assert "collision adjacent" in table and "toy_multi" in table


def test_networks_are_listed_with_the_papers_size(make_run):
    html = report.architecture(make_run())
    for count in ("12,995,843", "12,881,539", "11,378,179", "2,768,705", "56,197,443"):
        assert f"(at the paper's size {count})" in _words(html)
    G = html[html.index("G, added to its input") :]
    assert "64 × 8 × 8</td>" in G and '<td class="num">6</td>' in G  # 3 blocks of 2 equal layers
    assert "128</td>" in html and "133</td>" in html  # channels of F_d, and of the baseline's


def test_controls_are_read_both_ways(make_run):
    run = make_run()
    table = report.controls(run)
    assert "chip" not in table
    assert (
        "chance, as it must be" in table
        and "found without its colour" in table
        and "none</td>" in table
    )
    assert "better: 0.55" in table and "against 0.62" in table  # two scales, two networks
    for row in run.ablation["axes"][1]["rows"]:
        if row["first"] == "R44_J":
            row["effects"]["pd"]["better"] = None
    assert "not told apart: 0.55" in report.controls(run)
    run.floors["faces", "mean"]["values"]["id1"].update(value=50.0, lo=40.0, hi=60.0)
    assert "ID1 would be wrong" in report.controls(run)
    run.floors["faces", "grey"]["values"]["id1"].update(value=2.0, lo=0.0, hi=4.0)
    assert "retrieval needs colour" in report.controls(run)


# ---------------------------------------------------------------- the page


def test_pictures_say_what_is_under_their_tiles(make_run):
    run = make_run()
    for name in PICTURES:
        html = getattr(report, name)(run)
        number = name.removeprefix("fig")
        assert f"<figcaption>Fig. {number}. " in html and "PD, perceptual distance" in html
        assert (run.figures / f"{name}.csv").exists()
    assert "columns original, keypoints, B5 and R42_G;" in report.fig1(run)
    assert "a box of 10 % of the image" in report.fig7(run)


def test_fig_7_takes_the_box_nearest_to_the_claims(make_run):
    run = make_run()
    for box in run.partial["boxes"]:
        if box["f"] == 0.1:
            box["mode"] = "support"
    assert "a box of 40 % of the image" in report.fig7(run)


def test_learning_curves_say_how_strong_the_adversary_is(make_run):
    caption = _words(report.learning_curves(make_run()))
    assert "the adversary's gradient is 0.10 of the joint one" in caption


def test_every_section_says_not_run_when_there_is_nothing(tmp_path):
    run = _load(make_root(tmp_path))
    text = _words(report.finding(run))
    assert text.startswith("No network has reconstructed a face yet. Whether the whole method")
    assert "Parts not judged: the joint loss (C2 not run), the second scale" in text
    assert "has no results yet" in text and "13 not run" in text
    for name in SECTIONS:
        html = getattr(report, name)(run)
        if name not in ("finding", "deviations", "provenance"):
            assert "not run" in html, name
    assert "PatchGAN" in report.deviations(run)


def test_page_of_all_sections_loads_nothing_and_is_small(make_run):
    run = make_run(size=64, meta={"panel": {"faces": list(range(8)), "multi": list(range(8))}})
    page = "\n".join(getattr(report, name)(run) for name in SECTIONS)
    assert loads(page) == []
    assert len(page.encode()) < PAGE_LIMIT_BYTES
    allowed = page.replace('not-run">not run</span> 0', "").replace("a dash: not run", "")
    parts = [p for c in run.claims for p in c["parts"] if p["verdict"] == "not run"]
    assert allowed.count(">not run<") == len(parts)
    assert "nan" not in re.sub(r"base64,[\w+/=]+", "", page).lower().split()


def test_figures_of_images_that_do_not_compress_have_fewer_rows(tmp_path, artifacts_tree):
    root = make_root(tmp_path)
    folder = root / "artifacts" / "smoke" / "sift_inversion"
    artifacts_tree(folder, size=128, runs=["R42_G"], conditions=[], seeds=(0,), n=8, n_train=8)
    rng = np.random.default_rng(0)
    for file in ("prepare/faces_test.npz", "reconstruct/R42_G/full-s0.npz"):
        noise = rng.integers(0, 256, (8, 128, 128, 3), np.uint8)
        write_npz(folder / file, **{**read_npz(folder / file), "images": noise})
    run = _load(root)
    html = report.fig5(run)
    assert len(html) < report.FIGURE_LIMIT_BYTES and "Not run: B5." in html
    with Image.open(run.figures / "fig5.png") as image:
        assert image.height < 3 * 128 + 100  # of the panel's four rows


def test_page_text_is_escaped(make_run):
    run = make_run()
    path = run.artifacts / "prepare" / "meta.json"
    content = read_json(path)
    content["sets"]["faces"] |= {"attribution": "drawn by <a test>", "dataset": "a<b"}
    write_json(path, content)
    run = _load(run.figures.parent)
    assert "drawn by &lt;a test&gt;" in report.fig1(run) + report.provenance(run)
    shown = report.finding(run) + report.sift_facts(run) + report.provenance(run)
    assert "a<b" not in shown + report.deviations(run)


def test_results_of_other_runs_that_lie_about_are_ignored(make_run):
    run = make_run()
    write_json(_results(run) / "removed.json", {"pd": 1.0})
    assert "removed" not in _load(run.figures.parent).rows


def test_deviations_follow_the_parameters_and_the_data(make_run):
    run = make_run()
    table = _words(report.deviations(run))
    assert "faces: celeba, 8,000 to train and 1,000 to test, 256 pixels" in table
    assert "toy_faces, 64 to train and 48 to test, 32 pixels" in table
    assert "4 classes: toy_multi, 64 to train and 40 to test" in table
    assert "averaged to 16 pixels a side" in table and "VGG16 refined for contours" in table
    assert "steps of D to one of G: 51" in table  # 5 | 1
    assert "λ_s" not in table and "bfloat16" not in table and "pair" not in table
    own = run.params["profiles"]["smoke"]["sift_inversion"]
    own["train"]["precision"] = "bf16-mixed"
    own["refine"]["conditional"] = False
    table = report.deviations(run)
    assert "bfloat16" in table and "D sees one image only" in table


def test_notebook_shows_every_section_once():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    ids = [cell["id"] for cell in notebook["cells"]]
    assert ids[:3] == ["title", "parameters", "finding"] and len(set(ids)) == len(ids)
    assert len(set(SECTIONS)) == len(SECTIONS) == 19
    assert all(callable(getattr(report, name)) for name in SECTIONS)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
