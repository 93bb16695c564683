"""All parameters are checked before anything runs."""

import re
from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.scoreboard import reproduce
from stages.scoreboard.parameters import complaints, with_parameters
from stages.scoreboard.plan import Step

ROOT = Path(__file__).parents[2]
PREPARE = "exec $LAUNCH python -m stages.gan_transform.prepare out --profile smoke"
TRAIN = "python -m stages.sift_inversion.train a b c --profile smoke --variant R42_J"
VERDICTS = "python -m stages.scoreboard.verdicts --profile smoke"


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Change params.yaml in another folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()

    def change(old=None, new=""):
        assert old is None or len(re.findall(old, text, re.MULTILINE)) == 1
        changed = text if old is None else re.sub(old, new, text, flags=re.MULTILINE)
        (tmp_path / "params.yaml").write_text(changed)

    change()
    return change


def test_only_what_has_parameters_is_checked(params):
    assert with_parameters([VERDICTS, PREPARE, "true", TRAIN]) == [PREPARE, TRAIN]
    assert complaints([VERDICTS, PREPARE, TRAIN]) == []


def test_each_wrong_key_and_value_is_one_sentence_however_many_stages_have_it(params):
    params(r"^    l2_first: 0 ", "    l2_frist: 0 ")
    (said,) = complaints([TRAIN, PREPARE, TRAIN.replace("R42_J", "R42_L2")])
    assert "unknown key 'l2_frist'" in said and "did you mean 'l2_first'" in said
    params(r"^    l2_first: 0 ", "    l2_first: 1.5 ")
    (said,) = complaints([TRAIN])
    assert "expected a number from 0 to 1, found 1.5" in said
    (said,) = complaints([TRAIN.replace("R42_J", "R42_X")])
    assert "R42_X" in said and "params.yaml" in said


def test_params_that_cannot_be_read_are_refused(params):
    Path("params.yaml").write_text("- 3\n")
    with pytest.raises(InputError, match="params.yaml"):
        with_parameters([TRAIN])


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_nothing_starts_with_a_wrong_parameter(params, monkeypatch, capfd, jobs):
    params(r"^    l2_first: 0 ", "    l2_frist: 0 ")
    steps = [Step(c, c, frozenset(), 1.0, False, c) for c in (PREPARE, TRAIN)]
    monkeypatch.setattr(reproduce, "plan", lambda targets: steps)
    monkeypatch.setattr(reproduce, "DVC", ("touch", "started"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert reproduce.main(["--jobs", jobs]) == 2
    said = capfd.readouterr().err
    assert "error: params.yaml: sift_inversion.train has the unknown key 'l2_frist'" in said
    assert "nothing was started" in said
    assert not Path("started").exists()
    Path("params.yaml").write_text("- 3\n")
    assert reproduce.main(["--jobs", jobs]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: params.yaml: ") and not Path("started").exists()
