"""The whole DAG at its smallest, in a copy of this checkout, as a user runs it."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from checkout import IDENTITY, choose_profile, copy_checkout, must, shell

from stages.scoreboard.prefork import prefork

pytestmark = pytest.mark.timeout(2400)  # the first test waits for the whole pipeline
TWICE = Path(__file__).parent / "reliability" / "twice.py"


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """A copy of the checkout, and the LAUNCH by which its stages start as in `make reproduce`.

    It has no locks: DVC reads and writes a whole lock for every stage, those of other profiles too.
    """
    here, before = copy_checkout(tmp_path_factory.mktemp("checkout")), Path.cwd()
    for lock in here.rglob("dvc.lock"):
        lock.unlink()
    choose_profile(here, "smoke")
    os.chdir(here)
    try:
        env = {**os.environ, "PYTHONPATH": str(here), "CKPT_DIR": ""}
        with prefork({name: value for name, value in env.items() if name != "LAUNCH"}) as env:
            os.chdir(before)
            yield here, env["LAUNCH"]
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def checkout(launch):
    """Run everything once."""
    here, command = launch
    log = must("dvc", "repro", cwd=here, LAUNCH=command)
    must("git", "add", "-A", cwd=here)
    must("git", *IDENTITY, "commit", "-qm", "smoke", cwd=here)
    return here, log


@pytest.fixture
def ran(launch):
    """Run the pipeline and return the names of the stages that it had to run."""

    def run(here):
        said = must("dvc", "repro", cwd=here, LAUNCH=launch[1])
        return names(said)

    return run


def names(said):
    return set(re.findall(r"Running stage '(?:stages/\w+/dvc\.yaml:)?([^']+)'", said))


@pytest.fixture
def change_params(checkout):
    here, _ = checkout
    params = here / "params.yaml"
    before = params.read_text()

    def change(*replacements):
        text = before
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        params.write_text(text)
        return here

    yield change
    params.write_text(before)


def test_every_stage_runs_and_writes_its_results(checkout):
    here, log = checkout
    results = here / "reports/results/smoke/colourisation"
    table = json.loads((results / "table1.json").read_text())
    claims = json.loads((results / "claims.json").read_text())
    assert {row["id"] for row in table["rows"]} >= {"T1.bn", "T1.ibn_sn_md"}
    assert len(claims["verdicts"]) == 20
    for variant in ("bn", "in", "bn_sn_md", "l1_only", "ln"):
        numbers = json.loads((results / f"{variant}.json").read_text())
        assert numbers["n"] == 24 and numbers["l1"] > 0
    for name in ("grey", "mean_ab", "random_hue", "half_chroma", "other_image"):
        assert json.loads((results / f"baseline_{name}.json").read_text())["l1"] > 0
    assert "reports/smoke/colourisation.html" in log


PAGES = {
    "colourisation": ("Table I", "Fig. 3", "Fig. 4", "Fig. 5", "C16", "X4"),
    "deep_features": ("Fig. 2", "Fig. 3", "Fig. 4", "C4b", "C17", "AES-GCM", "SynthPed"),
    "gan_transform": ("Table I", "Fig. 1", "Fig. 7", "C13", "X2", "AES"),
    "sift_inversion": ("Fig. 1", "Fig. 5", "Fig. 7", "Fig. 8", "C3b", "C12", "R44_J"),
}


@pytest.mark.parametrize("paper", PAGES)
def test_the_page_is_whole_and_loads_nothing(checkout, paper):
    here, _ = checkout
    page = (here / f"reports/smoke/{paper}.html").read_text()
    assert len(page) < 3e6
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"' >]+\.(?:js|css|png)""", page)
    for words in PAGES[paper]:
        assert words in page
    figures = here / f"reports/smoke/{paper}"
    assert {f.suffix for f in figures.iterdir()} == {".png", ".svg", ".csv"}


