"""One kind of error for everything that comes from outside: data, parameters, weights, keys."""

import reprlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

LONGEST = 400  # characters of a part of the sentence; of a longer one both ends are shown
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring = 3, 8, 8, LONGEST


class InputError(ValueError):
    """Bad input, said in one sentence: where, what, expected, found, what to do.

    Stages print it without a traceback and exit with status 2; see ``stages.common.stage``.
    Whatever the parts hold, the sentence is one line of printable characters.
    """

    def __init__(
        self, where: str | Path, what: str, *, expected: object, found: object, remedy: str
    ):
        named = one_line(where)
        said, wanted, got, advice = (
            one_line(" ".join(str(part).splitlines())) for part in (what, expected, found, remedy)
        )
        super().__init__(f"{named}: {said}: expected {wanted}, found {got}; {advice}")
        self._parts = (where, what), {"expected": expected, "found": found, "remedy": remedy}

    def __reduce__(self):
        """Survive the way back from a worker process."""
        args, kwargs = self._parts
        return _rebuild, (args, {key: str(value) for key, value in kwargs.items()})


def _rebuild(args: tuple, kwargs: dict) -> InputError:
    return InputError(*args, **kwargs)


def one_line(text: object) -> str:
    """Return text as one line of printable characters, its middle cut out if it is long."""
    whole = str(text)
    if len(whole) > LONGEST:
        whole = f"{whole[: LONGEST // 2]}...{whole[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in whole)


def shown(value: object) -> str:
    """Return ``repr(value)``, of large or deep values the beginning."""
    try:
        return SHORT.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a {type(value).__name__} of too many digits"


def cause(error: Exception) -> str:
    """Return a library's words on a file that it could not read, but no advice to unpickle it."""
    words = " ".join(str(error).split())
    if "pickle" in words.lower() or "weights only" in words.lower():
        return "something else, or pickled objects, which may hold code and are never loaded"
    return words or type(error).__name__


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return "did you mean 'x'?" for a misspelled ``name``, or the list of what is known."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
