"""The runner of the pipeline, on a pipeline of seven tiny stages laid out as this project's."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.common.files import write_json
from stages.scoreboard.parameters import COMMAND as COMMAND_OF_A_STAGE
from stages.scoreboard.plan import START_UP, Step, label, plan, recorded_seconds
from stages.scoreboard.progress import HEADWAY, Progress, about
from stages.scoreboard.reproduce import free_gpu, main, visible_gpus

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's

ROOT = Path(__file__).parents[2]
CONFIG = "[core]\n no_scm = true\n analytics = false\n check_update = false\n site_cache_dir = {}\n"
# What the stages run: the inputs' words into the output; a word may be an order. It ends with DVC,
# as every stage of this project does.
WORK = """\
import ctypes, os, pathlib, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
*read, out = map(pathlib.Path, sys.argv[3:-2])
seen = [os.environ.get(name, "-") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
log = pathlib.Path("log") / out.name
log.parent.mkdir(exist_ok=True)
log.write_text(" ".join([str(os.getpid()), str(time.time()), *seen]))
words = " ".join(path.read_text() for path in read).split()
if f"fail-{out.stem}" in words:
    sys.exit(f"error: {out.stem} cannot go on")
if f"wait-{out.stem}" in words:
    time.sleep(100)
if f"rest-{out.stem}" in words:
    time.sleep(1)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(f"{out.stem}( {' '.join(words)} )")
log.write_text(f"{log.read_text()} {time.time()}")
"""
COMMAND = f"exec {sys.executable} -S work.py -m stages"
PAPER = """\
vars:
  - ../../params.yaml
stages:
  prepare:
    wdir: ../..
    matrix:
      profile: ["${{profile}}"]
    cmd: {command}.{paper}.prepare {paper}.txt artifacts/{paper}/prepare --profile ${{item.profile}}
    deps: [{paper}.txt]
    outs: [artifacts/{paper}/prepare]
  train:
    wdir: ../..
    matrix:
      profile: ["${{profile}}"]
      variant: ${{variants}}
    cmd: >-
      {command}.{paper}.train artifacts/{paper}/prepare
      artifacts/{paper}/train/${{item.variant}}.{paper} --profile ${{item.profile}}
    deps: [artifacts/{paper}/prepare, stages/common/device.py]
    params: ["variants.${{item.variant}}"]
    outs: ["artifacts/{paper}/train/${{item.variant}}.{paper}"]
"""
VERDICTS = f"""\
stages:
  verdicts:
    matrix:
      profile: ["${{profile}}"]
    cmd: >-
      {COMMAND}.scoreboard.verdicts artifacts/alpha/train/a.alpha artifacts/alpha/train/b.alpha
      artifacts/beta/train/a.beta artifacts/beta/train/b.beta verdicts --profile ${{item.profile}}
    deps: [artifacts/alpha/train, artifacts/beta/train]
    outs:
      - verdicts:
          cache: false
"""
LABELS = {
    *("alpha prepare", "alpha train@a", "alpha train@b"),
    *("beta prepare", "beta train@a", "beta train@b", "verdicts"),
}


def make(folder):
    """Write the pipeline of seven stages into ``folder``."""
    files = {
        ".dvc/config": CONFIG.format(folder / "site"),
        "params.yaml": "profile: tiny\nvariants: {a: 1, b: 2}\n",
        "work.py": WORK,
        "dvc.yaml": VERDICTS,
        "alpha.txt": "one two",
        "beta.txt": "three",
        "stages/common/device.py": "",
        "stages/alpha/dvc.yaml": PAPER.format(command=COMMAND, paper="alpha"),
        "stages/beta/dvc.yaml": PAPER.format(command=COMMAND, paper="beta"),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(make(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The pipeline, run one stage after another, and what was said."""
    folder = make(tmp_path_factory.mktemp("finished"))
    return folder, run(folder)


@pytest.fixture
def again(finished, tmp_path, monkeypatch):
    """A copy of the finished pipeline."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / ".dvc/config").write_text(CONFIG.format(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(folder, **more):
    hidden = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**env, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PATH": os.defpath, **more}


def begin(folder, *words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "stages.scoreboard.reproduce", *words],
        cwd=folder,
        env=environment(folder, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, *words, **env):
    process = begin(folder, *words, **env)
    said, complained = process.communicate(timeout=400)
    return process.returncode, said, complained


def outs(folder):
    """Return the bytes of all outs, and what all locks hold."""
    files = [*folder.glob("artifacts/**/*"), folder / "verdicts"]
    locks = [YAML(typ="safe").load(path) for path in sorted(folder.rglob("dvc.lock"))]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.is_file()}, locks


def progress_lines(said):
    """Return (number, of how many, label) of every line that says how far it is."""
    found = re.findall(r"^\[(\d+)/(\d+)\] ([^·\n]+?)(?: · .*)?$", said, re.M)
    return [(int(i), int(n), name) for i, n, name in found]


def started(folder, name, deadline=200):
    """Wait until the stage that writes ``name`` runs; return its process id."""
    log, end = folder / "log" / name, time.monotonic() + deadline
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < end, f"{name} never ran"
        time.sleep(0.05)
    return int(log.read_text().split()[0])


def logs(folder):
    """Return {file: {gpu, threads, began, ended}} of every stage that ran."""
    found = {}
    for path in (folder / "log").iterdir():
        _, began, gpu, threads, ended = path.read_text().split()
        found[path.name] = {"gpu": gpu, "threads": threads}
        found[path.name] |= {"began": float(began), "ended": float(ended)}
    return found


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_line_before_each_stage_says_which_of_how_many(finished):
    _, (status, said, _) = finished
    assert status == 0
    lines = progress_lines(said)
    assert [(i, n) for i, n, _ in lines] == [(i + 1, 7) for i in range(7)]
    assert {name for *_, name in lines} == LABELS and lines[-1][2] == "verdicts"
    shown = [line for line in said.splitlines() if line.startswith(("[", "Running"))]
    assert shown[0] == "[1/7] alpha prepare"  # nothing ever ran: no guess of the time left
    assert [line[0] for line in shown] == ["[", "R"] * 7
    assert shown[1] == "Running stage 'stages/alpha/dvc.yaml:prepare@tiny':"


def test_without_a_terminal_there_are_no_control_codes(finished):
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", "".join(finished[1][1:]))


def test_two_at_once_give_what_one_after_the_other_gives(finished, here):
    status, said, _ = run(here, "--jobs", "2")
    assert status == 0 and said.endswith("Data and pipelines are up to date.\n")
    assert {(n, name) for _, n, name in progress_lines(said)} == {(7, name) for name in LABELS}
    assert "beta train@b | Running stage 'stages/beta/dvc.yaml:train@tiny-b':" in said
    assert outs(here) == outs(finished[0])
    ran = logs(here)
    assert ran.pop("verdicts")["began"] > max(stage["ended"] for stage in ran.values())
    assert ran["prepare"]["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 2))


def test_nothing_to_do_is_said_and_nothing_runs(again):
    shutil.rmtree(again / "log")
    assert run(again) == (0, "Data and pipelines are up to date.\n", "")
    assert not (again / "log").exists()


def test_stages_that_turn_out_unneeded_count_as_done(again):
    (again / "beta.txt").write_text("three\n")  # what prepare makes of it stays the same
    status, said, _ = run(again)
    assert status == 0 and "stages to run, at most: 4\n" in said
    assert progress_lines(said) == [(1, 4, "beta prepare")]
    assert "train@tiny-a' didn't change, skipping" in said
    assert plan() == []


@pytest.mark.parametrize(("jobs", "done"), [("1", {1, 2}), ("2", {2})])
def test_a_failure_is_named_and_keeps_its_status(again, jobs, done):
    """Of a and b, which need the same, b is done before a fails if DVC chose to begin with it."""
    (again / "alpha.txt").write_text("fail-a")
    status, said, complained = run(again, "--jobs", jobs)
    assert status == 255  # DVC's
    assert "error: a cannot go on" in said + complained
    stopped = re.fullmatch(
        r"stopped at alpha train@a, (\d) of 4 stages done; the next run goes on from there",
        complained.splitlines()[-1],
    )
    assert stopped and int(stopped[1]) in done
    assert "verdicts" not in {name for *_, name in progress_lines(said)}
    assert {step.label for step in plan()} >= {"alpha train@a", "verdicts"}


@pytest.mark.parametrize(
    ("number", "jobs", "status"),
    [(signal.SIGTERM, 1, 143), (signal.SIGINT, 2, 130), (signal.SIGKILL, 2, -9)],
)
def test_a_killed_runner_leaves_no_child(again, number, jobs, status):
    shutil.rmtree(again / "log")
    (again / "alpha.txt").write_text("wait-a wait-b")
    runner = begin(again, "--jobs", str(jobs))
    waiting = "a" if jobs == 2 else next(s.label[-1] for s in plan() if "train" in s.label)
    stage = started(again, f"{waiting}.alpha")
    dvc = int(Path(f"/proc/{stage}/stat").read_text().rpartition(") ")[2].split()[1])
    assert lives(stage) and lives(dvc)
    runner.send_signal(number)
    runner.communicate(timeout=400)  # to the end of all that writes to its pipes
    assert runner.returncode == status
    end = time.monotonic() + 10
    while (lives(stage) or lives(dvc)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not lives(stage) and not lives(dvc)


def test_what_dvc_refuses_is_said_by_dvc(again):
    status, _, complained = run(again, "nowhere")
    assert status == 255 and "nowhere" in complained and "Traceback" not in complained


def test_a_stage_on_a_gpu_has_it_for_itself(again):
    """Both stages depend on stages/common/device.py; the GPU is a name, nothing computes."""
    (again / "alpha.txt").write_text("rest-a rest-b")
    shutil.rmtree(again / "log")
    target = "stages/alpha/dvc.yaml:train"
    status, _, _ = run(again, "--jobs", "3", target, CUDA_VISIBLE_DEVICES="6", OMP_NUM_THREADS="3")
    ran = logs(again)
    assert status == 0 and set(ran) == {"prepare", "a.alpha", "b.alpha"}
    assert {(stage["gpu"], stage["threads"]) for stage in ran.values()} == {("6", "3")}
    first, second = sorted((ran[f"{v}.alpha"]["began"], ran[f"{v}.alpha"]["ended"]) for v in "ab")
    assert first[1] < second[0]


def test_a_gpu_is_held_until_its_lock_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gpu, lock = free_gpu(["0", "1"])
    other, second = free_gpu(["0", "1"])
    assert (gpu, other) == ("0", "1")
    assert free_gpu(["0", "1"]) is None
    os.close(lock)
    again, third = free_gpu(["0", "1"])
    assert again == "0"
    for held in (second, third):
        os.close(held)


@pytest.mark.parametrize(("chosen", "gpus"), [("", []), ("-1", []), ("0, GPU-8", ["0", "GPU-8"])])
def test_gpus_are_those_that_are_visible(monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus


def test_jobs_are_a_number_above_0(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--jobs", "0"])
    assert "expected a whole number above 0, found '0'" in capsys.readouterr().err


def test_make_hands_the_number_of_jobs_on_and_ends_with_the_verdicts():
    env = {"PATH": os.environ["PATH"]}  # not those of the make that runs the tests
    for words, jobs in (([], "1"), (["JOBS=3"], "3")):
        make = ["make", "--dry-run", "reproduce", *words]
        said = subprocess.check_output(make, cwd=ROOT, env=env, text=True)
        runner, verdicts = said.splitlines()[-2:]
        assert runner.endswith(f"python -m stages.scoreboard.reproduce --jobs {jobs}")
        assert verdicts.endswith("python -m stages.scoreboard.verdicts --show")


def record(name, profile="tiny", **facts):
    write_json(Path("reports/provenance") / profile / f"{name}.json", facts)


def test_seconds_are_those_of_earlier_runs(here):
    record("alpha/prepare", seconds=10)
    record("alpha/train-a", seconds=70.5)
    record("beta/train-b", seconds=30)
    record("beta/prepare", seconds={"part": 2})  # something else of that name
    found = {step.label: step for step in plan()}
    usual = START_UP + 30
    assert found.keys() == LABELS
    assert {name: step.seconds for name, step in found.items()} == {
        "alpha prepare": START_UP + 10,
        "alpha train@a": START_UP + 70.5,
        "alpha train@b": usual,
        "beta prepare": usual,
        "beta train@a": usual,
        "beta train@b": START_UP + 30,
        "verdicts": usual,
    }
    assert {name for name, step in found.items() if step.gpu} == {n for n in LABELS if "train" in n}
    assert found["alpha train@a"].after == {"stages/alpha/dvc.yaml:prepare@tiny"}
    assert len(found["verdicts"].after) == 4


def test_a_target_needs_only_what_is_before_it(here):
    names = [step.label for step in plan(["stages/beta/dvc.yaml:train@tiny-b"])]
    assert names == ["beta prepare", "beta train@b"]


def test_what_dvc_has_in_its_cache_takes_no_time(again):
    record("alpha/prepare", seconds=10)
    shutil.rmtree(again / "artifacts")
    assert {step.seconds for step in plan()} == {0}
    (again / "params.yaml").write_text("profile: tiny\nvariants: {a: 5, b: 2}\n")
    timed = {step.label for step in plan() if step.seconds}
    assert timed == {"alpha train@a", "beta train@a", "verdicts"}


def test_the_stages_of_this_project_are_found_in_their_provenance():
    for file in ROOT.glob("stages/*/dvc.yaml"):
        for stage in YAML(typ="safe").load(file)["stages"].values():
            command = re.sub(r"\$\{item\.(\w+)\}", r"\1", stage["cmd"])
            found = COMMAND_OF_A_STAGE.search(command)
            assert found and found["profile"] == "profile"
            assert f"-m stages.{found['name']} " in command
    assert recorded_seconds("colourisation.train", "embedded", Path("x/train/bn")) > 0
    assert recorded_seconds("colourisation.score", "embedded", Path("x/colourisation")) > 0
    assert recorded_seconds("common.render", "embedded", Path("x/colourisation.html")) is None


@pytest.mark.parametrize(
    ("address", "profile", "says"),
    [
        ("stages/alpha/dvc.yaml:train@embedded-bn_sn", "embedded", "alpha train@bn_sn"),
        ("stages/alpha/dvc.yaml:prepare@embedded", "embedded", "alpha prepare"),
        ("verdicts@embedded", "embedded", "verdicts"),
        ("data.dvc", "", "data.dvc"),
    ],
)
def test_a_stage_is_called_by_paper_verb_and_cell(address, profile, says):
    assert label(address, profile) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.0, "less than a minute"),
        (59.0, "less than a minute"),
        (61.0, "about 1 min"),
        (569.0, "about 9 min"),
        (3569.0, "about 59 min"),
        (3571.0, "about 1 h"),
        (7900.0, "about 2 h 10 min"),
        (3 * 86400.0, "about 3 days"),
    ],
)
def test_durations_are_said_roughly(seconds, says):
    assert about(seconds) == says


def step(name, *after, seconds=HEADWAY):
    return Step(name, name, frozenset(after), seconds, False)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_time_left_is_scaled_by_what_stages_took_here():
    clock = Clock()
    progress = Progress([step("a"), step("b", "a"), step("c", "b")], clock=clock)
    assert progress.hear("Running stage 'a':") == "[1/3] a · about 3 min left"
    clock.now = 5 * HEADWAY  # five times as long; and a minute as expected: three times
    assert progress.hear("Running stage 'b':") == "[2/3] b · about 6 min left"
    clock.now += HEADWAY
    assert progress.seconds_left() == 2 * 3 * HEADWAY - HEADWAY
    assert progress.done == 1 and progress.running == ["b"]


def test_stages_that_dvc_leaves_out_do_not_change_the_speed():
    progress = Progress([step("a"), step("b", "a"), step("c", "b")], clock=Clock())
    assert progress.hear("Stage 'a' is cached - skipping run, checking out outputs") is None
    assert progress.hear("Stage 'b' didn't change, skipping") is None
    assert progress.hear("Running stage 'c':") == "[3/3] c · about 1 min left"


def test_time_left_is_the_longest_chain_if_enough_run_at_once():
    chain = [step("a"), step("b", "a"), step("c", "b"), step("d", seconds=90.0)]
    several = Progress(chain, jobs=2, clock=Clock())
    several.measured = several.expected
    assert several.seconds_left() == 3 * HEADWAY
    several.finish("a")
    assert several.seconds_left() == 2 * HEADWAY
    several.finish("b")
    assert several.seconds_left() == 90


def test_several_at_once_gain_nothing_until_it_is_measured():
    free = [step(name) for name in "abcd"]
    assert Progress(free, jobs=2).seconds_left() == Progress(free).seconds_left() == 4 * HEADWAY


def test_without_an_earlier_run_no_time_is_guessed():
    progress = Progress([step("a", seconds=None)])
    assert progress.hear("Running stage 'a':") == "[1/1] a"
    assert progress.seconds_left() is None


def test_what_a_stage_prints_is_not_taken_for_dvc():
    progress = Progress([step("a")])
    assert progress.hear("Running stage 'b':") is None
    assert progress.hear("  Running stage 'a':") is None
    assert progress.done == 0
