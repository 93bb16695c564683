"""One kind of error for everything that comes from outside: data, parameters, weights, keys."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """Bad input, said in one sentence: where, what, expected, found, what to do.

    Stages print it without a traceback and exit with status 2; see ``stages.common.stage``.
    """

    def __init__(
        self, where: str | Path, what: str, *, expected: object, found: object, remedy: str
    ):
        super().__init__(f"{where}: {what}: expected {expected}, found {found}; {remedy}")
        self._parts = (where, what), {"expected": expected, "found": found, "remedy": remedy}

    def __reduce__(self):
        """Survive the way back from a worker process."""
        args, kwargs = self._parts
        return _rebuild, (args, {key: str(value) for key, value in kwargs.items()})


def _rebuild(args: tuple, kwargs: dict) -> InputError:
    return InputError(*args, **kwargs)


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return "did you mean 'x'?" for a misspelled ``name``, or the list of what is known."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
