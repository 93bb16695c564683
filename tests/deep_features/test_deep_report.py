import json
import re
import shutil
from pathlib import Path

import pytest

from stages.common.files import read_json, write_json
from stages.common.render import loads
from stages.deep_features import report
from stages.deep_features.deviations import ALWAYS, of_parameters
from stages.deep_features.score import score

STAGES = (
    *("prepare", "train_reid", "extract", "attributes", "reconstruct", "evaluate", "encrypt"),
    "cryptanalyse",
)
NOTEBOOK = Path("notebooks/deep_features.ipynb")
SECTIONS = re.findall(r"report\.(\w+)\(run\)", NOTEBOOK.read_text(encoding="utf-8"))
LIMIT_BYTES = 1_000_000  # of this page
PARAMS = """
profile: smoke
profiles:
  smoke:
    deep_features:
      shared: {seeds: [0, 1]}
      prepare: {proprietary: synth_p, local_sets: [synth_a, synth_b], height: 16, width: 8}
      attributes: {epochs: 30}
      score: {}
deep_features:
  shared: {threads: 1}
  attributes: {batch_size: 128, lr: 5e-5}
  reconstruct: {phi: hed, lr: 1e-4}
  evaluate: {allow_real_grids: false}
  variants: {bot: {}, agw: {}, sbs: {}}
"""


def make_root(root):
    (root / "params.yaml").write_text(PARAMS)
    paper = root / "stages" / "deep_features" / "paper.yaml"
    paper.parent.mkdir(parents=True)
    paper.write_bytes(Path("stages/deep_features/paper.yaml").read_bytes())
    return root


def _load(root):
    return report.load("smoke", root / "figures", root)


def _scored(root, seeds=(0, 1), models=("bot", "agw", "sbs")):
    folder = root / "artifacts" / "smoke" / "deep_features"
    score(
        *(folder / name for name in STAGES),
        root / "reports" / "results" / "smoke" / "deep_features",
        seeds=list(seeds),
        variants=list(models),
        level=0.95,
        resamples=100,
        seed=0,
        words=1000,
        keys=4,
    )
    return _load(root)


@pytest.fixture
def make_run(tmp_path, tmp_path_factory, artifacts_tree):
    """Return a function that makes a world, scores it and loads what the page is made of."""

    def make(**world):
        usual = tmp_path_factory.getbasetemp() / "usual_features_world"
        if not world and usual.exists():
            shutil.copytree(usual, tmp_path, dirs_exist_ok=True)
            return _load(tmp_path)
        root = make_root(tmp_path)
        artifacts_tree(root / "artifacts" / "smoke" / "deep_features", **world)
        run = _scored(root, world.get("seeds", (0, 1)), world.get("models", ("bot", "agw", "sbs")))
        if not world:
            shutil.copytree(root, usual)
        return run

    return make


def _results(run):
    return run.figures.parent / "reports" / "results" / "smoke" / "deep_features"


def _changed(run, file, change):
    """Let ``change`` edit the content of a result, and load everything again."""
    content = read_json(_results(run) / file)
    change(content)
    write_json(_results(run) / file, content)
    return _load(run.figures.parent)


def _words(html):
    return re.sub(r"<[^>]+>", "", html).replace("&#x27;", "'")


def _paragraphs(run):
    return [_words(part) for part in report.finding(run).split("</p>")]


def _rows(html):
    return re.split("<tr[^>]*>", html)


# ---------------------------------------------------------------- the first paragraph


