"""Mends locks that a kill cut off; ``make reproduce`` runs it first.

``python -m stages.scoreboard.mend``. DVC writes a dvc.lock in place: killed within that fraction of
a second it leaves the first part of it, which it then either refuses or, if the cut falls between
two lines, believes. Here the whole entries of the part are kept, and those of the last commit that
are missing are added; so the entries of other profiles are not lost. What ran since the commit DVC
then finds in its run cache, without running it again. In place DVC writes also .dvc/tmp/rwlock, its
list of who reads and writes what: cut off, that stops every ``dvc repro``, and is removed here.
Nothing is printed where nothing is wrong.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from stages.common.errors import InputError
from stages.common.files import write_text
from stages.scoreboard.rehash import locks, parse

HEAD = "schema: '2.0'\nstages:\n"
RWLOCK = ".dvc/tmp/rwlock"
WRITING_SECONDS = 2.0  # a lock that still changes is being written, not cut off
BLOCK = re.compile(r"(?m)^  (\S.*):\n")  # a stage's name; what belongs to it is indented further


def blocks(text: str) -> dict[str, str]:
    """Return {stage: its lines} of a lock's text, which may be cut off."""
    begins = [*BLOCK.finditer(text)]
    ends = [*(match.start() for match in begins[1:]), len(text)]
    return {match[1]: text[match.start() : end] for match, end in zip(begins, ends, strict=False)}


def mended(text: str, committed: str) -> str | None:
    """Return a lock without what a kill did to it, "" if nothing is left, or None if it is whole.

    Parameters
    ----------
    text : the lock as it is.
    committed : the lock of the last commit; "" if there is none.
    """
    kept, known = blocks(text), blocks(committed)
    try:
        parse(text, "dvc.lock")
        if kept.keys() >= known.keys():
            return None
    except InputError:
        pass
    if kept:
        last = [*kept][-1]
        if kept[last] != known.get(last):
            del kept[last]  # it may be cut, too
    missing = {name: block for name, block in known.items() if name not in kept}
    both = [*kept.values(), *missing.values()]
    return HEAD + "".join(both) if both else ""


def mend(root: Path = Path()) -> list[str]:
    """Mend the locks below ``root``; return a sentence for each that was."""
    told = freed(root)
    for path in locks(root):
        if path.suffix != ".lock":
            continue
        name = str(path.relative_to(root))
        shown = subprocess.run(
            ["git", "show", f"HEAD:./{name}"], cwd=root, capture_output=True, text=True, check=False
        )
        text = path.read_text(encoding="utf-8", errors="replace")
        new = mended(text, shown.stdout if shown.returncode == 0 else "")
        if new is None or _changes(path, text):
            continue
        if new:
            write_text(path, new)
        else:
            path.unlink()
        told.append(
            f"{name}: was cut off by a kill: {len(blocks(text))} entries found,"
            f" {len(blocks(new))} now; DVC finds what is missing in its run cache"
        )
    return told


def freed(root: Path) -> list[str]:
    """Remove DVC's list of readers and writers if it is cut off: who is alive enters it anew."""
    path = root / RWLOCK
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        json.loads(text)
    except ValueError:
        if not _changes(path, text):
            path.unlink()
            return [f"{RWLOCK}: was cut off by a kill and stopped every dvc repro; removed"]
    return []


def _changes(path: Path, text: str) -> bool:
    """Tell whether another process writes the lock at this moment."""
    time.sleep(WRITING_SECONDS)
    return not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text


if __name__ == "__main__":
    for sentence in mend():
        print(sentence, file=sys.stderr)
