"""The one training loop. It knows no network and no loss: a stage hands it a step."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from tqdm import tqdm

from stages.common.checkpoints import Checkpoint
from stages.common.device import full_precision
from stages.common.stage import die_with_parent


def set_up(*, threads: int, precision: str) -> Fabric:
    """Choose device and precision, fix the thread count, ask for deterministic algorithms.

    Under ``torchrun`` the processes it started form one DDP group, in which each keeps the running
    averages of its own images: DDP would copy the first's into the others at every call of a
    network, and a network that is called twice before its gradient is taken would then have lost
    what the gradient needs. What is saved are the first process's. The thread count changes the
    order of sums and so the last bits of the weights: it is a parameter, not a placement.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # what use_deterministic_algorithms would fill is never read: a seventh of a small net's step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    full_precision()
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    strategy = DDPStrategy(broadcast_buffers=False) if devices > 1 else "auto"
    how: dict[str, Any] = {"strategy": strategy, "devices": devices, "precision": precision}
    fabric = Fabric(accelerator="auto", **how)
    fabric.launch()
    return fabric


def batch_at(i: int, *, seed: int, size: int, batch_size: int) -> torch.Tensor:
    """Return the image indices of batch ``i``, int64 (batch_size,): a function of (seed, i) alone.

    Every epoch is a fresh permutation of ``range(size)``; its incomplete last batch is dropped.
    """
    epoch, place = divmod(i, size // batch_size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return order[place * batch_size : (place + 1) * batch_size]


def _average(sums: Mapping[str, list]) -> dict[str, float]:
    return {name: float(total) / count for name, (total, count) in sums.items()}


def fit(
    step: Callable[[int], Mapping[str, Any]],
    *,
    state: Mapping[str, Any],
    steps: int,
    checkpoint: Checkpoint,
    log_every: int,
    images_per_step: int,
    label: str,
    validate: Callable[[], Mapping[str, float]] | None = None,
    validate_every: int = 0,
    save_seconds: float = 60.0,
    check_every: int = 1,
    position: int = 0,
    fabric: Fabric | None = None,
) -> dict[str, Any]:
    """Call ``step(i)`` for i in 0 .. steps - 1, or from where this run was interrupted.

    Parameters
    ----------
    step : one update of the networks; returns scalars to log (floats or 0-d tensors).
    state : {name: object with state_dict}; all that ``step`` changes.
    checkpoint : the run's; it is kept at the end, the caller discards it when its outs are written.
    log_every : steps that one entry of the log averages over; scalars that a step omits do not
        count.
    validate : called each ``validate_every`` steps; returns scalars for the history's "epochs".
    save_seconds : least time between two checkpoints; they fall on log entries.
    check_every : steps between two looks for NaN; a look makes a GPU wait.
    fabric : of a DDP group only the first process saves; all load what it saved.

    Returns
    -------
    {"log": [{step, ...}], "epochs": [{step, ...}], "images_per_s": of this process, this session}

    Raises
    ------
    FloatingPointError
        If a scalar is NaN or infinite: names the step and the last finite log entry.
    """
    log: list[dict[str, float]] = []
    epochs: list[dict[str, float]] = []
    start = 0
    saved = checkpoint.load()
    if saved is not None:
        for name, part in state.items():
            part.load_state_dict(saved["state"][name])
        torch.set_rng_state(saved["rng"])
        if saved["rng_cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved["rng_cuda"])
        start, log, epochs = saved["step"], saved["log"], saved["epochs"]
        print(f"{label}: resuming at step {start} of {steps}", flush=True)
    sums: dict[str, list] = {}
    begun = last_save = time.monotonic()
    terminal = sys.stderr.isatty()
    bar = tqdm(
        range(start, steps),
        initial=start,
        total=steps,
        desc=label,
        unit="step",
        position=position,
        mininterval=0.5 if terminal else 20.0,
        leave=terminal,
    )
    for i in bar:
        for name, value in step(i).items():
            value = value.detach() if isinstance(value, torch.Tensor) else value
            total = sums.setdefault(name, [0.0, 0])
            total[0], total[1] = total[0] + value, total[1] + 1
        done = i + 1
        logging = done % log_every == 0 or done == steps
        if logging or done % check_every == 0:
            bad = {k: float(v[0]) for k, v in sums.items() if not math.isfinite(float(v[0]))}
            if bad:
                before = log[-1] if log else "none yet"
                raise FloatingPointError(
                    f"{label}: the losses diverged at step {i}: {bad}; last finite entry: {before};"
                    " nothing finished was overwritten; lower lr or set precision: 32-true"
                )
        if logging:
            log.append({"step": done, **_average(sums)})
            sums = {}
            rate = (done - start) * images_per_step / max(time.monotonic() - begun, 1e-9)
            shown = {k: f"{v:.3g}" for k, v in list(log[-1].items())[1:4]}
            bar.set_postfix({**shown, "images/s": f"{rate:.0f}"}, refresh=False)
        if validate is not None and done % validate_every == 0:
            epochs.append({"step": done, **validate()})
        due = done == steps or time.monotonic() - last_save >= save_seconds
        if logging and due and (fabric is None or fabric.is_global_zero):
            last_save = time.monotonic()
            checkpoint.save(
                {
                    "state": {name: part.state_dict() for name, part in state.items()},
                    "step": done,
                    "log": log,
                    "epochs": epochs,
                    "rng": torch.get_rng_state(),
                    "rng_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
                }
            )
    if fabric is not None:
        fabric.barrier()
    rate = (steps - start) * images_per_step / max(time.monotonic() - begun, 1e-9)
    return {"log": log, "epochs": epochs, "images_per_s": rate}


def for_each_seed(
    run: Callable[..., dict], seeds: list[int], *, threads: int, **kwargs
) -> list[dict]:
    """Return ``[run(seed=s, position=i, threads=threads, **kwargs)]`` for the i-th seed s.

    On a CPU as many seeds run at once, each in its own process, as there are cores for; with a GPU
    or under ``torchrun``, or with one seed, they run one after the other. The results are the same.
    """
    at_once = min(len(seeds), max(1, (os.cpu_count() or 1) // threads))
    if at_once == 1 or torch.cuda.is_available() or "WORLD_SIZE" in os.environ:
        return [run(seed=s, position=0, threads=threads, **kwargs) for s in seeds]
    context = get_context("fork")  # the children share what is imported already
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=die_with_parent) as pool:
        futures = [
            pool.submit(run, seed=s, position=i, threads=threads, **kwargs)
            for i, s in enumerate(seeds)
        ]
        return [future.result() for future in futures]
