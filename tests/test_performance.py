"""docs/performance.md tells what make bench measured, and of every entry which change it shows."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.scoreboard.performance import CHANGES, MEASURED, PAGE, rendered, table


def ratio(median):
    return {"median": median, "min": median - 0.5, "max": median + 0.5}


def measured(**more):
    ways = {
        "ours": {"what": "ours", "seconds": ratio(1.5), "times_as_fast_as": {"plain": ratio(2.5)}},
        "plain": {"what": "a plain loop", "seconds": ratio(3.75)},
    }
    entry = {"item": "sift_train", "what": "a step", "ours": "ours", "ways": ways, **more}
    run = {"load_before": [0.1], "load_after": [0.2], "repeats": 7}
    device = {"cores": 2, "processor": "a processor", "instruction_set": "AVX2"}
    return {"device": device, "run": run, "items": {"sift_train": entry}, "not_measured": {}}


def test_the_page_is_what_was_measured():
    page = PAGE.read_text(encoding="utf-8")
    assert page == rendered(page) and "Not yet measured" not in page
    assert "Not yet measured" in rendered(page, Path("nothing.json"))


def test_a_line_has_both_times_their_ratio_and_the_commit():
    line = table(measured(baseline="plain", target=2.0, reached=True)).splitlines()[-1]
    change, commit = CHANGES["sift_train"]
    assert line.split(" | ")[1:] == [
        change, f"`{commit}`", "a plain loop", "3.75 s", "1.5 s", "2.50 [2.00, 3.00]",
        "2, reached |",
    ]  # fmt: skip


def test_a_target_that_is_missed_is_said():
    assert "3, **not** reached" in table(measured(baseline="plain", target=3.0, reached=False))


def test_what_could_not_be_measured_is_listed():
    found = measured() | {"not_measured": {"pipeline": "dvc is not installed"}}
    assert "- not measured: `pipeline`: dvc is not installed" in table(found)


def test_another_measurement_is_another_page(tmp_path):
    path = tmp_path / "cpu.json"
    path.write_text(json.dumps(measured()))
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page, path) != page
    with pytest.raises(InputError, match="has no place for before_after"):
        rendered("nothing", path)


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def test_every_change_is_measured():
    found = json.loads(MEASURED.read_text())
    assert set(CHANGES) <= set(found["items"]) and found["not_measured"] == {}
    assert all(re.fullmatch("[0-9a-f]{7}", commit) for _, commit in CHANGES.values())


def test_every_commit_is_one():
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("a shallow clone has no history")
    found = {commit: git("cat-file", "-t", commit) for _, commit in CHANGES.values()}
    assert set(found.values()) == {"commit\n"}
