"""How far a run of the pipeline is, and about how long the rest takes."""

import re
import time
from collections.abc import Callable, Sequence

from stages.scoreboard.plan import Step

HEADWAY = (
    60.0  # seconds of work at the speed of the earlier run that the measured speed is mixed with
)
DAY, HOUR, MINUTE = 86400, 3600, 60
RUNS = re.compile(r"Running stage '([^']+)':")
SKIPS = re.compile(r"(?:Stage )?'([^']+)' (?:didn't change, skipping|is cached - skipping run)")


def about(seconds: float) -> str:
    """Write a duration as one would say it: "about 9 min", "about 2 h 10 min", "about 3 days"."""
    if seconds < MINUTE:
        return "less than a minute"
    if seconds < HOUR - MINUTE / 2:
        return f"about {round(seconds / MINUTE)} min"
    if seconds < 2 * DAY:
        hours, minutes = divmod(round(seconds / (10 * MINUTE)), 6)
        return f"about {hours} h" + (f" {minutes}0 min" if minutes else "")
    return f"about {round(seconds / DAY)} days"


class Progress:
    """Follows what DVC says: which steps it runs, which it leaves out, how long they take.

    Parameters
    ----------
    steps : what has to run at most, what is needed first first.
    jobs : how many run at once.
    clock : seconds, from any moment.
    """

    def __init__(
        self, steps: Sequence[Step], jobs: int = 1, clock: Callable[[], float] = time.monotonic
    ):
        self.jobs, self.clock, self.total = jobs, clock, len(steps)
        self.left = {step.address: step for step in steps}
        self.began: dict[str, float] = {}
        self.begun = 0
        self.expected = HEADWAY
        self.measured = HEADWAY * jobs  # until more is known, several at once gain nothing

    @property
    def done(self) -> int:
        """How many steps are over: run, taken from the cache, or not needed after all."""
        return self.total - len(self.left)

    @property
    def running(self) -> list[str]:
        """The labels of the steps that run now."""
        return [self.left[address].label for address in self.began]

    def hear(self, line: str) -> str | None:
        """Take in one line of DVC's; return what to say before it if a step begins."""
        if self.jobs == 1 and (RUNS.match(line) or SKIPS.match(line)):
            for address in list(self.began):
                self.finish(address)
        if (skips := SKIPS.match(line)) and skips[1] in self.left:
            self.begun += 1
            if self.jobs == 1:
                self.finish(skips[1])
        if (runs := RUNS.match(line)) and runs[1] in self.left:
            self.begun += 1
            self.began[runs[1]] = self.clock()
            said = f"[{self.begun}/{self.total}] {self.left[runs[1]].label}"
            seconds = self.seconds_left()
            return said if seconds is None else f"{said} · {about(seconds)} left"
        return None

    def finish(self, address: str) -> None:
        """Note that a step is over, and how long it took if it ran."""
        step = self.left.pop(address, None)
        start = self.began.pop(address, None)
        if step and step.seconds is not None and start is not None:
            self.measured += self.clock() - start
            self.expected += step.seconds

    def seconds_left(self) -> float | None:
        """Return how long all that is left takes; None if nothing is known.

        The seconds of earlier runs, scaled by what steps took in this one; as much at once as
        ``jobs`` and the longest chain of steps that need each other allow.
        """
        longest: dict[str, float] = {}
        work = 0.0
        for address, step in self.left.items():
            if step.seconds is None:
                return None
            seconds = step.seconds * self.measured / self.expected
            if address in self.began:
                seconds = max(0.0, seconds - (self.clock() - self.began[address]))
            work += seconds
            before = [longest[other] for other in step.after if other in longest]
            longest[address] = seconds + max(before, default=0.0)
        return max(work / self.jobs, *longest.values()) if longest else 0.0
