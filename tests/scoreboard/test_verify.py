"""verify on a planted repository: three stages that take a tenth of a second each."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.scoreboard import rerun, verify
from stages.scoreboard.rehash import digest, locks, parse, read, rehash

# DVC uses a deprecated property of pygtrie
pytestmark = pytest.mark.filterwarnings(r"ignore:_NoneStep\.value:DeprecationWarning")

TRAIN = """\
import json, pathlib, sys
data, out = map(pathlib.Path, sys.argv[1:3])
steps = int(pathlib.Path("params.yaml").read_text().split("steps: ")[1].split("}")[0])
numbers = [int(line) for line in (data / "numbers.txt").read_text().split()]
out.mkdir(parents=True)
(out / "weights.bin").write_bytes(bytes(n * steps % 256 for n in numbers))
log = [{"step": i, "loss": sum(numbers) / (i + 1)} for i in range(steps)]
(out / "history-s0.json").write_text(json.dumps({"log": log}))
facts = pathlib.Path("reports/provenance/tiny/toy/train.json")
facts.parent.mkdir(parents=True, exist_ok=True)
facts.write_text(json.dumps({"seconds": 0.1}))
"""
SCORE = """\
import json, pathlib, sys
trained, out = map(pathlib.Path, sys.argv[1:3])
weights = (trained / "weights.bin").read_bytes()
out.mkdir(parents=True)
(out / "table.json").write_text(json.dumps({"toy": {"sum": sum(weights), "n": len(weights)}}))
"""
REPORT = """\
import json, pathlib, sys
results, out = map(pathlib.Path, sys.argv[1:3])
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(f"<h1>{json.loads((results / 'table.json').read_text())['toy']['sum']}</h1>")
"""
STAGES = """\
vars: [../../params.yaml]
stages:
  train:
    wdir: ../..
    matrix: {profile: ["${profile}"]}
    cmd: exec $LAUNCH python -m stages.toy.train data artifacts/tiny/toy/train --profile tiny
    deps: [data, stages/toy/train.py]
    params: [toy.train]
    outs: [artifacts/tiny/toy/train]
  score:
    wdir: ../..
    matrix: {profile: ["${profile}"]}
    cmd: exec python -m stages.toy.score artifacts/tiny/toy/train reports/results/tiny/toy
    deps: [artifacts/tiny/toy/train, stages/toy/score.py]
    outs: [{reports/results/tiny/toy: {cache: false}}]
  report:
    wdir: ../..
    matrix: {profile: ["${profile}"]}
    cmd: exec python -m stages.toy.report reports/results/tiny/toy reports/tiny/toy.html
    deps: [artifacts/tiny/toy/train, reports/results/tiny/toy, stages/toy/report.py]
    outs: [{reports/tiny/toy.html: {cache: false}}]
"""
CONFIG = """\
[core]
    analytics = false
    check_update = false
    remote = sample
['remote "sample"']
    url = ../dvcstore
