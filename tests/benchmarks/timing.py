"""Ways to do the same thing, taking turns in one process: seconds, arithmetic, memory.

A sample is as many calls of a way as take ``Settings.seconds``; in every round each way gives one.
Reported are the median, the least and the largest of the samples, a call each. Ratios are taken
between samples of the same round, and of them the same three numbers.

Of a CPU the seconds are those in which this process, or one that it started and waited for, had a
core, so that the turns of other programs do not count (what they do to caches and to the clock rate
does); a way that works in several processes at once has those of the wall clock, and is compared by
the wall clock. Of a GPU they are what CUDA events say. ``wall`` is the wall clock's median.
"""

import ctypes
import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

Call = Callable[[], object]
MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    device : "cpu" or "cuda"; of training steps and of what a GPU can do.
    repeats : rounds.
    seconds : of a sample, at least.
    """

    device: str = "cpu"
    repeats: int = 7
    seconds: float = 0.3
    quick: bool = False

    @property
    def profile(self) -> str:
        """Whose sizes the steps have."""
        return "gpu" if self.device == "cuda" else "embedded"

    def sized(self, full: int, quick: int) -> int:
        """Return a size for this run."""
        return quick if self.quick else full


@dataclass
class Way:
    """One way to do it.

    build : makes what is called; what it takes belongs to the way's memory.
    what : in words.
    precision : whose measured peak the arithmetic is compared with.
    apart : it works in several processes at once.
    flops : count the floating-point operations.
    """

    build: Callable[[], Call]
    what: str
    precision: str = "fp32"
    apart: bool = False
    flops: bool = False
    samples: dict[str, list[float]] = field(default_factory=lambda: {"own": [], "wall": []})


def cpu_seconds() -> float:
    """Return the seconds of a CPU that this process took, and those it waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


class Turn:
    """Times a block: ``own`` seconds and those of the wall clock."""

    def __init__(self, device: str):
        self.events = None
        if device == "cuda":
            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def __enter__(self) -> "Turn":
        if self.events:
            torch.cuda.synchronize()
            self.events[0].record()
        self.wall, self.own = -time.perf_counter(), -cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        if self.events:
            self.events[1].record()
            torch.cuda.synchronize()
        self.wall, self.own = self.wall + time.perf_counter(), self.own + cpu_seconds()
        if self.events:
            self.own = self.events[0].elapsed_time(self.events[1]) / 1e3


