import json
import re
import shutil
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.scoreboard.reliability import BLOCKS, MEASURED, PAGE, rendered

TEXT = PAGE.read_text(encoding="utf-8")
KILLS = {
    "kills": 100, "seed": 1, "forked": True, "profile": "smoke", "stages": 87, "compared": 300,
    "seconds": 3600.0,
    "hits": {"a": 60, "b": 40}, "inside": {"stage": 90, "dvc": 10},
    "how": {"dvc": 40, "stage": 30, "group": 30}, "moments": {"time": 80, "lock": 20},
    "orphans": ["python"], "damaged": [], "lost": [], "repeated": [], "blocked": [],
    "differences": [], "repaired_locks": 3, "removed_rwlocks": 7,
}  # fmt: skip
FAULT = {
    "what": "The disk is full.", "how": "tmpfs", "said": "error: a|b: no space", "lost": [],
    "finished_afterwards": True, "wrong": [],
}  # fmt: skip


def test_the_page_says_what_was_measured():
    assert rendered(TEXT) == TEXT


def test_the_tests_and_targets_that_the_page_names_exist():
    code = "\n".join(path.read_text() for path in Path("tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(names) > 12
    for name in names:
        assert re.search(rf"^def {name}\(", code, re.M), name
    for script in re.findall(r"python (tests/\S+\.py)", TEXT):
        assert Path(script).exists() or script.endswith("fuzz.py"), script


def test_the_page_counts_the_pins_as_they_are():
    pins = [x for x in Path("requirements.txt").read_text().splitlines() if "==" in x]
    assert f"all {len(pins)} pins" in TEXT


def test_figures_come_from_the_files(tmp_path):
    (tmp_path / "kill.json").write_text(json.dumps(KILLS))
    faults = {"faults": {"disk_full": FAULT}, "failed": [], "seconds": 5.0}
    (tmp_path / "faults.json").write_text(json.dumps(faults))
    row = {"executions": 1234, "failures": 2, "seconds": 3.0}
    fuzz = {"targets": {"read_json": row}, "seed": 0, "minutes": 10}
    (tmp_path / "fuzz.json").write_text(json.dumps(fuzz))
    row = {"files": 5, "differ": 4, "median": 0.0035, "largest": 1.0, "where": "log.0.accuracy"}
    tolerance = {"how": "no vectors", "trainings": {"train": row}}
    (tmp_path / "tolerance.json").write_text(json.dumps(tolerance))
    page = rendered(TEXT, tmp_path)
    assert "100 kills (SIGKILL, seed 1)" in page and "as `make reproduce` starts them" in page
    assert "| processes that lived on | 1 |" in page
    assert "| lists of readers that were cut off, and removed | 7 |" in page
    assert "in 2 of its 87 stages: 90 while a stage ran, 10 while DVC" in page
    assert "| The disk is full. | tmpfs | `error: a\\|b: no space` | nothing | yes |" in page
    assert "1,234 executions in 10 minutes (seed 0), 2 failures." in page
    assert "| `train` | 4 of 5 | 0.0035 | 1 | log.0.accuracy |" in page
    assert "Not yet measured" not in page
    assert rendered(page, tmp_path) == page
    assert rendered(page, tmp_path / "none").count("Not yet measured.") == len(BLOCKS)


def test_a_fault_that_went_otherwise_is_not_told_as_mended(tmp_path):
    told = {**FAULT, "wrong": ["it does not say so"]}
    faults = {"faults": {"disk_full": told}, "failed": ["disk_full"], "seconds": 5.0}
    (tmp_path / "faults.json").write_text(json.dumps(faults))
    page = rendered(TEXT, tmp_path)
    assert "1 of which went otherwise" in page and "| nothing | no |" in page


def test_a_page_without_a_place_and_a_file_without_the_figures_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no place for kills"):
        rendered(TEXT.replace("<!-- kills:end -->", ""))
    if MEASURED.exists():
        shutil.copytree(MEASURED, tmp_path, dirs_exist_ok=True)
    (tmp_path / "kill.json").write_text('{"kills": 3}')
    with pytest.raises(InputError, match="kill.json: lacks 'hits'"):
        rendered(TEXT, tmp_path)
    (tmp_path / "kill.json").write_text(json.dumps({**KILLS, "hits": 3}))
    with pytest.raises(InputError, match="is not what its script writes"):
        rendered(TEXT, tmp_path)
