import errno
import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest

from stages.common import stage
from stages.common.errors import InputError
from stages.common.params import PositiveInt
from stages.common.stage import run

PARAMS = """\
profiles: {small: {demo: {}}}
demo:
  train: {steps: 3}
  variants: {plain: {}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(data, out, *, steps: PositiveInt):
    """Write how many steps were asked for."""
    if not data.exists():
        raise InputError(data, "is missing", expected="a file", found="nothing", remedy="make it")
    if steps == 5:
        raise FloatingPointError("step 4: loss is nan")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(str(steps))
    return {"images_per_s": 7}


def call(*more, data="params.yaml"):
    run(train, "demo.train", [data, "train/plain.txt", "--profile", "small", *more])


def test_a_stage_reads_its_params_and_says_what_it_does(folder, capsys):
    call("--variant", "plain")
    said = capsys.readouterr().out
    assert "data params.yaml" in said and "steps=3" in said and "wrote train/plain.txt" in said
    assert (folder / "train/plain.txt").read_text() == "3"


def test_provenance_lies_outside_the_outs_and_tells_where_it_ran(folder):
    call("--variant", "plain")
    path = folder / "reports/provenance/small/demo/train-plain.json"
    facts = json.loads(path.read_text())
    assert facts["params"] == {"steps": 3}
    assert facts["images_per_s"] == 7
    assert facts["seconds"] >= 0 and facts["peak_memory_MiB"] > 1
    assert {"commit", "cpus", "machine", "packages", "python"} <= set(facts)


@pytest.mark.parametrize(
    ("change", "data", "status", "says"),
    [
        ("steps: 3", "nowhere", 2, "nowhere: is missing: expected a file, found nothing; make it"),
        ("steps: 0", "params.yaml", 2, "demo.train.steps has the wrong value"),
        ("stps: 3", "params.yaml", 2, "did you mean 'steps'?"),
        ("steps: 5", "params.yaml", 3, "step 4: loss is nan"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(folder, capsys, change, data, status, says):
    (folder / "params.yaml").write_text(PARAMS.replace("steps: 3", change))
    with pytest.raises(SystemExit) as stop:
        call(data=data)
    said = capsys.readouterr().err
    assert stop.value.code == status
    assert says in said
    assert said.count("\n") == 1 and said.startswith("error: demo.train [small]: ")
    assert not (folder / "train").exists()


def test_under_torchrun_one_process_runs_a_stage_that_does_not_divide_its_work(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    call("--variant", "plain")
    assert not (folder / "train").exists() and not (folder / "reports").exists()
    monkeypatch.setenv("RANK", "0")
    call("--variant", "plain")
    assert (folder / "reports/provenance/small/demo/train-plain.json").exists()


def test_under_torchrun_all_processes_run_a_stage_that_does_and_the_first_tells(
    folder, monkeypatch
):
    monkeypatch.setitem(globals(), "set_up", None)
    monkeypatch.setenv("RANK", "1")
    call("--variant", "plain")
    assert (folder / "train/plain.txt").exists()
    assert not (folder / "reports").exists()


def test_a_wrong_command_line_is_refused_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "stages.colourisation.score", "--profile", "smoke"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "usage: python -m stages.colourisation.score" in done.stderr
    assert "Traceback" not in done.stderr


def test_parameters_edited_while_the_stage_runs_are_refused(folder, capsys):
    """DVC hashes them after the run and would note them as what made the result."""

    def slow(data, out, *, steps: PositiveInt):
        """Take so long that somebody edits."""
        data.write_text(PARAMS.replace("steps: 3", "steps: 4"))

    with pytest.raises(SystemExit) as stop:
        run(slow, "demo.train", ["params.yaml", "out", "--profile", "small"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert "params.yaml: was edited while the stage ran" in said
    assert "expected steps=3, found steps=4; run dvc repro again" in said
    assert not (folder / "reports").exists()


def test_parameters_of_other_stages_may_be_edited_meanwhile(folder):
    def slow(data, out, *, steps: PositiveInt):
        """Take so long that somebody edits what another stage reads."""
        data.write_text(f"{PARAMS}  score: {{resamples: 3}}\n")

    run(slow, "demo.train", ["params.yaml", "out", "--profile", "small"])
    assert (folder / "reports/provenance/small/demo/train.json").exists()


def test_code_edited_while_the_stage_runs_is_refused(folder, capsys, monkeypatch):
    file = Path(stage.__file__).resolve()
    hashes = iter(["old", "new"])
    monkeypatch.setattr(stage, "_sources", lambda: {file: next(hashes)})
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 2
    assert "stage.py: was edited while the stage ran" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.npz"), "x.npz: cannot be used"),
        (OSError(errno.EROFS, "Read-only file system"), "found Read-only file system"),
        (MemoryError("Unable to allocate 9 GiB"), "too little memory for the stage"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "too little memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"), "or lower batch_size"),
        (BrokenProcessPool("terminated abruptly"), "was ended from outside"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(folder, capsys, error, says):
    def refused(data, out, *, steps: PositiveInt):
        """Ask for too much."""
        raise error

    with pytest.raises(SystemExit) as stop:
        run(refused, "demo.train", ["params.yaml", "out", "--profile", "small"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert says in said and "run dvc repro again" in said


def test_an_interrupted_stage_says_so_in_one_sentence(folder, capsys):
    def slow(data, out, *, steps: PositiveInt):
        """Take so long that somebody presses Ctrl-C."""
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run(slow, "demo.train", ["params.yaml", "out", "--profile", "small"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == (
        "error: demo.train [small]: interrupted; run dvc repro to go on from the last checkpoint\n"
    )


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), OSError(errno.ENOENT, "no such")])
def test_mistakes_of_the_code_keep_their_traceback(folder, error):
    def mistaken(data, out, *, steps: PositiveInt):
        """Fail as code does."""
        raise error

    with pytest.raises(type(error)):
        run(mistaken, "demo.train", ["params.yaml", "out", "--profile", "small"])


def _orphan(when):
    """Start a process as DVC does, kill the starter ``when`` ("before" or "after" the import)."""
    child = "import time; time.sleep(1); import stages; print('up', flush=True); time.sleep(60)"
    starter = (
        "import subprocess, sys, time;"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter],
        env={**os.environ, "DVC_STAGE": "demo", "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = psutil.Process(int(process.stdout.readline()))
        if when == "after":
            assert process.stdout.readline() == "up\n"
        process.kill()
        process.wait()
        adopter = started.ppid() if started.is_running() else 1
        gone, _ = psutil.wait_procs([started], timeout=10)
        if not gone:
            started.kill()
    return bool(gone), adopter


def test_a_stage_ends_when_dvc_is_killed():
    assert _orphan("after")[0]


def test_a_stage_ends_when_dvc_is_killed_before_the_stage_could_ask_for_it():
    gone, adopter = _orphan("before")
    if adopter != 1:
        pytest.skip(f"orphans are adopted by process {adopter} here, and so cannot be told")
    assert gone