def test_finding_answers_from_the_numbers(make_run):
    run = make_run()
    answer, details, rest = _paragraphs(run)[:3]
    cos = {c: of["attacks"]["co-same_domain-img1"]["measures"]["cos"]["value"]
           for c, of in run.attacked.items()}  # fmt: skip
    assert answer.startswith("From one encrypted request, a single feature vector under a key of")
    for model, name in (("BoT", "bot"), ("AGW", "agw"), ("SBS", "sbs")):
        both = " and ".join(f"{cos[f'{name}-{s}']:.3f} ({s})" for s in ("synth_a", "synth_b"))
        assert f"{both} for {model}" in answer
    assert "1 is perfect. Features are alike: the mean of the adversary's own" in answer
    guess = [of["attacks"]["control-mean"]["measures"]["cos"]["value"]
             for of in run.attacked.values()]  # fmt: skip
    assert f"already has {min(guess):.3f} to {max(guess):.3f}." in answer
    assert re.search(r"the median cosine is 0\.99\d to 1\.000, that of the guess 0 \(C15", answer)
    of = run.attacked["bot-synth_a"]["attributes"]
    assert "Attribute accuracy returns to its plain value in every case: mean balanced" in answer
    numbers = f"{of['attacked']['value']:.3f} against {of['plain']['value']:.3f} (BoT on synth_a)"
    assert numbers in answer
    assert re.search(r"Of all predictions 9\d\.\d to 9\d\.\d % are those from the plain", answer)
    assert "of 24 bars 24 lie above guessing" in details and "(C1 supported)" in details
    assert "under AES-GCM" in details and "(C17 supported)" in details
    assert "features of 16 dimensions of 144 test images of 36 persons (synth_a)" in rest
    assert "16 × 8 pixels, with 2 seeds (profile smoke). The persons are drawn figures" in rest
    assert "Of 18 claims, 13 supported, 4 contradicted and 1 not run." in rest


def test_finding_says_no_where_accuracy_does_not_return(make_run):
    def lower(content):
        of = content["cells"][0]["attributes"]
        of.update(returns="no", difference={"value": -0.3, "lo": -0.4, "hi": -0.2})
        content["cells"][1]["attributes"]["returns"] = "open"

    answer = _paragraphs(_changed(make_run(), "attacks.json", lower))[0]
    assert "Attribute accuracy returns to its plain value in 4 of 6 cases" in answer
    assert "Attribute accuracy does not return to its plain value in 1 of 6 cases" in answer
    assert "Whether attribute accuracy returns to its plain value stays open in 1 of 6" in answer


def test_finding_of_one_cell_needs_no_counting(make_run):
    run = make_run(models=["agw"], local_sets=["synth_a"], seeds=(0,))
    answer, _, rest = _paragraphs(run)[:3]
    assert re.search(r"median cosine of 0\.\d{3} for AGW; 1 is perfect", answer)
    assert "Whether attribute accuracy returns to its plain value stays open: mean" in answer
    assert "One seed cannot tell a method from luck" in rest


def test_missing_stages_are_named_not_run(make_run):
    run = make_run(cells=[])
    assert "chip not-run" in report.fig4(run) and "chip not-run" in report.attack_images(run)
    assert "chip not-run" in report.reconstructions(run)
    assert "reconstructed from every black box and set" in report.deviations(run)


# ---------------------------------------------------------------- sections


def test_bars_are_described_with_numbers(make_run):
    html = report.fig3(make_run())
    alt = re.search(r'alt="([^"]+)"', html)[1]
    assert re.search(r"of 4 attributes, mean BoT 0\.\d\d, AGW 0\.\d\d and SBS 0\.\d\d; from", alt)
    assert "permuted labels" in html and "16 × 8 pixels" in html


def test_heads_list_controls_and_the_other_set(make_run):
    run = make_run()
    table = report.heads(run)
    for words in ("two blocks", "trained on the other local set", "noise in place of features"):
        assert words in table
    assert len(_rows(table)) == 2 + 6
    assert (run.figures / "heads.csv").read_text().startswith("cell,chance,headline,headline lo")


def test_zoo_is_faint_and_called_an_outside_reference(make_run):
    html = report.reid(make_run())
    table = _words(html)
    assert html.count('class="quiet"') == 3 and "74.1" in table and "58.4" in table
    assert "ours: mini with 16 features trained on synth_p. Faint: FastReID v1.0.0's" in table
    assert "ResNet50 trained on MSMT17; an outside reference, not a target" in table


def test_sec_iii_d_lists_conditions_in_order(make_run):
    run = make_run()
    table = report.iiid(run)
    shown = [words for words in re.findall(r'<th scope="row"[^>]*>([^<]+)<', table)]
    names = list(report.UNDER.values())
    assert shown[1 : 2 * len(names) : 2] == names
    head = table[: table.index("</thead>")]
    order = [head.index(f">{n}<") for n in ("height", "backpack", "hat", "up_colour")]
    assert order == sorted(order)
    assert "mean over 100 random ones" in table


def test_keys_are_exact_on_the_page(make_run):
    table = report.keyspace(make_run())
    assert "263,130,836,933,693,530,167,218,012,160,000,000" in table
    for number in ("117.66", "44.25", "15.30", "296.00", "43.21", "40,320", "2.63e+35"):
        assert number in table


