import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.training import batch_at, fit, for_each_seed


@pytest.fixture(autouse=True)
def own_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))


class CutError(Exception):
    """Stand in for a kill."""


def toy_run(cut_at=None, name="toy", **kwargs):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.Linear(8, 1)
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    data = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))

    def step(i):
        if i == cut_at:
            raise CutError
        loss = net(data[batch_at(i, seed=0, size=32, batch_size=8)]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    def validate():
        net.eval()
        value = net(data).square().mean().item()
        net.train()
        return {"val": value}

    history = fit(
        step,
        state={"net": net, "optimizer": optimizer},
        steps=20,
        checkpoint=Checkpoint(name, {"lr": 1e-2}),
        log_every=2,
        images_per_step=8,
        label="toy",
        validate=validate,
        validate_every=4,
        save_seconds=0.0,
        **kwargs,
    )
    history.pop("images_per_s")
    return net.state_dict(), history


@pytest.mark.parametrize("cut_at", [1, 7, 12, 19])
def test_resumed_run_equals_uninterrupted(cut_at, capsys):
    whole, history = toy_run(name="whole")
    with pytest.raises(CutError):
        toy_run(cut_at, name="cut")
    resumed, resumed_history = toy_run(name="cut")
    assert ("resuming" in capsys.readouterr().out) == (cut_at >= 2)
    assert resumed_history == history
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_history_averages_over_the_log_interval_and_validates_each_epoch():
    _, history = toy_run()
    assert [entry["step"] for entry in history["log"]] == list(range(2, 21, 2))
    assert [entry["step"] for entry in history["epochs"]] == [4, 8, 12, 16, 20]


def test_a_checkpoint_of_other_parameters_is_not_used():
    checkpoint = Checkpoint("toy", {"lr": 1})
    checkpoint.save({"step": 3})
    assert Checkpoint("toy", {"lr": 1}).load() == {"step": 3}
    assert Checkpoint("toy", {"lr": 2}).load() is None


def test_a_damaged_checkpoint_is_named_and_not_used(capsys):
    checkpoint = Checkpoint("toy", {})
    checkpoint.save({"step": 3})
    checkpoint.file.write_bytes(checkpoint.file.read_bytes()[:100])
    assert checkpoint.load() is None
    assert "damaged" in capsys.readouterr().out


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    checkpoint = Checkpoint("toy", {})
    checkpoint.save({"step": 0})
    torch.save(Evil(), checkpoint.file)
    assert checkpoint.load() is None
    assert not (tmp_path / "owned").exists()


def test_a_second_process_on_the_same_run_is_refused():
    with (
        Checkpoint("toy", {}).lock(),
        pytest.raises(InputError, match="in use"),
        Checkpoint("toy", {}).lock(),
    ):
        pass


def test_a_folder_that_cannot_hold_checkpoints_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot hold checkpoints.*set CKPT_DIR"):
        with Checkpoint("toy", {}).lock():
            pass


def test_the_key_covers_the_source_of_the_stage_that_python_m_runs(tmp_path):
    """Run as a module the stage is called __main__; an edit of it must change the key."""
    package = tmp_path / "stages"
    package.mkdir()
    (package / "__init__.py").write_text(f"__path__.append({os.path.abspath('stages')!r})\n")
    keys = []
    for comment in ("", "# edited"):
        (package / "probe.py").write_text(
            "from stages.common.checkpoints import fingerprint\n"
            f"print(fingerprint({{}})) {comment}\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "stages.probe"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        keys.append(done.stdout)
    assert len(keys[0].strip()) == 64 and keys[0] != keys[1]


def test_discard_leaves_nothing():
    checkpoint = Checkpoint("toy", {})
    checkpoint.save({"step": 1})
    checkpoint.discard()
    assert not checkpoint.folder.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_divergence_stops_with_the_step_and_the_last_losses(bad):
    with pytest.raises(FloatingPointError, match=r"step 5.*loss.*last finite entry.*'loss': 4\.0"):
        fit(
            lambda i: {"loss": bad if i == 5 else 4.0},
            state={},
            steps=10,
            checkpoint=Checkpoint("nan", {}),
            log_every=2,
            images_per_step=1,
            label="nan",
        )


def test_batches_are_permutations_of_each_epoch_and_depend_on_seed_and_step_alone():
    epoch = torch.cat([batch_at(i, seed=3, size=17, batch_size=4) for i in range(4)])
    assert len(epoch.unique()) == 16
    assert torch.equal(epoch[4:8], batch_at(1, seed=3, size=17, batch_size=4))
    assert not torch.equal(epoch[:4], batch_at(4, seed=3, size=17, batch_size=4))
    assert not torch.equal(epoch[:4], batch_at(0, seed=4, size=17, batch_size=4))


def _seed_and_threads(seed, position, threads, offset):
    torch.set_num_threads(threads)
    if seed == 13:
        raise InputError("here", "unlucky", expected="luck", found=seed, remedy="try again")
    torch.manual_seed(seed)
    return {"seed": seed + offset, "position": position, "draw": torch.rand(()).item()}


def test_each_seed_runs_alike_alone_and_beside_another(monkeypatch):
    beside = for_each_seed(_seed_and_threads, [5, 6], threads=1, offset=1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    alone = for_each_seed(_seed_and_threads, [5, 6], threads=1, offset=1)
    assert [r["seed"] for r in beside] == [6, 7]
    assert [r["draw"] for r in beside] == [r["draw"] for r in alone]


def test_an_error_of_a_worker_keeps_its_sentence():
    with pytest.raises(InputError, match="here: unlucky: expected luck, found 13; try again"):
        for_each_seed(_seed_and_threads, [1, 13], threads=1, offset=0)


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    """SIGKILL in the middle of a step, in another process, then run again."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys, torch
            from stages.common.checkpoints import Checkpoint
            from stages.common.training import fit
            torch.manual_seed(0)
            net = torch.nn.Linear(3, 3)
            optimizer = torch.optim.Adam(net.parameters(), 0.1)
            def step(i):
                if i == int(sys.argv[1]):
                    os.kill(os.getpid(), signal.SIGKILL)
                loss = net(torch.randn(4, 3)).square().mean()
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                return {"loss": loss}
            fit(step, state={"net": net, "optimizer": optimizer}, steps=12,
                checkpoint=Checkpoint("kill", {}), log_every=2, images_per_step=4, label="kill",
                save_seconds=0.0)
            print("weights", net.weight.detach().numpy().tobytes().hex())
            """
        )
    )

    def go(kill_at, folder):
        return subprocess.run(
            [sys.executable, script, str(kill_at)],
            env={**os.environ, "CKPT_DIR": str(tmp_path / folder), "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=False,
        )

    whole = go(-1, "whole")
    killed = go(7, "cut")
    resumed = go(-1, "cut")
    assert killed.returncode == -signal.SIGKILL
    assert "resuming at step 6" in resumed.stdout
    weights = [line for line in whole.stdout.splitlines() if line.startswith("weights")]
    assert weights and weights[0] in resumed.stdout
