import json
import subprocess
import sys

import pytest

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