"""
FILES = {
    ".dvc/config": CONFIG,
    ".dvcignore": "/dvcstore\n__pycache__\n",
    ".gitignore": "/artifacts\n/data\n__pycache__\n",
    "params.yaml": "profile: tiny\nprofiles: {tiny: {toy: {}}}\ntoy:\n  train: {steps: 3}\n",
    "data/numbers.txt": "3\n5\n7\n",
    "dvc.yaml": "stages: {}\n",
    "stages/__init__.py": "",
    "stages/toy/__init__.py": "",
    "stages/toy/dvc.yaml": STAGES,
    "stages/toy/train.py": TRAIN,
    "stages/toy/score.py": SCORE,
    "stages/toy/report.py": REPORT,
    "README.md": "sum: 45\n",
}
LOCK = "stages/toy/dvc.lock"
RESULT = "reports/results/tiny/toy/table.json"
PAGE = "reports/tiny/toy.html"
WEIGHTS = "artifacts/tiny/toy/train/weights.bin"
HISTORY = "artifacts/tiny/toy/train/history-s0.json"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(root), "LAUNCH": ""}
    for command in (
        "git init -q",
        "dvc add -q data",
        "dvc push -q",
        "dvc repro -q stages/toy/dvc.yaml",
        "git add -A",
        "git -c user.name=toy -c user.email=toy@example.org commit -qm toy",
    ):
        done = subprocess.run(command.split(), cwd=root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return root


@pytest.fixture
def root(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "PAGES", {"README.md": lambda _: f"sum: {_sum()}\n"})
    return Path(shutil.copytree(planted, tmp_path / "copy"))


def _sum():
    return json.loads(Path(RESULT).read_text())["toy"]["sum"]


def found(root, quick=True):
    """Return {status: [line]} of a run."""
    lines = list(verify.verify(root, ["tiny"], quick=quick, seed=0))
    return {
        status: [str(line) for line in lines if line.status == status]
        for status in ("ok", "FAILED", "not checked")
    }


def failed(root, quick=True):
    return {line.split()[1].rstrip(":"): line for line in found(root, quick)["FAILED"]}


def relisted(root, *names):
    """Make the lock agree with what is there, as somebody would who hides a change."""
    text = (root / LOCK).read_text()
    entries = {entry.path: entry for entry in parse(text, LOCK)}
    for name in names:
        old, size = entries[name], digest(root / name)[1]
        text = text.replace(old.md5, digest(root / name)[0])
        text = text.replace(f"size: {old.size}\n", f"size: {size}\n")
    (root / LOCK).write_text(text)


def _losses_times(root, factor):
    history = json.loads((root / HISTORY).read_text())
    for entry in history["log"]:
        entry["loss"] *= factor
    (root / HISTORY).write_text(json.dumps(history))


def test_what_is_as_it_was_made_passes_every_check_and_nothing_is_changed(root):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    lines = found(root, quick=False)
    assert not lines["FAILED"] and not lines["not checked"]
    checks = " ".join(lines["ok"])
    for words in ("git:", "locks:", "dvcstore:", "cache:", "README.md", "current [tiny]"):
        assert words in checks
    assert "toy/dvc.yaml:score@tiny" in checks and "toy/dvc.yaml:report@tiny" in checks
    assert "retrained stages/toy/dvc.yaml:train@tiny (--seed 0, of 1): 2 files are" in checks
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_tampered_result_is_caught_and_its_number_named(root):
    path = root / RESULT
    path.write_text(path.read_text().replace("45", "54"))
    lines = failed(root)
    assert (
        f"{RESULT.rsplit('/', 1)[0]}: has changed since {LOCK[:-5]}.yaml:score@tiny wrote it"
        in (lines["locks"])
    )
    assert f"{RESULT} differs at toy.sum: 54, computed 45" in lines["recomputed"]
    assert "README.md" in lines["page"] and "54" in lines["page"]


def test_a_tampered_result_whose_lock_was_tampered_too_is_caught(root):
    path = root / RESULT
    path.write_text(path.read_text().replace("45", "54"))
    relisted(root, "reports/results/tiny/toy")
    lines = failed(root)
    assert "locks" not in lines
    assert f"{RESULT} differs at toy.sum: 54, computed 45" in lines["recomputed"]


def test_a_tampered_page_is_caught(root):
    (root / PAGE).write_text("<h1>46</h1>")
    lines = failed(root)
    assert f"{PAGE}: has changed since" in lines["locks"]
    assert f"{PAGE} differs from byte 5" in lines["recomputed"]
    assert "dvc repro --force --single-item stages/toy/dvc.yaml:report@tiny" in lines["recomputed"]


def test_a_tampered_lock_is_caught(root):
    entry = next(e for e in read(root / LOCK, root) if e.path == PAGE)
    text = (root / LOCK).read_text()
    (root / LOCK).write_text(text.replace(entry.md5, "a" * 32))
    line = failed(root)["locks"]
    assert f"{PAGE}: has changed" in line and "expected md5 aaaaaa" in line and entry.md5 in line


def test_locks_that_contradict_each_other_are_caught_without_the_artifacts(root):
    shutil.rmtree(root / "artifacts")
    text = (root / LOCK).read_text()
    out = next(e for e in read(root / LOCK, root) if e.kind == "outs" and "train" in e.path)
    head, _, tail = text.rpartition(f"md5: {out.md5}")
    (root / LOCK).write_text(f"{head}md5: {'1' * 32}.dir{tail}")
    assert f"{out.path}: is not what" in failed(root)["locks"]


def test_a_truncated_lock_is_one_sentence_with_the_way_out(root):
    text = (root / LOCK).read_text()
    (root / LOCK).write_text(text[: text.index("md5: ") + 3])
    lines = failed(root)
    assert f"{LOCK}: is not what DVC writes" in lines["locks"]
    assert f"git checkout {LOCK}" in lines["locks"]


def test_a_damaged_object_of_the_store_in_git_is_caught(root):
    path = next(p for p in (root / "dvcstore").rglob("*") if p.is_file() and p.suffix != ".dir")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    line = failed(root)["dvcstore"]
    assert "is damaged" in line and "git checkout dvcstore" in line


def test_a_lost_object_of_the_store_in_git_is_caught(root):
    path = next(p for p in (root / "dvcstore").rglob("*") if p.is_file() and p.suffix != ".dir")
    path.unlink()
    assert "lacks objects of data" in failed(root)["dvcstore"]


def test_a_damaged_object_of_the_cache_is_caught(root):
    path = next(p for p in (root / ".dvc/cache/files/md5").rglob("*") if p.is_file())
    path.chmod(0o644)
    path.write_bytes(b"x")
    line = failed(root)["cache"]
    assert "is damaged" in line and "delete it and run dvc repro" in line


def test_a_parameter_changed_since_is_named(root):
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 4"))
    line = failed(root)["current"]
    assert "toy.train.steps in params.yaml is modified" in line or "toy.train in params" in line
    assert "train@tiny: is not what made the results" in line


def test_code_changed_since_is_named_twice(root):
    code = root / "stages/toy/score.py"
    code.write_text(code.read_text() + "# a comment\n")
    lines = failed(root)
    assert "stages/toy/score.py is modified" in lines["current"]
    assert "stages/toy/score.py: has changed since" in lines["locks"]
    assert "recomputed" not in lines


def test_a_command_changed_since_is_named(root):
    path = root / "stages/toy/dvc.yaml"
    path.write_text(
        path.read_text().replace("exec python -m stages.toy.report", "python -m stages.toy.report")
    )
    assert "changed command" in failed(root)["current"]


def test_without_artifacts_it_says_what_was_not_checked_and_fails_nothing(root):
    shutil.rmtree(root / "artifacts")
    lines = found(root, quick=False)
    assert not lines["FAILED"]
    said = "\n".join(lines["not checked"])
    assert "artifacts of artifacts/tiny/toy/train are not here, run dvc repro" in said
    assert "recomputed stages/toy/dvc.yaml:score@tiny" in said and "retrained" in said


def test_forged_weights_are_caught_by_training_again(root):
    """The forger has made lock and results agree with the weights, but has not the losses."""
    (root / WEIGHTS).write_bytes(bytes([9, 15, 22]))
    _losses_times(root, 0.9)
    (root / RESULT).write_text((root / RESULT).read_text().replace("45", "46"))
    (root / PAGE).write_text("<h1>46</h1>")
    relisted(root, "artifacts/tiny/toy/train", "reports/results/tiny/toy", PAGE)
    (root / "README.md").write_text("sum: 46\n")
    assert not failed(root)
    line = failed(root, quick=False)["retrained"]
    assert "differs by 0.1 in the median" in line and "is not what its stage trains" in line


def test_losses_within_the_tolerance_pass_and_the_line_says_so(root):
    _losses_times(root, 1 + rerun.TOLERANCE / 2)
    relisted(root, "artifacts/tiny/toy/train")
    lines = found(root, quick=False)
    assert not lines["FAILED"]
    assert any(
        "1 of 2 files have other bytes; what was logged differs by 0.02" in ok for ok in lines["ok"]
    )


def test_a_stage_that_fails_when_run_again_is_a_failed_check(root):
    (root / WEIGHTS).unlink()
    line = failed(root)["recomputed"]
    assert "cannot be run again" in line and "FileNotFoundError" in line


def test_entries_of_stages_that_exist_no_more_are_said_and_not_failed(root):
    text = (root / LOCK).read_text()
    old = text.partition("  train@tiny:")[2].partition("  score@tiny")[0]
    assert "numbers.txt" not in old
    entry = (
        "  gone@tiny:\n    cmd: gone\n    outs:\n    - path: artifacts/gone\n      md5: "
        + "a" * 32
        + "\n"
    )
    (root / LOCK).write_text(text.replace("stages:\n", f"stages:\n{entry}"))
    lines = found(root)
    assert not lines["FAILED"]
    assert any(f"{LOCK[:-5]}.yaml:gone@tiny in a lock" in line for line in lines["not checked"])


def test_uncommitted_results_are_said(root):
    (root / "README.md").write_text("sum: 45\n\n")
    assert any("1 files are not as committed (README.md)" in s for s in found(root)["not checked"])


def test_the_status_tells_whether_a_check_failed(root, capsys):
    assert verify.main(["--quick"], root) == 0
    assert re.search(r"\d+ ok, 0 FAILED, 0 not checked", capsys.readouterr().out)
    (root / PAGE).write_text("tampered")
    assert verify.main(["--quick", "--profile", "tiny"], root) == 1
    assert "FAILED" in capsys.readouterr().out
    assert verify.main(["--profile", "tinny"], root) == 2
    assert "did you mean 'tiny'?" in capsys.readouterr().err


def test_outside_of_git_it_stops_with_one_sentence(root, capsys):
    shutil.rmtree(root / ".git")
    assert verify.main(["--quick"], root) == 2
    assert "cannot be compared with git" in capsys.readouterr().err


def test_the_seed_draws_the_training():
    assert len({rerun.draw(list(range(50)), seed) for seed in range(40)}) > 20
    assert rerun.draw([1, 2, 3], 7) == rerun.draw([1, 2, 3], 7)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "an empty file"),
        ("stages: 3", "AttributeError"),
        ("stages:\n  a:\n    deps:\n    - path: x\n", "cmd"),
        ("stages:\n  a:\n    cmd: x\n    outs:\n    - {path: x, md5: 12}\n", "md5 12"),
        ("{", "ParserError"),
    ],
)
def test_what_is_no_lock_is_refused(text, found):
    with pytest.raises(InputError, match=f"is not what DVC writes.*found .*{found}"):
        parse(text, "dvc.lock")


def test_every_out_in_git_is_the_one_that_its_lock_lists():
    """Of the project itself: results and pages, without models."""
    root = Path()
    entries = [e for path in locks(root) for e in read(path, root) if e.kind == "outs"]
    in_git = [entry for entry in entries if entry.path.startswith("reports")]
    done = rehash(in_git, root)
    assert done.hashed >= 13 and not done.wrong
