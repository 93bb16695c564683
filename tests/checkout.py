"""A copy of this checkout in which the pipeline can run, as a user's clone of it."""

import os
import shutil
import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=smoke", "-c", "user.email=smoke@example.org")


def shell(*command, cwd, **env):
    """Run a command there; its stages come from there, and its checkpoints stay there."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), "CKPT_DIR": "", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def must(*command, cwd, **env):
    """Run a command that has to succeed; return all it said."""
    done = shell(*command, cwd=cwd, **env)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def copy_checkout(here):
    """Copy what git knows or would add, and fetch the embedded images; nothing has run."""
    listed = must("git", "ls-files", "-co", "--exclude-standard", cwd=Path())
    for name in listed.splitlines():
        if Path(name).is_file():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, here / name)
    must("git", "init", "-q", cwd=here)
    must("dvc", "pull", "data.dvc", cwd=here)
    return here


def choose_profile(here, profile):
    """Set the profile that ``dvc repro`` runs."""
    params = here / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert "\nprofile: embedded" in text
    changed = text.replace("\nprofile: embedded", f"\nprofile: {profile}", 1)
    params.write_text(changed, encoding="utf-8")
