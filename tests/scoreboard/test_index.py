"""The scoreboard and its page: true for the committed results, honest about what is missing."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml

from stages.common.errors import InputError
from stages.common.files import read_json, write_json
from stages.common.params import load_params
from stages.common.render import loads
from stages.scoreboard import index as module
from stages.scoreboard.cells import CELLS, cells
from stages.scoreboard.collect import RELEASED, differences, scoreboard
from stages.scoreboard.headlines import HEADLINES, headline
from stages.scoreboard.index import grid, index, main
from stages.scoreboard.stale import Loader, read_lock, stale

PARAMS = load_params()
EMBEDDED = Path("reports/results/embedded")


@pytest.fixture(scope="module")
def now():
    return scoreboard()


@pytest.fixture
def params_once(monkeypatch):
    monkeypatch.setattr("stages.scoreboard.collect.load_params", lambda _: copy.deepcopy(PARAMS))


@pytest.fixture
def root(tmp_path, params_once):
    """What the index reads, copied."""
    kept = ("paper.yaml", "dvc.lock")
    for name in ("reports/results/embedded", "reports/provenance/embedded", "reports/embedded"):
        shutil.copytree(name, tmp_path / name)
    shutil.copytree("notebooks/template", tmp_path / "notebooks/template")
    for path in Path("stages").glob("*/*"):
        if path.name in kept:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, tmp_path / path)
    for name in ("params.yaml", "requirements.txt"):
        shutil.copy2(name, tmp_path)
    (tmp_path / RELEASED).parent.mkdir(parents=True)
    shutil.copy2(RELEASED, tmp_path / RELEASED)
    return tmp_path


def changed_claim(root, paper, claim, **values):
    path = root / EMBEDDED / paper / "claims.json"
    content = read_json(path)
    next(d for d in content["details"] if d["id"] == claim).update(values)
    content["verdicts"][claim] = values.get("verdict", content["verdicts"][claim])
    write_json(path, content)


def test_the_committed_index_is_that_of_the_committed_results(now, tmp_path):
    write_json(tmp_path / "scoreboard.json", now)
    assert (tmp_path / "scoreboard.json").read_bytes() == Path(
        "reports/scoreboard.json"
    ).read_bytes()
    found = read_json(tmp_path / "scoreboard.json")
    differs = differences(found, read_json(RELEASED))
    text = module.page(found, differs, Path("reports"), Path())
    assert text == Path("reports/index.html").read_text(encoding="utf-8")


def test_the_committed_results_are_current(now):
    for paper, content in now["papers"].items():
        for profile, told in content["profiles"].items():
            assert told is None or told["stale"] == {}, f"{paper} {profile}"


def test_every_claim_and_every_printed_cell_is_there(now):
    for paper, content in now["papers"].items():
        printed = yaml.load(Path(f"stages/{paper}/paper.yaml").read_text(), Loader)
        assert [c["id"] for c in content["claims"]] == [c["id"] for c in printed["claims"]]
    for paper, column in (("colourisation", "metric"), ("gan_transform", "column")):
        printed = yaml.load(Path(f"stages/{paper}/paper.yaml").read_text(), Loader)
        wanted = {(c["id"], c[column]): c["paper"] for c in printed["cells"]}
        shown = now["papers"][paper]["cells"]
        for (name, metric), value in wanted.items():
            ids = (name, f"{name}.{metric}")
            found = [c["paper"] for c in shown if c["id"] in ids and c["metric"] == metric]
            assert found == [value]


def test_totals_are_the_sum_of_the_verdicts(now):
    counted = dict.fromkeys(now["total"], 0)
    for paper in now["papers"].values():
        for claim in paper["claims"]:
            counted[claim["ours"]["embedded"]["verdict"]] += 1
    assert counted == now["total"] == {
        k.replace("_", " "): v for k, v in read_json(EMBEDDED / "verdicts.json")["total"].items()
    }  # fmt: skip


@pytest.mark.parametrize("paper", CELLS)
def test_cells_have_unique_names_and_ordered_intervals(paper):
    found = cells(paper, EMBEDDED / paper)
    assert len({c["id"] for c in found}) == len(found)
    for cell in found:
        if cell["lo"] is not None:
            assert cell["lo"] <= cell["ours"] <= cell["hi"], cell


HINGES = [
    ("colourisation", "C1", "contradicted", "does not hold"),
    ("colourisation", "C1", "supported", "all holds"),
    ("gan_transform", "C2b", "supported", "tion gives away less than every cipher"),
    ("gan_transform", "C2b", "contradicted", "does not give away less"),
    ("gan_transform", "X2", "inconclusive", "were not shown"),
    ("sift_inversion", "C1", "supported", "earlier network holds"),
    ("deep_features", "C15", "supported", "withstands"),
    ("deep_features", "C15", "contradicted", "does not hide"),
]


@pytest.mark.parametrize(("paper", "claim", "verdict", "words"), HINGES)
def test_a_headline_follows_the_verdict(root, paper, claim, verdict, words):
    changed_claim(root, paper, claim, verdict=verdict)
    assert words in str(headline(paper, root / EMBEDDED / paper))


def test_headlines_follow_the_numbers(root):
    for paper in HEADLINES:
        before = headline(paper, EMBEDDED / paper)
        for path in (root / EMBEDDED / paper).glob("*.json"):
            text = path.read_text()
            path.write_text(text.replace("0.5", "0.6").replace("10.", "11.").replace("3.0", "3.5"))
        assert headline(paper, root / EMBEDDED / paper) != before


def lock_of(root, paper, change):
    path = root / "stages" / paper / "dvc.lock"
    content = yaml.load(path.read_text(), Loader)
    change(content["stages"])
    path.write_text(yaml.safe_dump(content))


def without_code(stages):
    """Forget the hashes of code and pins, which lie in the real checkout."""
    there = ("artifacts/", "reports/", "data")
    for entry in stages.values():
        entry["deps"] = [d for d in entry["deps"] if d["path"].startswith(there)]


@pytest.fixture
def bare(root):
    for paper in CELLS:
        lock_of(root, paper, without_code)
    return root


def test_nothing_is_stale_right_after_a_run(bare):
    assert all(stale("embedded", paper, PARAMS, bare) == {} for paper in CELLS)


def test_a_changed_parameter_makes_its_stages_stale(bare):
    params = copy.deepcopy(PARAMS)
    params["colourisation"]["variants"]["bn"]["norm"] = "in"
    found = stale("embedded", "colourisation", params, bare)
    assert found == {
        "train@bn": ["parameters colourisation.variants.bn"],
        "score": ["parameters colourisation.variants"],
        "report": ["parameters colourisation"],
    }


def test_a_removed_variant_is_not_stale(bare):
    params = copy.deepcopy(PARAMS)
    del params["colourisation"]["variants"]["bn"]
    found = stale("embedded", "colourisation", params, bare)
    assert set(found) == {"score", "report"}  # which still have it in their tables


def test_changed_code_makes_its_stages_stale(root):
    (root / "stages/colourisation/train.py").write_text("pass")
    for name in ("colourisation", "common"):
        for path in Path("stages", name).rglob("*.py"):
            copied = root / path
            copied.parent.mkdir(parents=True, exist_ok=True)
            if not copied.exists():
                shutil.copy2(path, copied)
    found = stale("embedded", "colourisation", PARAMS, root)
    assert "stages/colourisation/train.py" in found["train@bn"]
    assert "stages/colourisation/train.py" not in found.get("prepare", [])


def test_a_result_that_was_edited_by_hand_is_stale(bare):
    path = bare / EMBEDDED / "colourisation" / "table1.json"
    path.write_text(path.read_text().replace("0.95", "0.99"))
    found = stale("embedded", "colourisation", PARAMS, bare)
    assert found == {"score": ["reports/results/embedded/colourisation itself"]}


def test_an_upstream_that_ran_alone_makes_the_next_stage_stale(bare):
    def retrained(stages):
        stages["train@embedded-bn"]["outs"][0]["md5"] = "0" * 32 + ".dir"

    lock_of(bare, "colourisation", retrained)
    found = stale("embedded", "colourisation", PARAMS, bare)
    weights = ["artifacts/embedded/colourisation/train/bn"]
    assert found == {"evaluate@bn": weights, "evaluate_baselines": weights}


def test_a_damaged_lock_is_one_sentence(root):
    path = root / "stages/colourisation/dvc.lock"
    path.write_text(path.read_text()[:-500] + "\n  broken: [")
    with pytest.raises(InputError, match=r"dvc\.lock: is not a readable lock"):
        read_lock(path)
    assert read_lock(root / "none") == {}


def test_numbers_in_yaml_1_1_are_the_same_numbers():
    from stages.scoreboard.stale import _same

    assert _same({"lr": "7e-07"}, {"lr": 7e-07})
    assert not _same({"lr": "7e-07"}, {"lr": 7e-06})
    assert not _same({"lr": "words"}, {"lr": 1.0})


def test_what_differs_from_the_release_stands_beside_it(bare):
    changed_claim(bare, "colourisation", "C10", verdict="inconclusive", effect=0.5)
    path = bare / EMBEDDED / "colourisation" / "table1.json"
    content = read_json(path)
    row = next(r for r in content["rows"] if (r["variant"], r["metric"]) == ("bn", "l1"))
    before, row["ours"] = row["ours"], row["ours"] + 1
    write_json(path, content)
    index(bare / "reports", bare)
    text = (bare / "reports/index.html").read_text()
    assert "<strong>2 values differ</strong>" in text and "Verdicts that changed: D C10" in text
    assert "released: supported" in text and f"released: {before:.2f}" in text
    assert "STALE" in text  # the results are not those of the lock


def test_the_same_results_give_the_same_bytes(bare):
    index(bare / "reports", bare)
    first = (bare / "reports/index.html").read_bytes()
    index(bare / "reports", bare)
    assert (bare / "reports/index.html").read_bytes() == first
    assert b"STALE" not in first


def test_a_paper_that_has_not_run_says_so(bare):
    shutil.rmtree(bare / EMBEDDED / "sift_inversion")
    index(bare / "reports", bare)
    text = (bare / "reports/index.html").read_text()
    assert "Nothing of this paper has run" in text
    found = read_json(bare / "reports/scoreboard.json")
    assert found["papers"]["sift_inversion"]["profiles"]["embedded"] is None
    assert found["total"]["not run"] == 3 + len(found["papers"]["sift_inversion"]["claims"])


def test_a_second_profile_stands_beside_the_first(bare):
    for kind in ("results", "provenance"):
        shutil.copytree(bare / f"reports/{kind}/embedded", bare / f"reports/{kind}/gpu")
    path = bare / "reports/provenance/gpu/colourisation/score.json"
    write_json(path, read_json(path) | {"gpu": "Some GPU"})
    index(bare / "reports", bare)
    text = (bare / "reports/index.html").read_text()
    assert "The tables of paper D, profile gpu" in text and "Some GPU" in text
    assert "profile embedded" in text and "all at the smallest scale" not in text


def test_a_missing_cell_is_not_run_and_never_blank(now):
    found = copy.deepcopy(now["papers"]["colourisation"])
    found["cells"][0]["ours"]["embedded"] |= {"ours": None, "lo": None, "hi": None}
    first = grid(found, "embedded", {}, "colourisation")["rows"][0]["cells"][0]
    assert first["ours"] == "–" and first["paper"] == "9.92"
    text = Path("stages/scoreboard/index.html.j2").read_text()
    assert '"not run"' in text


def test_data_cannot_put_markup_or_scripts_into_the_page(bare):
    changed_claim(bare, "colourisation", "C1", reason="<script src='http://x'></script><b>")
    index(bare / "reports", bare)
    text = (bare / "reports/index.html").read_text()
    assert loads(text) == [] and "&lt;script" in text


def test_too_large_a_page_is_refused(bare, monkeypatch):
    monkeypatch.setattr(module, "PAGE_LIMIT_BYTES", 1000)
    with pytest.raises(InputError, match="is too large"):
        index(bare / "reports", bare)
    assert not (bare / "reports/index.html").exists()


def test_a_damaged_result_ends_with_one_sentence_and_status_2(bare, monkeypatch, capsys):
    (bare / EMBEDDED / "gan_transform" / "claims.json").write_text('{"details": [')
    monkeypatch.chdir(bare)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "claims.json" in told[0] and told[0].startswith("error: index:")


def test_release_makes_the_present_the_reference(bare, monkeypatch):
    changed_claim(bare, "colourisation", "C10", verdict="inconclusive")
    monkeypatch.chdir(bare)
    main(["--release"])
    assert "released:" not in (bare / "reports/index.html").read_text()
    claims = json.loads((bare / RELEASED).read_text())["papers"]["colourisation"]["claims"]
    judged = next(c for c in claims if c["id"] == "C10")["ours"]["embedded"]
    assert judged["verdict"] == "inconclusive"
