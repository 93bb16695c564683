"""The parts of a page that are computed: what stands between two marks of a name."""

from pathlib import Path

from stages.common.errors import InputError


def filled(text: str, name: str, block: str, page: str | Path) -> str:
    """Return ``text``, of the file ``page``, with ``block`` between the marks of ``name``.

    The marks are the lines ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

    Raises
    ------
    InputError
        If the marks are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, first, rest = text.partition(f"{begin}\n")
    _, second, tail = rest.partition(end)
    if not first or not second:
        raise InputError(
            page,
            f"has no place for {name}",
            expected=f"the lines {begin} and {end}",
            found="not both of them, in this order",
            remedy="put them where the figures should stand",
        )
    return f"{head}{begin}\n{block.rstrip()}\n{end}{tail}"