def three(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


# ---------------------------------------------------------------- memory


def status(key: str) -> float:
    """Return an entry of /proc/self/status, MiB."""
    text = Path("/proc/self/status").read_text()
    return float(text.split(f"{key}:")[1].split()[0]) / 1024


def settle() -> None:
    """Give freed memory back to the system."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # no glibc
        pass


@contextmanager
def peak_memory(device: str) -> Iterator[dict[str, float | str]]:
    """Measure how far memory rises above what was held before, MiB; of a GPU its own memory."""
    found: dict[str, float | str] = {}
    settle()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield found
        torch.cuda.synchronize()
        found["MiB"] = (torch.cuda.max_memory_allocated() - before) / MIB
        return
    held = status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError as error:
        found["not_measured"] = f"/proc/self/clear_refs: {error.strerror}"
    yield found
    if not found:
        found["MiB"] = status("VmHWM") - held


# ---------------------------------------------------------------- arithmetic


def count_flops(call: Call, calls: int) -> int:
    """Return the floating-point operations of convolutions and matrix products in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        for _ in range(calls):
            call()
    return round(counter.get_total_flops() / calls)


def peaks(settings: Settings) -> dict[str, dict]:
    """Measure what the machine can do: a large matrix product and a large copy, one thread."""
    torch.set_num_threads(1)
    cuda = settings.device == "cuda"
    tf32, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    side = settings.sized(8192 if cuda else 2048, 512)
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        n = side if cuda or dtype == torch.float32 else side // 4  # few CPUs compute in bf16
        a, b = (torch.randn(n, n, device=settings.device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        way = Way(lambda a=a, b=b, out=out: lambda: torch.mm(a, b, out=out), "matmul")
        take_turns({name: way}, settings)
        rates = [2 * n**3 / s / 1e12 for s in way.samples["own"]]
        found[name] = {"TFLOP_per_s": three(rates), "what": f"{n} x {n} x {n}, {dtype}"}
    floats = settings.sized(2**30 if cuda else 2**25, 2**20)
    source = torch.randn(floats, device=settings.device)
    target = torch.empty_like(source)
    way = Way(lambda: lambda: target.copy_(source), "copy")
    take_turns({"copy": way}, settings)
    rates = [8 * floats / s / 1e9 for s in way.samples["own"]]
    found["copy"] = {
        "GB_per_s": three(rates),
        "what": f"{4 * floats / MIB:g} MiB, bytes read and written",
    }
    torch.backends.cuda.matmul.allow_tf32 = tf32
    return found


# ---------------------------------------------------------------- taking turns


def take_turns(ways: Mapping[str, Way], settings: Settings, *, period: int = 1) -> dict[str, dict]:
    """Build every way, warm it up, and give each a sample in every round.

    Parameters
    ----------
    period : a sample has a multiple of so many calls, if calls differ.

    Returns
    -------
    By name: calls of a sample, peak memory, operations of a call; or why it was not measured.
    """
    calls: dict[str, Call] = {}
    facts: dict[str, dict] = {}
    for name, way in ways.items():
        try:
            with peak_memory(settings.device) as memory:
                calls[name] = way.build()
                for _ in range(period):
                    calls[name]()
            with Turn(settings.device) as turn:
                for _ in range(period):
                    calls[name]()
        except Exception as error:  # of one way; the others are measured
            if name == next(iter(ways)):
                raise
            calls.pop(name, None)
            facts[name] = {"not_measured": f"{type(error).__name__}: {str(error)[:300]}"}
            continue
        taken = max(turn.wall if way.apart else turn.own, 1e-7)
        times = period * max(1, round(settings.seconds / taken))
        facts[name] = {"what": way.what, "calls": times, "peak_memory": memory}
        if way.flops:
            facts[name]["flops"] = count_flops(calls[name], period)
    for _ in range(settings.repeats):
        for name, call in calls.items():
            with Turn(settings.device) as turn:
                for _ in range(facts[name]["calls"]):
                    call()
            ways[name].samples["own"].append(turn.own / facts[name]["calls"])
            ways[name].samples["wall"].append(turn.wall / facts[name]["calls"])
    return facts


def compare(
    ways: Mapping[str, Way],
    settings: Settings,
    *,
    what: str,
    against: Sequence[str],
    images: int | None = None,
    moved: int | None = None,
    period: int = 1,
    target: float | None = None,
    peak: Mapping[str, Mapping] | None = None,
    **more: object,
) -> dict:
    """Measure ways that do the same and return an entry of the results; ours is the first.

    Parameters
    ----------
    against : the ways that all others are compared with; the first is the baseline.
    images, moved : in a call; bytes that are read and written.
    target : times as fast as the baseline that ours should be.
    peak : of :func:`peaks`.
    """
    facts = take_turns(ways, settings, period=period)
    entries = {}
    for name, way in ways.items():
        entry = entries[name] = facts[name]
        if "not_measured" in entry:
            continue
        own = "wall" if way.apart else "own"
        entry["seconds"] = three(way.samples[own])
        entry["wall"] = statistics.median(way.samples["wall"])
        seconds = entry["seconds"]["median"]
        if images:
            entry["images_per_s"] = images / seconds
        if moved:
            entry["GB_per_s"] = moved / seconds / 1e9
            if peak:
                entry["share_of_copy"] = entry["GB_per_s"] / peak["copy"]["GB_per_s"]["median"]
        if entry.get("flops"):
            entry["GFLOP_per_s"] = entry["flops"] / seconds / 1e9
            if peak:
                best = peak[way.precision]["TFLOP_per_s"]["median"]
                entry["share_of_peak"] = entry["GFLOP_per_s"] / 1e3 / best
        for other in against:
            if other == name or not ways[other].samples["own"]:
                continue
            clock = "wall" if way.apart or ways[other].apart else "own"
            pairs = zip(way.samples[clock], ways[other].samples[clock], strict=True)
            entry.setdefault("times_as_fast_as", {})[other] = three([b / a for a, b in pairs])
    ours, baseline = next(iter(ways)), against[0]
    found = {"what": what, "ways": entries, "baseline": baseline, "ours": ours, **more}
    reached = entries[ours].get("times_as_fast_as", {}).get(baseline)
    if target is not None and reached is not None:
        found |= {"target": target, "reached": reached["median"] >= target}
    return found


def cores() -> int:
    """Return how many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
