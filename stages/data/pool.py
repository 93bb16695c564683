"""Work on many small things at once: a process pool, in order, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2
from tqdm import tqdm

from stages.common.stage import die_with_parent

T = TypeVar("T")
R = TypeVar("R")
CHUNK = 64  # items a message; a message costs about a millisecond
WORTH_A_POOL = 1000  # items; below, starting the processes takes longer than the work


def processes() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    """End with the process that started this one; one OpenCV thread, more only compete."""
    die_with_parent()
    cv2.setNumThreads(1)


def ordered_map(
    function: Callable[[T], R], items: Sequence[T], *, title: str, workers: int | None = None
) -> Iterator[R]:
    """Yield ``function(item)`` for all items, in their order.

    Parameters
    ----------
    function : a module's top-level function, or a ``functools.partial`` of one; it is sent to
        fresh processes ("spawn": no thread or lock of this process is copied).
    title : what the progress bar says.
    workers : processes; 1 works in this one. Default: all CPUs for 1,000 items and more.
    """
    if workers is None:
        workers = processes() if len(items) >= WORTH_A_POOL else 1
    bar = tqdm(total=len(items), desc=title, unit="image", mininterval=1)
    with bar:
        if workers == 1:
            for item in items:
                yield function(item)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
        try:
            for result in pool.map(function, items, chunksize=CHUNK):
                yield result
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
