"""What a reader of the repository relies on: true tables, pins, no images or pickles in git."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.scoreboard.blocks import filled
from stages.scoreboard.readme import PAGES, summary, tables

README = Path("README.md").read_text(encoding="utf-8")
TABLES = Path("docs/results.md").read_text(encoding="utf-8")
FORBIDDEN = r"pickle\.(loads?|Unpickler)|(?<![.\w])(eval|exec)\(|allow_pickle=True"
RESULTS = Path("reports/results/embedded")


def tracked():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False)
    return [Path(name) for name in listed.stdout.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_pages_show_the_committed_results(page):
    text = Path(page).read_text(encoding="utf-8")
    assert filled(text, "results", PAGES[page](), page) == text


@pytest.mark.parametrize("paper", ["colourisation", "deep_features", "gan_transform"])
def test_readmes_summary_follows_the_verdicts(tmp_path, paper):
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / paper / "claims.json"
    content = json.loads(changed.read_text())
    content["verdicts"]["C1"] = "not run"
    changed.write_text(json.dumps(content))
    assert summary(tmp_path) != summary()


def test_the_table_of_paper_b_follows_the_results(tmp_path):
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / "sift_inversion" / "table.json"
    content = json.loads(changed.read_text())
    content["rows"][0]["values"]["psnr"]["value"] += 1
    changed.write_text(json.dumps(content))
    assert filled(TABLES, "results", tables(tmp_path), "results.md") != TABLES


def test_the_table_of_paper_c_follows_the_results(tmp_path):
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / "deep_features" / "bot-synth_a.json"
    content = json.loads(changed.read_text())
    content["ba_mean"] += 0.1
    changed.write_text(json.dumps(content))
    assert filled(TABLES, "results", tables(tmp_path), "results.md") != TABLES


@pytest.mark.parametrize("paper", ["colourisation", "gan_transform"])
def test_tables_follow_the_results(tmp_path, paper):
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / paper / "table1.json"
    content = json.loads(changed.read_text())
    content["rows"][0]["ours"] = 1 + (content["rows"][0]["ours"] or 0)
    changed.write_text(json.dumps(content))
    assert filled(TABLES, "results", tables(tmp_path), "results.md") != TABLES


def test_readme_and_docs_link_to_files_that_exist():
    for page in (Path("README.md"), *Path("docs").glob("*.md")):
        text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))  # no code
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_make_targets_that_readme_names_exist():
    makefile = Path("Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)", README)):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), target


def test_requirements_are_pins_and_nothing_else():
    lines = Path("requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    wanted = re.findall(r'^  "([a-z0-9.-]+)', Path("pyproject.toml").read_text(), re.M)
    assert {name.replace(".", "-") for name in wanted} <= pinned
    assert "dvc==3.67" in "\n".join(pins)


def test_no_image_lies_outside_reports_and_no_weights_in_git():
    for path in tracked():
        if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp", ".gif"}:
            assert path.parts[0] == "reports", path
        assert path.suffix not in {".pt", ".pth", ".pkl", ".pickle", ".safetensors", ".npz"}, path


def test_nothing_in_the_code_unpickles_or_evaluates():
    for path in Path("stages").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(FORBIDDEN, text), path
        for call in re.findall(r"torch\.load\([^\n]*(?:\n[^\n]*)?", text):
            assert "weights_only=True" in call, path


def test_reports_carry_no_time_host_or_path_of_a_machine():
    for page in Path("reports").glob("*/*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|tmp|Users)/|file://", text), page


def test_photographs_reference_agrees_with_the_papers_neighbourhood():
    """A grey and a constant colour on 1,000 photographs score as well as Table I's best row."""
    path = Path("reports/reference/colourisation_imagenet1k-samples256.json")
    found = json.loads(path.read_text())["baselines"]
    for name, l1, psnr in (("grey", 10.2, 27.0), ("mean_ab", 9.95, 26.8)):
        assert abs(found[name]["l1"] - l1) < 0.3
        assert abs(found[name]["psnr"] - psnr) < 0.5


def test_ciphertext_only_attacks_on_photographs_beat_the_papers_gan_attack():
    """Claim X2's numbers on CIFAR-10 (JPEG), and that noise gives nothing."""
    found = json.loads(Path("reports/reference/gan_transform_cifar10-jpeg.json").read_text())
    assert all(floor["agrees"] for floor in found["floors"].values())
    assert min(found["pc1"]["500_ciphers"]["plain_order"]["bits"]) >= 0.95
    assert min(found["qap"]["upper"]) >= 0.95 and len(found["qap"]["upper"]) == 4
    assert max(found["qap"]["seconds"]) <= 30
    for null in found["null"].values():
        assert max(null["pc1_ssim"], null["qap_ssim"]) <= found["floors"]["blank"]["ssim"]


def test_what_is_said_of_paper_b_on_faces_is_what_was_measured():
    path = Path("reports/reference/sift_inversion_synthfaces256.json")
    found = json.loads(path.read_text())
    ours, mean = (found["network"]["rows"][name] for name in ("R42_J", "mean"))
    for metric, places in (("psnr", 1), ("ssim", 3), ("pd", 2)):
        assert (ours[metric]["lo"] > mean[metric]["hi"]) == (metric != "pd")
        for row in (ours, mean):
            assert f"{row[metric]['mean']:.{places}f}" in TABLES
    less = found["network"]["difference"]["pd"]
    text = " ".join(TABLES.split())
    told = "{mean:.3f} [{lo:.3f}, {hi:.3f}]".format(**less).replace("-", "−")
    assert f"the difference {told}" in text
    n = found["n"]
    again = [round(row["id1"]["mean"] * n) for row in (ours, mean)]
    assert f"finds {again[0]} of {n} faces again where the mean face finds {again[1]}" in text
    assert found["verdicts"] == {
        "beats the mean face in PD": "supported",
        "beats the mean face in retrieval": "inconclusive",
    }
    assert found["provenance"]["train"]["l2_first"] == 0.8
    assert 1 / found["provenance"]["train"]["images_per_s"] * 44_000 < 600
    assert found["agrees"] == {"floors_256": True, "floors_64": True, "sift": True}
