"""A stage forked from a process with its imports done is the stage that starts by itself."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from stages.scoreboard.prefork import ITS_OWN, prefork, shared

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import os, sys, time
told = sys.argv[1:]
print("torch" in sys.modules, "stages.common" in sys.modules, __name__, *told, flush=True)
print(os.environ.get("DVC_STAGE"), os.getcwd(), file=sys.stderr, flush=True)
if "sleep" in told:
    open("pid", "w").write(str(os.getpid()))
    time.sleep(300)
if "read" in told:
    print(sys.stdin.read())
sys.exit(int(told[0]) if told and told[0].isdecimal() else "words" if "words" in told else 0)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a module ``hello`` in which a server runs, and the environment of DVC there."""
    folder = tmp_path_factory.mktemp("prefork")
    (folder / "hello.py").write_text(MODULE)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("LAUNCH", None)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with prefork(env) as env:
            yield folder, env
    finally:
        os.chdir(before)


def command(env, *words):
    return [*env.get("LAUNCH", "").split(), "python", "-m", "hello", *words]


def call(here, *words, **more):
    """Call the module as DVC does."""
    folder, env = here
    env = {**env, "DVC_STAGE": "hello", **more}
    return subprocess.run(
        command(env, *words), cwd=folder, env=env, capture_output=True, text=True,
        input="from here", check=False, timeout=100,
    )  # fmt: skip


@contextmanager
def sleeping(here):
    """Let the module sleep; yield the client's process and the stage's."""
    folder, env = here
    (folder / "pid").unlink(missing_ok=True)
    client = subprocess.Popen(command(env, "sleep"), cwd=folder, env=env, stdout=subprocess.PIPE)
    try:
        assert client.stdout and client.stdout.readline().startswith(b"True")
        until = time.monotonic() + 60
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        yield client, psutil.Process(int((folder / "pid").read_text()))
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def gone(process):
    """Tell whether the process ends within a minute."""
    try:
        process.wait(60)
    except psutil.TimeoutExpired:
        return False
    return True


def test_it_has_the_libraries_and_nothing_of_the_project(here):
    done = call(here, "0", "a b", "*")
    assert done.stdout == "True False __main__ 0 a b *\n"
    assert done.stderr == f"hello {here[0]}\n"
    assert done.returncode == 0


def test_the_status_is_the_modules(here):
    assert call(here, "3").returncode == 3
    said = call(here, "words")
    assert said.returncode == 1 and said.stderr.endswith("words\n")


def test_it_reads_what_the_command_is_given(here):
    assert "from here" in call(here, "read").stdout


def test_an_environment_that_libraries_might_read_is_no_servers(here):
    done = call(here, "4", OMP_DYNAMIC="true")
    assert done.stdout.startswith("False") and done.returncode == 4
    assert call(here, "4", DVC_ROOT="elsewhere").stdout.startswith("True")


def test_another_folder_is_no_servers(here, tmp_path):
    (tmp_path / "hello.py").write_text(MODULE)
    folder, env = here
    client = [str(folder / word) if word.endswith("client.py") else word for word in command(env)]
    done = subprocess.run(client, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")


def test_two_run_at_once(here):
    with sleeping(here) as (_, stage):
        assert call(here, "5").returncode == 5
        assert stage.is_running()


def test_without_a_server_the_stage_starts_by_itself(here, tmp_path):
    folder, env = here
    *client, address = env["LAUNCH"].split()
    launch = " ".join([*client, f"{address}-that-is-not-there"])
    done = call((folder, {**env, "LAUNCH": launch}), "6")
    assert done.stdout.startswith("False") and done.returncode == 6


# a KeyboardInterrupt that a module does not catch is status 1; stages catch it
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 1)]
)
def test_a_signal_reaches_the_stage_and_its_end_is_the_clients(here, number, status):
    with sleeping(here) as (client, stage):
        client.send_signal(number)
        assert gone(stage)
        assert client.wait(60) == status


def test_a_killed_client_takes_its_stage_along(here):
    with sleeping(here) as (client, stage):
        client.kill()
        assert gone(stage)
    assert call(here, "7").returncode == 7  # and the server goes on


def test_a_killed_server_takes_its_stages_along(tmp_path, monkeypatch):
    (tmp_path / "hello.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("LAUNCH", None)
    with prefork(env) as env, sleeping((tmp_path, env)) as (client, stage):
        stage.parent().kill()
        assert gone(stage)
        assert client.wait(60) == 1
        assert call((tmp_path, env), "8").stdout.startswith("False")


def test_a_launch_of_the_user_is_kept():
    env = {"LAUNCH": "nice -n 5"}
    with prefork(env) as same:
        assert same == env


def test_what_dvc_tells_a_stage_is_its_own():
    told = dict.fromkeys(ITS_OWN, "x") | {"DVC_STAGE": "train", "OMP_NUM_THREADS": "1"}
    assert shared(told) == {"OMP_NUM_THREADS": "1"}


def test_all_libraries_of_the_server_are_pinned_here():
    """The server imports what is installed; a library that is gone would end it."""
    from stages.scoreboard.prefork import LIBRARIES

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import importlib; list(map(importlib.import_module, {LIBRARIES}))",
        ],
        check=False,
    )
    assert done.returncode == 0