def test_every_attack_on_every_scheme_is_in_the_matrix(checkout):
    here, _ = checkout
    results = here / "reports/results/smoke/gan_transform"
    matrix = json.loads((results / "matrix.json").read_text())
    found = {(row["scheme"], row["attack"]) for row in matrix["rows"]}
    trained = (
        "ga_blockwise",
        "ga_shared",
        "ga_local",
        "ga_unet",
        "uwa_literal",
        "uwa_strong",
        "itn",
    )
    free = ("fr", "fr_advanced", "pc1", "qap", "kpa_le", "kpa_pe")
    for scheme in ("plain", "tanaka", "pe_same", "pe_diff", "noise", "proposed", "proposed_sum"):
        assert {(scheme, attack) for attack in (*trained, *free)} <= found
    assert {("proposed", "g_ba"), ("pe_diff_shuffle", "fr_advanced"), ("blur", "raw")} <= found
    table = json.loads((results / "table1.json").read_text())
    assert len(table["rows"]) == 20
    assert all(row["ours"] is not None for row in table["rows"])


def test_every_run_of_paper_b_and_every_floor_is_in_the_table(checkout):
    here, _ = checkout
    results = here / "reports/results/smoke/sift_inversion"
    rows = {row["name"]: row for row in json.loads((results / "table.json").read_text())["rows"]}
    assert {"B5", "R44_J", "R42_G", "R42_N", "M_R42_G", "mean", "other", "grey", "blur"} <= set(
        rows
    )
    assert rows["blur"]["values"]["dcos"]["value"] < 1 < rows["B5"]["values"]["psnr"]["value"]
    partial = json.loads((results / "partial.json").read_text())
    assert partial["run"] == "R42_G" and {box["mode"] for box in partial["boxes"]} == {
        "centre",
        "support",
    }
    assert len(json.loads((results / "claims.json").read_text())["verdicts"]) == 13


def test_every_black_box_of_paper_c_is_attacked(checkout):
    here, _ = checkout
    results = here / "reports/results/smoke/deep_features"
    cells = {f"{m}-{s}" for m in ("bot", "agw", "sbs") for s in ("synth_a", "synth_b")}
    attacks = json.loads((results / "attacks.json").read_text())
    assert {cell["cell"] for cell in attacks["cells"]} == cells
    for cell in cells:
        numbers = json.loads((results / f"{cell}.json").read_text())
        assert -1 <= numbers["attacked_centred_median"] <= 1 and 0 < numbers["ba_mean"] < 1
    assert len(json.loads((results / "claims.json").read_text())["verdicts"]) == 18


def test_a_second_run_has_nothing_to_do(checkout, ran):
    here, _ = checkout
    assert "up to date" in must("dvc", "repro", "--dry", "--allow-missing", cwd=here)
    assert ran(here) == set()


def test_the_whole_again_gives_the_same_bytes(checkout, tmp_path):
    """Every stage of the pipeline, without DVC, in another folder."""
    here, _ = checkout
    second = copy_checkout(tmp_path)
    choose_profile(second, "smoke")
    told = json.loads(must(sys.executable, str(TWICE), str(here), str(second), cwd=second))
    assert told["stages"] > 80 and told["compared"] > 500
    assert told["differences"] == []


def test_a_stage_that_starts_by_itself_writes_the_same_bytes(checkout):
    """Not forked, but with imports of its own."""
    here, _ = checkout
    stage = "stages/colourisation/dvc.yaml:train@smoke-bn_sn_md"
    weights = here / "artifacts/smoke/colourisation/train/bn_sn_md/generator-s0.safetensors"
    before, made = weights.read_bytes(), weights.stat().st_mtime_ns
    said = must("dvc", "repro", "--force", "--single-item", stage, cwd=here, LAUNCH="")
    assert "wrote artifacts/smoke/colourisation/train/bn_sn_md" in said
    assert weights.stat().st_mtime_ns > made and weights.read_bytes() == before


