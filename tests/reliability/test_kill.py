"""A few kills of two cheap stages; the long run is ``python tests/reliability/kill.py``."""

import json
import subprocess
import sys

import pytest

KILLS, SEED = 3, 7


@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    out = tmp_path / "kill.json"
    stages = "gan_transform:prepare,gan_transform:train_target"
    print(f"{KILLS} kills, seed {SEED}")
    command = [sys.executable, "tests/reliability/kill.py", "--kills", str(KILLS)]
    done = subprocess.run(
        [*command, "--seed", str(SEED), "--stages", stages, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert sum(found["hits"].values()) == found["kills"] == KILLS
    assert found["stages"] == 2 and found["compared"] == 2
    for trouble in ("orphans", "damaged", "lost", "repeated", "blocked", "differences"):
        assert found[trouble] == []
