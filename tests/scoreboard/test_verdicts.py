import json
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.scoreboard.verdicts import collect, main, papers, terminal_table

RESULTS = Path("reports/results/smoke")
DETAILS = [
    {"id": "C1", "verdict": "supported", "effect": -0.31, "lo": -0.5, "hi": -0.1, "unit": "dB"},
    {"id": "C2", "verdict": "inconclusive", "effect": 0.25, "lo": None, "hi": None, "unit": ""},
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    for paper in ("alpha", "beta"):
        folder = tmp_path / "stages" / paper
        folder.mkdir(parents=True)
        claims = "".join(
            f"  - {{id: C{i}, statement: '{paper} says {i} {'very ' * 40}much'}}\n"
            for i in (1, 2, 3)
        )
        (folder / "paper.yaml").write_text(f"claims:\n{claims}")
    (tmp_path / "stages" / "common").mkdir()
    write_json(tmp_path / "reports/results/smoke/alpha/claims.json", {"details": DETAILS})
    (tmp_path / "reports/smoke").mkdir(parents=True)
    (tmp_path / "reports/smoke/alpha.html").write_text("page")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_papers_are_the_folders_with_a_paper_file(root):
    assert papers() == ["alpha", "beta"]


def test_claims_without_a_result_are_not_run(root):
    found = collect(RESULTS)
    alpha = {"supported": 1, "contradicted": 0, "inconclusive": 1, "not_run": 1}
    beta = {"supported": 0, "contradicted": 0, "inconclusive": 0, "not_run": 3}
    assert found["papers"] == {"alpha": alpha, "beta": beta}
    assert found["total"]["not_run"] == 4
    assert [(e["paper"], e["id"], e["verdict"]) for e in found["all"]][:3] == [
        ("alpha", "C1", "supported"),
        ("alpha", "C2", "inconclusive"),
        ("alpha", "C3", "not run"),
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_table_fits_the_terminal(root, width):
    table = terminal_table(collect(RESULTS), width)
    assert all(len(line) <= width for line in table.splitlines()[1:] if "says" in line)
    assert "C1  supported     -0.31 [-0.5, -0.1]" in table or width == 40


def test_stage_writes_the_file_and_prints_the_table_and_pages(root, capsys):
    main(["--profile", "smoke"])
    path = root / "reports/results/smoke/verdicts.json"
    first = path.read_bytes()
    assert json.loads(first)["total"]["supported"] == 1
    out = capsys.readouterr().out
    assert "alpha: 1 supported" in out and "reports/smoke/alpha.html" in out
    assert "beta.html" not in out
    main([str(RESULTS), str(path), "--profile", "smoke"])
    assert path.read_bytes() == first


def test_show_writes_nothing(root, capsys):
    main(["--profile", "smoke", "--show"])
    assert "3 not run" in capsys.readouterr().out
    assert not (root / "reports/results/smoke/verdicts.json").exists()


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ({"id": "C9", "verdict": "supported"}, "does not have"),
        ({"id": "C1", "verdict": "true"}, "unknown verdict"),
    ],
)
def test_bad_results_end_with_one_sentence_and_status_2(root, capsys, detail, words):
    write_json(root / "reports/results/smoke/alpha/claims.json", {"details": [detail]})
    with pytest.raises(InputError, match=words):
        collect(RESULTS)
    with pytest.raises(SystemExit) as stop:
        main(["--profile", "smoke"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