def test_metrics_are_readable_by_dvc(checkout):
    here, _ = checkout
    shown = must("dvc", "metrics", "show", cwd=here)
    assert "reports/results/smoke/colourisation/bn.json" in shown
    assert "verdicts.C1" in shown and "lperc" in shown


def test_a_misspelled_key_stops_the_run_with_one_sentence_and_keeps_the_rest(change_params):
    here = change_params(("l1_only: {norm: bn,", "l1_only: {nrom: bn,"))
    weights = here / "artifacts/smoke/colourisation/train/bn/generator-s0.safetensors"
    kept = weights.read_bytes()
    done = shell("dvc", "repro", cwd=here)
    assert done.returncode != 0
    assert "did you mean 'norm'?" in done.stdout + done.stderr
    assert weights.read_bytes() == kept


def test_a_missing_data_set_is_one_sentence(checkout, tmp_path):
    here, _ = checkout
    done = shell(
        "python", "-m", "stages.colourisation.prepare", "data", str(tmp_path / "out"),
        "--profile", "gpu", cwd=here,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "imagenette128" in last and "docs/data.md" in last
    assert "Traceback" not in done.stderr


def test_parameters_rerun_what_depends_on_them_and_nothing_else(change_params, ran):
    """One parameter of each paper, and one line for a new variant."""
    line = "    l1_only: {norm: bn, sn: none, scales: 0}"
    here = change_params(
        (line, f"    bn_md: {{norm: bn, sn: none, scales: 3}}\n{line}"),
        ("scales: 1, lambda_l1: 33.3", "scales: 1, lambda_l1: 50"),
        ("epsilon: 0.251", "epsilon: 0.1"),
        ("R4_J: {inputs: [4], loss: joint}", "R4_J: {inputs: [4], loss: joint, lambda_p: 2}"),
        ("fr_adv: {loss: fr_adv}", "fr_adv: {loss: fr_adv, rho: 0.2}"),
    )
    found = ran(here)
    after = {"score@smoke", "report@smoke", "reconstruct@smoke"}
    assert after <= found
    trained = found - after - {"verdicts@smoke", "index@smoke"}
    assert trained == {
        *("train@smoke-bn_sn_lam33", "evaluate@smoke-bn_sn_lam33"),
        *("train@smoke-bn_md", "evaluate@smoke-bn_md"),
        *("perturb@smoke", "transform@smoke-proposed", "transform@smoke-proposed_sum"),
        *("encrypt@smoke", "cryptanalyse@smoke"),
        *(f"{s}@smoke-proposed{v}" for s in ("attack", "classify") for v in ("", "_sum")),
        *("train@smoke-R4_J", "refine@smoke-R4", "evaluate@smoke"),
        "reconstruct@smoke-fr_adv",  # then evaluate, encrypt and cryptanalyse, as above
    }
    changed = must("dvc", "metrics", "diff", cwd=here)
    assert "colourisation/bn_sn_lam33.json" in changed and "colourisation/bn.json" not in changed
    assert "gan_transform/proposed.json" in changed and "gan_transform/plain.json" not in changed
    assert "deep_features/bot-synth_a.json" in changed
    assert "deep_features/sbs-synth_b.json" not in changed
    assert "sift_inversion/R4_G.json" in changed and "sift_inversion/R42_G.json" not in changed
    assert "lambda_l1" in must("dvc", "params", "diff", cwd=here)
    results = here / "reports/results/smoke/colourisation"
    assert json.loads((results / "bn_md.json").read_text())["n"] == 24
    assert "bn_md" in (here / "reports/smoke/colourisation.html").read_text()


def test_another_bootstrap_retrains_nothing_and_the_way_back_is_cached(change_params, ran):
    here = change_params(("resamples: 200", "resamples: 300"))
    found = ran(here)
    assert "score@smoke" in found
    assert not any(name.startswith(("prepare", "train", "evaluate")) for name in found)
