"""docs/adding_a_paper.md, followed to the letter in a copy of this checkout."""

import json
import re
import sys
from pathlib import Path

import pytest
from checkout import choose_profile, copy_checkout, must
from ruamel.yaml import YAML

from stages.scoreboard.verdicts import papers

PAGE = Path("docs/adding_a_paper.md").read_text(encoding="utf-8")
PAPER = "structural_similarity"
BLOCK = re.compile(r"^\*\*`([^`]+)`\*\*([^\n]*)\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer(PAGE)]
FILES = {path: text for path, where, text in BLOCKS if not where}
PLACES = [(path, where.removeprefix(", "), text) for path, where, text in BLOCKS if where]

pytestmark = pytest.mark.timeout(1200)  # seconds on a free machine


def put(text, where, block):
    """Return a file of the checkout with a block where the page says."""
    if where == "at the end":
        return text + block
    if where == "beside the other papers":
        lines = []
        for line in text.splitlines():
            lines.append(line)
            added = line.replace("sift_inversion", PAPER)
            if added != line and not line.endswith(".png"):  # its figures are its own
                assert added in block.splitlines()
                lines.append(added)
        assert set(block.splitlines()) <= set(lines)
        return "\n".join(lines) + "\n"
    head = re.fullmatch(r"below `(\w+)`", where)
    assert head, where
    found = re.subn(rf"(?m)^  {head[1]}:.*\n", lambda line: line[0] + block, text, count=1)
    assert found[1] == 1, where
    return found[0]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Add the paper as the page says; nothing has run."""
    here = copy_checkout(tmp_path_factory.mktemp("fifth"))
    for path, text in FILES.items():
        assert not (here / path).exists()
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text, encoding="utf-8")
    for path, where, text in PLACES:
        whole = (here / path).read_text(encoding="utf-8")
        (here / path).write_text(put(whole, where, text), encoding="utf-8")
    return here


@pytest.fixture(scope="module")
def ran(copy):
    """Run this paper alone at the smoke profile."""
    choose_profile(copy, "smoke")
    must("dvc", "repro", f"stages/{PAPER}/dvc.yaml", cwd=copy)
    return copy


def test_the_page_holds_every_file_of_the_paper(copy):
    assert papers(copy) == sorted([*papers(), PAPER])
    assert {Path(path).suffix for path in FILES} == {".py", ".yaml", ".ipynb"}
    profiles = YAML(typ="safe").load(copy / "params.yaml")["profiles"]
    assert all(PAPER in profile for profile in profiles.values())


def test_the_new_files_pass_the_linters(copy):
    new = [path for path in FILES if path.endswith((".py", ".ipynb"))]
    must("ruff", "check", *new, cwd=copy)
    must("ruff", "format", "--check", *new, cwd=copy)


def test_the_checks_of_the_pipeline_know_the_paper_and_its_own_tests_pass(copy):
    said = must(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{PAPER}",
        "tests/test_pipeline.py", "-k",
        f"({PAPER} or stays_small or cached_outs_only) and not metrics",  # embedded has not run
        cwd=copy,
    )  # fmt: skip
    own = FILES[f"tests/{PAPER}/test_{PAPER}.py"].count("\ndef test_")
    stages = len(YAML(typ="safe").load(FILES[f"stages/{PAPER}/dvc.yaml"])["stages"])
    profiles = len(YAML(typ="safe").load(copy / "params.yaml")["profiles"])
    a_stage = 3 + profiles  # imports, names, sections; sections of every profile
    a_paper = profiles + 1  # parameters of every profile; shared keys
    assert f"{own + stages * a_stage + a_paper + 2} passed" in said


def test_plain_dvc_repro_needs_what_the_new_paper_writes(copy):
    """Where another paper's results and page are deps, so are its own, as its stages write them."""
    written = set()
    for stage in YAML(typ="safe").load(FILES[f"stages/{PAPER}/dvc.yaml"])["stages"].values():
        written |= {out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]}
    for name, stage in YAML(typ="safe").load(copy / "dvc.yaml")["stages"].items():
        ours = {dep for dep in stage["deps"] if PAPER in dep}
        other = {dep for dep in stage["deps"] if "sift_inversion" in dep}
        assert ours == {dep.replace("sift_inversion", PAPER) for dep in other} != set(), name
        assert {dep for dep in ours if dep.startswith("reports/")} <= written
    assert any(f"reports/results/${{item.profile}}/{PAPER}" in dep for dep in written)


def test_the_paper_runs_and_its_page_is_whole(ran):
    results = ran / "reports/results/smoke" / PAPER
    claims = json.loads((results / "claims.json").read_text())
    said = dict(re.findall(r"^(\w\d+)  ([a-z ]+)$", PAGE, re.MULTILINE))
    assert claims["verdicts"] == said and len(said) == 3
    jpeg = json.loads((results / "jpeg.json").read_text())
    assert jpeg["n"] == 24 and jpeg["ssim_ci"][0] < jpeg["ssim"] < jpeg["ssim_ci"][1]
    page = (ran / f"reports/smoke/{PAPER}.html").read_text()
    assert "<script" not in page and "Fig. 2" in page
    assert all(words in page for words in [*said, "data:image/png", "OpenMoji"])
    assert (ran / f"reports/provenance/smoke/{PAPER}/measure.json").exists()
    assert (ran / f"stages/{PAPER}/dvc.lock").exists()
    figures = sorted((ran / f"reports/smoke/{PAPER}").glob("*.png"))
    plots = YAML(typ="safe").load(ran / "dvc.yaml")["plots"]
    assert [f"reports/${{profile}}/{PAPER}/{f.name}" for f in figures] == plots[-len(figures) :]


def test_a_second_run_of_the_paper_has_nothing_to_do(ran):
    said = must("dvc", "repro", "--dry", f"stages/{PAPER}/dvc.yaml", cwd=ran)
    assert "up to date" in said and "Running stage" not in said


def test_the_scoreboard_lists_the_paper(ran):
    shown = must(
        sys.executable, "-m", "stages.scoreboard.verdicts", "--profile", "smoke", "--show", cwd=ran
    )
    counts = "2 supported, 1 contradicted, 0 inconclusive, 0 not run"
    assert f"{PAPER}: {counts}" in shown
    assert f"reports/smoke/{PAPER}.html" in shown
    must(sys.executable, "-m", "stages.scoreboard.index", "reports", cwd=ran)
    assert (
        "From Error Visibility to Structural Similarity" in (ran / "reports/index.html").read_text()
    )