def test_worked_example_is_told_bit_by_bit(make_run):
    run = make_run()
    html = report.fig2(run)
    item = run.keyspace["example"]["items"][0]
    assert f"{item['plain']} becomes {item['cipher']} and again {item['plain']}" in html
    assert (run.figures / "fig2.csv").exists()


def test_curves_are_described_with_numbers(make_run):
    html = report.attack_curves(make_run())
    alt = re.search(r'alt="([^"]+)"', html)[1]
    assert "BoT on synth_a 0.99" in alt and "0.60 for 4 and 1.00 for 32" in alt


def test_attacks_are_named_in_words(make_run):
    table = report.attack_table(make_run())
    for words in ("1 vector, reference: training split", "1 vector, reference: none",
                  "32 known floats", "control: AES-GCM", "marginals of the bits"):  # fmt: skip
        assert words in table
    assert table.count('class="quiet') == 6 * 4
    assert "control: no ciphertext, the mean of own features" in table
    first = _rows(table)[2]
    assert "training split" in first


def test_worth_says_whether_it_returns(make_run):
    run = make_run()
    table = report.attack_worth(run)
    assert table.count("<td>yes</td>") == 6 and "above −0.02" in table
    assert (run.figures / "attack_worth.csv").exists()


def test_images_carry_mean_distances(make_run):
    run = make_run()
    html = report.fig4(run)
    d = run.cells["bot-synth_a"]["reconstructions"]["fr_adv"]["distance"]["value"]
    assert html.count("<figure") == 2 and f"fr_adv {d:.3f}" in html
    mean = run.cells["bot-synth_a"]["reconstructions"]["mean"]["distance"]["value"]
    assert f"mean {mean:.3f}; other is" in html
    assert f"the mean training image {mean:.3f}" in _paragraphs(run)[1]
    assert "wrong key" in report.attack_images(run)
    assert (run.figures / "fig4-bot-synth_b.csv").exists()


def test_images_of_real_people_are_not_printed(make_run):
    run = make_run(real=True)
    for html in (report.fig4(run), report.attack_images(run)):
        assert "<img" not in html and "show real people and are not printed" in html
    assert "drawn figures" not in _paragraphs(run)[2]
    assert "synth_a and synth_b show real people" in report.ethics(run)
    run.params["deep_features"]["evaluate"]["allow_real_grids"] = True
    assert "<img" in report.fig4(run)


def test_ethics_and_repair_are_said(make_run):
    run = make_run()
    words = _words(report.ethics(run))
    assert "DukeMTMC was withdrawn" in words and "All persons on this page are drawn" in words
    assert "must not be relied on" in words
    assert "ChaCha20" in report.repair(run) and "median centred cosine is" in report.repair(run)


def test_deviations_follow_the_parameters_and_the_data(make_run):
    run = make_run()
    table = _words(report.deviations(run))
    assert "black boxes trained on msmt17, threat models on market and duke" in table
    assert "synth_p, 144 images to train, 144 to test; synth_a" in table
    assert "resnet50, 2048 dimensionsmini, 16 dimensions" in table
    assert "epochs of the attribute heads: 10030" in table
    assert "VGG16 refined for contours (HED)" in table and "bfloat16" not in table
    run.params["profiles"]["smoke"]["deep_features"]["reconstruct"] = {"precision": "bf16-mixed"}
    assert "bfloat16" in report.deviations(run)


def _rows_of(**settings):
    stages = {"train_reid": {}, "attributes": {}, "reconstruct": {}, "evaluate": {}}
    return "\n".join(map(" | ".join, of_parameters({**stages, **settings})))


