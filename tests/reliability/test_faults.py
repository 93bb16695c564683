"""Two faults for real; all of them are tried by ``python tests/reliability/faults.py``."""

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(900)
def test_a_full_disk_and_an_edit_during_the_run_are_said_and_lose_nothing(tmp_path):
    out = tmp_path / "faults.json"
    command = [sys.executable, "tests/reliability/faults.py", "--only", "disk_full,params_edited"]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["faults"]
    assert set(found) == {"disk_full", "params_edited"}
    for told in found.values():
        assert told["ours"] and told["finished_afterwards"] and told["lost"] == []
