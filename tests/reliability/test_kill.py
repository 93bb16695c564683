"""A few kills of two cheap stages; the long run is ``python tests/reliability/kill.py``."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kill
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


class ScriptedCheckout:
    """Counts what is started; every session ends well and nothing is ever damaged.

    As DVC does, it forgets a stage that it is made to begin again, until it has finished.
    """

    def __init__(self, cached=True):
        self.started, self.listed, self.cached = [], {"x"}, cached
        self.here = Path("nowhere")

    def stages(self):
        return set(self.listed)

    def repro(self, targets, *more):
        self.started.append((*targets, *more))
        there = self.listed or self.cached
        begun = [] if there and not more else [("x", 0.0)]
        self.listed = set() if more else {"x"}
        ended = SimpleNamespace(returncode=0)
        return SimpleNamespace(process=ended, running=begun, wait=lambda: 0, text=lambda: "")

    def orphans(self, patience):
        return []

    def leftovers(self):
        return []

    def damage(self, but):
        return []


def killing(monkeypatch, sessions):
    """Let the first planned kill be carried out in each of ``sessions`` (numbers from 1)."""

    def attend(session, checkout, todo, outs):
        if len(checkout.started) not in sessions:
            return None
        if checkout.started[-1] == ("all",):
            checkout.listed = set()  # its lock was being written
        return kill.Found(todo.pop(0).stage, "dvc", "time", "stage", 0.0)

    monkeypatch.setattr(kill, "attend", attend)


def test_a_finished_stage_is_begun_again_for_each_of_its_kills(monkeypatch):
    killing(monkeypatch, {2, 4})
    checkout, todo = ScriptedCheckout(), [kill.Kill("x", "dvc", "time", 1.0)] * 2
    found = kill.disturb(checkout, ["all"], todo, {"x": "artifacts/x"})
    again = ("x", "--force", "--single-item")
    assert checkout.started == [("all",), again, ("all",), again, ("all",)]
    assert found["kills"] == 2 and found["blocked"] == []
    assert found["lost"] == [] and found["repeated"] == []
    assert found["locks_that_lost_entries"] == 0


def test_a_kill_that_never_falls_ends_the_run_and_is_told(monkeypatch):
    killing(monkeypatch, set())
    todo = [kill.Kill("x", "dvc", "time", 1.0)]
    found = kill.disturb(ScriptedCheckout(), ["all"], todo, {"x": "reports/x.json"})
    assert found["kills"] == 0
    assert len(found["blocked"]) == 1 and "1 kills were never carried out" in found["blocked"][0]


@pytest.mark.parametrize(("cached", "lost"), [(True, []), (False, ["x"])])
def test_only_what_had_to_run_again_after_a_cut_lock_is_lost(monkeypatch, cached, lost):
    killing(monkeypatch, {1, 3})
    checkout, todo = ScriptedCheckout(cached), [kill.Kill("x", "dvc", "time", 1.0)] * 2
    found = kill.disturb(checkout, ["all"], todo, {"x": "artifacts/x"})
    again = ("x", "--force", "--single-item")
    assert checkout.started == [("all",), ("all",), again, ("all",)]
    assert found["locks_that_lost_entries"] == 1 and found["lost"] == lost
