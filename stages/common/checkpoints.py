"""Checkpoints of a running stage: outside DVC's outs, keyed by what the run is, gone on success.

DVC empties a stage's outs before it runs, so a checkpoint among them would be lost. These lie in
``$CKPT_DIR``, else ``$DVC_ROOT/.ckpt``, else ``.ckpt``, in a folder named by a hash of the run's
parameters and of the source of every loaded ``stages`` module: a run is never half old code.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from stages.common.errors import InputError
from stages.common.files import write_bytes


def code_hash() -> str:
    """Return the SHA-256 over the sources of all loaded modules below ``stages``."""
    files = {}
    for key, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        name = spec.name if key == "__main__" and spec else key  # of `python -m stages...` too
        if name.split(".")[0] == "stages" and getattr(module, "__file__", None):
            files[name] = Path(module.__file__)  # type: ignore[arg-type]
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint(params: Mapping) -> str:
    """Return the SHA-256 of a run: its parameters (JSON-able) and the code that is loaded."""
    text = json.dumps(params, sort_keys=True, default=str)
    return hashlib.sha256((text + code_hash()).encode()).hexdigest()


def checkpoint_root() -> Path:
    """Return the folder that holds all checkpoints; the same in DVC's temporary checkouts."""
    if os.environ.get("CKPT_DIR"):
        return Path(os.environ["CKPT_DIR"])
    return Path(os.environ.get("DVC_ROOT", ".")) / ".ckpt"


class Checkpoint:
    """The resume file of one run.

    Parameters
    ----------
    name : what a person sees, e.g. "colourisation-train-bn-s0".
    params : all that the run's result depends on, the data's hash included.
    """

    def __init__(self, name: str, params: Mapping):
        self.run = fingerprint(params)
        self.folder = checkpoint_root() / f"{name}-{self.run[:16]}"
        self.file = self.folder / "state.pt"

    @contextmanager
    def lock(self):
        """Hold the run for this process.

        Raises
        ------
        InputError
            If another live process trains the same run, or the folder cannot be made or locked.
        """
        file = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("w")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if file is not None:
                file.close()
            raise InputError(
                self.folder,
                "is in use",
                expected="one process a run",
                found="another process that trains the same run",
                remedy="wait for it, or end it and run again: it resumes",
            ) from error
        except OSError as error:
            if file is not None:
                file.close()
            raise InputError(
                self.folder,
                "cannot hold checkpoints",
                expected="a folder that can be written and locked",
                found=error.strerror or error,
                remedy="set CKPT_DIR to such a folder",
            ) from error
        with file:
            yield self

    def save(self, state: Mapping) -> None:
        """Replace the checkpoint as a whole; ``state`` is what :func:`torch.save` takes."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_bytes(self.file, buffer.getvalue())

    def load(self) -> dict | None:
        """Return what was saved last, or None if there is nothing or it cannot be read."""
        if not self.file.exists():
            return None
        try:
            saved = torch.load(self.file, weights_only=True, map_location="cpu")
            if isinstance(saved, dict):
                return saved
            raise TypeError("a checkpoint is a dict")
        except Exception as error:  # torch raises many kinds; a resume file is never worth a stop
            print(
                f"{self.file}: damaged ({type(error).__name__}), starting from step 0", flush=True
            )
            return None

    def discard(self) -> None:
        """Delete it: the run is done and its results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)