def test_deviations_say_nothing_that_a_profile_does_not_do():
    always = "\n".join(map(" | ".join, ALWAYS))
    for words in ("momentum", "compared as they are", "with the adversary 0.06", "able to draw"):
        assert words not in always
    assert _rows_of() == ""
    of_torch = {"precision": "bf16-mixed", "lr": 8e-3, "milestones": [0.6, 0.9], "drop": 0.3}
    rows = _rows_of(train_reid=of_torch)
    assert "bfloat16 in these two, 32 bits in SBS" in rows and "in all three" not in rows
    assert "shares of the steps: 0.3333 and 0.75 | 0.6 and 0.9" in rows
    assert "learning rate of the black boxes: 0.00035 | 0.008" in rows
    small = {"phi_factor": 2, "bn_momentum": 0.1, "c0": 64, "base_g": 8, "base_d": 8}
    rows = _rows_of(reconstruct=small, attributes={"bn_momentum": 0.1})
    assert "φ does not see patterns of period 2" in rows and rows.count("0.01 | 0.1") == 2
    for words in ("G's first map: 128 | 64", "last block: 16 | 8", "D's first block: 32 | 8"):
        assert words in rows
    usual = {"phi_factor": 1, "bn_momentum": 0.01, "c0": 128, "base_g": 16, "base_d": 32}
    assert _rows_of(reconstruct=usual) == ""
    assert "compared as they are" in _rows_of(evaluate={"jpeg": False})
    assert _rows_of(evaluate={"jpeg": True}) == ""


def test_a_random_start_and_what_it_does_to_freezing_are_deviations(make_run):
    run = make_run()
    words = "black boxes start from ImageNet's weights"
    assert words not in report.deviations(run)
    for model, freeze in (("bot", 0), ("agw", 0), ("sbs", 0.033)):
        path = run.artifacts / "train_reid" / model / "meta.json"
        own = {"initialised": False, "freeze": freeze, "freeze_steps": 0}
        write_json(path, {**read_json(path), **own})
    table = _words(report.deviations(_load(run.figures.parent)))
    assert words in table and "random weights; sbs freezes nothing" in table


def test_provenance_lists_sets_boxes_and_recipes(make_run):
    html = _words(report.provenance(make_run()))
    for words in ("144 images of 36 persons to train", "net mini, dims 16", "updates_g 30",
                  "1,000 random words under 4 random keys", "deep_features"):  # fmt: skip
        assert words in html


# ---------------------------------------------------------------- the page


def test_every_section_says_not_run_when_there_is_nothing(tmp_path):
    run = _load(make_root(tmp_path))
    text = _words(report.finding(run))
    assert text.startswith("ShuffleBits was not attacked yet. What the recovered features are")
    assert "has no results yet" in text and "18 not run" in text
    for name in SECTIONS:
        html = getattr(report, name)(run)
        if name not in ("finding", "repair", "ethics", "deviations", "provenance"):
            assert "not run" in html, name


def test_page_of_all_sections_loads_nothing_and_is_small(make_run):
    run = make_run(height=64, width=32, ids=24)
    page = "\n".join(getattr(report, name)(run) for name in SECTIONS)
    assert loads(page) == []
    assert len(page.encode()) < LIMIT_BYTES
    assert ">nan<" not in page.lower() and ">none<" not in page.lower()
    for csv in re.findall(r'href="figures/([^"]+\.csv)"', page):
        assert (run.figures / csv).exists()
    images = page.count("<img")
    assert images == len(list(run.figures.glob("*.png"))) == 3 + 2 + 1


def test_grids_of_images_that_do_not_compress_have_fewer(make_run):
    run = make_run(models=["bot"], local_sets=["synth_a"], height=128, width=64, ids=16)
    assert report.fig4(run).count("<figure") == 1
    lines = (run.figures / "fig4-bot-synth_a.csv").read_text().splitlines()
    assert len({line.split(",")[0] for line in lines[1:]}) == 1  # of the panel's three


def test_page_text_is_escaped(make_run):
    run = make_run()
    path = run.artifacts / "prepare" / "meta.json"
    content = read_json(path)
    content["sets"]["synth_a"]["attribution"] = "drawn by <a test>"
    write_json(path, content)
    run = _load(run.figures.parent)
    assert "drawn by &lt;a test&gt;" in report.provenance(run)
    run = _changed(run, "table.json", lambda c: c["sets"]["synth_a"].update(attribution="<b>"))
    assert "&lt;b&gt;" in report.fig4(run) and "<b>" not in report.fig4(run)


def test_notebook_shows_every_section_once():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    ids = [cell["id"] for cell in notebook["cells"]]
    assert ids[:3] == ["title", "parameters", "finding"] and len(set(ids)) == len(ids) == 13
    assert len(set(SECTIONS)) == len(SECTIONS) == 20
    assert all(callable(getattr(report, name)) for name in SECTIONS)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
