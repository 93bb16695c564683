"""Planted results in a git repository of two commits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.files import write_json
from stages.scoreboard.diff import compare, difference, lost_verdicts, main, printout
from stages.scoreboard.numbers import Number, home_ranks, numbers
from stages.scoreboard.sides import read_side

RESULTS = Path("reports/results/embedded")
REPOSITORY = Path.cwd()
PARAMS = """profile: embedded
profiles:
  embedded:
    colourisation: {train: {epochs: 4}, score: {}}
  gpu:
    colourisation: {train: {epochs: 25, precision: bf16-mixed}}
colourisation:
  train: {epochs: 200, lr: 2e-4, widths: [64, 128]}
  variants:
    bn: {lambda_l1: 100}
    md: {}
"""


def variant(l1, psnr=24.0, **more):
    flat = {"l1": l1, "l1_ci": [l1 - 0.3, l1 + 0.3], "l1_seeds": [l1, l1], "n": 400}
    return {**flat, "psnr": psnr, "psnr_ci": [psnr - 1, psnr + 1], "name": "x", **more}


def claim(id, verdict, effect=None, **more):
    ends = {"lo": effect - 0.2, "hi": effect + 0.2} if effect is not None else {}
    statement = f"{id} says {'very ' * 40}much"
    return {"id": id, "verdict": verdict, "effect": effect, "statement": statement, **ends, **more}


def plant(folder=RESULTS, *, l1=11.0, chroma=5.0, psnr=24.0, md=True, c1="supported", effect=0.5):
    """Write the results of a paper: two variants, a table that repeats their L1, three claims."""
    shutil.rmtree(folder, ignore_errors=True)
    paper = folder / "colourisation"
    write_json(paper / "bn.json", variant(l1, psnr, chroma=chroma))
    if md:
        write_json(paper / "md.json", variant(12.0, hf=0.5))
    ends = {"lo": l1 - 0.3, "hi": l1 + 0.3}
    row = {"id": "T1.bn", "metric": "l1", "ours": l1, **ends, "paper": 9.8, "deviation": l1 / 9.8}
    write_json(paper / "table1.json", {"rows": [row], "level": 0.95})
    part = {"name": "l1 bn - md", "effect": effect, "lo": effect - 0.2, "hi": effect + 0.2}
    details = [claim("C1", c1, effect, parts=[part]), claim("C2", "inconclusive", 0.1)]
    write_json(paper / "claims.json", {"details": [*details, claim("C3", "not run")]})


def git(*args):
    who = ("-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *args], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a repository whose HEAD, tagged v1, has results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    git("init", "-q")
    Path("params.yaml").write_text(PARAMS)
    plant()
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    return tmp_path


def diff(*args):
    """Run from the command line; return everything that was found."""
    assert main([*args, "--json", "out.json"]) == 0
    return json.loads(Path("out.json").read_text())


def names(entries):
    return [f"{entry['paper']} {entry['name']}" for entry in entries]


def test_nothing_changed_between_a_commit_and_itself(root, capsys):
    found = diff("v1", "HEAD")
    listed = ("verdicts", "parameters", "moved", "changed_without_interval", "within_noise")
    assert not any(found[key] for key in (*listed, "only_old", "only_new"))
    assert len(found["equal"]) == 12
    assert "verdicts: 0 of 3 changed" in capsys.readouterr().out


def test_a_number_moved_if_the_interval_of_the_difference_excludes_zero(root):
    noise = (0.3**2 + 0.3**2) ** 0.5
    plant(l1=11.43, psnr=24.0 + 1.4)
    found = diff()
    (moved,) = found["moved"]
    assert (moved["name"], moved["headline"], moved["times"]) == ("bn l1", True, 1.0135)
    assert (moved["lo"], moved["hi"]) == pytest.approx((0.43 - noise, 0.43 + noise), rel=1e-4)
    assert moved["old"]["value"] == 11.0 and moved["new"]["lo"] == 11.13
    (within,) = found["within_noise"]
    assert (within["name"], within["times"]) == ("bn psnr", pytest.approx(1.4 / 2**0.5, 1e-4))
    plant(l1=11.42)
    assert names(diff()["within_noise"]) == ["colourisation bn l1"] and not diff()["moved"]


def test_the_ends_that_face_each_other_are_the_noise():
    old, new = Number(1.0, 0.9, 1.0, "a", "cos"), Number(0.96, 0.5, 0.97, "b", "cos")
    d, lo, hi, times = difference(old, new) or ()
    assert d == pytest.approx(-0.04)
    assert lo == pytest.approx(-0.04 - 0.46) and hi == pytest.approx(
        -0.04 + (0.01**2 + 0.1**2) ** 0.5
    )
    assert times == pytest.approx(0.04 / (0.1**2 + 0.01**2) ** 0.5)
    back = difference(new, old) or ()
    assert back[0] == -d and back[3] == pytest.approx(times)


def test_a_value_outside_its_interval_has_no_negative_noise():
    old, new = Number(1.0, 0.5, 0.9, "a", "x"), Number(2.0, 1.9, 2.1, "a", "x")
    assert difference(old, new) == pytest.approx((1.0, 0.9, 1.0 + (0.1**2 + 0.5**2) ** 0.5, 10.0))


def test_a_number_without_an_interval_is_listed_by_itself(root, capsys):
    plant(chroma=5.0 * (1 + 1e-4))
    found = diff()
    assert names(found["changed_without_interval"]) == ["colourisation bn chroma"]
    assert found["changed_without_interval"][0]["times"] is None and not found["moved"]
    out = capsys.readouterr().out
    assert "without an interval, changed: 1\n  colourisation\n    bn chroma" in out
    assert "moved beyond noise: 0 of 6 numbers" in out


def test_a_difference_of_rounding_is_none(root):
    path = RESULTS / "colourisation" / "bn.json"
    path.write_text(path.read_text().replace('"chroma": 5.0', '"chroma": 5.000000000001'))
    assert "5.000000000001" in path.read_text()
    assert not diff()["changed_without_interval"]


def test_an_interval_of_no_width_is_none():
    exact = [Number(value, value, value, "a", "x") for value in (1.0, 0.5)]
    assert difference(*exact) is None


def test_changed_verdicts_come_first_with_both_effects(root, capsys):
    plant(c1="contradicted", effect=-0.5)
    (changed,) = diff()["verdicts"]
    assert (changed["paper"], changed["id"]) == ("colourisation", "C1")
    assert (changed["old"]["verdict"], changed["new"]["verdict"]) == ("supported", "contradicted")
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("verdicts: 1 of 3 changed")
    assert lines[first + 1] == "  colourisation C1: supported -> contradicted"
    assert lines[first + 2] == "    +0.5 [+0.3, +0.7] -> -0.5 [-0.7, -0.3]"
    assert lines[first + 3].startswith("    C1 says very") and lines[first + 3].endswith("…")
    assert first < min(i for i, line in enumerate(lines) if line.startswith(("param", "moved")))


def test_a_claims_inequality_counts_and_not_its_weakest_effect(root):
    plant(effect=1.5)
    assert names(diff()["moved"]) == ["colourisation C1 l1 bn - md"]


def test_status_is_1_only_if_asked_and_a_verdict_changed(root):
    assert main(["--fail-on-verdict"]) == 0
    plant(c1="inconclusive")
    assert main([]) == 0 and main(["--fail-on-verdict"]) == 1
    assert main(["workspace", "workspace", "--fail-on-verdict"]) == 0


def test_a_lost_claim_fails_and_a_new_one_does_not(root):
    path = RESULTS / "colourisation" / "claims.json"
    content = json.loads(path.read_text())
    write_json(path, {"details": content["details"][1:]})
    assert main(["--fail-on-verdict"]) == 1
    assert main(["workspace", "HEAD", "--fail-on-verdict"]) == 0
    found = compare(read_side("workspace", "embedded"), read_side("HEAD", "embedded"))
    assert [v.id for v in found.verdicts] == ["C1"] and not lost_verdicts(found)
    assert "verdicts: 0 of 2 changed; 1 on one side only" in printout(found, 80)


def test_parameters_that_differ_are_those_of_the_profile(root, capsys):
    text = PARAMS.replace("epochs: 200", "epochs: 100").replace("epochs: 25", "epochs: 20")
    text = text.replace("[64, 128]", "[64, 256]").replace("    md: {}\n", "")
    Path("params.yaml").write_text(text.replace("score: {}", "score: {level: 0.9}"))
    found = {p["name"]: (p["old"], p["new"], p["there"]) for p in diff()["parameters"]}
    assert found == {  # the general epochs are not embedded's, gpu's are another profile's
        "train.widths": ([64, 128], [64, 256], [True, True]),
        "variants.md": ({}, None, [True, False]),
        "score.level": (None, 0.9, [False, True]),
    }
    out = capsys.readouterr().out
    assert "  colourisation.train.widths: [64, 128] -> [64, 256]\n" in out
    assert "  colourisation.score.level: - -> 0.9\n" in out


def test_a_vanished_variant_is_counted_on_its_side(root, capsys):
    plant(md=False)
    found = diff()
    assert names(found["only_old"]) == [f"colourisation md {m}" for m in ("hf", "l1", "n", "psnr")]
    assert not found["only_new"] and not found["moved"]
    assert "only in HEAD:embedded: 4 (colourisation/md 4)" in capsys.readouterr().out
    assert main(["--all"]) == 0
    assert "colourisation md hf    0.5" in capsys.readouterr().out


def test_a_new_paper_is_one_line_and_no_change_of_verdicts(root, capsys):
    write_json(RESULTS / "alpha" / "claims.json", {"details": [claim("C1", "supported", 1.0)]})
    assert main(["--fail-on-verdict"]) == 0
    out = capsys.readouterr().out
    assert "verdicts: 0 of 3 changed; 1 on one side only" in out
    assert "  alpha: its 1 claims only in workspace:embedded" in out


def test_profiles_are_compared(root, capsys):
    plant(Path("reports/results/gpu"), l1=9.0)
    found = diff(":embedded", ":gpu")
    assert (found["old"]["profile"], found["new"]["profile"]) == ("embedded", "gpu")
    assert names(found["moved"]) == ["colourisation bn l1"]
    assert [(p["name"], p["old"], p["new"]) for p in found["parameters"]] == [
        ("train.epochs", 4, 25),
        ("train.precision", None, "bf16-mixed"),
    ]
    assert diff("HEAD", ":gpu")["moved"] == found["moved"]
    assert (
        "old: workspace, profile embedded\nnew: workspace, profile gpu" in capsys.readouterr().out
    )


def test_git_sees_no_change_and_no_file_is_written(root):
    plant(l1=13.0)
    before = subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True)
    assert main(["v1", "workspace"]) == 0
    after = subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True)
    assert before.stdout == after.stdout != b""


def test_a_reader_who_leaves_changes_neither_the_status_nor_the_file(root):
    plant(c1="inconclusive")
    command = (sys.executable, "-m", "stages.scoreboard.diff", "--json", "out.json")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    with subprocess.Popen([*command, "--fail-on-verdict"], **pipes) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert (running.stderr.read(), running.wait()) == (b"", 1)
    assert json.loads(Path("out.json").read_text())["verdicts"]


def damage(path, content):
    (RESULTS / "colourisation" / path).write_bytes(content)


@pytest.mark.parametrize(
    ("args", "spoil", "words"),
    [
        (["nowhere"], lambda: None, "nowhere: is not a revision"),
        (["--", "-x"], lambda: None, "-x: is not a revision"),
        (["HEAD:gpuu"], lambda: None, "did you mean 'gpu'?"),
        (["HEAD", ":gpu"], lambda: None, "found embedded;"),
        ([], lambda: shutil.rmtree("reports"), "found no results at all"),
        ([], lambda: damage("bn.json", b'{"l1": 1'), "workspace: reports/results/embedded/colour"),
        ([], lambda: damage("bn.json", b'{"l1": NaN}'), "NaN"),
        ([], lambda: damage("bn.json", b"[1]"), "found a list"),
        ([], lambda: damage("bn.json", b"\xff"), "not a readable JSON file"),
        ([], lambda: damage("claims.json", b'{"verdicts": {}}'), "has another layout"),
        ([], lambda: damage("claims.json", b'{"details": [{"id": "C1"}]}'), "has another layout"),
        ([], lambda: Path("params.yaml").write_text("a: [1"), "params.yaml: is not readable"),
        ([], lambda: Path("params.yaml").unlink(), "params.yaml: is not there"),
        ([], lambda: shutil.rmtree(".git"), "not a git repository"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_and_status_2(root, capsys, args, spoil, words):
    spoil()
    assert main(args) == 2
    said = capsys.readouterr()
    assert words in said.err and len(said.err.splitlines()) == 1 and not said.out


def test_a_damaged_file_of_a_commit_names_the_commit(root, capsys):
    damage("bn.json", b"{")
    git("commit", "-qam", "damaged")
    assert main(["v1", "HEAD"]) == 2
    assert "HEAD: reports/results/embedded/colourisation/bn.json" in capsys.readouterr().err
    assert main(["v1", "v1"]) == 0


@pytest.mark.parametrize("columns", ["80", "40", "120"])
@pytest.mark.parametrize("args", [[], ["--all"]])
def test_no_line_is_wider_than_the_terminal(root, capsys, monkeypatch, columns, args):
    monkeypatch.setenv("COLUMNS", columns)
    long = {f"{'metric_' * 12}{i}": 1.0 + i for i in range(3)}
    plant(l1=13.0, c1="not run", effect=2.0, md=False)
    write_json(RESULTS / "colourisation" / "new.json", variant(1.0, **long))
    for name in long:
        write_json(RESULTS / f"paper_{name}" / "a.json", {name: 1.0})
    Path("params.yaml").write_text(PARAMS.replace("[64, 128]", str(list(range(60)))))
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert any(line.endswith("…") for line in lines)


def test_without_a_terminal_lines_have_80_columns(root, capsys):
    plant(c1="not run")
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80


def test_readmes_metrics_come_first_and_then_the_largest(root, capsys):
    later = variant(11.0, kid=0.5, kid_ci=[0.4, 0.6], auc=0.9, auc_ci=[0.8, 1.0])
    write_json(RESULTS / "colourisation" / "bn.json", later)
    git("commit", "-qam", "more metrics")
    moved = variant(13.0, 30.0, kid=9.0, kid_ci=[8.9, 9.1], auc=0.5, auc_ci=[0.4, 0.6])
    write_json(RESULTS / "colourisation" / "bn.json", moved)
    found = diff()
    assert [c["name"] for c in found["moved"]] == ["bn l1", "bn psnr", "bn kid", "bn auc"]
    assert [c["headline"] for c in found["moved"]] == [True, True, False, False]


def test_what_is_not_printed_is_counted(root, capsys):
    old = {f"m{i}": 1.0 for i in range(20)}
    write_json(RESULTS / "colourisation" / "more.json", {"x": 1.0, "x_ci": [0, 2], **old})
    git("add", "-A")
    git("commit", "-qm", "twenty")
    new = {f"m{i}": 2.0 for i in range(20)}
    write_json(RESULTS / "colourisation" / "more.json", {"x": 1.0, "x_ci": [0, 2], **new})
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "changed: 20" in out and "    and 8 more (--all)" in out
    assert main(["--all"]) == 0
    assert capsys.readouterr().out.count("more m") == 20


# ---------------------------------------------------------------- names and homes


def test_intervals_are_found_wherever_they_stand():
    cell = {"value": 3.0, "lo": 2.0, "hi": 4.0, "n": 5, "seeds": [3.0]}
    files = {
        "table": {
            "rows": [{"name": "a", "set": "faces", "values": {"pd": cell}}],
            "axes": [{"axis": "loss", "rows": [{"effects": {"pd": {**cell, "first": 1.0}}}]}],
            "floors": [{"ssim": 0.2, "lo": 0.1, "hi": 0.3}],
            "null": {"mean": 0.5, "lo": 0.4, "hi": 0.6},
        }
    }
    found = {name: (n.value, n.interval) for name, n in numbers(files).items()}
    assert found == {
        "table a faces pd": (3.0, (2.0, 4.0)),
        "table loss #1 pd": (3.0, (2.0, 4.0)),
        "table loss #1 pd first": (1.0, None),
        "table #1": (0.2, (0.1, 0.3)),
        **{f"table null {key}": (v, None) for key, v in (("mean", 0.5), ("lo", 0.4), ("hi", 0.6))},
    }


def test_texts_truths_and_bare_lists_are_no_numbers():
    content = {"a": "1", "b": True, "c": None, "d": [1.0, 2.0], "e_seeds": [1.0], "e": 2.0}
    assert list(numbers({"x": content})) == ["x e"]


def test_equal_names_are_kept_apart():
    rows = [{"name": "a", "x": 1.0}, {"name": "a", "x": 2.0}]
    assert [n.value for n in numbers({"t": {"rows": rows}}).values()] == [1.0, 2.0]


def test_flat_files_are_the_best_home():
    flat = {"l1": 1.0, "l1_ci": [0.0, 2.0]}
    files = {"b": flat, "a": flat, "table": {"l1": 1.0}, "claims": {}, "matrix": {}}
    assert home_ranks(files) == {"a": 0, "b": 0, "claims": 1, "matrix": 2, "table": 3}


def test_no_interval_of_the_repositorys_results_counts_twice(monkeypatch):
    """Table I's cells are in the variants' files, and every number has a name of its own."""
    monkeypatch.chdir(REPOSITORY)
    side = read_side("workspace", "embedded")
    found = compare(side, side)
    counted = {f"{c.paper} {c.name}": c.new for c in found.changes}
    assert all(c.equal for c in found.changes) and len(counted) == len(found.changes)
    assert "colourisation bn l1" in counted and "gan_transform plain ssim_itn" in counted
    table = json.loads((RESULTS / "colourisation" / "table1.json").read_text())
    cells = {(r["ours"], r["lo"], r["hi"]) for r in table["rows"]}
    told = [(n.value, n.lo, n.hi) for n in counted.values()]
    assert cells and all(told.count(cell) == 1 for cell in cells)
    stated = {
        (paper, *cell)
        for paper, files in side.papers.items()
        for n in numbers(files).values()
        if n.interval
        for cell in [(n.value, n.lo, n.hi)]
    }
    assert stated == {
        (key.split()[0], n.value, n.lo, n.hi) for key, n in counted.items() if n.interval
    }
