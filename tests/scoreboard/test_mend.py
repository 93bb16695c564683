import shutil
import subprocess
from pathlib import Path

import pytest

from stages.scoreboard.mend import HEAD, RWLOCK, blocks, mend, mended
from stages.scoreboard.rehash import parse

REAL = blocks(Path("stages/gan_transform/dvc.lock").read_text(encoding="utf-8"))
WHOLE = HEAD + "".join([*REAL.values()][:6])  # all of it takes seconds to parse
CUTS = [0, 5, 20, 24, *range(25, len(WHOLE) - 1, len(WHOLE) // 24)]


def test_a_whole_lock_is_left_alone():
    assert mended(WHOLE, WHOLE) is None
    assert mended(WHOLE, "") is None


def test_entries_that_are_newer_than_the_commit_are_left_alone():
    older = WHOLE.replace("md5: ", "md5: a")
    assert older != WHOLE and mended(WHOLE, older) is None


@pytest.mark.parametrize("cut", CUTS)
def test_a_lock_cut_anywhere_gets_back_what_the_commit_has(cut):
    new = mended(WHOLE[:cut], WHOLE)
    if new is None:  # the cut left YAML, and in its last entry too few files: DVC sees that
        assert blocks(WHOLE[:cut]).keys() == blocks(WHOLE).keys()
        return
    assert blocks(new) == blocks(WHOLE)
    parse(new, "dvc.lock")


@pytest.mark.parametrize("cut", CUTS)
def test_without_a_commit_the_whole_entries_before_the_cut_are_kept(cut):
    new = mended(WHOLE[:cut], "")
    known, found = blocks(WHOLE), blocks(WHOLE[:cut])
    if new is None:  # the cut left YAML that DVC takes for a lock
        assert cut and len(parse(WHOLE[:cut], "dvc.lock")) > 0
        return
    kept = blocks(new)
    assert list(kept) == list(found)[: max(len(found) - 1, 0)]
    assert all(known[name] == block for name, block in kept.items())
    assert not new if not kept else parse(new, "dvc.lock")


def test_what_ran_since_the_commit_is_kept_and_other_profiles_are_not_lost():
    names = list(blocks(WHOLE))
    newer = WHOLE.replace(f"  {names[0]}:\n", f"  prepare@gpu:\n    cmd: prepare\n  {names[0]}:\n")
    cut = newer.index(f"  {names[3]}:\n") + 30
    new = mended(newer[:cut], WHOLE)
    assert new is not None
    assert set(blocks(new)) == {"prepare@gpu", *names}


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("stages.scoreboard.mend.WRITING_SECONDS", 0.0)


def test_a_lock_that_is_being_written_is_left_alone(tmp_path, monkeypatch):
    lock = tmp_path / "dvc.lock"
    lock.write_text(WHOLE[:50])
    monkeypatch.setattr("time.sleep", lambda _: lock.write_text(WHOLE))
    assert mend(tmp_path) == [] and lock.read_text() == WHOLE


def test_a_lock_of_which_nothing_is_left_goes(tmp_path, at_once):
    lock = tmp_path / "dvc.lock"
    lock.write_text("sch")
    assert len(mend(tmp_path)) == 1 and not lock.exists()


def test_files_are_mended_in_place_and_the_second_time_nothing_is_said(tmp_path, at_once):
    lock = tmp_path / "stages" / "gan_transform" / "dvc.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(WHOLE)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "lock"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    cut = WHOLE[: WHOLE.index("  perturb@") + 100]
    lock.write_text(cut)
    (said,) = mend(tmp_path)
    assert said.startswith("stages/gan_transform/dvc.lock: was cut off by a kill")
    assert blocks(lock.read_text()) == blocks(WHOLE)
    assert mend(tmp_path) == []
    shutil.rmtree(tmp_path / ".git")
    lock.write_text(cut[:-75])
    assert len(mend(tmp_path)) == 1 and lock.read_text().startswith("schema")


@pytest.mark.parametrize("text", ["", '{"read": {"a": [{"pid": 1, "cm'])
def test_a_list_of_readers_that_is_cut_off_goes_and_a_whole_one_stays(tmp_path, at_once, text):
    path = tmp_path / RWLOCK
    path.parent.mkdir(parents=True)
    path.write_text('{"read": {}, "write": {}}')
    assert mend(tmp_path) == [] and path.exists()
    path.write_text(text)
    (said,) = mend(tmp_path)
    assert said.startswith(f"{RWLOCK}: was cut off") and not path.exists()
    assert mend(tmp_path) == []
